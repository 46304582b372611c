//! Whose turn it is: every backend by its next check, and what is known of each.
//!
//! Checks of one backend come a little less than its interval apart, at places that are spread
//! evenly over the interval, so that a thousand backends are not asked at once, and never more
//! than the interval apart. No clock in here: the caller passes the time, waits for
//! [`Checks::next_deadline`], carries out what [`Checks::next`] says, and tells [`Checks::note`].

use super::damping::Damping;
use super::state::{Outcome, State};
use super::{Probe, Subject, Subjects, Verdicts};
use crate::drains::{Target, Timestamp};
use lockstep_plan::health::Verdict;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Checks under way at once, at most. Where more are due they wait for one to end.
pub const LIMIT: usize = 1_024;
/// Scripts of them, at most: each is a process. More wait, are late, and hold up no other check.
pub const SCRIPTS: usize = 32;
/// One in so many of the interval: up to as much, at random, checks come early, so that several
/// balancers do not ask one backend in step.
const EARLY: f64 = 20.0;
/// The characters that are kept of what a backend did wrong.
const MAX_ERROR: usize = 200;

/// Something beside the checks that speaks against a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It has reset connections that clients had just begun.
    Resets,
    /// It has not answered connections that clients began.
    Silence,
    /// Sessions went on without it.
    Evicted,
}

impl Sign {
    /// What an operator reads.
    pub const fn text(self) -> &'static str {
        match self {
            Sign::Resets => "resets new connections of clients",
            Sign::Silence => "does not answer new connections of clients",
            Sign::Evicted => "sessions have evicted it",
        }
    }
}

/// A check that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    slot: usize,
    number: u64,
    script: bool,
}

/// A check to be carried out now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// To be given back with the outcome.
    pub ticket: Ticket,
    /// Who is asked.
    pub target: Target,
    /// What.
    pub subject: Arc<Subject>,
}

/// A verdict that is another one than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Whose.
    pub target: Target,
    /// What it was.
    pub before: Verdict,
    /// What it is.
    pub after: Verdict,
}

/// What is known of one backend.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen<'a> {
    /// Who.
    pub target: &'a Target,
    /// How it is asked.
    pub subject: &'a Subject,
    /// What holds.
    pub verdict: Verdict,
    /// Since when.
    pub since: Timestamp,
    /// Checks in a row that speak against it.
    pub against: u8,
    /// What was wrong last; empty where nothing ever was.
    pub error: &'a str,
    /// When that was.
    pub error_at: Option<Timestamp>,
    /// How long the last check that passed took.
    pub latency: Option<Duration>,
    /// When it is asked next; `None` while a check is under way.
    pub next: Option<Timestamp>,
    /// How often it went down.
    pub flaps: u64,
    /// Until when damping holds it down.
    pub held_until: Option<Timestamp>,
    /// Checks that passed.
    pub passed: u64,
    /// Checks that failed.
    pub failed: u64,
}

#[derive(Debug, Clone)]
struct Entry {
    target: Target,
    subject: Arc<Subject>,
    state: State,
    /// Where its checks are in the interval, from 0 to 1, as counted from `origin`.
    phase: f64,
    origin: Timestamp,
    /// When it is asked next, unless it is being asked.
    next: Option<Timestamp>,
    /// Raised with every check and every change of its place in the queue: what is older is void.
    number: u64,
    asked_at: Timestamp,
    error: String,
    error_at: Option<Timestamp>,
    latency: Option<Duration>,
    passed: u64,
    failed: u64,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Checks {
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    slots: BTreeMap<Target, usize>,
    /// By time, with slot and number.
    queue: BinaryHeap<Reverse<(Timestamp, usize, u64)>>,
    under_way: usize,
    /// Scripts that are due and wait for one that runs, with slot and number.
    waiting: VecDeque<(usize, u64)>,
    /// Scripts that run.
    scripts: usize,
    numbers: u64,
    damping: Damping,
    random: u64,
    /// The place of the backend that came last.
    placed: f64,
}

impl Checks {
    /// Nobody to be asked. The seed places the checks: another one on every balancer.
    pub fn new(seed: u64) -> Self {
        let mut checks = Checks {
            entries: Vec::new(),
            free: Vec::new(),
            slots: BTreeMap::new(),
            queue: BinaryHeap::new(),
            under_way: 0,
            waiting: VecDeque::new(),
            scripts: 0,
            numbers: 0,
            damping: Damping::default(),
            random: seed,
            placed: 0.0,
        };
        checks.placed = checks.random();
        checks
    }

