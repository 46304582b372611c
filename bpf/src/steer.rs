//! The balancer's program: redirects what is ours into AF_XDP sockets.

use crate::abi::{DESTINATIONS, Destination, QUEUES, Room, SteerCounters};
use crate::interface::{AttachMode, Attached, Attachment, Interface, ModeChoice};
use crate::pins::Pins;
use crate::program::{TestRun, load, sum_over_cpus, test_run};
use crate::skeleton::steer::{SteerSkel, SteerSkelBuilder};
use crate::{Action, BpfError};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{ErrorKind, MapCore, MapFlags, Program};
use nix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where programs and maps are pinned unless the operator says otherwise.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/lockstep";

/// The program's name in the kernel, by which a successor knows it.
const NAME: &str = "lockstep_steer";

/// How [`Steer::attach`] goes about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SteerOptions {
    /// The directory under which each interface gets one with its pins; on a BPF file system, which
    /// is mounted there where it is missing.
    pub pin_dir: PathBuf,
    /// Which modes may be tried.
    pub mode: ModeChoice,
    /// How long after the last [`Steer::beat`] packets still go to the sockets. The program's clock
    /// has a resolution of 1 to 10 ms.
    pub deadline: Duration,
}

impl Default for SteerOptions {
    fn default() -> Self {
        SteerOptions {
            pin_dir: PathBuf::from(DEFAULT_PIN_DIR),
            mode: ModeChoice::Auto,
            deadline: Duration::from_secs(1),
        }
    }
}

/// The steering program on an interface.
///
/// Dropping it leaves the program attached and pinned, as being killed would: from then on every
/// packet goes to the kernel, as its sockets are closed or its heartbeat stops. [`Steer::detach`]
/// removes it.
#[derive(Debug)]
pub struct Steer {
    program: SteerProgram,
    interface: Interface,
    attachment: Attachment,
    id: u32,
    pins: Pins,
}

impl Steer {
    /// Loads the program with fresh maps, pins it and attaches it to `interface` of the calling
    /// thread's network namespace.
    ///
    /// What a killed predecessor left is replaced, without a moment in which no program is there
    /// if the mode stays the same. Nothing is redirected before the first [`Steer::beat`].
    pub fn attach(interface: &str, options: &SteerOptions) -> Result<Steer, BpfError> {
        let interface = Interface::find(interface)?;
        let mut program = SteerProgram::load(options.deadline)?;
        let id = program
            .id()
            .map_err(|error| interface.failed("ask for the program's number", error.to_string()))?;
        let pins = Pins::claim(&options.pin_dir, interface.name())?;
        let attached = program
            .pin(&pins)
            .and_then(|()| interface.attach(program.fd(), NAME, options.mode));
        let attachment = match attached {
            Ok(attachment) => attachment,
            Err(error) => {
                // The reason why it could not be attached says more than a leftover pin would.
                let _ = pins.remove();
                return Err(error);
            }
        };
        Ok(Steer {
            program,
            interface,
            attachment,
            id,
            pins,
        })
    }

    /// Removes what a killed engine left on `interface` and under `pin_dir`; fine if that is
    /// nothing, or if the interface is gone.
    pub fn remove_pinned(pin_dir: &Path, interface: &str) -> Result<(), BpfError> {
        // Locked first: a live engine's program must not be taken off.
        let pins = Pins::left(pin_dir, interface)?;
        match Interface::find(interface) {
            Ok(interface) => {
                if let Some(attached) = interface.attached_as(NAME)? {
                    interface.detach(&attached)?;
                }
            }
            Err(BpfError::NoInterface { .. }) => {}
            Err(error) => return Err(error),
        }
        pins.map_or(Ok(()), Pins::remove)
    }

    /// How the program is attached.
    pub fn mode(&self) -> AttachMode {
        self.attachment.mode
    }

    /// Why the mode is generic although native was tried, in the kernel's words.
    pub fn native_refused(&self) -> Option<&str> {
        self.attachment.native_refused.as_deref()
    }

