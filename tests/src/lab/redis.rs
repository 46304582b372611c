//! redis-server, and a client that writes its protocol by hand.

use super::netns::Netns;
use super::process::Process;
use super::server::Server;
use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

/// Its port.
const PORT: u16 = 6379;
const TIMEOUT: Duration = Duration::from_secs(20);

impl Server {
    /// Starts a redis-server without persistence, for anybody who asks.
    pub fn start_redis(&self) -> Result<Process> {
        let mut command = self.netns().command("redis-server");
        command.args(["--port", &PORT.to_string(), "--bind", "*", "-::*"]);
        command.args(["--protected-mode", "no", "--save", "", "--appendonly", "no"]);
        command.arg("--dir").arg(self.dir());
        self.start("redis", command, "Ready to accept connections")
    }
}

/// A connection with a redis-server.
#[derive(Debug)]
pub struct RedisClient {
    stream: BufReader<TcpStream>,
}

impl RedisClient {
    /// Connects from `netns`.
    pub fn connect(netns: &Netns, to: IpAddr) -> Result<Self> {
        let stream = netns.connect(SocketAddr::new(to, PORT), TIMEOUT)?;
        Ok(RedisClient {
            stream: BufReader::new(stream),
        })
    }

    /// Sends `count` times `INCR key` without waiting for replies, while `each` gets every reply as it
    /// comes: it must be the last one and one more.
    pub fn increments(
        &mut self,
        key: &str,
        count: u64,
        mut each: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let request = format!("*2\r\n$4\r\nINCR\r\n${}\r\n{key}\r\n", key.len());
        let mut sender = self.stream.get_ref().try_clone()?;
        let requests = request.repeat(usize::try_from(count)?);
        std::thread::scope(|scope| {
            let sending = scope.spawn(move || sender.write_all(requests.as_bytes()));
            for expected in 1..=count {
                let value = self.integer()?;
                ensure!(value == expected, "reply {expected} is {value}");
                each(value)?;
            }
            match sending.join() {
                Ok(sent) => sent.context("cannot send all requests"),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// `GET key`, a number.
    pub fn get(&mut self, key: &str) -> Result<u64> {
        let request = format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len());
        self.stream.get_mut().write_all(request.as_bytes())?;
        let length = self.line()?;
        ensure!(length.starts_with('$'), "GET was answered by {length:?}");
        let value = self.line()?;
        value.parse().with_context(|| format!("{key} is {value:?}"))
    }

    fn integer(&mut self) -> Result<u64> {
        let line = self.line()?;
        let number = line.strip_prefix(':').and_then(|text| text.parse().ok());
        number.with_context(|| format!("no integer: {line:?}"))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("redis-server has closed the connection");
        }
        match line.strip_suffix("\r\n") {
            Some(text) => Ok(text.to_owned()),
            None => bail!("a reply that is cut off: {line:?}"),
        }
    }
}
