//! Checks backends, and tells the actor what it has found.
//!
//! What is asked when, and what the answers mean, is decided by [`Checks`]; in here backends are
//! asked: one file a kind of question.

use super::actor::{Event, until};
use super::clock::Clock;
use super::parts::{Ending, Wires};
use ask::Asker;
use lockstep_ctl_core::checks::{Change, Checks, Order, Outcome, Seen, Sign, Ticket};
use lockstep_plan::health::Verdict;
use signs::Found;
use std::collections::HashMap;
use std::mem::replace;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

mod ask;
mod grpc;
mod http;
mod icmp;
mod report;
mod script;
mod signs;
mod socket;
mod tcp;
mod tls;
mod tunnel;
mod udp;

/// Signs that wait to be looked at. Whoever finds more waits.
const SIGNS: usize = 64;

/// From one report for the command line to the next, where no verdict changes.
const REPORT: Duration = Duration::from_millis(200);
/// With more backends than this a report is made a fifth as often.
const MANY: usize = 5_000;

/// Checks what it is told to, until the daemon ends.
pub async fn run(mut wires: Wires) {
    let mut part = Part::new(&wires);
    let (events, mut ending) = (wires.events.clone(), wires.ending.clone());
    let mut ended = pin!(async move {
        // A sender that is gone means the same.
        let _ = ending.wait_for(|e| *e != Ending::Running).await;
    });
    let (found, mut signs) = mpsc::channel(SIGNS);
    let (watching, watched) = watch::channel(false);
    let mut helpers = JoinSet::new();
    helpers.spawn(signs::follow(wires.engine.clone(), watched, found));
    let mut reports = interval(REPORT);
    reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let due = part.checks.next_deadline();
        let due = due.and_then(|due| part.clock.instant(due));
        tokio::select! {
            () = &mut ended => return,
            changed = wires.subjects.changed() => {
                if changed.is_err() {
                    return;
                }
                part.follow(&mut wires);
            }
            changed = wires.config.changed() => {
                if changed.is_err() {
                    return;
                }
                part.asker = Arc::new(part.asker.under(&wires.config.borrow_and_update()));
                part.follow(&mut wires);
            }
            () = until(due) => part.ask(),
            Some(done) = part.asking.join_next_with_id() => {
                part.note(done);
                while let Some(done) = part.asking.try_join_next_with_id() {
                    part.note(done);
                }
            }
            // All that came in while the actor was busy are one event.
            permit = events.reserve(), if part.changed => {
                let Ok(permit) = permit else { return };
                permit.send(Event::Checked(part.checks.verdicts()));
                part.changed = false;
                part.report(&wires);
            }
            Some(found) = signs.recv() => part.suspect(found),
            _ = reports.tick() => {
                watching.send_if_modified(|w| replace(w, !part.checks.is_empty()) == part.checks.is_empty());
                part.report_in_turn(&wires);
            }
        }
    }
}

struct Part {
    clock: Clock,
    checks: Checks,
    asker: Arc<Asker>,
    asking: JoinSet<(Ticket, Outcome)>,
    /// The tickets of those that are being asked: a task that panics brings none back.
    tickets: HashMap<Id, Ticket>,
    /// Whether the actor is still to hear of a verdict.
    changed: bool,
    /// Whether anybody was checked at the last report.
    reported: bool,
    /// Reports that were due so far.
    ticks: u64,
}

impl Part {
    fn new(wires: &Wires) -> Self {
        Part {
            clock: Clock::start(),
            checks: Checks::new(rand::random()),
            asker: Arc::new(Asker::new(&wires.config.borrow())),
            asking: JoinSet::new(),
            tickets: HashMap::new(),
            changed: false,
            reported: false,
            ticks: 0,
        }
    }

    fn follow(&mut self, wires: &mut Wires) {
        let damping = wires.config.borrow().health.damping();
        let subjects = Arc::clone(&wires.subjects.borrow_and_update());
        self.checks.follow(self.clock.now(), &subjects, damping);
    }

    /// Asks everybody whose turn it is.
    fn ask(&mut self) {
        while let Some(order) = self.checks.next(self.clock.now()) {
            let Order {
                ticket,
                target,
                subject,
            } = order;
            let asker = Arc::clone(&self.asker);
            let task = async move { (ticket, asker.ask(&target, &subject).await) };
            let handle = self.asking.spawn(task);
            self.tickets.insert(handle.id(), ticket);
        }
    }

    fn note(&mut self, done: Result<(Id, (Ticket, Outcome)), JoinError>) {
        let (ticket, outcome) = match done {
            Ok((id, answer)) => {
                self.tickets.remove(&id);
                answer
            }
            Err(error) => {
                let Some(ticket) = self.tickets.remove(&error.id()) else {
                    return;
                };
                tracing::error!("a check has ended by itself: {error}");
                (ticket, Outcome::Unasked("a bug of lockstepd".to_owned()))
            }
        };
        if let Some(change) = self.checks.note(self.clock.now(), ticket, &outcome) {
            say(&change, &outcome);
            self.changed = true;
        }
    }

    fn suspect(&mut self, found: Found) {
        let now = self.clock.now();
        match found {
            Found::Of(target, sign) => self.checks.suspect(now, &target, sign),
            Found::OfReplica(service, name) => {
                let of =
                    |seen: &Seen<'_>| seen.target.service == service && seen.subject.name == name;
                let target = self.checks.seen(now).find(of).map(|s| s.target.clone());
                if let Some(target) = target {
                    self.checks.suspect(now, &target, Sign::Evicted);
                }
            }
        }
    }

    fn report_in_turn(&mut self, wires: &Wires) {
        self.ticks += 1;
        if self.checks.len() <= MANY || self.ticks.is_multiple_of(5) {
            self.report(wires);
        }
    }

    fn report(&mut self, wires: &Wires) {
        if self.checks.is_empty() && !self.reported {
            return;
        }
        self.reported = !self.checks.is_empty();
        let now = self.clock.now();
        let reply = report::reply(&self.checks, now);
        wires.reports.health.send_replace(reply);
    }
}

fn say(change: &Change, outcome: &Outcome) {
    let (service, backend) = (&change.target.service, change.target.backend);
    match (change.after, outcome) {
        (Verdict::Down, Outcome::Failed(why)) => {
            tracing::warn!(%service, %backend, "backend is down: {why}");
        }
        (after, _) => tracing::info!(%service, %backend, "backend is {}", after.name()),
    }
}
