//! Balancers behind a router, and the connections that go through them.

use super::balancer::{Balancer, InForce};
use super::ecmp::{Hop, Router, Way};
use super::service::VIP;
use anyhow::{Context, Result};
use lockstep_core::Seconds;
use lockstep_core::tables::BackendRef;
use lockstep_wire::FlowKey4;
use std::collections::HashMap;
use std::net::Ipv4Addr;

/// Numbers that look random, the same for the same seed (Steele, Lea, Flood, "Fast Splittable
/// Pseudorandom Number Generators", 2014).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of 0 to `count`, without that.
    pub fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.next()) * count as u128) >> 64) as usize
    }
}

/// A connection.
struct Flow {
    key: FlowKey4,
    /// By which the router chooses.
    hash: u64,
    hop: Hop,
    backend: BackendRef,
}

/// What became of all connections when each had another packet.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Round {
    /// Connections whose backend is still there.
    pub live: usize,
    /// Those whose backend is gone: nobody can keep them.
    pub ended: usize,
    /// Of the live ones, those that came to another balancer than before.
    pub rerouted: usize,
    /// Of the live ones, those that came to another backend than before.
    pub moved: usize,
    /// Those of them that came to the balancer that has their entry: there must be none.
    pub betrayed: usize,
}

impl Round {
    /// The share of live connections that moved.
    pub fn share_moved(&self) -> f64 {
        self.moved as f64 / self.live.max(1) as f64
    }
}

/// Balancers behind a router.
pub struct Rack {
    router: Router,
    balancers: Vec<Option<Balancer>>,
    flows: Vec<Flow>,
    /// Flows that a balancer has room for.
    room: usize,
    /// The next connection's number.
    fresh: u32,
    random: Random,
}

impl Rack {
    /// So many balancers with so many connections.
    pub fn new(
        way: Way,
        balancers: Hop,
        flows: usize,
        seed: u64,
        in_force: &InForce,
    ) -> Result<Self> {
        let mut rack = Rack {
            router: Router::new(way, balancers),
            balancers: Vec::new(),
            flows: Vec::new(),
            // Entries stay for the idle time where connections were: with routers that give all of them to
            // other balancers every few minutes that is many times what is alive.
            room: 12 * flows / usize::from(balancers),
            fresh: 0,
            random: Random(seed),
        };
        for _ in 0..balancers {
            let balancer = rack.balancer();
            rack.balancers.push(Some(balancer));
        }
        for _ in 0..flows {
            let flow = rack.open(Seconds::new(0), in_force)?;
            rack.flows.push(flow);
        }
        Ok(rack)
    }

    /// Its balancers' numbers.
    pub fn hops(&self) -> &[Hop] {
        self.router.hops()
    }

    fn balancer(&mut self) -> Balancer {
        Balancer::new(self.room, self.random.next())
    }

    /// A balancer is gone, with all it remembers.
    pub fn lose(&mut self, place: usize) {
        let gone = self.router.hops()[place];
        self.router.lose(gone);
        self.balancers[usize::from(gone)] = None;
    }

    /// There is one more, which remembers nothing.
    pub fn gain(&mut self) {
        let balancer = self.balancer();
        self.router.gain(self.balancers.len() as Hop);
        self.balancers.push(Some(balancer));
    }

    /// A new connection, whose SYN goes where the router and its balancer send it.
    fn open(&mut self, now: Seconds, in_force: &InForce) -> Result<Flow> {
        self.fresh += 1;
        let number = self.fresh;
        let source = Ipv4Addr::from(0x0b00_0000_u32.wrapping_add(number));
        let key = FlowKey4::new(source, 1_024 + (number % 60_000) as u16, VIP.0, VIP.1, 6);
        let hash = self.random.next();
        let hop = self.router.hop(hash);
        let backend = self.send(&key, hop, true, now, in_force)?;
        Ok(Flow {
            key,
            hash,
            hop,
            backend,
        })
    }

    fn send(
        &mut self,
        key: &FlowKey4,
        hop: Hop,
        opens: bool,
        now: Seconds,
        in_force: &InForce,
    ) -> Result<BackendRef> {
        let balancer = self.balancers[usize::from(hop)].as_mut();
        let balancer = balancer.context("routers send to balancers that there are")?;
        let backend = balancer.packet(key, opens, now, in_force);
        backend.context("a service with backends has one for each packet")
    }

    /// Ends some connections, and opens as many.
    pub fn renew(&mut self, count: usize, now: Seconds, in_force: &InForce) -> Result<()> {
        for _ in 0..count {
            let at = self.random.below(self.flows.len());
            self.flows[at] = self.open(now, in_force)?;
        }
        Ok(())
    }

    /// Sends a packet of every connection. One that is ended or moved is broken: where clients
    /// `reopen`, another one takes its place.
    pub fn round(&mut self, now: Seconds, in_force: &InForce, reopen: bool) -> Result<Round> {
        let mut round = Round::default();
        let mut broken = Vec::new();
        for at in 0..self.flows.len() {
            let Flow {
                key,
                hash,
                hop: was,
                backend: old,
            } = self.flows[at];
            let hop = self.router.hop(hash);
            let backend = self.send(&key, hop, false, now, in_force)?;
            if !in_force.has(old) {
                round.ended += 1;
                broken.push(at);
                continue;
            }
            round.live += 1;
            round.rerouted += usize::from(hop != was);
            if backend == old {
                self.flows[at].hop = hop;
                continue;
            }
            round.moved += 1;
            round.betrayed += usize::from(hop == was);
            broken.push(at);
        }
        // From the last one on: what takes the place of one that goes was looked at.
        for at in broken.into_iter().rev() {
            match reopen {
                true => self.flows[at] = self.open(now, in_force)?,
                false => drop(self.flows.swap_remove(at)),
            }
        }
        Ok(round)
    }

    /// What balancers do between packets.
    pub fn sweep(&mut self, now: Seconds, in_force: &InForce) {
        for balancer in self.balancers.iter_mut().flatten() {
            balancer.sweep(now, in_force);
        }
    }

    /// How many entries balancers keep for each connection that there is.
    pub fn entries(&self) -> f64 {
        let entries: usize = self.balancers.iter().flatten().map(Balancer::entries).sum();
        entries as f64 / self.flows.len().max(1) as f64
    }

    /// How much more than the mean the balancer with the most connections has.
    pub fn balance_of_balancers(&self) -> f64 {
        self.balance(self.router.hops().len(), |flow| flow.hop)
    }

    /// How much more than the mean the backend with the most connections has.
    pub fn balance_of_backends(&self, backends: usize) -> f64 {
        self.balance(backends, |flow| flow.backend)
    }

    fn balance<K: std::hash::Hash + Eq>(&self, parts: usize, key: impl Fn(&Flow) -> K) -> f64 {
        let mut counts: HashMap<K, usize> = HashMap::new();
        for flow in &self.flows {
            *counts.entry(key(flow)).or_default() += 1;
        }
        let most = counts.values().copied().max().unwrap_or(0);
        most as f64 * parts as f64 / self.flows.len().max(1) as f64
    }
}
