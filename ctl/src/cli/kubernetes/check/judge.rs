//! What stands in the way in a cluster, by what was seen of it.

use super::seen::{Definition, Leader, Right, Seen, Unread};
use crate::cli::doctor::Finding;
use lockstep_ctl_core::kubernetes::access::{GATEWAY, Who};
use lockstep_ctl_core::kubernetes::advertise::problem;
use lockstep_ctl_core::kubernetes::allocate::{Allocation, allocate};
use lockstep_ctl_core::kubernetes::pools::{Pool, Pools};
use lockstep_ctl_core::kubernetes::translate::{Translator, is_ours};
use lockstep_ctl_core::kubernetes::{Settings, World};
use lockstep_kubernetes::facts::{Service, Slice};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The oldest minor version that the chart is made for: the engine is a sidecar.
const OLDEST: (u32, u32) = (1, 31);

/// The oldest kernel that is tested, major and minor.
const KERNEL: (u32, u32) = (6, 1);

/// Findings of one sort that are told one by one.
const NAMED: usize = 10;

const APPLY: &str = "kubectl apply --server-side -f ctl/deploy/helm/lockstep/files/crds";

/// Everything there is to say.
pub fn judge(mut seen: Seen) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(problem) = &seen.silent {
        let mend = "is it up, and is this its kubeconfig, or a pod of it?";
        found.push(Finding::error(&seen.server, problem, mend));
        return found;
    }
    let settings = seen.wanted.settings(None);
    let mut translator = Translator::default();
    translator.update(&mut seen.world, &settings);
    let seen = &seen;
    if seen.version < OLDEST {
        let text = format!("it is Kubernetes {}.{}", seen.version.0, seen.version.1);
        let mend = format!(
            "use {}.{} or later: pods of the chart need sidecars",
            OLDEST.0, OLDEST.1
        );
        found.push(Finding::warning(&seen.server, text, mend));
    }
    rights(seen, &mut found);
    definitions(seen, &mut found);
    unread(seen, &mut found);
    leader(seen, &mut found);
    let allocation = allocate(&seen.world, &settings);
    if !seen.unread.contains_key("addresspools.lockstep.dev") {
        pools(seen, &allocation, &mut found);
    }
    services(seen, &settings, &allocation, &translator, &mut found);
    nodes(seen, &mut found);
    if let Some(controller) = &seen.wanted.gateway_controller {
        let mut classes = seen.world.gateway_classes.values();
        let lists = !seen
            .unread
            .contains_key("gatewayclasses.gateway.networking.k8s.io");
        if lists && !classes.any(|class| class.spec.controller_name == *controller) {
            let text = format!("no GatewayClass has the controllerName {controller}");
            let mend = "make one, or leave out gateway_controller in [kubernetes]";
            found.push(Finding::warning("Gateway API", text, mend));
        }
    }
    found
}

fn rights(seen: &Seen, found: &mut Vec<Finding>) {
    let mut unknown = BTreeSet::new();
    for (row, verb, right) in &seen.rights {
        let role = match (row.who, row.own_namespace) {
            (Who::Every, _) => "ClusterRole lockstep-node",
            (Who::Leader, false) => "ClusterRole lockstep-controller",
            (Who::Leader, true) => "Role lockstep-controller",
        };
        match right {
            Right::Allowed => {}
            Right::Denied => {
                let place = match row.own_namespace {
                    true => format!(" in {}", seen.namespace),
                    false => String::new(),
                };
                let text = format!("we may not {verb} {}{place}: {}", row.name(), row.why);
                let mend =
                    format!("add the verb to {role}, or install the chart with rbac.create=true");
                // Only this command asks for it.
                let found_one = match row.why.starts_with("lockstep ") {
                    true => Finding::note("RBAC", text, mend),
                    false => Finding::error("RBAC", text, mend),
                };
                found.push(found_one);
            }
            Right::Unknown(why) => {
                unknown.insert(why);
            }
        }
    }
    if let Some(why) = unknown.into_iter().next() {
        let mend = "kubectl auth can-i --list tells what is allowed";
        found.push(Finding::note(
            "RBAC",
            format!("what we may do was not told: {why}"),
            mend,
        ));
    }
}

fn definitions(seen: &Seen, found: &mut Vec<Finding>) {
    for (name, definition) in &seen.definitions {
        match definition {
            Definition::Same => {}
            Definition::Missing => {
                let text = "there is no such CustomResourceDefinition";
                found.push(Finding::error(name, text, APPLY));
            }
            Definition::Differs(place) => {
                let text = format!("it is not that of this version of Lockstep, first in {place}");
                found.push(Finding::warning(name, text, APPLY));
            }
            Definition::Unknown(why) => {
                let text = format!("whether it is that of this version was not looked at: {why}");
                found.push(Finding::note(name, text, ""));
            }
        }
    }
}

