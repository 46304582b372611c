//! What is known of links, routes and neighbors, and what to ask the kernel next.
//!
//! [`State`] performs no I/O and reads no clock: events and answers go in, queries and tables
//! come out, time is an argument. It keeps no routing table of its own: the kernel is asked per
//! followed address (`RTM_GETROUTE`, what `ip route get` does), so that policy rules, metrics and
//! multipath are the kernel's. Of neighbors it keeps those only that are next hops.

use super::hop::{Ask, Hop, HopEntry, Neighbour};
use super::{NextHop, NoRoute, Resolution, Table, Unsupported};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// From the first change of a route to asking again: a routing daemon changes many at a time.
pub(super) const DEBOUNCE: Duration = Duration::from_millis(5);
/// Asking about routes may take one part in so many of the time while routes keep changing.
pub(super) const DUTY: u32 = 4;
/// When everything is asked again though nothing was heard. Some changes make no event: a route
/// that was learned from ICMP expires, a multipath member revives.
pub(super) const AUDIT: Duration = Duration::from_secs(60);
/// The least time between two tables, and what each address in them adds to it: a publication
/// copies the table.
pub(super) const PUBLISH_GAP: Duration = Duration::from_millis(3);
const PUBLISH_GAP_PER_ADDRESS: Duration = Duration::from_micros(1);

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) kind: LinkKind,
    pub(super) mac: [u8; 6],
    pub(super) mtu: u32,
    /// Up, running and with a carrier.
    pub(super) up: bool,
}

/// How frames leave by a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkKind {
    Ethernet,
    /// By link `base` with an 802.1Q tag.
    Vlan {
        base: u32,
        id: u16,
    },
    Unusable(Unsupported),
}

/// The kernel's route to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) ifindex: u32,
    pub(super) via: Option<IpAddr>,
    /// The route's own MTU, when it has one.
    pub(super) mtu: Option<u32>,
}

/// What the kernel tells unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    Link(Link),
    LinkGone(u32),
    /// A neighbor changed, or is gone.
    Neighbour(Hop, Option<Neighbour>),
    /// Routes to these addresses changed.
    Routes(RangeInclusive<IpAddr>),
    /// Rules, addresses or next-hop objects changed: any route may be another.
    AllRoutes,
}

/// What to ask the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Query {
    /// All links (`RTM_GETLINK`, dump).
    Links,
    /// The route to an address (`RTM_GETROUTE`).
    Route(IpAddr),
    /// A neighbor's state (`RTM_GETNEIGH`).
    Look(Hop),
    /// To resolve or verify a neighbor (`RTM_NEWNEIGH` with `NTF_USE`).
    Use(Hop),
}

/// The kernel's answer to a [`Query`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Links(Vec<Link>),
    Route(IpAddr, Result<Route, NoRoute>),
    Look(Hop, Option<Neighbour>),
    /// The error number where the kernel refuses.
    Use(Hop, Result<(), i32>),
}

/// Which routes to ask about, and the pace of it: what changes while a pass over the routes is
/// under way waits for the next one, and passes keep a distance, see [`DUTY`].
#[derive(Debug)]
struct Pace {
    marked: BTreeSet<IpAddr>,
    /// When those are asked about.
    ask_at: Instant,
    not_before: Instant,
    pass: Vec<IpAddr>,
    /// `Some` while a pass is under way.
    began: Option<Instant>,
    /// Asked in this pass and not answered yet.
    outstanding: usize,
}

/// See the module's documentation. This object performs no I/O whatsoever.
#[derive(Debug)]
pub(super) struct State {
    links: BTreeMap<u32, Link>,
    links_wanted: bool,
    /// The followed addresses with their routes, `None` until the kernel has answered.
    followed: BTreeMap<IpAddr, Option<Result<Route, NoRoute>>>,
    pace: Pace,
    hops: BTreeMap<Hop, HopEntry>,
    timers: BTreeSet<(Instant, Hop)>,
    audit_at: Instant,
    table: Table,
    publish_at: Option<Instant>,
    not_published_before: Instant,
}

impl State {
    /// Knows nothing and wants to know the links.
    pub(super) fn new(now: Instant) -> Self {
        State {
            links: BTreeMap::new(),
            links_wanted: true,
            followed: BTreeMap::new(),
            pace: Pace {
                marked: BTreeSet::new(),
                ask_at: now,
                not_before: now,
                pass: Vec::new(),
                began: None,
                outstanding: 0,
            },
            hops: BTreeMap::new(),
            timers: BTreeSet::new(),
            audit_at: now + AUDIT,
            table: Table::new(),
            publish_at: None,
            not_published_before: now,
        }
    }

