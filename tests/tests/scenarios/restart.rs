//! Engines that end and begin under load, and what carries packets meanwhile.

use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{
    Counters, KeepAlive, Lab, RunningWrk, Version, Wrk, scenario, wait_until, web,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// About 2,000 requests a second over 32 connections that stay open.
fn load(lab: &Lab, version: Version, seconds: u64) -> Result<RunningWrk> {
    let script = lab.run().dir().join("paced.lua");
    std::fs::write(&script, "function delay() return 15 end\n")?;
    let load = Wrk::new(version.url())
        .seconds(seconds)
        .connections(32)
        .script(script);
    lab.client.start_wrk(&load)
}

/// Waits until the balancer has sent so many packets more into tunnels.
fn tunnelled(link: &Counters, says: &str, more: u64) -> Result<()> {
    let before = link.packets("tunnelled")?;
    wait_until(says, SOON, || {
        Ok((link.packets("tunnelled")? >= before + more).then_some(()))
    })
}

#[test]
fn scenario_a_killed_engine_under_load_fails_no_request_nor_does_its_successor() {
    for version in [Version::V4, Version::V6] {
        scenario(&Lab::builder(), |lab| {
            lab.start_lockstep(&web(&[0, 1, 2]))?;
            let kernel = lab.balancers[0].count_kernel_path()?;
            let link = lab.router.count_balancer(0)?;
            let mut open = KeepAlive::open_many(lab.client.netns(), version.vip(), 12)?;
            let load = load(lab, version, 8)?;
            tunnelled(&link, "the load has begun", 2_000)?;

            lab.balancers[0].kill_engine()?;
            tunnelled(&link, "the XDP program carries", 2_000)?;
            open.iter_mut().try_for_each(KeepAlive::must_stay)?;

            lab.balancers[0].start_engine()?;
            wait_until("the new engine has the packets", SOON, || {
                Ok((lab.balancers[0].status()?.received()? > 1_000).then_some(()))
            })?;
            open.iter_mut().try_for_each(KeepAlive::must_stay)?;
            let report = load.report()?;
            println!("{version:?}: {report:?}");
            ensure!(report.errors() == 0, "{report:?}");
            ensure!(report.rate > 1_000.0, "{report:?}");
            ensure!(kernel.packets("vip")? == 0, "the kernel has packets");
            Ok(())
        });
    }
}

#[test]
fn scenario_without_a_daemon_a_new_engine_leaves_packets_to_what_its_predecessor_left() {
    scenario(&Lab::builder(), |lab| {
        lab.start_lockstep(&web(&[0, 1, 2]))?;
        let mut open = KeepAlive::open_many(lab.client.netns(), Version::V4.vip(), 12)?;
        lab.balancers[0].kill_daemon()?;
        lab.balancers[0].kill_engine()?;
        lab.balancers[0].start_engine()?;
        // It has no snapshot, so its workers have no packets.
        open.iter_mut().try_for_each(KeepAlive::must_stay)?;
        let received = lab.balancers[0].status()?.received()?;
        ensure!(received == 0, "{received} packets");
        let metrics = lab.balancers[0].cli_text(&["metrics"])?;
        let carried = metrics
            .lines()
            .find(|line| line.starts_with("lockstep_xdp_packets_total") && line.contains("carried"))
            .and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        ensure!(carried >= Some(12), "{carried:?} in {metrics}");

        lab.balancers[0].start_daemon()?;
        lab.balancers[0].apply(&web(&[1]))?;
        let answer = lab.client.get(Version::V4.vip())?;
        ensure!(answer.body == "s2\n", "{answer:?}");
        Ok(())
    });
}

#[test]
fn scenario_an_engine_that_takes_over_fails_no_request_and_keeps_flows_of_draining_backends() {
    scenario(&Lab::builder(), |lab| {
        lab.start_lockstep(&web(&[0, 1, 2]))?;
        let kernel = lab.balancers[0].count_kernel_path()?;
        let link = lab.router.count_balancer(0)?;
        let mut open = KeepAlive::open_many(lab.client.netns(), Version::V4.vip(), 24)?;
        let draining = open.iter().filter(|c| c.server() == "s1").count();
        let steady = open.iter().position(|c| c.server() == "s1");
        let mut steady = open.remove(steady.context("none of 24 connections is with s1")?);
        // From here on no hash gives s1 any more.
        lab.balancers[0].cli(&["drain", "s1", "--deadline", "60s"])?;
        open.iter_mut().try_for_each(KeepAlive::must_stay)?;
        let load = load(lab, Version::V4, 8)?;
        tunnelled(&link, "the load has begun", 2_000)?;

        for _ in 0..2 {
            let pid = lab.balancers[0].engine()?.pid();
            let over = AtomicBool::new(false);
            let (balancer, steady) = (&mut lab.balancers[0], &mut steady);
            let asked = std::thread::scope(|scope| {
                let asked = scope.spawn(|| -> Result<u32> {
                    let mut asked = 0;
                    while !over.load(Ordering::Relaxed) {
                        steady.must_stay()?;
                        asked += 1;
                    }
                    Ok(asked)
                });
                let taken_over = balancer.take_over();
                over.store(true, Ordering::Relaxed);
                taken_over?;
                asked.join().map_err(|_| anyhow::anyhow!("it panicked"))?
            })?;
            ensure!(asked > 20, "s1 was asked {asked} times meanwhile");
            ensure!(lab.balancers[0].engine()?.pid() != pid);
            open.iter_mut().try_for_each(KeepAlive::must_stay)?;
            wait_until("the new engine has the packets", SOON, || {
                Ok((lab.balancers[0].status()?.received()? > 500).then_some(()))
            })?;
            open.iter_mut().try_for_each(KeepAlive::must_stay)?;
            let flows = lab.balancers[0].cli_text(&["flows"])?;
            let with_s1 = flows.lines().filter(|line| line.contains("s1")).count();
            ensure!(with_s1 >= draining, "{with_s1} of {draining}:\n{flows}");
        }
        let report = load.report()?;
        println!("{report:?}");
        ensure!(report.errors() == 0, "{report:?}");
        ensure!(kernel.packets("vip")? == 0, "the kernel has packets");
        Ok(())
    });
}
