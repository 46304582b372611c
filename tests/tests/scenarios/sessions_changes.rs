//! Services that change, and workers that share them, while sessions are open.

use anyhow::{Result, ensure};
use lockstep_tests::lab::{
    Behaviour, Lab, Replicated, Server, TestServer, Version, scenario, wait_until, web,
};
use std::collections::BTreeSet;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const MIB: u64 = 1 << 20;

fn test_service(to: &[usize]) -> String {
    Replicated::new("test", Version::V4, TestServer::PORT, to).to_string()
}

fn start_echo(lab: &Lab) -> Result<Vec<TestServer>> {
    let start = |server: &Server| server.start_test_server(server.v4().into(), &Behaviour::echo());
    lab.servers.iter().map(start).collect()
}

#[test]
fn scenario_sessions_follow_the_replicas_of_their_service() {
    scenario(&Lab::builder(), |lab| {
        lab.start_lockstep(&test_service(&[0, 1]))?;
        let _servers = start_echo(lab)?;
        let mut client = lab.client.stream(Version::V4.vip())?;
        client.echo(MIB / 4)?;

        lab.balancers[0].apply(&test_service(&[0, 1, 2]))?;
        lab.balancers[0].wait_for_event("joined", &[("replica", "s3")])?;
        client.echo(MIB / 8)?;

        lab.balancers[0].apply(&test_service(&[2]))?;
        let balancer = &lab.balancers[0];
        wait_until("two replicas are evicted", SOON, || {
            let events = balancer.events()?;
            let removed = [("cause", "removed from the service")];
            let removed = events.iter().filter(|event| event.is("evicted", &removed));
            let names: Vec<&str> = removed.map(|event| event.text("replica")).collect();
            Ok((names == ["s1", "s2"] || names == ["s2", "s1"]).then_some(()))
        })?;
        let session = balancer.session()?;
        for name in ["s1", "s2", "s3"] {
            session.replica(name)?;
        }
        client.echo(MIB / 8)?;
        ensure!(lab.balancers[0].session()?.primary()? == 2);

        lab.balancers[0].kill_daemon()?;
        client.echo(MIB / 8)?;
        lab.balancers[0].start_daemon()?;
        client.echo(MIB / 8)?;

        lab.balancers[0].apply(&web(&[0]))?;
        client.must_be_reset()?;
        lab.balancers[0].wait_for_event("ended", &[("cause", "service removed")])?;
        lab.balancers[0].wait_for_sessions(0)
    });
}

#[test]
fn scenario_sessions_of_two_workers_get_their_packets_wherever_they_arrive() {
    scenario(&Lab::builder().queues(2), |lab| {
        lab.start_lockstep(&test_service(&[0, 1, 2]))?;
        let mut servers = start_echo(lab)?;
        let open = || lab.client.stream(Version::V4.vip());
        let mut clients = (0..16).map(|_| open()).collect::<Result<Vec<_>>>()?;
        for client in &mut clients {
            client.echo(MIB / 4)?;
        }
        let sessions = lab.balancers[0].sessions()?;
        let workers: BTreeSet<_> = sessions.iter().map(|s| s.id.split('-').next()).collect();
        ensure!(sessions.len() == 16 && workers.len() == 2, "{sessions:?}");
        servers[0].process().kill()?;
        for client in &mut clients {
            client.echo(MIB / 4)?;
            client.finish()?;
            client.must_end()?;
        }
        lab.balancers[0].wait_for_sessions(0)
    });
}
