//! What takes packets for the load generator, its sink and its responder.

use crate::BpfError;
use crate::abi::{TrafficCounters, mapped};
use crate::interface::{AttachMode, Attached, Attachment, Interface, ModeChoice};
use crate::owner::Owner;
use crate::program::{TestRun, load, sum_over_cpus, test_run};
use crate::skeleton::traffic::{TrafficSkel, TrafficSkelBuilder};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, Program};
use std::collections::BTreeSet;
use std::fmt;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// The most addresses of one interface whose packets are taken.
pub const TRAFFIC_ADDRESSES: usize = 65_536;
/// The most ranges of ports.
pub const TRAFFIC_RANGES: usize = 8;
/// Sockets are for queues 0 up to, but not including, this.
pub const TRAFFIC_QUEUES: u32 = 256;

/// The program's name in the kernel, by which a successor knows it.
const NAME: &str = "lockstep_load";

/// What is taken from the kernel. Without ports and tunnels: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Packets to these addresses, or to all where there are none.
    pub addresses: BTreeSet<IpAddr>,
    /// With these ports, of an IP protocol: [`TRAFFIC_RANGES`] at most.
    pub ports: Vec<(u8, RangeInclusive<u16>)>,
    /// And IP in IP, whatever it carries.
    pub tunnels: bool,
}

/// The program on an interface. It stays there when this is dropped, as being killed would leave it;
/// without sockets it passes everything on. [`Traffic::detach`] removes it.
#[derive(Debug)]
pub struct Traffic {
    program: TrafficProgram,
    interface: Interface,
    attachment: Attachment,
    id: u32,
    _owner: Owner,
}

impl Traffic {
    /// Loads the program and attaches it to `interface` of the calling thread's network namespace. One
    /// that an earlier generator left there is replaced in one step.
    ///
    /// # Errors
    ///
    /// [`BpfError::Taken`] while another process has one there: it would get no packets any more, and
    /// take that for loss.
    pub fn attach(interface: &str, wanted: &Wanted, mode: ModeChoice) -> Result<Self, BpfError> {
        let interface = Interface::find(interface)?;
        let owner = Owner::of(&interface)?;
        let program = TrafficProgram::load(wanted)?;
        let fd = program.skeleton.progs.lockstep_load.as_fd();
        let id = Program::id_from_fd(fd)
            .map_err(|error| interface.failed("ask for the program's number", error.to_string()))?;
        let attachment = interface.attach(fd, NAME, mode)?;
        Ok(Traffic {
            program,
            interface,
            attachment,
            id,
            _owner: owner,
        })
    }

    /// How the program is attached.
    pub fn mode(&self) -> AttachMode {
        self.attachment.mode
    }

    /// Sends what is wanted and comes in on `queue` to `socket`, an AF_XDP socket bound to it.
    pub fn set_socket(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), BpfError> {
        if queue >= TRAFFIC_QUEUES {
            return Err(BpfError::NoSuchQueue { queue });
        }
        let fd = socket.as_raw_fd().to_ne_bytes();
        (self.program.skeleton.maps.xsks)
            .update(&queue.to_ne_bytes(), &fd, MapFlags::ANY)
            .map_err(|source| BpfError::Map {
                map: "xsks",
                doing: "set a queue's socket",
                source,
            })
    }

    /// What the program did since it was attached, summed over the CPUs.
    pub fn counters(&self) -> Result<TrafficCounters, BpfError> {
        self.program.counters()
    }

    /// Takes the program off. To be called inside the interface's network namespace.
    pub fn detach(self) -> Result<(), BpfError> {
        self.interface.detach(&Attached {
            id: self.id,
            name: NAME.to_owned(),
            mode: Some(self.attachment.mode),
        })
    }
}

/// The program and its maps in the kernel, on no interface.
pub struct TrafficProgram {
    skeleton: TrafficSkel<'static>,
}

impl TrafficProgram {
    /// Loads the program for what is wanted.
    pub fn load(wanted: &Wanted) -> Result<Self, BpfError> {
        let too_many = |map, count, limit| BpfError::TooMany { map, count, limit };
        let Wanted {
            addresses,
            ports,
            tunnels,
        } = wanted;
        if addresses.len() > TRAFFIC_ADDRESSES {
            return Err(too_many("addresses", addresses.len(), TRAFFIC_ADDRESSES));
        }
        if ports.len() > TRAFFIC_RANGES {
            return Err(too_many("ranges of ports", ports.len(), TRAFFIC_RANGES));
        }
        // As in `SteerProgram::load`: a pointer-sized place for the skeleton to borrow.
        let place = Box::leak(Box::new(MaybeUninit::uninit()));
        let skeleton = load(NAME, || {
            let mut open = TrafficSkelBuilder::default().open(place)?;
            if let Some(rodata) = open.maps.rodata_data.as_mut() {
                for (at, (protocol, range)) in ports.iter().enumerate() {
                    rodata.protocol[at] = *protocol;
                    rodata.low[at] = *range.start();
                    rodata.high[at] = *range.end();
                }
                // No more than `TRAFFIC_RANGES`.
                rodata.ranges = ports.len() as u32;
                rodata.any_address = u8::from(addresses.is_empty());
                rodata.tunnels = u8::from(*tunnels);
            }
            open.load()
        })?;
        for &address in addresses {
            (skeleton.maps.addresses)
                .update(&mapped(address), &[1], MapFlags::ANY)
                .map_err(|source| BpfError::Map {
                    map: "addresses",
                    doing: "add an address",
                    source,
                })?;
        }
        Ok(TrafficProgram { skeleton })
    }

    /// What the program did since it was loaded, summed over the CPUs.
    pub fn counters(&self) -> Result<TrafficCounters, BpfError> {
        TrafficCounters::read(|index| sum_over_cpus(&self.skeleton.maps.counters, index))
    }

    /// Runs the program on `frame` (14 bytes at least), `repeat` times over the same buffer.
    pub fn run(&self, frame: &[u8], repeat: u32) -> Result<TestRun, BpfError> {
        let program = &self.skeleton.progs.lockstep_load;
        test_run(program, NAME, frame, repeat, None)
    }
}

impl fmt::Debug for TrafficProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrafficProgram").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
