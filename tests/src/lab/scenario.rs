//! Running a scenario: what it prints when it fails.

use super::builder::{Lab, LabBuilder};
use super::process::tail;
use super::run::Run;
use anyhow::{Context, Result, ensure};
use nix::unistd::gettid;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;

/// Builds the lab, runs the scenario in it and takes the lab down.
///
/// # Panics
/// When the lab cannot be built or the scenario fails, with the reason and the end of every
/// program's log: this is for tests.
pub fn scenario(builder: &LabBuilder, body: impl FnOnce(&mut Lab) -> Result<()>) {
    let ahead = run_ahead_of_others();
    let mut lab = match ahead.and_then(|()| builder.start()) {
        Ok(lab) => lab,
        Err(error) => panic!("cannot build the lab: {error:#}"),
    };
    let result = catch_unwind(AssertUnwindSafe(|| body(&mut lab)));
    if !matches!(result, Ok(Ok(()))) {
        print_sessions(&lab);
        print_logs(lab.run());
    }
    drop(lab);
    match result {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{error:#}"),
        Err(panic) => resume_unwind(panic),
    }
}

/// Lets this thread, and the programs that it starts, go before what else the machine does: what is to
/// happen within a second is the balancers' to do, and not that of a compiler beside them.
fn run_ahead_of_others() -> Result<()> {
    let thread = gettid().to_string();
    let output = Command::new("renice")
        .args(["-n", "-15", "-p", &thread])
        .output()
        .context("cannot run renice")?;
    let says = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "the lab cannot run ahead of others, which needs root: {says}"
    );
    Ok(())
}

/// Prints the end of every program's log to standard error.
pub fn print_logs(run: &Run) {
    let entries = std::fs::read_dir(run.dir()).into_iter().flatten().flatten();
    let mut logs: Vec<_> = (entries.map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    logs.sort();
    for log in logs {
        eprintln!("{}", tail(&log));
    }
}

/// Prints what the engines that answer say of their sessions, if they have had any.
fn print_sessions(lab: &Lab) {
    for balancer in &lab.balancers {
        for what in ["sessions", "events"] {
            let text = balancer.cli_text(&[what]).unwrap_or_default();
            if text.lines().count() > 1 {
                eprintln!("--- lockstep {what} on {}\n{text}", balancer.name());
            }
        }
    }
}
