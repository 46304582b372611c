//! The balancer's program: redirects what is ours into AF_XDP sockets.

mod maps;
mod program;

pub use program::{Seeds, SteerProgram};

use crate::BpfError;
use crate::abi::{Destination, SteerCounters, Steered};
use crate::carry::Carrier;
use crate::interface::{AttachMode, Attached, Attachment, Interface, ModeChoice};
use crate::pins::Pins;
use maps::Maps;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where programs and maps are pinned unless the operator says otherwise.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/lockstep";

/// The program's name in the kernel, by which a successor knows it.
const NAME: &str = "lockstep_steer";
/// The name of its pin.
const PROGRAM: &str = "program";

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
    /// How flows are hashed when the program carries their packets itself.
    pub seeds: Seeds,
}

impl Default for SteerOptions {
    fn default() -> Self {
        SteerOptions {
            pin_dir: PathBuf::from(DEFAULT_PIN_DIR),
            mode: ModeChoice::Auto,
            deadline: Duration::from_secs(1),
            seeds: Seeds::default(),
        }
    }
}

/// The steering program on an interface.
///
/// Dropping it leaves the program attached and pinned, as being killed would: from then on, as its
/// sockets are closed or its heartbeat stops, it carries packets of tunnels by itself and gives the
/// others to the kernel. A successor takes its maps over. [`Steer::detach`] removes it.
#[derive(Debug)]
pub struct Steer {
    program: SteerProgram,
    interface: Interface,
    attachment: Attachment,
    id: u32,
    pins: Pins,
    taken_over: bool,
}

impl Steer {
    /// Loads the program, pins it and attaches it to `interface` of the calling thread's network
    /// namespace.
    ///
    /// What a killed predecessor left is replaced, without a moment in which no program is there
    /// if the mode stays the same. Its maps are taken over where they have today's form: what it
    /// steered and carried stays in force until it is changed. Nothing is redirected before the
    /// first [`Steer::beat`].
    pub fn attach(interface: &str, options: &SteerOptions) -> Result<Steer, BpfError> {
        Self::attach_beside(None, interface, options)
    }

    /// The same on one more interface of an engine, which shares with the `first` one what its
    /// program carries by itself.
    pub fn attach_beside(
        first: Option<&Steer>,
        interface: &str,
        options: &SteerOptions,
    ) -> Result<Steer, BpfError> {
        let interface = Interface::find(interface)?;
        let beside = first.map(|first| first.program.maps()).transpose()?;
        let pins = Pins::claim(&options.pin_dir, interface.name())?;
        let interface = interface.knowing(pins.program(PROGRAM), NAME);
        let left = match interface.attached_as(NAME) {
            // A program that is not there any more carries nothing that could go on.
            Ok(Some(_)) => Maps::left(&pins).filter(|left| left.fits(beside.as_ref())),
            Ok(None) => None,
            Err(error) => return Err(given_up(pins, false, error)),
        };
        let taken_over = left.is_some();
        let attached = Self::load_and_attach(&interface, &pins, left, beside, options);
        match attached {
            Ok((program, attachment, id)) => Ok(Steer {
                program,
                interface,
                attachment,
                id,
                pins,
                taken_over,
            }),
            Err(error) => Err(given_up(pins, taken_over, error)),
        }
    }

    fn load_and_attach(
        interface: &Interface,
        pins: &Pins,
        left: Option<Maps>,
        beside: Option<Maps>,
        options: &SteerOptions,
    ) -> Result<(SteerProgram, Attachment, u32), BpfError> {
        let taken_over = left.is_some();
        if !taken_over {
            pins.clear()?;
        }
        let mut program = SteerProgram::load_with(options.deadline, &options.seeds, left, beside)?;
        let id = program
            .id()
            .map_err(|error| interface.failed("ask for the program's number", error.to_string()))?;
        program.pin(pins, taken_over)?;
        let attachment = interface.attach(program.fd(), NAME, options.mode)?;
        Ok((program, attachment, id))
    }

    /// Removes what a killed engine left on `interface` and under `pin_dir`; fine if that is
    /// nothing, or if the interface is gone.
    pub fn remove_pinned(pin_dir: &Path, interface: &str) -> Result<(), BpfError> {
        // Locked first: a live engine's program must not be taken off.
        let pins = Pins::left(pin_dir, interface)?;
        match Interface::find(interface) {
            Ok(interface) => {
                let pinned = pins.as_ref().and_then(|pins| pins.program(PROGRAM));
                let interface = interface.knowing(pinned, NAME);
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

    /// Whether a predecessor's maps were taken over, with what was in force in them.
    pub fn has_taken_over(&self) -> bool {
        self.taken_over
    }

    /// The interface's number in the kernel.
    pub fn interface_number(&self) -> u32 {
        self.interface.index()
    }

    /// What all interfaces' programs carry by themselves. One of them at a time may write it.
    pub fn carrier(&self) -> Result<Carrier, BpfError> {
        self.program.carrier()
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
        wanted: &BTreeMap<Destination, Steered>,
    ) -> Result<(), BpfError> {
        self.program.set_destinations(wanted)
    }

    /// Makes `wanted` the places that answers come from; see [`SteerProgram::set_sources`].
    pub fn set_sources(&mut self, wanted: &BTreeMap<Destination, Steered>) -> Result<(), BpfError> {
        self.program.set_sources(wanted)
    }

    /// Makes `addresses` this host's own; see [`SteerProgram::set_locals`].
    pub fn set_locals(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), BpfError> {
        self.program.set_locals(addresses)
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

/// What is left of an attempt: pins that were made for it go, those of a predecessor stay, since
/// its program is still there and carries.
fn given_up(pins: Pins, taken_over: bool, error: BpfError) -> BpfError {
    if !taken_over {
        // The reason why it could not be attached says more than a leftover pin would.
        let _ = pins.remove();
    }
    error
}

#[cfg(test)]
mod tests;
