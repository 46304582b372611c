//! Local ports of connections to replicas, and whose they are.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use core::ops::RangeInclusive;

/// Which connection a packet from a replica belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortOwner {
    /// The session, by its place.
    pub session: u32,
    /// The replica, by its place in the session.
    pub replica: u16,
}

/// No session is there.
const NOBODY: u32 = u32::MAX;

/// The ports of one worker. A port is one connection's, whatever its peer: so a packet from a
/// replica is found by an index.
#[derive(Debug)]
pub struct Ports {
    range: RangeInclusive<u16>,
    owners: Box<[PortOwner]>,
    /// In the order they were given back: the next is the one unused for longest.
    free: VecDeque<u16>,
}

impl Ports {
    /// All ports of the range, none in use.
    pub fn new(range: RangeInclusive<u16>) -> Self {
        let count = range.len();
        let nobody = PortOwner {
            session: NOBODY,
            replica: 0,
        };
        Ports {
            owners: vec![nobody; count].into_boxed_slice(),
            free: range.clone().collect(),
            range,
        }
    }

    /// Ports that are free.
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// Takes the port that has been free for longest.
    pub fn take(&mut self, owner: PortOwner) -> Option<u16> {
        let port = self.free.pop_front()?;
        self.owners[usize::from(port - self.range.start())] = owner;
        Some(port)
    }

    /// Gives a port back.
    pub fn release(&mut self, port: u16) {
        let Some(owner) = self.index(port).and_then(|at| self.owners.get_mut(at)) else {
            return;
        };
        if owner.session != NOBODY {
            owner.session = NOBODY;
            self.free.push_back(port);
        }
    }

    /// Whose port it is.
    #[inline]
    pub fn owner(&self, port: u16) -> Option<PortOwner> {
        let owner = *self.owners.get(self.index(port)?)?;
        (owner.session != NOBODY).then_some(owner)
    }

    #[inline]
    fn index(&self, port: u16) -> Option<usize> {
        port.checked_sub(*self.range.start()).map(usize::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(session: u32) -> PortOwner {
        PortOwner {
            session,
            replica: 1,
        }
    }

    #[test]
    fn ports_go_round_and_none_is_given_twice() {
        let mut ports = Ports::new(100..=102);
        let taken = [0, 1, 2].map(|session| ports.take(owner(session)));
        assert_eq!(taken, [Some(100), Some(101), Some(102)]);
        assert_eq!(ports.take(owner(3)), None);
        ports.release(101);
        ports.release(100);
        ports.release(100);
        assert_eq!(ports.available(), 2);
        assert_eq!(ports.take(owner(4)), Some(101));
        assert_eq!(ports.owner(101), Some(owner(4)));
        assert_eq!(ports.owner(100), None);
        assert_eq!(ports.owner(99), None);
        assert_eq!(ports.owner(103), None);
    }

    #[test]
    fn the_last_port_of_all_can_be_in_the_range() {
        let mut ports = Ports::new(65_535..=65_535);
        assert_eq!(ports.take(owner(0)), Some(65_535));
        ports.release(65_535);
        assert_eq!(ports.available(), 1);
    }
}
