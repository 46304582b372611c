//! What generator and responder are attached to, as the user says it: queues of an interface, a thread for
//! each, and their CPUs.

use super::place::within;
use super::socket::{Binding, Line};
use anyhow::{Result, bail, ensure};
use lockstep_bpf::Wanted;

/// The options that both have.
#[derive(Debug, Clone, clap::Args)]
pub struct Attached {
    /// The interface that packets leave and come to.
    #[arg(long)]
    pub interface: String,
    /// The network namespace it is in, by the name that `ip netns` has for it.
    #[arg(long)]
    pub netns: Option<String>,
    /// Its queues, a thread for each.
    #[arg(long, visible_alias = "queues", value_delimiter = ',', default_values_t = [0])]
    pub queue: Vec<u32>,
    /// The CPUs of the threads, one for each queue.
    #[arg(long, visible_alias = "cores", value_delimiter = ',')]
    pub core: Vec<usize>,
    /// How packets get between the driver and this program.
    #[arg(long, value_enum, default_value = "auto")]
    pub mode: Binding,
}

impl Attached {
    /// Whether there is a CPU for each thread, or none is named.
    pub fn check(&self) -> Result<()> {
        ensure!(
            !self.queue.is_empty() && (self.core.is_empty() || self.core.len() == self.queue.len()),
            "there are {} queues and {} CPUs: --cores names one for each queue, or none",
            self.queue.len(),
            self.core.len()
        );
        each_once(&self.queue, "--queues")
    }

    /// Runs `task` in the interface's namespace.
    pub fn within<T>(&self, task: impl FnOnce() -> Result<T>) -> Result<T> {
        within(self.netns.as_deref(), task)
    }

    /// Opens a socket on each queue, for what is wanted of the packets that come.
    pub fn open(&self, wanted: Option<&Wanted>) -> Result<Line> {
        let netns = self.netns.as_deref();
        Line::open(netns, &self.interface, &self.queue, wanted, self.mode)
    }
}

/// Whether no queue is named twice.
pub fn each_once(queues: &[u32], option: &str) -> Result<()> {
    let twice = (queues.iter().enumerate()).find(|(at, queue)| queues[..*at].contains(queue));
    if let Some((_, queue)) = twice {
        bail!("queue {queue} is named twice, and has one socket: {option} names each queue once");
    }
    Ok(())
}

/// Puts this thread on a CPU, where one is named.
pub fn pin(cpu: Option<usize>) -> Result<()> {
    if let Some(id) = cpu {
        ensure!(
            core_affinity::set_for_current(core_affinity::CoreId { id }),
            "there is no CPU {id} for this process: name another with --core"
        );
    }
    Ok(())
}
