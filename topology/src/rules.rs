//! The rules between the parts of a topology that need no look at the host.

use crate::diagnostics::{Diagnostic, Diagnostics, Position, suggest};
use crate::model::{Poll, Receive, Spread, Topology, UmemFrames, Worker};
use crate::nat::Nat;
use crate::queues::{InterfaceName, Queue};
use crate::sessions::PortRange;
use std::collections::{BTreeMap, BTreeSet};

const DETECT: &str = "`lockstep topology detect` proposes some for this host";

/// Every rule that a topology breaks.
pub(crate) fn broken(topology: &Topology) -> Diagnostics {
    let mut found = broken_in_part(topology);
    found.extend(broken_as_a_whole(topology));
    found
}

/// Rules that hold for a part of a topology too: no two of what there is contradict each other.
pub(crate) fn broken_in_part(topology: &Topology) -> Diagnostics {
    let mut found = Diagnostics::new();
    interfaces_twice(topology, &mut found);
    cores_twice(topology, &mut found);
    queues_twice(topology, &mut found);
    frames_a_queue(topology, &mut found);
    ports_a_worker(topology, &mut found);
    ports_of_nat(topology, &mut found);
    nothing_to_do(topology, &mut found);
    nobody_receives(topology, &mut found);
    found
}

/// Rules about what is missing.
pub(crate) fn broken_as_a_whole(topology: &Topology) -> Diagnostics {
    let mut found = Diagnostics::new();
    let whole = |message: &str| error(topology, None, message).help(DETECT);
    if topology.interfaces.is_empty() {
        found.push(whole("there is no [[interface]]"));
    }
    if topology.workers.is_empty() {
        found.push(whole("there is no [[worker]]"));
    }
    nobody_processes(topology, &mut found);
    unknown_interfaces(topology, &mut found);
    missing_queues(topology, &mut found);
    found
}

fn error(topology: &Topology, at: Option<Position>, message: impl Into<String>) -> Diagnostic {
    Diagnostic::error(&topology.origin.file, at, message)
}

/// A worker that sleeps takes nothing in, and deferred interrupts would wake it late.
fn nobody_receives(topology: &Topology, found: &mut Diagnostics) {
    let engine = &topology.engine;
    if engine.receive == Receive::Worker && engine.poll == Poll::Interrupt {
        let message = "a worker that sleeps (`poll = \"interrupt\"`) cannot take packets in itself (`receive = \"worker\"`)";
        found.push(
            error(topology, None, message)
                .help("poll = \"adaptive\" or \"busy\", or receive = \"kernel\""),
        );
    }
}

/// ", line 7" where that is known.
fn line(at: Option<Position>) -> String {
    at.map_or_else(String::new, |p| format!(", line {}", p.line))
}

fn interfaces_twice(topology: &Topology, found: &mut Diagnostics) {
    let mut first: BTreeMap<&InterfaceName, usize> = BTreeMap::new();
    for (index, interface) in topology.interfaces.iter().enumerate() {
        if let Some(&known) = first.get(&interface.name) {
            let message = format!(
                "interface {} is there already{}",
                interface.name,
                line(topology.origin.interface(known))
            );
            found.push(error(topology, topology.origin.interface(index), message));
        } else {
            first.insert(&interface.name, index);
        }
    }
}

fn cores_twice(topology: &Topology, found: &mut Diagnostics) {
    let mut first = BTreeMap::new();
    for (index, worker) in topology.workers.iter().enumerate() {
        if let Some(&known) = first.get(&worker.core) {
            let message = format!(
                "core {} has a worker already{}",
                worker.core,
                line(topology.origin.core(known))
            );
            let at = topology.origin.core(index);
            found.push(error(topology, at, message).help("one worker a core"));
        } else {
            first.insert(worker.core, index);
        }
    }
}

fn queues_twice(topology: &Topology, found: &mut Diagnostics) {
    let mut first: BTreeMap<&Queue, usize> = BTreeMap::new();
    for (index, worker) in topology.workers.iter().enumerate() {
        for (at, queue) in worker.queues.iter().enumerate() {
            let message = match first.get(queue) {
                None => {
                    first.insert(queue, index);
                    continue;
                }
                Some(&known) if known == index => {
                    format!(
                        "queue {queue} is named twice by the worker on core {}",
                        worker.core
                    )
                }
                Some(&known) => format!(
                    "queue {queue} is polled by the worker on core {} already{}",
                    topology.workers[known].core,
                    line(topology.origin.core(known))
                ),
            };
            found.push(error(topology, topology.origin.queue(index, at), message));
        }
    }
}

/// A worker's queues share its UMEM; one that gets less than two bursts starves.
fn frames_a_queue(topology: &Topology, found: &mut Diagnostics) {
    let frames = topology.engine.umem_frames.get();
    for (index, worker) in topology.workers.iter().enumerate() {
        let queues = u32::try_from(worker.queues.len()).unwrap_or(u32::MAX);
        let needed = queues.saturating_mul(UmemFrames::PER_QUEUE);
        if frames < needed {
            let message = format!(
                "{frames} frames are too few for the {queues} queues of the worker on core {}",
                worker.core
            );
            let help = format!(
                "`umem_frames` of {} at least, {} a queue, or fewer queues a worker",
                needed.checked_next_power_of_two().unwrap_or(needed),
                UmemFrames::PER_QUEUE
            );
            let at = topology.origin.core(index);
            found.push(error(topology, at, message).help(help));
        }
    }
}

