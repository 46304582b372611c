//! From destination to VIP slot: a hash table, and a list of ranges of ports, that are built once
//! and then only read.

use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};
use lockstep_plan::Vip;
use lockstep_wire::{FlowKey6, HashSeed};

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
    key: FlowKey6,
    slot: u16,
}

#[derive(Debug, Clone, Copy)]
struct Range {
    address: Ipv6Addr,
    protocol: u8,
    first: u16,
    last: u16,
    slot: u16,
}

/// Clients choose neither VIPs nor their order, so the seed need not be secret.
const SEED: HashSeed = HashSeed::new(1);

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
            let key = key(vip.address(), vip.port(), vip.protocol().number());
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
        let exact = self.exact(key(address, port, protocol));
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
            self.exact(key(address, 0, protocol))
        } else {
            None
        }
    }

    /// The slots of all VIPs that a destination can belong to, in the order of [`VipIndex::find`].
    pub fn candidates(&self, address: IpAddr, port: u16, protocol: u8) -> [Option<u16>; 3] {
        [
            self.exact(key(address, port, protocol)),
            self.range(address, port, protocol),
            self.exact(key(address, 0, protocol)),
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

    fn exact(&self, key: FlowKey6) -> Option<u16> {
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

    fn start(&self, key: &FlowKey6) -> usize {
        key.hash(&SEED) as usize & (self.cells.len() - 1)
    }
}

fn key(address: IpAddr, port: u16, protocol: u8) -> FlowKey6 {
    let address = mapped(address);
    FlowKey6::new(address, 0, address, port, protocol)
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}
