//! The lab itself, without Lockstep: what the other scenarios build on.

use anyhow::ensure;
use lockstep_tests::lab::{Lab, Version, Wrk, leftovers, scenario};
use std::time::Instant;

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
