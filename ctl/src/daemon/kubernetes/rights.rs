//! What the daemon follows and writes is what it says that it does (`access.rs`), by which the chart's
//! roles are judged: no more and no less.

use super::watch::Kind;
use super::writer::resource;
use lockstep_ctl_core::kubernetes::access::{ACCESS, Access, GATEWAY, Way, Who, ways};
use lockstep_ctl_core::kubernetes::write;
use std::collections::BTreeSet;

/// Every kind that is followed: from each the next one, so that none can be forgotten.
fn followed() -> Vec<Kind> {
    let next = |kind| match kind {
        Kind::Services => Some(Kind::Slices),
        Kind::Slices => Some(Kind::Namespaces),
        Kind::Namespaces => Some(Kind::Nodes),
        Kind::Nodes => Some(Kind::Pools),
        Kind::Pools => Some(Kind::Advertisements),
        Kind::Advertisements => Some(Kind::Dires),
        Kind::Dires => Some(Kind::Deployments),
        Kind::Deployments => Some(Kind::Pods),
        Kind::Pods => Some(Kind::GatewayClasses),
        Kind::GatewayClasses => Some(Kind::Gateways),
        Kind::Gateways => Some(Kind::TcpRoutes),
        Kind::TcpRoutes => Some(Kind::UdpRoutes),
        Kind::UdpRoutes => Some(Kind::Grants),
        Kind::Grants => None,
    };
    std::iter::successors(Some(Kind::Services), |kind| next(*kind)).collect()
}

/// Every kind that is written, likewise.
fn written() -> Vec<write::Kind> {
    use write::Kind;
    let next = |kind| match kind {
        Kind::Service => Some(Kind::ConfigMap),
        Kind::ConfigMap => Some(Kind::Deployment),
        Kind::Deployment => Some(Kind::AddressPool),
        Kind::AddressPool => Some(Kind::Advertisement),
        Kind::Advertisement => Some(Kind::Dire),
        Kind::Dire => Some(Kind::GatewayClass),
        Kind::GatewayClass => Some(Kind::Gateway),
        Kind::Gateway => Some(Kind::TcpRoute),
        Kind::TcpRoute => Some(Kind::UdpRoute),
        Kind::UdpRoute => Some(Kind::Pod),
        Kind::Pod => None,
    };
    std::iter::successors(Some(Kind::Service), |kind| next(*kind)).collect()
}

fn reads(row: &&Access) -> bool {
    row.verbs.contains(&"watch")
}

#[test]
fn every_kind_that_is_followed_is_asked_for_by_every_daemon_and_no_other() {
    let asked: BTreeSet<String> = ACCESS.iter().filter(reads).map(Access::name).collect();
    let kinds = followed();
    let followed: BTreeSet<String> = kinds
        .iter()
        .map(|kind| kind.resource().to_owned())
        .collect();
    assert_eq!(asked, followed);
    for row in ACCESS.iter().filter(reads) {
        assert_eq!(
            (row.who, row.verbs),
            (Who::Every, &["list", "watch"][..]),
            "{row:?}"
        );
    }
    for kind in kinds.iter().filter(|kind| kind.is_optional()) {
        assert!(kind.resource().ends_with(GATEWAY), "{kind:?}");
    }
}

#[test]
fn every_kind_that_is_written_is_asked_for_in_the_ways_it_is_written() {
    let mut needed = BTreeSet::new();
    for kind in written() {
        let resource = resource(kind);
        for way in ways(kind) {
            let sub = if *way == Way::Status { "/status" } else { "" };
            for verb in way.verbs() {
                needed.insert((
                    resource.group.clone(),
                    format!("{}{sub}", resource.plural),
                    *verb,
                ));
            }
        }
    }
    // These are no objects that follow from others: the Lease, events, and what the check reads.
    let own = [
        "leases",
        "events",
        "customresourcedefinitions",
        "configmaps",
    ];
    let rows = ACCESS
        .iter()
        .filter(|row| !reads(row) && !own.contains(&row.resource));
    let of = |row: &Access| {
        let (group, resource) = (row.group.to_owned(), row.resource.to_owned());
        let verbs = row.verbs.iter();
        verbs
            .map(|verb| (group.clone(), resource.clone(), *verb))
            .collect::<Vec<_>>()
    };
    let asked: Vec<_> = rows.clone().flat_map(of).collect();
    assert_eq!(asked.iter().cloned().collect::<BTreeSet<_>>(), needed);
    // Whoever does not lead writes only its part of a status.
    let every = rows.filter(|row| row.who == Who::Every);
    let every: Vec<_> = every.map(|row| row.resource).collect();
    assert_eq!(every, ["dires/status"]);
}
