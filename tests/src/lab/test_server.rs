//! `lockstep-test-server` on a server of the lab: what it is to do, and to do wrong.

use super::binaries;
use super::process::Process;
use super::server::Server;
use anyhow::Result;
use std::net::{IpAddr, SocketAddr};

/// The port it listens on.
const PORT: u16 = 7000;

/// What the program is to do with every connection.
#[derive(Debug, Clone)]
pub struct Behaviour {
    serve: String,
    faults: Vec<String>,
}

impl Behaviour {
    /// Sends back what it gets.
    pub fn echo() -> Self {
        Self::serve("echo".to_owned())
    }

    /// Reads to the end, then sends how many bytes there were, and their SHA-256.
    pub fn sink() -> Self {
        Self::serve("sink".to_owned())
    }

    /// Sends this many bytes of the pattern with seed 1, after the first byte that it gets, then FIN.
    pub fn stream(bytes: u64) -> Self {
        Self::serve(format!("stream={bytes}"))
    }

    fn serve(serve: String) -> Self {
        Behaviour {
            serve,
            faults: Vec::new(),
        }
    }

    /// The byte that it sends at this offset is another one.
    #[must_use]
    pub fn flip(self, at: u64) -> Self {
        self.fault(format!("--flip={at}"))
    }

    /// It sends RST instead of the byte at this offset.
    #[must_use]
    pub fn reset(self, at: u64) -> Self {
        self.fault(format!("--reset={at}"))
    }

    /// It sends FIN instead of the byte at this offset.
    #[must_use]
    pub fn close(self, at: u64) -> Self {
        self.fault(format!("--close={at}"))
    }

    /// Every byte that it sends is another one.
    #[must_use]
    pub fn garbage(self) -> Self {
        self.fault("--garbage".to_owned())
    }

    /// It accepts, and never reads.
    #[must_use]
    pub fn never_read(self) -> Self {
        self.fault("--never-read".to_owned())
    }

    fn fault(mut self, argument: String) -> Self {
        self.faults.push(argument);
        self
    }
}

/// A test server, until dropped.
#[derive(Debug)]
pub struct TestServer(Process);

impl TestServer {
    /// The port of every one.
    pub const PORT: u16 = PORT;

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.0
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> bool {
        self.0.must_run().is_ok()
    }

    /// What it says of the connections that have ended: one line each, `COUNT SHA256` of what it got.
    pub fn inputs(&self) -> Vec<String> {
        let log = self.0.log();
        let lines = log.lines().filter_map(|line| line.strip_prefix("got "));
        lines.map(str::to_owned).collect()
    }
}

impl Server {
    /// Starts a test server on the server's own address of either IP version.
    pub fn start_test_server(&self, address: IpAddr, how: &Behaviour) -> Result<TestServer> {
        let mut command = self
            .netns()
            .command(binaries::find("lockstep-test-server")?);
        command.arg(SocketAddr::new(address, PORT).to_string());
        command.arg(&how.serve).args(&how.faults);
        Ok(TestServer(self.start(
            "test-server",
            command,
            "listening",
        )?))
    }
}