fn unread(seen: &Seen, found: &mut Vec<Finding>) {
    for (resource, why) in &seen.unread {
        let ours = seen.definitions.get(resource);
        match why {
            // Said already.
            Unread::Missing if ours == Some(&Definition::Missing) => {}
            Unread::Missing if resource.ends_with(GATEWAY) => {
                let text = "this cluster does not have it, and gateway_controller is set";
                let mend = "install the Gateway API (its release's standard and experimental channels differ), or leave out gateway_controller in [kubernetes]";
                found.push(Finding::warning(resource, text, mend));
            }
            Unread::Missing => {
                let text = "this cluster does not have it";
                found.push(Finding::error(resource, text, APPLY));
            }
            Unread::Failed(why) => found.push(Finding::error(resource, why, "")),
        }
    }
}

fn leader(seen: &Seen, found: &mut Vec<Finding>) {
    let about = format!("Lease {}/{}", seen.namespace, seen.wanted.lease);
    let lists = !seen.unread.contains_key("namespaces");
    if lists && !seen.world.namespaces.contains_key(&seen.namespace) {
        let text = format!("there is no namespace {}: nobody can lead", seen.namespace);
        let mend = format!(
            "kubectl create namespace {}, or set `namespace` in [kubernetes]",
            seen.namespace
        );
        found.push(Finding::error(about, text, mend));
        return;
    }
    let mend = "is a daemon with `lead` running (deploy/lockstep-controller)? its log says what stands in its way";
    match &seen.leader {
        Leader::Nobody => {
            let text = "nobody leads: no Service gets an address, no status is written";
            found.push(Finding::error(about, text, mend));
        }
        Leader::Is(holder, ago, long) if *ago > *long * 2 => {
            let text = format!(
                "{holder} has not renewed it for {} s: nobody leads",
                ago.as_secs()
            );
            found.push(Finding::error(about, text, mend));
        }
        Leader::Is(..) => {}
        Leader::Unknown(why) => found.push(Finding::note(about, why, "")),
    }
}

fn pools(seen: &Seen, allocation: &Allocation, found: &mut Vec<Finding>) {
    let world = &seen.world;
    let pools = Pools::of(world, &seen.wanted.class);
    if pools.is_empty() {
        let text = "there is none: no Service gets an address";
        let mend = "make one: apiVersion lockstep.dev/v1alpha1, kind AddressPool, spec.addresses: [203.0.113.0/24]";
        found.push(Finding::error("AddressPool", text, mend));
        return;
    }
    let held = allocation.assigned.values().flat_map(|a| &a.addresses);
    let held: BTreeSet<IpAddr> = held.copied().collect();
    for pool in pools.iter() {
        judge_pool(pool, &held, world, found);
    }
    for (name, object) in &world.advertisements {
        if let Some((_, message)) = problem(object, world) {
            found.push(Finding::error(format!("Advertisement {name}"), message, ""));
        }
    }
}

fn judge_pool(pool: &Pool, held: &BTreeSet<IpAddr>, world: &World, found: &mut Vec<Finding>) {
    let about = format!("AddressPool {}", pool.name);
    let problems = pool.problems.iter().chain(&pool.selector_problem);
    for problem in problems.take(NAMED) {
        found.push(Finding::error(&about, problem, ""));
    }
    for (other, range) in pool.overlaps.iter().take(NAMED) {
        let text = format!("it shares {range} with {other}: neither gives these addresses");
        let mend = "take them out of one of the pools";
        found.push(Finding::error(&about, text, mend));
    }
    let gives = |address: &&IpAddr| {
        pool.has(**address) && pool.dispute(**address).is_none() && !pool.avoids(**address)
    };
    let taken = held.iter().filter(gives).count() as u128;
    let right = pool.problems.is_empty() && pool.overlaps.is_empty();
    if right && pool.size() <= taken {
        let text = "it has no free address left";
        let mend = "add addresses to it, or delete Services that have some";
        found.push(Finding::warning(&about, text, mend));
    }
    let mut ways = world
        .advertisements
        .values()
        .map(|object| &object.spec.pools);
    if !ways.any(|pools| pools.is_empty() || pools.contains(&pool.name)) {
        let text = "no Advertisement is of it: its addresses are served, and not announced";
        let mend = format!("make one of type BGP or L2 with pools: [{}]", pool.name);
        found.push(Finding::warning(&about, text, mend));
    }
}

