//! The client: one connection, in a thread of this process whose socket is in the client's
//! namespace.

use super::network::{Network, PORT, VIP};
use super::server::{PERIOD, Wish, stream};
use anyhow::{Context, Result, ensure};
use nix::unistd::{Pid, gettid};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(10);
const PIECE: usize = 128 * 1024;

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the client.
    Download,
    /// From the client.
    Upload,
}

/// A transfer that goes on until it is stopped.
#[derive(Debug)]
pub struct Transfer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    thread: AtomicI32,
    bytes: AtomicU64,
    gaps: Mutex<Gaps>,
}

/// The longest time without a byte.
#[derive(Debug, Clone, Copy, Default)]
struct Gaps {
    last: Option<Instant>,
    longest: Duration,
}

/// A connection to the service, its wish sent.
pub fn connect(network: &Network, wish: Wish) -> Result<TcpStream> {
    let mut socket = network.client.connect((VIP, PORT).into(), TIMEOUT)?;
    socket.write_all(&wish.bytes())?;
    Ok(socket)
}

impl Transfer {
    /// Starts a transfer on `cpu`. A download is compared with what it must be.
    pub fn start(network: &Network, direction: Direction, cpu: usize) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        // More than any trial moves, so that it does not end by itself.
        let wish = match direction {
            Direction::Download => Wish::Download(u64::MAX),
            Direction::Upload => Wish::Upload(u64::MAX),
        };
        let socket = connect(network, wish)?;
        let theirs = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
            theirs.thread.store(gettid().as_raw(), Ordering::Release);
            match direction {
                Direction::Download => theirs.download(socket),
                Direction::Upload => theirs.upload(socket),
            }
        });
        Ok(Transfer {
            shared,
            thread: Some(thread),
        })
    }

    /// Bytes moved so far.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Acquire)
    }

    /// Its thread, once that runs.
    pub fn thread(&self) -> Option<Pid> {
        let thread = self.shared.thread.load(Ordering::Acquire);
        (thread != 0).then(|| Pid::from_raw(thread))
    }

    /// The longest time between two reads since this was asked last, the one under way included.
    pub fn longest_gap(&self) -> Duration {
        let mut gaps = lock(&self.shared.gaps);
        let running = gaps.last.map_or(Duration::ZERO, |last| last.elapsed());
        let longest = gaps.longest.max(running);
        gaps.longest = Duration::ZERO;
        longest
    }

    /// Whether it has ended, which it does by an error only.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it; its own error, if it had one.
    pub fn stop(mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Release);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(()),
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
    }
}

impl Shared {
    fn download(&self, mut socket: TcpStream) -> Result<()> {
        let expected = stream();
        let mut buffer = vec![0; PIECE];
        let mut at = 0_u64;
        while !self.stop.load(Ordering::Acquire) {
            let count = socket.read(&mut buffer);
            let count = count.with_context(|| format!("the download broke after {at} bytes"))?;
            ensure!(count > 0, "the download ended after {at} bytes");
            self.note_read();
            let from = (at % PERIOD as u64) as usize;
            ensure!(
                buffer[..count] == expected[from..from + count],
                "a wrong byte among the {count} from {at} on"
            );
            at += count as u64;
            self.bytes.store(at, Ordering::Release);
        }
        Ok(())
    }

    fn note_read(&self) {
        let now = Instant::now();
        let mut gaps = lock(&self.gaps);
        if let Some(last) = gaps.last.replace(now) {
            gaps.longest = gaps.longest.max(now - last);
        }
    }

    fn upload(&self, mut socket: TcpStream) -> Result<()> {
        let stream = stream();
        let mut at = 0_u64;
        while !self.stop.load(Ordering::Acquire) {
            let from = (at % PERIOD as u64) as usize;
            match socket.write(&stream[from..from + PIECE]) {
                Ok(count) => at += count as u64,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("the upload broke after {at}"));
                }
            }
            self.bytes.store(at, Ordering::Release);
        }
        Ok(())
    }
}

fn lock(gaps: &Mutex<Gaps>) -> std::sync::MutexGuard<'_, Gaps> {
    gaps.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_of_several_times_without_a_byte_is_told() {
        let shared = Shared::default();
        shared.note_read();
        let begin = lock(&shared.gaps).last.expect("it was noted");
        let long = Duration::from_secs(1);
        lock(&shared.gaps).last = Some(begin.checked_sub(long).expect("up for as long"));
        shared.note_read();
        shared.note_read();
        assert!(lock(&shared.gaps).longest >= long);
    }
}
