//! The ways that clients' packets come by: where packets are rewritten, answers leave by them.
//!
//! A route to the client would be the other choice. But a balancer behind several routers has no
//! route that says which of them has the client's firewall state, and one table lookup for each
//! flow instead of each packet is less work.

use crate::flows::PathId;
use crate::tables::PortId;
use alloc::vec;
use alloc::vec::Vec;
use lockstep_wire::{FlowKey6, HashSeed, LinkHeader};

/// Ways a worker remembers, the first of which is none.
const PATHS: u16 = 4_096;
/// Chains of the index.
const CHAINS: usize = 4_096;
/// The end of a chain: path 0 is never in one.
const END: u16 = 0;

/// A way back to clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path {
    /// The interface.
    pub port: PortId,
    /// The Ethernet header.
    pub link: LinkHeader,
    /// Flows whose answers go there.
    flows: u32,
    /// The next one in the index's chain, or of the free ones.
    next: u16,
}

/// A bounded table of ways.
pub(crate) struct Paths {
    paths: Vec<Path>,
    chains: Vec<u16>,
    free: u16,
    /// The last one that a flow was given: most flows come by few ways.
    last: u16,
    seed: HashSeed,
}

impl Paths {
    /// An empty table; takes all its memory now.
    pub(crate) fn new(seed: HashSeed) -> Self {
        let none = |id: u16| Path {
            port: PortId(0),
            link: LinkHeader {
                destination: [0; 6],
                source: [0; 6],
                vlan: None,
            },
            flows: 0,
            next: (id + 1) % PATHS,
        };
        Paths {
            paths: (0..PATHS).map(none).collect(),
            chains: vec![END; CHAINS],
            free: 1,
            last: END,
            seed,
        }
    }

    /// The way of a flow; `None` for a flow that has none.
    #[inline]
    pub(crate) fn get(&self, PathId(id): PathId) -> Option<&Path> {
        // An identifier of a flow is one of a path that the flow keeps in the table.
        self.paths.get(usize::from(id)).filter(|_| id != END)
    }

    /// Whether a flow's way is this one.
    #[inline]
    pub(crate) fn is(&self, id: PathId, port: PortId, link: &LinkHeader) -> bool {
        self.get(id)
            .is_some_and(|path| path.port == port && path.link == *link)
    }

    /// The identifier of a way for one flow more; `None` when there are too many ways.
    pub(crate) fn learn(&mut self, port: PortId, link: &LinkHeader) -> Option<PathId> {
        let known = |paths: &Self, id: u16| paths.is(PathId(id), port, link);
        let last = self.last;
        let id = if last != END && self.paths[usize::from(last)].flows > 0 && known(self, last) {
            last
        } else {
            let chain = self.chain(port, link);
            let mut id = self.chains[chain];
            while id != END && !known(self, id) {
                id = self.paths[usize::from(id)].next;
            }
            if id == END {
                self.add(chain, port, link)?
            } else {
                id
            }
        };
        self.last = id;
        self.paths[usize::from(id)].flows += 1;
        Some(PathId(id))
    }

    /// One flow less goes by a way. Without flows it is forgotten.
    pub(crate) fn release(&mut self, PathId(id): PathId) {
        if id == END {
            return;
        }
        let path = &mut self.paths[usize::from(id)];
        path.flows -= 1;
        if path.flows == 0 {
            let (port, link) = (path.port, path.link);
            self.remove(id, port, &link);
        }
    }

    /// Ways in use.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.paths.iter().filter(|path| path.flows > 0).count()
    }

    fn add(&mut self, chain: usize, port: PortId, link: &LinkHeader) -> Option<u16> {
        let id = self.free;
        if id == END {
            return None;
        }
        self.free = self.paths[usize::from(id)].next;
        self.paths[usize::from(id)] = Path {
            port,
            link: *link,
            flows: 0,
            next: self.chains[chain],
        };
        self.chains[chain] = id;
        Some(id)
    }

    #[cold]
    fn remove(&mut self, id: u16, port: PortId, link: &LinkHeader) {
        let chain = self.chain(port, link);
        let next = self.paths[usize::from(id)].next;
        let mut at = self.chains[chain];
        if at == id {
            self.chains[chain] = next;
        }
        while at != END && at != id {
            let path = &mut self.paths[usize::from(at)];
            if path.next == id {
                path.next = next;
            }
            at = path.next;
        }
        self.paths[usize::from(id)].next = self.free;
        self.free = id;
    }

    fn chain(&self, port: PortId, link: &LinkHeader) -> usize {
        let mut addresses = [0; 16];
        addresses[..6].copy_from_slice(&link.destination);
        addresses[6..12].copy_from_slice(&link.source);
        addresses[12] = port.0;
        let key = FlowKey6 {
            source: addresses,
            destination: [0; 16],
            ports: link.vlan.map_or(u32::MAX, u32::from),
            protocol: 0,
        };
        key.hash(&self.seed) as usize % CHAINS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(n: u16) -> LinkHeader {
        let [high, low] = n.to_be_bytes();
        LinkHeader {
            destination: [2, 0, 0, 0, high, low],
            source: [4; 6],
            vlan: n.is_multiple_of(3).then_some(7),
        }
    }

    #[test]
    fn a_way_is_remembered_as_long_as_a_flow_goes_by_it() {
        let mut paths = Paths::new(HashSeed::new(1));
        let one = paths.learn(PortId(0), &link(1)).unwrap();
        let other = paths.learn(PortId(1), &link(1)).unwrap();
        assert_ne!(one, other);
        assert_eq!(paths.learn(PortId(0), &link(1)), Some(one));
        assert!(paths.is(one, PortId(0), &link(1)) && !paths.is(one, PortId(0), &link(3)));
        paths.release(one);
        assert_eq!(paths.len(), 2);
        paths.release(one);
        paths.release(other);
        assert_eq!(paths.len(), 0);
        assert!(paths.get(PathId::NONE).is_none());
        paths.release(PathId::NONE);
    }

    #[test]
    fn the_table_is_bounded_and_its_places_come_back() {
        let mut paths = Paths::new(HashSeed::new(1));
        for round in 0..3 {
            let ids: Vec<PathId> = (1..PATHS)
                .map(|n| paths.learn(PortId(round), &link(n)).unwrap())
                .collect();
            assert_eq!(paths.learn(PortId(9), &link(1)), None);
            // All of them are found again.
            for (n, &id) in (1..PATHS).zip(&ids) {
                assert_eq!(paths.learn(PortId(round), &link(n)), Some(id));
            }
            // Every other one first, so that chains are cut in the middle.
            for &id in ids.iter().step_by(2).chain(ids.iter().skip(1).step_by(2)) {
                paths.release(id);
                paths.release(id);
            }
            assert_eq!(paths.len(), 0);
        }
    }
}
