//! Changing services while they are used.

use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{KeepAlive, Lab, Version, Wrk, scenario, wait_until, web};
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

#[test]
fn scenario_adding_and_draining_a_backend_under_load_fails_no_request() {
    scenario(&Lab::builder().servers(4), |lab| {
        lab.start_lockstep(&web(&[0, 1, 2]))?;
        let long = lab
            .client
            .start_wrk(&Wrk::new(Version::V4.url()).seconds(8))?;
        let short = Wrk::new(Version::V4.url())
            .seconds(8)
            .connections(8)
            .connection_per_request();
        let short = lab.client.start_wrk(&short)?;
        let balancer = &lab.balancers[0];

        balancer.apply(&web(&[0, 1, 2, 3]))?;
        wait_until("the new server serves", SOON, || served(lab, 3, 100))?;

        balancer.cli(&["drain", "s1", "--deadline", "60s"])?;
        let flows = balancer.cli(&["flows"])?;
        ensure!(
            flows.to_string().contains("s2"),
            "no flow of s2 is listed: {flows}"
        );
        // Connections of one request each end by themselves; the long ones stay with s1.
        let at_drain = lab.servers[0].requests()?;
        wait_until("s1 still answers its old connections", SOON, || {
            Ok((lab.servers[0].requests()? > at_drain).then_some(()))
        })?;
        let new = KeepAlive::open_many(lab.client.netns(), Version::V4.vip(), 24)?;
        let drained = new
            .iter()
            .filter(|connection| connection.server() == "s1")
            .count();
        ensure!(
            drained == 0,
            "{drained} of 24 new connections went to the draining s1"
        );

        for report in [long.report()?, short.report()?] {
            ensure!(report.errors() == 0, "{report:?}");
        }
        // A dropped SYN is no error, but a second's wait.
        for reason in ["no_neighbour", "no_route", "no_room", "no_vip"] {
            let drops = balancer.status()?.drops(reason)?;
            ensure!(drops == 0, "{drops} packets dropped as {reason}");
        }
        Ok(())
    });
}

#[test]
fn scenario_removing_a_backend_moves_only_its_flows() {
    scenario(&Lab::builder(), |lab| {
        lab.start_lockstep(&web(&[0, 1, 2]))?;
        let vip = Version::V4.vip();
        let mut connections = KeepAlive::open_many(lab.client.netns(), vip, 48)?;
        for name in ["s1", "s2", "s3"] {
            ensure!(
                connections.iter().any(|c| c.server() == name),
                "no connection with {name}"
            );
        }
        lab.balancers[0].apply(&web(&[0, 1]))?;
        for connection in &mut connections {
            if connection.server() == "s3" {
                // Another server gets its next packet, and resets what it does not know.
                ensure!(
                    connection.ask().is_err(),
                    "a connection with the removed s3 lives on"
                );
            } else {
                connection.must_stay()?;
            }
        }
        let new = KeepAlive::open_many(lab.client.netns(), vip, 16)?;
        ensure!(
            new.iter().all(|c| c.server() != "s3"),
            "s3 still gets connections"
        );
        Ok(())
    });
}

#[test]
fn scenario_a_wrong_services_file_changes_nothing_and_says_where_it_is_wrong() {
    scenario(&Lab::builder(), |lab| {
        lab.start_lockstep(&web(&[0, 1, 2]))?;
        let balancer = &lab.balancers[0];
        let mut connections = KeepAlive::open_many(lab.client.netns(), Version::V4.vip(), 8)?;
        let epoch = balancer.status()?.epoch()?;

        let wrong = balancer.services_file();
        fs::write(&wrong, web(&[0]).replace("backends", "backend"))?;
        let file = wrong.display().to_string();
        for command in ["check", "diff", "apply"] {
            let output = balancer.run(&[command, &file])?;
            let says = [output.stdout, output.stderr].concat();
            let says = String::from_utf8_lossy(&says);
            ensure!(
                !output.status.success(),
                "`lockstep {command}` accepted the file"
            );
            for part in [file.as_str(), ":4", "backend", "backends"] {
                ensure!(
                    says.contains(part),
                    "`lockstep {command}` does not say {part:?}: {says}"
                );
            }
        }
        // The daemon watches the file: it has seen it, refused it, and says so.
        wait_until("the daemon reports the file's error", SOON, || {
            balancer.file_error()
        })?;
        ensure!(balancer.status()?.epoch()? == epoch, "the epoch changed");
        connections.iter_mut().try_for_each(KeepAlive::must_stay)?;

        balancer.apply(&web(&[0, 1]))?;
        ensure!(
            balancer.status()?.epoch()? > epoch,
            "the repaired file is not in force"
        );
        Ok(())
    });
}

/// Whether a server has answered at least so many requests.
fn served(lab: &Lab, server: usize, requests: u64) -> Result<Option<()>> {
    let server = lab.servers.get(server).context("no such server")?;
    Ok((server.requests()? >= requests).then_some(()))
}
