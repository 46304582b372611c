//! What happens to a replica: its program is killed or stopped, or its link cut.

use super::process::Process;
use super::router::Router;
use anyhow::Result;
use nix::sys::signal::Signal;
use std::fmt;

/// A fault of one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL: the kernel goes on with what is in the socket's buffers, then sends FIN or RST.
    Kill,
    /// SIGSTOP: the kernel acknowledges, and nothing comes.
    Stop,
    /// The link is down: nothing is heard any more.
    Cut,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 3] = [Fault::Kill, Fault::Stop, Fault::Cut];

    /// Lets it happen to `program`, which runs on `server`.
    pub fn strike(self, program: &mut Process, server: &str, router: &Router) -> Result<()> {
        match self {
            Fault::Kill => program.kill_all(),
            Fault::Stop => program.signal_all(Signal::SIGSTOP),
            Fault::Cut => router.set_port(server, false),
        }
    }

    /// Undoes it, but for a killed program, which is to be started again.
    pub fn end(self, program: &mut Process, server: &str, router: &Router) -> Result<()> {
        match self {
            Fault::Kill => Ok(()),
            Fault::Stop => program.signal_all(Signal::SIGCONT),
            Fault::Cut => router.set_port(server, true),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Kill => "killed",
            Fault::Stop => "stopped",
            Fault::Cut => "cut off",
        })
    }
}
