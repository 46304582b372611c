//! What workers take for replicated sessions, when the first service asks for them.

use super::{Agent, WorkerLink, WorkerState};
use crate::spill::UNDER_WAY;
use crate::workers::spread;
use futures::future::try_join_all;
use lockstep_core::Tables;
use lockstep_core::replicate::replicator::{Replicator, ReplicatorConfig};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Why workers cannot hold sessions.
#[derive(Debug, thiserror::Error)]
pub enum EquipError {
    /// Too little memory.
    #[error(
        "replicated sessions need {needed} MiB for input logs, {workers} workers together, and \
         {available} MiB are available; lower log_memory in topology.toml's [sessions], or have \
         fewer workers"
    )]
    Memory {
        /// MiB of all logs.
        needed: u64,
        /// How many workers there are.
        workers: usize,
        /// MiB.
        available: u64,
    },
    /// How much memory is available is not known, or how long packets may be.
    #[error("cannot read {file}: {why}")]
    Read {
        /// What was to be read.
        file: String,
        /// What the system said.
        why: String,
    },
    /// The thread that takes the memory ended.
    #[error("the engine is stopping")]
    Ended,
}

impl Agent {
    /// Gives every worker that runs, and cannot hold sessions yet, what it needs for them, when
    /// these tables have a service that replicates. Buffers are taken as they are used; the memory
    /// of logs is taken here.
    pub(super) async fn equip(self: &Arc<Self>, tables: &Tables) -> Result<(), EquipError> {
        let wanted = tables.rings().iter().any(|ring| ring.replicate.is_some());
        let lacks = |worker: &WorkerLink| {
            if !worker.handle().processes {
                return false;
            }
            let runs = matches!(
                worker.state(),
                WorkerState::Running | WorkerState::Returning
            );
            runs && worker.sessions().is_none()
        };
        if !wanted || !self.workers.iter().any(lacks) {
            return Ok(());
        }
        self.check_memory(self.workers.iter().filter(|worker| lacks(worker)).count())?;
        let workers = self.workers.iter().enumerate();
        let equipped = workers
            .filter(|(_, worker)| lacks(worker))
            .map(|(index, worker)| {
                // Each beside this thread, which has a heartbeat to give.
                let config = self.replicator_config(index);
                let requests = self.spill.as_ref().map_or(0, |_| UNDER_WAY);
                async move {
                    let config = config?;
                    let made = tokio::task::spawn_blocking(move || {
                        Box::new(Replicator::new(config).with_spill(requests))
                    });
                    let replicator = made.await.map_err(|_| EquipError::Ended)?;
                    match worker.equip(replicator).await {
                        true => tracing::info!(worker = index, "the worker can hold sessions"),
                        false => {
                            tracing::warn!(worker = index, "the worker takes nothing for sessions")
                        }
                    }
                    Ok(())
                }
            });
        try_join_all(equipped).await.map(|_| ())
    }

    fn check_memory(&self, workers: usize) -> Result<(), EquipError> {
        const MIB: u64 = 1 << 20;
        let needed = self.topology.sessions().log_memory.get() * workers as u64 / MIB;
        let available = available_memory()? / MIB;
        if needed <= available {
            return Ok(());
        }
        Err(EquipError::Memory {
            needed,
            workers,
            available,
        })
    }

    fn replicator_config(&self, index: usize) -> Result<ReplicatorConfig, EquipError> {
        let sessions = self.topology.sessions();
        let spread = spread(&self.topology, index);
        let shares = spread.processing.len();
        // Only those that process are given anything.
        let share = spread.share().unwrap_or(0);
        let interfaces = self.topology.interfaces().iter();
        let mtus: Result<Vec<u16>, EquipError> = interfaces.map(|i| mtu(i.name.as_str())).collect();
        Ok(ReplicatorConfig {
            ports: sessions.ports.share(share, shares),
            spread,
            sessions: sessions.max.get() as usize,
            connections: sessions.connections_of(share, shares),
            client_buffer: sessions.client_buffer.get() as usize,
            replica_buffer: sessions.replica_buffer.get() as usize,
            log_memory: usize::try_from(sessions.log_memory.get()).unwrap_or(usize::MAX),
            mtus: mtus?,
            addresses: self.addresses(),
            seed: [random(), random()],
        })
    }
}

/// Bytes that programs can take without others giving something up.
fn available_memory() -> Result<u64, EquipError> {
    let file = "/proc/meminfo";
    let text = std::fs::read_to_string(file).map_err(|error| unread(file, error))?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| unread(file, "it has no MemAvailable"))
}

/// The longest IP packet of an interface.
pub(crate) fn mtu(interface: &str) -> Result<u16, EquipError> {
    let file = format!("/sys/class/net/{interface}/mtu");
    let text = std::fs::read_to_string(&file).map_err(|error| unread(&file, error))?;
    let mtu: u32 = text.trim().parse().map_err(|error| unread(&file, error))?;
    // A loopback's is 65,536: one more than an IP packet can have.
    Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
}

fn unread(file: &str, why: impl std::fmt::Display) -> EquipError {
    EquipError::Read {
        file: file.to_owned(),
        why: why.to_string(),
    }
}

/// A number that nobody outside knows: the standard library seeds its hasher from the operating
/// system's random numbers.
fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn this_machine_has_memory_and_its_loopback_an_mtu() {
        assert!(available_memory().unwrap() > 1 << 20);
        assert_eq!(mtu("lo").unwrap(), u16::MAX);
        let error = mtu("nosuch").unwrap_err().to_string();
        assert!(
            error.starts_with("cannot read /sys/class/net/nosuch/mtu: No such file"),
            "{error}"
        );
    }
}
