//! What ends tunnels on a real server whose kernel has no driver for them.

use crate::BpfError;
use crate::abi::{DecapCounters, mapped};
use crate::interface::{AttachMode, Attached, Attachment, Interface, ModeChoice};
use crate::program::{TestRun, load, sum_over_cpus, test_run};
use crate::skeleton::decap::{DecapSkel, DecapSkelBuilder};
use libbpf_rs::query::{ProgInfoIter, ProgInfoQueryOptions};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use std::ffi::OsStr;
use std::fmt;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::os::fd::AsFd;

/// The most tunnel end points of one interface.
pub const DECAP_ADDRESSES: usize = 64;

/// The program's name in the kernel, by which it is found again.
const NAME: &str = "lockstep_decap";

/// The decapsulating program on an interface. It stays there when this is dropped and when the
/// process ends; [`Decap::detach`] removes it.
#[derive(Debug)]
pub struct Decap {
    interface: Interface,
    attached: Attached,
    attachment: Attachment,
}

impl Decap {
    /// Attaches the program to `interface` of the calling thread's network namespace, for tunnels
    /// that end at one of `addresses`: IP in IP, and GUE where a port is named. If it is there already, it is replaced in one step, and its
    /// counters start again.
    pub fn attach(
        interface: &str,
        addresses: &[IpAddr],
        gue_port: Option<NonZeroU16>,
        mode: ModeChoice,
    ) -> Result<Decap, BpfError> {
        let interface = Interface::find(interface)?;
        let program = DecapProgram::load(addresses, gue_port)?;
        let attachment =
            interface.attach(program.skeleton.progs.lockstep_decap.as_fd(), NAME, mode)?;
        let attached = find(&interface)?;
        Ok(Decap {
            interface,
            attached,
            attachment,
        })
    }

    /// The program that an earlier [`Decap::attach`] left on `interface`.
    pub fn open(interface: &str) -> Result<Decap, BpfError> {
        let interface = Interface::find(interface)?;
        let attached = find(&interface)?;
        let attachment = Attachment {
            mode: attached.mode.unwrap_or(AttachMode::Native),
            native_refused: None,
        };
        Ok(Decap {
            interface,
            attached,
            attachment,
        })
    }

    /// How the program is attached.
    pub fn mode(&self) -> AttachMode {
        self.attachment.mode
    }

    /// Why the mode is generic although [`Decap::attach`] tried native, in the kernel's words.
    pub fn native_refused(&self) -> Option<&str> {
        self.attachment.native_refused.as_deref()
    }

    /// What the program did since it was attached, summed over the CPUs.
    pub fn counters(&self) -> Result<DecapCounters, BpfError> {
        let counters = self.map("counters")?;
        DecapCounters::read(|index| sum_over_cpus(&counters, index))
    }

    /// Takes the program off.
    pub fn detach(self) -> Result<(), BpfError> {
        self.interface.detach(&self.attached)
    }

    /// A map of the attached program: it is not pinned, but the kernel knows which are its.
    fn map(&self, name: &str) -> Result<MapHandle, BpfError> {
        let options = ProgInfoQueryOptions::default().include_map_ids(true);
        ProgInfoIter::with_query_opts(options)
            .find(|program| program.id == self.attached.id)
            .into_iter()
            .flat_map(|program| program.map_ids)
            .filter_map(|id| MapHandle::from_map_id(id).ok())
            .find(|map| map.name() == OsStr::new(name))
            .ok_or_else(|| BpfError::NotAttached {
                interface: self.interface.name().to_owned(),
                program: NAME,
            })
    }
}

fn find(interface: &Interface) -> Result<Attached, BpfError> {
    interface
        .attached_as(NAME)?
        .ok_or_else(|| BpfError::NotAttached {
            interface: interface.name().to_owned(),
            program: NAME,
        })
}

/// The decapsulating program and its maps in the kernel, on no interface.
pub struct DecapProgram {
    skeleton: DecapSkel<'static>,
}

impl DecapProgram {
    /// Loads the program for tunnels that end at one of `addresses`: IP in IP, and GUE variant 1
    /// where a UDP port is named.
    pub fn load(addresses: &[IpAddr], gue_port: Option<NonZeroU16>) -> Result<Self, BpfError> {
        if addresses.len() > DECAP_ADDRESSES {
            return Err(BpfError::TooManyAddresses {
                count: addresses.len(),
            });
        }
        // As in `SteerProgram::load`: a pointer-sized place for the skeleton to borrow.
        let place = Box::leak(Box::new(MaybeUninit::uninit()));
        let skeleton = load(NAME, || {
            let mut open = DecapSkelBuilder::default().open(place)?;
            if let Some(rodata) = open.maps.rodata_data.as_mut() {
                rodata.gue_port = gue_port.map_or(0, NonZeroU16::get);
            }
            open.load()
        })?;
        for &address in addresses {
            skeleton
                .maps
                .addresses
                .update(&mapped(address), &[1], MapFlags::ANY)
                .map_err(|source| BpfError::Map {
                    map: "addresses",
                    doing: "add a tunnel address",
                    source,
                })?;
        }
        Ok(DecapProgram { skeleton })
    }

    /// What the program did since it was loaded, summed over the CPUs.
    pub fn counters(&self) -> Result<DecapCounters, BpfError> {
        DecapCounters::read(|index| sum_over_cpus(&self.skeleton.maps.counters, index))
    }

    /// Runs the program on `frame` (14 bytes at least), `repeat` times over the same buffer.
    pub fn run(&self, frame: &[u8], repeat: u32) -> Result<TestRun, BpfError> {
        let program = &self.skeleton.progs.lockstep_decap;
        test_run(program, NAME, frame, repeat, None)
    }
}

impl fmt::Debug for DecapProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecapProgram").finish_non_exhaustive()
    }
}
