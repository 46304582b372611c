//! Where the programs under test are: beside this one, as cargo puts them.

use anyhow::{Context, Result, bail};
use std::path::PathBuf;

/// The path of a program of this workspace.
pub fn find(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find out where this program is")?;
    // A test is one directory below the programs, in `deps`.
    let candidates: Vec<PathBuf> = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(name))
        .collect();
    match candidates.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => bail!(
            "{name} is not built: it is not in {}. Build it with `cargo build -p lockstep-engine \
             -p lockstep-ctl`",
            candidates[0].parent().unwrap_or(&own).display()
        ),
    }
}
