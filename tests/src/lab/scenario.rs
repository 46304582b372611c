//! Running a scenario: what it prints when it fails.

use super::builder::{Lab, LabBuilder};
use super::process::tail;
use anyhow::Result;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

/// Builds the lab, runs the scenario in it and takes the lab down.
///
/// # Panics
/// When the lab cannot be built or the scenario fails, with the reason and the end of every
/// program's log: this is for tests.
pub fn scenario(builder: &LabBuilder, body: impl FnOnce(&mut Lab) -> Result<()>) {
    let mut lab = match builder.start() {
        Ok(lab) => lab,
        Err(error) => panic!("cannot build the lab: {error:#}"),
    };
    let result = catch_unwind(AssertUnwindSafe(|| body(&mut lab)));
    if !matches!(result, Ok(Ok(()))) {
        print_logs(lab.run().dir());
    }
    drop(lab);
    match result {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{error:?}"),
        Err(panic) => resume_unwind(panic),
    }
}

fn print_logs(dir: &Path) {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut logs: Vec<_> = (entries.map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    logs.sort();
    for log in logs {
        eprintln!("{}", tail(&log));
    }
}
