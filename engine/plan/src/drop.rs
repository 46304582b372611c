//! Why packets are dropped: every reason has a name, a counter per VIP and a sentence of help.

use core::fmt;
use core::str::FromStr;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $help:literal;)+) => {
        /// Why the engine did not forward a packet.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DropReason {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)+];

            /// The reason's stable name in metrics and commands.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)+ }
            }

            /// What the operator can do about it, in a sentence.
            pub const fn help(self) -> &'static str {
                match self { $(DropReason::$variant => $help,)+ }
            }
        }
    };
}

reasons! {
    /// Shorter than its headers say, or than the headers need.
    Truncated = "truncated",
        "The frame ends inside a header. Look for a broken sender or a capture limit on the way.";
    /// A header that contradicts itself: version, header length, total length; or a sender that is
    /// no single host, where it would be answered.
    Malformed = "malformed",
        "A header field is impossible (version, length), or an answer is due to an address that no single host has. Often a scanner or a broken driver.";
    /// The IPv4 header checksum is wrong.
    BadChecksum = "bad_checksum",
        "The IPv4 header checksum does not match. Check the sender's offloads: AF_XDP sees frames as sent.";
    /// More IPv6 extension headers, or longer ones, than are followed.
    HeaderChain = "header_chain",
        "More than 8 IPv6 extension headers or nested VLAN tags: dropped as in RFC 9098's advice.";
    /// A fragment whose flow is not known: its first fragment did not come before it.
    Fragment = "fragment",
        "A fragment that came before the first one of its datagram, too long after it, or after 4,096 other datagrams; or one of a ping. Lower the sender's packet size.";
    /// The frame is not IPv4 or IPv6.
    NotIp = "not_ip",
        "The XDP program passed something that is not IP: its version may differ from the engine's. Restart the engine.";
    /// IP, but neither TCP nor UDP.
    NotTransport = "not_transport",
        "Only TCP and UDP are balanced, and of ICMP pings are answered and errors forwarded.";
    /// An ICMP error about nothing that the engine sends.
    IcmpUnmatched = "icmp_unmatched",
        "An ICMP error about a flow that no service has: from before a change of services, or made up.";
    /// An ICMP error about a connection that the engine itself has.
    IcmpSession = "icmp_session",
        "An ICMP error about a connection of a replicated session, whose TCP has timers instead. Keep the MTU the same on the way, or clamp the MSS.";
    /// An ICMP error about a tunnel to a backend, other than one that a client is told.
    IcmpTunnel = "icmp_tunnel",
        "A router or a backend refuses the tunnel: no route, no decapsulation, or too small an MTU, which is remembered for 10 minutes. See `tcpdump icmp or icmp6` on the balancer.";
    /// A ping above the rate that is answered.
    IcmpLimited = "icmp_limited",
        "More than 1,000 pings a second came to a worker: a flood.";
    /// For no VIP of the snapshot in force.
    NoVip = "no_vip",
        "No service answers there. Expected for a moment while a VIP is removed.";
    /// For an engine address or the VIP of a replicated service, and no session is there.
    NoSession = "no_session",
        "A packet of no session, answered with RST. From before a restart, behind an end, or a scan: nothing should connect to engine addresses.";
    /// The service's allow and deny lists do not serve this client.
    Denied = "denied",
        "The client is in no prefix of allow, or in one of deny, in services.toml; the longest of both decides.";
    /// More packets or new flows a second than the service's rate.
    RateLimited = "rate_limited",
        "The service gets more than its rate in services.toml. Raise it if the traffic is wanted; `lockstep capture --reason rate_limited` shows whose it is.";
    /// More new flows a second of the client's prefix than the service's source_rate.
    SourceRateLimited = "source_rate_limited",
        "One source prefix opens more flows than source_rate in services.toml. Raise it where many clients share an address.";
    /// The service has no backend that takes flows.
    NoBackend = "no_backend",
        "Every backend of the service is gone or draining. See `lockstep status`.";
    /// The kernel knows no route to the backend.
    NoRoute = "no_route",
        "The kernel has no route to the backend. See `ip route get BACKEND` on the balancer.";
    /// The next hop's link-layer address is not known (yet).
    NoNeighbour = "no_neighbour",
        "The next hop does not answer ARP or ND. See `ip neigh` on the balancer.";
    /// The packet's way out is an interface this worker has no queue on.
    NoPort = "no_port",
        "The route to the backend leaves by an interface that is not in topology.toml for this worker.";
    /// The packet with its tunnel header is longer than the way out takes.
    TooBig = "too_big",
        "Packet plus tunnel header exceed the MTU. Raise the MTU between balancer and servers, or clamp the MSS.";
    /// TTL or hop limit used up.
    TtlExceeded = "ttl_exceeded",
        "TTL 1 or 0 on arrival: a routing loop, or traceroute.";
    /// The room in front of the packet does not fit the tunnel.
    NoRoom = "no_room",
        "The XDP program made another amount of room than the tunnel needs. Expected for a moment after a service changed IP version or VLAN.";
    /// The TCP checksum of a packet for a session is wrong.
    BadTransportChecksum = "bad_transport_checksum",
        "The TCP checksum does not match. Check the sender's offloads: AF_XDP sees frames as sent (`ethtool -K DEV tx off` on a veth peer).";
    /// A SYN, and there are as many sessions as there may be.
    SessionsFull = "sessions_full",
        "A worker has all the sessions it may have. Raise max in topology.toml's [sessions], or add workers.";
    /// A SYN, and too few connections to replicas are left.
    ConnectionsFull = "connections_full",
        "A worker has no connection or local port left for replicas. Raise connections, or widen ports, in topology.toml's [sessions].";
    /// The TX ring was full.
    TxFull = "tx_full",
        "The device takes packets slower than the engine makes them. See the interface's own drops.";
    /// A packet of another worker's flow or session, and that one has too many waiting.
    HandoverFull = "handover_full",
        "The worker that owns the packet's flow or session does not keep up with what others hand to it. See the state of the workers in `lockstep status`; have more of them process.";
    /// Of a service that rewrites packets, and of no flow that is known.
    NoFlow = "no_flow",
        "An answer, or a packet in the middle of a connection, of no flow this engine knows: from before its start, or behind the connection's end.";
    /// A new flow that a backend could not tell from another one.
    NatClash = "nat_clash",
        "A client uses one port with two VIPs of the same backends, which cannot tell the two apart. Use `full-nat`, or give the VIPs different backend ports.";
    /// A new flow, and no port of the engine's addresses is free towards its backend.
    PortsFull = "ports_full",
        "All ports are in use towards the backend. Widen ports in topology.toml's [nat], or add engine addresses or backends.";
    /// A new flow that has to be remembered, and the flow table is full.
    FlowsFull = "flows_full",
        "The flow table is full, and rewriting needs an entry for each flow. Raise flows_ipv4 or flows_ipv6 in topology.toml.";
    /// The answer to a SYN cookie, and there are as many flows as may begin with one.
    SplicesFull = "splices_full",
        "A worker has as many connections that began under a SYN flood as it keeps numbers for (16,384 for each IP version). Spread over more workers.";
    /// A packet that came by a way that cannot be remembered, so that answers cannot go back by it.
    PathsFull = "paths_full",
        "More neighbours send to services that rewrite packets than a worker remembers (4,095). Put a router in front.";
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not the name of a drop reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a drop reason; `lockstep status --output json` lists them")]
pub struct ParseDropReasonError;

impl FromStr for DropReason {
    type Err = ParseDropReasonError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        DropReason::ALL
            .iter()
            .copied()
            .find(|r| r.name() == name)
            .ok_or(ParseDropReasonError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_found_by_its_name_and_stands_at_its_number() {
        for (at, &reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.name().parse(), Ok(reason));
            assert_eq!(reason as usize, at);
            assert!(reason.help().ends_with('.'), "{reason}");
        }
    }
}
