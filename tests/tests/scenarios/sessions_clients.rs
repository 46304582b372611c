//! Clients that half-close, reset, vanish, never read, or are none at all.

use anyhow::{Result, anyhow, ensure};
use etherparse::PacketBuilder;
use lockstep_tests::lab::{
    Behaviour, Client, Dice, Lab, Replicated, Router, Stream, TestServer, VIP_V4, Version,
    scenario, wait_until,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
const MIB: u64 = 1 << 20;
/// SYNs of a flood: many times what a worker takes as half-open sessions.
const FLOOD: u64 = 20_000;

fn test_service() -> Replicated {
    Replicated::new("test", Version::V4, TestServer::PORT, &[0, 1, 2])
}

/// A lab with a test server on each server.
fn start(lab: &mut Lab, service: &Replicated, how: &Behaviour) -> Result<Vec<TestServer>> {
    lab.start_lockstep(&service.to_string())?;
    let servers = lab.servers.iter();
    let started = servers.map(|server| server.start_test_server(server.v4().into(), how));
    started.collect()
}

#[test]
fn scenario_sessions_a_client_that_half_closes_gets_its_answer() {
    scenario(&Lab::builder(), |lab| {
        let servers = start(lab, &test_service(), &Behaviour::sink())?;
        let mut client = lab.client.stream(Version::V4.vip())?;
        client.send(8 * MIB)?;
        client.finish()?;
        let answer = String::from_utf8(client.rest()?)?;
        ensure!(answer.starts_with(&format!("{} ", 8 * MIB)), "{answer:?}");
        lab.balancers[0].wait_for_event("ended", &[("cause", "closed")])?;
        // Every replica got the same bytes, and then the end.
        for server in &servers {
            wait_until("a replica has got the end", SOON, || {
                Ok(server
                    .inputs()
                    .contains(&answer.trim_end().to_owned())
                    .then_some(()))
            })?;
        }
        lab.balancers[0].wait_for_sessions(0)
    });
}

#[test]
fn scenario_sessions_a_client_s_reset_ends_the_connections_of_all_replicas() {
    scenario(&Lab::builder(), |lab| {
        let servers = start(lab, &test_service(), &Behaviour::echo())?;
        let mut client = lab.client.stream(Version::V4.vip())?;
        client.echo(MIB)?;
        client.reset()?;
        ended(lab, &servers, "client reset")
    });
}

#[test]
fn scenario_sessions_a_client_that_vanishes_is_given_up() {
    scenario(&Lab::builder(), |lab| {
        let service = test_service()
            .with("keepalive", "\"500ms\"")
            .with("client_timeout", "\"2s\"");
        let servers = start(lab, &service, &Behaviour::echo())?;
        let mut idle = lab.client.stream(Version::V4.vip())?;
        idle.echo(MIB)?;
        // Silence alone is no reason: the keep-alive is answered.
        let quiet = Instant::now();
        wait_until("it was silent for longer than the limit", SOON, || {
            Ok((quiet.elapsed() > Duration::from_secs(4)).then_some(()))
        })?;
        idle.echo(MIB)?;
        lab.client.vanish(true)?;
        let gone = Instant::now();
        let result = ended(lab, &servers, "client gone");
        println!("given up after {:?}", gone.elapsed());
        lab.client.vanish(false)?;
        result
    });
}

/// The only session ends for this cause, and every replica's connection with it.
fn ended(lab: &Lab, servers: &[TestServer], cause: &str) -> Result<()> {
    let balancer = &lab.balancers[0];
    balancer.wait_for_event("ended", &[("cause", cause)])?;
    for server in servers {
        wait_until("a replica's connection has ended", SOON, || {
            Ok((!server.inputs().is_empty()).then_some(()))
        })?;
    }
    balancer.wait_for_sessions(0)
}

#[test]
fn scenario_sessions_a_client_that_never_reads_holds_up_nobody_and_can_go_on() {
    scenario(&Lab::builder(), |lab| {
        let size = 64 * MIB;
        let _servers = start(lab, &test_service(), &Behaviour::stream(size))?;
        let mut lazy = lab.client.stream(Version::V4.vip())?;
        lazy.send(1)?;
        let balancer = &lab.balancers[0];
        // Until its buffers are full.
        let mut last = None;
        wait_until("it is sent nothing more", SOON, || {
            let sent = Some(balancer.session()?.sent);
            let same = last == sent && sent > Some(0);
            last = sent;
            Ok(same.then_some(()))
        })?;
        let memory = balancer.engine_memory()?;
        for _ in 0..4 {
            whole(&mut lab.client.stream(Version::V4.vip())?, size)?;
        }
        let grown = balancer.engine_memory()?.saturating_sub(memory);
        ensure!(grown < 64 * MIB, "the engine has grown by {grown} bytes");
        lazy.expect(size, |_| Ok(()))?;
        lazy.finish()?;
        lazy.must_end()
    });
}

/// A download from its start to its end.
fn whole(client: &mut Stream, size: u64) -> Result<()> {
    client.send(1)?;
    client.expect(size, |_| Ok(()))?;
    client.finish()?;
    client.must_end()
}

#[test]
fn scenario_sessions_a_syn_flood_keeps_no_client_out() {
    scenario(&Lab::builder(), |lab| {
        let _servers = start(lab, &test_service(), &Behaviour::echo())?;
        let mut open = lab.client.stream(Version::V4.vip())?;
        open.echo(MIB / 4)?;
        let memory = lab.balancers[0].engine_memory()?;
        let mut dice = Dice::new()?;
        let done = AtomicBool::new(false);
        let (client, router) = (&lab.client, &lab.router);
        let served = std::thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let result = flood(client, router, &mut dice);
                done.store(true, Ordering::SeqCst);
                result
            });
            let mut served = 0;
            let mut serve = || -> Result<()> {
                while !done.load(Ordering::SeqCst) {
                    open.echo(1000)?;
                    let mut new = client.stream(Version::V4.vip())?;
                    new.echo(1000)?;
                    new.finish()?;
                    new.must_end()?;
                    served += 1;
                }
                Ok(())
            };
            let result = serve();
            let flooded = flood.join().map_err(|_| anyhow!("the flood panicked"));
            result.and(flooded?).map(|()| served)
        })?;
        println!("{served} clients served under a flood of {FLOOD}");
        ensure!(served > 0);
        // After it, too.
        open.echo(MIB / 4)?;
        lab.client.stream(Version::V4.vip())?.echo(MIB / 4)?;
        let grown = lab.balancers[0].engine_memory()?.saturating_sub(memory);
        ensure!(grown < 128 * MIB, "the engine has grown by {grown} bytes");
        Ok(())
    });
}

/// SYNs from addresses that nobody has (RFC 2544), by the client's link.
fn flood(client: &Client, router: &Router, dice: &mut Dice) -> Result<()> {
    let link = client.injector()?;
    let (from, to) = (client.netns().mac("eth0")?, router.client_mac()?);
    for _ in 0..FLOOD {
        let [a, b, c, d, ..] = dice.of(0..u64::MAX).to_be_bytes();
        let port = u16::from_be_bytes([a, b]) | 1024;
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(from, to)
            .ipv4([198, 18, c, d], VIP_V4.octets(), 64)
            .tcp(
                port,
                TestServer::PORT,
                u32::from_be_bytes([a, c, b, d]),
                65_535,
            )
            .syn()
            .write(&mut frame, &[])?;
        link.send(&frame)?;
    }
    Ok(())
}
