//! Packets made by the kernel itself, to measure with: more of them than a program can send by a socket,
//! and as a driver hands them on.

use crate::BpfError;
use crate::interface::Interface;
use crate::log::captured;
use crate::program::load;
use crate::skeleton::offer::{OfferSkel, OfferSkelBuilder};
use libbpf_rs::ProgramInput;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use std::fmt;
use std::mem::MaybeUninit;
use std::time::Duration;

/// Packets that go out together.
pub const OFFER_BATCH: u64 = 64;
/// `BPF_F_TEST_XDP_LIVE_FRAMES` of `linux/bpf.h` (Linux 5.18).
const LIVE_FRAMES: u32 = 1 << 1;
/// Bytes of a packet that it writes anew: Ethernet, IPv4 and UDP headers.
const HEADERS: usize = 42;
const NAME: &str = "lockstep_offer";

/// A load.
#[derive(Debug, Clone)]
pub struct Offer<'a> {
    /// Where it goes out, in the calling thread's network namespace.
    pub interface: &'a str,
    /// A whole packet, from its Ethernet header on: UDP over IPv4 without options and without UDP's checksum.
    pub packet: &'a [u8],
    /// So many flows: from this packet's address on, 50,000 source ports of each address.
    pub flows: u32,
    /// Packets a second.
    pub packets_per_second: u64,
    /// For how long.
    pub duration: Duration,
}

/// What came of a load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Offered {
    /// Packets sent; those that the interface had no room for are among them.
    pub packets: u64,
    /// From the first to the end of the last.
    pub seconds: f64,
}

impl Offer<'_> {
    /// Nanoseconds from one batch to the next.
    fn interval(&self) -> u64 {
        (OFFER_BATCH * 1_000_000_000 / self.packets_per_second.max(1)).max(1)
    }
}

/// The program in the kernel, with its load.
pub struct OfferProgram<'a> {
    offer: Offer<'a>,
    skeleton: OfferSkel<'static>,
}

impl<'a> OfferProgram<'a> {
    /// Loads the program for a load.
    ///
    /// # Errors
    ///
    /// Without privileges, for an interface that is not there, and for packets shorter than their headers.
    pub fn load(offer: Offer<'a>) -> Result<Self, BpfError> {
        let interface = Interface::find(offer.interface)?;
        let first: &[u8; HEADERS] =
            (offer.packet.first_chunk()).ok_or_else(|| BpfError::TestRun {
                program: NAME,
                length: offer.packet.len(),
                source: std::io::Error::from(std::io::ErrorKind::InvalidInput).into(),
            })?;
        // As in `SteerProgram::load`: a pointer-sized place for the skeleton to borrow.
        let place = Box::leak(Box::new(MaybeUninit::uninit()));
        let skeleton = load(NAME, || {
            let mut open = OfferSkelBuilder::default().open(place)?;
            if let Some(rodata) = open.maps.rodata_data.as_mut() {
                rodata.out = interface.index();
                for (half, bytes) in rodata.first.iter_mut().zip(first.chunks_exact(2)) {
                    *half = u16::from_ne_bytes([bytes[0], bytes[1]]);
                }
                rodata.flows = offer.flows.max(1);
                rodata.interval = offer.interval();
                rodata.duration = u64::try_from(offer.duration.as_nanos()).unwrap_or(u64::MAX);
            }
            open.load()
        })?;
        Ok(OfferProgram { offer, skeleton })
    }

    /// Sends the packets, from the CPU that the calling thread runs on, which does nothing else meanwhile.
    /// One batch of [`OFFER_BATCH`] follows the other; what is more than 1 ms late is left out rather than
    /// made up for.
    ///
    /// # Errors
    ///
    /// On kernels before 5.18, for packets longer than the kernel's frames have room for, and when a signal
    /// came before the first batch.
    pub fn send(self) -> Result<Offered, BpfError> {
        let (packet, interval) = (self.offer.packet, self.offer.interval());
        let nanoseconds = u64::try_from(self.offer.duration.as_nanos()).unwrap_or(u64::MAX);
        // One that begins the time, and one that says that it is over.
        let batches = nanoseconds / interval + 2;
        let input = ProgramInput {
            data_in: Some(packet),
            flags: LIVE_FRAMES,
            repeat: u32::try_from(batches.saturating_mul(OFFER_BATCH)).unwrap_or(u32::MAX),
            ..ProgramInput::default()
        };
        let program = &self.skeleton.progs.lockstep_offer;
        let (result, _) = captured(|| program.test_run(input));
        result.map_err(|source| BpfError::TestRun {
            program: NAME,
            length: packet.len(),
            source,
        })?;
        let said = self.skeleton.maps.bss_data.as_ref();
        let (packets, begin, end) =
            said.map_or((0, 0, 0), |said| (said.sent, said.begin, said.end));
        Ok(Offered {
            packets,
            seconds: end.saturating_sub(begin) as f64 / 1e9,
        })
    }
}

impl fmt::Debug for OfferProgram<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfferProgram")
            .field("offer", &self.offer)
            .finish_non_exhaustive()
    }
}
