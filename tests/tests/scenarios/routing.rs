//! Routers that send clients to the balancers that serve: figure 4.12 of seed 003. Routes come
//! when a balancer is there, and leave before it stops serving, or soon after it has.

use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{
    Dice, Lab, Program, Routing, VIP_V4, VIP_V6, Version, Way, Wrk, scenario, service, wait_until,
    web,
};
use nix::sys::signal::Signal;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

const ALL: [usize; 4] = [0, 1, 2, 3];
/// Sessions of BGP have to come up first.
const START: Duration = Duration::from_secs(30);
/// The goal for every change.
const SOON: Duration = Duration::from_secs(1);
/// A second service's address.
const OTHER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);
/// Random changes of which the delay is measured.
const CHANGES: usize = 200;

#[test]
fn scenario_routes_of_four_balancers_follow_what_they_do_in_gobgp() {
    scenario(&four(), |lab| life(lab, Program::Gobgp));
}

#[test]
fn scenario_routes_of_four_balancers_follow_what_they_do_in_frr() {
    scenario(&four(), |lab| life(lab, Program::Frr));
}

#[test]
fn scenario_routes_of_four_balancers_follow_what_they_do_in_bird() {
    scenario(&four(), |lab| life(lab, Program::Bird));
}

#[test]
fn scenario_two_hundred_random_changes_are_in_the_router_within_a_second() {
    scenario(&four(), |lab| {
        let _routing = start(lab, Program::Bird, Way::Reflector, "")?;
        let mut delays = random_changes(lab)?;
        delays.sort_unstable();
        let at = |percent: usize| delays[(delays.len() - 1) * percent / 100];
        println!(
            "{} changes: p50 {:?}, p90 {:?}, p99 {:?}, longest {:?}",
            delays.len(),
            at(50),
            at(90),
            at(99),
            at(100)
        );
        ensure!(at(99) <= SOON, "p99 is {:?}", at(99));
        Ok(())
    });
}

#[test]
fn scenario_a_balancer_that_is_cut_off_or_frozen_leaves_frr_within_a_second_by_bfd() {
    scenario(&Lab::builder().balancers(2), |lab| bfd(lab, Program::Frr));
}

#[test]
fn scenario_a_balancer_that_is_cut_off_or_frozen_leaves_bird_within_a_second_by_bfd() {
    scenario(&Lab::builder().balancers(2), |lab| bfd(lab, Program::Bird));
}

#[test]
fn scenario_a_restart_of_the_daemon_costs_no_route_of_frr_and_no_request() {
    scenario(&Lab::builder().balancers(2), |lab| {
        restart(lab, Program::Frr)
    });
}

#[test]
fn scenario_a_restart_of_the_daemon_costs_no_route_of_bird_and_no_request() {
    scenario(&Lab::builder().balancers(2), |lab| {
        restart(lab, Program::Bird)
    });
}

fn four() -> lockstep_tests::lab::LabBuilder {
    Lab::builder().balancers(4)
}

fn services() -> String {
    let other = service("other", Version::V4, &["80/tcp"], Version::V4, &[0, 1, 2]);
    web(&[0, 1, 2]) + &other.replace(&VIP_V4.to_string(), &OTHER.to_string())
}

/// Lockstep on every balancer, and the router sends to all of them.
fn start(lab: &mut Lab, program: Program, way: Way, more: &str) -> Result<Routing> {
    for server in &lab.servers {
        server.netns().ip(&format!("addr add {OTHER}/32 dev lo"))?;
    }
    let routing = lab.start_routing(program, way)?;
    for (index, balancer) in lab.balancers.iter().enumerate() {
        balancer.configure_daemon(&routing.config(index, more))?;
    }
    lab.start_lockstep(&services())?;
    let all: Vec<usize> = (0..lab.balancers.len()).collect();
    for vip in vips() {
        lab.router.wait_for_balancers(vip, &all, START)?;
    }
    Ok(routing)
}

fn vips() -> [IpAddr; 3] {
    [VIP_V4.into(), VIP_V6.into(), OTHER.into()]
}

/// What may happen to balancers. No request fails in any of the orderly changes.
fn life(lab: &mut Lab, program: Program) -> Result<()> {
    let _routing = start(lab, program, Way::Reflector, "graceful_restart = false")?;
    let soon = |lab: &Lab, wanted: &[usize]| -> Result<()> {
        let mut vips = vips().into_iter();
        vips.try_for_each(|vip| lab.router.wait_for_balancers(vip, wanted, SOON))
    };

    let loads = [Version::V4, Version::V6].map(|version| {
        let load = Wrk::new(version.url()).connections(8).seconds(10);
        lab.client.start_wrk(&load.connection_per_request())
    });
    lab.balancers[0].cli(&["drain", "--balancer"])?;
    soon(lab, &[1, 2, 3]).context("b0 is drained")?;
    lab.balancers[0].cli(&["undrain", "--balancer"])?;
    soon(lab, &ALL).context("b0 is back")?;
    let ended = lab.balancers[1].end_daemon(Signal::SIGTERM)?;
    ensure!(ended.success(), "the daemon ended with {ended}");
    soon(lab, &[0, 2, 3]).context("the daemon of b1 was told to end")?;
    lab.balancers[1].start_daemon()?;
    for vip in vips() {
        let (router, all) = (&lab.router, &ALL);
        router
            .wait_for_balancers(vip, all, START)
            .context("the daemon of b1 is back")?;
    }
    for load in loads {
        let report = load?.report()?;
        ensure!(report.errors() == 0, "{report:?}");
    }

    lab.balancers[2].kill_engine()?;
    soon(lab, &[0, 1, 3]).context("the engine of b2 was killed")?;
    lab.balancers[2].start_engine()?;
    soon(lab, &ALL).context("the engine of b2 is back")?;
    lab.balancers[3].kill_daemon()?;
    soon(lab, &[0, 1, 2]).context("the daemon of b3 was killed")?;
    let engine = lab.balancers[0].engine()?;
    engine.signal(Signal::SIGSTOP)?;
    for vip in vips() {
        lab.router.wait_for_balancers(vip, &[1, 2], 5 * SOON)?;
    }
    lab.balancers[0].engine()?.signal(Signal::SIGCONT)?;
    for vip in vips() {
        lab.router.wait_for_balancers(vip, &[0, 1, 2], 5 * SOON)?;
    }
    Ok(())
}

