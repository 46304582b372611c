//! `lockstep-test-server ADDRESS:PORT echo|sink|stream=BYTES [FAULT]...`: a deterministic server, and
//! all that can be wrong with one.
//!
//! Faults are at an offset of what a connection has been sent: `--flip=AT`, `--reset=AT`,
//! `--close=AT`; or from the start: `--garbage`, `--never-read`. When a connection has ended, it
//! prints `got COUNT SHA256` of what came in.

#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail};
use lockstep_tests::pattern::Pattern;
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

const PIECE: usize = 64 << 10;
/// Of what `stream` sends.
const SEED: u64 = 1;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let listen = args.next().context("no ADDRESS:PORT to listen on")?;
    let behaviour = Arc::new(Behaviour::parse(args)?);
    let listener =
        TcpListener::bind(&listen).with_context(|| format!("cannot listen on {listen}"))?;
    println!("listening on {listen}");
    loop {
        let (stream, peer) = listener.accept().context("cannot accept")?;
        let behaviour = Arc::clone(&behaviour);
        thread::spawn(move || {
            let mut connection = Connection::new(stream, &behaviour);
            if let Err(error) = connection.serve() {
                println!("{peer}: {error:#}");
            }
            println!(
                "got {} {}",
                connection.got,
                hex(&connection.hash.finalize())
            );
        });
    }
}

/// What is served.
#[derive(Debug, Clone)]
enum Serve {
    Echo,
    Sink,
    Stream { bytes: u64, pattern: Pattern },
}

/// What ends a connection before its time.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Reset,
    Close,
}

#[derive(Debug)]
struct Behaviour {
    serve: Serve,
    flip: Option<u64>,
    cut: Option<(u64, Cut)>,
    garbage: bool,
    never_read: bool,
}

impl Behaviour {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let serve = args.next().context("nothing to serve")?;
        let serve = match serve.split_once('=') {
            None if serve == "echo" => Serve::Echo,
            None if serve == "sink" => Serve::Sink,
            Some(("stream", bytes)) => Serve::Stream {
                bytes: bytes.parse().context("stream=BYTES")?,
                pattern: Pattern::new(SEED),
            },
            _ => bail!("{serve} is not echo, sink or stream=BYTES"),
        };
        let mut behaviour = Behaviour {
            serve,
            flip: None,
            cut: None,
            garbage: false,
            never_read: false,
        };
        for fault in args {
            let (name, at) = fault.split_once('=').unwrap_or((&fault, "0"));
            let at = at
                .parse()
                .with_context(|| format!("{fault}: not an offset"))?;
            match name {
                "--flip" => behaviour.flip = Some(at),
                "--reset" => behaviour.cut = Some((at, Cut::Reset)),
                "--close" => behaviour.cut = Some((at, Cut::Close)),
                "--garbage" => behaviour.garbage = true,
                "--never-read" => behaviour.never_read = true,
                _ => bail!("{fault} is no fault that is known"),
            }
        }
        Ok(behaviour)
    }
}

struct Connection<'a> {
    stream: TcpStream,
    behaviour: &'a Behaviour,
    /// What came in.
    got: u64,
    hash: Sha256,
    /// What went out.
    sent: u64,
    piece: Vec<u8>,
}

impl<'a> Connection<'a> {
    fn new(stream: TcpStream, behaviour: &'a Behaviour) -> Self {
        Connection {
            stream,
            behaviour,
            got: 0,
            hash: Sha256::new(),
            sent: 0,
            piece: vec![0; PIECE],
        }
    }

    fn serve(&mut self) -> Result<()> {
        self.stream.set_nodelay(true)?;
        if self.behaviour.never_read {
            // Until the process is ended: a parked thread may wake up for no reason.
            loop {
                thread::park();
            }
        }
        match &self.behaviour.serve {
            Serve::Echo => while self.echo()? {},
            Serve::Sink => {
                while self.read()?.is_some() {}
                let answer = format!("{} {}\n", self.got, hex(&self.hash.clone().finalize()));
                self.send(&mut answer.into_bytes())?;
            }
            Serve::Stream { bytes, pattern } => {
                if self.read()?.is_none() {
                    return Ok(());
                }
                while self.sent < *bytes {
                    let mut piece = vec![0; (PIECE as u64).min(bytes - self.sent) as usize];
                    pattern.fill(self.sent, &mut piece);
                    self.send(&mut piece)?;
                }
            }
        }
        self.stream.shutdown(Shutdown::Write)?;
        while self.read()?.is_some() {}
        Ok(())
    }

    /// Sends back what comes next. False at the end.
    fn echo(&mut self) -> Result<bool> {
        let Some(count) = self.read()? else {
            return Ok(false);
        };
        let mut piece = self.piece[..count].to_vec();
        self.send(&mut piece)?;
        Ok(true)
    }

    fn read(&mut self) -> Result<Option<usize>> {
        let count = self.stream.read(&mut self.piece).context("cannot read")?;
        self.hash.update(&self.piece[..count]);
        self.got += count as u64;
        Ok((count > 0).then_some(count))
    }

    /// Sends bytes, with what is wrong with them.
    fn send(&mut self, bytes: &mut [u8]) -> Result<()> {
        let from = self.sent;
        let within = |at: u64| {
            let index = usize::try_from(at.checked_sub(from)?).ok()?;
            (index < bytes.len()).then_some(index)
        };
        let flip = self.behaviour.flip.and_then(within);
        let cut = self
            .behaviour
            .cut
            .and_then(|(at, cut)| Some((within(at)?, cut)));
        if let Some(at) = flip {
            bytes[at] ^= 0x01;
        }
        if self.behaviour.garbage {
            bytes.iter_mut().for_each(|byte| *byte = !*byte);
        }
        let length = cut.map_or(bytes.len(), |(at, _)| at);
        self.stream
            .write_all(&bytes[..length])
            .context("cannot send")?;
        self.sent += length as u64;
        match cut {
            Some((_, Cut::Close)) => bail!("closed at {}", self.sent),
            Some((_, Cut::Reset)) => {
                // With no time to linger, close(2) sends RST.
                let now = linger {
                    l_onoff: 1,
                    l_linger: 0,
                };
                setsockopt(&self.stream, sockopt::Linger, &now)?;
                bail!("reset at {}", self.sent)
            }
            None => Ok(()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
