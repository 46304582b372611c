//! Starting the workers: memory, sockets, threads pinned to their cores.

use crate::handover::Handover;
use crate::mailbox::{Mailbox, Vitals};
use crate::spill::{self, Spill, SpillHandle};
use crate::worker::{Links, Sessions, Stopwatch, Way, Worker};
use anyhow::{Context, anyhow};
use crossbeam::queue::ArrayQueue;
use lockstep_bpf::{AttachMode, Steer};
use lockstep_core::dataplane::NatConfig;
use lockstep_core::replicate::replicator::SessionEvent;
use lockstep_core::{Dataplane, DataplaneConfig, PortId, Spread, SpreadBy};
use lockstep_topology::{BindMode, FlowCapacity, Receive, Topology};
use lockstep_xsk::{Burst, FramePool, FrameSize, Port, PortOptions, RingSize, Umem, UmemConfig};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

// What the topology lets a worker poll is what it can wait for.
const _: () = assert!(lockstep_topology::Worker::MAX_QUEUES <= lockstep_xsk::MAX_WAIT_PORTS);

/// Events of sessions that wait for the agent, of each worker: what a failed server causes at
/// once, and then some.
const EVENTS: usize = 4_096;

/// One in so many slots of an RX ring is for acknowledgments of what sessions send at once: as much may
/// follow before it is looked at again, and clients go on sending meanwhile.
const ACKNOWLEDGED: u32 = 4;

/// How long a queue may stay busy after its last owner died.
const BUSY_QUEUE: Duration = Duration::from_secs(3);

/// A running worker, as the agent holds it.
pub struct WorkerHandle {
    /// Its core.
    pub core: u32,
    /// Whether it processes packets.
    pub processes: bool,
    /// Its queues, as `topology.toml` writes them.
    pub queues: Vec<String>,
    /// For each of its sockets: the interface's index, the queue, and the way it is bound.
    pub sockets: Vec<SocketHandle>,
    /// From and to it.
    pub mailbox: Arc<Mailbox>,
    /// Its signs of life.
    pub vitals: Arc<Vitals>,
    /// What has happened to its sessions.
    pub events: Arc<ArrayQueue<SessionEvent>>,
    /// The start of its clock.
    pub epoch: Instant,
}

/// One of a worker's sockets, as the agent holds it.
pub struct SocketHandle {
    /// Index of the interface in `topology.toml`.
    pub interface: usize,
    /// The queue's number.
    pub queue: u32,
    /// How it is bound.
    pub mode: lockstep_xsk::Mode,
    /// A second descriptor of the socket, to put it into the XDP program's map with.
    pub fd: std::os::fd::OwnedFd,
}

/// What runs beside the agent.
pub struct Started {
    /// The workers, in the topology's order.
    pub workers: Vec<WorkerHandle>,
    /// The thread that keeps sessions' input in files, where the topology has a place for them.
    pub spill: Option<SpillHandle>,
}

/// Starts every worker of the topology. Sockets are bound when this returns; no packet reaches
/// them before they are in the XDP program's map.
pub fn start(
    topology: &Topology,
    steers: &[Steer],
    seed: impl Fn() -> u64,
) -> anyhow::Result<Started> {
    let frames = topology.engine().umem_frames.get() as usize;
    let handovers = Handover::between(&lenders(topology), frames)?;
    let sessions = topology.sessions();
    let mut spill = match &sessions.spill {
        Some(directory) => {
            let alarms = handovers.iter().map(|h| Box::new(h.alarm()) as spill::Wake);
            let limit = sessions.spill_limit.get();
            Some(Spill::start(directory, limit, alarms)?)
        }
        None => None,
    };
    let memories = memories(topology)?;
    let mut workers = Vec::new();
    for (index, (handover, memory)) in handovers.into_iter().zip(memories).enumerate() {
        let endpoint = spill.as_mut().and_then(|spill| spill.endpoint(index));
        let events = Arc::new(ArrayQueue::new(EVENTS));
        let sessions = Sessions::new(Arc::clone(&events), endpoint);
        let starting = Starting {
            topology,
            index,
            steers,
        };
        let seeds = [seed(), seed(), seed()];
        workers.push(starting.start(memory, handover, seeds, sessions, events)?);
    }
    Ok(Started { workers, spill })
}

/// How packets are spread over workers, as one of them sees it.
pub fn spread(topology: &Topology, worker: usize) -> Spread {
    // There are no more workers than a byte counts: `Handover::between` has seen to it.
    Spread {
        me: worker as u8,
        processing: topology.processing().iter().map(|&w| w as u8).collect(),
        by: match topology.engine().spread {
            lockstep_topology::Spread::Rss => SpreadBy::Queue,
            lockstep_topology::Spread::Rps => SpreadBy::Flow,
        },
    }
}

