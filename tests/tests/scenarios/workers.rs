//! Several workers of a balancer, by RSS and by RPS.

use anyhow::{Result, ensure};
use lockstep_tests::lab::{
    Behaviour, Lab, Replicated, Server, Spread, TestServer, Version, Wrk, scenario, service, web,
};
use std::collections::BTreeSet;

const MIB: u64 = 1 << 20;

#[test]
fn scenario_workers_under_rss_process_what_comes_to_their_queues() {
    scenario(&Lab::builder().queues(2), |lab| {
        let link = load(lab, Version::V4)?;
        let balancer = &lab.balancers[0];
        ensure!(balancer.metric("lockstep_worker_taken_over_packets_total")? == 0);
        ensure!(balancer.metric("lockstep_worker_rx_polls_total")? == 0);
        let received = balancer.status()?.received_by_worker()?;
        ensure!(received.iter().all(|&n| n > 1_000), "{received:?}");
        ensure!(link > 0);
        Ok(())
    });
}

#[test]
fn scenario_workers_under_rps_one_receives_and_another_processes_ipv4() {
    scenario(&Lab::builder().spread(Spread::Rps), |lab| {
        one_receives_and_another_processes(lab, Version::V4)
    });
}

#[test]
fn scenario_workers_under_rps_one_receives_and_another_processes_ipv6() {
    scenario(&Lab::builder().spread(Spread::Rps), |lab| {
        one_receives_and_another_processes(lab, Version::V6)
    });
}

fn one_receives_and_another_processes(lab: &mut Lab, version: Version) -> Result<()> {
    load(lab, version)?;
    let balancer = &lab.balancers[0];
    let status = balancer.status()?;
    let received = status.received_by_worker()?;
    let taken = balancer.metric("lockstep_worker_taken_over_packets_total")?;
    ensure!(received[0] > 10_000 && received[1] == 0, "{received:?}");
    let processed = status.processed_by_worker()?;
    ensure!(processed[0] == 0 && processed[1] > 10_000, "{processed:?}");
    let text = balancer.cli_text(&["status"])?;
    ensure!(text.contains("PROCESSED"), "{text}");
    // All of it, but for what came since.
    ensure!(taken + 1_000 > received[0], "{taken} of {received:?}");
    ensure!(status.drops("handover_full")? == 0);
    // Its way is timed over both workers, where it was received.
    let timed = balancer.metric("lockstep_latency_seconds_count")?;
    ensure!(timed > 100, "{timed} samples");
    Ok(())
}

#[test]
fn scenario_workers_under_rps_that_all_receive_and_process() {
    scenario(&Lab::builder().queues(2).spread(Spread::Rps), |lab| {
        load(lab, Version::V4)?;
        let balancer = &lab.balancers[0];
        let received: u64 = balancer.status()?.received_by_worker()?.iter().sum();
        let taken = balancer.metric("lockstep_worker_taken_over_packets_total")?;
        // A worker has every second flow, wherever RSS put it.
        let share = taken as f64 / received as f64;
        ensure!((0.2..0.8).contains(&share), "{taken} of {received}");
        Ok(())
    });
}

/// Sessions end in a worker that has no socket: it sends in frames that it was lent.
#[test]
fn scenario_workers_under_rps_sessions_of_a_worker_without_sockets() {
    scenario(&Lab::builder().spread(Spread::Rps), |lab| echo(lab, 1));
}

#[test]
fn scenario_workers_under_rps_sessions_are_spread_by_client_and_port() {
    scenario(&Lab::builder().queues(2).spread(Spread::Rps), |lab| {
        echo(lab, 2)
    });
}

/// A veth can have as many queues as it was made with, and nothing else of what there is to set.
#[test]
fn scenario_workers_topology_apply_sets_what_a_veth_has_and_says_what_it_has_not() {
    scenario(&Lab::builder().queues(2), |lab| {
        let balancer = &lab.balancers[0];
        let file = balancer.topology_file().display().to_string();
        let one_queue = ["-L", "eth0", "rx", "1", "tx", "1"];
        balancer.netns().output("ethtool", &one_queue)?;
        let apply = |more: &[&str]| -> Result<Vec<String>> {
            let output = balancer.run(&[&["topology", "apply", &file], more].concat())?;
            // Not all of it can be.
            ensure!(output.status.code() == Some(1), "{output:?}");
            let text = String::from_utf8(output.stdout)?;
            Ok(text.lines().map(str::to_owned).collect())
        };
        let cannot = [
            "eth0: equal shares of the queues 0-1: cannot: Cannot get RX ring count: Operation not supported",
            "eth0: the symmetric hash key: cannot: Cannot get RX ring count: Operation not supported",
            "eth0: interrupts of queue 0 on core 0: cannot: the device has no interrupts of its own",
            "eth0: interrupts of queue 1 on core 1: cannot: the device has no interrupts of its own",
        ];
        let rows: [(&[&str], &str); 3] = [
            (
                &["--dry-run"],
                "eth0: queues 2: would run `ethtool -L eth0 rx 2 tx 2`",
            ),
            (&[], "eth0: queues 2: done (`ethtool -L eth0 rx 2 tx 2`)"),
            (&[], "eth0: queues 2: already"),
        ];
        for (more, queues) in rows {
            let said = apply(more)?;
            ensure!(said == [&[queues], cannot.as_slice()].concat(), "{said:#?}");
        }
        load(lab, Version::V4)?;
        Ok(())
    });
}

