//! Conditions, before it is known when they began.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// A condition but for when it began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Its type.
    pub kind: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// Why, in a word.
    pub reason: &'static str,
    /// Why, in a sentence; where something is wrong, with what to do.
    pub message: String,
}

impl Verdict {
    /// The condition. It began when its status last became another one.
    pub fn condition(
        self,
        known: &[Condition],
        generation: Option<i64>,
        now: Timestamp,
    ) -> Condition {
        let status = if self.holds { "True" } else { "False" };
        let mut same = known
            .iter()
            .filter(|known| known.type_ == self.kind && known.status == status);
        let since = same.next().map(|known| known.last_transition_time.clone());
        Condition {
            type_: self.kind.to_owned(),
            status: status.to_owned(),
            reason: self.reason.to_owned(),
            message: self.message,
            observed_generation: generation,
            last_transition_time: since.unwrap_or(Time(now)),
        }
    }
}
