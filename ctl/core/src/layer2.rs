//! Which of several balancers on one link owns a VIP: the one whose MAC address neighbors are told.
//!
//! Balancers tell each other by unicast, a few times a second, which VIPs they are willing to own
//! and which they own ([`Hello`]). Of those that are willing, the one with the highest hash of VIP
//! and name is to own it (rendezvous hashing): VIPs are shared out evenly, and only those of a
//! balancer that died move.
//!
//! There is one owner at most. A VIP is claimed when nobody that is heard owns it, and handed over
//! by its owner: it lets go, the other hears that and claims. A balancer that was just started
//! listens before it claims, one that was frozen for so long that others must have taken it for
//! dead lets go of everything before it does anything else. Where two can not hear each other both
//! own it, which nobody can help; once they do, the lower hash lets go within an interval.
//!
//! No sockets, no clock in here: hellos and time are arguments. Time is what has passed since any
//! fixed moment, by a clock that does not jump.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

mod hello;
mod rank;

pub use hello::{Hello, HelloError, MAX_BYTES};

/// Hellos that must be missing before a balancer counts as dead.
pub const MISSES: u32 = 3;

/// The most balancers that share VIPs.
pub const MAX_MEMBERS: usize = 16;

/// The most VIPs they share: what a hello has room for.
pub const MAX_VIPS: usize = 1_024;

/// No balancer is believed to be silent for longer than this before it counts as dead.
const MAX_INTERVAL: Duration = Duration::from_secs(10);

/// Times between hellos, and before a VIP goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two hellos.
    pub interval: Duration,
    /// So long a balancer must be willing before a VIP that somebody owns moves to it.
    pub hold: Duration,
}

/// What becomes of a VIP here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// It is ours now: neighbors are to be told.
    Claimed,
    /// It was ours all along, but neighbors may have been told otherwise.
    Affirmed,
    /// It is not ours any more.
    Released,
}

/// Another balancer.
#[derive(Debug, Clone, Default)]
struct Member {
    /// The last hello that was taken, and when.
    heard: Option<(Duration, Hello)>,
    /// Since when it is heard without a break; `None` while it is dead.
    alive: Option<Duration>,
    /// Since when it has been willing to own each VIP, as far as we know.
    willing: BTreeMap<IpAddr, Duration>,
    /// Hellos that were not taken: late ones, or of an earlier life.
    stale: u64,
}

impl Member {
    fn owns(&self, vip: IpAddr) -> bool {
        self.said(|hello| hello.owned.contains(&vip))
    }

    fn hears(&self, name: &str) -> bool {
        self.said(|hello| hello.heard.contains(name))
    }

    fn said(&self, what: impl Fn(&Hello) -> bool) -> bool {
        self.alive.is_some() && self.heard.as_ref().is_some_and(|(_, hello)| what(hello))
    }

    /// When it counts as dead: after so many of its own intervals.
    fn dies(&self) -> Option<Duration> {
        let (at, hello) = self.heard.as_ref().filter(|_| self.alive.is_some())?;
        Some(*at + hello.interval.min(MAX_INTERVAL) * MISSES)
    }
}

/// What others may look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer<'a> {
    /// Its name.
    pub name: &'a str,
    /// Since when it is heard; `None` while it is not.
    pub alive: Option<Duration>,
    /// Whether it hears us.
    pub hears_us: bool,
    /// VIPs that it owns.
    pub owned: usize,
    /// VIPs that it is willing to own.
    pub willing: usize,
    /// Hellos that came too late, or from an earlier life of it.
    pub stale: u64,
}

/// One balancer's view of who owns what. This object performs no I/O: it is given hellos, and asked
/// for one whenever [`Election::next_deadline`] has come.
#[derive(Debug, Clone)]
pub struct Election {
    group: String,
    name: String,
    timing: Timing,
    /// Higher than in any earlier life.
    life: u64,
    sequence: u64,
    members: BTreeMap<String, Member>,
    /// What we are willing to own, and since when others could know.
    willing: BTreeMap<IpAddr, Duration>,
    /// What we own, and since when.
    owned: BTreeMap<IpAddr, Duration>,
    /// What changed since it was last asked for, in order.
    changes: Vec<(IpAddr, Change)>,
    /// When this life began, or began again after a freeze.
    began: Duration,
    sent: Option<Duration>,
    /// Others should not wait for what changed.
    urgent: bool,
    leaving: bool,
}

impl Election {
    /// A balancer that begins to listen. `life` is higher than in any life of it before: the time
    /// of its start by the wall clock.
    pub fn new(
        (group, name): (&str, &str),
        peers: impl IntoIterator<Item = String>,
        timing: Timing,
        life: u64,
        now: Duration,
    ) -> Self {
        let members = peers.into_iter().map(|name| (name, Member::default()));
        Election {
            group: group.to_owned(),
            name: name.to_owned(),
            timing,
            life,
            sequence: 0,
            members: members.take(MAX_MEMBERS - 1).collect(),
            willing: BTreeMap::new(),
            owned: BTreeMap::new(),
            changes: Vec::new(),
            began: now,
            sent: None,
            urgent: true,
            leaving: false,
        }
    }

