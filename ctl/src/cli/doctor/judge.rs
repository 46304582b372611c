//! What is wrong with a balancer: one function for each thing that can be.

use super::facts::{Facts, Features, Irq, Reached};
use super::{Finding, engine, sources};
use lockstep_topology::diagnostics::{self, Diagnostic};
use lockstep_topology::{Host, Interface, InterfaceKind, Poll, Topology, check};
use std::collections::BTreeSet;

/// Everything that is found.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &facts.topology {
        Some(Ok(topology)) => {
            let engine = facts
                .engine
                .as_ref()
                .and_then(|engine| engine.as_ref().ok());
            let plan = plan(topology, &facts.host).into_iter();
            findings.extend(plan.filter(|finding| !sources::is_fine(finding, engine)));
            findings.extend(cores(topology, &facts.host));
            findings.extend(irqs(topology, facts));
            for interface in topology.interfaces() {
                findings.extend(offloads(interface, facts));
            }
        }
        Some(Err(error)) => findings.push(Finding::error(
            "topology.toml",
            error,
            "name the file with --topology, or write one: `lockstep topology detect`",
        )),
        None => {}
    }
    findings.extend(huge_pages(facts));
    match &facts.engine {
        Some(Ok(engine)) => {
            findings.extend(engine::judge(engine, facts));
            findings.extend(sources::judge(engine, facts));
        }
        Some(Err(error)) => findings.push(Finding::error("engine", error, "")),
        None => {}
    }
    findings.extend(probes(facts));
    findings
}

/// What `lockstep topology check` says: queues that nobody polls, NUMA nodes, MTU, memory.
fn plan(topology: &Topology, host: &Host) -> Vec<Finding> {
    let finding = |found: &Diagnostic| {
        let mend = found.help.clone().unwrap_or_default();
        match found.severity {
            diagnostics::Severity::Error => Finding::error("topology.toml", &found.message, mend),
            diagnostics::Severity::Warning => {
                Finding::warning("topology.toml", &found.message, mend)
            }
        }
    };
    check(topology, host).iter().map(finding).collect()
}

/// Cores that other threads may run on. A worker that is interrupted lets its queue run over.
fn cores(topology: &Topology, host: &Host) -> Vec<Finding> {
    let shared: Vec<String> = topology
        .workers()
        .iter()
        .map(|worker| u32::from(worker.core.get()))
        .filter(|core| !host.isolated.contains(core))
        .map(|core| core.to_string())
        .collect();
    if shared.is_empty() {
        return Vec::new();
    }
    let list = shared.join(",");
    let found =
        format!("the scheduler may run other threads on cores {list}, which workers are pinned to");
    let mend = format!("boot with `isolcpus={list} nohz_full={list}`");
    vec![match topology.engine().poll {
        Poll::Busy => Finding::warning("cores", found, mend),
        Poll::Adaptive | Poll::Interrupt => Finding::note("cores", found, mend),
    }]
}

/// Interrupts of polled queues belong on the core of the worker that polls them: elsewhere each
/// packet changes caches before the worker sees it.
fn irqs(topology: &Topology, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let of_topology = |irq: &&Irq| {
        topology
            .interfaces()
            .iter()
            .any(|i| i.name.as_str() == irq.interface)
    };
    for irq in facts.irqs.iter().filter(of_topology) {
        let polls = |worker: &&lockstep_topology::Worker| {
            let mut queues = worker.queues.iter();
            queues.any(|q| q.interface.as_str() == irq.interface && Some(q.number) == irq.queue)
        };
        let Some(worker) = topology.workers().iter().find(polls) else {
            continue;
        };
        let core = u32::from(worker.core.get());
        if irq.cores != BTreeSet::from([core]) {
            let (number, queue) = (irq.number, irq.queue.unwrap_or_default());
            findings.push(Finding::warning(
                &irq.interface,
                format!("IRQ {number} of queue {queue} may run elsewhere than on core {core}, which polls the queue"),
                format!("`echo {core} > /proc/irq/{number}/smp_affinity_list`"),
            ));
        }
    }
    if facts.irqbalance && facts.irqs.iter().any(|irq| of_topology(&irq)) {
        findings.push(Finding::warning(
            "irqbalance",
            "it runs, and moves interrupts away from the cores that they are put on",
            "`systemctl disable --now irqbalance`, or set IRQBALANCE_BANNED_CPULIST to the workers' cores",
        ));
    }
    findings
}

