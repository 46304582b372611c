//! Who of several daemons decides and writes: the one that holds a Lease.
//!
//! As client-go does it. Every daemon looks at the Lease now and then; one that has not been
//! written for its duration, *by this daemon's own monotonic clock since it saw it last change*, is
//! free. Times that stand in the Lease are for people: no two clocks have to agree, and a jump of
//! a wall clock changes nothing. A holder that has not renewed for `renew_deadline` stops to be one
//! before any other may take the Lease, since the others count at least `duration` from a moment
//! after its last renewal.

use std::time::Duration;

/// How long everything takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A Lease that does not change for so long is free.
    pub duration: Duration,
    /// A holder that could not renew for so long is none any more.
    pub renew_deadline: Duration,
    /// From one look or renewal to the next.
    pub retry: Duration,
}

impl Default for Timing {
    /// What the components of Kubernetes use.
    fn default() -> Self {
        Timing {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// A Lease as it stands at the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The daemon that holds it; empty where one has let it go.
    pub holder: String,
    /// How often it has changed hands.
    pub transitions: i32,
    /// Its `resourceVersion`: another one after every write, whoever wrote.
    pub version: String,
}

/// What is to be done with the API server. The answer comes by [`Machine::answer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing until then.
    Wait(Duration),
    /// Read it.
    Get,
    /// Make it, with this daemon as holder.
    Create,
    /// Replace this version of it, and no other.
    Update {
        /// The version.
        version: String,
        /// Whether this daemon holds it already, and only says so again.
        renews: bool,
        /// How often it has changed hands then.
        transitions: i32,
    },
}

/// What the API server has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Step::Get`]: how it is. To the others: how it is now that it was written.
    Is(Lease),
    /// There is none.
    Missing,
    /// Somebody else has written it.
    Conflict,
    /// No answer, or an error.
    Failed,
}

/// See the module.
#[derive(Debug)]
pub struct Machine {
    me: String,
    timing: Timing,
    /// The Lease as it was last seen, and when that version was seen first.
    seen: Option<(Lease, Duration)>,
    /// Whether there is certainly none.
    missing: bool,
    /// Whether what was seen last is old: somebody wrote in between.
    stale: bool,
    /// When the last renewal that succeeded was begun.
    renewed: Option<Duration>,
    /// The step under way, and when it was begun.
    pending: Option<(Step, Duration)>,
    /// When the next step is due.
    due: Duration,
}

impl Machine {
    /// For a daemon of this name, which no other process ever has.
    pub fn new(me: String, timing: Timing) -> Self {
        Machine {
            me,
            timing,
            seen: None,
            missing: false,
            stale: true,
            renewed: None,
            pending: None,
            due: Duration::ZERO,
        }
    }

    /// Who holds the Lease, as far as is known.
    pub fn holder(&self) -> Option<&str> {
        let (lease, _) = self.seen.as_ref()?;
        Some(lease.holder.as_str()).filter(|holder| !holder.is_empty())
    }

    /// Until when this daemon holds it, if nothing follows; `None` where it does not.
    pub fn holds_until(&self) -> Option<Duration> {
        Some(self.renewed? + self.timing.renew_deadline)
    }

    /// Whether this daemon holds it.
    pub fn holds(&self, now: Duration) -> bool {
        self.holds_until().is_some_and(|until| now < until)
    }

    /// What is to be done now. A step is given once; until it is answered there is nothing to do.
    pub fn next(&mut self, now: Duration) -> Step {
        if let Some((_, begun)) = &self.pending {
            return Step::Wait(*begun + self.timing.renew_deadline);
        }
        if now < self.due {
            return Step::Wait(self.due);
        }
        let step = self.decide(now);
        match step {
            Step::Wait(until) => self.due = until,
            _ => self.pending = Some((step.clone(), now)),
        }
        step
    }

    fn decide(&self, now: Duration) -> Step {
        if self.missing {
            return Step::Create;
        }
        let Some((lease, _)) = self.seen.as_ref().filter(|_| !self.stale) else {
            return Step::Get;
        };
        let renews = lease.holder == self.me;
        if !renews && !self.is_free(now) {
            return Step::Get;
        }
        Step::Update {
            version: lease.version.clone(),
            renews,
            transitions: lease.transitions + i32::from(!renews),
        }
    }

    /// Whether another's Lease has not changed for its duration, or was let go.
    fn is_free(&self, now: Duration) -> bool {
        self.seen.as_ref().is_some_and(|(lease, at)| {
            lease.holder.is_empty() || now.saturating_sub(*at) >= self.timing.duration
        })
    }

    /// What came of the last step.
    pub fn answer(&mut self, now: Duration, answer: Answer) {
        let Some((step, begun)) = self.pending.take() else {
            return;
        };
        let writes = matches!(step, Step::Create | Step::Update { .. });
        self.missing = answer == Answer::Missing;
        // Whatever went wrong with a write, the Lease may be another one now.
        self.stale = !matches!(answer, Answer::Is(_));
        self.due = now + self.timing.retry;
        match answer {
            Answer::Is(lease) => {
                let mine = lease.holder == self.me;
                self.see(lease, now);
                match (writes, mine) {
                    (true, true) => self.renewed = Some(begun),
                    (false, true) => {}
                    // Another holds it: there is nothing left of what was renewed.
                    (_, false) => self.renewed = None,
                }
                // What was read is acted upon at once.
                if !writes && (mine || self.is_free(now)) {
                    self.due = now;
                } else if !writes {
                    self.stale = true;
                }
            }
            // It is made at once.
            Answer::Missing => {
                self.renewed = None;
                self.seen = None;
                self.due = now;
            }
            // Somebody was faster; whether that is a holder is to be seen.
            Answer::Conflict => self.due = now,
            Answer::Failed => {}
        }
    }

    fn see(&mut self, lease: Lease, now: Duration) {
        let known = self.seen.take();
        let at = match known {
            Some((known, at)) if known.version == lease.version => at,
            _ => now,
        };
        self.seen = Some((lease, at));
    }

    /// Lets go: the version to replace by one without a holder. `None` where there is nothing to
    /// let go. This daemon does not hold it any more from now on.
    pub fn release(&mut self, now: Duration) -> Option<Lease> {
        let held = self.holds(now);
        self.renewed = None;
        self.pending = None;
        let (lease, _) = self.seen.as_ref()?;
        (held && lease.holder == self.me).then(|| lease.clone())
    }
}

#[cfg(test)]
mod tests;
