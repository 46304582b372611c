//! Why the daemon did not do what it was asked for.

use super::store::StoreError;
use lockstep_plan::PlanError;
use std::fmt;

/// Why nothing was done.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// What was asked for cannot be.
    Request(String),
    /// There is no engine to do it.
    NoEngine(String),
    /// The engine has not answered in time.
    Silent(String),
    /// The engine refused.
    Engine(String),
    /// The engine cannot do it, today or tomorrow.
    Impossible(String),
    /// The daemon cannot keep it.
    Store(StoreError),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Request(text) => f.write_str(text),
            Refusal::NoEngine(text) => write!(f, "{text}; nothing was changed"),
            Refusal::Silent(text) | Refusal::Engine(text) => {
                write!(f, "{text}; nothing was changed")
            }
            Refusal::Impossible(text) => {
                write!(f, "the engine refuses: {text}; nothing was changed")
            }
            Refusal::Store(error) => write!(f, "{error}; nothing was changed"),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Refusal::Store(error)
    }
}

/// Services that cannot stand together, as a refusal.
pub fn refused_plan(errors: &[PlanError]) -> Refusal {
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Refusal::Request(errors.join("; "))
}
