//! From destination to VIP slot: a hash table, and a list of ranges of ports, that are built once
//! and then only read.

use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};
use lockstep_plan::Vip;

/// The VIPs of a snapshot, by address, port and protocol.
#[derive(Debug, Clone, Default)]
pub struct VipIndex {
    /// Open addressing with linear probing, at most half full; its length is a power of two.
    cells: Vec<Option<Cell>>,
    /// VIPs of several ports, in the order of address, protocol and first port. Those of one
    /// address and protocol do not overlap.
    ranges: Vec<Range>,
    /// Whether any VIP stands for every port.
    wildcards: bool,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    key: Key,
    slot: u16,
}

/// A destination. Every packet of no known flow is looked up here, so it is a few words and not a
/// flow's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    /// The address's halves; one of IPv4 is mapped.
    high: u64,
    low: u64,
    /// Port << 8 | protocol.
    port: u32,
}

#[derive(Debug, Clone, Copy)]
struct Range {
    address: Ipv6Addr,
    protocol: u8,
    first: u16,
    last: u16,
    slot: u16,
}

impl VipIndex {
    /// An index of these VIPs and their slots.
    pub fn new(vips: impl ExactSizeIterator<Item = (Vip, u16)>) -> Self {
        let mut index = VipIndex {
            cells: vec![None; (vips.len() * 2).next_power_of_two().max(2)],
            ranges: Vec::new(),
            wildcards: false,
        };
        for (vip, slot) in vips {
            if vip.port() != vip.last_port() {
                index.ranges.push(Range {
                    address: mapped(vip.address()),
                    protocol: vip.protocol().number(),
                    first: vip.port(),
                    last: vip.last_port(),
                    slot,
                });
                continue;
            }
            index.wildcards |= vip.port() == 0;
            let key = Key::new(vip.address(), vip.port(), vip.protocol().number());
            let mut at = index.start(&key);
            while index.cells[at].is_some_and(|cell| cell.key != key) {
                at = (at + 1) & (index.cells.len() - 1);
            }
            index.cells[at] = Some(Cell { key, slot });
        }
        let order = |r: &Range| (r.address, r.protocol, r.first);
        index.ranges.sort_unstable_by_key(order);
        index
    }

    /// The slot of the VIP for a destination: that of its port before that of a range which has
    /// it, and this before that of every port.
    #[inline]
    pub fn find(&self, address: IpAddr, port: u16, protocol: u8) -> Option<u16> {
        let exact = self.exact(Key::new(address, port, protocol));
        exact.or_else(|| self.wider(address, port, protocol))
    }

    #[inline]
    fn wider(&self, address: IpAddr, port: u16, protocol: u8) -> Option<u16> {
        if !self.ranges.is_empty()
            && let Some(slot) = self.range(address, port, protocol)
        {
            return Some(slot);
        }
        if self.wildcards {
            self.exact(Key::new(address, 0, protocol))
        } else {
            None
        }
    }

    /// The slots of all VIPs that a destination can belong to, in the order of [`VipIndex::find`].
    pub fn candidates(&self, address: IpAddr, port: u16, protocol: u8) -> [Option<u16>; 3] {
        [
            self.exact(Key::new(address, port, protocol)),
            self.range(address, port, protocol),
            self.exact(Key::new(address, 0, protocol)),
        ]
    }

    /// The last range that begins at the port or before it is the only one that can have it.
    fn range(&self, address: IpAddr, port: u16, protocol: u8) -> Option<u16> {
        let address = mapped(address);
        let wanted = (address, protocol, port);
        let behind = self
            .ranges
            .partition_point(|r| (r.address, r.protocol, r.first) <= wanted);
        let range = self.ranges.get(behind.checked_sub(1)?)?;
        let has = (range.address, range.protocol) == (address, protocol) && port <= range.last;
        has.then_some(range.slot)
    }

    fn exact(&self, key: Key) -> Option<u16> {
        if self.cells.is_empty() {
            return None;
        }
        let mut at = self.start(&key);
        // Half of the cells are empty: the walk ends.
        while let Some(cell) = self.cells[at] {
            if cell.key == key {
                return Some(cell.slot);
            }
            at = (at + 1) & (self.cells.len() - 1);
        }
        None
    }

    fn start(&self, key: &Key) -> usize {
        key.hash() as usize & (self.cells.len() - 1)
    }
}

impl Key {
    #[inline]
    fn new(address: IpAddr, port: u16, protocol: u8) -> Self {
        let bits = match address {
            IpAddr::V4(v4) => 0xffff_0000_0000 | u128::from(v4.to_bits()),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        Key {
            high: (bits >> 64) as u64,
            low: bits as u64,
            port: u32::from(port) << 8 | u32::from(protocol),
        }
    }

    /// Clients choose neither VIPs nor their order, so there is no secret in it: both halves of one
    /// product, each bit of which depends on every one of the key.
    #[inline]
    const fn hash(&self) -> u64 {
        let x = self.low ^ 0x9e37_79b9_7f4a_7c15;
        let y = self.high ^ (self.port as u64) << 40 ^ 0xbf58_476d_1ce4_e5b9;
        let product = x as u128 * y as u128;
        (product >> 64) as u64 ^ product as u64
    }
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}
