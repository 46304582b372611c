//! `lockstep kubernetes`: the cluster whose Services are served.

mod check;

use super::output::{Out, table};
use super::{Answer, Failure, Global, ask, units};
use crate::transport::Peer;
use clap::{Args, Subcommand};
use lockstep_api::{KubernetesKind, KubernetesReply, KubernetesRequest, KubernetesState};
use serde::Serialize;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What of the cluster.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the connection, the leader, objects, pools and Services (exit code 1 when something
    /// needs attention); the same as without a subcommand
    Status,
    /// Look for what is missing in the cluster, each with its mend (exit code 1 for errors); asks the
    /// API server itself, whether or not the daemon runs
    Check(check::Arguments),
}

/// The answer as JSON.
#[derive(Debug, Serialize)]
struct Report {
    /// Null where no cluster is configured.
    cluster: Option<Cluster>,
    /// What needs attention, a sentence each.
    troubles: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Cluster {
    server: String,
    connected: bool,
    since_seconds: f64,
    /// Null where nothing stands in the way.
    error: Option<String>,
    node: Option<String>,
    class: String,
    /// `awaited`, `restored` or `current`.
    serves: &'static str,
    lease: String,
    may_lead: bool,
    leads: bool,
    /// Who leads; null where that is not known.
    leader: Option<String>,
    kinds: Vec<Kind>,
    pools: Vec<Pool>,
    services: Vec<Service>,
    /// Services of the engine that could not stand beside others.
    left_out: Vec<LeftOut>,
    writes: u64,
    writes_failed: u64,
    writes_open: u64,
    write_errors: Vec<String>,
    requests: u64,
    requests_refused: u64,
    requests_failed: u64,
}

#[derive(Debug, Serialize)]
struct Kind {
    resource: String,
    namespace: Option<String>,
    objects: u64,
    listed: bool,
    lists: u64,
    events: u64,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Pool {
    name: String,
    available: String,
    assigned: i64,
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct Service {
    name: String,
    addresses: Vec<String>,
    endpoints: u32,
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct LeftOut {
    service: String,
    why: String,
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

impl Cluster {
    /// `now` since 1970, on this host, which is the daemon's.
    fn new(reply: KubernetesReply, now: Duration) -> Self {
        let since = Duration::from_millis(reply.since_unix_ms);
        let serves = match reply.state() {
            KubernetesState::KubernetesAwaited => "awaited",
            KubernetesState::KubernetesRestored => "restored",
            KubernetesState::KubernetesCurrent => "current",
        };
        let kind = |kind: KubernetesKind| Kind {
            resource: kind.resource,
            namespace: some(kind.namespace),
            objects: kind.objects,
            listed: kind.listed,
            lists: kind.lists,
            events: kind.events,
            error: some(kind.error),
        };
        Cluster {
            server: reply.server,
            connected: reply.connected,
            since_seconds: now.saturating_sub(since).as_secs_f64(),
            error: some(reply.error),
            node: some(reply.node),
            class: reply.class,
            serves,
            lease: reply.lease,
            may_lead: reply.may_lead,
            leads: reply.leads,
            leader: some(reply.leader),
            kinds: reply.kinds.into_iter().map(kind).collect(),
            pools: (reply.pools.into_iter())
                .map(|pool| Pool {
                    name: pool.name,
                    available: pool.available,
                    assigned: pool.assigned,
                    problem: some(pool.problem),
                })
                .collect(),
            services: (reply.services.into_iter())
                .map(|service| Service {
                    name: service.name,
                    addresses: service.addresses,
                    endpoints: service.endpoints,
                    problems: service.problems,
                })
                .collect(),
            left_out: (reply.left_out.into_iter())
                .map(|left| LeftOut {
                    service: left.service,
                    why: left.why,
                })
                .collect(),
            writes: reply.writes,
            writes_failed: reply.writes_failed,
            writes_open: reply.writes_open,
            write_errors: reply.write_errors,
            requests: reply.requests,
            requests_refused: reply.requests_refused,
            requests_failed: reply.requests_failed,
        }
    }

    fn text(&self) -> String {
        let mut text = self.line();
        let services = self.services.iter().map(|service| {
            vec![
                service.name.clone(),
                list(&service.addresses),
                units::count(service.endpoints.into()),
                service.problems.join("; "),
            ]
        });
        let pools = self.pools.iter().map(|pool| {
            vec![
                pool.name.clone(),
                units::count(pool.assigned.unsigned_abs()),
                pool.available.clone(),
                pool.problem.clone().unwrap_or_default(),
            ]
        });
        let kinds = self.kinds.iter().map(|kind| {
            let space = kind.namespace.as_ref();
            let name = space.map_or_else(
                || kind.resource.clone(),
                |space| format!("{} in {space}", kind.resource),
            );
            vec![
                name,
                units::count(kind.objects),
                units::count(kind.events),
                units::count(kind.lists),
            ]
        });
        let blocks = [
            table(&["SERVICE", "ADDRESSES", ">ENDPOINTS", "PROBLEM"], services),
            table(&["POOL", ">ASSIGNED", ">AVAILABLE", "PROBLEM"], pools),
            table(&["OBJECTS", ">NOW", ">EVENTS", ">LISTS"], kinds),
        ];
        for block in blocks.iter().filter(|block| !block.is_empty()) {
            text.push('\n');
            text.push_str(block);
        }
        text
    }

    fn line(&self) -> String {
        let answers = match self.connected {
            true => "answers",
            false => "does NOT answer",
        };
        let node = self.node.as_deref().unwrap_or("-");
        let leader = match (self.leads, &self.leader) {
            (true, _) => "this balancer leads".to_owned(),
            (false, Some(leader)) => format!("{leader} leads"),
            (false, None) if self.may_lead => "nobody leads".to_owned(),
            (false, None) => "this balancer never leads".to_owned(),
        };
        let serves = match self.serves {
            "awaited" => "waits for the first answers; what the engine has stays",
            "restored" => "serves what the cluster said before the daemon was started",
            _ => "serves what the cluster says",
        };
        format!(
            "{} {answers} (for {}), node {node}, class {}\n{leader} (Lease {}), {serves}\n\
             {} writes, {} open, {} failed\n",
            self.server,
            units::time(self.since_seconds),
            self.class,
            self.lease,
            units::count(self.writes),
            units::count(self.writes_open),
            units::count(self.writes_failed),
        )
    }
}

fn list(addresses: &[String]) -> String {
    match addresses {
        [] => "-".to_owned(),
        addresses => addresses.join(", "),
    }
}

/// Services with a problem that are named one by one.
const NAMED: usize = 5;

/// What needs attention in the cluster, a sentence each.
pub fn troubles(reply: &KubernetesReply) -> Vec<String> {
    if !reply.configured {
        return Vec::new();
    }
    let mut troubles = Vec::new();
    if !reply.error.is_empty() && reply.server.is_empty() {
        troubles.push(format!("kubernetes: {}", reply.error));
        return troubles;
    }
    if !reply.connected {
        let (server, error) = (&reply.server, &reply.error);
        troubles.push(format!(
            "kubernetes: {server} does not answer, everything stays as it is: {error}"
        ));
    }
    // What cannot be asked for while nobody answers is no trouble of its own.
    let says = |error: &&str| !error.is_empty() && reply.connected;
    let kinds = reply.kinds.iter().map(|kind| kind.error.as_str());
    let lease = [reply.lease_error.as_str()];
    for error in kinds.chain(lease).filter(says) {
        troubles.push(format!("kubernetes: {error}"));
    }
    troubles.extend(
        reply
            .write_errors
            .iter()
            .map(|e| format!("kubernetes: {e}")),
    );
    for pool in reply.pools.iter().filter(|pool| !pool.problem.is_empty()) {
        troubles.push(format!("kubernetes: pool {}: {}", pool.name, pool.problem));
    }
    let ailing = reply.services.iter().filter(|s| !s.problems.is_empty());
    let ailing: Vec<_> = ailing.collect();
    for service in ailing.iter().take(NAMED) {
        let problems = service.problems.join("; ");
        troubles.push(format!("kubernetes: {}: {problems}", service.name));
    }
    if let Some(more) = ailing.len().checked_sub(NAMED).filter(|more| *more > 0) {
        troubles.push(format!(
            "kubernetes: {more} more Services have problems; see `lockstep kubernetes`"
        ));
    }
    for left in &reply.left_out {
        troubles.push(format!(
            "kubernetes: {} is left out: {}",
            left.service, left.why
        ));
    }
    troubles
}

/// Prints what is known of the cluster.
pub async fn run(global: &Global, arguments: &Arguments, out: &mut Out) -> Result<Answer, Failure> {
    match &arguments.command {
        None | Some(Command::Status) => status(global, out).await,
        Some(Command::Check(arguments)) => check::run(global, arguments, out).await,
    }
}

async fn status(global: &Global, out: &mut Out) -> Result<Answer, Failure> {
    let mut daemon = ask::daemon(global).await?;
    let call = daemon.kubernetes(KubernetesRequest {});
    let reply = ask::present(Peer::Daemon, call).await?;
    let troubles = troubles(&reply);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let is_configured = reply.configured;
    let cluster = is_configured.then(|| Cluster::new(reply, now.unwrap_or_default()));
    let report = Report { cluster, troubles };
    out.answer(&report, || report.text())?;
    Ok(match report.troubles.is_empty() {
        true => Answer::Yes,
        false => Answer::No,
    })
}

impl Report {
    fn text(&self) -> String {
        let Some(cluster) = &self.cluster else {
            return "Kubernetes is not in use: lockstepd.toml has no [kubernetes]".to_owned();
        };
        let mut text = match cluster.server.is_empty() {
            true => String::new(),
            false => cluster.text(),
        };
        if !self.troubles.is_empty() {
            let troubles = self.troubles.join("\n  ");
            text.push_str(&format!("\nNeeds attention:\n  {troubles}\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_api::{KubernetesPool, KubernetesService};

    fn reply() -> KubernetesReply {
        KubernetesReply {
            configured: true,
            server: "https://10.0.0.1:6443/".to_owned(),
            connected: true,
            since_unix_ms: 1_000,
            node: "lb1".to_owned(),
            class: "lockstep.dev/xdp".to_owned(),
            state: KubernetesState::KubernetesCurrent.into(),
            may_lead: true,
            leads: true,
            leader: "lb1_0123".to_owned(),
            lease: "lockstep-system/lockstep".to_owned(),
            kinds: vec![KubernetesKind {
                resource: "services".to_owned(),
                objects: 1_234,
                listed: true,
                lists: 1,
                events: 7,
                ..KubernetesKind::default()
            }],
            pools: vec![KubernetesPool {
                name: "public".to_owned(),
                available: "254".to_owned(),
                assigned: 2,
                ..KubernetesPool::default()
            }],
            services: vec![KubernetesService {
                name: "shop/web".to_owned(),
                addresses: vec!["203.0.113.10".to_owned()],
                endpoints: 20,
                ..KubernetesService::default()
            }],
            writes: 3,
            ..KubernetesReply::default()
        }
    }

    fn report(reply: KubernetesReply) -> Report {
        Report {
            troubles: troubles(&reply),
            cluster: Some(Cluster::new(reply, Duration::from_secs(61))),
        }
    }

    #[test]
    fn the_cluster_its_leader_and_its_services_are_shown() {
        assert_eq!(
            report(reply()).text(),
            "https://10.0.0.1:6443/ answers (for 1m 0s), node lb1, class lockstep.dev/xdp\n\
             this balancer leads (Lease lockstep-system/lockstep), serves what the cluster says\n\
             3 writes, 0 open, 0 failed\n\n\
             SERVICE   ADDRESSES     ENDPOINTS  PROBLEM\n\
             shop/web  203.0.113.10         20\n\n\
             POOL    ASSIGNED  AVAILABLE  PROBLEM\n\
             public         2        254\n\n\
             OBJECTS     NOW  EVENTS  LISTS\n\
             services  1,234       7      1\n"
        );
    }

    #[test]
    fn what_needs_attention_is_said_once_and_not_without_end() {
        assert_eq!(troubles(&reply()), Vec::<String>::new());
        assert_eq!(troubles(&KubernetesReply::default()), Vec::<String>::new());
        let mut ailing = reply();
        ailing.services = (0..8)
            .map(|n| KubernetesService {
                name: format!("shop/{n}"),
                problems: vec!["no pool has an address".to_owned()],
                ..KubernetesService::default()
            })
            .collect();
        let found = troubles(&ailing);
        assert_eq!(found.len(), NAMED + 1);
        assert!(found[0].contains("shop/0: no pool"), "{found:?}");
        assert!(found[NAMED].contains("3 more Services"), "{found:?}");
        let mut gone = reply();
        gone.connected = false;
        gone.error = "refused".to_owned();
        gone.kinds[0].error = "cannot watch services: refused".to_owned();
        let found = troubles(&gone);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(report(gone).text().contains("does NOT answer"));
    }

    #[test]
    fn a_cluster_that_cannot_be_asked_is_a_trouble_of_its_own() {
        let reply = KubernetesReply {
            configured: true,
            error: "set `kubeconfig`".to_owned(),
            ..KubernetesReply::default()
        };
        let text = report(reply).text();
        assert_eq!(text, "\nNeeds attention:\n  kubernetes: set `kubeconfig`\n");
    }
}
