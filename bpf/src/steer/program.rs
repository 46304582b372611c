//! The steering program and its maps, on no interface.

use super::maps::{self, Maps};
use super::{NAME, PROGRAM};
use crate::abi::{
    DESTINATIONS, Destination, Key, LOCALS, QUEUES, RANGES, SOURCES, SteerCounters, Steered, Value,
    mapped,
};
use crate::carry::Carrier;
use crate::interface::Interface;
use crate::mirror::Mirror;
use crate::pins::Pins;
use crate::program::{TestRun, load, sum_over_cpus, test_run};
use crate::ranges::Entries;
use crate::skeleton::steer::{SteerSkel, SteerSkelBuilder};
use crate::{Action, BpfError};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{ErrorKind, MapCore, MapFlags, Program};
use nix::time::{ClockId, clock_gettime};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

/// The steering program and its maps in the kernel, on no interface.
pub struct SteerProgram {
    pub(super) skeleton: SteerSkel<'static>,
    destinations: Mirror<20, 8>,
    ranges: Mirror<24, 8>,
    sources: Mirror<20, 8>,
    locals: Mirror<16, 1>,
}

/// The words of two hashes: of the one that chooses a backend, and of the one that makes flow
/// labels and source ports of tunnels. Without them nothing can be carried as the engine would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seeds {
    /// Chooses a backend.
    pub selection: [u64; 8],
    /// Tells flows apart for the network.
    pub label: [u64; 8],
}

impl SteerProgram {
    /// Loads the program; packets are redirected for `deadline` after each [`SteerProgram::beat`].
    pub fn load(deadline: Duration, seeds: &Seeds) -> Result<Self, BpfError> {
        Self::load_with(deadline, seeds, None, None)
    }

    /// Loads it over maps that a predecessor `left`, or else over those of the program `beside` it
    /// that all programs of an engine share.
    pub(super) fn load_with(
        deadline: Duration,
        seeds: &Seeds,
        left: Option<Maps>,
        beside: Option<Maps>,
    ) -> Result<Self, BpfError> {
        let deadline = i64::try_from(deadline.as_nanos()).unwrap_or(i64::MAX);
        let deadline = u64::try_from(deadline).unwrap_or(0);
        if deadline == 0 {
            return Err(BpfError::NoDeadline);
        }
        // The skeleton borrows this pointer-sized place and drops what it puts there. Leaking the
        // place, once for every program loaded, spares a struct that borrows from itself.
        let place = Box::leak(Box::new(MaybeUninit::uninit()));
        let skeleton = load(NAME, || {
            let mut open = SteerSkelBuilder::default().open(place)?;
            if let Some(rodata) = open.maps.rodata_data.as_mut() {
                rodata.deadline_ns = deadline;
                rodata.selection_seed = seeds.selection;
                rodata.label_seed = seeds.label;
            }
            match (&left, &beside) {
                (Some(left), _) => left.put_into(&mut open.maps)?,
                (None, Some(beside)) => beside.share_with(&mut open.maps)?,
                (None, None) => {}
            }
            open.load()
        })?;
        let mut program = SteerProgram {
            skeleton,
            destinations: Mirror::new("destinations", DESTINATIONS),
            ranges: Mirror::new("ranges", RANGES),
            sources: Mirror::new("sources", SOURCES),
            locals: Mirror::new("locals", LOCALS),
        };
        if left.is_some() {
            let maps = &program.skeleton.maps;
            program.destinations.read(&maps.destinations)?;
            program.ranges.read(&maps.ranges)?;
            program.sources.read(&maps.sources)?;
            program.locals.read(&maps.locals)?;
        }
        Ok(program)
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.skeleton.progs.lockstep_steer.as_fd()
    }

    pub(super) fn id(&self) -> libbpf_rs::Result<u32> {
        Program::id_from_fd(self.fd())
    }

    /// Pins the program, and its maps unless they are pinned there already.
    pub(super) fn pin(&mut self, pins: &Pins, taken_over: bool) -> Result<(), BpfError> {
        let SteerSkel { maps, progs, .. } = &mut self.skeleton;
        if taken_over {
            pins.unpin(PROGRAM)?;
        } else {
            maps::pin(maps, pins)?;
        }
        pins.pin_program(&mut progs.lockstep_steer, PROGRAM)
    }

    /// Its maps, for a program beside it.
    pub(super) fn maps(&self) -> Result<Maps, BpfError> {
        Maps::of(&self.skeleton.maps)
    }

    /// What it carries by itself. One at a time may write it.
    pub fn carrier(&self) -> Result<Carrier, BpfError> {
        let maps = self.maps()?;
        Carrier::new(maps.rings, maps.backends, maps.pinned)
    }

    /// Sends what is ours and comes in on `queue` to `socket`, an AF_XDP socket.
    pub fn set_socket(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), BpfError> {
        in_range(queue)?;
        self.skeleton
            .maps
            .xsks
            .update(
                &queue.to_ne_bytes(),
                &socket.as_raw_fd().to_ne_bytes(),
                MapFlags::ANY,
            )
            .map_err(|source| BpfError::Map {
                map: "xsks",
                doing: "set a queue's socket",
                source,
            })
    }