    /// Says which VIPs this balancer can serve now. The others are let go at once.
    pub fn offer(&mut self, now: Duration, vips: impl IntoIterator<Item = IpAddr>) {
        let vips: BTreeSet<IpAddr> = vips.into_iter().take(MAX_VIPS).collect();
        self.fence(now);
        let before = self.willing.len();
        self.willing.retain(|vip, _| vips.contains(vip));
        self.urgent |= self.willing.len() != before;
        for vip in vips {
            self.willing.entry(vip).or_insert_with(|| {
                self.urgent = true;
                now
            });
        }
        self.settle(now);
    }

    /// Ends in order: lets go of everything, and says so in the hellos from now on.
    pub fn leave(&mut self, now: Duration) {
        self.leaving = true;
        self.offer(now, []);
        self.urgent = true;
    }

    /// Takes a hello of a balancer. `false` where it is of another group or of nobody known, and
    /// where it is older than one that came before.
    pub fn receive(&mut self, now: Duration, hello: Hello) -> bool {
        if hello.group != self.group {
            return false;
        }
        self.fence(now);
        self.bury(now);
        let Some(member) = self.members.get_mut(&hello.name) else {
            return false;
        };
        if let Some((_, last)) = &member.heard {
            let newer = (hello.life, hello.sequence) > (last.life, last.sequence);
            // A clock that was set back makes a life look older. Nobody is held to the life of
            // one that is dead.
            if !newer && (member.alive.is_some() || hello.life == last.life) {
                member.stale += 1;
                return false;
            }
        }
        let let_go: Vec<IpAddr> = match &member.heard {
            Some((_, last)) if member.alive.is_some() => {
                last.owned.difference(&hello.owned).copied().collect()
            }
            _ => Vec::new(),
        };
        member.willing.retain(|vip, _| hello.willing.contains(vip));
        for vip in &hello.willing {
            member.willing.entry(*vip).or_insert(now);
        }
        if hello.leaving {
            member.alive = None;
            member.willing.clear();
        } else if member.alive.is_none() {
            member.alive = Some(now);
            // It is to know as soon as we do.
            self.urgent = true;
        }
        // One of us is to let go. It hears at once what it has to know for that.
        self.urgent |= hello.owned.iter().any(|vip| self.owned.contains_key(vip));
        member.heard = Some((now, hello));
        // Both told neighbors that it is theirs; the last word must be ours.
        for vip in let_go {
            if self.owned.contains_key(&vip) {
                self.changes.push((vip, Change::Affirmed));
            }
        }
        self.settle(now);
        true
    }

    /// The hello that is due, if one is, for every other balancer; and whatever the time alone
    /// brings about.
    pub fn tick(&mut self, now: Duration) -> Option<Hello> {
        self.fence(now);
        self.bury(now);
        self.settle(now);
        if self.due() > now {
            return None;
        }
        self.sent = Some(now);
        self.urgent = false;
        self.sequence += 1;
        Some(Hello {
            group: self.group.clone(),
            name: self.name.clone(),
            life: self.life,
            sequence: self.sequence,
            interval: self.timing.interval,
            leaving: self.leaving,
            heard: (self.members.iter())
                .filter(|(_, member)| member.alive.is_some())
                .map(|(name, _)| name.clone())
                .collect(),
            // Who cannot claim yet is not waited for.
            willing: match self.listened(now) {
                true => self.willing.keys().copied().collect(),
                false => BTreeSet::new(),
            },
            owned: self.owned.keys().copied().collect(),
        })
    }

    /// When [`Election::tick`] has something to do.
    pub fn next_deadline(&self) -> Duration {
        let dies = self.members.values().filter_map(Member::dies);
        dies.fold(self.due(), Duration::min)
    }

    /// What is ours, and since when.
    pub const fn owned(&self) -> &BTreeMap<IpAddr, Duration> {
        &self.owned
    }

    /// What this balancer can serve, and since when it says so.
    pub const fn offered(&self) -> &BTreeMap<IpAddr, Duration> {
        &self.willing
    }

    /// What became ours, and what no longer is, since this was last asked.
    pub fn changes(&mut self) -> Vec<(IpAddr, Change)> {
        std::mem::take(&mut self.changes)
    }

    /// The name of the balancer that says that it owns a VIP.
    pub fn owner(&self, vip: IpAddr) -> Option<&str> {
        if self.owned.contains_key(&vip) {
            return Some(&self.name);
        }
        let owner = self.members.iter().find(|(_, member)| member.owns(vip));
        owner.map(|(name, _)| name.as_str())
    }

    /// Every VIP that anybody is willing to own, or owns.
    pub fn vips(&self) -> BTreeSet<IpAddr> {
        let living = self.members.values().filter(|m| m.alive.is_some());
        let theirs = living.filter_map(|m| m.heard.as_ref());
        let theirs = theirs.flat_map(|(_, hello)| hello.owned.union(&hello.willing).copied());
        self.willing.keys().copied().chain(theirs).collect()
    }