/// For each worker without queues, the one with queues that lends it frames: in turn.
fn lenders(topology: &Topology) -> Vec<Option<u8>> {
    let workers = topology.workers();
    let with: Vec<u8> = (0..)
        .zip(workers)
        .filter(|(_, worker)| !worker.queues.is_empty())
        .map(|(index, _)| index)
        .collect();
    let mut turns = with.iter().copied().cycle();
    let lender = |worker: &lockstep_topology::Worker| match worker.queues.is_empty() {
        true => turns.next(),
        false => None,
    };
    workers.iter().map(lender).collect()
}

/// What a worker's packets are in: its own memory, or frames of another's.
struct Memory {
    umem: Rc<Umem>,
    pool: FramePool,
    lender: Option<u8>,
}

/// The memory of each worker. All is there before the first worker starts, because some lend to
/// others.
fn memories(topology: &Topology) -> anyhow::Result<Vec<Memory>> {
    let workers = topology.workers();
    let mut own = Vec::new();
    for worker in workers {
        own.push(match worker.queues.len() {
            0 => None,
            queues => {
                let made = Umem::new(&umem_config(topology, queues)?);
                let (umem, pool) =
                    made.with_context(|| format!("worker on core {}", worker.core))?;
                Some((Rc::new(umem), pool))
            }
        });
    }
    let umems: Vec<Option<Rc<Umem>>> = own
        .iter()
        .map(|own| own.as_ref().map(|(umem, _)| Rc::clone(umem)))
        .collect();
    let memory = |(own, lender): (Option<(Rc<Umem>, FramePool)>, Option<u8>)| match (own, lender) {
        (Some((umem, pool)), _) => Ok(Memory {
            umem,
            pool,
            lender: None,
        }),
        (None, lender) => {
            let umem = lender.and_then(|lender| umems[usize::from(lender)].clone());
            let umem = umem.ok_or_else(|| anyhow!("no worker has a queue"))?;
            let pool = umem.guest_pool();
            Ok(Memory { umem, pool, lender })
        }
    };
    own.into_iter().zip(lenders(topology)).map(memory).collect()
}

/// A worker that is about to start.
struct Starting<'a> {
    topology: &'a Topology,
    index: usize,
    steers: &'a [Steer],
}

impl Starting<'_> {
    fn start(
        &self,
        memory: Memory,
        handover: Handover,
        [seed, cookie_key @ ..]: [u64; 3],
        sessions: Sessions,
        events: Arc<ArrayQueue<SessionEvent>>,
    ) -> anyhow::Result<WorkerHandle> {
        let Starting {
            topology, index, ..
        } = *self;
        let plan = &topology.workers()[index];
        let core = u32::from(plan.core.get());
        let umem = Rc::clone(&memory.umem);
        let (links, sockets) = self.bind(memory, handover)?;
        let dataplane = self.dataplane(seed, cookie_key)?;
        let mailbox = Mailbox::new();
        let vitals = Vitals::new(Arc::clone(dataplane.counters()));
        let epoch = Instant::now();
        let worker = Worker {
            links,
            burst: Burst::new(&umem),
            dataplane,
            sessions,
            tap: None,
            stopwatch: Stopwatch::default(),
            poll: topology.engine().poll,
            mailbox: Arc::clone(&mailbox),
            vitals: Arc::clone(&vitals),
            epoch,
        };
        spawn(worker, index, core)?;
        Ok(WorkerHandle {
            core,
            processes: plan.process,
            queues: plan.queues.iter().map(ToString::to_string).collect(),
            sockets,
            mailbox,
            vitals,
            events,
            epoch,
        })
    }

    /// Binds its sockets.
    fn bind(
        &self,
        memory: Memory,
        handover: Handover,
    ) -> anyhow::Result<(Links, Vec<SocketHandle>)> {
        let Memory { umem, pool, lender } = memory;
        let interfaces = self.topology.interfaces();
        let queues = &self.topology.workers()[self.index].queues;
        let ring = ring(pool.total(), queues.len())?;
        let ways_out = vec![lender.map(Way::Lender); interfaces.len()];
        let mut links = Links::new(pool, handover, ways_out, ring.get() / ACKNOWLEDGED);
        let mut sockets = Vec::new();
        for queue in queues {
            let interface = interfaces
                .iter()
                .position(|i| i.name == queue.interface)
                .ok_or_else(|| anyhow!("{queue} is of no interface in topology.toml"))?;
            let mode = interfaces[interface].mode;
            let native = self.steers[interface].mode() == AttachMode::Native;
            let busy_poll = self.topology.engine().receive == Receive::Worker;
            let options = PortOptions {
                busy_poll,
                ..port_options(mode, native, ring)
            };
            let port = Port::bind(
                &umem,
                &mut links.pool,
                queue.interface.as_str(),
                queue.number,
                &options,
            )?;
            let core = u32::from(self.topology.workers()[self.index].core.get());
            tracing::info!(worker = self.index, core, %queue, mode = %port.mode(), "socket bound");
            if busy_poll && !port.polls() {
                tracing::warn!(
                    %queue,
                    "receive = \"worker\" does nothing here yet: the kernel does not know which NAPI instance serves \
                     this queue. Its driver does not say (veth), or, before Linux 6.13, no packet has come. \
                     Interrupts take packets in; lockstep_worker_rx_polls_total counts when that changes."
                );
            }
            let fd = port
                .fd()
                .try_clone_to_owned()
                .context("cannot duplicate a descriptor")?;
            sockets.push(SocketHandle {
                interface,
                queue: queue.number,
                mode: port.mode(),
                fd,
            });
            links.ways_out[interface].get_or_insert(Way::Socket(links.ports.len()));
            // No more interfaces than a worker may have queues, which a byte counts.
            links.interfaces.push(PortId(interface as u8));
            links.ports.push(port);
        }
        Ok((links, sockets))
    }

    fn dataplane(&self, seed: u64, cookie_key: [u64; 2]) -> anyhow::Result<Dataplane> {
        let engine = self.topology.engine();
        let processes = self.topology.workers()[self.index].process;
        // One that does not process has no flows.
        let flows = |capacity: FlowCapacity| match processes {
            true => usize::try_from(capacity.get()),
            false => Ok(0),
        };
        let spread = spread(self.topology, self.index);
        let dataplane = Dataplane::new(&DataplaneConfig {
            flows_v4: flows(engine.flows_ipv4)?,
            flows_v6: flows(engine.flows_ipv6)?,
            seed,
            nat: NatConfig {
                cookie_key,
                ..self.nat(&spread)
            },
        });
        Ok(dataplane.with_spread(spread))
    }

    /// The engine's addresses, this worker's ports there, and how long packets may be.
    fn nat(&self, spread: &Spread) -> NatConfig {
        let addresses = self.topology.engine().addresses.all();
        let v4 = |address: &IpAddr| match address {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        };
        let v6 = |address: &IpAddr| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => Some(*v6),
        };
        // One that does not process takes no port, but has to know whose each is.
        let (share, shares) = (spread.share().unwrap_or(0), spread.processing.len());
        let interfaces = self.topology.interfaces().iter();
        NatConfig {
            pool_v4: addresses.iter().filter_map(v4).collect(),
            pool_v6: addresses.iter().filter_map(v6).collect(),
            ports: Some(self.topology.nat().ports.share(share, shares)),
            // An interface that says nothing of it takes anything: its sockets will say it.
            mtus: interfaces
                .map(|i| crate::agent::equip::mtu(i.name.as_str()).unwrap_or(u16::MAX))
                .collect(),
            cookie_key: [0; 2],
        }
    }
}

