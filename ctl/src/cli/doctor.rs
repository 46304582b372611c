//! `lockstep doctor`: what on this host stands in the way, each with its mend.

mod discover;
mod engine;
mod facts;
mod judge;
mod probe;
mod server;
mod sources;
mod way;

use super::output::{Out, table};
use super::{Answer, Failure, Global};
use clap::Args;
use serde::Serialize;
use std::net::IpAddr;
use std::path::PathBuf;

/// The longest IP packet that clients send, where nothing else is said.
const CLIENT_MTU: u32 = 1_500;

/// Arguments of `lockstep doctor`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Look at a real server: does it take packets out of tunnels, and answer for the VIPs?
    #[arg(long)]
    server: bool,
    /// How a balancer's packets come to this real server: with nat and full-nat its answers have to
    /// go back by way of the balancer.
    #[arg(
        long,
        value_name = "MODE",
        default_value = "tunnel",
        requires = "server"
    )]
    mode: way::Mode,
    /// The balancer's address in this real server's network; with full-nat, an engine address.
    #[arg(long = "balancer", value_name = "ADDRESS", requires = "server")]
    balancers: Vec<IpAddr>,
    /// A client, where some have a route of their own.
    #[arg(long = "client", value_name = "ADDRESS", requires = "server")]
    clients: Vec<IpAddr>,
    /// A VIP that this real server answers for.
    #[arg(long = "vip", value_name = "ADDRESS", requires = "server")]
    vips: Vec<IpAddr>,
    /// The topology.toml of this balancer. Without it, the running engine's own; where none runs,
    /// /etc/lockstep/topology.toml.
    #[arg(long, value_name = "FILE", env = "LOCKSTEP_TOPOLOGY")]
    topology: Option<PathBuf>,
    /// The longest IP packet that clients send.
    #[arg(long, value_name = "BYTES", default_value_t = CLIENT_MTU, value_parser = clap::value_parser!(u32).range(576..=9_216))]
    client_mtu: u32,
    /// Do not ping the backends.
    #[arg(long)]
    no_ping: bool,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Packets are lost, or will be.
    Error,
    /// It works, and worse than it could; or it will not work when something else happens.
    Warning,
    /// Worth knowing; or what could not be looked at.
    Note,
}

/// Something that was found, and what mends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// What it is about: an interface, a worker, a service.
    pub about: String,
    pub found: String,
    /// A command, or what to change.
    pub mend: String,
}

impl Finding {
    pub fn error(about: impl ToString, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Finding {
            severity: Severity::Error,
            about: about.to_string(),
            found: found.into(),
            mend: mend.into(),
        }
    }

    pub fn warning(
        about: impl ToString,
        found: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Finding {
            severity: Severity::Warning,
            ..Finding::error(about, found, mend)
        }
    }

    pub fn note(about: impl ToString, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Finding {
            severity: Severity::Note,
            ..Finding::error(about, found, mend)
        }
    }
}

/// The answer as JSON.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether there is no error.
    pub ok: bool,
    findings: Vec<Finding>,
}

impl Report {
    /// What is worst comes first.
    pub fn new(mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.severity);
        Report {
            ok: findings.iter().all(|f| f.severity != Severity::Error),
            findings,
        }
    }

    pub fn text(&self) -> String {
        if self.findings.is_empty() {
            return "nothing found\n".to_owned();
        }
        let mut text = String::new();
        for finding in &self.findings {
            let severity = match finding.severity {
                Severity::Error => "ERROR",
                Severity::Warning => "warning",
                Severity::Note => "note",
            };
            text.push_str(&format!(
                "{severity:<8} {}: {}\n",
                finding.about, finding.found
            ));
            if !finding.mend.is_empty() {
                text.push_str(&format!("         -> {}\n", finding.mend));
            }
        }
        let count = |severity, name: &str| {
            let found = self.findings.iter().filter(|f| f.severity == severity);
            vec![name.to_owned(), found.count().to_string()]
        };
        let rows = [
            count(Severity::Error, "errors"),
            count(Severity::Warning, "warnings"),
            count(Severity::Note, "notes"),
        ];
        format!("{text}\n{}", table(&["FOUND", ">NUMBER"], rows))
    }
}

/// What stands in the way on a balancer, by its running engine.
pub async fn of_balancer(global: &Global) -> Result<Vec<Finding>, Failure> {
    let facts = discover::balancer(global, None, CLIENT_MTU, false).await?;
    Ok(judge::judge(&facts))
}

/// Looks at this host.
pub async fn run(global: &Global, arguments: Arguments, out: &mut Out) -> Result<Answer, Failure> {
    let findings = if arguments.server && arguments.mode != way::Mode::Tunnel {
        let ways = way::look(arguments.mode, arguments.balancers, &arguments.clients);
        way::judge(&ways)
    } else if arguments.server {
        let facts = discover::server(arguments.vips, arguments.client_mtu)?;
        server::judge(&facts)
    } else {
        let (topology, client_mtu) = (arguments.topology.as_deref(), arguments.client_mtu);
        let facts = discover::balancer(global, topology, client_mtu, !arguments.no_ping).await?;
        judge::judge(&facts)
    };
    let report = Report::new(findings);
    out.answer(&report, || report.text())?;
    Ok(if report.ok { Answer::Yes } else { Answer::No })
}

#[cfg(test)]
mod tests;
