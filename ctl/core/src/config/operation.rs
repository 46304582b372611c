//! `[node]`, `[log]`, `[metrics]` and `[shutdown]`: who this balancer is, how it tells what it
//! does, and how it ends.

use crate::services::values::{FromText, Text};
use lockstep_topology::diagnostics::{Diagnostics, Source};
use lockstep_topology::duration;
use serde::{Deserialize, Deserializer};
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::time::Duration;
use toml::Spanned;

/// How long a daemon that ends waits where the file says nothing.
const QUIET: Duration = Duration::from_secs(10);
/// The longest it can be told to.
const LONGEST: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// What the others of its group know it by; the host's name where the file has none.
    pub name: Option<String>,
    /// How the log is written; as the environment says where the file has nothing.
    pub log: Option<LogFormat>,
    /// Where Prometheus asks for metrics; nowhere where the file has none.
    pub metrics: Option<SocketAddr>,
    /// How long a daemon that ends waits for the traffic of withdrawn VIPs to end.
    pub quiet: Duration,
}

impl Default for Operation {
    fn default() -> Self {
        Operation {
            name: None,
            log: None,
            metrics: None,
            quiet: QUIET,
        }
    }
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// An object a line.
    Json,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNode {
    name: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLog {
    format: Option<LogFormat>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMetrics {
    listen: Option<Spanned<String>>,
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
    source: Source<'_>,
    found: &mut Diagnostics,
) -> Operation {
    let mut checked = |value: Option<Spanned<String>>, allowed: fn(&str) -> bool, help: &str| {
        let value = value?;
        if !allowed(value.get_ref()) {
            let message = format!("{:?} cannot be used here", value.get_ref());
            found.push(source.error(value.span(), message).help(help));
        }
        Some(value.into_inner())
    };
    let name = checked(
        node.name,
        is_name,
        "1 to 63 letters, digits, `-`, `_` or `.`",
    );
    let help = "ADDRESS:PORT, such as `127.0.0.1:9478` or `[::1]:9478`";
    let listen = checked(metrics.listen, |text| address(text).is_some(), help);
    Operation {
        name,
        log: log.format,
        metrics: listen.as_deref().and_then(address),
        quiet: shutdown.deadline.map_or(QUIET, |quiet| quiet.0),
    }
}

/// Whether it can stand in the keys of a store and in tables.
fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=63).contains(&text.len()) && text.chars().all(plain)
}

/// A port that nobody chose cannot be asked.
fn address(text: &str) -> Option<SocketAddr> {
    text.parse().ok().filter(|a: &SocketAddr| a.port() != 0)
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn sections_of_operation_are_read() {
        let text = "[node]\nname = \"lb-1.example\"\n[log]\nformat = \"json\"\n\
                    [metrics]\nlisten = \"[::1]:9478\"\n[shutdown]\ndeadline = \"3s\"\n";
        let file = parse("lockstepd.toml", text).expect("no errors");
        let expected = Operation {
            name: Some("lb-1.example".to_owned()),
            log: Some(LogFormat::Json),
            metrics: Some("[::1]:9478".parse().expect("an address")),
            quiet: Duration::from_secs(3),
        };
        assert_eq!(file.config.operation, expected);
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_its_place() {
        let long = "x".repeat(64);
        let text = format!("[node]\nname = \"{long}\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n");
        let errors = parse("lockstepd.toml", &text)
            .expect_err("errors")
            .to_string();
        let expected = format!(
            "lockstepd.toml:2:8: \"{long}\" cannot be used here; 1 to 63 letters, digits, `-`, `_` or `.`\n\
             lockstepd.toml:4:10: \"127.0.0.1:0\" cannot be used here; ADDRESS:PORT, such as \
             `127.0.0.1:9478` or `[::1]:9478`"
        );
        assert_eq!(errors.trim_end(), expected);
        for (text, place) in [
            ("[node]\nname = \"a b\"", "2:8"),
            ("[node]\nname = \"\"", "2:8"),
            ("[log]\nformat = \"xml\"", "2:10"),
            ("[metrics]\nlisten = \"9478\"", "2:10"),
            ("[metrics]\nport = 1", "2:1"),
            ("[shutdown]\ndeadline = \"11m\"", "2:12"),
        ] {
            let errors = parse("lockstepd.toml", text).expect_err(text).to_string();
            assert!(
                errors.starts_with(&format!("lockstepd.toml:{place}:")),
                "{errors}"
            );
        }
    }
}
