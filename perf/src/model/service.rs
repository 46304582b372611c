//! The service of the simulation: many backends behind one VIP, of which some come and go.

use super::balancer::InForce;
use anyhow::{Context, Result, anyhow};
use lockstep_core::tables::{NextHop, PortId, Ring, Route, VipRef};
use lockstep_core::{EngineAddresses, Tables};
use lockstep_plan::{
    Backend, BackendState, Guard, Health, IdleTimeouts, Mode, Scheduler, Service, ServiceName,
    Snapshot, TableSize, Unserved, Weight,
};
use lockstep_wire::LinkHeader;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// Where clients connect to.
pub const VIP: (Ipv4Addr, u16) = (Ipv4Addr::new(203, 0, 113, 10), 80);
const TCP: u8 = 6;

/// Backends, and what balancers have been told of them.
pub struct Pool {
    size: TableSize,
    /// The numbers of those that there are.
    backends: Vec<u32>,
    next: u32,
    epoch: u64,
    in_force: InForce,
}

impl Pool {
    /// So many backends, behind a ring of so many entries.
    pub fn new(backends: u32, entries: u32) -> Result<Self> {
        let size = TableSize::new(entries)
            .with_context(|| format!("{entries} is no size of a Maglev table"))?;
        let mut pool = Pool {
            size,
            backends: (0..backends).collect(),
            next: backends,
            epoch: 0,
            in_force: InForce {
                tables: Arc::default(),
                before: None,
                vip: VipRef::UNKNOWN,
            },
        };
        pool.tell()?;
        pool.settle();
        Ok(pool)
    }

    /// What balancers go by now.
    pub fn in_force(&self) -> &InForce {
        &self.in_force
    }

    /// The minute after the first change is over.
    pub fn settle(&mut self) {
        self.in_force.before = None;
        self.in_force.tables = Arc::new(self.in_force.tables.settled(|_| true));
    }

    /// Some backends go, as many others come; which go is drawn by `draw`.
    pub fn replace(&mut self, count: usize, mut draw: impl FnMut(usize) -> usize) -> Result<()> {
        for _ in 0..count {
            let gone = draw(self.backends.len());
            self.backends.swap_remove(gone);
            self.backends.push(self.next);
            self.next += 1;
        }
        self.tell()
    }

    fn tell(&mut self) -> Result<()> {
        self.epoch += 1;
        let service = Service {
            name: ServiceName::new("web").context("a plain name")?,
            vips: vec![format!("{}:{}/tcp", VIP.0, VIP.1).parse()?],
            mode: Mode::TUNNEL,
            backends: self.backends.iter().map(|n| backend(*n)).collect(),
            unserved: Unserved::Drop,
            table_size: self.size,
            idle: IdleTimeouts::DEFAULT,
            scheduler: Scheduler::Maglev,
            guard: Guard::default(),
        };
        let snapshot =
            Snapshot::new(self.epoch, vec![service]).map_err(|errors| anyhow!("{errors:?}"))?;
        let addresses = EngineAddresses {
            v4: Some(Ipv4Addr::new(192, 0, 2, 1)),
            v6: None,
        };
        let tables = Tables::compile(&self.in_force.tables, &snapshot, addresses, |_| {
            NextHop::Via(route())
        })?;
        let vip = tables.vip(VIP.0.into(), VIP.1, TCP);
        let old = std::mem::replace(&mut self.in_force.tables, Arc::new(tables));
        // Of several changes in a minute the ring before the first is kept.
        self.in_force.before.get_or_insert(old);
        self.in_force.vip = vip.context("the service has its VIP")?;
        Ok(())
    }
}

fn route() -> Route {
    let link = LinkHeader {
        destination: [2, 0, 0, 0, 0, 1],
        source: [2, 0, 0, 0, 0, 2],
        vlan: None,
    };
    Route {
        port: PortId(0),
        link,
        mtu: 1_600,
    }
}

fn backend(number: u32) -> Backend {
    let [_, a, b, c] = number.to_be_bytes();
    let address = IpAddr::from(Ipv4Addr::new(10, a, b, c));
    Backend {
        name: address.to_string(),
        address,
        weight: Weight::DEFAULT,
        state: BackendState::Active,
        port: None,
        health: Health::UNKNOWN,
    }
}

/// The share of a ring's entries that name another backend now, of those whose backend is still there:
/// the chance of a flow to be moved when nobody remembers it.
pub fn disruption(old: &InForce, new: &InForce) -> f64 {
    let rings = old.ring().zip(new.ring());
    let tables = rings.and_then(|(old, new)| old.table().zip(new.table()));
    let Some(((before, were), (after, are))) = tables else {
        return 0.0;
    };
    let (mut stay, mut moved) = (0_u64, 0_u64);
    for (was, is) in before.entries().iter().zip(after.entries()) {
        let (was, is) = (were[usize::from(*was)], are[usize::from(*is)]);
        if new.has(was) {
            stay += 1;
            moved += u64::from(was != is);
        }
    }
    moved as f64 / stay.max(1) as f64
}

/// How much more than the mean the backend with the most entries of the ring has.
pub fn ring_balance(in_force: &InForce) -> f64 {
    let table = in_force.ring().and_then(Ring::table);
    table.map_or(1.0, |(maglev, active)| {
        let shares = maglev.shares(active.len());
        let most = shares.iter().copied().max().unwrap_or(0);
        f64::from(most) * active.len() as f64 / maglev.entries().len() as f64
    })
}
