//! The server: a deterministic stream down, a sink for one up, an echo, or answers to requests. One
//! thread.
//!
//! A connection begins with 16 bytes: what it wants and how many bytes of it, both big-endian.

use anyhow::{Context, Result, bail, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::time::{ClockId, clock_gettime};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Bytes after which the stream repeats itself; no multiple of any packet's or buffer's size.
pub const PERIOD: usize = 1_000_003;
/// Bytes of one read or write.
const PIECE: usize = 128 * 1024;
/// Reads or writes of a connection before the next one has its turn.
const TURN: usize = 4;

/// What a connection wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// This many bytes of the stream, then FIN.
    Download(u64),
    /// To send this many bytes; the answer is their number, 8 bytes, then FIN.
    Upload(u64),
    /// Everything back.
    Echo,
    /// The same; at the end the server prints when it sent what ([`now`]).
    TimedEcho,
    /// An answer to each request ([`Dialogue`]), after so many microseconds of CPU time.
    Requests(u64),
}

impl Wish {
    /// As a connection begins.
    pub fn bytes(self) -> [u8; 16] {
        let (kind, count) = match self {
            Wish::Download(count) => (1_u64, count),
            Wish::Upload(count) => (2, count),
            Wish::Echo => (3, 0),
            Wish::TimedEcho => (4, 0),
            Wish::Requests(work) => (5, work),
        };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&kind.to_be_bytes());
        bytes[8..].copy_from_slice(&count.to_be_bytes());
        bytes
    }

    fn parse(bytes: [u8; 16]) -> Option<Self> {
        let (kind, count) = bytes.split_at(8);
        let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("8 bytes"));
        match (number(kind), number(count)) {
            (1, count) => Some(Wish::Download(count)),
            (2, count) => Some(Wish::Upload(count)),
            (3, _) => Some(Wish::Echo),
            (4, _) => Some(Wish::TimedEcho),
            (5, work) => Some(Wish::Requests(work)),
            _ => None,
        }
    }
}

/// The stream, once and the beginning of its repetition: any piece of it is one slice of this.
pub fn stream() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes: Vec<u8> = (0..PERIOD)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect();
    bytes.extend_from_within(..2 * PIECE);
    bytes
}

/// Bytes of a request.
pub const REQUEST: usize = 7 * 1024;
/// And of its answer.
pub const ANSWER: usize = 35 * 1024;

/// A connection's requests: each answer depends on every byte that came before it, so that one of a
/// server that missed something is wrong.
#[derive(Debug, Default)]
pub struct Dialogue {
    state: u64,
    /// Bytes of the request under way.
    asked: usize,
}

impl Dialogue {
    /// Takes in more bytes, which must not go past the end of a request; whether it is complete.
    pub fn take(&mut self, bytes: &[u8]) -> bool {
        for &byte in bytes {
            self.state = (self.state ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        self.asked += bytes.len();
        let complete = self.asked == REQUEST;
        if complete {
            self.asked = 0;
        }
        complete
    }

    /// Bytes that the request under way still lacks.
    pub const fn missing(&self) -> usize {
        REQUEST - self.asked
    }

    /// The answer to the request that was completed last.
    pub fn answer<'a>(&self, stream: &'a [u8]) -> &'a [u8] {
        let at = (self.state % PERIOD as u64) as usize;
        &stream[at..at + ANSWER]
    }
}

/// Uses so much CPU time.
fn work(microseconds: u64) -> Result<()> {
    let used =
        || -> Result<Duration> { Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into()) };
    let end = used()? + Duration::from_micros(microseconds);
    while used()? < end {}
    Ok(())
}