/// A balancer that can say nothing any more.
fn bfd(lab: &mut Lab, program: Program) -> Result<()> {
    let _routing = start(lab, program, Way::Bfd, "")?;
    let all_are = |lab: &Lab, wanted: &[usize], within: Duration| -> Result<()> {
        let mut vips = vips().into_iter();
        vips.try_for_each(|vip| lab.router.wait_for_balancers(vip, wanted, within))
    };
    is_up_again(lab, 0)?;
    is_up_again(lab, 1)?;
    lab.router.set_port("b1", false)?;
    all_are(lab, &[0], SOON).context("b1 was cut off")?;
    lab.router.set_port("b1", true)?;
    all_are(lab, &[0, 1], START).context("b1 is there again")?;
    is_up_again(lab, 0)?;
    lab.balancers[0].daemon()?.signal(Signal::SIGSTOP)?;
    all_are(lab, &[1], SOON).context("the daemon of b0 was stopped")?;
    lab.balancers[0].daemon()?.signal(Signal::SIGCONT)?;
    all_are(lab, &[0, 1], START).context("the daemon of b0 goes on")
}

/// Graceful restart (RFC 4724): routers keep the routes of a daemon that comes back.
fn restart(lab: &mut Lab, program: Program) -> Result<()> {
    let _routing = start(lab, program, Way::Direct, "graceful_restart = \"60s\"")?;
    let mut command = lab.router.netns().command("ip");
    command.args(["-o", "monitor", "route"]);
    let monitor = lab.router.netns().spawn("monitor", command)?;
    let loads = [Version::V4, Version::V6].map(|version| {
        let load = Wrk::new(version.url()).connections(8).seconds(6);
        lab.client.start_wrk(&load.connection_per_request())
    });
    lab.balancers[0].kill_daemon()?;
    lab.balancers[0].start_daemon()?;
    is_up_again(lab, 0)?;
    let ended = lab.balancers[1].end_daemon(Signal::SIGUSR1)?;
    ensure!(ended.success(), "the daemon ended with {ended}");
    lab.balancers[1].start_daemon()?;
    is_up_again(lab, 1)?;
    for load in loads {
        let report = load?.report()?;
        ensure!(report.errors() == 0, "{report:?}");
    }
    let log = monitor.log();
    // A VIP that loses one of its next hops is replaced, not deleted.
    let of_a_vip = |line: &&str| vips().iter().any(|vip| line.contains(&vip.to_string()));
    let whole = |line: &&str| !line.starts_with("Deleted") && line.matches("via ").count() == 2;
    let less: Vec<_> = log.lines().filter(of_a_vip).filter(|l| !whole(l)).collect();
    ensure!(less.is_empty(), "routes were less meanwhile: {less:?}");
    for vip in vips() {
        ensure!(lab.router.balancers_of(vip)?.len() == 2, "{vip}");
    }
    Ok(())
}

/// Waits until the balancer's session with the router is established, and watched where it is to be.
fn is_up_again(lab: &Lab, balancer: usize) -> Result<()> {
    wait_until(&format!("b{balancer} has its router again"), START, || {
        let bgp = lab.balancers[balancer].cli(&["bgp"])?;
        let peers = bgp["peers"].as_array().context("no peers")?;
        let up = |peer: &serde_json::Value| {
            let watched = peer["bfd"].is_null() || peer["bfd"] == "up";
            peer["state"] == "established" && watched
        };
        Ok((!peers.is_empty() && peers.iter().all(up)).then_some(()))
    })
}

/// Changes a random balancer, again and again. Returns how long each took to be in the router's
/// kernel, from the command on.
fn random_changes(lab: &Lab) -> Result<Vec<Duration>> {
    let mut dice = Dice::new()?;
    let mut there = [[true; 2]; 4];
    let mut delays = Vec::new();
    let whole = [services(), web(&[0, 1, 2])];
    for _ in 0..CHANGES {
        let index = dice.of(0..4) as usize;
        let balancer = &lab.balancers[index];
        let start = Instant::now();
        match dice.of(0..2) {
            // The whole balancer, out or back in.
            0 => {
                let command = if there[index][0] { "drain" } else { "undrain" };
                balancer.cli(&[command, "--balancer"])?;
                there[index][0] ^= true;
            }
            // The second service, on this balancer only.
            _ => {
                let text = if there[index][1] {
                    &whole[1]
                } else {
                    &whole[0]
                };
                std::fs::write(balancer.services_file(), text)?;
                there[index][1] ^= true;
            }
        }
        let wanted = |other: bool| -> Vec<usize> {
            let serves = |i: &usize| there[*i][0] && (!other || there[*i][1]);
            ALL.into_iter().filter(serves).collect()
        };
        for (vip, other) in [(VIP_V4.into(), false), (OTHER.into(), true)] {
            let wanted = wanted(other);
            wait_until(&format!("{vip} goes to {wanted:?}"), 10 * SOON, || {
                let now: Vec<usize> = lab.router.balancers_of(vip)?.into_iter().collect();
                Ok((now == wanted).then_some(()))
            })?;
        }
        delays.push(start.elapsed());
    }
    Ok(delays)
}
