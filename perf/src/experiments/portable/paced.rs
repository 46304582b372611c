//! HTTP at a constant rate, with latency from the time when a request was to be sent: a server that
//! stalls is not spared the requests of that time.

use super::farm::{PORT, padding};
use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{Netns, VIP_V4};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Connections at once.
const CONNECTIONS: u32 = 64;
/// For one answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Before the first request.
const BEGIN: Duration = Duration::from_millis(100);
/// Requests of the first part of the time do not count: connections are made then.
const WARM_UP: f64 = 0.25;
/// Requests that are answered later than this after the end show a rate that was not carried.
const LATE: Duration = Duration::from_secs(2);

/// Requests at `rate` a second for a while, each at its own time. Returns the latency of each in
/// milliseconds, sorted.
pub fn run(client: &Netns, rate: f64, seconds: f64) -> Result<Vec<f64>> {
    let mut all = ask(client, rate, seconds, Late::Asked)?;
    ensure!(!all.is_empty(), "no request was due");
    all.sort_by(f64::total_cmp);
    Ok(all)
}

/// Requests a second that are answered while `rate` of them are due: what is carried, where that is less.
pub fn carried(client: &Netns, rate: f64, seconds: f64) -> Result<f64> {
    let answered = ask(client, rate, seconds, Late::Left)?.len();
    ensure!(answered > 0, "no request was answered");
    Ok(answered as f64 / (seconds * (1.0 - WARM_UP)))
}

/// What becomes of requests that are still due at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Late {
    /// They are asked all the same, and are as late as they are.
    Asked,
    /// Nobody asks them, and what was answered by then is all that counts.
    Left,
}

fn ask(client: &Netns, rate: f64, seconds: f64, late: Late) -> Result<Vec<f64>> {
    let at = SocketAddr::from((VIP_V4, PORT));
    client.within(|| {
        let start = Instant::now() + BEGIN;
        let schedule = |number: u32| Schedule {
            start,
            first: f64::from(number) / rate,
            step: f64::from(CONNECTIONS) / rate,
            seconds,
            late,
        };
        thread::scope(|scope| {
            let connection = |number| scope.spawn(move || requests(at, schedule(number)));
            let connections: Vec<_> = (0..CONNECTIONS).map(connection).collect();
            let mut all = Vec::new();
            for connection in connections {
                let latencies = connection.join();
                all.extend(latencies.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            Ok(all)
        })
    })
}

/// When one connection's requests are due.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    start: Instant,
    /// Seconds.
    first: f64,
    /// Seconds.
    step: f64,
    /// Seconds.
    seconds: f64,
    late: Late,
}

impl Schedule {
    /// The time of request `number`; none after the end.
    fn due(&self, number: u32) -> Option<Instant> {
        let after = self.first + f64::from(number) * self.step;
        (after < self.seconds).then(|| self.start + Duration::from_secs_f64(after))
    }

    /// Whether a request counts that was due, and was answered, at these times.
    fn counts(&self, due: Instant, answered: Instant) -> bool {
        let begin = self.start + Duration::from_secs_f64(self.seconds * WARM_UP);
        match self.late {
            Late::Asked => due >= begin,
            Late::Left => answered >= begin && answered < self.end(),
        }
    }

    fn end(&self) -> Instant {
        self.start + Duration::from_secs_f64(self.seconds)
    }
}

/// What one connection does: a new one whenever the server has ended it.
fn requests(at: SocketAddr, schedule: Schedule) -> Result<Vec<f64>> {
    let text = format!(
        "GET / HTTP/1.1\r\nHost: {at}\r\nX-Padding: {}\r\n\r\n",
        padding()
    );
    let mut latencies = Vec::new();
    let mut stream: Option<TcpStream> = None;
    let end = schedule.end() + LATE;
    let due = (0..).map_while(|number| schedule.due(number));
    for due in due {
        if schedule.late == Late::Left && Instant::now() >= schedule.end() {
            break;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let mut open = match stream.take() {
            Some(stream) => stream,
            None => connect(at)?,
        };
        let ends = request(&mut open, text.as_bytes())?;
        let now = Instant::now();
        ensure!(
            now < end,
            "the load was not carried: {LATE:?} after its end requests are still under way"
        );
        if schedule.counts(due, now) {
            latencies.push((now - due).as_secs_f64() * 1e3);
        }
        stream = (!ends).then_some(open);
    }
    Ok(latencies)
}

fn connect(at: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&at, ANSWER)
        .with_context(|| format!("cannot connect to {at}"))?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One request and its answer; whether it was the connection's last one.
fn request(stream: &mut TcpStream, text: &[u8]) -> Result<bool> {
    stream.write_all(text)?;
    let mut answer = [0; 1024];
    let mut length = 0;
    loop {
        let read = stream.read(&mut answer[length..])?;
        ensure!(read > 0, "the server ended a connection without an answer");
        length += read;
        if let Some(head) = whole(&answer[..length]) {
            ensure!(head.contains(" 200 OK\r\n"), "not a good answer: {head}");
            return Ok(head.contains("\r\nConnection: close\r\n"));
        }
        ensure!(length < answer.len(), "an answer too long");
    }
}

/// The head of an answer of which the body is there as well.
pub fn whole(answer: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_at(text.find("\r\n\r\n")? + 4);
    let mut lines = head.lines();
    let length = lines.find_map(|line| line.strip_prefix("Content-Length: "))?;
    (body.len() >= length.parse().ok()?).then_some(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    /// Offers far more than can be asked to a server of one connection; latencies in milliseconds.
    fn far_too_many(late: Late, seconds: f64) -> Result<Vec<f64>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            while stream.read(&mut request).is_ok_and(|read| read > 0) {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                stream.write_all(answer).unwrap();
            }
        });
        let schedule = Schedule {
            start: Instant::now(),
            first: 0.0,
            step: 1e-8,
            seconds,
            late,
        };
        let latencies = requests(at, schedule);
        server.join().unwrap();
        latencies
    }

    #[test]
    fn what_is_carried_is_what_was_answered_by_the_end() {
        let begin = Instant::now();
        let answered = far_too_many(Late::Left, 0.2).unwrap();
        assert!(begin.elapsed() < LATE);
        // 20 million were due.
        assert!((1..1_000_000).contains(&answered.len()));
        // In the first hundredth of the time: what is answered after a quarter of it is as late as that.
        let warm_up_ms = 0.2 * WARM_UP * 1e3;
        let late = |latency: &f64| *latency > 0.9 * warm_up_ms;
        assert!(answered.iter().all(late), "not since they were due");
    }

    #[test]
    fn a_load_that_is_not_carried_is_an_error() {
        let error = far_too_many(Late::Asked, 0.2).unwrap_err().to_string();
        assert!(error.contains("was not carried"), "{error}");
    }
}
