//! `stopEvicted`: the pod of a replica that is out for good is deleted, so that its Deployment makes
//! another one. Seed 000 left such pods running, as "graceful-shutdown of disabled endpoints".

use super::hive::{Hive, Standing};
use super::{child, object};
use crate::kubernetes::write::{Event, Kind, Object};
use crate::kubernetes::{World, Write};
use lockstep_kubernetes::facts::{Name, Pod};
use lockstep_kubernetes::resources::Dire;
use lockstep_kubernetes::resources::dire::{DireBalancer, ReplicaState};

/// Deletes one such pod: when no other one is on its way out or in, and somebody else has what its
/// sessions need. What counts is the status as it is written: eviction was told of before.
pub fn write(world: &World, name: &Name, dire: &Dire, hive: &Hive<'_>) -> Vec<Write> {
    let (Some(status), Some(uid)) = (&dire.status, &dire.metadata.uid) else {
        return Vec::new();
    };
    if !dire.spec.stop_evicted || child::existing(world, name).is_none() {
        return Vec::new();
    }
    let Hive::Found {
        wanted, replicas, ..
    } = hive
    else {
        return Vec::new();
    };
    let staying = replicas.iter().filter(|r| !r.pod.deleting);
    let on_its_way = replicas.iter().any(|r| r.pod.deleting)
        || staying.count() < usize::try_from(*wanted).unwrap_or(0);
    if on_its_way {
        return Vec::new();
    }
    let evicted = replicas.iter().find_map(|replica| {
        let known = status.replicas.iter();
        let mut known = known.filter(|known| *known.pod == *replica.pod.name.name);
        let known = known.next()?;
        let may = replica.standing == Standing::Active
            && is_made_by(replica.pod, &dire.spec.hive_deployment_name)
            && known.state == ReplicaState::Evicted
            && can_spare(&status.balancers, replica.pod, hive);
        may.then(|| (replica.pod, known.cause.clone()))
    });
    let Some((pod, cause)) = evicted else {
        return Vec::new();
    };
    let cause = cause.unwrap_or_else(|| "no cause is known".to_owned());
    vec![
        Write::Delete {
            object: Object {
                kind: Kind::Pod,
                name: pod.name.clone(),
            },
            uid: pod.uid.clone(),
        },
        Write::Event(Event {
            about: object(name),
            uid: uid.clone(),
            warning: false,
            reason: "ReplicaStopped",
            action: "StopEvicted",
            note: format!(
                "deleted pod {}, whose replica was out of a session for good: {cause}",
                pod.name.name
            ),
        }),
    ]
}

/// Whether it is a Deployment's, and not only labelled as if it were: nothing else would be made anew.
fn is_made_by(pod: &Pod, deployment: &str) -> bool {
    let set = pod.replica_set.as_deref();
    let rest = set.and_then(|set| set.strip_prefix(deployment));
    let hash = rest.and_then(|rest| rest.strip_prefix('-'));
    hash.is_some_and(|hash| !hash.contains('-'))
}

/// Whether no session needs it, and another pod is in sync wherever it is. Also what a balancer said
/// that has not been heard of for a while counts: it may be cut off and serve on.
fn can_spare(balancers: &[DireBalancer], pod: &Pod, hive: &Hive<'_>) -> bool {
    let serves = |name: &str| {
        let mut replicas = hive.replicas().iter();
        replicas.any(|r| *r.pod.name.name == *name && r.standing == Standing::Active)
    };
    balancers.iter().all(|balancer| {
        let own = balancer.replicas.iter();
        let mut own = own.filter(|r| *r.pod == *pod.name.name);
        let needed = own.next().is_some_and(|r| r.needed > 0);
        let mut others = balancer.replicas.iter();
        let other = others.any(|r| *r.pod != *pod.name.name && r.in_sync > 0 && serves(&r.pod));
        !needed && (other || balancer.sessions == 0)
    })
}
