//! Memory and disks that are full: sessions go on, and say what they have lost.

use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{
    Behaviour, Lab, Replicated, Server, Stream, TestServer, Tmpfs, Version, Wrk, scenario,
    wait_until,
};
use nix::sys::signal::Signal;
use std::fs;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;

fn test_service() -> Replicated {
    Replicated::new("test", Version::V4, TestServer::PORT, &[0, 1, 2])
}

fn start_sinks(lab: &Lab) -> Result<Vec<TestServer>> {
    let start = |server: &Server| server.start_test_server(server.v4().into(), &Behaviour::sink());
    lab.servers.iter().map(start).collect()
}

/// A disk of this size for logs, three servers, and a client that has sent more than memory takes.
fn past_the_memory(lab: &mut Lab, disk: u64) -> Result<(Tmpfs, Vec<TestServer>, Stream)> {
    let balancer = &lab.balancers[0];
    let disk = balancer.tmpfs("spill", disk)?;
    balancer.set_sessions(&format!("spill = {:?}", disk.path()))?;
    let service = test_service()
        .with("log_memory", "\"256KiB\"")
        .with("log_disk", "\"48MiB\"");
    lab.start_lockstep(&service.to_string())?;
    let servers = start_sinks(lab)?;
    let mut client = lab.client.stream(Version::V4.vip())?;
    client.send(16 * MIB)?;
    Ok((disk, servers, client))
}

#[test]
fn scenario_sessions_input_past_the_memory_is_kept_on_disk_and_a_replica_joins_from_there() {
    scenario(&Lab::builder(), |lab| {
        let (disk, mut servers, mut client) = past_the_memory(lab, 64 * MIB)?;
        let balancer = &lab.balancers[0];
        let primary = balancer.session()?.primary()?;
        let name = lab.servers[primary].name();
        servers[primary].process().kill()?;
        balancer.wait_for_event("evicted", &[("replica", &name)])?;
        client.send(MIB)?;
        wait_until("most of the input is on the disk", SOON, || {
            Ok((used(disk.path())? > 12 * MIB).then_some(()))
        })?;
        ensure!(balancer.session()?.rejoinable);

        let server = &lab.servers[primary];
        servers[primary] = server.start_test_server(server.v4().into(), &Behaviour::sink())?;
        balancer.wait_for_event("joined", &[("replica", &name)])?;
        client.send(MIB)?;
        client.finish()?;
        let answer = String::from_utf8(client.rest()?)?;
        ensure!(answer.starts_with(&format!("{} ", 18 * MIB)), "{answer:?}");
        wait_until("the replica that joined has got all of it", SOON, || {
            let inputs = servers[primary].inputs();
            Ok(inputs.contains(&answer.trim_end().to_owned()).then_some(()))
        })?;
        wait_until("the session's file is removed", SOON, || {
            Ok((used(disk.path())? == 0).then_some(()))
        })
    });
}

#[test]
fn scenario_sessions_a_full_disk_ends_no_session_but_its_chance_of_rejoining() {
    scenario(&Lab::builder(), |lab| {
        let (_disk, mut servers, mut client) = past_the_memory(lab, 2 * MIB)?;
        let balancer = &lab.balancers[0];
        balancer.wait_for_event("log-cut", &[])?;
        let session = balancer.session()?;
        ensure!(
            !session.rejoinable && session.in_state("in-sync").len() == 3,
            "{session:?}"
        );

        // What is in sync stays so, and the loss of one is no loss to the client.
        servers[session.primary()?].process().kill()?;
        client.send(16 * MIB)?;
        client.finish()?;
        let answer = String::from_utf8(client.rest()?)?;
        ensure!(answer.starts_with(&format!("{} ", 32 * MIB)), "{answer:?}");

        // A new session has its own chance.
        balancer.wait_for_sessions(0)?;
        let mut client = lab.client.stream(Version::V4.vip())?;
        client.send(KIB)?;
        let given = |s: &lockstep_tests::lab::Session| s.received >= KIB;
        let session = balancer.wait_for_session("has got its input", given)?;
        ensure!(session.rejoinable, "{session:?}");
        Ok(())
    });
}

