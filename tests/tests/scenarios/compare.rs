//! The comparison with peers: that it runs, cleans up, and writes what the report reads.

use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::find_binary;
use serde_json::Value;
use std::fs;
use std::process::Command;

/// One round of short trials, of datagrams only.
const BRIEFLY: &[&str] = &[
    "compare",
    "--quick",
    "--milliseconds",
    "50",
    "--parts",
    "packets",
    "--bytes",
    "64",
    "--only",
    "xdp-forwarding,nftables-dnat-one-cpu",
];

#[test]
fn scenario_a_comparison_writes_rates_ratios_and_a_figure() {
    compare().unwrap();
}

fn compare() -> Result<()> {
    let results = tempfile::tempdir()?;
    let output = Command::new(find_binary("lockstep-perf")?)
        .args(BRIEFLY)
        .arg("--results")
        .arg(results.path())
        .output()
        .context("cannot run lockstep-perf")?;
    ensure!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let quick = results.path().join("quick");
    let read = |name: &str| -> Result<Value> {
        let text = fs::read_to_string(quick.join(name)).with_context(|| name.to_owned())?;
        Ok(serde_json::from_str(&text)?)
    };
    let all = read("compare.json")?;
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
        let ratio = row["ratio_to_nftables"].as_f64();
        ensure!(ratio.is_some_and(|ratio| ratio > 0.0), "{row}");
    }
    ensure!(rows[1]["ratio_to_nftables"] == 1.0, "{all}");
    let figure = read("figures/compare-packets-64.json")?;
    ensure!(figure["labels"][0] == "xdp-forwarding", "{figure}");
    let y = &figure["ours"][0]["points"][0]["y"];
    ensure!(*y == rows[0]["packets_per_second"], "{figure}");
    Ok(())
}
