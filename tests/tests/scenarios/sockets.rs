//! What the kernel drops at the engine's sockets is not invisible.

use anyhow::ensure;
use etherparse::PacketBuilder;
use lockstep_tests::lab::{CLIENT_V4, Lab, VIP_V4, Version, scenario, wait_until, web};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
/// Fewer than a veth ring holds.
const COPIES: usize = 50;
/// More than a frame of 2,048 bytes takes behind the kernel's headroom of 256.
const PAYLOAD: usize = 1_800;

#[test]
fn scenario_what_the_kernel_drops_at_a_socket_shows_in_status_and_metrics() {
    scenario(&Lab::builder(), |lab| {
        lab.start_lockstep(&web(&[0, 1, 2]))?;
        let (router, balancer) = (lab.router.netns(), &lab.balancers[0]);
        let calm = balancer.cli_text(&["status"])?;
        ensure!(!calm.contains("KERNEL DROPPED"), "{calm}");
        let none = sample("rx_dropped", 0);
        let metrics = balancer.cli_text(&["metrics"])?;
        ensure!(metrics.contains(&none), "no {none} in {metrics}");

        // The engine has read the old MTU, which fits its frames.
        router.ip("link set dev b0 mtu 2000")?;
        balancer.netns().ip("link set dev eth0 mtu 2000")?;
        let (from, to) = (router.mac("b0")?, balancer.netns().mac("eth0")?);
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(from, to)
            .ipv4(CLIENT_V4.octets(), VIP_V4.octets(), 64)
            .tcp(40_000, 80, 1, 64_000)
            .write(&mut frame, &[0; PAYLOAD])?;
        let port = lab.router.injector("b0")?;
        (0..COPIES).try_for_each(|_| port.send(&frame))?;

        let dropped = sample("rx_dropped", COPIES);
        wait_until(&format!("{dropped} in the metrics"), SOON, || {
            let metrics = balancer.cli_text(&["metrics"])?;
            Ok(metrics.contains(&dropped).then_some(()))
        })?;
        let status = balancer.cli(&["status"])?;
        let worker = &status["engine"]["workers"][0];
        ensure!(worker["kernel_dropped"] == COPIES, "{worker}");
        let status = balancer.cli_text(&["status"])?;
        ensure!(status.contains("KERNEL DROPPED"), "{status}");
        ensure!(lab.client.get(Version::V4.vip())?.status == 200);
        Ok(())
    });
}

fn sample(reason: &str, frames: usize) -> String {
    let labels = format!("interface=\"eth0\",queue=\"0\",reason=\"{reason}\"");
    format!("lockstep_socket_drops_total{{{labels}}} {frames}\n")
}
