//! Another balancer: what it said, and whether that is to be believed.

use super::{Hello, MISSES};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// No balancer is believed to be silent for longer than this before it counts as dead.
const MAX_INTERVAL: Duration = Duration::from_secs(10);

/// However long a restart takes, no balancer is waited for longer.
const MAX_RESTART: Duration = Duration::from_secs(5);

/// So long a balancer that is back may take to know what it can serve.
pub(super) const RECOVERY: Duration = Duration::from_secs(3);

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Member {
    /// The last hello that was taken, and when.
    pub heard: Option<(Duration, Hello)>,
    /// Since when it is heard without a break; `None` while it is dead.
    pub alive: Option<Duration>,
    /// Since when it has been willing to own each VIP, as far as we know.
    pub willing: BTreeMap<IpAddr, Duration>,
    /// Hellos that were not taken: late ones, or ones that came again.
    pub stale: u64,
    /// Whether the last hello that was taken echoes this life of ours.
    hears_us: bool,
    /// The last sequence of ours by which it proved that it said something just then.
    proved: u64,
    /// A life that has proved nothing yet: it did not hear us yet, or somebody recorded it.
    unproved: Option<Unproved>,
    /// What an earlier life of it owned that ended for a restart, and until when that stays its
    /// own; `None` when it has had its say.
    kept: Option<(Duration, BTreeSet<IpAddr>)>,
}

#[derive(Debug, Clone)]
struct Unproved {
    life: u64,
    sequence: u64,
    /// What it says that it owns. When it has proved itself it may have let go already.
    owned: BTreeSet<IpAddr>,
    /// Since when it is noted.
    since: Duration,
    /// Until when it is answered.
    until: Duration,
}

/// What becomes of a hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It is believed.
    Taken,
    /// The first one of a life that has to prove itself.
    New,
    /// Another one of such a life.
    Unproved,
    /// It came late or again.
    Stale,
}

/// What a hello that was taken changed.
pub(super) struct Taken {
    /// Whether this balancer, or this life of it, was not there before.
    pub comes: bool,
    /// What it owned and now does not.
    pub let_go: Vec<IpAddr>,
}

impl Member {
    pub fn owns(&self, vip: IpAddr) -> bool {
        let last = self.heard.as_ref().filter(|_| self.alive.is_some());
        last.is_some_and(|(_, hello)| hello.owned.contains(&vip))
            || (self.kept.as_ref()).is_some_and(|(_, vips)| vips.contains(&vip))
    }

    pub const fn hears_us(&self) -> bool {
        self.alive.is_some() && self.hears_us
    }

    /// When it counts as dead: after so many of its own intervals.
    fn dies(&self) -> Option<Duration> {
        let (at, hello) = self.heard.as_ref().filter(|_| self.alive.is_some())?;
        Some(*at + patience(hello))
    }

    /// When [`Member::advance`] has something to do.
    pub fn next_deadline(&self) -> Option<Duration> {
        let kept = self.kept.as_ref().map(|(until, _)| *until);
        self.dies().into_iter().chain(kept).min()
    }

    /// Notices that it died, or has not come back in time.
    pub fn advance(&mut self, now: Duration) {
        if self.dies().is_some_and(|at| at <= now) {
            self.bury();
        }
        self.kept = self.kept.take().filter(|(until, _)| *until > now);
    }

    /// It is dead.
    pub fn bury(&mut self) {
        self.alive = None;
        self.willing.clear();
        self.kept = None;
    }

    /// The lives of it that are answered, and the last sequence of each.
    pub fn lives(&self, now: Duration) -> impl Iterator<Item = (u64, u64)> {
        let known = self.heard.as_ref().filter(|_| self.alive.is_some());
        let known = known.map(|(_, hello)| (hello.life, hello.sequence));
        let unproved = (self.unproved.as_ref()).filter(|unproved| now < unproved.until);
        known
            .into_iter()
            .chain(unproved.map(|unproved| (unproved.life, unproved.sequence)))
    }

    /// Whether a hello is to be believed. `proof` is the sequence of a hello that we sent a moment
    /// ago, where this one echoes one.
    ///
    /// One that is alive need not prove anything again while its hellos come in order and without
    /// a break: it may have ceased to hear us. A life takes the place of another by a later proof
    /// only, so that none comes back.
    pub fn judge(
        &mut self,
        now: Duration,
        hello: &Hello,
        proof: Option<u64>,
        interval: Duration,
    ) -> Judgement {
        let last = self.heard.as_ref().map(|(_, last)| last);
        let last = last.filter(|last| last.life == hello.life);
        let taken = match (last, proof) {
            (Some(last), _) if hello.sequence <= last.sequence => {
                self.stale += 1;
                return Judgement::Stale;
            }
            (Some(_), proof) => self.alive.is_some() || proof.is_some(),
            (None, proof) => proof.is_some_and(|sequence| sequence > self.proved),
        };
        if !taken {
            return self.note(now, hello, interval);
        }
        self.proved = self.proved.max(proof.unwrap_or_default());
        Judgement::Taken
    }

    /// Notes a life that has proved nothing, so that it is answered.
    fn note(&mut self, now: Duration, hello: &Hello, interval: Duration) -> Judgement {
        let until = now + patience(hello);
        match &mut self.unproved {
            Some(known) if known.life == hello.life && hello.sequence > known.sequence => {
                known.sequence = hello.sequence;
                known.owned.clone_from(&hello.owned);
                known.until = until;
                return Judgement::Unproved;
            }
            // A recording does not push out one that has our answer before it can show it.
            Some(known) if known.life == hello.life || now < known.since + interval => {
                self.stale += 1;
                return Judgement::Stale;
            }
            Some(_) | None => {}
        }
        self.unproved = Some(Unproved {
            life: hello.life,
            sequence: hello.sequence,
            owned: hello.owned.clone(),
            since: now,
            until,
        });
        Judgement::New
    }

    /// Takes a hello that is believed.
    pub fn take(&mut self, now: Duration, hello: Hello, hears_us: bool) -> Taken {
        let before = self.heard.take().filter(|_| self.alive.is_some());
        let comes = (before.as_ref()).is_none_or(|(_, last)| last.life != hello.life);
        let unproved = self.unproved.take_if(|known| known.life == hello.life);
        let owned = before.into_iter().map(|(_, last)| last.owned);
        let owned = owned.chain(unproved.map(|known| known.owned)).flatten();
        let let_go = owned.filter(|vip| !hello.owned.contains(vip)).collect();
        self.willing.retain(|vip, _| hello.willing.contains(vip));
        for vip in &hello.willing {
            self.willing.entry(*vip).or_insert(now);
        }
        let comes = comes && !hello.leaving;
        self.kept = match self.kept.take() {
            _ if !hello.restart.is_zero() => Some((now + patience(&hello), hello.owned.clone())),
            Some((_, vips)) if hello.recovering && comes => Some((now + RECOVERY, vips)),
            kept => kept.filter(|_| hello.recovering),
        };
        if hello.leaving {
            self.bury();
        } else {
            self.alive.get_or_insert(now);
        }
        self.hears_us = hears_us;
        self.heard = Some((now, hello));
        Taken { comes, let_go }
    }
}

/// How long one that said this is waited for.
fn patience(hello: &Hello) -> Duration {
    let silence = hello.interval.min(MAX_INTERVAL) * MISSES;
    silence.max(hello.restart.min(MAX_RESTART))
}
