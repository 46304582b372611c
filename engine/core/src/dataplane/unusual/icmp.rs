//! ICMP: pings are answered, errors go to where the packet that they quote came from.
//!
//! What an error claims is checked as far as it can be: that it comes to the sender of what it
//! quotes (RFC 1122 section 3.2.2), that the quoted flow is one of ours, and that the quoted
//! packet was longer than the MTU it speaks of (RFC 5927 section 7.2). Whether the quoted sequence
//! number is one under way (RFC 5927 section 4.1) only the backend knows, and it checks.

use super::Flows;
use super::paths::MOST_HEADERS;
use crate::dataplane::forward::admit;
use crate::dataplane::{Now, Tracked, Verdict, reason};
use crate::flows::Slot;
use crate::tables::{BackendRef, Delivery, PortId, Tables, VipRef};
use crate::tracking::Segment;
use core::net::IpAddr;
use core::ops::Range;
use lockstep_plan::DropReason;
use lockstep_wire::icmp::{self, ErrorKind};
use lockstep_wire::ipv4::Ipv4Header;
use lockstep_wire::ipv6::Ipv6Header;
use lockstep_wire::reply::{self, Back};
use lockstep_wire::{Control, FlowKey, Headers, LinkHeader, nat, parse_icmp, protocol, quote, udp};

