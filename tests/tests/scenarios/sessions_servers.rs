//! Servers that are not there, or do what no server should.

use anyhow::{Result, ensure};
use lockstep_tests::lab::{Behaviour, Lab, Replicated, Stream, TestServer, Version, scenario};
use nix::sys::signal::Signal;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

fn test_service() -> Replicated {
    Replicated::new("test", Version::V4, TestServer::PORT, &[0, 1, 2])
}

/// A test server on each server that is told what to do; the others have none.
fn start(lab: &Lab, how: &[Option<Behaviour>]) -> Result<Vec<Option<TestServer>>> {
    let servers = lab.servers.iter().zip(how);
    let started = servers.map(|(server, how)| {
        let how = how.as_ref();
        how.map(|how| server.start_test_server(server.v4().into(), how))
            .transpose()
    });
    started.collect()
}

/// What a client that tries to connect gets, and how soon.
fn refused(lab: &Lab) -> Result<Duration> {
    let start = Instant::now();
    let Err(error) = lab.client.stream(Version::V4.vip()) else {
        anyhow::bail!("somebody answers");
    };
    let kind = error
        .downcast_ref::<std::io::Error>()
        .map(std::io::Error::kind);
    ensure!(kind == Some(ErrorKind::ConnectionRefused), "{error:#}");
    Ok(start.elapsed())
}

#[test]
fn scenario_sessions_without_a_replica_at_the_start_the_client_is_refused() {
    scenario(&Lab::builder(), |lab| {
        let service = test_service().with("open_timeout", "\"500ms\"");
        lab.start_lockstep(&service.to_string())?;
        // Nobody listens.
        let after = refused(lab)?;
        ensure!(
            after < Duration::from_secs(3),
            "refused after {after:?} only"
        );
        // Nobody is there.
        for server in &lab.servers {
            lab.router.set_port(&server.name(), false)?;
        }
        let after = refused(lab)?;
        ensure!(
            after < Duration::from_secs(5),
            "refused after {after:?} only"
        );
        for cause in ["refused", "timed out"] {
            lab.balancers[0].wait_for_event("evicted", &[("cause", cause)])?;
        }
        lab.balancers[0].wait_for_sessions(0)
    });
}

#[test]
fn scenario_sessions_fewer_replicas_than_min_sync_refuse_the_client() {
    scenario(&Lab::builder(), |lab| {
        let service = test_service()
            .with("open_timeout", "\"500ms\"")
            .with("min_sync", "2");
        lab.start_lockstep(&service.to_string())?;
        let mut servers = start(lab, &[Some(Behaviour::echo()), None, None])?;
        refused(lab)?;
        let more = [None, Some(Behaviour::echo()), None];
        servers.extend(start(lab, &more)?);
        let mut client = lab.client.stream(Version::V4.vip())?;
        client.echo(MIB / 8)?;
        let session = lab.balancers[0].session()?;
        ensure!(session.state == "degraded", "{session:?}");
        Ok(())
    });
}

#[test]
fn scenario_sessions_a_replica_that_refuses_is_done_without() {
    scenario(&Lab::builder(), |lab| {
        lab.start_lockstep(&test_service().to_string())?;
        let echo = Some(Behaviour::echo());
        let _servers = start(lab, &[echo.clone(), None, echo])?;
        let mut client = lab.client.stream(Version::V4.vip())?;
        client.echo(MIB / 4)?;
        lab.balancers[0].wait_for_event("evicted", &[("replica", "s2")])?;
        client.finish()?;
        client.must_end()
    });
}

#[test]
fn scenario_sessions_end_by_rst_when_all_replicas_have_died() {
    scenario(&Lab::builder(), |lab| {
        let service = test_service().with("orphan_timeout", "\"1s\"");
        lab.start_lockstep(&service.to_string())?;
        let servers = start(lab, &vec![Some(Behaviour::echo()); 3])?;
        let mut client = lab.client.stream(Version::V4.vip())?;
        client.echo(MIB / 4)?;
        die(lab, &mut client, servers)?;
        let died = Instant::now();
        client.must_be_reset()?;
        let after = died.elapsed();
        ensure!(
            after > Duration::from_millis(900),
            "after {after:?} already"
        );
        ensure!(after < Duration::from_secs(10), "after {after:?} only");
        let balancer = &lab.balancers[0];
        balancer.wait_for_event("orphaned", &[])?;
        balancer.wait_for_event("ended", &[("cause", "too few replicas were left")])?;
        Ok(())
    });
}

