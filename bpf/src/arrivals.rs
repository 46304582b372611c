//! The end of a path to measure: packets are counted and dropped where the kernel first sees them.

use crate::BpfError;
use crate::interface::{Interface, ModeChoice};
use crate::log::captured;
use crate::program::{load, sum_over_cpus};
use crate::skeleton::arrivals::{ArrivalsSkel, ArrivalsSkelBuilder};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{TC_INGRESS, TcHookBuilder};
use std::fmt;
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

/// The XDP program's name in the kernel.
const NAME: &str = "lockstep_arrive";

/// What comes to an interface. There, the cheapest place to drop it is another one for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arriving {
    /// A driver's frames: dropped by XDP, in native mode.
    Frames,
    /// The kernel's socket buffers, as another end of a veth sends them: dropped at the ingress of `tc`.
    Skbs,
}

/// A counting program on an interface. It stays there when this is dropped, until the interface goes.
pub struct Arrivals {
    skeleton: ArrivalsSkel<'static>,
}

impl Arrivals {
    /// Counts and drops what comes to `interface`, of the calling thread's network namespace, for the addresses
    /// of a network: one of them, and the length of its prefix, 0 to 32. All else goes to the kernel. An older one
    /// that is there is replaced.
    ///
    /// # Errors
    ///
    /// Without privileges, for an interface that is not there, has another XDP program or takes none in native
    /// mode, and on kernels without the `clsact` qdisc.
    pub fn attach(
        interface: &str,
        arriving: Arriving,
        (address, prefix): (Ipv4Addr, u8),
    ) -> Result<Self, BpfError> {
        let interface = Interface::find(interface)?;
        let mask = u32::MAX
            .checked_shl(32 - u32::from(prefix.min(32)))
            .unwrap_or(0);
        // As in `SteerProgram::load`: a pointer-sized place for the skeleton to borrow.
        let place = Box::leak(Box::new(MaybeUninit::uninit()));
        let skeleton = load(NAME, || {
            let mut open = ArrivalsSkelBuilder::default().open(place)?;
            if let Some(rodata) = open.maps.rodata_data.as_mut() {
                rodata.network = (u32::from(address) & mask).to_be();
                rodata.mask = mask.to_be();
            }
            open.load()
        })?;
        let programs = &skeleton.progs;
        match arriving {
            Arriving::Frames => {
                let program = programs.lockstep_arrive.as_fd();
                interface.attach(program, NAME, ModeChoice::Native)?;
            }
            Arriving::Skbs => {
                let mut hook = TcHookBuilder::new(programs.lockstep_ingress.as_fd());
                // `if_nametoindex` gives positive numbers only.
                hook.ifindex(interface.index() as i32)
                    .replace(true)
                    .handle(1)
                    .priority(1);
                let mut hook = hook.hook(TC_INGRESS);
                let (result, log) = captured(|| hook.create().and_then(|mut hook| hook.attach()));
                result.map_err(|error| {
                    let reason = format!("{error} {log}");
                    interface.failed("attach a program for tc", reason)
                })?;
            }
        }
        Ok(Arrivals { skeleton })
    }

    /// Packets that have come since.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to tell.
    pub fn count(&self) -> Result<u64, BpfError> {
        sum_over_cpus(&self.skeleton.maps.counters, 0)
    }
}

impl fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrivals").finish_non_exhaustive()
    }
}
