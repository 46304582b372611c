//! `lockstep doctor` on a balancer and on a real server: nothing is wrong with the lab, until
//! something is.

use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{Lab, Server, VIP_V4, find_binary, scenario, web};
use serde_json::Value;
use std::process::Output;

#[test]
fn scenario_the_doctor_finds_a_way_that_is_too_narrow_and_a_backend_that_is_gone() {
    scenario(&Lab::builder().servers(2), |lab| {
        lab.start_lockstep(&web(&[0, 1]))?;
        let balancer = &lab.balancers[0];
        let topology = balancer.topology_file().display().to_string();
        let ask = || balancer.run(&["doctor", "--topology", &topology, "--output", "json"]);
        errors(&ask()?, &[])?;

        // What is longer than this MTU is dropped without a word, as a switch does.
        let server = lab.servers[1].netns();
        server.ip("link set dev eth0 mtu 1500")?;
        let (v4, v6) = (
            lab.servers[1].v4().to_string(),
            lab.servers[1].v6().to_string(),
        );
        let narrow = |address, bytes| {
            (
                address,
                format!("a packet of {bytes} bytes does not get there, though short ones do"),
            )
        };
        errors(
            &ask()?,
            &[narrow(v4.as_str(), 1_520), narrow(v6.as_str(), 1_540)],
        )?;
        // Where clients send less, it is wide enough.
        let less = [
            "doctor",
            "--topology",
            &topology,
            "--client-mtu",
            "1400",
            "--output",
            "json",
        ];
        errors(&balancer.run(&less)?, &[])?;

        balancer
            .netns()
            .ip(&format!("route add unreachable {v4}/32"))?;
        let found = lockstep_tests::lab::wait_until(
            "the doctor finds no way to a backend",
            std::time::Duration::from_secs(10),
            || {
                let found = findings(&ask()?)?;
                let gone = |f: &Value| {
                    f["found"]
                        .as_str()
                        .is_some_and(|text| text.contains("is not reachable: "))
                };
                Ok(found.into_iter().find(gone))
            },
        )?;
        let mend = found["mend"].as_str().unwrap_or_default();
        ensure!(
            found["about"] == "service web" && mend.contains(&format!("ip route get {v4}")),
            "{found}"
        );
        Ok(())
    });
}

#[test]
fn scenario_the_doctor_of_a_real_server_finds_who_ends_no_tunnels() {
    scenario(&Lab::builder().servers(1), |lab| {
        lab.start_lockstep(&web(&[0]))?;
        let server = &lab.servers[0];
        errors(&on_server(server)?, &[])?;
        server.netns().ip(&format!("addr del {VIP_V4}/32 dev lo"))?;
        let vip = VIP_V4.to_string();
        errors(
            &on_server(server)?,
            &[(vip.as_str(), "it is no address of this host".to_owned())],
        )?;
        let lockstep = find_binary("lockstep")?.display().to_string();
        server
            .netns()
            .output(&lockstep, &["decap", "detach", "eth0"])?;
        server.netns().ip(&format!("addr add {VIP_V4}/32 dev lo"))?;
        errors(
            &on_server(server)?,
            &[(
                "tunnels",
                "nobody takes packets out of their tunnels".to_owned(),
            )],
        )
    });
}

/// What it says of a real server.
fn on_server(server: &Server) -> Result<Output> {
    let mut command = server.netns().command(find_binary("lockstep")?);
    command.args([
        "doctor",
        "--server",
        "--vip",
        &VIP_V4.to_string(),
        "--output",
        "json",
    ]);
    command.output().context("cannot run lockstep")
}

fn findings(output: &Output) -> Result<Vec<Value>> {
    let says = String::from_utf8_lossy(&output.stderr);
    let report: Value =
        serde_json::from_slice(&output.stdout).with_context(|| format!("no JSON: {says}"))?;
    report["findings"]
        .as_array()
        .cloned()
        .context("no findings")
}

/// It finds these errors, by what they are about, and no other ones.
fn errors(output: &Output, expected: &[(&str, String)]) -> Result<()> {
    let found = findings(output)?;
    let errors: Vec<&Value> = found.iter().filter(|f| f["severity"] == "error").collect();
    let is = |error: &&Value, (about, text): &(&str, String)| {
        error["about"] == **about
            && error["found"]
                .as_str()
                .is_some_and(|found| found.contains(text.as_str()))
    };
    let all = expected
        .iter()
        .all(|e| errors.iter().any(|error| is(error, e)));
    ensure!(
        all && errors.len() == expected.len(),
        "not {expected:?}: {errors:#?}"
    );
    let code = i32::from(!expected.is_empty());
    ensure!(
        output.status.code() == Some(code),
        "{} with {errors:?}",
        output.status
    );
    Ok(())
}
