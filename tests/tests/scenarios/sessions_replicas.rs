//! Replicas that come back, that are wrong, that are told to be primary.

use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{
    Behaviour, Dice, Lab, Replicated, Stream, TestServer, Version, scenario, wait_until,
};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const MIB: u64 = 1 << 20;

/// A lab with a test server on each server, all of which do the same.
fn started(lab: &mut Lab, service: &Replicated, how: &Behaviour) -> Result<Vec<TestServer>> {
    let all = vec![how.clone(); lab.servers.len()];
    started_each(lab, service, &all)
}

/// A lab with a test server on each server that does what it is told to.
fn started_each(lab: &mut Lab, service: &Replicated, how: &[Behaviour]) -> Result<Vec<TestServer>> {
    lab.start_lockstep(&service.to_string())?;
    let servers = lab.servers.iter().zip(how);
    let started = servers.map(|(server, how)| server.start_test_server(server.v4().into(), how));
    started.collect()
}

fn test_service() -> Replicated {
    Replicated::new("test", Version::V4, TestServer::PORT, &[0, 1, 2])
}

#[test]
fn scenario_sessions_a_restarted_replica_is_in_sync_again_and_can_be_the_next_primary() {
    scenario(&Lab::builder(), |lab| {
        let mut servers = started(lab, &test_service(), &Behaviour::echo())?;
        let mut client = lab.client.stream(Version::V4.vip())?;
        client.echo(MIB / 4)?;
        let balancer = &lab.balancers[0];
        let first = balancer.session()?.primary()?;
        let name = lab.servers[first].name();

        servers[first].process().kill()?;
        client.echo(MIB / 4)?;
        balancer.wait_for_event("evicted", &[("replica", &name)])?;
        let session =
            balancer.wait_for_session("has lost it", |s| s.in_state("in-sync").len() == 2)?;
        ensure!(session.primary()? != first, "{session:?}");

        let server = &lab.servers[first];
        servers[first] = server.start_test_server(server.v4().into(), &Behaviour::echo())?;
        balancer.wait_for_event("joined", &[("replica", &name)])?;
        client.echo(MIB / 8)?;
        balancer.wait_for_session("is whole", |s| s.in_state("in-sync").len() == 3)?;

        // Now the others die.
        for _ in 0..2 {
            let primary = balancer.wait_for_session("has a primary", |s| s.primary.is_some())?;
            let primary = primary.primary()?;
            let victim = if primary == first {
                other(&mut servers, first)?
            } else {
                primary
            };
            servers[victim].process().kill()?;
            let gone = lab.servers[victim].name();
            client.echo(MIB / 16)?;
            balancer.wait_for_event("evicted", &[("replica", &gone)])?;
        }
        ensure!(balancer.session()?.primary()? == first);
        client.echo(MIB / 16)?;
        client.finish()?;
        client.must_end()?;
        // It has been given all of it, from the first byte on.
        balancer.wait_for_event("ended", &[("cause", "closed")])?;
        let all = format!("{} ", MIB / 4 * 2 + MIB / 8 + MIB / 16 * 3);
        wait_until("it has got all input", SOON, || {
            let inputs = servers[first].inputs();
            Ok(inputs
                .iter()
                .any(|input| input.starts_with(&all))
                .then_some(()))
        })
    });
}

/// A server other than this one that still runs.
fn other(servers: &mut [TestServer], than: usize) -> Result<usize> {
    let mut others = (0..servers.len()).filter(|&index| index != than);
    others
        .find(|&index| servers[index].runs())
        .context("no other server runs")
}

#[test]
fn scenario_sessions_a_flipped_byte_is_never_seen_under_a_quorum_and_its_replica_is_evicted() {
    scenario(&Lab::builder(), |lab| {
        let size = 32 * MIB;
        let mut dice = Dice::new()?;
        let (who, at) = (dice.of(0..3) as usize, dice.of(0..size));
        let mut how = vec![Behaviour::stream(size); 3];
        how[who] = Behaviour::stream(size).flip(at);
        let service = test_service()
            .with("commit", "{ quorum = 2 }")
            .with("divergence", "\"evict\"");
        let _servers = started_each(lab, &service, &how)?;
        let mut client = lab.client.stream(Version::V4.vip())?;
        // Whoever is wrong, as the primary it must not be believed.
        be_primary(lab, who)?;
        download(&mut client, size)?;
        let name = lab.servers[who].name();
        let balancer = &lab.balancers[0];
        balancer.wait_for_event("diverged", &[("replica", &name)])?;
        balancer.wait_for_event("evicted", &[("replica", &name), ("cause", "differs")])?;
        let events = balancer.events()?;
        let wrong = events.iter().filter(|event| event.kind() == "diverged");
        ensure!(
            wrong.clone().all(|event| event.text("replica") == name),
            "{events:?}"
        );
        Ok(())
    });
}

