//! `[shutdown]`: how the daemon ends.

use crate::services::values::{FromText, deserialize_from_text};
use lockstep_topology::duration;
use serde::Deserialize;
use std::time::Duration;

/// How long is waited where the file says nothing.
const DEADLINE: Duration = Duration::from_secs(10);
/// The longest that can be waited.
const LONGEST: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shutdown {
    /// How long a daemon that ends waits at most for the traffic of withdrawn VIPs to end.
    pub deadline: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown { deadline: DEADLINE }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawShutdown {
    deadline: Option<Deadline>,
}

impl RawShutdown {
    pub(super) fn to_shutdown(&self) -> Shutdown {
        Shutdown {
            deadline: self.deadline.as_ref().map_or(DEADLINE, |d| d.0),
        }
    }
}

/// A time of up to [`LONGEST`].
struct Deadline(Duration);

impl FromText for Deadline {
    const WANTED: &str = "a string such as \"10s\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let time = duration::parse(text)
            .map_err(|error| format!("{text:?} is not a duration; {error}"))?;
        if time <= LONGEST {
            Ok(Deadline(time))
        } else {
            Err(format!("{text:?} is out of range; from \"0s\" to \"10m\""))
        }
    }
}

deserialize_from_text!(Deadline);
