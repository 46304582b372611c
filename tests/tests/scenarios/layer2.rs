//! VIPs announced on the link: the router asks in the rack who has them.

use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{Lab, Version, Wrk, scenario, wait_until, web};
use nix::sys::signal::Signal;
use std::fs;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
const SECOND: Duration = Duration::from_secs(1);
const HOLD: Duration = Duration::from_millis(500);

/// Both balancers announce on the link, and know each other by their addresses there.
fn start(lab: &mut Lab) -> Result<()> {
    let key = lab.run().dir().join("layer2.key");
    fs::write(&key, "a key of this scenario\n")?;
    for (index, balancer) in lab.balancers.iter().enumerate() {
        let peer = &lab.balancers[1 - index];
        let config = format!(
            "[node]\nname = \"{}\"\n\n[layer2]\ninterfaces = [\"eth0\"]\nlisten = \"{}\"\n\
             peers = [{{ name = \"{}\", address = \"{}\" }}]\nhold = \"500ms\"\nkey_file = {key:?}\n\n\
             [shutdown]\ndeadline = \"1s\"\n",
            balancer.name(),
            balancer.v4(),
            peer.name(),
            peer.v4()
        );
        fs::write(balancer.config_file(), config)?;
    }
    lab.start_lockstep(&web(&[0, 1, 2]))?;
    lab.router.vips_in_the_rack()?;
    settled(lab)
}

/// Who owns a VIP, as a balancer says.
fn owner_by(lab: &Lab, index: usize, version: Version) -> Result<Option<String>> {
    let answer = lab.balancers[index].cli(&["layer2"])?;
    let vip = version.vip().to_string();
    let vips = answer["vips"].as_array().context("no list of VIPs")?;
    let found = vips.iter().find(|v| v["vip"] == vip.as_str());
    Ok(found.and_then(|v| v["owner"].as_str()).map(String::from))
}

fn owner(lab: &Lab, version: Version) -> Result<Option<usize>> {
    let says = [owner_by(lab, 0, version)?, owner_by(lab, 1, version)?];
    if says[0] != says[1] {
        return Ok(None);
    }
    let mut names = lab.balancers.iter().map(|b| Some(b.name()));
    Ok(names.position(|name| name == says[0]))
}

