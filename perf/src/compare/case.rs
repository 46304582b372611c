//! The cases: what stands between those who ask and those who answer.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Case {
    /// The kernel routes to one server: what no balancer in the kernel's own path can exceed.
    LinuxForwarding,
    /// The same, its CPU also taking packets in.
    LinuxForwardingOneCpu,
    /// An XDP program writes two addresses and redirects: what no balancer here can exceed.
    XdpForwarding,
    /// nftables translates the destination, with connection tracking.
    NftablesDnat,
    /// The same, its CPU also taking packets in.
    NftablesDnatOneCpu,
    /// HAProxy in TCP mode, one thread.
    Haproxy,
    /// nginx' stream module, one worker.
    NginxStream,
    /// The engine, tunnelling; servers answer the client themselves.
    LockstepTunnel,
    /// The same, its CPU also taking packets in.
    LockstepTunnelOneCpu,
    /// The same as the first, its worker asleep whenever there is nothing.
    LockstepTunnelInterrupt,
    /// The engine, tunnelling over UDP.
    LockstepGue,
    /// The engine, rewriting the destination.
    LockstepNat,
    /// The engine, rewriting both addresses.
    LockstepFullNat,
    /// The engine, replicating to one server.
    LockstepReplicate,
    /// The engine killed: its XDP program tunnels alone.
    LockstepFallback,
}

/// What there is to know of a case.
struct Kind {
    name: &'static str,
    about: &'static str,
    differs: &'static str,
}

/// A case in words.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct About {
    /// Its name.
    pub case: String,
    /// What it is.
    pub about: String,
    /// What is not the same as in the other cases.
    pub differs: String,
}

impl Case {
    /// What a comparison has unless others are asked for.
    pub const USUAL: [Case; 12] = [
        Case::LinuxForwarding,
        Case::LinuxForwardingOneCpu,
        Case::XdpForwarding,
        Case::NftablesDnat,
        Case::NftablesDnatOneCpu,
        Case::Haproxy,
        Case::NginxStream,
        Case::LockstepTunnel,
        Case::LockstepTunnelOneCpu,
        Case::LockstepNat,
        Case::LockstepReplicate,
        Case::LockstepFallback,
    ];

    #[rustfmt::skip]
    const fn kind(self) -> Kind {
        let (name, about, differs) = match self {
            Case::LinuxForwarding => (
                "linux-forwarding",
                "The kernel routes to one server; nothing is balanced.",
                "It chooses no server and keeps no connections; RPS gives it the balancer's CPU, and the generator's \
                 CPU takes packets in.",
            ),
            Case::LinuxForwardingOneCpu => (
                "linux-forwarding-one-cpu",
                "The same, a kernel thread on the balancer's CPU taking packets in.",
                "Without RPS; all that the kernel does for a packet is on the balancer's CPU. Datagrams only.",
            ),
            Case::XdpForwarding => (
                "xdp-forwarding",
                "An XDP program writes two link-layer addresses and redirects.",
                "It looks at no IP header; a kernel thread on the balancer's CPU takes packets in, no skb is made.",
            ),
            Case::NftablesDnat => (
                "nftables-dnat",
                "nftables: dnat to a hash of the client, with connection tracking.",
                "RPS gives it the balancer's CPU, and the generator's CPU takes packets in.",
            ),
            Case::NftablesDnatOneCpu => (
                "nftables-dnat-one-cpu",
                "The same, a kernel thread on the balancer's CPU taking packets in.",
                "Without RPS; all that the kernel does for a packet is on the balancer's CPU. Datagrams only.",
            ),
            Case::Haproxy => (
                "haproxy",
                "Debian's HAProxy, mode tcp, one thread.",
                "It passes no UDP on: its packets are those of TCP. It has a connection with each side.",
            ),
            Case::NginxStream => (
                "nginx-stream",
                "Debian's nginx, stream module, one worker.",
                "It has a connection, or for UDP a socket, with each side for each client.",
            ),
            Case::LockstepTunnel => (
                "lockstep-tunnel",
                "The engine, IP in IP, adaptive polling.",
                "Servers answer the client directly: it sees one direction. Of UDP packets, XDP and the copy into its \
                 memory run on the generator's CPU, where a NIC's driver would use the balancer's.",
            ),
            Case::LockstepTunnelOneCpu => (
                "lockstep-tunnel-one-cpu",
                "The same, a kernel thread on the balancer's CPU taking packets in.",
                "Servers answer the client directly; XDP, the copy into its memory and all else that the kernel does for \
                 it are on its CPU. Datagrams only: \
                 with TCP, lockstep-tunnel is measured so.",
            ),
            Case::LockstepTunnelInterrupt => (
                "lockstep-tunnel-interrupt",
                "The engine, IP in IP, asleep whenever there is nothing.",
                "As lockstep-tunnel; its CPU time has no polling in it.",
            ),
            Case::LockstepGue => (
                "lockstep-gue",
                "The engine, tunnelling over UDP.",
                "As lockstep-tunnel.",
            ),
            Case::LockstepNat => (
                "lockstep-nat",
                "The engine, rewriting the destination.",
                "Of UDP packets, XDP and the copy into its memory run on the generator's CPU. Of TCP it sees both \
                 directions.",
            ),
            Case::LockstepFullNat => (
                "lockstep-full-nat",
                "The engine, rewriting both addresses.",
                "As lockstep-nat.",
            ),
            Case::LockstepReplicate => (
                "lockstep-replicate",
                "The engine, replicating to one server.",
                "It ends TCP on both sides, in userspace, and could carry on with another server at the exact byte; it \
                 passes no UDP on: its packets are those of TCP.",
            ),
            Case::LockstepFallback => (
                "lockstep-fallback",
                "The engine killed: its XDP program tunnels alone.",
                "Servers answer the client directly; no table of flows; a kernel thread on the balancer's CPU takes \
                 packets in.",
            ),
        };
        Kind {
            name,
            about,
            differs,
        }
    }