    /// The other balancers.
    pub fn peers(&self) -> impl Iterator<Item = Peer<'_>> {
        self.members.iter().map(|(name, member)| {
            let hello = member.heard.as_ref().filter(|_| member.alive.is_some());
            Peer {
                name,
                alive: member.alive,
                hears_us: member.hears(&self.name),
                owned: hello.map_or(0, |(_, hello)| hello.owned.len()),
                willing: hello.map_or(0, |(_, hello)| hello.willing.len()),
                stale: member.stale,
            }
        })
    }

    fn due(&self) -> Duration {
        match (self.sent, self.urgent) {
            (None, _) => self.began,
            // However much happens, others are not flooded.
            (Some(sent), true) => sent + self.timing.interval / 16,
            (Some(sent), false) => sent + self.timing.interval,
        }
    }

    /// Lets go of everything when others must have taken us for dead: the process was stopped, or
    /// the machine slept. What they own is heard before anything is claimed again.
    fn fence(&mut self, now: Duration) {
        let silent = |sent: Duration| now.saturating_sub(sent) >= self.timing.interval * MISSES;
        if !self.sent.is_some_and(silent) {
            return;
        }
        self.sent = None;
        self.began = now;
        for member in self.members.values_mut() {
            member.alive = None;
            member.willing.clear();
        }
        for since in self.willing.values_mut() {
            *since = now;
        }
        for (vip, _) in std::mem::take(&mut self.owned) {
            self.changes.push((vip, Change::Released));
        }
    }

    /// Notices who died.
    fn bury(&mut self, now: Duration) {
        for member in self.members.values_mut() {
            if member.dies().is_some_and(|at| at <= now) {
                member.alive = None;
                member.willing.clear();
            }
        }
    }

    /// Whether we have listened long enough to know who owns what: every balancer was heard since
    /// we began, or would have been.
    fn listened(&self, now: Duration) -> bool {
        let heard =
            |member: &Member| (member.heard.as_ref()).is_some_and(|(at, _)| *at >= self.began);
        self.members.values().all(heard)
            || now.saturating_sub(self.began) >= self.timing.interval * MISSES
    }

    /// Claims and releases, by what is known now.
    fn settle(&mut self, now: Duration) {
        let mut vips: BTreeSet<IpAddr> = self.willing.keys().copied().collect();
        vips.extend(self.owned.keys());
        let listened = self.listened(now);
        for vip in vips {
            match self.owned.contains_key(&vip) {
                true if !self.keeps(now, vip) => {
                    self.owned.remove(&vip);
                    self.changes.push((vip, Change::Released));
                    self.urgent = true;
                }
                false if listened && self.claims(now, vip) => {
                    self.owned.insert(vip, now);
                    self.changes.push((vip, Change::Claimed));
                    self.urgent = true;
                }
                true | false => {}
            }
        }
    }

    /// Whether a VIP that is ours stays ours.
    fn keeps(&self, now: Duration, vip: IpAddr) -> bool {
        if !self.willing.contains_key(&vip) {
            return false;
        }
        let mine = rank::rank(vip, &self.name);
        let living = |since: Duration, time: Duration| now.saturating_sub(since) >= time;
        self.members.iter().all(|(name, member)| {
            let Some(alive) = member.alive else {
                return true;
            };
            let higher = rank::rank(vip, name) > mine;
            let hears_us = member.hears(&self.name);
            if member.owns(vip) {
                // One that cannot hear us will never let go. One that is heard since a moment only
                // has not had the time to hear us.
                return !higher && (hears_us || !living(alive, self.timing.interval * 2));
            }
            // Handed over to whom it belongs, once that one has proved to stay.
            let proved =
                (member.willing.get(&vip)).is_some_and(|since| living(*since, self.timing.hold));
            !(higher && hears_us && proved && self.highest(vip) == Some(name.as_str()))
        })
    }

    /// Whether a VIP that nobody has becomes ours.
    fn claims(&self, now: Duration, vip: IpAddr) -> bool {
        // Others have had the time to hear that we are willing.
        let known = (self.willing.get(&vip))
            .is_some_and(|since| now.saturating_sub(*since) >= self.timing.interval);
        known
            && !self.members.values().any(|member| member.owns(vip))
            && self.highest(vip) == Some(&self.name)
    }

    /// Whose the VIP is to be, of those that are alive and willing.
    fn highest(&self, vip: IpAddr) -> Option<&str> {
        let others = self.members.iter();
        let others = others.filter(|(_, member)| member.willing.contains_key(&vip));
        let us = self.willing.contains_key(&vip).then_some(&self.name);
        let all = others.map(|(name, _)| name).chain(us);
        all.map(String::as_str)
            .max_by_key(|name| rank::rank(vip, name))
    }
}

#[cfg(test)]
mod tests;
