//! `[node]`, `[log]` and `[metrics]`: who this balancer is, and how it tells what it does.

use lockstep_topology::diagnostics::{Diagnostics, Source};
use serde::Deserialize;
use std::net::SocketAddr;
use toml::Spanned;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Operation {
    /// What the others of its group know it by; the host's name where the file has none.
    pub name: Option<String>,
    /// How the log is written; as the environment says where the file has nothing.
    pub log: Option<LogFormat>,
    /// How much is written; as the environment says where the file has nothing.
    pub level: Option<LogLevel>,
    /// Where Prometheus asks for metrics; nowhere where the file has none.
    pub metrics: Option<SocketAddr>,
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

/// How much is written to the log: this and what is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What does not work.
    Error,
    /// What hardly works as it is meant.
    Warn,
    /// What changes.
    Info,
    /// What happens.
    Debug,
}

impl LogLevel {
    /// Its name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
        }
    }
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
    level: Option<LogLevel>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMetrics {
    listen: Option<Spanned<String>>,
}

pub(super) fn read(
    node: RawNode,
    log: RawLog,
    metrics: RawMetrics,
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
        level: log.level,
        metrics: listen.as_deref().and_then(address),
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
        let text = "[node]\nname = \"lb-1.example\"\n[log]\nformat = \"json\"\nlevel = \"debug\"\n\
                    [metrics]\nlisten = \"[::1]:9478\"\n";
        let file = parse("lockstepd.toml", text).expect("no errors");
        let expected = Operation {
            name: Some("lb-1.example".to_owned()),
            log: Some(LogFormat::Json),
            level: Some(LogLevel::Debug),
            metrics: Some("[::1]:9478".parse().expect("an address")),
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
            ("[log]\nlevel = \"loud\"", "2:9"),
            ("[metrics]\nlisten = \"9478\"", "2:10"),
            ("[metrics]\nport = 1", "2:1"),
        ] {
            let errors = parse("lockstepd.toml", text).expect_err(text).to_string();
            assert!(
                errors.starts_with(&format!("lockstepd.toml:{place}:")),
                "{errors}"
            );
        }
    }
}
