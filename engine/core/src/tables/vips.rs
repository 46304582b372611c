//! From destination to VIP slot: a hash table that is built once and then only read.

use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;
use lockstep_plan::Vip;
use lockstep_wire::{FlowKey6, HashSeed};

/// The VIPs of a snapshot, by address, port and protocol.
#[derive(Debug, Clone, Default)]
pub struct VipIndex {
    /// Open addressing with linear probing, at most half full; its length is a power of two.
    cells: Vec<Option<Cell>>,
    /// Whether any VIP stands for every port.
    wildcards: bool,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    key: FlowKey6,
    slot: u16,
}

/// Clients choose neither VIPs nor their order, so the seed need not be secret.
const SEED: HashSeed = HashSeed::new(1);

impl VipIndex {
    /// An index of these VIPs and their slots.
    pub fn new(vips: impl ExactSizeIterator<Item = (Vip, u16)>) -> Self {
        let mut index = VipIndex {
            cells: vec![None; (vips.len() * 2).next_power_of_two().max(2)],
            wildcards: false,
        };
        for (vip, slot) in vips {
            index.wildcards |= vip.port() == 0;
            let key = key(vip.address(), vip.port(), vip.protocol().number());
            let mut at = index.start(&key);
            while index.cells[at].is_some_and(|cell| cell.key != key) {
                at = (at + 1) & (index.cells.len() - 1);
            }
            index.cells[at] = Some(Cell { key, slot });
        }
        index
    }

    /// The slot of the VIP for a destination: that of its port before that of every port.
    #[inline]
    pub fn find(&self, address: IpAddr, port: u16, protocol: u8) -> Option<u16> {
        self.exact(key(address, port, protocol)).or_else(|| {
            if self.wildcards {
                self.exact(key(address, 0, protocol))
            } else {
                None
            }
        })
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
    let address = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    FlowKey6::new(address, 0, address, port, protocol)
}