/// The least MTU of a tunnel that is believed where the error quotes the packet inside, and so
/// proves that it was sent: Linux goes as low.
const LEAST_PROVEN: u16 = 576;
/// And where it does not.
const LEAST_UNPROVEN: u16 = 1_280;
/// What is believed for all packets to a tunnel's end: IPv6's least MTU (RFC 8200 section 5) and a
/// tunnel's headers.
const LEAST_SHARED: u16 = 1_280 + MOST_HEADERS;

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
        if !self.unusual.relays.take(now.micros) {
            return Err(DropReason::IcmpLimited);
        }
        let (address, to) = (key.destination_address(), key.destination_port());
        if tables.is_session(address, to, key.protocol()) {
            return Err(DropReason::IcmpSession);
        }
        if tables.is_engine_address(address) && tables.is_tunnel_end(key.source_address()) {
            // A backend can be reached by a tunnel and by rewriting, too.
            let is_tunnel = match key.protocol() {
                protocol::UDP => tables.is_tunnel_port(key.source_port()),
                protocol::TCP => false,
                _ => true,
            };
            if is_tunnel {
                return self.tunnel_refused(tables, now, port, frame, headers, kind);
            }
        }
        match key {
            FlowKey::V4(key) => self.relay_of(tables, now, frame, headers, key),
            FlowKey::V6(key) => self.relay_of(tables, now, frame, headers, key),
        }
    }

    fn relay_of<K: Tracked>(
        &mut self,
        tables: &Tables,
        now: Now,
        frame: &mut [u8],
        headers: &Headers,
        key: &K,
    ) -> Result<Verdict, DropReason> {
        // About a packet that went to a backend rewritten.
        if let Some(slot) = self.answered(tables, key) {
            return self.error_to_client(slot, frame, headers, key);
        }
        let quoted = self.quoted(tables, key)?;
        self.guard_packet(tables, now, quoted.vip, key.source().0, Segment::Data)?;
        let hop = tables
            .hop(quoted.backend)
            .ok_or(DropReason::IcmpUnmatched)?;
        match &hop.delivery {
            Delivery::Tunnel(_) => self.forward(hop, quoted.vip, quoted.backend, headers, frame),
            Delivery::Nat(to) => {
                let inside = match quoted.slot {
                    Some(slot) => self.inside(tables, K::table_ref(self).entry(slot)),
                    // It follows from the flow alone.
                    None => key.translated(to, None),
                };
                let inside = inside.ok_or(DropReason::IcmpUnmatched)?;
                self.error_to_backend(tables, &quoted, frame, headers, (key, &inside), None)
            }
            Delivery::FullNat(_) => {
                // Which port the backend sees is in the entry alone.
                let slot = quoted.slot.ok_or(DropReason::IcmpUnmatched)?;
                let inside = self.inside(tables, K::table_ref(self).entry(slot));
                let inside = inside.ok_or(DropReason::IcmpUnmatched)?;
                // Of the way to the client the backend's network need not know.
                let source = Some(inside.source().0);
                self.error_to_backend(tables, &quoted, frame, headers, (key, &inside), source)
            }
            Delivery::Session => Err(DropReason::IcmpSession),
        }
    }

    /// An error about a backend's packet, with the packet as the backend sent it.
    fn error_to_backend<K: Tracked>(
        &mut self,
        tables: &Tables,
        quoted: &Quoted,
        frame: &mut [u8],
        headers: &Headers,
        (key, inside): (&K, &K),
        source: Option<IpAddr>,
    ) -> Result<Verdict, DropReason> {
        let hop = tables
            .hop(quoted.backend)
            .ok_or(DropReason::IcmpUnmatched)?;
        let route = admit(hop, headers)?;
        if let Some(slot) = quoted.slot {
            self.quote_backends_number::<K>(slot, frame, headers)?;
        }
        let addresses = (source, inside.destination().0);
        let (from, to) = (key.turned(), inside.turned());
        let length = rewrite_error(frame, headers, &route.link, addresses, &from, &to)?;
        let backend = &self.counters.backends[quoted.backend.slot()];
        backend.packets.add(1);
        backend.bytes.add(u64::from(headers.length));
        self.count_error(quoted.vip, headers);
        Ok(Verdict::Forward {
            port: route.port,
            length,
        })
    }

    /// A backend believes an error only with a sequence number of its own: a spliced flow's client
    /// was sent another.
    fn quote_backends_number<K: Tracked>(
        &self,
        slot: Slot,
        frame: &mut [u8],
        headers: &Headers,
    ) -> Result<(), DropReason> {
        let Some(splice) = K::table_ref(self).splice(slot) else {
            return Ok(());
        };
        let (network, message) = (usize::from(headers.network), headers.transport);
        let transport = usize::from(message.saturating_sub(headers.network));
        let by = splice.backend.wrapping_sub(splice.cookie);
        frame
            .get_mut(network..network + usize::from(headers.length))
            .and_then(|packet| quote::shift_sequence(packet, transport, by))
            .ok_or(DropReason::Truncated)
    }

    /// An error about a client's packet on its way to a backend, with the packet as the client
    /// sent it. It comes from the VIP: to whom else is the client connected?
    fn error_to_client<K: Tracked>(
        &mut self,
        slot: Slot,
        frame: &mut [u8],
        headers: &Headers,
        answer: &K,
    ) -> Result<Verdict, DropReason> {
        let entry = K::table_ref(self).entry(slot);
        let (outside, vip) = (entry.key, entry.vip);
        let path = self.nat.paths.get(entry.path);
        let path = *path.ok_or(DropReason::IcmpUnmatched)?;
        if headers.length > self.nat.mtu(path.port) {
            return Err(DropReason::TooBig);
        }
        let addresses = (Some(outside.destination().0), outside.source().0);
        let from = answer.turned();
        let length = rewrite_error(frame, headers, &path.link, addresses, &from, &outside)?;
        self.count_error(vip, headers);
        Ok(Verdict::Forward {
            port: path.port,
            length,
        })
    }

    fn count_error(&self, vip: VipRef, headers: &Headers) {
        let counters = &self.counters.vips[vip.slot()];
        counters.packets.add(1);
        counters.bytes.add(u64::from(headers.length));
    }

    /// The VIP and the backend of a flow that an error quotes. Where no entry is, the flow came by
    /// another balancer or worker, which chose by the same ring.
    fn quoted<K: Tracked>(&self, tables: &Tables, key: &K) -> Result<Quoted, DropReason> {
        // Nothing in the entry changes: what strangers make up keeps no flow alive.
        let table = K::table_ref(self);
        let probe = table.probe(key.table_hash(&self.seed));
        if let Some(slot) = table.find(key, probe, None) {
            let entry = table.entry(slot);
            if tables.vip_slot(entry.vip).is_some() && tables.hop(entry.backend).is_some() {
                return Ok(Quoted {
                    vip: entry.vip,
                    backend: entry.backend,
                    slot: Some(slot),
                });
            }
        }
        let (address, port, number) = key.destination();
        let vip = tables
            .vip(address, port, number)
            .ok_or(DropReason::IcmpUnmatched)?;
        let ring = tables.ring(vip).ok_or(DropReason::IcmpUnmatched)?;
        if ring.replicate.is_some() {
            return Err(DropReason::IcmpSession);
        }
        let hash = key.selection_hash(ring.scheduler);
        let segment = match number {
            protocol::TCP => Segment::Data,
            _ => Segment::Datagram,
        };
        // As for a packet in the middle of a connection.
        let backend = tables.backend_before(ring, hash, segment);
        let backend = backend.or_else(|| ring.select(hash));
        Ok(Quoted {
            vip,
            backend: backend.ok_or(DropReason::IcmpUnmatched)?,
            slot: None,
        })
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
        let end = headers.key.source_address();
        let tunnelled = Tunnelled::find(frame, headers).ok_or(DropReason::IcmpTunnel)?;
        let proven = self.proven(tables, frame, &tunnelled, end);
        let ErrorKind::TooBig { mtu } = kind else {
            let (quoted, _) = proven.ok_or(DropReason::IcmpTunnel)?;
            self.counters.backends[quoted.backend.slot()].refuse(now.micros);
            return Ok(self.drop(quoted.vip, DropReason::IcmpTunnel));
        };
        let mtu = match mtu {
            // From before RFC 1191, whose section 5 says what to take for it.
            0 => LEAST_PROVEN,
            told => u16::try_from(told).unwrap_or(u16::MAX),
        };
        if mtu >= tunnelled.length {
            return Err(DropReason::IcmpTunnel);
        }
        let least = match proven {
            Some(_) => LEAST_PROVEN,
            None => LEAST_UNPROVEN,
        };
        let mtu = mtu.max(least);
        // What all clients share is believed no further down than their shortest path over IPv6
        // needs: strangers can make up an error, and a packet inside that the ring proves.
        let shared = mtu.max(LEAST_SHARED);
        self.unusual.paths.learn(end, shared, now.seconds);
        let inside = proven
            .and_then(|(_, more)| mtu.checked_sub(more))
            .ok_or(DropReason::IcmpTunnel)?;
        Back::of(frame, headers)
            .and_then(|back| self.tell(now, port, frame, &back, tunnelled.packet, inside))
            .ok_or(DropReason::IcmpTunnel)
    }

    /// Whose the packet inside is and the length of the tunnel's headers, where it is one that this
    /// engine may have sent to that end.
    fn proven(
        &self,
        tables: &Tables,
        frame: &[u8],
        tunnelled: &Tunnelled,
        end: IpAddr,
    ) -> Option<(Quoted, u16)> {
        let key = icmp::quoted(frame.get(tunnelled.packet.clone())?).ok()?;
        let quoted = match &key {
            FlowKey::V4(key) => self.quoted(tables, key),
            FlowKey::V6(key) => self.quoted(tables, key),
        };
        let quoted = quoted.ok()?;
        match &tables.hop(quoted.backend)?.delivery {
            Delivery::Tunnel(outer) if outer.addresses().1 == end => Some((quoted, outer.len())),
            Delivery::Tunnel(_) | Delivery::Nat(_) | Delivery::FullNat(_) | Delivery::Session => {
                None
            }
        }
    }
}

/// Whose flow an error is about.
struct Quoted {
    vip: VipRef,
    backend: BackendRef,
    slot: Option<Slot>,
}

/// Rewrites an error and the link header in front of it; the frame's new length.
fn rewrite_error<K: Tracked>(
    frame: &mut [u8],
    headers: &Headers,
    link: &LinkHeader,
    addresses: (Option<IpAddr>, IpAddr),
    from: &K,
    to: &K,
) -> Result<u16, DropReason> {
    let length = nat::place(frame, headers, link).ok_or(DropReason::NoRoom)?;
    let transport = usize::from(headers.transport.saturating_sub(headers.network));
    let packet = frame
        .get_mut(link.len()..length)
        .ok_or(DropReason::NoRoom)?;
    K::rewrite_error(packet, transport, addresses, from, to).ok_or(DropReason::Truncated)?;
    u16::try_from(length).map_err(|_| DropReason::TooBig)
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