    /// Follows exactly these. One that is asked in another way than before keeps its verdict until
    /// the new checks decide otherwise.
    pub fn follow(&mut self, now: Timestamp, subjects: &Subjects, damping: Damping) {
        self.damping = damping;
        let gone: Vec<Target> = self
            .slots
            .keys()
            .filter(|target| !subjects.contains_key(target))
            .cloned()
            .collect();
        for target in gone {
            if let Some(slot) = self.slots.remove(&target) {
                self.entries[slot] = None;
                self.free.push(slot);
            }
        }
        for (target, subject) in subjects {
            match self.slots.get(target).copied() {
                None => self.enter(now, target, subject),
                Some(slot) => self.alter(now, slot, subject),
            }
        }
    }

    fn enter(&mut self, now: Timestamp, target: &Target, subject: &Subject) {
        let phase = self.place();
        let subject = Arc::new(subject.clone());
        let soon = soon(&subject);
        let entry = Entry {
            target: target.clone(),
            state: State::new(now),
            phase,
            origin: now,
            next: None,
            number: 0,
            asked_at: now,
            error: String::new(),
            error_at: None,
            latency: None,
            passed: 0,
            failed: 0,
            subject,
        };
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.entries.push(None);
                self.entries.len() - 1
            }
        };
        self.entries[slot] = Some(entry);
        self.slots.insert(target.clone(), slot);
        self.queue(slot, now.after(soon.mul_f64(phase)));
    }

    fn alter(&mut self, now: Timestamp, slot: usize, subject: &Subject) {
        let Some(entry) = &mut self.entries[slot] else {
            return;
        };
        if *entry.subject == *subject {
            return;
        }
        entry.subject = Arc::new(subject.clone());
        entry.state.against = 0;
        entry.origin = now;
        let at = now.after(soon(&entry.subject).mul_f64(entry.phase));
        // A check under way asks the old question: its answer is void.
        self.queue(slot, at);
    }

    /// When [`Checks::next`] has something to say.
    pub fn next_deadline(&mut self) -> Option<Timestamp> {
        if self.under_way >= LIMIT {
            return None;
        }
        self.drop_void();
        if self.scripts < SCRIPTS
            && let Some((slot, _)) = self.waiting.front()
        {
            return self.entries[*slot].as_ref()?.next;
        }
        self.queue.peek().map(|Reverse((at, _, _))| *at)
    }

    /// The next check that is due, which is then under way.
    pub fn next(&mut self, now: Timestamp) -> Option<Order> {
        let (slot, script) = self.due(now)?;
        self.numbers += 1;
        let number = self.numbers;
        let entry = self.entries[slot].as_mut()?;
        entry.next = None;
        entry.number = number;
        entry.asked_at = now;
        self.under_way += 1;
        self.scripts += usize::from(script);
        Some(Order {
            ticket: Ticket {
                slot,
                number,
                script,
            },
            target: entry.target.clone(),
            subject: Arc::clone(&entry.subject),
        })
    }

    /// Who is asked next, and whether by a script: the first one that is due and may begin.
    fn due(&mut self, now: Timestamp) -> Option<(usize, bool)> {
        while self.next_deadline()? <= now {
            if self.scripts < SCRIPTS
                && let Some((slot, _)) = self.waiting.pop_front()
            {
                return Some((slot, true));
            }
            let Reverse((_, slot, number)) = self.queue.pop()?;
            let probe = &self.entries[slot].as_ref()?.subject.check.probe;
            let script = matches!(probe, Probe::Script { .. });
            if !script || self.scripts < SCRIPTS {
                return Some((slot, script));
            }
            self.waiting.push_back((slot, number));
        }
        None
    }

    /// What became of a check. Each that [`Checks::next`] gave has to come back once, also where
    /// nobody is interested any more. Returns the change, where there is one.
    pub fn note(&mut self, now: Timestamp, ticket: Ticket, outcome: &Outcome) -> Option<Change> {
        self.under_way = self.under_way.saturating_sub(1);
        self.scripts = (self.scripts).saturating_sub(usize::from(ticket.script));
        let damping = self.damping;
        let entry = self.entries.get_mut(ticket.slot)?.as_mut()?;
        if entry.number != ticket.number {
            return None;
        }
        let before = entry.state.verdict;
        entry.state.note(now, &entry.subject.pace, damping, outcome);
        match outcome {
            Outcome::Passed(latency) => {
                entry.latency = Some(*latency);
                entry.passed += 1;
            }
            Outcome::Failed(why) => {
                entry.failed += 1;
                entry.complain(now, why);
            }
            Outcome::Unasked(why) => entry.complain(now, why),
        }
        let (after, target) = (entry.state.verdict, entry.target.clone());
        let at = self.next_check(now, ticket.slot)?;
        self.queue(ticket.slot, at);
        (before != after).then_some(Change {
            target,
            before,
            after,
        })
    }

    /// Something beside the checks speaks against a backend: it is asked soon.
    pub fn suspect(&mut self, now: Timestamp, target: &Target, sign: Sign) {
        let Some(&slot) = self.slots.get(target) else {
            return;
        };
        let Some(entry) = &mut self.entries[slot] else {
            return;
        };
        entry.state.suspect(&entry.subject.pace);
        entry.complain(now, sign.text());
        // Not more often than in a hurry, however much is seen.
        let earliest = entry.asked_at.after(entry.subject.pace.fast_interval);
        let at = earliest.max(now);
        if entry.next.is_some_and(|next| next > at) {
            self.queue(slot, at);
        }
    }

    /// The verdicts, of those that have one.
    pub fn verdicts(&self) -> Verdicts {
        let known = self.entries.iter().flatten();
        known
            .filter(|entry| entry.state.verdict != Verdict::Unknown)
            .map(|entry| (entry.target.clone(), entry.state.verdict))
            .collect()
    }

    /// What is known of each, by service and address.
    pub fn seen(&self, now: Timestamp) -> impl Iterator<Item = Seen<'_>> {
        let entries = self
            .slots
            .values()
            .filter_map(|&s| self.entries[s].as_ref());
        entries.map(move |entry| Seen {
            target: &entry.target,
            subject: &entry.subject,
            verdict: entry.state.verdict,
            since: entry.state.since,
            against: entry.state.against,
            error: &entry.error,
            error_at: entry.error_at,
            latency: entry.latency,
            next: entry.next,
            flaps: entry.state.flaps,
            held_until: entry.state.held_until(now, self.damping),
            passed: entry.passed,
            failed: entry.failed,
        })
    }

    /// How many are followed.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// When a backend is asked again that was asked just now.
    fn next_check(&mut self, now: Timestamp, slot: usize) -> Option<Timestamp> {
        let early = self.random();
        let entry = self.entries[slot].as_ref()?;
        let pace = &entry.subject.pace;
        if entry.state.is_changing(pace) {
            return Some(entry.asked_at.after(pace.fast_interval).max(now));
        }
        // Places are a little less than the interval apart, each check is up to as much earlier:
        // two are never further apart than the interval.
        let interval = pace.interval.as_secs_f64() * 1_000.0;
        let most = interval / EARLY;
        let apart = interval - most;
        let offset = entry.origin.0 as f64 + entry.phase * apart;
        // Not the place of the check that has just been.
        let after = entry.asked_at.0 as f64 + most + 1.0;
        let place = ((after - offset) / apart).floor() + 1.0;
        let at = Timestamp((place * apart + offset - early * most) as u64);
        Some(at.max(now))
    }

    fn queue(&mut self, slot: usize, at: Timestamp) {
        self.numbers += 1;
        if let Some(entry) = &mut self.entries[slot] {
            entry.number = self.numbers;
            entry.next = Some(at);
            self.queue.push(Reverse((at, slot, self.numbers)));
        }
    }

    /// Takes what is void from the head of the queue. Every entry has one place in it that is not,
    /// and each of its void ones came from a change, so that the queue stays short.
    fn drop_void(&mut self) {
        let entries = &self.entries;
        let is_void = |slot: usize, number: u64| {
            let entry = entries[slot].as_ref();
            entry.is_none_or(|entry| entry.number != number)
        };
        while let Some(Reverse((_, slot, number))) = self.queue.peek()
            && is_void(*slot, *number)
        {
            self.queue.pop();
        }
        while let Some((slot, number)) = self.waiting.front()
            && is_void(*slot, *number)
        {
            self.waiting.pop_front();
        }
    }

    /// A place between 0 and 1 for one more: multiples of the golden ratio divide a circle evenly
    /// however many there are (Steinhaus' three-gap theorem).
    fn place(&mut self) -> f64 {
        const GOLDEN: f64 = 0.618_033_988_749_894_9;
        self.placed = (self.placed + GOLDEN).fract();
        self.placed
    }

    /// From 0 to 1 (SplitMix64).
    fn random(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The first check of all comes within this: an interval as it is between places, and a second.
fn soon(subject: &Subject) -> Duration {
    let apart = subject.pace.interval.mul_f64(1.0 - 1.0 / EARLY);
    apart.min(Duration::from_secs(1))
}

impl Entry {
    fn complain(&mut self, now: Timestamp, why: &str) {
        self.error.clear();
        self.error.extend(why.chars().take(MAX_ERROR));
        self.error_at = Some(now);
    }
}

#[cfg(test)]
mod tests;