/// Starts the thread and waits until it is on its core.
fn spawn(mut worker: Worker, index: usize, core: u32) -> anyhow::Result<()> {
    let (pinned, is_pinned) = mpsc::channel();
    let vitals = Arc::clone(&worker.vitals);
    std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            let id = core_affinity::CoreId { id: core as usize };
            let on_core = core_affinity::set_for_current(id);
            // The other end is there until it has heard this.
            let _ = pinned.send(on_core);
            if on_core && let Err(error) = worker.run() {
                tracing::error!(worker = index, %error, "the worker stops");
            }
            vitals.stopped.store(true, Ordering::Relaxed);
        })
        .context("cannot start a thread")?;
    if is_pinned.recv().unwrap_or(false) {
        Ok(())
    } else {
        Err(anyhow!(
            "worker {index} cannot be pinned to core {core}; is the core in this process's \
             cpuset (see `taskset -p {}`)?",
            std::process::id()
        ))
    }
}

fn umem_config(topology: &Topology, queues: usize) -> anyhow::Result<UmemConfig> {
    let engine = topology.engine();
    let frames = engine.umem_frames.get();
    let ring = ring(frames as usize, queues)?;
    Ok(UmemConfig {
        frames,
        frame_size: match engine.frame_size {
            lockstep_topology::FrameSize::Bytes2048 => FrameSize::Bytes2048,
            lockstep_topology::FrameSize::Bytes4096 => FrameSize::Bytes4096,
        },
        huge_pages: true,
        fill_ring: ring,
        completion_ring: ring,
    })
}

fn port_options(mode: BindMode, native: bool, ring: RingSize) -> PortOptions {
    PortOptions {
        mode: match mode {
            BindMode::Auto => lockstep_xsk::BindMode::Auto,
            BindMode::ZeroCopy => lockstep_xsk::BindMode::ZeroCopy,
            BindMode::Copy => lockstep_xsk::BindMode::Copy,
            BindMode::Generic => lockstep_xsk::BindMode::Generic,
        },
        program_native: native,
        rx_ring: ring,
        tx_ring: ring,
        busy_poll: false,
        busy_timeout: BUSY_QUEUE,
    }
}

/// The size of each ring: half of a queue's share of the frames for what is received, so that
/// the other half can be on its way out; a power of two up to 2,048.
fn ring(frames: usize, queues: usize) -> anyhow::Result<RingSize> {
    let share = frames / queues.max(1) / 2;
    let slots = (share + 1).next_power_of_two() / 2;
    let slots = u32::try_from(slots.clamp(64, 2_048))?;
    RingSize::new(slots).ok_or_else(|| anyhow!("{slots} slots make no ring"))
}
