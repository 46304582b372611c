//! The status: what all balancers have written, summed up, and what stands in the way.

use super::hive::{Hive, Replica, Standing};
use super::{Ages, child, needed, object, sessions};
use crate::kubernetes::verdict::Verdict;
use crate::kubernetes::{World, Write};
use k8s_openapi::jiff::Timestamp;
use lockstep_kubernetes::facts::Name;
use lockstep_kubernetes::resources::Dire;
use lockstep_kubernetes::resources::dire::{
    DireBalancer, DireBalancerReplica, DireReplica, DireStatus, ReplicaState,
};
use lockstep_plan::Replicate;
use serde_json::json;

/// All that a status follows from.
pub struct Situation<'a> {
    /// All objects.
    pub world: &'a World,
    /// The Dire's name.
    pub name: &'a Name,
    /// The Dire.
    pub dire: &'a Dire,
    /// Its pods.
    pub hive: &'a Hive<'a>,
    /// Its policy.
    pub policy: &'a Result<Replicate, String>,
    /// How old the balancers' parts are.
    pub ages: &'a Ages,
    /// The time.
    pub now: Timestamp,
}

/// The status as it is to be, without what the balancers write.
pub fn status(situation: &Situation<'_>) -> DireStatus {
    let Situation {
        name,
        dire,
        hive,
        ages,
        now,
        ..
    } = situation;
    let parts: Vec<&DireBalancer> = sessions::fresh(name, dire, ages).collect();
    let old = dire.status.as_ref();
    let replicas = hive.replicas().iter().map(|r| replica(r, &parts));
    let replicas: Vec<DireReplica> = replicas.collect();
    let lacks_nothing =
        |r: &&DireReplica| matches!(r.state, ReplicaState::Idle | ReplicaState::InSync);
    let synced = replicas.iter().filter(lacks_nothing).count();
    let switchovers = parts
        .iter()
        .filter_map(|part| part.last_switchover.as_ref());
    // The last one stays when its balancer is gone.
    let switchovers = switchovers.chain(old.and_then(|old| old.last_switchover.as_ref()));
    let unprotected = parts.iter().map(|part| part.unprotected).sum();
    let verdicts = [
        ready(situation),
        found(situation),
        protected(situation, synced, unprotected),
    ];
    let conditions = verdicts.into_iter();
    let known = old.map_or(&[][..], |old| &old.conditions);
    let conditions = conditions.map(|v| v.condition(known, dire.metadata.generation, *now));
    DireStatus {
        observed_generation: dire.metadata.generation,
        addresses: addresses(situation),
        synced_replicas: i32::try_from(synced).unwrap_or(i32::MAX),
        primary: primary(
            &replicas,
            &parts,
            old.and_then(|old| old.primary.as_deref()),
        ),
        sessions: parts.iter().map(|part| part.sessions).sum(),
        last_switchover: switchovers.max_by_key(|s| s.time.0).cloned(),
        balancers: Vec::new(),
        conditions: conditions.collect(),
        replicas,
    }
}

/// Writes it, where it is another one.
pub fn write(name: &Name, dire: &Dire, status: &DireStatus) -> Option<Write> {
    let there = dire.status.as_ref().map(in_order);
    (there != Some(in_order(status))).then(|| Write::Apply {
        object: object(name),
        status: true,
        body: json!({ "metadata": { "uid": dire.metadata.uid }, "status": status }),
    })
}

/// Without what balancers write. The API server keeps lists by their keys, in an order of its own.
fn in_order(status: &DireStatus) -> DireStatus {
    let mut status = DireStatus {
        balancers: Vec::new(),
        ..status.clone()
    };
    status.replicas.sort_by(|a, b| a.pod.cmp(&b.pod));
    status.conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    status
}

fn replica(replica: &Replica<'_>, parts: &[&DireBalancer]) -> DireReplica {
    let pod = &*replica.pod.name.name;
    let seen = |count: fn(&DireBalancerReplica) -> i64| seen(parts, pod).any(|r| count(r) > 0);
    let state = match replica.standing {
        Standing::Pending => ReplicaState::Pending,
        Standing::Draining => ReplicaState::Draining,
        Standing::Active if seen(|r| r.evicted) => ReplicaState::Evicted,
        Standing::Active if seen(|r| r.lagging) => ReplicaState::Lagging,
        Standing::Active if seen(|r| r.joining) => ReplicaState::Joining,
        Standing::Active if seen(|r| r.in_sync) => ReplicaState::InSync,
        Standing::Active => ReplicaState::Idle,
    };
    let mut causes = self::seen(parts, pod).filter_map(|r| r.cause.clone());
    DireReplica {
        pod: pod.to_owned(),
        address: replica.address.map(|address| address.to_string()),
        ready: replica.pod.ready,
        state,
        cause: causes.next().filter(|_| state == ReplicaState::Evicted),
    }
}

/// A pod in the eyes of each balancer.
pub fn seen<'a>(
    parts: &'a [&'a DireBalancer],
    pod: &'a str,
) -> impl Iterator<Item = &'a DireBalancerReplica> {
    let replicas = parts.iter().flat_map(|part| &part.replicas);
    replicas.filter(move |replica| replica.pod == pod)
}

