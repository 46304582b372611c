//! UDP through the VIP: iperf3, with its TCP control connection through the VIP too.

use anyhow::{Result, ensure};
use lockstep_tests::lab::{Lab, Version, scenario, service};

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
    let before = lab.balancers[0].status()?.received()?;
    let report = lab.client.iperf_udp(version.vip(), 50, 3)?;
    // 50 Mbit/s for three seconds in datagrams of 1,200 bytes are 15,625.
    ensure!(report.packets > 14_000, "{report:?}");
    ensure!(report.lost == 0, "{report:?}");
    let received = lab.balancers[0].status()?.received()? - before;
    ensure!(
        received >= report.packets,
        "{received} packets at the engine of {report:?}"
    );
    Ok(())
}