/// Offloads that change packets before an XDP program sees them.
fn offloads(interface: &Interface, facts: &Facts) -> Vec<Finding> {
    let name = interface.name.as_str();
    let Some(features) = facts.features.get(name) else {
        return vec![Finding::note(
            name,
            "its offloads are not known: `ethtool -k` says nothing",
            "install ethtool",
        )];
    };
    let on = |feature: &str| features.get(feature).copied().unwrap_or(false);
    let mut findings = Vec::new();
    if on("large-receive-offload") {
        findings.push(Finding::error(
            name,
            "LRO joins packets into ones that are longer than the MTU, before the engine gets them",
            format!("`ethtool -K {name} lro off`"),
        ));
    }
    if on("generic-receive-offload") && is_generic(name, facts) {
        findings.push(Finding::warning(
            name,
            "the XDP program is generic and runs behind GRO, which joins packets",
            format!("`ethtool -K {name} gro off`"),
        ));
    }
    if on("rx-vlan-offload")
        && let Some(vlans) = facts.vlans.get(name)
    {
        findings.push(Finding::warning(
            name,
            format!(
                "the device takes VLAN tags off before the engine sees them, and {} has some: answers go back untagged",
                vlans.join(", ")
            ),
            format!("`ethtool -K {name} rxvlan off`"),
        ));
    }
    let kind = facts.host.interfaces.get(name).map(|i| &i.kind);
    if kind == Some(&InterfaceKind::Veth) && checksums_matter(features, facts) {
        findings.push(Finding::note(
            name,
            "it is a veth: what its other end sends has no checksum yet unless that end writes it, \
             and the engine rewrites or checks it",
            "at the other end: `ethtool -K PEER tx off`",
        ));
    }
    findings
}

fn is_generic(name: &str, facts: &Facts) -> bool {
    let engine = facts.engine.as_ref().and_then(|e| e.as_ref().ok());
    let mut interfaces = engine.iter().flat_map(|e| &e.status.interfaces);
    interfaces.any(|i| i.name == name && i.mode == "generic")
}

/// Tunnels leave checksums alone.
fn checksums_matter(_: &Features, facts: &Facts) -> bool {
    let engine = facts.engine.as_ref().and_then(|e| e.as_ref().ok());
    let mut services = engine.iter().flat_map(|e| &e.status.services);
    services.any(|service| service.mode != "tunnel")
}

fn huge_pages(facts: &Facts) -> Option<Finding> {
    (facts.huge_pages.as_deref() == Some("never")).then(|| {
        Finding::warning(
            "memory",
            "the kernel gives no huge pages: with small ones, looking a flow up costs more than anything else",
            "`echo madvise > /sys/kernel/mm/transparent_hugepage/enabled`, then restart the engine",
        )
    })
}

/// The way to the backends, for packets with their tunnel header.
fn probes(facts: &Facts) -> Vec<Finding> {
    let judge = |probe: &super::facts::Probe| {
        let (backend, bytes) = (probe.backend, probe.bytes);
        let short = |takes: String| {
            Finding::error(
                backend,
                format!(
                    "a packet of {bytes} bytes does not get there, {takes}: clients of {} bytes are told to send less, or time out",
                    facts.client_mtu
                ),
                "raise the MTU on the way from here to the backend, or clamp the MSS of clients",
            )
        };
        match (probe.short, probe.long) {
            (true, Reached::Yes) | (false, Reached::Yes) => None,
            (_, Reached::TooLong(Some(mtu))) => Some(short(format!("which takes {mtu}"))),
            (_, Reached::TooLong(None)) => Some(short(
                "this host's own interface being too small".to_owned(),
            )),
            (true, Reached::No) => Some(short("though short ones do".to_owned())),
            (false, Reached::No) => Some(Finding::note(
                backend,
                "it does not answer pings: whether long packets get there is not known",
                "",
            )),
        }
    };
    facts.probes.iter().filter_map(judge).collect()
}