#[test]
fn scenario_sessions_that_have_lost_all_replicas_are_saved_by_one_that_comes_back() {
    scenario(&Lab::builder(), |lab| {
        let service = test_service().with("orphan_timeout", "\"20s\"");
        lab.start_lockstep(&service.to_string())?;
        let servers = start(lab, &vec![Some(Behaviour::echo()); 3])?;
        let mut client = lab.client.stream(Version::V4.vip())?;
        client.echo(MIB / 4)?;
        die(lab, &mut client, servers)?;
        lab.balancers[0].wait_for_event("orphaned", &[])?;
        client.send(MIB / 16 - 1000)?;
        let _servers = start(lab, &[None, Some(Behaviour::echo()), None])?;
        client.expect(MIB / 16, |_| Ok(()))?;
        client.echo(MIB / 8)?;
        client.finish()?;
        client.must_end()
    });
}

/// All servers die with 1,000 bytes of input unread: that is RST. Without, the kernel would send the
/// FIN of all, which is how a session ends when its replicas agree.
fn die(lab: &Lab, client: &mut Stream, servers: Vec<Option<TestServer>>) -> Result<()> {
    let mut servers: Vec<TestServer> = servers.into_iter().flatten().collect();
    // Who has not said what the client has heard is not given what it says next.
    lab.balancers[0].wait_for_session("has heard all replicas out", |session| {
        let sent = session.sent;
        session
            .replicas
            .iter()
            .all(|replica| replica.output >= sent)
    })?;
    for server in &mut servers {
        server.process().signal(Signal::SIGSTOP)?;
    }
    let before = lab.balancers[0].session()?.received;
    client.send(1000)?;
    let given = lab.balancers[0].wait_for_session("has given all its input", |session| {
        let whole = session.received == before + 1000;
        whole
            && session
                .replicas
                .iter()
                .all(|replica| replica.input == session.received)
    });
    given.map(drop)
}

#[test]
fn scenario_sessions_end_by_rst_when_all_replicas_are_cut_off() {
    scenario(&Lab::builder(), |lab| {
        let service = test_service()
            .with("dead_after", "\"500ms\"")
            .with("orphan_timeout", "\"1s\"");
        lab.start_lockstep(&service.to_string())?;
        let _servers = start(lab, &vec![Some(Behaviour::echo()); 3])?;
        let mut client = lab.client.stream(Version::V4.vip())?;
        client.echo(MIB / 4)?;
        for server in &lab.servers {
            lab.router.set_port(&server.name(), false)?;
        }
        client.send(1000)?;
        client.must_be_reset()?;
        let balancer = &lab.balancers[0];
        balancer.wait_for_event("evicted", &[("cause", "timed out")])?;
        balancer.wait_for_event("ended", &[("cause", "too few replicas were left")])?;
        Ok(())
    });
}

#[test]
fn scenario_sessions_end_by_fin_when_all_replicas_agree_that_they_do() {
    let size = MIB;
    let stream = || Behaviour::stream(size);
    let how = [stream(), stream(), stream()];
    download(test_service(), how, size, |lab| {
        let balancer = &lab.balancers[0];
        balancer.wait_for_event("ended", &[("cause", "closed")])?;
        let events = balancer.events()?;
        let trouble = events
            .iter()
            .find(|event| ["switched", "evicted"].contains(&event.kind()));
        ensure!(trouble.is_none(), "{events:?}");
        Ok(())
    });
}

