//! A client of the test server: sends and checks bytes of the pattern.

use super::client::Client;
use super::test_server::TestServer;
use crate::pattern::Pattern;
use anyhow::{Context, Result, ensure};
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(20);
const PIECE: usize = 64 << 10;

/// A connection with a test server.
#[derive(Debug)]
pub struct Stream {
    stream: TcpStream,
    pattern: Pattern,
    sent: u64,
    got: u64,
}

impl Client {
    /// Connects to the test server's port of `to`.
    pub fn stream(&self, to: IpAddr) -> Result<Stream> {
        let stream = (self.netns()).connect(SocketAddr::new(to, TestServer::PORT), TIMEOUT)?;
        Ok(Stream {
            stream,
            pattern: Pattern::new(1),
            sent: 0,
            got: 0,
        })
    }
}

impl Stream {
    /// The socket.
    pub fn socket(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Sends the next bytes of the pattern.
    pub fn send(&mut self, count: u64) -> Result<()> {
        let end = self.sent + count;
        while self.sent < end {
            let mut piece = vec![0; (PIECE as u64).min(end - self.sent) as usize];
            self.pattern.fill(self.sent, &mut piece);
            self.stream.write_all(&piece).context("cannot send")?;
            self.sent += piece.len() as u64;
        }
        Ok(())
    }

    /// Receives bytes, which must be the next ones of the pattern; tells how many have come in all after
    /// each piece.
    pub fn expect(
        &mut self,
        count: u64,
        mut progress: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let end = self.got + count;
        let mut piece = vec![0; PIECE];
        while self.got < end {
            let length = (PIECE as u64).min(end - self.got) as usize;
            let read = self.stream.read(&mut piece[..length]);
            let read = read.with_context(|| format!("nothing after byte {}", self.got))?;
            ensure!(read > 0, "it ends after {} bytes", self.got);
            let wrong = self.pattern.first_difference(self.got, &piece[..read]);
            ensure!(wrong.is_none(), "byte {wrong:?} is wrong");
            self.got += read as u64;
            progress(self.got)?;
        }
        Ok(())
    }

    /// Sends bytes, and expects them back.
    pub fn echo(&mut self, count: u64) -> Result<()> {
        let end = self.sent + count;
        while self.sent < end {
            let piece = (PIECE as u64).min(end - self.sent);
            self.send(piece)?;
            self.expect(piece, |_| Ok(()))?;
        }
        Ok(())
    }

    /// Sends FIN.
    pub fn finish(&mut self) -> Result<()> {
        self.stream
            .shutdown(Shutdown::Write)
            .context("cannot send FIN")
    }

    /// Reads to the end, however that comes: nothing but FIN is no error.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest)?;
        Ok(rest)
    }

    /// The server has nothing more to say: FIN, and nothing before it.
    pub fn must_end(&mut self) -> Result<()> {
        let rest = self.rest().context("no good end")?;
        ensure!(rest.is_empty(), "{} bytes too many", rest.len());
        Ok(())
    }

    /// The connection ends by RST, with nothing before it.
    pub fn must_be_reset(&mut self) -> Result<()> {
        match self.rest() {
            Ok(rest) => anyhow::bail!("FIN after {} bytes, and not RST", rest.len()),
            Err(error) => ensure!(error.kind() == io::ErrorKind::ConnectionReset, "{error}"),
        }
        Ok(())
    }

    /// Ends the connection by RST.
    pub fn reset(self) -> Result<()> {
        // With no time to linger, close(2) sends RST.
        let now = linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&self.stream, sockopt::Linger, &now).context("cannot set SO_LINGER")
    }
}
