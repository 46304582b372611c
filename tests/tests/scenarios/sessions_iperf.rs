//! iperf3 with replicas that are killed until one is left: two connections that are one session.

use anyhow::{Result, ensure};
use lockstep_tests::lab::{Direction, Lab, Replicated, Version, scenario, wait_until};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
/// What two CPUs carry to ten replicas without being the limit.
const MEGABITS: u32 = 100;

#[test]
fn scenario_sessions_iperf3_uploads_to_one_replica() {
    until_one_is_left(1, Direction::Upload);
}

#[test]
fn scenario_sessions_iperf3_downloads_from_one_replica() {
    until_one_is_left(1, Direction::Download);
}

#[test]
fn scenario_sessions_iperf3_uploads_to_three_replicas_until_one_is_left() {
    until_one_is_left(3, Direction::Upload);
}

#[test]
fn scenario_sessions_iperf3_downloads_from_three_replicas_until_one_is_left() {
    until_one_is_left(3, Direction::Download);
}

#[test]
fn scenario_sessions_iperf3_uploads_to_ten_replicas_until_one_is_left() {
    until_one_is_left(10, Direction::Upload);
}

#[test]
fn scenario_sessions_iperf3_downloads_from_ten_replicas_until_one_is_left() {
    until_one_is_left(10, Direction::Download);
}

/// Every second the primary of the data connection is killed.
fn until_one_is_left(replicas: usize, direction: Direction) {
    // With two workers, the two connections arrive at different ones.
    let queues = if replicas == 3 { 2 } else { 1 };
    scenario(&Lab::builder().servers(replicas).queues(queues), |lab| {
        let all: Vec<usize> = (0..replicas).collect();
        let service = Replicated::new("iperf", Version::V4, 5201, &all).with("group", "\"client\"");
        lab.start_lockstep(&service.to_string())?;
        let mut servers = Vec::new();
        for server in &lab.servers {
            servers.push(Some(server.start_iperf(server.v4().into())?));
        }
        let seconds = replicas as u32 + 2;
        let vip = Version::V4.vip();
        let mut iperf = lab.client.iperf_tcp(vip, direction, MEGABITS, seconds)?;
        for round in 1..replicas {
            wait_until("iperf3 has reported another second", SOON, || {
                Ok((iperf.intervals()?.len() >= 2 * round).then_some(()))
            })?;
            let primary = data_primary(lab, direction, |server| servers[server].is_some())?;
            // Dropped is killed.
            servers[primary] = None;
        }
        let rates = iperf.finish()?;
        println!("{replicas} replicas, {direction:?}: {rates:?} kbit/s");
        ensure!(servers.iter().flatten().count() == 1);
        // The first and the last half second may be short of one.
        let idle = rates.iter().filter(|&&rate| rate == 0).count();
        ensure!(idle == 0, "nothing came for half a second: {rates:?}");
        Ok(())
    });
}

/// The primary of the session that carries the bytes. One that was killed may still be it: when it
/// had read everything its kernel has said FIN, which is a vote until the others have passed it.
fn data_primary(lab: &Lab, direction: Direction, lives: impl Fn(usize) -> bool) -> Result<usize> {
    wait_until("the session of data has a primary that lives", SOON, || {
        let sessions = lab.balancers[0].sessions()?;
        let carried = |s: &lockstep_tests::lab::Session| match direction {
            Direction::Upload => s.received,
            Direction::Download => s.sent,
        };
        let data = sessions.iter().max_by_key(|session| carried(session));
        let primary = data.and_then(|session| session.primary().ok());
        Ok(primary.filter(|primary| lives(*primary)))
    })
}
