//! What smoltcp takes for a network device: one packet in, and the way out.

use super::segment::{fill_checksums, transport_of};
use crate::tables::PortId;
use alloc::boxed::Box;
use alloc::vec;
use core::fmt;
use lockstep_wire::{LinkHeader, TcpFlags};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// Where packets are sent from.
pub trait Transmit {
    /// Sends an IP packet of `length` bytes from `port` behind `link`; `write` fills it in. False
    /// when there is no frame or no room on the ring.
    fn transmit(
        &mut self,
        port: PortId,
        link: &LinkHeader,
        length: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> bool;

    /// Whether [`Transmit::transmit`] has a frame and room for one more packet. While it says no,
    /// connections keep what they have to send; a packet that `transmit` refuses is lost instead
    /// and waits for its retransmission.
    fn has_room(&mut self, port: PortId) -> bool {
        let _ = port;
        true
    }
}

/// The way out to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The interface.
    pub port: PortId,
    /// The Ethernet header to send with.
    pub link: LinkHeader,
}

/// Memory for packets that nobody takes: smoltcp writes a packet once it has decided to send it.
pub struct Scratch(Box<[u8]>);

impl Scratch {
    /// For packets of any length.
    pub fn new() -> Self {
        Scratch(vec![0; usize::from(u16::MAX) + 1].into_boxed_slice())
    }

    /// For no packet at all.
    pub(super) fn empty() -> Self {
        Scratch(Box::new([]))
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scratch(..)")
    }
}

/// What is known of a connection only by what it sent: smoltcp tells neither.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sent {
    /// The sequence number behind the last one sent, as the peer sees it.
    pub next: u32,
    /// That of the SYN, as smoltcp has it.
    pub first: u32,
    /// The sequence number behind the window that the peer has told of.
    pub edge: Option<u32>,
    /// The last acknowledgment number sent.
    pub acknowledged: u32,
    /// The last window field sent.
    pub window: u16,
    /// Added to the sequence numbers smoltcp sends: it has another initial one than the peer
    /// where the SYN-ACK was a cookie.
    pub offset: u32,
    /// Whether a segment that calls for an answer was sent since this was last cleared.
    pub asked: bool,
    /// Packets that [`Transmit`] refused.
    pub refused: u32,
}

impl Sent {
    /// The peer has acknowledged so far, and has room for so many bytes behind it.
    pub fn open(&mut self, acknowledged: u32, window: u32) {
        let edge = acknowledged.wrapping_add(window);
        let before = self.edge.get_or_insert(edge);
        if edge.wrapping_sub(*before) as i32 > 0 {
            *before = edge;
        }
    }

    fn note(&mut self, packet: &mut [u8]) {
        let at = transport_of(packet);
        let whole = packet.len();
        let Some((header, _)) = packet
            .get_mut(at..)
            .and_then(<[u8]>::split_first_chunk_mut::<16>)
        else {
            return;
        };
        let flags = TcpFlags::from_bits(header[13]);
        let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        if flags.contains(TcpFlags::SYN) {
            self.first = sequence;
        }
        let sequence = sequence.wrapping_add(self.offset);
        if self.offset != 0 {
            header[4..8].copy_from_slice(&sequence.to_be_bytes());
        }
        self.acknowledged = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        self.window = u16::from_be_bytes([header[14], header[15]]);
        let header_length = usize::from(header[12] >> 4) * 4;
        let control =
            u32::from(flags.contains(TcpFlags::SYN)) + u32::from(flags.contains(TcpFlags::FIN));
        let length = (whole - at).saturating_sub(header_length) as u32 + control;
        self.asked |= length > 0;
        // After a timeout smoltcp is back at the first byte unacknowledged, and says so in mere
        // acknowledgments too: to a peer that has got more they are old, and it drops them with
        // what they acknowledge. RFC 9293 section 3.10.4: SND.NXT; but never past the peer's
        // window, where the probes of a closed one are.
        let furthest = match self.edge {
            Some(edge) if self.next.wrapping_sub(edge) as i32 > 0 => edge,
            Some(_) | None => self.next,
        };
        let bare = length == 0 && !flags.contains(TcpFlags::RST);
        if bare && furthest.wrapping_sub(sequence) as i32 > 0 {
            header[4..8].copy_from_slice(&furthest.to_be_bytes());
        }
        let next = sequence.wrapping_add(length);
        if flags.contains(TcpFlags::SYN) || (next.wrapping_sub(self.next) as i32) > 0 {
            self.next = next;
        }
    }
}

/// The device of one call into smoltcp.
pub(super) struct Wire<'a, T> {
    /// The packet that comes in.
    pub packet: Option<&'a [u8]>,
    pub out: &'a mut T,
    pub way: Option<Way>,
    pub mtu: u16,
    pub sent: &'a mut Sent,
    pub scratch: &'a mut Scratch,
}

impl<T: Transmit> Device for Wire<'_, T> {
    type RxToken<'b>
        = Incoming<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Outgoing<'b, T>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Incoming<'_>, Outgoing<'_, T>)> {
        let packet = self.packet.take()?;
        let outgoing = Outgoing {
            out: self.out,
            way: self.way,
            sent: self.sent,
            scratch: self.scratch,
        };
        Some((Incoming(packet), outgoing))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_, T>> {
        let way = self.way?;
        if !self.out.has_room(way.port) {
            return None;
        }
        Some(Outgoing {
            out: self.out,
            way: Some(way),
            sent: self.sent,
            scratch: self.scratch,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = usize::from(self.mtu);
        // Both ways ours: verified before the connection is looked up, written in one pass.
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities
    }
}

pub(super) struct Incoming<'a>(&'a [u8]);

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

pub(super) struct Outgoing<'a, T> {
    out: &'a mut T,
    way: Option<Way>,
    sent: &'a mut Sent,
    scratch: &'a mut Scratch,
}

impl<T: Transmit> TxToken for Outgoing<'_, T> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut f = Some(f);
        let mut result = None;
        if let Some(way) = self.way {
            let sent = &mut *self.sent;
            let taken = self.out.transmit(way.port, &way.link, length, |packet| {
                result = f.take().map(|f| f(&mut *packet));
                sent.note(packet);
                fill_checksums(packet);
            });
            if !taken {
                sent.refused += 1;
            }
        }
        match (result, f) {
            (Some(result), _) => result,
            (None, Some(f)) => {
                let packet = &mut self.scratch.0[..length];
                let result = f(packet);
                self.sent.note(packet);
                result
            }
            (None, None) => unreachable!("taking f gives a result"),
        }
    }
}