    /// Sends what comes in on `queue` to the kernel; fine if it went there already.
    pub fn clear_socket(&self, queue: u32) -> Result<(), BpfError> {
        in_range(queue)?;
        match self.skeleton.maps.xsks.delete(&queue.to_ne_bytes()) {
            Err(source) if source.kind() != ErrorKind::NotFound => Err(BpfError::Map {
                map: "xsks",
                doing: "remove a queue's socket",
                source,
            }),
            _ => Ok(()),
        }
    }

    /// Makes `wanted` the destinations that are ours, and what is done with packets for each.
    ///
    /// Only what differs is written: first what is new or different, then what is gone, so that a
    /// destination that stays is there at every moment. After an error the maps are between the
    /// two states, and the next call carries on from there.
    pub fn set_destinations(
        &mut self,
        wanted: &BTreeMap<Destination, Steered>,
    ) -> Result<(), BpfError> {
        let wanted = Entries::of(wanted);
        self.destinations.check(&wanted.ports)?;
        self.ranges.check(&wanted.ranges)?;
        let maps = &self.skeleton.maps;
        // Ranges are there before an entry says so, and as long as one does.
        self.ranges.add(&maps.ranges, &wanted.ranges)?;
        self.destinations.add(&maps.destinations, &wanted.ports)?;
        self.destinations
            .remove(&maps.destinations, &wanted.ports)?;
        self.ranges.remove(&maps.ranges, &wanted.ranges)
    }

    /// Makes `wanted` the addresses and ports of backends whose answers are ours. They are written
    /// as destinations are, without ranges: a source's port 0 is every port, its protocol 1 or 58
    /// is for ICMP errors, and none is for packets without readable ports.
    pub fn set_sources(&mut self, wanted: &BTreeMap<Destination, Steered>) -> Result<(), BpfError> {
        let entry = |(source, steered): (&Destination, &Steered)| (source.key(), steered.value(0));
        let wanted: BTreeMap<Key, Value> = wanted.iter().map(entry).collect();
        self.sources.check(&wanted)?;
        let maps = &self.skeleton.maps;
        self.sources.add(&maps.sources, &wanted)?;
        self.sources.remove(&maps.sources, &wanted)?;
        // `struct steer_config`: without sources the map is not asked.
        let any = u32::from(!wanted.is_empty()).to_ne_bytes();
        maps.config_map
            .update(&0u32.to_ne_bytes(), &any, MapFlags::ANY)
            .map_err(|source| BpfError::Map {
                map: "config_map",
                doing: "say whether there are sources",
                source,
            })
    }

    /// Makes `addresses` this host's own: what backends send there is no answer to a client, and
    /// left to the kernel.
    pub fn set_locals(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), BpfError> {
        let entry = |&address: &IpAddr| (mapped(address), [1]);
        let wanted: BTreeMap<[u8; 16], [u8; 1]> = addresses.iter().map(entry).collect();
        self.locals.check(&wanted)?;
        let map = &self.skeleton.maps.locals;
        self.locals.add(map, &wanted)?;
        self.locals.remove(map, &wanted)
    }

    /// Says that the agent is alive now.
    pub fn beat(&self) -> Result<(), BpfError> {
        let failed = |source| BpfError::Map {
            map: "heartbeat",
            doing: "write the time",
            source,
        };
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
            .map_err(|errno| failed(libbpf_rs::Error::from_raw_os_error(errno as i32)))?;
        // From a clock that starts at 0 when the machine does: positive, and good for 292 years.
        let now = u64::try_from(Duration::from(now).as_nanos()).unwrap_or(u64::MAX);
        self.skeleton
            .maps
            .heartbeat
            .update(&0u32.to_ne_bytes(), &now.to_ne_bytes(), MapFlags::ANY)
            .map_err(failed)
    }

    /// What the program did since it was loaded, summed over the CPUs.
    pub fn counters(&self) -> Result<SteerCounters, BpfError> {
        SteerCounters::read(|index| sum_over_cpus(&self.skeleton.maps.counters, index))
    }

    /// Runs the program on `frame` (14 bytes at least), `repeat` times over the same buffer, as if
    /// it had come in on queue 0 of the loopback interface. Counters count; a frame that is
    /// redirected goes nowhere.
    pub fn run(&self, frame: &[u8], repeat: u32) -> Result<TestRun, BpfError> {
        let program = &self.skeleton.progs.lockstep_steer;
        test_run(program, NAME, frame, repeat, None)
    }

    /// Runs the program on `frame`, once, as if it had come in on `queue` of `interface`, and
    /// returns what it decided.
    pub fn run_on(&self, interface: &str, queue: u32, frame: &[u8]) -> Result<Action, BpfError> {
        let index = Interface::find(interface)?.index();
        let program = &self.skeleton.progs.lockstep_steer;
        test_run(program, NAME, frame, 1, Some((index, queue))).map(|run| run.action)
    }
}

impl fmt::Debug for SteerProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SteerProgram")
            .field("destinations", &self.destinations.len())
            .finish_non_exhaustive()
    }
}

fn in_range(queue: u32) -> Result<(), BpfError> {
    if queue < QUEUES {
        Ok(())
    } else {
        Err(BpfError::NoSuchQueue { queue })
    }
}
