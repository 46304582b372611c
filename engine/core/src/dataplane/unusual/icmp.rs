//! ICMP: pings are answered, errors go to where the packet that they quote came from.
//!
//! What an error claims is checked as far as it can be: that it comes to the sender of what it
//! quotes (RFC 1122 section 3.2.2), that the quoted flow is one of ours, and that the quoted
//! packet was longer than the MTU it speaks of (RFC 5927 section 7.2). Whether the quoted sequence
//! number is one under way (RFC 5927 section 4.1) only the backend knows, and it checks.

use super::Flows;
use crate::dataplane::{Now, Verdict, reason};
use crate::flows::{FlowTable, Key};
use crate::schedule::Selected;
use crate::tables::{BackendRef, Delivery, PortId, Tables, VipRef};
use core::net::IpAddr;
use core::ops::Range;
use lockstep_plan::DropReason;
use lockstep_wire::icmp::{self, ErrorKind};
use lockstep_wire::ipv4::Ipv4Header;
use lockstep_wire::ipv6::Ipv6Header;
use lockstep_wire::reply::{self, Back};
use lockstep_wire::{Control, FlowKey, Headers, parse_icmp, protocol, udp};

/// The least MTU of a tunnel that is believed where the error quotes the packet inside, and so
/// proves that it was sent: Linux goes as low.
const LEAST_PROVEN: u16 = 576;
/// And where it does not.
const LEAST_UNPROVEN: u16 = 1_280;

impl Flows {
    /// The verdict on what is neither TCP nor UDP.
    pub(super) fn icmp(
        &mut self,
        tables: &Tables,
        now: Now,
        port: PortId,
        frame: &mut [u8],
    ) -> Verdict {
        let done = match parse_icmp(frame) {
            Ok((headers, Control::Echo)) => self.pong(tables, now, port, frame, &headers),
            Ok((headers, Control::Error(kind))) => {
                self.relay(tables, now, port, frame, &headers, kind)
            }
            Err(error) => Err(reason(error)),
        };
        done.unwrap_or_else(|reason| self.drop(VipRef::UNKNOWN, reason))
    }

    /// Answers a ping to an address that the XDP program takes from the kernel.
    fn pong(
        &mut self,
        tables: &Tables,
        now: Now,
        port: PortId,
        frame: &mut [u8],
        headers: &Headers,
    ) -> Result<Verdict, DropReason> {
        let address = headers.key.destination_address();
        if !tables.has_vip(address) && !tables.is_engine_address(address) {
            return Err(DropReason::NoVip);
        }
        if !self.unusual.echoes.take(now.micros) {
            return Err(DropReason::IcmpLimited);
        }
        self.identification = self.identification.wrapping_add(1);
        // From a group address, or to one.
        let length =
            reply::echo(frame, headers, self.identification).ok_or(DropReason::Malformed)?;
        let length = u16::try_from(length).map_err(|_| DropReason::Malformed)?;
        Ok(Verdict::Forward { port, length })
    }

    /// Brings an error to where the packet that it quotes came from. `headers` have the flow as
    /// the client sends it.
    fn relay(
        &mut self,
        tables: &Tables,
        now: Now,
        port: PortId,
        frame: &mut [u8],
        headers: &Headers,
        kind: ErrorKind,
    ) -> Result<Verdict, DropReason> {
        let key = &headers.key;
        let (address, to) = (key.destination_address(), key.destination_port());
        if tables.is_session(address, to, key.protocol()) {
            return Err(DropReason::IcmpSession);
        }
        if tables.is_engine_address(address) && tables.is_tunnel_end(key.source_address()) {
            return self.tunnel_refused(tables, now, port, frame, headers, kind);
        }
        let (vip, backend) = self.quoted(tables, key)?;
        let hop = tables.hop(backend).ok_or(DropReason::IcmpUnmatched)?;
        match &hop.delivery {
            Delivery::Tunnel(_) => self.forward(tables, vip, backend, headers, frame),
            Delivery::Nat(_) | Delivery::FullNat(_) | Delivery::Session => {
                Err(DropReason::IcmpUnmatched)
            }
        }
    }