    /// Its name in the results.
    pub const fn name(self) -> &'static str {
        self.kind().name
    }

    /// What it is, in a sentence.
    pub const fn about(self) -> &'static str {
        self.kind().about
    }

    /// What is not the same as in the other cases.
    pub const fn differs(self) -> &'static str {
        self.kind().differs
    }

    /// Whether it passes datagrams on.
    pub const fn has_udp(self) -> bool {
        !matches!(self, Case::Haproxy | Case::LockstepReplicate)
    }

    /// Whether it is measured with TCP; where a case is the same with TCP as another, it is not.
    pub const fn has_tcp(self) -> bool {
        !matches!(
            self,
            Case::LinuxForwardingOneCpu
                | Case::NftablesDnatOneCpu
                | Case::LockstepTunnelOneCpu
                | Case::LockstepGue
        )
    }

    /// Whether its packets of TCP are counted: those that end TCP, and what they are held against.
    pub const fn streams(self) -> bool {
        matches!(
            self,
            Case::LinuxForwarding | Case::Haproxy | Case::NginxStream | Case::LockstepReplicate
        )
    }

    /// Whether the balancer's CPU takes datagrams in. Where it does not, the generator's does, and what
    /// that costs is not the balancer's.
    pub const fn takes_in(self) -> bool {
        matches!(
            self,
            Case::LinuxForwardingOneCpu
                | Case::XdpForwarding
                | Case::NftablesDnatOneCpu
                | Case::LockstepTunnelOneCpu
                | Case::LockstepFallback
        )
    }

    /// Whether datagrams leave it as the frames that the driver had, without an skb.
    pub const fn passes_frames(self) -> bool {
        matches!(self, Case::XdpForwarding | Case::LockstepFallback)
    }

    /// nftables with datagrams taken in on the same CPU.
    pub const fn nftables(self) -> Case {
        match self.takes_in() {
            true => Case::NftablesDnatOneCpu,
            false => Case::NftablesDnat,
        }
    }

    /// Linux forwarding with datagrams taken in on the same CPU.
    pub const fn forwarding(self) -> Case {
        match self.takes_in() {
            true => Case::LinuxForwardingOneCpu,
            false => Case::LinuxForwarding,
        }
    }

    /// Whether answers go from the servers to the client without the balancer.
    pub const fn answers_directly(self) -> bool {
        matches!(
            self,
            Case::LockstepTunnel
                | Case::LockstepTunnelOneCpu
                | Case::LockstepTunnelInterrupt
                | Case::LockstepGue
                | Case::LockstepFallback
        )
    }

    /// How the engine's worker waits, as `topology.toml` has it.
    pub const fn poll(self) -> &'static str {
        match self {
            Case::LockstepTunnelInterrupt => "interrupt",
            _ => "adaptive",
        }
    }

    /// Lines of the engine's service.
    pub const fn service(self) -> &'static str {
        match self {
            Case::LockstepGue => "mode = \"tunnel\"\nencapsulation = \"gue\"\n",
            Case::LockstepNat => "mode = \"nat\"\n",
            Case::LockstepFullNat => "mode = \"full-nat\"\n",
            Case::LockstepReplicate => "mode = \"replicate\"\n",
            _ => "mode = \"tunnel\"\n",
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