/// `lockstep-perf stream-server`: serves until it is killed.
pub fn serve(address: Ipv4Addr, port: u16, cpu: usize) -> Result<()> {
    let on_core = core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
    ensure!(on_core, "cannot run on CPU {cpu}");
    let listener = TcpListener::bind((address, port))
        .with_context(|| format!("cannot listen on {address}:{port}"))?;
    listener.set_nonblocking(true)?;
    // The kernel caps it at somaxconn; the standard library asks for 128 only.
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::MAXCONN)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let listening = listener.as_raw_fd() as u64;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, listening))?;
    let stream = stream();
    let mut scratch = vec![0; PIECE];
    let mut connections: HashMap<u64, Connection> = HashMap::new();
    let mut events = [EpollEvent::empty(); 256];
    loop {
        let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => 0,
            other => other?,
        };
        for event in &events[..count] {
            let key = event.data();
            if key == listening {
                accept(&listener, &epoll, &mut connections)?;
                continue;
            }
            let Some(connection) = connections.get_mut(&key) else {
                continue;
            };
            match connection.turn(&stream, &mut scratch) {
                Ok(Then::Wait(interest)) if interest == connection.interest => {}
                Ok(Then::Wait(interest)) => {
                    connection.interest = interest;
                    epoll.modify(&connection.socket, &mut EpollEvent::new(interest, key))?;
                }
                // Whatever happened to it, the others go on.
                Ok(Then::Close) | Err(_) => drop(connections.remove(&key)),
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    epoll: &Epoll,
    connections: &mut HashMap<u64, Connection>,
) -> Result<()> {
    loop {
        let socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error).context("cannot accept"),
        };
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let key = socket.as_raw_fd() as u64;
        let interest = EpollFlags::EPOLLIN;
        epoll.add(&socket, EpollEvent::new(interest, key))?;
        connections.insert(key, Connection::new(socket, interest));
    }
}

/// A connection and how far it is.
struct Connection {
    socket: TcpStream,
    interest: EpollFlags,
    head: [u8; 16],
    head_length: usize,
    wish: Option<Wish>,
    done: u64,
    /// What the socket has not taken of an echo.
    owed: Vec<u8>,
    /// When it was sent.
    times: Vec<u64>,
    dialogue: Dialogue,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.wish == Some(Wish::TimedEcho) {
            let times: Vec<String> = self.times.iter().map(u64::to_string).collect();
            println!("{TIMES}{}", times.join(" "));
        }
    }
}

/// What a line of times begins with.
pub const TIMES: &str = "sent at ";

/// Microseconds by the clock that all programs of a machine share.
pub fn now() -> Result<u64> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    let (seconds, nanoseconds) = (
        time.tv_sec().cast_unsigned(),
        time.tv_nsec().cast_unsigned(),
    );
    Ok(seconds * 1_000_000 + nanoseconds / 1_000)
}

enum Then {
    Wait(EpollFlags),
    Close,
}

impl Connection {
    fn new(socket: TcpStream, interest: EpollFlags) -> Self {
        Connection {
            socket,
            interest,
            head: [0; 16],
            head_length: 0,
            wish: None,
            done: 0,
            owed: Vec::new(),
            times: Vec::new(),
            dialogue: Dialogue::default(),
        }
    }

    fn turn(&mut self, stream: &[u8], scratch: &mut [u8]) -> Result<Then> {
        let wish = match self.wish {
            Some(wish) => wish,
            None => match self.read_head()? {
                Some(wish) => *self.wish.insert(wish),
                None => return Ok(Then::Wait(EpollFlags::EPOLLIN)),
            },
        };
        match wish {
            Wish::Download(count) => self.download(count, stream),
            Wish::Upload(count) => self.upload(count, scratch),
            Wish::Echo | Wish::TimedEcho => self.echo(scratch),
            Wish::Requests(microseconds) => self.answer(microseconds, stream, scratch),
        }
    }

    fn read_head(&mut self) -> Result<Option<Wish>> {
        while self.head_length < self.head.len() {
            match read(&mut self.socket, &mut self.head[self.head_length..])? {
                Some(0) => bail!("closed before it said what it wants"),
                Some(count) => self.head_length += count,
                None => return Ok(None),
            }
        }
        (Wish::parse(self.head).map(Some)).context("wants what there is not")
    }