    /// The VIP and the backend of a flow that an error quotes. Where no entry is, the flow came by
    /// another balancer or worker, which chose by the same ring.
    fn quoted(&self, tables: &Tables, key: &FlowKey) -> Result<(VipRef, BackendRef), DropReason> {
        // Nothing in the entry changes: what strangers make up keeps no flow alive.
        let known = match key {
            FlowKey::V4(key) => remembered(&self.v4, key, key.hash(&self.seed)),
            FlowKey::V6(key) => remembered(&self.v6, key, key.hash(&self.seed)),
        };
        if let Some((vip, backend)) = known
            && tables.vip_slot(vip).is_some()
            && tables.hop(backend).is_some()
        {
            return Ok((vip, backend));
        }
        let vip = tables
            .vip(
                key.destination_address(),
                key.destination_port(),
                key.protocol(),
            )
            .ok_or(DropReason::IcmpUnmatched)?;
        let ring = tables.ring(vip).ok_or(DropReason::IcmpUnmatched)?;
        if ring.replicate.is_some() {
            return Err(DropReason::IcmpSession);
        }
        let backend = ring
            .select(key.selection_hash(ring.scheduler))
            .ok_or(DropReason::IcmpUnmatched)?;
        Ok((vip, backend))
    }

    /// An error about a packet of a tunnel: where it is too big, the client is told what fits
    /// inside (RFC 2003 section 4.1), and the way is remembered for those whose packet cannot be
    /// told from the error.
    fn tunnel_refused(
        &mut self,
        tables: &Tables,
        now: Now,
        port: PortId,
        frame: &mut [u8],
        headers: &Headers,
        kind: ErrorKind,
    ) -> Result<Verdict, DropReason> {
        let ErrorKind::TooBig { mtu } = kind else {
            return Err(DropReason::IcmpTunnel);
        };
        let end = headers.key.source_address();
        let tunnelled = Tunnelled::find(frame, headers).ok_or(DropReason::IcmpTunnel)?;
        let mtu = match mtu {
            // From before RFC 1191, whose section 5 says what to take for it.
            0 => LEAST_PROVEN,
            told => u16::try_from(told).unwrap_or(u16::MAX),
        };
        if mtu >= tunnelled.length {
            return Err(DropReason::IcmpTunnel);
        }
        let proven = self.proven(tables, frame, &tunnelled, end);
        let least = match proven {
            Some(_) => LEAST_PROVEN,
            None => LEAST_UNPROVEN,
        };
        let mtu = mtu.max(least);
        self.unusual.paths.learn(end, mtu, now.seconds);
        let inside = proven
            .and_then(|more| mtu.checked_sub(more))
            .ok_or(DropReason::IcmpTunnel)?;
        Back::of(frame, headers)
            .and_then(|back| self.tell(now, port, frame, &back, tunnelled.packet, inside))
            .ok_or(DropReason::IcmpTunnel)
    }

    /// The length of the tunnel's headers, where the packet inside is one that this engine may
    /// have sent to that end.
    fn proven(
        &self,
        tables: &Tables,
        frame: &[u8],
        tunnelled: &Tunnelled,
        end: IpAddr,
    ) -> Option<u16> {
        let key = icmp::quoted(frame.get(tunnelled.packet.clone())?).ok()?;
        let (_, backend) = self.quoted(tables, &key).ok()?;
        match &tables.hop(backend)?.delivery {
            Delivery::Tunnel(outer) if outer.addresses().1 == end => Some(outer.len()),
            Delivery::Tunnel(_) | Delivery::Nat(_) | Delivery::FullNat(_) | Delivery::Session => {
                None
            }
        }
    }
}

fn remembered<K: Key>(flows: &FlowTable<K>, key: &K, hash: u64) -> Option<(VipRef, BackendRef)> {
    let entry = flows.entry(flows.find(key, flows.probe(hash), None)?);
    Some((entry.vip, entry.backend))
}

/// What an error quotes of a tunnel's packet.
struct Tunnelled {
    /// Where the packet inside is in the frame, as much as there is of it.
    packet: Range<usize>,
    /// Bytes of the tunnel's packet with its header.
    length: u16,
}

impl Tunnelled {
    fn find(frame: &[u8], headers: &Headers) -> Option<Self> {
        let end = usize::from(headers.network) + usize::from(headers.length);
        let start = usize::from(headers.transport) + icmp::HEADER_LENGTH;
        let quote = frame.get(start..end)?;
        let (length, rest) = match headers.key {
            FlowKey::V4(_) => {
                let (ip, rest) = Ipv4Header::split_quoted(quote).ok()?;
                (ip.total_length(), rest)
            }
            FlowKey::V6(_) => {
                let (ip, rest) = Ipv6Header::split_quoted(quote).ok()?;
                (ip.payload_length().checked_add(40)?, rest)
            }
        };
        let before = match headers.key.protocol() {
            protocol::UDP => udp::HEADER_LENGTH,
            _ => 0,
        };
        let packet = (end - rest.len() + before).min(end)..end;
        Some(Tunnelled { packet, length })
    }
}
