//! How new flows are spread: tiers, schedulers, stickiness, slow starts, ranges of ports.

use anyhow::{Result, ensure};
use lockstep_tests::lab::{KeepAlive, Lab, Version, scenario, service, wait_until};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// The web service over IPv4 on servers of these indices, with more lines.
fn web(lines: &str, to: &[usize]) -> String {
    let text = service("web", Version::V4, &["80/tcp"], Version::V4, to);
    text.replace("[[service]]\n", &format!("[[service]]\n{lines}\n"))
}

fn open(lab: &Lab, count: usize) -> Result<Vec<KeepAlive>> {
    KeepAlive::open_many(lab.client.netns(), Version::V4.vip(), count)
}

/// How many of these connections are with a server.
fn with(connections: &[KeepAlive], server: &str) -> usize {
    connections.iter().filter(|c| c.server() == server).count()
}

#[test]
fn scenario_the_second_tier_takes_over_and_gives_back() {
    scenario(&Lab::builder(), |lab| {
        let file = web("", &[0, 1, 2]).replace("\"s3\"", "\"s3\", priority = 1");
        lab.start_lockstep(&file)?;
        let mut first = open(lab, 24)?;
        ensure!(
            with(&first, "s3") == 0,
            "the second tier serves beside the first one"
        );
        let balancer = &lab.balancers[0];
        balancer.cli(&["drain", "s1", "--deadline", "0s"])?;
        let spilt = open(lab, 60)?;
        let (left, second) = (with(&spilt, "s2"), with(&spilt, "s3"));
        // 70 and 30 percent.
        ensure!(
            with(&spilt, "s1") == 0 && left > second && second > 0,
            "{left} with s2, {second} with s3"
        );
        balancer.cli(&["drain", "s2", "--deadline", "0s"])?;
        let mut taken = open(lab, 12)?;
        ensure!(with(&taken, "s3") == 12, "the second tier takes over");
        // Nobody's connection ends for that.
        first.iter_mut().try_for_each(KeepAlive::must_stay)?;
        balancer.cli(&["undrain", "s1"])?;
        balancer.cli(&["undrain", "s2"])?;
        ensure!(with(&open(lab, 24)?, "s3") == 0, "the first tier is back");
        taken.iter_mut().try_for_each(KeepAlive::must_stay)
    });
}

#[test]
fn scenario_least_connections_fills_the_server_whose_connections_ended() {
    scenario(&Lab::builder().servers(2), |lab| {
        lab.start_lockstep(&web("scheduler = \"wlc\"", &[0, 1]))?;
        let mut long = open(lab, 24)?;
        ensure!(with(&long, "s1") == 12, "{} with s1", with(&long, "s1"));
        long.retain(|c| c.server() == "s2");
        let balancer = &lab.balancers[0];
        wait_until("the closed ones are known to be", SOON, || {
            let flows = balancer.cli(&["flows", "--service", "web", "--backend", "s1"])?;
            let open = flows.as_array().into_iter().flatten();
            let open = open.filter(|flow| flow["state"] == "established").count();
            Ok((open == 0).then_some(()))
        })?;
        let next = open(lab, 12)?;
        ensure!(with(&next, "s1") == 12, "{} with s1", with(&next, "s1"));
        long.iter_mut().try_for_each(KeepAlive::must_stay)
    });
}

#[test]
fn scenario_round_robin_alternates() {
    scenario(&Lab::builder().servers(2), |lab| {
        lab.start_lockstep(&web("scheduler = \"wrr\"", &[0, 1]))?;
        let connections = open(lab, 10)?;
        let servers: Vec<&str> = connections.iter().map(KeepAlive::server).collect();
        let alternate = servers.windows(2).all(|pair| pair[0] != pair[1]);
        ensure!(alternate, "{servers:?}");
        Ok(())
    });
}

#[test]
fn scenario_a_sticky_client_stays_with_one_server() {
    scenario(&Lab::builder(), |lab| {
        lab.start_lockstep(&web("sticky = \"client\"", &[0, 1, 2]))?;
        let connections = open(lab, 24)?;
        let server = connections[0].server();
        ensure!(
            with(&connections, server) == 24,
            "connections of one client are with several servers"
        );
        Ok(())
    });
}

#[test]
fn scenario_a_slow_start_gives_a_new_server_its_share_step_by_step() {
    scenario(&Lab::builder().servers(2), |lab| {
        let lines = "scheduler = \"wrr\"\nslow_start = \"18s\"";
        lab.start_lockstep(&web(lines, &[0]))?;
        let balancer = &lab.balancers[0];
        balancer.apply(&web(lines, &[0, 1]))?;
        // Steps of two seconds: a tenth or a few to the whole of the other one.
        let begins = with(&open(lab, 22)?, "s2");
        ensure!((1..=7).contains(&begins), "{begins} of 22 at the beginning");
        let ramps = || -> Result<bool> {
            let status = balancer.cli(&["status"])?;
            let backends = status.pointer("/engine/services/0/backends");
            let backends = backends.and_then(|b| b.as_array()).into_iter().flatten();
            Ok(backends
                .filter(|b| b["spread"] != serde_json::Value::Null)
                .count()
                > 0)
        };
        ensure!(ramps()?, "status says nothing of the slow start");
        wait_until("the end of the slow start", SOON * 3, || {
            Ok((!ramps()?).then_some(()))
        })?;
        let whole = with(&open(lab, 22)?, "s2");
        ensure!((10..=12).contains(&whole), "{whole} of 22 in the end");
        Ok(())
    });
}

#[test]
fn scenario_a_range_of_ports_carries_tcp_and_udp() {
    scenario(&Lab::builder().servers(1), |lab| {
        let version = Version::V4;
        let ports = ["5200-5299/tcp", "5200-5299/udp"];
        lab.start_lockstep(&service("iperf", version, &ports, version, &[0]))?;
        let _server = lab.servers[0].start_iperf(version.vip())?;
        let report = lab.client.iperf_udp(version.vip(), 5, 2)?;
        ensure!(report.packets > 500, "{report:?}");
        let unread = lab.servers[0].datagrams_without_buffer()?;
        ensure!(report.lost <= unread, "{report:?}, {unread} unread");
        let status = lab.balancers[0].cli(&["status"])?.to_string();
        ensure!(status.contains("5200-5299/udp"), "{status}");
        Ok(())
    });
}
