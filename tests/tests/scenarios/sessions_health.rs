//! The daemon's pings: what it hears of replicas is what the engine has and `lockstep status` shows.

use anyhow::{Result, ensure};
use lockstep_tests::lab::{Lab, Replicated, Server, Version, scenario, wait_until};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

#[test]
fn scenario_sessions_a_replica_that_is_cut_off_is_down_and_up_again_when_it_is_back() {
    scenario(&Lab::builder(), |lab| {
        lab.start_lockstep(&Replicated::web(&[0, 1, 2]).to_string())?;
        let balancer = &lab.balancers[0];
        wait_for(lab, ["up", "up", "up"])?;
        let name = lab.servers[1].name();
        lab.router.set_port(&name, false)?;
        wait_for(lab, ["up", "down", "up"])?;
        let said = balancer.run(&["status"])?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let trouble = format!(
            "backend {name} ({}) does not answer pings",
            lab.servers[1].v4()
        );
        ensure!(said.contains(&trouble), "{said}");
        let answer = lab.client.get(Version::V4.vip())?;
        ensure!(answer.status == 200, "{answer:?}");
        lab.router.set_port(&name, true)?;
        wait_for(lab, ["up", "up", "up"])
    });
}

/// A replica that is up has a round-trip time, another one has none.
fn wait_for(lab: &Lab, expected: [&str; 3]) -> Result<()> {
    let expected = expected.map(|verdict| (verdict.to_owned(), verdict == "up"));
    let what = format!("the replicas are {expected:?}");
    wait_until(&what, SOON, || {
        let status = lab.balancers[0].status()?;
        let health = |server: &Server| status.health("web", &server.name());
        let found: Vec<_> = lab.servers.iter().map(health).collect::<Result<_>>()?;
        Ok((found == expected).then_some(()))
    })
}
