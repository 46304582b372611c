//! HTTP through the VIP, to real servers that answer the client directly.

use anyhow::{Result, ensure};
use lockstep_tests::lab::{Lab, Version, Wrk, scenario, service, web};

#[test]
fn scenario_ten_thousand_requests_over_ipv4_without_an_error() {
    scenario(&Lab::builder(), |lab| http(lab, Version::V4, Version::V4));
}

#[test]
fn scenario_ten_thousand_requests_over_ipv6_without_an_error() {
    scenario(&Lab::builder(), |lab| http(lab, Version::V6, Version::V6));
}

#[test]
fn scenario_ten_thousand_ipv4_requests_through_an_ipv6_tunnel() {
    scenario(&Lab::builder(), |lab| http(lab, Version::V4, Version::V6));
}

#[test]
fn scenario_ten_thousand_ipv6_requests_through_an_ipv4_tunnel() {
    scenario(&Lab::builder(), |lab| http(lab, Version::V6, Version::V4));
}

#[test]
fn scenario_two_workers_share_the_connections() {
    scenario(&Lab::builder().queues(2), |lab| {
        lab.start_lockstep(&web(&[0, 1, 2]))?;
        let load = Wrk::new(Version::V4.url())
            .connections(64)
            .connection_per_request();
        let report = lab.client.wrk(&load)?;
        ensure!(report.errors() == 0, "{report:?}");
        let workers = lab.balancers[0].status()?.received_by_worker()?;
        ensure!(
            workers.len() == 2 && workers.iter().all(|&packets| packets > 1_000),
            "{workers:?}"
        );
        Ok(())
    });
}

fn http(lab: &mut Lab, vip: Version, tunnel: Version) -> Result<()> {
    lab.start_lockstep(&service("web", vip, &["80/tcp"], tunnel, &[0, 1, 2]))?;
    let link = lab.router.count_balancer(0)?;
    let before = lab.requests()?;

    // Connections of one request each, for the spread over the servers; then long ones.
    let short = Wrk::new(vip.url()).seconds(2).connection_per_request();
    let long = Wrk::new(vip.url()).seconds(2).connections(64);
    let mut requests = 0;
    for load in [short, long] {
        let report = lab.client.wrk(&load)?;
        ensure!(report.errors() == 0, "{report:?}");
        requests += report.requests;
    }
    ensure!(
        requests >= 10_000,
        "only {requests} requests in four seconds"
    );

    let after = lab.requests()?;
    let served: Vec<u64> = after
        .iter()
        .zip(before)
        .map(|(after, before)| after - before)
        .collect();
    ensure!(
        served.iter().all(|&count| count > 0),
        "{served:?} of {requests}"
    );
    ensure!(
        served.iter().sum::<u64>() >= requests,
        "{served:?} of {requests}"
    );

    ensure!(
        link.packets("requests")? >= requests,
        "the requests did not pass the balancer's link"
    );
    ensure!(
        link.packets("tunnelled")? >= requests,
        "the balancer's packets were not tunnelled"
    );
    let answers = link.packets("answers")?;
    ensure!(
        answers == 0,
        "{answers} packets of answers passed the balancer's link"
    );
    Ok(())
}
