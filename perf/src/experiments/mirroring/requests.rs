//! Clients: connections with one request after the other, whose answers are checked.

use crate::replicate::client::connect;
use crate::replicate::network::Network;
use crate::replicate::server::{ANSWER, Dialogue, PERIOD, REQUEST, Wish, stream};
use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A request that was answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answered {
    /// Seconds from the beginning to when it was, or should have been, sent.
    pub at: f64,
    /// Milliseconds from then to the last byte of its answer.
    pub latency_ms: f64,
}

/// When requests are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Each when the one before it has its answer.
    AnswerByAnswer,
    /// So many a second, whatever the answers: one that comes late makes the next ones late, and
    /// that counts.
    PerSecond(f64),
}

/// Connections with requests under way, until they are stopped.
#[derive(Debug)]
pub struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<Vec<Answered>>>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    answered: AtomicUsize,
    begin: Instant,
}

impl Clients {
    /// Starts so many on a CPU; each request costs the server `work_us` microseconds.
    pub fn start(
        network: &Network,
        connections: usize,
        pace: Pace,
        work_us: u64,
        cpu: usize,
    ) -> Result<Self> {
        let sockets = (0..connections)
            .map(|_| connect(network, Wish::Requests(work_us)))
            .collect::<Result<Vec<_>>>()?;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            answered: AtomicUsize::new(0),
            begin: Instant::now(),
        });
        let threads = sockets.into_iter().map(|socket| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
                Client::new(socket).run(&shared, pace)
            })
        });
        let threads = threads.collect();
        Ok(Clients { shared, threads })
    }

    /// Requests answered so far.
    pub fn answered(&self) -> usize {
        self.shared.answered.load(Ordering::Acquire)
    }

    /// How long they have been at it.
    pub fn elapsed(&self) -> Duration {
        self.shared.begin.elapsed()
    }

    /// An error when one of them has ended, which it does by an error only.
    pub fn must_run(&self) -> Result<()> {
        let ended = self.threads.iter().any(JoinHandle::is_finished);
        ensure!(!ended, "a client has ended");
        Ok(())
    }

    /// Ends them; what they have seen, in the order of the times, or an error that one of them had.
    pub fn stop(mut self) -> Result<Vec<Answered>> {
        self.shared.stop.store(true, Ordering::Release);
        let mut all = Vec::new();
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(answered) => all.extend(answered?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all.sort_by(|a, b| a.at.total_cmp(&b.at));
        Ok(all)
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
    }
}

struct Client {
    socket: TcpStream,
    stream: Vec<u8>,
    dialogue: Dialogue,
    sent: usize,
    answer: Vec<u8>,
}

impl Client {
    fn new(socket: TcpStream) -> Self {
        Client {
            socket,
            stream: stream(),
            dialogue: Dialogue::default(),
            sent: 0,
            answer: vec![0; ANSWER],
        }
    }

    fn run(mut self, shared: &Shared, pace: Pace) -> Result<Vec<Answered>> {
        let mut answered = Vec::new();
        while !shared.stop.load(Ordering::Acquire) {
            let due = match pace {
                Pace::AnswerByAnswer => shared.begin.elapsed(),
                Pace::PerSecond(rate) => Duration::from_secs_f64(self.sent as f64 / rate),
            };
            // It may be woken before its time.
            while let Some(left) = due.checked_sub(shared.begin.elapsed()) {
                if left.is_zero() {
                    break;
                }
                thread::park_timeout(left);
            }
            self.ask()
                .with_context(|| format!("request {}", self.sent))?;
            answered.push(Answered {
                at: due.as_secs_f64(),
                latency_ms: (shared.begin.elapsed() - due).as_secs_f64() * 1e3,
            });
            shared.answered.fetch_add(1, Ordering::AcqRel);
        }
        Ok(answered)
    }

    fn ask(&mut self) -> Result<()> {
        let at = (self.sent * REQUEST) % PERIOD;
        let request = &self.stream[at..at + REQUEST];
        self.socket.write_all(request)?;
        self.dialogue.take(request);
        self.sent += 1;
        self.socket
            .read_exact(&mut self.answer)
            .context("no answer")?;
        let expected = self.dialogue.answer(&self.stream);
        ensure!(self.answer == expected, "a wrong answer");
        Ok(())
    }
}
