//! `[node]`, `[log]`, `[metrics]` and `[shutdown]`: who this balancer is, how it tells what it
//! does, and how it ends.

use crate::services::values::{FromText, Text};
use lockstep_topology::duration;
use serde::{Deserialize, Deserializer};
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a daemon that ends waits where the file says nothing.
const QUIET: Duration = Duration::from_secs(10);
/// The longest it can be told to.
const LONGEST: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// What the others of its group know it by; the host's name where the file has none.
    pub name: Option<String>,
    /// How the log is written.
    pub log: LogFormat,
    /// Where Prometheus asks for metrics; nowhere where the file has none.
    pub metrics: Option<SocketAddr>,
    /// How long a daemon that ends waits for the traffic of withdrawn VIPs to end.
    pub quiet: Duration,
}

impl Default for Operation {
    fn default() -> Self {
        Operation {
            name: None,
            log: LogFormat::default(),
            metrics: None,
            quiet: QUIET,
        }
    }
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

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawShutdown {
    deadline: Option<Quiet>,
}

/// A time of up to ten minutes.
struct Quiet(Duration);

impl FromText for Quiet {
    const WANTED: &str = "a string such as \"10s\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let time = duration::parse(text)
            .map_err(|error| format!("{text:?} is not a duration; {error}"))?;
        if time <= LONGEST {
            Ok(Quiet(time))
        } else {
            Err(format!("{text:?} is out of range; from \"0s\" to \"10m\""))
        }
    }
}

impl<'de> Deserialize<'de> for Quiet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text(PhantomData))
    }
}

pub(super) fn read(
    node: RawNode,
    log: RawLog,
    metrics: RawMetrics,
    shutdown: RawShutdown,
) -> Operation {
    Operation {
        name: node.name,
        log: log.format,
        metrics: metrics.listen,
        quiet: shutdown.deadline.map_or(QUIET, |quiet| quiet.0),
    }
}
