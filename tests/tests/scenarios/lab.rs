//! The lab itself, without Lockstep: what the other scenarios build on.

use anyhow::ensure;
use lockstep_tests::lab::{KeepAlive, Lab, Version, Wrk, leftovers, scenario, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn scenario_kernel_balances_to_every_server_over_both_ip_versions() {
    scenario(&Lab::builder().servers(3), |lab| {
        lab.balancers[0].balance_by_nftables(3)?;
        let port = lab.router.count_balancer(0)?;
        for version in [Version::V4, Version::V6] {
            let before = lab.requests()?;
            let answer = lab.client.get(version.vip())?;
            ensure!(answer.status == 200, "{answer:?}");
            let report = lab.client.wrk(&Wrk::new(version.url()).seconds(1))?;
            ensure!(report.errors() == 0, "{report:?}");
            let served: Vec<u64> = lab
                .requests()?
                .iter()
                .zip(before)
                .map(|(now, before)| now - before)
                .collect();
            ensure!(served.iter().all(|&count| count > 0), "{served:?}");
            // The answers of requests that were under way at the end were not waited for.
            ensure!(
                served.iter().sum::<u64>() > report.requests,
                "{served:?} {report:?}"
            );
        }
        // With address translation the answers do pass the balancer: the counter can count.
        ensure!(port.packets("requests")? > 0);
        ensure!(port.packets("answers")? > 0);
        ensure!(port.packets("tunnelled")? == 0);
        Ok(())
    });
}

#[test]
fn scenario_the_router_spreads_connections_over_two_balancers() {
    scenario(&Lab::builder().balancers(2).servers(2), |lab| {
        lab.balancers
            .iter()
            .try_for_each(|balancer| balancer.balance_by_nftables(2))?;
        let ports = [lab.router.count_balancer(0)?, lab.router.count_balancer(1)?];
        for version in [Version::V4, Version::V6] {
            let before = [ports[0].packets("requests")?, ports[1].packets("requests")?];
            let mut open = KeepAlive::open_many(lab.client.netns(), version.vip(), 32)?;
            open.iter_mut().try_for_each(KeepAlive::must_stay)?;
            for (port, before) in ports.iter().zip(before) {
                ensure!(
                    port.packets("requests")? > before,
                    "a balancer got no connection"
                );
            }
        }
        Ok(())
    });
}

#[test]
fn scenario_an_interrupted_demo_leaves_nothing() {
    let (mut demo, run) = demo_with_a_lab();
    kill(pid(&demo), Signal::SIGINT).unwrap();
    let status = wait_until("the demo has ended", SOON, || Ok(demo.try_wait()?)).unwrap();
    assert_eq!(status.code(), Some(128 + Signal::SIGINT as i32));
    assert_eq!(leftovers(&run).unwrap(), Vec::<String>::new());
}

#[test]
fn scenario_what_a_killed_run_left_is_removed_by_the_next() {
    let (mut demo, run) = demo_with_a_lab();
    demo.kill().unwrap();
    demo.wait().unwrap();
    assert!(
        !leftovers(&run).unwrap().is_empty(),
        "kill -9 runs no destructors"
    );
    drop(Lab::builder().servers(1).start().unwrap());
    assert_eq!(leftovers(&run).unwrap(), Vec::<String>::new());
}

#[test]
fn scenario_nothing_is_left_of_a_lab() {
    let start = Instant::now();
    let lab = Lab::builder()
        .balancers(2)
        .servers(3)
        .queues(2)
        .start()
        .unwrap();
    let run = lab.run().name().to_owned();
    let there = leftovers(&run).unwrap();
    assert_eq!(
        there.iter().filter(|what| what.starts_with(&run)).count(),
        7,
        "{there:?}"
    );
    assert_eq!(
        there.iter().filter(|what| what.ends_with("/bpf")).count(),
        2,
        "{there:?}"
    );
    drop(lab);
    assert_eq!(leftovers(&run).unwrap(), Vec::<String>::new());
    println!("up and down in {:?}", start.elapsed());
}

/// The demo, at a moment when it has a lab, and the lab's run.
fn demo_with_a_lab() -> (Child, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep-demo"));
    let demo = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let run = format!("ls{}x0", demo.id());
    wait_until("the demo has a lab", SOON, || {
        Ok((leftovers(&run)?.len() > 4).then_some(()))
    })
    .unwrap();
    (demo, run)
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}