fn services(
    seen: &Seen,
    settings: &Settings,
    allocation: &Allocation,
    translator: &Translator,
    found: &mut Vec<Finding>,
) {
    let (mut ailing, mut strangers) = (Vec::new(), Vec::new());
    for (name, service) in &seen.world.services {
        let about = format!("Service {name}");
        if !is_ours(service, settings) {
            if is_strangers(service) {
                strangers.push(name.to_string());
            }
            continue;
        }
        if let Some(refusal) = allocation.refused.get(name) {
            ailing.push(Finding::error(&about, &refusal.message, ""));
        } else if service.ingress.is_empty() {
            let text = "it has no address, although there is one for it";
            let mend = "nobody leads, or the leader may not write: see above, and its log";
            ailing.push(Finding::error(&about, text, mend));
        }
        for problem in translator.problems(name) {
            let finding = match problem.port {
                Some(_) => Finding::error(&about, &problem.message, ""),
                None => Finding::warning(&about, &problem.message, ""),
            };
            ailing.push(finding);
        }
    }
    let more = ailing.len().saturating_sub(NAMED);
    found.extend(ailing.into_iter().take(NAMED));
    if more > 0 {
        let text = format!("{more} more things are wrong with Services");
        let mend = "kubectl get events --all-namespaces tells all of them";
        found.push(Finding::error("Services", text, mend));
    }
    if !strangers.is_empty() {
        let shown = strangers[..strangers.len().min(NAMED)].join(", ");
        let text = format!(
            "{} of type LoadBalancer have no loadBalancerClass and no address: {shown}",
            strangers.len()
        );
        let mend = format!(
            "make them anew with spec.loadBalancerClass: {}, or set default_class = true in [kubernetes] where nobody else takes them",
            settings.class
        );
        found.push(Finding::note("Services", text, mend));
    }
}

/// A Service that nobody has taken.
fn is_strangers(service: &Service) -> bool {
    let nobodys = service.class.is_none() && service.ingress.is_empty();
    service.load_balancer && nobodys && !service.deleting
}

fn nodes(seen: &Seen, found: &mut Vec<Finding>) {
    let labelled: Vec<_> = seen.nodes.iter().filter(|node| node.labelled).collect();
    // Balancers outside of the cluster need no node.
    let Some(topologies) = &seen.topologies else {
        return;
    };
    if labelled.is_empty() && !seen.unread.contains_key("nodes") {
        let text = "no node has the label lockstep.dev/engine=true: there is no engine";
        let mend = "kubectl label node NAME lockstep.dev/engine=true";
        found.push(Finding::warning("nodes", text, mend));
    }
    let default = topologies.contains("default");
    for node in labelled {
        let about = format!("node {}", node.name);
        if !default && !topologies.contains(&node.name) {
            let text = "its engine has no topology, and does not start";
            let mend = format!(
                "set engine.topology.{} in the chart's values (`lockstep topology detect` on the node proposes it)",
                node.name
            );
            found.push(Finding::error(&about, text, mend));
        }
        if !node.ready {
            let text = "it is not Ready: what its engine does is not told";
            found.push(Finding::warning(&about, text, "kubectl describe node"));
        }
        if kernel(&node.kernel).is_some_and(|kernel| kernel < KERNEL) {
            let text = format!("its kernel is {}", node.kernel);
            let mend = format!("use Linux {}.{} or later", KERNEL.0, KERNEL.1);
            found.push(Finding::warning(&about, text, mend));
        }
    }
    own_pods(seen, found);
    if let Some((name, overlay)) = seen.nodes.iter().find_map(|node| {
        let overlay = node.overlay.as_ref()?;
        Some((&node.name, overlay))
    }) {
        let text = format!(
            "{name} has an overlay ({overlay}): engines do not reach pods by it, and drop what is for \
             them as no_port"
        );
        let mend = "have the network plugin route (flannel host-gw, Calico without encapsulation, Cilium \
                    with native routing)";
        found.push(Finding::warning("nodes", text, mend));
    }
    // An address that two engines have answers nobody.
    let shares = default && topologies.len() == 1;
    let several = seen.nodes.iter().filter(|node| node.labelled).count() > 1;
    if shares && several {
        let text = "several nodes have the same topology, and so the same engine addresses";
        let mend = "give each node a topology of its own";
        found.push(Finding::warning("nodes", text, mend));
    }
}

/// Pods on the nodes of engines are not reached: what comes for them is dropped as `no_port`.
fn own_pods(seen: &Seen, found: &mut Vec<Finding>) {
    let settings = seen.wanted.settings(None);
    for node in seen.nodes.iter().filter(|node| node.labelled) {
        let is_there = |slice: &Slice| {
            let mut endpoints = slice.endpoints.iter();
            endpoints.any(|endpoint| endpoint.node.as_deref() == Some(node.name.as_str()))
        };
        let ours = seen.world.services.iter();
        let ours = ours.filter(|(_, service)| is_ours(service, &settings));
        let with = ours.filter(|(name, _)| {
            let slices = seen.world.slices.get(name).into_iter();
            slices.flat_map(|s| s.values()).any(|slice| is_there(slice))
        });
        let names: Vec<String> = with.map(|(name, _)| name.to_string()).collect();
        let Some(first) = names.first() else {
            continue;
        };
        let more = match names.len() {
            1 => String::new(),
            all => format!(" and {} more", all - 1),
        };
        let text = format!(
            "it has pods of Service {first}{more}: an engine does not reach those of its own node, and \
             drops what is for them as no_port"
        );
        let mend = format!(
            "kubectl taint node {} lockstep.dev/engine=true:NoSchedule, and have those pods made anew",
            node.name
        );
        found.push(Finding::warning(format!("node {}", node.name), text, mend));
    }
}

/// `6.1.0-31-amd64`
fn kernel(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