/// Whose answers most sessions get; of several, the one that it was before.
fn primary(
    replicas: &[DireReplica],
    parts: &[&DireBalancer],
    before: Option<&str>,
) -> Option<String> {
    let answers = replicas.iter().map(|replica| {
        let sessions: i64 = seen(parts, &replica.pod).map(|r| r.primary).sum();
        (sessions, before == Some(replica.pod.as_str()), &replica.pod)
    });
    let most = answers.filter(|(sessions, ..)| *sessions > 0).max();
    most.map(|(_, _, pod)| pod.clone())
}

fn addresses(situation: &Situation<'_>) -> Vec<String> {
    let child = child::existing(situation.world, situation.name);
    let ingress = child.iter().flat_map(|child| &child.ingress);
    ingress.map(|ingress| ingress.address.to_string()).collect()
}

fn ready(situation: &Situation<'_>) -> Verdict {
    let Situation {
        world,
        name,
        hive,
        policy,
        ..
    } = situation;
    let verdict = |holds, reason, message| Verdict {
        kind: "Ready",
        holds,
        reason,
        message,
    };
    let child = child::name(name);
    if let Err(problem) = policy {
        return verdict(
            false,
            "PolicyInvalid",
            format!("the policy cannot be: {problem}"),
        );
    }
    if child::is_taken(world, name) {
        let message = format!(
            "Service {child} would be the one of this Dire, and belongs to somebody else: delete \
             it, or give this Dire another name"
        );
        return verdict(false, "ServiceConflict", message);
    }
    let Hive::Found { .. } = hive else {
        let message = "its Deployment is not there, see HiveFound".to_owned();
        return verdict(false, "HiveNotFound", message);
    };
    if addresses(situation).is_empty() {
        let message = format!(
            "Service {child} has no address yet: `kubectl -n {} describe service {}` says why",
            child.namespace, child.name
        );
        return verdict(false, "NoAddress", message);
    }
    let (active, needed) = (active(hive), needed(policy));
    if active < needed {
        let message = format!(
            "{active} pods are ready and sessions need {needed}: new clients are refused; see \
             `kubectl -n {} get pods`, or scale Deployment {} up",
            name.namespace, situation.dire.spec.hive_deployment_name
        );
        return verdict(false, "TooFewReplicas", message);
    }
    verdict(true, "Serving", "clients are served".to_owned())
}

fn active(hive: &Hive<'_>) -> usize {
    let replicas = hive.replicas().iter();
    replicas.filter(|r| r.standing == Standing::Active).count()
}

fn found(situation: &Situation<'_>) -> Verdict {
    let Situation {
        name, dire, hive, ..
    } = situation;
    let (namespace, hive_name) = (&name.namespace, &dire.spec.hive_deployment_name);
    let verdict = |holds, reason, message| Verdict {
        kind: "HiveFound",
        holds,
        reason,
        message,
    };
    match hive {
        Hive::Missing => verdict(
            false,
            "DeploymentNotFound",
            format!(
                "there is no Deployment {namespace}/{hive_name}: create it, or make another Dire, \
                 since hiveDeploymentName cannot be changed"
            ),
        ),
        Hive::Invalid(problem) => verdict(
            false,
            "SelectorInvalid",
            format!(
                "the selector of Deployment {namespace}/{hive_name} selects nothing: {problem}"
            ),
        ),
        Hive::Found { replicas, .. } if replicas.is_empty() => verdict(
            false,
            "NoPods",
            format!(
                "Deployment {namespace}/{hive_name} has no pods: `kubectl -n {namespace} scale \
                 deployment {hive_name} --replicas=3`, or see its events"
            ),
        ),
        Hive::Found { replicas, .. } if replicas.iter().all(|r| r.address.is_none()) => verdict(
            false,
            "NoAddresses",
            format!(
                "no pod of Deployment {namespace}/{hive_name} has an address yet: `kubectl -n \
                 {namespace} describe pods` says what they wait for"
            ),
        ),
        Hive::Found {
            beyond, replicas, ..
        } if *beyond > 0 => verdict(
            true,
            "TooManyPods",
            format!(
                "Deployment {namespace}/{hive_name} has {beyond} pods more than the {} that a \
                 session can have: they get nothing; scale it down",
                replicas.len()
            ),
        ),
        Hive::Found { .. } => verdict(
            true,
            "Found",
            format!("the pods of Deployment {namespace}/{hive_name} are the replicas"),
        ),
    }
}

fn protected(situation: &Situation<'_>, synced: usize, unprotected: i64) -> Verdict {
    let verdict = |holds, reason, message| Verdict {
        kind: "Protected",
        holds,
        reason,
        message,
    };
    let needed = needed(situation.policy);
    let hive = &situation.dire.spec.hive_deployment_name;
    if unprotected > 0 {
        let message = "sessions have fewer replicas in sync than minSync and the quorum ask for: \
                       see `lockstep sessions` on the balancers of status.balancers";
        return verdict(false, "Unprotected", message.to_owned());
    }
    if synced > needed {
        let message = "every session goes on when any one replica is lost".to_owned();
        return verdict(true, "Protected", message);
    }
    let message = format!(
        "{synced} replicas lack nothing and sessions need {needed}: the next loss is one too many; \
         see the pods in status.replicas, or scale Deployment {hive} up"
    );
    verdict(false, "TooFewReplicas", message)
}