/// Downloads from servers of which some are wrong: every byte must be right.
fn download(
    service: Replicated,
    how: [Behaviour; 3],
    size: u64,
    check: impl FnOnce(&Lab) -> Result<()>,
) {
    scenario(&Lab::builder(), |lab| {
        lab.start_lockstep(&service.to_string())?;
        let _servers = start(lab, &how.map(Some))?;
        let mut client = lab.client.stream(Version::V4.vip())?;
        let in_sync = "has all replicas in sync";
        lab.balancers[0].wait_for_session(in_sync, |s| s.in_state("in-sync").len() == 3)?;
        client.send(1)?;
        client.expect(size, |_| Ok(()))?;
        client.finish()?;
        client.must_end()?;
        check(lab)
    });
}

#[test]
fn scenario_sessions_replicas_that_reset_are_done_without() {
    let size = 16 * MIB;
    let stream = || Behaviour::stream(size);
    let how = [stream().reset(size / 4), stream().reset(size / 2), stream()];
    download(test_service(), how, size, |lab| {
        for name in ["s1", "s2"] {
            lab.balancers[0].wait_for_event("evicted", &[("replica", name)])?;
        }
        Ok(())
    });
}

#[test]
fn scenario_sessions_replicas_that_close_early_do_not_end_the_session() {
    let size = 16 * MIB;
    let stream = || Behaviour::stream(size);
    let how = [stream().close(size / 4), stream().close(size / 2), stream()];
    download(test_service(), how, size, |lab| {
        for name in ["s1", "s2"] {
            let evicted = [("replica", name), ("cause", "left early")];
            lab.balancers[0].wait_for_event("evicted", &evicted)?;
        }
        Ok(())
    });
}

#[test]
fn scenario_sessions_garbage_of_one_replica_is_never_seen_under_a_quorum() {
    let size = 16 * MIB;
    let stream = || Behaviour::stream(size);
    let service = test_service()
        .with("commit", "{ quorum = 2 }")
        .with("divergence", "\"evict\"");
    download(
        service,
        [stream().garbage(), stream(), stream()],
        size,
        |lab| {
            let evicted = [("replica", "s1"), ("cause", "differs")];
            lab.balancers[0]
                .wait_for_event("evicted", &evicted)
                .map(drop)
        },
    );
}

#[test]
fn scenario_sessions_a_replica_that_never_reads_holds_up_nobody() {
    scenario(&Lab::builder(), |lab| {
        lab.start_lockstep(&test_service().to_string())?;
        let sink = Some(Behaviour::sink());
        let deaf = Some(Behaviour::sink().never_read());
        let _servers = start(lab, &[sink.clone(), deaf, sink])?;
        let size = 48 * MIB;
        let mut client = lab.client.stream(Version::V4.vip())?;
        let start = Instant::now();
        client.send(size)?;
        client.finish()?;
        let answer = String::from_utf8(client.rest()?)?;
        println!(
            "{size} bytes beside a replica that never reads in {:?}",
            start.elapsed()
        );
        ensure!(answer.starts_with(&format!("{size} ")), "{answer:?}");
        lab.balancers[0].wait_for_event("lagging", &[("replica", "s2")])?;
        Ok(())
    });
}

#[test]
fn scenario_sessions_a_quorum_larger_than_the_service_is_refused_by_check() {
    scenario(&Lab::builder(), |lab| {
        let good = test_service().with("commit", "{ quorum = 3 }").to_string();
        lab.start_lockstep(&good)?;
        let _servers = start(lab, &vec![Some(Behaviour::echo()); 3])?;
        let balancer = &lab.balancers[0];
        let file = balancer.services_file().with_file_name("wrong.toml");
        for (key, value, word) in [
            ("commit", "{ quorum = 4 }", "quorum"),
            ("min_sync", "4", "min_sync"),
        ] {
            std::fs::write(&file, test_service().with(key, value).to_string())?;
            for command in ["check", "apply"] {
                let output = balancer.run(&[command, &file.display().to_string()])?;
                let says = String::from_utf8_lossy(&output.stderr).into_owned()
                    + &String::from_utf8_lossy(&output.stdout);
                let clear = says.contains(word) && says.contains('4') && says.contains('3');
                ensure!(!output.status.success() && clear, "{command}: {output:?}");
            }
        }
        // What is in force is what was.
        lab.client.stream(Version::V4.vip())?.echo(MIB / 8)
    });
}