#[test]
fn scenario_sessions_a_flipped_byte_of_another_replica_is_counted_under_a_primary() {
    scenario(&Lab::builder(), |lab| {
        let size = 32 * MIB;
        let mut dice = Dice::new()?;
        let (who, at) = (dice.of(0..3) as usize, dice.of(0..size));
        let mut how = vec![Behaviour::stream(size); 3];
        how[who] = Behaviour::stream(size).flip(at);
        let _servers = started_each(lab, &test_service(), &how)?;
        let mut client = lab.client.stream(Version::V4.vip())?;
        be_primary(lab, (who + 1) % 3)?;
        download(&mut client, size)?;
        let name = lab.servers[who].name();
        let balancer = &lab.balancers[0];
        balancer.wait_for_event("diverged", &[("replica", &name)])?;
        ensure!(balancer.metric("lockstep_replica_diverged_total")? == 1);
        let events = balancer.events()?;
        ensure!(
            events.iter().all(|event| event.kind() != "evicted"),
            "{events:?}"
        );
        Ok(())
    });
}

#[test]
fn scenario_sessions_a_difference_resets_the_session_where_the_policy_says_so() {
    scenario(&Lab::builder().servers(2), |lab| {
        let size = 4 * MIB;
        let how = [Behaviour::stream(size), Behaviour::stream(size).flip(MIB)];
        let service = Replicated::new("test", Version::V4, TestServer::PORT, &[0, 1])
            .with("divergence", "\"reset\"");
        let _servers = started_each(lab, &service, &how)?;
        let mut client = lab.client.stream(Version::V4.vip())?;
        be_primary(lab, 0)?;
        client.send(1)?;
        // The difference may be found before or after all has gone out, but before the end.
        let end = client.rest();
        ensure!(end.is_err(), "FIN, and not RST");
        lab.balancers[0].wait_for_event("ended", &[("cause", "outputs differed")])?;
        Ok(())
    });
}

#[test]
fn scenario_sessions_an_operator_chooses_the_primary() {
    scenario(&Lab::builder(), |lab| {
        let _servers = started(lab, &test_service(), &Behaviour::echo())?;
        let mut client = lab.client.stream(Version::V4.vip())?;
        client.echo(MIB / 4)?;
        for _ in 0..5 {
            let primary = lab.balancers[0].session()?.primary()?;
            be_primary(lab, (primary + 1) % 3)?;
            client.echo(MIB / 4)?;
        }
        let balancer = &lab.balancers[0];
        let events = balancer.events()?;
        let asked = events
            .iter()
            .filter(|event| event.is("switched", &[("cause", "asked for")]));
        ensure!(asked.count() == 5, "{events:?}");
        ensure!(balancer.metric("lockstep_session_switchovers_total")? >= 5);

        let id = balancer.session()?.id;
        for (id, to) in [(id.as_str(), "s9"), ("0-999999", "s1"), ("nonsense", "s1")] {
            let output = balancer.run(&["switchover", id, "--to", to])?;
            let says = String::from_utf8_lossy(&output.stderr);
            let named = says.contains(to) || says.contains(id);
            ensure!(!output.status.success() && named, "{output:?}");
        }
        client.echo(MIB / 4)?;
        client.finish()?;
        client.must_end()
    });
}

/// Makes a server the primary of the only session.
fn be_primary(lab: &Lab, index: usize) -> Result<()> {
    let (balancer, name) = (&lab.balancers[0], lab.servers[index].name());
    let ready = "has all replicas in sync";
    let count = lab.servers.len();
    let session = balancer.wait_for_session(ready, |s| s.in_state("in-sync").len() == count)?;
    if session.primary()? != index {
        balancer.cli_text(&["switchover", &session.id, "--to", &name])?;
    }
    let is = |s: &lockstep_tests::lab::Session| s.primary.as_deref() == Some(&name);
    balancer
        .wait_for_session(&format!("has the primary {name}"), is)
        .map(drop)
}

/// Asks for the stream, which must be right to its end.
fn download(client: &mut Stream, size: u64) -> Result<()> {
    client.send(1)?;
    client.expect(size, |_| Ok(()))?;
    client.finish()?;
    client.must_end()
}
