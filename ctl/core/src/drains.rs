//! Drains: backends that an operator takes out, laid over what `services.toml` says.
//!
//! A drain begins as [`Phase::Draining`] (the backend keeps its flows and takes no new ones). At
//! its deadline it is [`Phase::Removed`] (the backend is left out of the snapshot). It ends when
//! the operator says so, or when the backend is no longer in the file. No clock in here: the
//! caller passes the time and waits for [`Drains::next_deadline`].

use lockstep_plan::{BackendId, BackendState, Service, ServiceName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// A point in time: milliseconds since the Unix epoch. Wall-clock time, since deadlines outlive
/// the daemon's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This much later; the end of time where that is not representable.
    pub fn after(self, duration: Duration) -> Self {
        let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Timestamp(self.0.saturating_add(milliseconds))
    }

    /// The time from `earlier` to this; zero when that is in the future.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// What a clock was set by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shift {
    before: Timestamp,
    after: Timestamp,
}

impl Shift {
    /// From one time to another, earlier or later.
    pub const fn between(before: Timestamp, after: Timestamp) -> Self {
        Shift { before, after }
    }

    /// How far that is.
    pub fn size(self) -> Duration {
        let (before, after) = (self.before, self.after);
        after.since(before).max(before.since(after))
    }

    /// A time that is as far from the later one as it was from the earlier one.
    pub fn of(self, time: Timestamp) -> Timestamp {
        let shifted = time.after(self.after.since(self.before));
        Timestamp(
            shifted
                .0
                .saturating_sub(self.before.0.saturating_sub(self.after.0)),
        )
    }
}

/// A backend of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The service.
    pub service: ServiceName,
    /// The backend in it.
    pub backend: BackendId,
}

/// Where a drain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The backend takes no new flows. Without a deadline it stays like this.
    Draining {
        /// When it is removed.
        deadline: Option<Timestamp>,
    },
    /// The deadline has passed: the backend is out of the snapshot.
    Removed,
}

/// Every drain under way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drains {
    phases: BTreeMap<Target, Phase>,
}

impl Drains {
    /// Drains a backend until `deadline`, or until it is undrained. A drain under way gets the
    /// new deadline; one past its deadline stays removed, since its flows are gone already.
    pub fn drain(&mut self, target: Target, deadline: Option<Timestamp>) {
        let phase = self
            .phases
            .entry(target)
            .or_insert(Phase::Draining { deadline });
        match phase {
            Phase::Draining { .. } => *phase = Phase::Draining { deadline },
            Phase::Removed => {}
        }
    }

    /// Where the drain of a backend stands.
    pub fn phase(&self, target: &Target) -> Option<Phase> {
        self.phases.get(target).copied()
    }

    /// Ends a drain. `false` when there was none.
    pub fn undrain(&mut self, target: &Target) -> bool {
        self.phases.remove(target).is_some()
    }

    /// Removes the backends whose deadline has come, and returns them.
    pub fn advance(&mut self, now: Timestamp) -> Vec<Target> {
        let mut removed = Vec::new();
        for (target, phase) in &mut self.phases {
            match *phase {
                Phase::Draining {
                    deadline: Some(deadline),
                } if deadline <= now => {
                    *phase = Phase::Removed;
                    removed.push(target.clone());
                }
                Phase::Draining { .. } | Phase::Removed => {}
            }
        }
        removed
    }

    /// Ends the drains of backends that are not in `services` (any more), and returns them.
    pub fn retain_in(&mut self, services: &[Service]) -> Vec<Target> {
        let present: BTreeSet<(&ServiceName, BackendId)> = services
            .iter()
            .flat_map(|s| s.backends.iter().map(|b| (&s.name, b.id())))
            .collect();
        self.phases
            .extract_if(.., |target, _| {
                !present.contains(&(&target.service, target.backend))
            })
            .map(|(target, _)| target)
            .collect()
    }

    /// The file's services as they are to be in force: draining backends marked, removed ones
    /// left out. A service that replicates keeps as many backends as its policy asks for, the
    /// removed ones that it keeps draining: without them no session could go on.
    pub fn over(&self, services: &[Service]) -> Vec<Service> {
        let mut services = services.to_vec();
        for service in &mut services {
            let name = service.name.clone();
            let needed = service.mode.replicate().map_or(0, |p| p.needed());
            let mut left = service.backends.len();
            service.backends.retain_mut(|backend| {
                let target = Target {
                    service: name.clone(),
                    backend: backend.id(),
                };
                let Some(phase) = self.phases.get(&target) else {
                    return true;
                };
                backend.state = BackendState::Draining;
                match phase {
                    Phase::Draining { .. } => true,
                    Phase::Removed if left <= usize::from(needed) => true,
                    Phase::Removed => {
                        left -= 1;
                        false
                    }
                }
            });
        }
        services
    }

