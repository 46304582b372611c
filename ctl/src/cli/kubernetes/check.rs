//! `lockstep kubernetes check`: what is missing in a cluster, each with its mend. Asks the API server
//! itself, so that it says something where no daemon runs.

mod judge;
mod look;
mod seen;

use crate::cli::doctor::{self, Finding, Report};
use crate::cli::output::Out;
use crate::cli::{Answer, Failure, Global};
use clap::Args;
use lockstep_ctl_core::config::{self, kubernetes::Kubernetes};
use std::path::{Path, PathBuf};

/// Where the configuration is looked for.
const CONFIG: &str = "/etc/lockstep/lockstepd.toml";

/// Arguments of `lockstep kubernetes check`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The daemon's settings, whose [kubernetes] says what is to be there [default:
    /// /etc/lockstep/lockstepd.toml, if there is one].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The kubeconfig, in place of that of [kubernetes]: whoever it names is asked about.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of it.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// Looks at the cluster, and at this host where an engine runs on it.
pub async fn run(global: &Global, arguments: &Arguments, out: &mut Out) -> Result<Answer, Failure> {
    let (wanted, mut findings) = settings(arguments)?;
    match look::look(&wanted).await {
        Ok(seen) => findings.extend(judge::judge(seen)),
        Err(problem) => {
            let mend = "name a kubeconfig with --kubeconfig, or run this in the daemon's pod";
            findings.push(Finding::error("cluster", problem, mend));
        }
    }
    if global.engine_socket.exists() {
        findings.extend(doctor::of_balancer(global).await?);
    }
    let report = Report::new(findings);
    out.answer(&report, || report.text())?;
    Ok(if report.ok { Answer::Yes } else { Answer::No })
}

/// What is to be looked at, and what is to be said of the file.
fn settings(arguments: &Arguments) -> Result<(Kubernetes, Vec<Finding>), Failure> {
    let path = arguments.config.as_deref().unwrap_or(Path::new(CONFIG));
    let is_there = arguments.config.is_some() || path.exists();
    let name = path.display().to_string();
    let mut findings = Vec::new();
    let text = match is_there {
        true => crate::cli::read_file(path)?,
        false => String::new(),
    };
    let file = config::parse(&name, &text).map_err(|errors| {
        let errors = errors.to_string();
        Failure::Refused(format!(
            "{}; see `lockstep check {name}`",
            errors.trim_end()
        ))
    })?;
    let mut wanted = file.config.kubernetes.unwrap_or_else(|| {
        let found = match is_there {
            true => "it has no [kubernetes]: no Service is served",
            false => "it is not there: looks for what its defaults need",
        };
        let mend = "add [kubernetes] to it, or name another file with --config";
        let finding = match is_there {
            true => Finding::error(&name, found, mend),
            false => Finding::note(&name, found, mend),
        };
        findings.push(finding);
        Kubernetes::default()
    });
    if let Some(kubeconfig) = &arguments.kubeconfig {
        wanted.kubeconfig = Some(kubeconfig.clone());
        wanted.context = None;
    }
    if let Some(context) = &arguments.context {
        if wanted.kubeconfig.is_none() {
            let text = "--context is one of a kubeconfig: name it with --kubeconfig";
            return Err(Failure::Usage(text.to_owned()));
        }
        wanted.context = Some(context.clone());
    }
    Ok((wanted, findings))
}

#[cfg(test)]
mod tests;
