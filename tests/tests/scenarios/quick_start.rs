//! The quick start's ways without tunnels, as the page says them: its commands are run here, on the
//! addresses that the lab and the page have in common.

use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{Lab, Netns, Version, find_binary, scenario};
use std::path::Path;

const PAGE: &str = include_str!("../../../docs/src/quick-start.md");

#[test]
fn scenario_the_quick_start_of_nat() {
    scenario(&Lab::builder().servers(2), |lab| follow(lab, "### `nat`"));
}

#[test]
fn scenario_the_quick_start_of_full_nat() {
    scenario(&Lab::builder().servers(2), |lab| {
        follow(lab, "### `full-nat`")
    });
}

fn follow(lab: &mut Lab, heading: &str) -> Result<()> {
    let (_, section) = PAGE.split_once(heading).context("there is no section")?;
    let section = section.split("\n### ").next().unwrap_or(section);
    let blocks = |begin: &str| -> Vec<&str> {
        let rest = section.split(begin).skip(1);
        rest.filter_map(|rest| rest.split("```").next()).collect()
    };
    // What the page's servers do not have.
    for server in &lab.servers {
        let netns = server.netns();
        netns.ip(&format!("addr del {}/32 dev lo", Version::V4.vip()))?;
    }
    lab.start_lockstep(blocks("```toml\n").first().context("no services")?)?;
    let commands = blocks("```sh\n# On ");
    ensure!(commands.len() == 2, "{commands:?}");
    for command in commands {
        let (whom, lines) = command.split_once(":\n").context("on whom?")?;
        match whom {
            "the balancer" => run(lab.balancers[0].netns(), lines)?,
            "each server" => {
                let mut servers = lab.servers.iter();
                servers.try_for_each(|server| run(server.netns(), lines))?;
            }
            other => anyhow::bail!("on {other}?"),
        }
    }
    let mut seen = Vec::new();
    for _ in 0..20 {
        seen.push(lab.client.get(Version::V4.vip())?.body);
    }
    seen.sort();
    seen.dedup();
    ensure!(seen == ["s1\n", "s2\n"], "{seen:?} answered");
    lab.balancers[0].cli_text(&["status"])?;
    Ok(())
}

/// Runs commands of the page, each of which must succeed.
fn run(netns: &Netns, lines: &str) -> Result<()> {
    let lockstep = find_binary("lockstep")?;
    let dir = lockstep.parent().unwrap_or(Path::new("."));
    let script = format!("PATH=\"{}:$PATH\"\n{lines}", dir.display());
    netns.output("sh", &["-ec", &script]).map(drop)
}
