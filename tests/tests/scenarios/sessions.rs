//! Replicated sessions through the whole of Lockstep: what a client gets, and what an operator sees.

use anyhow::{Context, ensure};
use lockstep_tests::lab::{
    Behaviour, Content, Fault, Lab, Replicated, TestServer, Version, scenario, wait_until,
};
use nix::sys::signal::Signal;
use std::time::Duration;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(20);

#[test]
fn scenario_a_download_through_a_replicated_service_arrives_whole() {
    scenario(&Lab::builder().servers(3), |lab| {
        let content = Content::new(lab.run(), "large", 16 * MIB + 5, 3)?;
        lab.start_lockstep(&Replicated::web(&[0, 1, 2]).to_string())?;
        let arrived = lab
            .client
            .download(Version::V4.web(), &content, |_| Ok(()))?;
        arrived.must_be(&content)
    });
}

#[test]
fn scenario_an_operator_sees_a_session_and_switches_it_over() {
    scenario(&Lab::builder().servers(3).queues(2), |lab| {
        let content = Content::new(lab.run(), "large", 32 * MIB + 5, 3)?;
        lab.start_lockstep(&Replicated::web(&[0, 1, 2]).to_string())?;
        let balancer = &lab.balancers[0];
        let mut seen = None;
        let arrived = lab.client.download(Version::V4.web(), &content, |bytes| {
            if bytes < 5 * MIB || seen.is_some() {
                return Ok(());
            }
            let session = &balancer.sessions()?[0];
            seen = Some(session.clone());
            let primary = session.primary.as_deref().context("no primary")?;
            let to = ["s1", "s2", "s3"]
                .into_iter()
                .find(|name| *name != primary)
                .context("no other replica")?;
            let text = balancer.cli_text(&["session", &session.id])?;
            ensure!(text.contains("replicas can join"), "{text}");
            let text = balancer.cli_text(&["switchover", &session.id, "--to", to])?;
            ensure!(text.contains(&format!("{to} is primary")), "{text}");
            Ok(())
        })?;
        arrived.must_be(&content)?;
        let session = seen.context("no session was looked at")?;
        ensure!(
            session.service == "web" && session.state == "protected",
            "{session:?}"
        );
        // The client has everything before its connection has ended.
        let events = wait_until("the session ends", SOON, || {
            let events = balancer.cli_text(&["events"])?;
            Ok(events.contains("ended: closed").then_some(events))
        })?;
        for kind in ["opened", "switched", "asked for", "resumed"] {
            ensure!(events.contains(kind), "{kind} is missing:\n{events}");
        }
        let metrics = balancer.cli_text(&["metrics"])?;
        for line in [
            "lockstep_session_active{service=\"web\"} 0",
            "lockstep_sessions{state=\"protected\"} 0",
            "lockstep_sessions{state=\"closed\"} 0",
        ] {
            ensure!(
                metrics.lines().any(|l| l == line),
                "{line} is missing:\n{metrics}"
            );
        }
        // On a busy machine a primary may have stalled besides.
        let gaps = metrics
            .lines()
            .find_map(|line| line.strip_prefix("lockstep_session_switchover_gap_seconds_count "));
        ensure!(gaps.is_some_and(|gaps| gaps != "0"), "{metrics}");
        Ok(())
    });
}

#[test]
fn scenario_a_download_survives_its_killed_primary() {
    scenario(&Lab::builder().servers(3).queues(2), |lab| {
        let content = Content::new(lab.run(), "large", 64 * MIB + 5, 3)?;
        lab.start_lockstep(&Replicated::web(&[0, 1, 2]).to_string())?;
        let mut killed = None;
        let arrived = lab.client.download(Version::V4.web(), &content, |bytes| {
            if bytes > 5 * MIB && killed.is_none() {
                let primary = lab.balancers[0].sessions()?[0].primary()?;
                let server = &mut lab.servers[primary];
                let name = server.name();
                Fault::Kill.strike(server.nginx()?, &name, &lab.router)?;
                killed = Some(name);
            }
            Ok(())
        })?;
        arrived.must_be(&content)?;
        let events = lab.balancers[0].cli_text(&["events"])?;
        let name = killed.context("nobody was killed")?;
        ensure!(events.contains(&format!("switched {name} -> ")), "{events}");
        Ok(())
    });
}

#[test]
fn scenario_a_replica_comes_back_and_is_fed_from_a_file() {
    scenario(&Lab::builder().servers(3).queues(2), |lab| {
        let topology = lab.balancers[0].topology_file();
        let files = topology.with_file_name("spill");
        let table = format!("[sessions]\nspill = {files:?}\n");
        let text = std::fs::read_to_string(&topology)?;
        std::fs::write(&topology, format!("{table}\n{text}"))?;
        let service = Replicated::new("test", Version::V4, TestServer::PORT, &[0, 1, 2])
            .with("log_memory", "\"256KiB\"")
            .with("log_disk", "\"64MiB\"");
        lab.start_lockstep(&service.to_string())?;
        let mut servers = Vec::new();
        for server in &lab.servers {
            servers.push(server.start_test_server(server.v4().into(), &Behaviour::echo())?);
        }
        let mut client = lab.client.stream(Version::V4.vip())?;
        client.echo(4 * MIB)?;
        let balancer = &lab.balancers[0];
        ensure!(balancer.metric("lockstep_spill_files")? == 1);
        let stored = balancer.metric("lockstep_spill_stored_bytes")?;
        ensure!(stored > 3 * MIB, "{stored} bytes are in the file");

        let victim = (balancer.session()?.primary()? + 1) % 3;
        servers[victim].process().signal(Signal::SIGKILL)?;
        let name = lab.servers[victim].name();
        let about = [("replica", name.as_str())];
        balancer.wait_for_event("evicted", &about)?;
        client.echo(MIB)?;
        let address = lab.servers[victim].v4().into();
        servers[victim] = lab.servers[victim].start_test_server(address, &Behaviour::echo())?;
        wait_until("the replica is in sync again", SOON, || {
            let session = balancer.session()?;
            Ok((session.in_state("in-sync").len() == 3).then_some(()))
        })?;
        client.echo(MIB)?;
        ensure!(balancer.session()?.rejoinable);
        ensure!(balancer.metric("lockstep_spill_read_bytes_total")? > 3 * MIB);
        client.finish()?;
        client.must_end()?;
        balancer.wait_for_sessions(0)?;
        wait_until("the file is removed", SOON, || {
            Ok((balancer.metric("lockstep_spill_files")? == 0).then_some(()))
        })
    });
}
