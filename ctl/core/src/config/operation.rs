//! `[node]`, `[log]` and `[metrics]`: who this balancer is, and how it tells what it does.

use serde::Deserialize;
use std::net::SocketAddr;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Operation {
    /// What the others of its group know it by; the host's name where the file has none.
    pub name: Option<String>,
    /// How the log is written.
    pub log: LogFormat,
    /// Where Prometheus asks for metrics; nowhere where the file has none.
    pub metrics: Option<SocketAddr>,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// An object a line.
    Json,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNode {
    name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLog {
    #[serde(default)]
    format: LogFormat,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMetrics {
    listen: Option<SocketAddr>,
}

pub(super) fn read(node: RawNode, log: RawLog, metrics: RawMetrics) -> Operation {
    Operation {
        name: node.name,
        log: log.format,
        metrics: metrics.listen,
    }
}