/// Both say the same about each VIP, the router knows it, and requests are answered; no VIP has
/// yet to go back to whom it belongs.
fn settled(lab: &Lab) -> Result<()> {
    let long = 4.0 * HOLD.as_secs_f64();
    wait_until(
        "both have heard each other for longer than `hold`",
        SOON,
        || {
            for balancer in &lab.balancers {
                let answer = balancer.cli(&["layer2"])?;
                let peer = &answer["peers"][0];
                let heard = peer["for_seconds"].as_f64().unwrap_or_default();
                if peer["hears_us"] != true || heard < long {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        },
    )?;
    for version in [Version::V4, Version::V6] {
        wait_until("a request is answered", SOON, || {
            Ok(lab.client.get(version.vip()).ok())
        })?;
        wait_until("both agree, and the router with them", SOON, || {
            let Some(owner) = owner(lab, version)? else {
                return Ok(None);
            };
            Ok(router_sends_to(lab, version, owner)?.then_some(()))
        })?;
    }
    Ok(())
}

fn router_sends_to(lab: &Lab, version: Version, index: usize) -> Result<bool> {
    let mac = lab.balancers[index].netns().mac("eth0")?;
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    Ok(lab.router.neighbor(version.vip())? == Some(mac))
}

fn must_own(lab: &Lab, version: Version) -> Result<usize> {
    owner(lab, version)?.context("they do not agree who owns the VIP")
}

/// The time until the router sends to a balancer, and requests are answered.
fn comes_over(lab: &Lab, version: Version, to: usize, since: Instant) -> Result<Duration> {
    wait_until("the router sends to the other balancer", SOON, || {
        Ok(router_sends_to(lab, version, to)?.then_some(()))
    })?;
    let took = since.elapsed();
    let answer = lab.client.get(version.vip())?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(took)
}

#[test]
fn scenario_a_dead_balancers_vip_is_taken_over_within_a_second() {
    scenario(&Lab::builder().balancers(2), |lab| {
        start(lab)?;
        for version in [Version::V4, Version::V6] {
            let dead = must_own(lab, version)?;
            let port = lab.balancers[dead].name();
            let killed = Instant::now();
            lab.router.set_port(&port, false)?;
            let took = comes_over(lab, version, 1 - dead, killed)?;
            ensure!(took <= SECOND, "{version:?} came over after {took:?}");
            // It believes that the other one died. When it is back, one of both lets go.
            lab.router.set_port(&port, true)?;
            settled(lab)?;
        }
        Ok(())
    });
}

#[test]
fn scenario_a_daemon_that_ends_or_is_killed_hands_its_vips_over_without_a_failed_request() {
    scenario(&Lab::builder().balancers(2), |lab| {
        start(lab)?;
        for orderly in [true, false] {
            let loads = [Version::V4, Version::V6].map(|version| {
                let load = Wrk::new(version.url()).seconds(5).connections(4);
                lab.client.start_wrk(&load.connection_per_request())
            });
            let (leaves, other) = match must_own(lab, Version::V4)? {
                0 => (0, 1),
                _ => (1, 0),
            };
            let balancer = &mut lab.balancers[leaves];
            let since = Instant::now();
            if orderly {
                let status = balancer.end_daemon(Signal::SIGTERM)?;
                ensure!(status.success(), "the daemon ended with {status}");
            } else {
                balancer.kill_daemon()?;
            }
            // The engine of this one goes on until the router knows the other: it misses nothing.
            wait_until("the router sends to the other balancer", SOON, || {
                Ok(router_sends_to(lab, Version::V4, other)?.then_some(()))
            })?;
            let took = since.elapsed();
            ensure!(orderly || took <= SECOND, "it came over after {took:?}");
            for load in loads {
                let report = load?.report()?;
                ensure!(report.errors() == 0, "orderly: {orderly}: {report:?}");
            }
            lab.balancers[leaves].start_daemon()?;
            settled(lab)?;
        }
        Ok(())
    });
}

#[test]
fn scenario_a_restart_of_the_daemon_moves_no_vip_on_the_link() {
    scenario(&Lab::builder().balancers(2), |lab| {
        start(lab)?;
        let restarts = must_own(lab, Version::V4)?;
        let other = 1 - restarts;
        let claims = |lab: &Lab| -> Result<Option<u64>> {
            Ok(lab.balancers[other].cli(&["layer2"])?["claims"].as_u64())
        };
        let before = claims(lab)?;
        let load = Wrk::new(Version::V4.url()).seconds(4).connections(4);
        let load = lab.client.start_wrk(&load.connection_per_request())?;
        let balancer = &mut lab.balancers[restarts];
        let status = balancer.end_daemon(Signal::SIGUSR1)?;
        ensure!(status.success(), "the daemon ended with {status}");
        balancer.start_daemon()?;
        settled(lab)?;
        ensure!(must_own(lab, Version::V4)? == restarts, "the VIP moved");
        ensure!(claims(lab)? == before, "the other balancer claimed a VIP");
        let report = load.report()?;
        ensure!(report.errors() == 0, "{report:?}");

        // One that is not back in time is not waited for.
        let status = lab.balancers[restarts].end_daemon(Signal::SIGUSR1)?;
        let ended = Instant::now();
        ensure!(status.success(), "the daemon ended with {status}");
        let took = comes_over(lab, Version::V4, other, ended)?;
        ensure!(took <= SECOND, "it came over after {took:?}");
        Ok(())
    });
}

#[test]
fn scenario_a_vip_without_an_engine_behind_it_is_let_go() {
    scenario(&Lab::builder().balancers(2), |lab| {
        start(lab)?;
        let without = must_own(lab, Version::V4)?;
        let killed = Instant::now();
        lab.balancers[without].kill_engine()?;
        let took = comes_over(lab, Version::V4, 1 - without, killed)?;
        ensure!(took <= SECOND, "it came over after {took:?}");
        let answer = lab.balancers[without].cli(&["layer2"])?;
        ensure!(answer["vips"][0]["willing"] == false, "{answer}");
        let text = lab.balancers[1 - without].cli_text(&["layer2"])?;
        ensure!(text.contains("(here)"), "{text}");
        Ok(())
    });
}
