//! The Services of a Kubernetes cluster, beside those of `services.toml`.
//!
//! The API server's watches are followed into what is known of the cluster ([`watch`]); one task
//! owns that ([`provider`]) and tells the actor what follows from it. Where this daemon is the
//! leader ([`leader`]), what is to stand in the objects is written there ([`writer`]). Neither the
//! API server's absence nor the loss of the lead ends anything that is served; what the cluster
//! said last is kept on disk ([`keep`]). It has a thread of its own: a long list holds up nothing else.

use super::apart;
use super::parts::{Ending, Wires};
use client::{Cluster, connect};
use lockstep_api::KubernetesReply;
use lockstep_ctl_core::config::Config;
use lockstep_ctl_core::config::kubernetes::Kubernetes;
use lockstep_ctl_core::kubernetes::lease::Timing;
use provider::{Channels, Lasting, Provider};
use std::time::Duration;
use tokio::sync::{oneshot, watch as channel};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

pub(crate) mod client;
mod decide;
mod dire;
mod events;
mod health;
mod keep;
mod known;
mod latency;
mod leader;
mod left;
mod provider;
mod report;
mod watch;
mod writer;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod rights;
#[cfg(test)]
mod tests;

/// When what failed at the start is tried again.
const AGAIN: Duration = Duration::from_secs(3);

/// Credentials that are not accepted for so long are read again.
const RENEW: Duration = Duration::from_secs(10);

/// How long the Lease may take to be let go.
const GOODBYE: Duration = Duration::from_millis(1_500);

/// Follows the cluster of the configuration, until the daemon ends.
pub async fn run(wires: Wires) {
    apart::run("kubernetes", || follow(wires)).await;
}

/// What is to be followed, of the daemon's settings: the cluster, and the balancer's name.
fn wanted(config: &Config) -> Option<(Kubernetes, Option<String>)> {
    let kubernetes = config.kubernetes.clone()?;
    Some((kubernetes, config.operation.name.clone()))
}

/// Follows while there is a section for it, anew whenever it changes.
async fn follow(mut wires: Wires) {
    let mut lasting = Lasting::default();
    let mut said = String::new();
    loop {
        let now = wanted(&wires.config.borrow_and_update());
        let Some((settings, name)) = now.clone() else {
            let nothing = KubernetesReply::default();
            wires.reports.kubernetes.send_replace(nothing);
            if wait(&mut wires, &now, None).await {
                return;
            }
            continue;
        };
        let cluster = match connect(&settings, name.as_deref()).await {
            Ok(cluster) => cluster,
            Err(problem) => {
                // Once a reason, not once a try.
                if problem != said {
                    tracing::error!("kubernetes: {problem}");
                    said.clone_from(&problem);
                }
                let reply = report::without(&settings, problem);
                wires.reports.kubernetes.send_replace(reply);
                if wait(&mut wires, &now, Some(AGAIN)).await {
                    return;
                }
                continue;
            }
        };
        said.clear();
        tracing::info!(
            server = %cluster.server,
            node = cluster.node.as_deref().unwrap_or_default(),
            "kubernetes: follows the cluster"
        );
        let meter = cluster.meter.clone();
        let mut until = wires.clone();
        let ends = async {
            tokio::select! {
                ended = wait(&mut until, &now, None) => ended,
                // The file that the credentials come from may be another one by now.
                () = meter.is_unknown(RENEW) => false,
            }
        };
        let ended = attend(cluster, settings, &wires, &mut lasting, ends).await;
        let metered = meter.read();
        let counted = (metered.answered, metered.refused, metered.failed);
        lasting.past.add_requests(counted);
        if ended {
            return;
        }
    }
}

/// Waits for other settings, or this long. Returns whether the daemon ends.
async fn wait(
    wires: &mut Wires,
    these: &Option<(Kubernetes, Option<String>)>,
    longest: Option<Duration>,
) -> bool {
    let (config, ending) = (&mut wires.config, &mut wires.ending);
    let changes = config.wait_for(|config| wanted(config) != *these);
    tokio::select! {
        changed = changes => changed.is_err(),
        _ = ending.wait_for(|ending| *ending != Ending::Running) => true,
        () = sleep(longest.unwrap_or(Duration::MAX)) => false,
    }
}

/// Follows one cluster until `ends` says so.
async fn attend(
    cluster: Cluster,
    settings: Kubernetes,
    wires: &Wires,
    lasting: &mut Lasting,
    ends: impl Future<Output = bool>,
) -> bool {
    let mut tasks = JoinSet::new();
    let leadership = channel::Sender::default();
    let written = channel::Sender::default();
    let writes = channel::Sender::default();
    let locals = channel::Sender::default();
    let sessions = channel::Sender::default();
    let replicates = channel::Sender::default();
    if let Some(address) = settings.health_checks {
        let engine = wires.engine.clone();
        let forwards = move || engine.borrow().is_some();
        tasks.spawn(health::run(address, locals.subscribe(), forwards));
    }
    let channels = Channels {
        leadership: leadership.subscribe(),
        written: written.subscribe(),
        writes,
        locals,
        sessions: sessions.subscribe(),
        replicates: replicates.clone(),
    };
    let asked = replicates.subscribe();
    tasks.spawn(dire::run(wires.engine.clone(), asked, sessions));
    let (let_go, letting_go) = oneshot::channel();
    let mut leading = JoinSet::new();
    let wanted = channels.writes.subscribe();
    let class = settings.class.clone();
    tasks.spawn(writer::run(cluster.clone(), class, wanted, written));
    if settings.lead {
        let lease = settings.lease.clone();
        let lead = leader::run(
            cluster.clone(),
            lease,
            Timing::default(),
            leadership,
            letting_go,
        );
        leading.spawn(lead);
    }
    let mut provider = Provider::new(cluster, settings, wires.clone(), channels, lasting);
    let ended = tokio::select! {
        ended = ends => ended,
        () = provider.run() => true,
    };
    // Nothing is written from now on; then another may lead.
    tasks.shutdown().await;
    drop(let_go);
    let _ = timeout(GOODBYE, leading.join_next()).await;
    provider.finish().await;
    ended
}