    /// Sends what is ours and comes in on `queue` to `socket`, an AF_XDP socket bound to it.
    pub fn set_socket(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), BpfError> {
        self.program.set_socket(queue, socket)
    }

    /// Sends what comes in on `queue` to the kernel; fine if it went there already.
    pub fn clear_socket(&self, queue: u32) -> Result<(), BpfError> {
        self.program.clear_socket(queue)
    }

    /// Makes `wanted` the destinations that are ours; see [`SteerProgram::set_destinations`].
    pub fn set_destinations(
        &mut self,
        wanted: &BTreeMap<Destination, Room>,
    ) -> Result<(), BpfError> {
        self.program.set_destinations(wanted)
    }

    /// Says that the agent is alive now.
    pub fn beat(&self) -> Result<(), BpfError> {
        self.program.beat()
    }

    /// What the program did since it was attached, summed over the CPUs.
    pub fn counters(&self) -> Result<SteerCounters, BpfError> {
        self.program.counters()
    }

    /// Takes the program off and removes its pins.
    pub fn detach(self) -> Result<(), BpfError> {
        self.interface.detach(&Attached {
            id: self.id,
            name: NAME.to_owned(),
            mode: Some(self.attachment.mode),
        })?;
        self.pins.remove()
    }
}

/// The steering program and its maps in the kernel, on no interface.
pub struct SteerProgram {
    skeleton: SteerSkel<'static>,
    /// What is in the map, as key and value: nobody else writes there.
    destinations: BTreeMap<[u8; 20], [u8; 4]>,
}

impl SteerProgram {
    /// Loads the program; packets are redirected for `deadline` after each [`SteerProgram::beat`].
    pub fn load(deadline: Duration) -> Result<Self, BpfError> {
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
            }
            open.load()
        })?;
        Ok(SteerProgram {
            skeleton,
            destinations: BTreeMap::new(),
        })
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.skeleton.progs.lockstep_steer.as_fd()
    }

    fn id(&self) -> libbpf_rs::Result<u32> {
        Program::id_from_fd(self.fd())
    }

    fn pin(&mut self, pins: &Pins) -> Result<(), BpfError> {
        let SteerSkel { maps, progs, .. } = &mut self.skeleton;
        pins.pin_program(&mut progs.lockstep_steer, "program")?;
        pins.pin_map(&mut maps.destinations, "destinations")?;
        pins.pin_map(&mut maps.xsks, "xsks")?;
        pins.pin_map(&mut maps.heartbeat, "heartbeat")?;
        pins.pin_map(&mut maps.counters, "counters")
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

    /// Makes `wanted` the destinations that are ours, each with the room in front of its packets.
    ///
    /// Only what differs is written: first what is new or has other room, then what is gone, so
    /// that a destination that stays is there at every moment. After an error the map is between
    /// the two states, and the next call carries on from there.
    pub fn set_destinations(
        &mut self,
        wanted: &BTreeMap<Destination, Room>,
    ) -> Result<(), BpfError> {
        let wanted: BTreeMap<[u8; 20], [u8; 4]> = wanted
            .iter()
            .map(|(destination, room)| (destination.key(), room.value()))
            .collect();
        let map = &self.skeleton.maps.destinations;
        let failed = |doing| {
            move |source| BpfError::Map {
                map: "destinations",
                doing,
                source,
            }
        };
        let gone: Vec<[u8; 20]> = self
            .destinations
            .keys()
            .filter(|key| !wanted.contains_key(*key))
            .copied()
            .collect();
        let most = wanted.len() + gone.len();
        if most > DESTINATIONS {
            return Err(BpfError::TooManyDestinations { count: most });
        }
        for (key, value) in wanted {
            if self.destinations.get(&key) != Some(&value) {
                map.update(&key, &value, MapFlags::ANY)
                    .map_err(failed("add a destination"))?;
                self.destinations.insert(key, value);
            }
        }
        for key in gone {
            map.delete(&key).map_err(failed("remove a destination"))?;
            self.destinations.remove(&key);
        }
        Ok(())
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

#[cfg(test)]
mod tests;