/// Bytes of the files in a directory.
fn used(directory: &std::path::Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        // Gone in the meantime is not there.
        bytes += entry?.metadata().map_or(0, |file| file.len());
    }
    Ok(bytes)
}

#[test]
fn scenario_sessions_one_frozen_replica_costs_the_others_of_a_thousand_sessions_nothing() {
    frozen(Duration::from_secs(4));
}

#[test]
#[ignore = "a replica is frozen for a minute: make test-long"]
fn scenario_sessions_long_one_frozen_replica_costs_the_others_of_a_thousand_sessions_nothing() {
    frozen(Duration::from_secs(60));
}

const SESSIONS: usize = 1_000;
const LOG_MEMORY: u64 = 32 * MIB;
const BUFFER: u64 = 32 * KIB;

/// A thousand connections post all the while; a replica is frozen for some time.
fn frozen(time: Duration) {
    scenario(&Lab::builder(), |lab| {
        let (sessions, connections) = (SESSIONS as u64 + 100, 3 * SESSIONS as u64 + 300);
        lab.balancers[0].set_sessions(&format!(
            "max = {sessions}\nconnections = {connections}\nclient_buffer = {BUFFER}\n\
             replica_buffer = {BUFFER}\nlog_memory = {LOG_MEMORY}"
        ))?;
        let service = Replicated::web(&[0, 1, 2]).with("max_lag", "\"64KiB\"");
        lab.start_lockstep(&service.to_string())?;
        let before = lab.balancers[0].engine_memory()?;
        let load = lab.client.start_wrk(&posts(lab, time)?)?;
        let balancer = &lab.balancers[0];
        wait_until("all sessions are there", SOON, || {
            Ok((balancer.sessions()?.len() >= SESSIONS).then_some(()))
        })?;
        let sessions_now = balancer.sessions()?;
        let frozen = sessions_now.first().context("no session")?.primary()?;
        let other = (frozen + 1) % 3;

        let rate_before = rate(&lab.servers[other], time)?;
        lab.servers[frozen].nginx()?.signal_all(Signal::SIGSTOP)?;
        let rate_frozen = rate(&lab.servers[other], time)?;
        let balancer = &lab.balancers[0];
        let memory = balancer.engine_memory()?;
        lab.servers[frozen].nginx()?.signal_all(Signal::SIGCONT)?;
        println!("{rate_before:.0} requests/s before, {rate_frozen:.0} with a frozen replica");
        println!(
            "memory: {} MiB before, {} MiB frozen",
            before / MIB,
            memory / MIB
        );
        let log = balancer.metric("lockstep_session_log_bytes")?;
        ensure!(log <= LOG_MEMORY, "{log} bytes of input are kept");
        let report = load.report()?;
        ensure!(report.errors() == 0, "{report:?}");
        ensure!(rate_frozen >= 0.95 * rate_before);
        let cap = LOG_MEMORY + 2 * BUFFER * (sessions + connections) + 64 * MIB;
        ensure!(
            memory < before + cap,
            "{memory} bytes, {before} before, with a cap of {cap}"
        );
        Ok(())
    });
}

/// Posts of 8 KiB by all connections, for as long as both measurements take. Each connection waits
/// between two of them: a load that is offered, and not one that takes all that there is.
fn posts(lab: &Lab, time: Duration) -> Result<Wrk> {
    let script = lab.run().dir().join("post.lua");
    let text = "wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", 8192)\n\
                function delay() return math.random(900, 1100) end\n";
    fs::write(&script, text)?;
    let url = Version::V4.url() + "same";
    let load = Wrk::new(url).connections(SESSIONS as u32).script(script);
    Ok(load.seconds(time.as_secs() * 2 + 12))
}

/// The requests a second that a server answers over some time.
fn rate(server: &Server, time: Duration) -> Result<f64> {
    let (start, before) = (Instant::now(), server.requests()?);
    wait_until("the time is over", time * 2, || {
        Ok((start.elapsed() >= time).then_some(()))
    })?;
    Ok((server.requests()? - before) as f64 / start.elapsed().as_secs_f64())
}