#[test]
fn scenario_workers_take_packets_in_themselves_where_the_topology_says_so() {
    scenario(&Lab::builder(), |lab| {
        let balancer = &lab.balancers[0];
        balancer.set_engine("receive = \"worker\"")?;
        let file = balancer.topology_file().display().to_string();
        let missing = "eth0 does not leave its packets to workers";
        let mend = format!("`lockstep topology apply {file}`");
        let check = || balancer.cli_text(&["topology", "check", &file]);
        ensure!(check()?.contains(missing));
        let found = balancer.run(&["doctor", "--topology", &file])?.stdout;
        let found = String::from_utf8(found)?;
        ensure!(found.contains(missing) && found.contains(&mend), "{found}");
        let said = balancer.run(&["topology", "apply", &file])?.stdout;
        let said = String::from_utf8(said)?;
        for prepared in ["napi_defer_hard_irqs", "gro_flush_timeout"] {
            let done = |line: &str| line.contains(prepared) && line.contains(": done (");
            ensure!(said.lines().any(done), "{prepared}: {said}");
        }
        ensure!(!check()?.contains(missing));
        load(lab, Version::V4)?;
        let balancer = &lab.balancers[0];
        let polls = balancer.metric("lockstep_worker_rx_polls_total")?;
        // A veth can be polled before Linux 6.13 only, and is served by interrupts otherwise: whichever it
        // is, the engine says it.
        let cannot = balancer
            .engine_log()?
            .contains("receive = \"worker\" does nothing");
        match cannot {
            true => ensure!(polls == 0, "it has asked {polls} times, though it cannot"),
            false => ensure!(polls > 100, "it has asked {polls} times"),
        }
        Ok(())
    });
}

/// Connections of one request each, and long ones; none fails. Returns the requests.
fn load(lab: &mut Lab, version: Version) -> Result<u64> {
    match version {
        Version::V4 => lab.start_lockstep(&web(&[0, 1, 2]))?,
        Version::V6 => {
            lab.start_lockstep(&service("web", version, &["80/tcp"], version, &[0, 1, 2]))?
        }
    }
    let short = Wrk::new(version.url()).seconds(2).connection_per_request();
    let long = Wrk::new(version.url()).seconds(2).connections(64);
    let mut requests = 0;
    for load in [short, long] {
        let report = lab.client.wrk(&load)?;
        ensure!(report.errors() == 0, "{report:?}");
        requests += report.requests;
    }
    ensure!(requests > 5_000, "only {requests} requests in four seconds");
    Ok(requests)
}

fn echo(lab: &mut Lab, workers: usize) -> Result<()> {
    let services = Replicated::new("test", Version::V4, TestServer::PORT, &[0, 1, 2]);
    lab.start_lockstep(&services.to_string())?;
    let start = |server: &Server| server.start_test_server(server.v4().into(), &Behaviour::echo());
    let mut servers = lab.servers.iter().map(start).collect::<Result<Vec<_>>>()?;
    let open = || lab.client.stream(Version::V4.vip());
    let mut clients = (0..16).map(|_| open()).collect::<Result<Vec<_>>>()?;
    for client in &mut clients {
        client.echo(MIB / 4)?;
    }
    let sessions = lab.balancers[0].sessions()?;
    let named: BTreeSet<_> = sessions.iter().map(|s| s.id.split('-').next()).collect();
    ensure!(
        sessions.len() == 16 && named.len() == workers,
        "{sessions:?}"
    );
    servers[0].process().kill()?;
    for client in &mut clients {
        client.echo(MIB / 4)?;
        client.finish()?;
        client.must_end()?;
    }
    lab.balancers[0].wait_for_sessions(0)
}
