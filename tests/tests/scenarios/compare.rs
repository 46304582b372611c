//! The comparison with peers: that it runs, cleans up, and writes what the report reads.

use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{find_binary, leftovers, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// One round of short trials, of datagrams only.
const BRIEFLY: &[&str] = &[
    "compare",
    "--quick",
    "--parts",
    "packets",
    "--bytes",
    "64",
    "--only",
    "xdp-forwarding,nftables-dnat-one-cpu",
];

#[test]
fn scenario_a_comparison_writes_rates_and_ratios_that_are_reported() {
    compare().unwrap();
}

/// Not after the first lab only: what follows is not begun.
#[test]
fn scenario_an_interrupted_comparison_ends_and_leaves_nothing() {
    let results = tempfile::tempdir().unwrap();
    let mut compare = Command::new(find_binary("lockstep-perf").unwrap())
        .args(BRIEFLY)
        .args(["--milliseconds", "30000"])
        .arg("--results")
        .arg(results.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let runs = [0, 1, 2].map(|count| format!("ls{}x{count}", compare.id()));
    let left = || -> Result<Vec<String>> {
        let of_all: Result<Vec<_>> = runs.iter().map(|run| leftovers(run)).collect();
        Ok(of_all?.concat())
    };
    let threads = format!("/proc/{}/task", compare.id());
    wait_until("packets are sent", SOON, || {
        let sends = fs::read_dir(&threads)?.flatten().any(|thread| {
            let name = fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
            name.trim() == "offer"
        });
        Ok(sends.then_some(()))
    })
    .unwrap();
    assert!(!left().unwrap().is_empty());
    kill(Pid::from_raw(compare.id().cast_signed()), Signal::SIGINT).unwrap();
    let status = wait_until("the comparison has ended", SOON, || Ok(compare.try_wait()?)).unwrap();
    assert_eq!(status.code(), Some(128 + Signal::SIGINT as i32));
    assert_eq!(left().unwrap(), Vec::<String>::new());
    let mut said = String::new();
    compare
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(
        !said.contains("  failed:") && !said.contains("nftables"),
        "{said}"
    );
    assert!(!results.path().join("quick/compare.json").exists());
}

fn compare() -> Result<()> {
    let root = tempfile::tempdir()?;
    let results = root.path().join("perf/results");
    let said = perf(
        Command::new(find_binary("lockstep-perf")?)
            .args(BRIEFLY)
            .args(["--milliseconds", "50"])
            .arg("--results")
            .arg(&results),
    )?;
    ensure!(said.contains("\nIt took "), "{said}");
    let text = fs::read_to_string(results.join("quick/compare.json"))?;
    let all: Value = serde_json::from_str(&text)?;
    ensure!(all["quick"] == true, "{all}");
    let rows = all["packets"].as_array().context("no packets")?;
    let names: Vec<&Value> = rows.iter().map(|row| &row["case"]).collect();
    ensure!(
        names == ["xdp-forwarding", "nftables-dnat-one-cpu"],
        "{all}"
    );
    for row in rows {
        let rate = row["packets_per_second"].as_f64();
        ensure!(rate.is_some_and(|rate| rate > 1_000.0), "{row}");
    }
    let ratio = rows[0]["to_nftables"]["ratio"].as_f64();
    ensure!(ratio.is_some_and(|ratio| ratio > 0.0), "{all}");
    ensure!(rows[1]["to_nftables"].is_null(), "{all}");
    ensure!(all["failed"] == Value::Array(Vec::new()), "{all}");
    perf(
        Command::new(find_binary("lockstep-perf")?)
            .args(["report", "--quick", "--root"])
            .arg(root.path()),
    )?;
    let report = results.join("quick/report");
    let page = fs::read_to_string(report.join("experiments.md"))?;
    for wanted in [
        "### compare-packets-64",
        "| xdp-forwarding | 64 | udp |",
        "short run",
    ] {
        ensure!(page.contains(wanted), "no {wanted} in\n{page}");
    }
    ensure!(report.join("figures/compare-packets-64.svg").exists());
    Ok(())
}

/// What it has printed.
fn perf(command: &mut Command) -> Result<String> {
    let output = command.output().context("cannot run lockstep-perf")?;
    ensure!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
