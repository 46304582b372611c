//! What is told of a `Dire`: each change of its status that somebody will ask about, once.

use super::object;
use crate::kubernetes::Write;
use crate::kubernetes::write::Event;
use lockstep_kubernetes::facts::Name;
use lockstep_kubernetes::resources::Dire;
use lockstep_kubernetes::resources::dire::{DireStatus, ReplicaState};

/// What to tell of, when this status is written in the place of the one that is there.
pub fn events(name: &Name, dire: &Dire, status: &DireStatus) -> Vec<Write> {
    let Some(uid) = dire.metadata.uid.clone() else {
        return Vec::new();
    };
    let nothing = DireStatus::default();
    let before = dire.status.as_ref().unwrap_or(&nothing);
    let mut told = switchover(before, status);
    told.extend(replicas(before, status));
    told.extend(conditions(before, status));
    let told = told.into_iter().map(|(warning, reason, action, note)| {
        Write::Event(Event {
            about: object(name),
            uid: uid.clone(),
            warning,
            reason,
            action,
            note,
        })
    });
    told.collect()
}

type Told = (bool, &'static str, &'static str, String);

fn switchover(before: &DireStatus, now: &DireStatus) -> Vec<Told> {
    let last = now.last_switchover.as_ref();
    let last = last.filter(|last| {
        let known = before.last_switchover.as_ref();
        known.is_none_or(|known| known.time.0 < last.time.0)
    });
    let told = last.map(|last| {
        let note = format!(
            "{} is primary in the place of {}: {}",
            last.to, last.from, last.cause
        );
        (false, "SwitchedOver", "SwitchOver", note)
    });
    told.into_iter().collect()
}

fn replicas(before: &DireStatus, now: &DireStatus) -> Vec<Told> {
    let told = now.replicas.iter().filter_map(|replica| {
        let known = before.replicas.iter().find(|old| old.pod == replica.pod);
        let known = known.map(|old| old.state);
        let pod = &replica.pod;
        match (known, replica.state) {
            (Some(ReplicaState::Evicted), ReplicaState::Evicted) => None,
            (_, ReplicaState::Evicted) => {
                let cause = replica.cause.as_deref().unwrap_or("no cause is known");
                let note = format!("{pod} is out of a session for good: {cause}");
                Some((true, "ReplicaEvicted", "Evict", note))
            }
            // Some are fed so quickly that nobody sees it; the sessions were there before them.
            (known, ReplicaState::InSync)
                if known != Some(ReplicaState::InSync)
                    && (before.sessions > 0 || known.is_some_and(was_fed)) =>
            {
                let note = format!("{pod} is in sync in every session that it is in");
                Some((false, "ReplicaJoined", "Join", note))
            }
            _ => None,
        }
    });
    told.collect()
}

/// Whether a replica in this state is in sessions, but not in sync.
fn was_fed(state: ReplicaState) -> bool {
    match state {
        ReplicaState::Joining | ReplicaState::Lagging | ReplicaState::Evicted => true,
        ReplicaState::Idle
        | ReplicaState::InSync
        | ReplicaState::Draining
        | ReplicaState::Pending => false,
    }
}

fn conditions(before: &DireStatus, now: &DireStatus) -> Vec<Told> {
    let told = now.conditions.iter().filter_map(|condition| {
        let mut known = before.conditions.iter();
        let known = known.find(|old| old.type_ == condition.type_);
        let same = known.is_some_and(|old| {
            (&old.status, &old.reason) == (&condition.status, &condition.reason)
        });
        let lost = condition.status != "True" && !same;
        match (condition.type_.as_str(), condition.reason.as_str()) {
            ("HiveFound", _) if lost => {
                Some((true, "HiveNotFound", "FindHive", condition.message.clone()))
            }
            ("Ready", "PolicyInvalid" | "ServiceConflict") if lost => {
                Some((true, "NotServed", "Serve", condition.message.clone()))
            }
            ("Protected", "Unprotected") if lost => {
                Some((true, "Unprotected", "Protect", condition.message.clone()))
            }
            _ => None,
        }
    });
    told.collect()
}