    /// Replaces the set of followed addresses.
    pub(super) fn follow(&mut self, now: Instant, addresses: &BTreeSet<IpAddr>) {
        let left: Vec<IpAddr> = self
            .followed
            .keys()
            .filter(|address| !addresses.contains(address))
            .copied()
            .collect();
        for address in left {
            let route = self.followed.remove(&address).flatten();
            self.leave(address, hop_of(address, route));
            self.pace.marked.remove(&address);
            if self.table.remove(&address).is_some() {
                self.changed(now);
            }
        }
        for &address in addresses {
            if let Entry::Vacant(entry) = self.followed.entry(address) {
                entry.insert(None);
                // New ones wait for nothing, hence into the pass under way.
                self.pace.pass.push(address);
                self.pace.began.get_or_insert(now);
            }
        }
    }

    /// Takes what the kernel tells. False when it is of no concern.
    pub(super) fn event(&mut self, now: Instant, event: Event) -> bool {
        match event {
            Event::Link(link) => self.link(now, link),
            Event::LinkGone(index) => {
                let known = self.links.remove(&index).is_some();
                if known {
                    self.settle_link(now, index);
                    // The kernel takes IPv4 routes away with their interface and says nothing.
                    self.ask_again(now, None);
                }
                known
            }
            Event::Neighbour(hop, neighbour) => self.neighbour(now, hop, neighbour),
            Event::Routes(range) => self.ask_again(now, Some(range)),
            Event::AllRoutes => self.ask_again(now, None),
        }
    }

    /// Asks everything again: events were lost, or the kernel's answers. What is known stays in
    /// force until new answers are there.
    pub(super) fn resync(&mut self, now: Instant) {
        self.links_wanted = true;
        self.pace.pass.clear();
        (self.pace.began, self.pace.outstanding) = (None, 0);
        self.ask_again(now, None);
        let at = self.pace.ask_at.max(now);
        let hops: Vec<Hop> = self.hops.keys().copied().collect();
        for hop in hops {
            self.set_due(hop, |entry| entry.due = Some((at, Ask::Look)));
        }
    }

    /// What to ask the kernel now: at most `max` queries, each to be answered, or followed by
    /// [`State::resync`]. Call again until there are none.
    pub(super) fn queries(&mut self, now: Instant, max: usize) -> Vec<Query> {
        if std::mem::take(&mut self.links_wanted) {
            return vec![Query::Links];
        }
        if now >= self.audit_at {
            self.audit_at = now + AUDIT;
            self.ask_again(now, None);
        }
        let mut queries = Vec::new();
        while queries.len() + 1 < max {
            let Some(&(at, hop)) = self.timers.first().filter(|(at, _)| *at <= now) else {
                break;
            };
            let ask = self.hops.get(&hop).and_then(|entry| entry.due);
            match ask {
                Some((_, Ask::Use)) => {
                    self.set_due(hop, |entry| entry.used(now));
                    // A look behind, since not every state the kernel gets into makes an event.
                    queries.extend([Query::Use(hop), Query::Look(hop)]);
                }
                Some((_, Ask::Look)) => {
                    self.set_due(hop, |entry| entry.due = None);
                    queries.push(Query::Look(hop));
                }
                None => {
                    self.timers.remove(&(at, hop));
                }
            }
        }
        let idle = self.pace.pass.is_empty() && self.pace.outstanding == 0;
        if idle && now >= self.pace.ask_at {
            self.pace.pass = std::mem::take(&mut self.pace.marked).into_iter().collect();
            self.pace.began = Some(now);
        }
        while queries.len() < max {
            let Some(address) = self.pace.pass.pop() else {
                break;
            };
            if self.followed.contains_key(&address) {
                self.pace.outstanding += 1;
                queries.push(Query::Route(address));
            }
        }
        if self.pace.pass.is_empty() && self.pace.outstanding == 0 {
            self.pace.began = None;
        }
        queries
    }

