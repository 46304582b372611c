//! HTTP connections that stay open: which server each is with, and that it stays so.

use super::netns::Netns;
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);
/// An answer of the lab's nginx, or most of it.
const ANSWER: usize = 512;
/// More than any answer of the lab's nginx.
const BODY_MAX: usize = 4096;

/// An open HTTP/1.1 connection.
#[derive(Debug)]
pub struct KeepAlive {
    stream: BufReader<TcpStream>,
    server: String,
}

impl KeepAlive {
    /// Connects from `netns` to port 80 and asks once.
    pub fn open(netns: &Netns, to: IpAddr) -> Result<Self> {
        netns.within(|| Self::open_here(to))
    }

    /// Several connections.
    pub fn open_many(netns: &Netns, to: IpAddr, count: usize) -> Result<Vec<Self>> {
        netns.within(|| (0..count).map(|_| Self::open_here(to)).collect())
    }

    fn open_here(to: IpAddr) -> Result<Self> {
        let to = SocketAddr::new(to, 80);
        let stream = TcpStream::connect_timeout(&to, TIMEOUT)
            .with_context(|| format!("cannot connect to {to}"))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        let mut connection = KeepAlive {
            // There may be thousands.
            stream: BufReader::with_capacity(ANSWER, stream),
            server: String::new(),
        };
        connection.server = connection.ask()?;
        Ok(connection)
    }

    /// The server that answered first.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The client's end.
    pub fn client(&self) -> Result<SocketAddr> {
        Ok(self.stream.get_ref().local_addr()?)
    }

    /// Sends a request and returns the name of the server that answers it.
    pub fn ask(&mut self) -> Result<String> {
        self.stream
            .get_mut()
            .write_all(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")?;
        let mut length = None;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                bail!("the connection with {:?} was closed", self.server);
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = Some(value.trim().parse::<usize>()?);
            }
        }
        let length = length
            .filter(|&n| n <= BODY_MAX)
            .context("an answer without a length")?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(String::from_utf8(body)?.trim_end().to_owned())
    }

    /// Asks again: the same server must answer.
    pub fn must_stay(&mut self) -> Result<()> {
        let name = self
            .ask()
            .with_context(|| format!("a connection with {} broke", self.server))?;
        if name != self.server {
            bail!("a connection with {} went to {name}", self.server);
        }
        Ok(())
    }
}