    fn download(&mut self, count: u64, stream: &[u8]) -> Result<Then> {
        for _ in 0..TURN {
            if self.done == count {
                return Ok(Then::Close);
            }
            let at = (self.done % PERIOD as u64) as usize;
            let length = (count - self.done).min(PIECE as u64) as usize;
            match self.socket.write(&stream[at..at + length]) {
                Ok(written) => self.done += written as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Then::Wait(EpollFlags::EPOLLOUT))
    }

    fn upload(&mut self, count: u64, scratch: &mut [u8]) -> Result<Then> {
        for _ in 0..TURN {
            match read(&mut self.socket, scratch)? {
                Some(0) => return Ok(Then::Close),
                Some(more) => self.done += more as u64,
                None => break,
            }
            if self.done >= count {
                // A new connection's buffer takes 8 bytes.
                self.socket.write_all(&self.done.to_be_bytes())?;
                return Ok(Then::Close);
            }
        }
        Ok(Then::Wait(EpollFlags::EPOLLIN))
    }

    fn answer(&mut self, microseconds: u64, stream: &[u8], scratch: &mut [u8]) -> Result<Then> {
        for _ in 0..TURN {
            while !self.owed.is_empty() {
                match self.socket.write(&self.owed) {
                    Ok(count) => drop(self.owed.drain(..count)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        return Ok(Then::Wait(EpollFlags::EPOLLOUT));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            let room = self.dialogue.missing().min(scratch.len());
            match read(&mut self.socket, &mut scratch[..room])? {
                Some(0) => return Ok(Then::Close),
                Some(count) => {
                    if self.dialogue.take(&scratch[..count]) {
                        work(microseconds)?;
                        self.owed.extend_from_slice(self.dialogue.answer(stream));
                    }
                }
                None => return Ok(Then::Wait(EpollFlags::EPOLLIN)),
            }
        }
        let more = if self.owed.is_empty() {
            EpollFlags::EPOLLIN
        } else {
            EpollFlags::EPOLLOUT
        };
        Ok(Then::Wait(more))
    }

    fn echo(&mut self, scratch: &mut [u8]) -> Result<Then> {
        for _ in 0..TURN {
            if self.owed.is_empty() {
                match read(&mut self.socket, scratch)? {
                    Some(0) => return Ok(Then::Close),
                    Some(count) => self.owed.extend_from_slice(&scratch[..count]),
                    None => return Ok(Then::Wait(EpollFlags::EPOLLIN)),
                }
            }
            if self.wish == Some(Wish::TimedEcho) {
                self.times.push(now()?);
            }
            match self.socket.write(&self.owed) {
                Ok(count) => drop(self.owed.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(Then::Wait(EpollFlags::EPOLLOUT));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let more = if self.owed.is_empty() {
            EpollFlags::EPOLLIN
        } else {
            EpollFlags::EPOLLOUT
        };
        Ok(Then::Wait(more))
    }
}

/// None when there is nothing now.
fn read(socket: &mut TcpStream, bytes: &mut [u8]) -> Result<Option<usize>> {
    match socket.read(bytes) {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_depends_on_every_byte_that_came_before_however_it_was_cut() {
        let stream = stream();
        let request = |first: u8| {
            let mut request = vec![7; REQUEST];
            request[0] = first;
            request
        };
        let mut whole = Dialogue::default();
        assert!(whole.take(&request(1)));
        assert!(whole.take(&request(2)));
        let mut cut = Dialogue::default();
        assert!(!cut.take(&request(1)[..100]));
        assert_eq!(cut.missing(), REQUEST - 100);
        assert!(cut.take(&request(1)[100..]));
        assert!(cut.take(&request(2)));
        assert_eq!(whole.answer(&stream), cut.answer(&stream));
        let mut other = Dialogue::default();
        other.take(&request(0));
        other.take(&request(2));
        assert_ne!(whole.answer(&stream), other.answer(&stream));
        assert_eq!(other.answer(&stream).len(), ANSWER);
    }

    #[test]
    fn a_wish_is_read_as_it_was_written() {
        let wishes = [
            Wish::Download(5),
            Wish::Upload(6),
            Wish::Echo,
            Wish::TimedEcho,
            Wish::Requests(2_000),
        ];
        for wish in wishes {
            assert_eq!(Wish::parse(wish.bytes()), Some(wish));
        }
        assert_eq!(Wish::parse([9; 16]), None);
    }
}