/// Each worker has local ports of its own: answers from replicas find it by them.
fn ports_a_worker(topology: &Topology, found: &mut Diagnostics) {
    let (ports, workers) = (topology.sessions.ports, topology.processing().len());
    let needed = workers * usize::from(PortRange::PER_WORKER);
    if ports.count() < needed {
        let message = format!("ports {ports} are too few for {workers} workers");
        let help = format!("{needed} at least, {} a worker", PortRange::PER_WORKER);
        let at = topology.origin.key("ports");
        found.push(error(topology, at, message).help(help));
    }
}

/// The same for full NAT, and a port says whether an answer is a session's or a rewritten flow's.
fn ports_of_nat(topology: &Topology, found: &mut Diagnostics) {
    let (nat, sessions) = (topology.nat.ports, topology.sessions.ports);
    let at = topology.origin.key("nat.ports");
    let workers = topology.processing().len();
    let needed = workers * usize::from(Nat::PER_WORKER);
    if nat.count() < needed {
        let message = format!("[nat] ports {nat} are too few for {workers} workers");
        let help = format!("{needed} at least, {} a worker", Nat::PER_WORKER);
        found.push(error(topology, at, message).help(help));
    }
    if nat.overlaps(sessions) {
        let message = format!("[nat] ports {nat} and [sessions] ports {sessions} overlap");
        let help = "a port of an engine address is either's; make one of the ranges smaller";
        found.push(error(topology, at, message).help(help));
    }
}

fn unknown_interfaces(topology: &Topology, found: &mut Diagnostics) {
    let names = topology.interfaces.iter().map(|i| i.name.as_str());
    for (index, worker) in topology.workers.iter().enumerate() {
        // Once for a range.
        let mut said = BTreeSet::new();
        for (at, queue) in worker.queues.iter().enumerate() {
            let position = topology.origin.queue(index, at);
            let known = names.clone().any(|name| name == queue.interface.as_str());
            if !known && said.insert((position, &queue.interface)) {
                let message = format!("there is no [[interface]] {}", queue.interface);
                let help = suggest(queue.interface.as_str(), names.clone());
                found.push(error(topology, position, message).help(help));
            }
        }
    }
}

/// Under RSS each worker processes what it receives.
fn nothing_to_do(topology: &Topology, found: &mut Diagnostics) {
    for (index, worker) in topology.workers.iter().enumerate() {
        if worker.process {
            continue;
        }
        let core = worker.core;
        let (message, help) = match topology.engine.spread {
            Spread::Rss => (
                format!("the worker on core {core} would not process what it receives"),
                "`process = false` is for `spread = \"rps\"`, where it hands packets to others",
            ),
            Spread::Rps if worker.queues.is_empty() => (
                format!("the worker on core {core} neither receives nor processes"),
                "give it `queues`, or leave `process = false` out",
            ),
            Spread::Rps => continue,
        };
        let at = topology.origin.core(index);
        found.push(error(topology, at, message).help(help));
    }
}

fn nobody_processes(topology: &Topology, found: &mut Diagnostics) {
    if topology.engine.spread == Spread::Rps
        && !topology.workers.is_empty()
        && topology.processing().is_empty()
    {
        let message = "no worker processes packets";
        let help =
            "leave `process = false` out where one shall, or add a [[worker]] without `queues`";
        let at = topology.origin.core(0);
        found.push(error(topology, at, message).help(help));
    }
}

/// A packet leaves by the queue that the worker which received it has on the way out, so each that
/// receives needs one on every interface.
fn missing_queues(topology: &Topology, found: &mut Diagnostics) {
    for (index, interface) in topology.interfaces.iter().enumerate() {
        let name = &interface.name;
        if topology.interfaces[..index].iter().any(|i| i.name == *name) {
            continue;
        }
        let polls = |worker: usize| {
            let queues = &topology.workers[worker].queues;
            queues.iter().any(|queue| queue.interface == *name)
        };
        let (with, without): (Vec<usize>, Vec<usize>) =
            (0..topology.workers.len()).partition(|&worker| polls(worker));
        if with.is_empty() && !without.is_empty() {
            let message = format!("no worker polls {name}");
            let help = format!("add \"{name}:0\" to the `queues` of a worker");
            let at = topology.origin.interface(index);
            found.push(error(topology, at, message).help(help));
            continue;
        }
        for worker in without {
            let Worker { core, queues, .. } = &topology.workers[worker];
            let may_poll_none = topology.engine.spread == Spread::Rps;
            if queues.is_empty() && may_poll_none {
                continue;
            }
            let message = format!("the worker on core {core} polls no queue of {name}");
            let help = match queues.is_empty() && index == 0 {
                true => {
                    "it could not send there: give each worker a queue of each interface, or have \
                     packets handed to it (`spread = \"rps\"`)"
                }
                false => "it could not send there: give each worker a queue of each interface",
            };
            let at = topology.origin.core(worker);
            found.push(error(topology, at, message).help(help));
        }
    }
}
