//! What outcomes make of one backend.

use super::damping::{Damping, Penalty};
use super::pace::Pace;
use crate::drains::Timestamp;
use lockstep_plan::health::Verdict;
use std::time::Duration;

/// What became of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The backend answered as it should, after this time.
    Passed(Duration),
    /// It did not; what exactly, for the operator.
    Failed(String),
    /// It could not be asked, for a reason that lies on this side: what is held of it stays.
    Unasked(String),
}

/// One backend between its checks. It begins as [`Verdict::Unknown`], which serves; its first
/// check decides alone, so that a daemon that starts beside a dead backend soon knows.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct State {
    pub(super) verdict: Verdict,
    /// Outcomes in a row that speak against the verdict.
    pub(super) against: u8,
    /// When the verdict became what it is.
    pub(super) since: Timestamp,
    /// How often it went down.
    pub(super) flaps: u64,
    penalty: Penalty,
}

impl State {
    pub(super) fn new(now: Timestamp) -> Self {
        State {
            verdict: Verdict::Unknown,
            against: 0,
            since: now,
            flaps: 0,
            penalty: Penalty::default(),
        }
    }

    /// One more outcome. Exhaustive: every verdict under every outcome.
    pub(super) fn note(
        &mut self,
        now: Timestamp,
        pace: &Pace,
        damping: Damping,
        outcome: &Outcome,
    ) {
        match (self.verdict, outcome) {
            (Verdict::Unknown, Outcome::Passed(_)) => self.turn(Verdict::Up, now),
            (Verdict::Unknown, Outcome::Failed(_)) => self.fall(now, damping),
            (Verdict::Up, Outcome::Passed(_)) => self.against = 0,
            (Verdict::Up, Outcome::Failed(_)) => {
                self.against = self.against.saturating_add(1);
                if self.against >= pace.fall {
                    self.fall(now, damping);
                }
            }
            (Verdict::Down, Outcome::Passed(_)) => {
                self.against = self.against.saturating_add(1);
                if self.against >= pace.rise && self.held_until(now, damping).is_none() {
                    self.penalty.release();
                    self.turn(Verdict::Up, now);
                }
            }
            (Verdict::Down, Outcome::Failed(_)) => self.against = 0,
            // It says nothing about the backend: what is held of it stays.
            (Verdict::Unknown | Verdict::Up | Verdict::Down, Outcome::Unasked(_)) => {}
        }
    }

    /// Something beside the checks speaks against it. It counts as a failed check, but never as
    /// the last one: forged packets alone take nobody out.
    pub(super) fn suspect(&mut self, pace: &Pace) {
        match self.verdict {
            Verdict::Up => {
                let most = pace.fall.saturating_sub(1);
                self.against = self.against.saturating_add(1).min(most);
            }
            Verdict::Unknown | Verdict::Down => {}
        }
    }

    /// Whether outcomes speak against the verdict, or none is there yet. One that is held down
    /// by damping is in no hurry.
    pub(super) fn is_changing(&self, pace: &Pace) -> bool {
        match self.verdict {
            Verdict::Unknown => true,
            Verdict::Up => self.against > 0,
            Verdict::Down => (1..pace.rise).contains(&self.against),
        }
    }

    /// Until when damping holds it down.
    pub(super) fn held_until(&self, now: Timestamp, damping: Damping) -> Option<Timestamp> {
        match self.verdict {
            Verdict::Down => self.penalty.held_until(damping, now),
            Verdict::Unknown | Verdict::Up => None,
        }
    }

    fn fall(&mut self, now: Timestamp, damping: Damping) {
        // The first check of all is no flap.
        if self.verdict == Verdict::Up {
            self.flaps += 1;
            self.penalty.flap(damping, now);
        }
        self.turn(Verdict::Down, now);
    }

    fn turn(&mut self, verdict: Verdict, now: Timestamp) {
        self.verdict = verdict;
        self.against = 0;
        self.since = now;
    }
}

#[cfg(test)]
mod tests;
