//! What does not come back of what backends are sent, and where the operator reads of it.

use anyhow::{Result, ensure};
use lockstep_tests::lab::{Balancer, Forwarding, Lab, Version, find_binary, scenario, wait_until};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(15);

#[test]
fn scenario_a_nat_backend_that_answers_past_the_balancer_needs_attention() {
    scenario(&Lab::builder().servers(2), |lab| {
        past_the_balancer(lab, Version::V4)
    });
}

fn past_the_balancer(lab: &mut Lab, version: Version) -> Result<()> {
    let way = Forwarding::Nat;
    lab.start_forwarding(way, &way.service("web", version, &["80/tcp"], &[0, 1], ""))?;
    let balancer = &lab.balancers[0];
    // The first server's answers go by the router, from its own address: no client knows them.
    let server = lab.servers[0].netns();
    let right = server.ip_json("route show default")?;
    let to = |gateway: &str| server.ip(&format!("route replace default via {gateway}"));
    to(&lockstep_tests::lab::router_rack_v4().to_string())?;
    let said = "service web: backend s1 (10.0.1.11) was given";
    let url = version.url();
    let ask = || {
        let args = ["-s", "--max-time", "1", "--output", "/dev/null", &url];
        // One of two is answered.
        let _ = lab.client.netns().output("curl", &args);
    };
    // Whose turn it is nobody knows: until both have had one.
    wait_until("status speaks of the first server only", SOON, || {
        ask();
        let text = status(balancer)?;
        let back = |index: usize| answers(balancer, index);
        let speaks = text.contains(said) && text.contains("nothing came back");
        Ok((speaks && back(0)? == Some(0) && back(1)? > Some(0)).then_some(()))
    })?;
    let text = status(balancer)?;
    ensure!(!text.contains("backend s2 (10.0.1.12) was"), "{text}");
    let doctor = |expected: bool, part: &str| {
        let mut command = server.command(find_binary("lockstep")?);
        command.args(["doctor", "--server", "--mode", "nat"]);
        let output = command.args(["--balancer", "10.0.1.2"]).output()?;
        let says = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() == expected && says.contains(part),
            "{says}"
        );
        Ok(())
    };
    doctor(false, "leads by 10.0.1.1, past the balancer")?;
    to(right[0]["gateway"].as_str().unwrap_or_default())?;
    doctor(true, "nothing found")?;
    wait_until("nothing needs attention any more", SOON, || {
        ask();
        Ok((!status(balancer)?.contains(said)).then_some(()))
    })
}

/// How many packets a backend of the first service has answered with.
fn answers(balancer: &Balancer, index: usize) -> Result<Option<u64>> {
    let output = balancer.run(&["status", "--output", "json"])?;
    let json: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let backend = &json["engine"]["services"][0]["backends"][index];
    Ok(backend["back"]["answers"].as_u64())
}

/// On one link, somebody has to answer ARP for the address that servers are sent packets from.
#[test]
fn scenario_full_nat_from_an_address_that_nobody_has_is_an_error_of_the_doctor() {
    scenario(&Lab::builder().servers(1), |lab| {
        let balancer = lab.balancers[0].netns();
        balancer.ip("addr del 10.0.1.202/32 dev eth0")?;
        let way = Forwarding::FullNat;
        let services = way.service("web", Version::V4, &["80/tcp"], &[0], "");
        lab.start_forwarding(way, &services)?;
        let args = ["-s", "--max-time", "1", "http://203.0.113.10/"];
        ensure!(lab.client.netns().output("curl", &args).is_err());
        // Of the file that the engine has, which it is not told.
        let balancer = &lab.balancers[0];
        let doctor = || {
            let output = balancer.run(&["doctor", "--no-ping"])?;
            anyhow::Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let text = doctor()?;
        let mend = "ip addr add 10.0.1.202/32 dev eth0 preferred_lft 0";
        ensure!(
            text.contains("10.0.1.202: no interface has this address") && text.contains(mend),
            "{text}"
        );
        balancer.netns().ip(mend.trim_start_matches("ip "))?;
        wait_until("the server answers", SOON, || {
            let args = ["-sf", "--max-time", "1", "http://203.0.113.10/"];
            Ok(lab.client.netns().output("curl", &args).ok())
        })?;
        let text = doctor()?;
        ensure!(!text.contains("10.0.1.202"), "{text}");
        Ok(())
    });
}

/// A server that does not take the outer header off says so to the engine.
#[test]
fn scenario_a_server_that_refuses_the_tunnel_needs_attention() {
    scenario(&Lab::builder().servers(2), |lab| {
        let services = [Version::V4, Version::V6].map(|version| {
            let name = format!("web-{version:?}").to_lowercase();
            Forwarding::Ipip.service(&name, version, &["80/tcp"], &[0, 1], "")
        });
        lab.start_forwarding(Forwarding::Ipip, &services.concat())?;
        let lockstep = find_binary("lockstep")?.display().to_string();
        let server = lab.servers[0].netns();
        server.output(&lockstep, &["decap", "detach", "eth0"])?;
        for version in [Version::V4, Version::V6] {
            let balancer = &lab.balancers[0];
            let said = format!(
                "service web-{}: backend s1 ({}) or a router before it refuses the tunnel",
                format!("{version:?}").to_lowercase(),
                version.server(0)
            );
            let url = version.url();
            wait_until("status speaks of the first server", SOON, || {
                let args = ["-s", "--max-time", "1", "--output", "/dev/null", &url];
                // The other one answers.
                let _ = lab.client.netns().output("curl", &args);
                let text = status(balancer)?;
                ensure!(!text.contains("backend s2 (10.0.1.12) or"), "{text}");
                Ok(text.contains(&said).then_some(()))
            })?;
            // Of the VIP whose packet it was.
            let status = balancer.cli_text(&["metrics"])?;
            let counted = status.lines().any(|line| {
                line.starts_with("lockstep_dropped_packets_total")
                    && line.contains(&version.vip().to_string())
                    && line.contains("reason=\"icmp_tunnel\"")
                    && !line.ends_with(" 0")
            });
            ensure!(counted, "{status}");
        }
        Ok(())
    });
}

/// What `lockstep status` says, whatever needs attention.
fn status(balancer: &Balancer) -> Result<String> {
    let output = balancer.run(&["status"])?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
