//! UDP through the VIP: iperf3, with its TCP control connection through the VIP too.

use anyhow::{Result, ensure};
use lockstep_tests::lab::{Lab, Version, scenario, service, wait_until};
use std::time::Duration;

#[test]
fn scenario_udp_over_ipv4_loses_nothing() {
    scenario(&Lab::builder().servers(1), |lab| udp(lab, Version::V4));
}

#[test]
fn scenario_udp_over_ipv6_loses_nothing() {
    scenario(&Lab::builder().servers(1), |lab| udp(lab, Version::V6));
}

fn udp(lab: &mut Lab, version: Version) -> Result<()> {
    // One backend: control connection and datagrams are different flows and must meet.
    lab.start_lockstep(&service(
        "iperf",
        version,
        &["5201/tcp", "5201/udp"],
        version,
        &[0],
    ))?;
    let _server = lab.servers[0].start_iperf(version.vip())?;
    let link = lab.router.count_balancer(0)?;
    // So slow that a busy machine's pauses, which iperf3 makes up for in bursts, fit into the 256
    // slots of a veth's ring: 5 Mbit/s in datagrams of 1,200 bytes are 520 a second.
    let report = lab.client.iperf_udp(version.vip(), 5, 3)?;
    ensure!(report.packets > 1_000, "{report:?}");
    // Every packet that reached the balancer's link came back tunnelled.
    ensure!(link.packets("requests")? > report.packets);
    wait_until("all of it is tunnelled", Duration::from_secs(5), || {
        Ok((link.packets("tunnelled")? == link.packets("requests")?).then_some(()))
    })?;
    // What iperf3 was too slow to read is not the balancer's.
    let unread = lab.servers[0].datagrams_without_buffer()?;
    ensure!(report.lost <= unread, "{report:?}, {unread} unread");
    Ok(())
}
