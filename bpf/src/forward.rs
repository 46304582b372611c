//! What XDP can do at most: a program that passes packets on and nothing else, to measure beside.

use crate::BpfError;
use crate::interface::{AttachMode, Attached, Attachment, Interface, ModeChoice};
use crate::program::{TestRun, load, test_run};
use crate::skeleton::forward::{ForwardSkel, ForwardSkelBuilder};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

/// The program's name in the kernel, which keeps 15 bytes of it: by it it is found again.
const NAME: &str = "lockstep_onward";

/// Where packets go on to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Onward<'a> {
    /// The interface that they are sent on.
    pub interface: &'a str,
    /// Its link-layer address.
    pub from: [u8; 6],
    /// The link-layer address of the neighbour behind it.
    pub to: [u8; 6],
}

/// The forwarding program on an interface. It stays there when this is dropped and when the process
/// ends; [`Forward::detach`] removes it.
#[derive(Debug)]
pub struct Forward {
    interface: Interface,
    attached: Attached,
    attachment: Attachment,
}

impl Forward {
    /// Attaches the program to `interface` of the calling thread's network namespace. Without a way
    /// onward every packet goes to the kernel: what an end of a veth pair needs so that the other
    /// end's packets come by XDP.
    pub fn attach(
        interface: &str,
        onward: Option<Onward<'_>>,
        mode: ModeChoice,
    ) -> Result<Forward, BpfError> {
        let interface = Interface::find(interface)?;
        let program = ForwardProgram::load(onward)?;
        let attachment =
            interface.attach(program.skeleton.progs.lockstep_onward.as_fd(), NAME, mode)?;
        let attached = interface
            .attached_as(NAME)?
            .ok_or_else(|| BpfError::NotAttached {
                interface: interface.name().to_owned(),
                program: NAME,
            })?;
        Ok(Forward {
            interface,
            attached,
            attachment,
        })
    }

    /// How the program is attached.
    pub fn mode(&self) -> AttachMode {
        self.attachment.mode
    }

    /// Takes the program off.
    pub fn detach(self) -> Result<(), BpfError> {
        self.interface.detach(&self.attached)
    }
}

/// The forwarding program in the kernel, on no interface.
pub struct ForwardProgram {
    skeleton: ForwardSkel<'static>,
}

impl ForwardProgram {
    /// Loads the program; its interface must be of the calling thread's network namespace.
    pub fn load(onward: Option<Onward<'_>>) -> Result<Self, BpfError> {
        let onward = match onward {
            Some(onward) => Some((Interface::find(onward.interface)?.index(), onward)),
            None => None,
        };
        // As in `SteerProgram::load`: a pointer-sized place for the skeleton to borrow.
        let place = Box::leak(Box::new(MaybeUninit::uninit()));
        let skeleton = load(NAME, || {
            let mut open = ForwardSkelBuilder::default().open(place)?;
            if let (Some(rodata), Some((index, onward))) = (open.maps.rodata_data.as_mut(), onward)
            {
                rodata.out = index;
                rodata.macs[..6].copy_from_slice(&onward.to);
                rodata.macs[6..].copy_from_slice(&onward.from);
            }
            open.load()
        })?;
        Ok(ForwardProgram { skeleton })
    }

    /// Runs the program on `frame` (14 bytes at least), `repeat` times over the same buffer.
    pub fn run(&self, frame: &[u8], repeat: u32) -> Result<TestRun, BpfError> {
        let program = &self.skeleton.progs.lockstep_onward;
        test_run(program, NAME, frame, repeat, None)
    }
}

impl fmt::Debug for ForwardProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForwardProgram").finish_non_exhaustive()
    }
}
