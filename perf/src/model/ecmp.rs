//! How routers spread flows over balancers, and what becomes of that when one goes or comes.

use std::collections::HashMap;

/// A balancer's number.
pub type Hop = u16;

/// The ways in which routers choose a next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The hash modulo the number of next hops.
    Modulo,
    /// An equal part of all hashes for each, in their order: RFC 2992, and Linux without resilient groups.
    Threshold,
    /// Buckets that stay where they are unless theirs is gone: "resilient" or "consistent" hashing of
    /// switches, and of Linux' next-hop groups.
    Resilient,
}

impl Way {
    /// All of them.
    pub const ALL: [Way; 3] = [Way::Modulo, Way::Threshold, Way::Resilient];

    /// As figures name it.
    pub const fn name(self) -> &'static str {
        match self {
            Way::Modulo => "modulo",
            Way::Threshold => "hash-threshold",
            Way::Resilient => "resilient",
        }
    }

    /// The share of all flows that come to another of `hops` next hops when the one at `place` goes.
    /// As a formula, to be held against what [`Router`] does.
    pub fn share_moved_by_loss(self, hops: usize, place: usize) -> f64 {
        let n = hops as f64;
        match self {
            // Two numbers without a common divisor: each pair of remainders is as frequent, and
            // one in n names the same hop.
            Way::Modulo => 1.0 - 1.0 / n,
            // What the regions before and after have in common.
            Way::Threshold => {
                let before: usize = (0..place).map(|i| hops - 1 - i).sum();
                let behind: usize = (place + 1..hops).sum();
                1.0 - (before + behind) as f64 / (n * (n - 1.0))
            }
            Way::Resilient => 1.0 / n,
        }
    }
}

/// Buckets of a resilient group: many to each of the next hops, as switches have.
const BUCKETS: usize = 4_096;

/// A router with its next hops.
#[derive(Debug, Clone)]
pub struct Router {
    way: Way,
    /// In the router's order.
    hops: Vec<Hop>,
    /// The hop of each bucket, where there are buckets.
    buckets: Vec<Hop>,
}

impl Router {
    /// A router that spreads over the hops from 0 on.
    pub fn new(way: Way, hops: Hop) -> Self {
        let hops: Vec<Hop> = (0..hops).collect();
        let buckets = match way {
            Way::Modulo | Way::Threshold => Vec::new(),
            Way::Resilient => (0..BUCKETS).map(|b| hops[b % hops.len()]).collect(),
        };
        Router { way, hops, buckets }
    }

    /// Its next hops.
    pub fn hops(&self) -> &[Hop] {
        &self.hops
    }

    /// Where a flow with this hash goes.
    pub fn hop(&self, hash: u64) -> Hop {
        let in_order = |count: usize| ((u128::from(hash) * count as u128) >> 64) as usize;
        match self.way {
            Way::Modulo => self.hops[(hash % self.hops.len() as u64) as usize],
            Way::Threshold => self.hops[in_order(self.hops.len())],
            Way::Resilient => self.buckets[in_order(self.buckets.len())],
        }
    }

    /// A next hop is gone: its buckets go to those that have the fewest.
    pub fn lose(&mut self, gone: Hop) {
        self.hops.retain(|&hop| hop != gone);
        let mut counts = self.by_buckets();
        for bucket in self.buckets.iter_mut().filter(|bucket| **bucket == gone) {
            if let Some(fewest) = counts.iter_mut().min() {
                *bucket = fewest.1;
                fewest.0 += 1;
            }
        }
    }

    /// There is one more: it takes its share of buckets from those that have the most.
    pub fn gain(&mut self, hop: Hop) {
        let mut counts = self.by_buckets();
        self.hops.push(hop);
        let share = self.buckets.len() / self.hops.len();
        let mut gives: HashMap<Hop, usize> = HashMap::new();
        for _ in 0..share {
            if let Some(most) = counts.iter_mut().max() {
                most.0 -= 1;
                *gives.entry(most.1).or_default() += 1;
            }
        }
        for bucket in &mut self.buckets {
            if let Some(left) = gives.get_mut(bucket).filter(|left| **left > 0) {
                *left -= 1;
                *bucket = hop;
            }
        }
    }

    /// How many buckets each hop has.
    fn by_buckets(&self) -> Vec<(usize, Hop)> {
        let mut counts: HashMap<Hop, usize> = HashMap::new();
        for bucket in &self.buckets {
            *counts.entry(*bucket).or_default() += 1;
        }
        let count = |hop: Hop| counts.get(&hop).copied().unwrap_or(0);
        self.hops.iter().map(|&hop| (count(hop), hop)).collect()
    }
}
