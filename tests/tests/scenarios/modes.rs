//! Every way of forwarding, over both IP versions, with one worker a queue (RSS) and with workers
//! that only receive and send (RPS): HTTP with nginx, UDP with iperf3.

use anyhow::{Result, ensure};
use lockstep_tests::lab::{Forwarding, Lab, LabBuilder, Spread, Version, Wrk, scenario};

macro_rules! scenarios {
    ($($name:ident: $way:ident, $version:ident, $spread:ident;)+) => {
        $(#[test]
        fn $name() {
            scenario(&$spread(), |lab| programs(lab, Forwarding::$way, Version::$version));
        })+
    };
}

scenarios! {
    scenario_modes_ipip_over_ipv4_by_rss: Ipip, V4, rss;
    scenario_modes_ipip_over_ipv4_by_rps: Ipip, V4, rps;
    scenario_modes_ipip_over_ipv6_by_rss: Ipip, V6, rss;
    scenario_modes_ipip_over_ipv6_by_rps: Ipip, V6, rps;
    scenario_modes_gue_over_ipv4_by_rss: Gue, V4, rss;
    scenario_modes_gue_over_ipv4_by_rps: Gue, V4, rps;
    scenario_modes_gue_over_ipv6_by_rss: Gue, V6, rss;
    scenario_modes_gue_over_ipv6_by_rps: Gue, V6, rps;
    scenario_modes_nat_over_ipv4_by_rss: Nat, V4, rss;
    scenario_modes_nat_over_ipv4_by_rps: Nat, V4, rps;
    scenario_modes_nat_over_ipv6_by_rss: Nat, V6, rss;
    scenario_modes_nat_over_ipv6_by_rps: Nat, V6, rps;
    scenario_modes_full_nat_over_ipv4_by_rss: FullNat, V4, rss;
    scenario_modes_full_nat_over_ipv4_by_rps: FullNat, V4, rps;
    scenario_modes_full_nat_over_ipv6_by_rss: FullNat, V6, rss;
    scenario_modes_full_nat_over_ipv6_by_rps: FullNat, V6, rps;
}

fn rss() -> LabBuilder {
    Lab::builder().queues(2)
}

fn rps() -> LabBuilder {
    Lab::builder().spread(Spread::Rps)
}

fn programs(lab: &mut Lab, way: Forwarding, version: Version) -> Result<()> {
    // iperf3's control connection and its datagrams are different flows and must meet: one server.
    let web = way.service("web", version, &["80/tcp"], &[0, 1, 2], "");
    let iperf = way.service("iperf", version, &["5201/tcp", "5201/udp"], &[0], "");
    lab.start_forwarding(way, &(web + &iperf))?;
    http(lab, way, version)?;
    udp(lab, way, version)?;
    let dropped = lab.balancers[0].status()?.all_drops()?;
    ensure!(dropped.is_empty(), "packets were dropped: {dropped:?}");
    Ok(())
}

fn http(lab: &Lab, way: Forwarding, version: Version) -> Result<()> {
    let link = lab.router.count_balancer(0)?;
    let before = lab.requests()?;
    let short = Wrk::new(version.url()).seconds(1).connection_per_request();
    let long = Wrk::new(version.url()).seconds(1).connections(64);
    let mut requests = 0;
    for load in [short, long] {
        let report = lab.client.wrk(&load)?;
        ensure!(report.errors() == 0, "{report:?}");
        requests += report.requests;
    }
    // Enough that each server has its share, on the busiest machine.
    ensure!(requests >= 200, "only {requests} requests in two seconds");
    let after = lab.requests()?;
    let served: Vec<u64> = after.iter().zip(before).map(|(a, b)| a - b).collect();
    ensure!(served.iter().all(|&count| count > 0), "{served:?}");

    let (tunnelled, answers) = (link.packets("tunnelled")?, link.packets("answers")?);
    match way {
        Forwarding::Ipip | Forwarding::Gue => ensure!(tunnelled >= requests && answers == 0),
        Forwarding::Nat | Forwarding::FullNat => ensure!(tunnelled == 0 && answers >= requests),
    }
    // Whom a server answers.
    let seen = lab.client.get_path(version.vip(), "who")?.body;
    let is_client = seen.trim() == version.client().to_string();
    ensure!(
        is_client == (way != Forwarding::FullNat),
        "the server saw {seen}"
    );
    Ok(())
}

fn udp(lab: &Lab, way: Forwarding, version: Version) -> Result<()> {
    let address = match way.tunnels() {
        true => version.vip(),
        false => version.server(0),
    };
    let _server = lab.servers[0].start_iperf(address)?;
    // See scenario_udp for the rate.
    let report = lab.client.iperf_udp(version.vip(), 5, 2)?;
    ensure!(report.packets > 700, "{report:?}");
    // What iperf3 was too slow to read is not the balancer's.
    let unread = lab.servers[0].datagrams_without_buffer()?;
    ensure!(report.lost <= unread, "{report:?}, {unread} unread");
    Ok(())
}
