//! Named packet counters in the kernel, by nftables: what passed a device, independent of what
//! any program of ours says.

use super::netns::{self, Netns};
use super::process::output;
use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use std::fmt::Write;

/// A set of counters on one device.
#[derive(Debug)]
pub struct Counters {
    netns: String,
    table: String,
}

impl Counters {
    /// Counts on `device` from now on: `(name, hook, match)` with `hook` `ingress` or `egress`,
    /// `match` an nftables expression. Ingress comes after XDP: frames that a program redirected
    /// are not seen.
    pub(super) fn start(netns: &Netns, device: &str, rules: &[(&str, &str, &str)]) -> Result<Self> {
        let table = format!("count_{}", device.replace('-', "_"));
        let mut script = format!("table netdev {table} {{\n");
        for (name, _, _) in rules {
            writeln!(script, "counter {name} {{\n}}")?;
        }
        for hook in ["ingress", "egress"] {
            writeln!(script, "chain {hook} {{")?;
            writeln!(
                script,
                "type filter hook {hook} device \"{device}\" priority 0"
            )?;
            for (name, _, expression) in rules.iter().filter(|rule| rule.1 == hook) {
                writeln!(script, "{expression} counter name {name}")?;
            }
            writeln!(script, "}}")?;
        }
        script.push_str("}\n");
        netns.output("nft", &[&script])?;
        let netns = netns.name().to_owned();
        Ok(Counters { netns, table })
    }

    /// The packets a counter has seen.
    pub fn packets(&self, name: &str) -> Result<u64> {
        let args = ["-j", "list", "counter", "netdev", &self.table, name];
        let text = output(netns::command(&self.netns, "nft").args(args))?;
        let list: Value = serde_json::from_str(&text).context("nft wrote no JSON")?;
        (list["nftables"].as_array().into_iter().flatten())
            .find_map(|entry| entry["counter"]["packets"].as_u64())
            .ok_or_else(|| anyhow!("nft knows no counter {name}: {text}"))
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        // Gone already with its namespace is as good.
        let args = ["delete", "table", "netdev", &self.table];
        let _ = output(netns::command(&self.netns, "nft").args(args));
    }
}