    /// Services of an engine as they are without these drains, but for the backends that are
    /// removed: what is laid over them later is not to stay when a drain ends.
    pub fn lift(&self, services: &[Service]) -> Vec<Service> {
        let mut services = services.to_vec();
        for service in &mut services {
            for backend in &mut service.backends {
                let target = Target {
                    service: service.name.clone(),
                    backend: backend.id(),
                };
                if self.phases.contains_key(&target) {
                    backend.state = BackendState::Active;
                }
            }
        }
        services
    }

    /// When [`Drains::advance`] next has something to do.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let deadline = |phase: &Phase| match *phase {
            Phase::Draining { deadline } => deadline,
            Phase::Removed => None,
        };
        self.phases.values().filter_map(deadline).min()
    }

    /// Every drain, ordered by service and address.
    pub fn iter(&self) -> impl Iterator<Item = (&Target, Phase)> {
        self.phases.iter().map(|(target, &phase)| (target, phase))
    }

    /// The drains as JSON, for a file that outlives the daemon.
    pub fn to_json(&self) -> String {
        let drains = self
            .phases
            .iter()
            .map(|(target, &phase)| SavedDrain::new(target, phase));
        let saved = Saved {
            version: Saved::VERSION,
            drains: drains.collect(),
        };
        serde_json::to_string_pretty(&saved).expect("strings and numbers always serialize")
    }

    /// The drains that [`Drains::to_json`] wrote.
    ///
    /// # Errors
    /// When the text is not one of those, or from a later version.
    pub fn from_json(text: &str) -> Result<Self, DrainsFileError> {
        let saved: Saved =
            serde_json::from_str(text).map_err(|error| DrainsFileError::Form(error.to_string()))?;
        if saved.version != Saved::VERSION {
            return Err(DrainsFileError::Version(saved.version));
        }
        let mut phases = BTreeMap::new();
        for drain in saved.drains {
            let service = ServiceName::new(&drain.service)
                .ok_or_else(|| DrainsFileError::Form(format!("service {:?}", drain.service)))?;
            let phase = match drain.removed {
                true => Phase::Removed,
                false => Phase::Draining {
                    deadline: drain.deadline_unix_ms,
                },
            };
            phases.insert(
                Target {
                    service,
                    backend: BackendId(drain.backend),
                },
                phase,
            );
        }
        Ok(Drains { phases })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    version: u32,
    drains: Vec<SavedDrain>,
}

impl Saved {
    const VERSION: u32 = 1;
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedDrain {
    service: String,
    backend: IpAddr,
    deadline_unix_ms: Option<Timestamp>,
    removed: bool,
}

impl SavedDrain {
    fn new(target: &Target, phase: Phase) -> Self {
        let (deadline, removed) = match phase {
            Phase::Draining { deadline } => (deadline, false),
            Phase::Removed => (None, true),
        };
        SavedDrain {
            service: target.service.as_str().to_owned(),
            backend: target.backend.0,
            deadline_unix_ms: deadline,
            removed,
        }
    }
}

/// Why saved drains cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DrainsFileError {
    /// Not the JSON that was written.
    #[error("the saved drains are damaged ({0}); delete the file and drain again")]
    Form(String),
    /// From another version of the daemon.
    #[error("the saved drains have version {0}, this daemon reads version 1; delete the file")]
    Version(u32),
}

/// Why there is nothing to drain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoTargetError {
    /// No such service.
    #[error("there is no service {name}; there are: {known}")]
    Service {
        /// The name asked for.
        name: String,
        /// The services there are.
        known: String,
    },
    /// No such backend in the services looked at.
    #[error(
        "no backend {backend} in {place}; name one by its name or address as in `lockstep status`"
    )]
    Backend {
        /// The name or address asked for.
        backend: String,
        /// Where it was looked for.
        place: String,
    },
}

/// The backends with this name or address, in every service or in one.
///
/// # Errors
/// When there is none.
pub fn find_targets(
    services: &[Service],
    backend: &str,
    service: Option<&str>,
) -> Result<Vec<Target>, NoTargetError> {
    let address: Option<IpAddr> = backend.parse().ok();
    let looked_at: Vec<&Service> = services
        .iter()
        .filter(|s| service.is_none_or(|name| s.name.as_str() == name))
        .collect();
    if let Some(name) = service
        && looked_at.is_empty()
    {
        let known: Vec<&str> = services.iter().map(|s| s.name.as_str()).collect();
        return Err(NoTargetError::Service {
            name: name.to_owned(),
            known: known.join(", "),
        });
    }
    let targets: Vec<Target> = looked_at
        .iter()
        .flat_map(|s| s.backends.iter().map(move |b| (s, b)))
        .filter(|(_, b)| b.name == backend || address == Some(b.address))
        .map(|(s, b)| Target {
            service: s.name.clone(),
            backend: b.id(),
        })
        .collect();
    if targets.is_empty() {
        let place = service.map_or_else(|| "any service".to_owned(), |s| format!("service {s}"));
        return Err(NoTargetError::Backend {
            backend: backend.to_owned(),
            place,
        });
    }
    Ok(targets)
}

#[cfg(test)]
mod tests;