    /// Takes the kernel's answer to a query.
    pub(super) fn answer(&mut self, now: Instant, answer: Answer) {
        match answer {
            Answer::Links(links) => {
                self.links = links.into_iter().map(|link| (link.index, link)).collect();
                self.settle(now, self.followed.keys().copied().collect());
            }
            Answer::Route(address, route) => {
                self.route(now, address, route);
                self.pace.outstanding = self.pace.outstanding.saturating_sub(1);
                if self.pace.outstanding == 0 && self.pace.pass.is_empty() {
                    let took = self.pace.began.take().map_or(Duration::ZERO, |at| now - at);
                    self.pace.not_before = now + took * (DUTY - 1);
                    self.pace.ask_at = self.pace.ask_at.max(self.pace.not_before);
                }
            }
            Answer::Look(hop, neighbour) => {
                self.neighbour(now, hop, neighbour);
            }
            // A refusal shows in the look that follows; the next try is due already.
            Answer::Use(..) => {}
        }
    }

    /// When [`State::queries`] or [`State::publish`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let audit = (!self.followed.is_empty()).then_some(self.audit_at);
        let marked = (!self.pace.marked.is_empty()).then_some(self.pace.ask_at);
        // A pass under way is due already: it goes on as fast as the kernel answers.
        let routes = self.pace.began.or(marked);
        let hop = self.timers.first().map(|&(at, _)| at);
        [audit, routes, hop, self.publish_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// The table, when it has changed and the last one is long enough ago.
    pub(super) fn publish(&mut self, now: Instant) -> Option<Arc<Table>> {
        self.publish_at.take_if(|at| *at <= now)?;
        let addresses = u32::try_from(self.table.len()).unwrap_or(u32::MAX);
        self.not_published_before = now + PUBLISH_GAP + PUBLISH_GAP_PER_ADDRESS * addresses;
        Some(Arc::new(self.table.clone()))
    }

    fn changed(&mut self, now: Instant) {
        let at = now.max(self.not_published_before);
        self.publish_at.get_or_insert(at);
    }

    fn link(&mut self, now: Instant, link: Link) -> bool {
        let index = link.index;
        let before = self.links.insert(index, link);
        let after = &self.links[&index];
        if before.as_ref() == Some(after) {
            return false;
        }
        // A link of no followed route matters when it comes up or goes down: multipath routes
        // and metrics fall back to it.
        let moved = before.is_some_and(|before| before.up) != after.up;
        let used = self.settle_link(now, index);
        let again = (moved || used) && self.ask_again(now, None);
        used || again
    }

    fn neighbour(&mut self, now: Instant, hop: Hop, neighbour: Option<Neighbour>) -> bool {
        let Some(entry) = self.hops.get(&hop) else {
            return false;
        };
        let had = entry.mac().is_some();
        let moved = self.set_due(hop, |entry| entry.update(now, neighbour)) == Some(true);
        if moved {
            let entry = &self.hops[&hop];
            let (has, users) = (entry.mac().is_some(), entry.users.clone());
            if had && !has {
                // With several routers the kernel may turn to another one (RFC 4861, 6.3.6).
                self.mark(now, &users);
            }
            self.settle(now, users);
        }
        true
    }

    fn route(&mut self, now: Instant, address: IpAddr, route: Result<Route, NoRoute>) {
        let Some(slot) = self.followed.get_mut(&address) else {
            return;
        };
        let before = slot.replace(route);
        if before == Some(route) {
            return;
        }
        let (old, new) = (hop_of(address, before), hop_of(address, Some(route)));
        if old != new {
            if let Some(hop) = new {
                let entry = self.hops.entry(hop).or_insert_with(|| HopEntry::new(now));
                entry.users.insert(address);
                if let Some((at, _)) = entry.due {
                    self.timers.insert((at, hop));
                }
            }
            self.leave(address, old);
        }
        self.settle(now, [address].into());
    }

    /// Takes an address from the users of a hop, and the hop away with its last user.
    fn leave(&mut self, address: IpAddr, hop: Option<Hop>) {
        let Some(hop) = hop else { return };
        let Some(entry) = self.hops.get_mut(&hop) else {
            return;
        };
        entry.users.remove(&address);
        if entry.users.is_empty() {
            if let Some((at, _)) = entry.due {
                self.timers.remove(&(at, hop));
            }
            self.hops.remove(&hop);
        }
    }

    /// Changes a hop and keeps the timers in step with its due time.
    fn set_due<T>(&mut self, hop: Hop, change: impl FnOnce(&mut HopEntry) -> T) -> Option<T> {
        let entry = self.hops.get_mut(&hop)?;
        let before = entry.due;
        let result = change(entry);
        if before != entry.due {
            if let Some((at, _)) = before {
                self.timers.remove(&(at, hop));
            }
            if let Some((at, _)) = entry.due {
                self.timers.insert((at, hop));
            }
        }
        Some(result)
    }

    /// Marks followed addresses to be asked about again, all or those in a range. False when
    /// there are none.
    fn ask_again(&mut self, now: Instant, range: Option<RangeInclusive<IpAddr>>) -> bool {
        let range = range.unwrap_or(IpAddr::from([0; 4])..=IpAddr::from([u8::MAX; 16]));
        if range.is_empty() {
            return false;
        }
        let concerned: BTreeSet<IpAddr> = self.followed.range(range).map(|(&a, _)| a).collect();
        self.mark(now, &concerned);
        !concerned.is_empty()
    }

    fn mark(&mut self, now: Instant, addresses: &BTreeSet<IpAddr>) {
        if self.pace.marked.is_empty() {
            self.pace.ask_at = (now + DEBOUNCE).max(self.pace.not_before);
        }
        self.pace.marked.extend(addresses);
    }

    fn settle_link(&mut self, now: Instant, index: u32) -> bool {
        let on_it = |ifindex: u32| {
            ifindex == index
                || self.links.get(&ifindex).is_some_and(
                    |link| matches!(link.kind, LinkKind::Vlan { base, .. } if base == index),
                )
        };
        let users: BTreeSet<IpAddr> = self
            .followed
            .iter()
            .filter(|(_, route)| matches!(route, Some(Ok(route)) if on_it(route.ifindex)))
            .map(|(&address, _)| address)
            .collect();
        let any = !users.is_empty();
        self.settle(now, users);
        any
    }

    /// Writes the resolutions of these addresses into the table.
    fn settle(&mut self, now: Instant, addresses: BTreeSet<IpAddr>) {
        for address in addresses {
            let Some(resolution) = self.resolve(address) else {
                continue;
            };
            if self.table.get(&address) != Some(&resolution) {
                self.table.insert(address, resolution);
                self.changed(now);
            }
        }
    }

    /// What the way to an address is; `None` when not everything is known yet, and what was in
    /// force stays so.
    fn resolve(&self, address: IpAddr) -> Option<Resolution> {
        let route = match (*self.followed.get(&address)?)? {
            Ok(route) => route,
            Err(why) => return Some(Resolution::NoRoute(why)),
        };
        let Some(link) = self.links.get(&route.ifindex) else {
            let device = format!("interface {}", route.ifindex);
            return Some(Resolution::Down { device });
        };
        let unsupported = |why| {
            let device = link.name.clone();
            Some(Resolution::Unsupported { device, why })
        };
        let (base, vlan) = match link.kind {
            LinkKind::Ethernet => (link, None),
            LinkKind::Unusable(why) => return unsupported(why),
            LinkKind::Vlan { base, id } => {
                match self.links.get(&base).map(|base| (base.kind, base)) {
                    Some((LinkKind::Ethernet, base)) => (base, Some(id)),
                    Some((LinkKind::Vlan { .. }, _)) => {
                        return unsupported(Unsupported::StackedVlan);
                    }
                    Some((LinkKind::Unusable(why), _)) => return unsupported(why),
                    None => return unsupported(Unsupported::ForeignBase),
                }
            }
        };
        if let Some(down) = [link, base].into_iter().find(|link| !link.up) {
            let device = down.name.clone();
            return Some(Resolution::Down { device });
        }
        let hop = hop_of(address, Some(Ok(route)))?;
        let entry = self.hops.get(&hop).filter(|entry| entry.looked)?;
        let Some(destination) = entry.mac() else {
            return Some(Resolution::NoNeighbour {
                device: link.name.clone(),
                next: hop.address,
            });
        };
        let mtu = route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu));
        Some(Resolution::Reachable(NextHop {
            device: base.name.clone(),
            ifindex: base.index,
            vlan,
            source: link.mac,
            destination,
            mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
            via: route.via,
        }))
    }
}

/// Whose MAC address frames to `address` need.
fn hop_of(address: IpAddr, route: Option<Result<Route, NoRoute>>) -> Option<Hop> {
    let route = route?.ok()?;
    Some(Hop {
        ifindex: route.ifindex,
        address: route.via.unwrap_or(address),
    })
}

#[cfg(test)]
mod tests;
