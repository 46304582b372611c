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
//! Nobody is believed to live by what may be a recording. Every hello says which lives of the others
//! the sender has heard, and their last hello. A balancer is alive once it echoes a hello that we
//! sent in this life a moment ago: it can have said so only now. From then on its hellos count in
//! their order, while they come without a break.
//!
//! A balancer whose daemon is started again keeps its VIPs, since its engine goes on: it says so with
//! its last hello, and what it owned stays its own for the others until its next life has found out
//! what it can serve. When that one is not there within [`RESTART`] it counts as dead.
//!
//! No sockets, no clock in here: hellos and time are arguments. Time is what has passed since any
//! fixed moment, by a clock that does not jump.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

mod hello;
mod member;
mod rank;

pub use hello::{Hello, HelloError, MAX_BYTES, VERSION};
use member::{Judgement, Member, RECOVERY};

/// Hellos that must be missing before a balancer counts as dead.
pub const MISSES: u32 = 3;

/// How long the daemon of a balancer may be away for a restart before others take its VIPs: as
/// long as a take-over may take.
pub const RESTART: Duration = Duration::from_millis(900);

/// The most balancers that share VIPs.
pub const MAX_MEMBERS: usize = 16;

/// The most VIPs they share: what a hello has room for.
pub const MAX_VIPS: usize = 1_024;

/// A hello that echoes one of ours from before so many intervals proves nothing: it may be a
/// recording. One of ours may be lost.
const FRESH: u32 = 2;

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

/// What others may look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer<'a> {
    /// Its name.
    pub name: &'a str,
    /// Since when it is heard; `None` while it is not.
    pub alive: Option<Duration>,
    /// Whether it hears us.
    pub hears_us: bool,
    /// Whether anything comes in its name, be it a recording.
    pub heard: bool,
    /// VIPs that it owns.
    pub owned: usize,
    /// VIPs that it is willing to own.
    pub willing: usize,
    /// Hellos that came too late, or again.
    pub stale: u64,
}

/// One balancer's view of who owns what. This object performs no I/O: it is given hellos, and asked
/// for one whenever [`Election::next_deadline`] has come.
#[derive(Debug, Clone)]
pub struct Election {
    group: String,
    name: String,
    timing: Timing,
    life: u64,
    /// Of the last hello: when it was sent, in microseconds.
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
    restarting: bool,
    /// While it is not known yet what this balancer can serve.
    recovering: bool,
}

impl Election {
    /// A balancer that begins to listen. `life` is a random number: nobody can have recorded
    /// answers to it.
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
            restarting: false,
            recovering: true,
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

    /// Says that this balancer has found out that it can serve nothing: what an earlier life of it
    /// owned is not kept for it.
    pub fn serves_nothing(&mut self, now: Duration) {
        if std::mem::take(&mut self.recovering) {
            self.urgent = true;
            self.settle(now);
        }
    }

    /// Ends in order: lets go of everything, and says so in the hellos from now on.
    pub fn leave(&mut self, now: Duration) {
        self.leaving = true;
        self.offer(now, []);
        self.urgent = true;
    }

    /// Ends for a restart: what is ours stays so for the others, which hear it from now on.
    pub fn restart(&mut self, now: Duration) {
        self.fence(now);
        self.restarting = true;
        self.urgent = true;
    }

    /// Takes a hello of a balancer. `false` where it is of another group or of nobody known, where
    /// it is older than one that came before, and where nothing shows that it was said just now.
    pub fn receive(&mut self, now: Duration, hello: Hello) -> bool {
        if hello.group != self.group {
            return false;
        }
        self.fence(now);
        self.bury(now);
        let echo = hello.echo(&self.name, self.life);
        let proof = echo.filter(|sequence| {
            let age = micros(now).saturating_sub(*sequence);
            *sequence <= self.sequence && age <= micros(self.timing.interval * FRESH)
        });
        let Some(member) = self.members.get_mut(&hello.name) else {
            return false;
        };
        match member.judge(now, &hello, proof, self.timing.interval) {
            Judgement::Taken => {}
            // It is to have our answer soon, and so can prove itself.
            Judgement::New => {
                self.urgent = true;
                return false;
            }
            Judgement::Unproved | Judgement::Stale => return false,
        }
        // One of us is to let go. It hears at once what it has to know for that.
        self.urgent |= hello.owned.iter().any(|vip| self.owned.contains_key(vip));
        let taken = member.take(now, hello, echo.is_some());
        // It is to know as soon as we do.
        self.urgent |= taken.comes;
        // Both told neighbors that it is theirs; the last word must be ours.
        for vip in taken.let_go {
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
        self.recovering &= !self.has_recovered(now);
        if self.due() > now {
            return None;
        }
        self.sent = Some(now);
        self.urgent = false;
        self.sequence = micros(now).max(self.sequence + 1);
        Some(Hello {
            group: self.group.clone(),
            name: self.name.clone(),
            life: self.life,
            sequence: self.sequence,
            interval: self.timing.interval,
            leaving: self.leaving,
            restart: match self.restarting {
                true => RESTART,
                false => Duration::ZERO,
            },
            recovering: self.recovering,
            heard: (self.members.iter())
                .flat_map(|(name, member)| {
                    let lives = member.lives(now);
                    lives.map(|(life, sequence)| ((name.clone(), life), sequence))
                })
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
        let others = self.members.values().filter_map(Member::next_deadline);
        others.fold(self.due(), Duration::min)
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

    /// The other balancers, as they are now.
    pub fn peers(&self, now: Duration) -> impl Iterator<Item = Peer<'_>> {
        self.members.iter().map(move |(name, member)| {
            let hello = member.heard.as_ref().filter(|_| member.alive.is_some());
            Peer {
                name,
                alive: member.alive,
                hears_us: member.hears_us(),
                heard: member.lives(now).next().is_some(),
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
            member.bury();
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
            member.advance(now);
        }
    }

    /// Whether an earlier life's VIPs need not be kept for this one any more: it claims what it
    /// serves by itself, or will not.
    fn has_recovered(&self, now: Duration) -> bool {
        let offered = !self.willing.is_empty();
        let all = self
            .willing
            .values()
            .all(|since| self.is_known(now, *since));
        (offered && all && self.listened(now)) || now.saturating_sub(self.began) >= RECOVERY
    }

    /// Whether others have had the time to hear of what we are willing to own since then.
    fn is_known(&self, now: Duration, since: Duration) -> bool {
        now.saturating_sub(since) >= self.timing.interval
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
        let living = |since: Duration, time: Duration| now.saturating_sub(since) >= time;
        let higher = |name: &str| rank::rank(vip, name) > rank::rank(vip, &self.name);
        let highest = self.highest(vip);
        self.members.iter().all(|(name, member)| {
            let Some(alive) = member.alive else {
                return true;
            };
            let hears_us = member.hears_us();
            if member.owns(vip) {
                // One that cannot hear us will never let go. One that is heard since a moment only
                // has not had the time to hear us.
                return !higher(name) && (hears_us || !living(alive, self.timing.interval * 2));
            }
            // Handed over to whom it belongs, once that one has proved to stay.
            let proved =
                (member.willing.get(&vip)).is_some_and(|since| living(*since, self.timing.hold));
            !(hears_us && proved && highest == Some(name.as_str()))
        })
    }

    /// Whether a VIP that nobody has becomes ours.
    fn claims(&self, now: Duration, vip: IpAddr) -> bool {
        let known = (self.willing.get(&vip)).is_some_and(|since| self.is_known(now, *since));
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

/// Time as hellos say it.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
