//! A snapshot that the engine itself cannot take: refused as a whole, without a trace.

use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{Balancer, KeepAlive, Lab, Version, scenario, wait_until, web};
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

#[test]
fn scenario_a_snapshot_that_the_engine_refuses_leaves_what_is_in_force_untouched() {
    scenario(&Lab::builder(), |lab| {
        lab.start_lockstep(&web(&[0, 1, 2]))?;
        let mut open = KeepAlive::open_many(lab.client.netns(), Version::V4.vip(), 12)?;
        let balancer = &lab.balancers[0];
        let before = drops(balancer)?;

        // Other backends, and a VIP that only the engine knows to be its own address.
        let own = engine_address(balancer)?;
        let refused = format!(
            "[[service]]\nname = \"web\"\nvips = [\"{own}:80/tcp\"]\n\
             backends = [{{ address = \"10.0.1.77\" }}]\n"
        );
        let file = balancer.topology_file().with_file_name("refused.toml");
        fs::write(&file, refused)?;
        let output = balancer.run(&["apply", &file.display().to_string()])?;
        let says = String::from_utf8_lossy(&output.stderr);
        ensure!(
            !output.status.success() && says.contains("engine address"),
            "{says}"
        );

        // Long enough for the kernel's follower to have told the workers of anything.
        for _ in 0..20 {
            open.iter_mut().try_for_each(KeepAlive::must_stay)?;
        }
        ensure!(drops(balancer)? == before, "packets were dropped");

        // The ways of the old backends are still followed.
        balancer.apply(&web(&[0, 1]))?;
        wait_until("the VIP answers", SOON, || {
            Ok((lab.client.get(Version::V4.vip())?.status == 200).then_some(()))
        })
    });
}

fn drops(balancer: &Balancer) -> Result<u64> {
    let text = balancer.cli_text(&["metrics"])?;
    let of_reason = |line: &&str| {
        line.starts_with("lockstep_dropped_packets_total") && line.contains("reason=\"no_route\"")
    };
    let count = |line: &str| line.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok());
    Ok(text.lines().filter(of_reason).filter_map(count).sum())
}

/// The engine's IPv4 address, as its topology has it.
fn engine_address(balancer: &Balancer) -> Result<String> {
    let text = fs::read_to_string(balancer.topology_file())?;
    let addresses = text.lines().find_map(|l| l.strip_prefix("addresses = [\""));
    let (first, _) = addresses
        .and_then(|a| a.split_once('"'))
        .context("no addresses in the topology")?;
    Ok(first.to_owned())
}
