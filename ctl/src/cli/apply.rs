//! `lockstep apply FILE`: what a file says, in force when this returns.

use super::output::Out;
use super::{Answer, Failure, Global, ask, check, read_file};
use crate::transport::Peer;
use clap::Args;
use lockstep_api::{ApplyFileRequest, FileKind};
use serde::Serialize;
use std::path::PathBuf;

/// Arguments of `lockstep apply`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A services.toml or lockstepd.toml; `-` is standard input. The daemon's own becomes a copy.
    file: PathBuf,
}

/// The answer as JSON.
#[derive(Debug, Serialize)]
struct Report {
    file: String,
    epoch: u64,
}

/// Applies a file.
pub async fn run(global: &Global, arguments: &Arguments, out: &mut Out) -> Result<Answer, Failure> {
    let text = read_file(&arguments.file)?;
    let file = arguments.file.display().to_string();
    let (read_as, kind, found) = check::daemons(&file, &text)?;
    if found.has_errors() {
        return check::report(&file, read_as, "", &found, out);
    }
    found.iter().for_each(super::output::say);
    let request = ApplyFileRequest {
        text,
        file: file.clone(),
        preview: false,
        kind: kind.into(),
    };
    let mut daemon = ask::daemon(global).await?;
    let reply = ask::answer(Peer::Daemon, daemon.apply_file(request)).await?;
    let report = Report {
        file,
        epoch: reply.epoch,
    };
    out.answer(&report, || match kind {
        FileKind::Services => format!("{}: in force as epoch {}", report.file, report.epoch),
        FileKind::Config => format!("{}: in force", report.file),
    })?;
    Ok(Answer::Yes)
}
