//! What a dataplane does with flow keys, for either IP version.

use super::Flows;
use super::nat::Nat;
use crate::flows::{FlowTable, Key};
use crate::schedule::Selected;
use crate::tables::Translation;
use core::net::IpAddr;
use lockstep_wire::{FlowKey4, FlowKey6, HashSeed, nat, quote};

/// A flow key of one IP version, and where a dataplane keeps its flows.
pub(super) trait Tracked: Key + Selected {
    fn table(flows: &mut Flows) -> &mut FlowTable<Self>;
    fn table_ref(flows: &Flows) -> &FlowTable<Self>;
    fn source(&self) -> (IpAddr, u16, u8);
    fn destination(&self) -> (IpAddr, u16, u8);
    /// The hash that the flow table finds it by.
    fn table_hash(&self, seed: &HashSeed) -> u64;
    /// The key of the packets that come back.
    fn turned(&self) -> Self;
    /// The flow with another destination and, where there is one, another source; `None` for
    /// addresses of the other IP version.
    fn translated(&self, to: &Translation, source: Option<(IpAddr, u16)>) -> Option<Self>;
    /// The engine's addresses that full NAT takes as sources.
    fn pool(nat: &Nat) -> &[IpAddr];
    /// Gives a packet of one flow the addresses and ports of another; see [`lockstep_wire::nat`].
    fn rewrite(packet: &mut [u8], transport: Option<usize>, from: &Self, to: &Self) -> Option<()>;
    /// Gives an ICMP error another source and destination, and the packet that it quotes the
    /// addresses and ports of another flow; see [`lockstep_wire::quote`].
    fn rewrite_error(
        packet: &mut [u8],
        transport: usize,
        addresses: (Option<IpAddr>, IpAddr),
        from: &Self,
        to: &Self,
    ) -> Option<()>;
}

/// The same for both IP versions, but for names.
macro_rules! tracked {
    (
        $key:ident, $table:ident, $version:ident not $other:ident, $as_kept:ident, $pool:ident, $rewrite:ident
    ) => {
        impl Tracked for $key {
            #[inline]
            fn table(flows: &mut Flows) -> &mut FlowTable<Self> {
                &mut flows.$table
            }

            #[inline]
            fn table_ref(flows: &Flows) -> &FlowTable<Self> {
                &flows.$table
            }

            fn source(&self) -> (IpAddr, u16, u8) {
                (self.source_address(), self.source_port(), self.protocol)
            }

            fn destination(&self) -> (IpAddr, u16, u8) {
                (
                    self.destination_address(),
                    self.destination_port(),
                    self.protocol,
                )
            }

            fn table_hash(&self, seed: &HashSeed) -> u64 {
                self.hash(seed)
            }

            #[inline]
            fn turned(&self) -> Self {
                self.reversed()
            }

            #[inline]
            fn translated(&self, to: &Translation, source: Option<(IpAddr, u16)>) -> Option<Self> {
                let IpAddr::$version(destination) = to.address else {
                    return None;
                };
                let (source, source_port) = match source {
                    None => (self.source, self.source_port()),
                    Some((IpAddr::$version(address), port)) => (address.$as_kept(), port),
                    Some((IpAddr::$other(_), _)) => return None,
                };
                Some($key {
                    source,
                    destination: destination.$as_kept(),
                    ports: ports(source_port, to, self.destination_port()),
                    protocol: self.protocol,
                })
            }

            fn pool(nat: &Nat) -> &[IpAddr] {
                &nat.$pool
            }

            #[inline]
            fn rewrite(
                packet: &mut [u8],
                transport: Option<usize>,
                from: &Self,
                to: &Self,
            ) -> Option<()> {
                nat::$rewrite(packet, transport, from, to)
            }

            fn rewrite_error(
                packet: &mut [u8],
                transport: usize,
                addresses: (Option<IpAddr>, IpAddr),
                from: &Self,
                to: &Self,
            ) -> Option<()> {
                quote::$rewrite(packet, transport, addresses, from, to)
            }
        }
    };
}

tracked!(FlowKey4, v4, V4 not V6, to_bits, pool_v4, rewrite_v4);
tracked!(FlowKey6, v6, V6 not V4, octets, pool_v6, rewrite_v6);

/// Both ports in one word, as keys have them.
#[inline]
fn ports(source: u16, to: &Translation, destination: u16) -> u32 {
    let destination = to.port.map_or(destination, core::num::NonZeroU16::get);
    u32::from(source) << 16 | u32::from(destination)
}
