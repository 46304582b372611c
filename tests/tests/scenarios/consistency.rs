//! Backends change and a balancer is lost at once: what is not concerned does not notice.

use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{KeepAlive, Lab, Version, scenario, wait_until, web};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 400;

#[test]
fn scenario_connections_of_unchanged_backends_survive_a_change_and_a_lost_balancer_at_once() {
    scenario(&Lab::builder().balancers(2).servers(5), |lab| {
        lab.start_lockstep(&web(&[0, 1, 2, 3]))?;
        let mut open = {
            let ports = [lab.router.count_balancer(0)?, lab.router.count_balancer(1)?];
            let mut open = Vec::new();
            for version in [Version::V4, Version::V6] {
                let netns = lab.client.netns();
                open.extend(KeepAlive::open_many(netns, version.vip(), CONNECTIONS / 2)?);
            }
            for port in &ports {
                ensure!(
                    port.packets("requests")? > 0,
                    "a balancer got no connection"
                );
            }
            open
        };
        let (with_s3, mut stay): (Vec<_>, Vec<_>) =
            open.drain(..).partition(|c| c.server() == "s3");
        ensure!(!with_s3.is_empty(), "no connection with s3");

        // s3 goes and s5 comes, on both, and the first balancer dies while they change; all the
        // time the connections are used.
        let changed = AtomicBool::new(false);
        let rounds = thread::scope(|scope| -> Result<usize> {
            let using = scope.spawn(|| -> Result<usize> {
                let mut rounds = 0;
                // Once more when all is done.
                while !changed.load(Ordering::Acquire) {
                    stay.iter_mut().try_for_each(KeepAlive::must_stay)?;
                    rounds += 1;
                }
                stay.iter_mut().try_for_each(KeepAlive::must_stay)?;
                Ok(rounds)
            });
            let done = change(lab);
            changed.store(true, Ordering::Release);
            let rounds = using.join().ok().context("a thread panicked")?;
            done?;
            rounds
        })?;
        ensure!(rounds > 0, "nothing was asked while it happened");

        // The others are reset, which is what the meter is for: those that b1 had seen.
        let status = lab.balancers[1].status()?;
        ensure!(status.flows_moved()? == 0, "a flow that is kept has moved");
        for mut connection in with_s3 {
            ensure!(
                connection.ask().is_err(),
                "a connection with the removed s3 lives on"
            );
        }
        let moved = lab.balancers[1].status()?.flows_moved()?;
        ensure!(moved > 0, "the meter does not show what moved");
        // What is new goes by the new ring: to s5 as well.
        let new = KeepAlive::open_many(lab.client.netns(), Version::V4.vip(), 48)?;
        ensure!(new.iter().any(|c| c.server() == "s5"), "s5 gets nothing");
        ensure!(
            new.iter().all(|c| c.server() != "s3"),
            "s3 gets connections"
        );
        Ok(())
    });
}

fn change(lab: &mut Lab) -> Result<()> {
    let after = web(&[0, 1, 3, 4]);
    lab.balancers[0].apply(&after)?;
    lab.balancers[0].kill_engine()?;
    lab.router.set_port("b0", false)?;
    lab.router.route_vips_to(&[1])?;
    lab.balancers[1].apply(&after)?;
    wait_until("b1 has the new backends", SOON, || {
        let backends = lab.balancers[1].status()?.backends("web")?;
        Ok(backends.contains(&"s5".to_owned()).then_some(()))
    })
}
