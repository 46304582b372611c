//! `lockstep-counts`: counts the instructions of the dataplane's paths, and compares.

#![forbid(unsafe_code)]

use anyhow::{Result, bail};
use lockstep_counts::gate::{self, Elsewhere};
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
Counts the instructions of the dataplane's paths and compares them with a baseline.

usage: lockstep-counts gate BASELINE      fails when a path needs over 5 % more than in this file, or less
       lockstep-counts gate BASELINE --skip-other-architectures
                                          passes where the file is of another one: nothing is counted
       lockstep-counts update BASELINE    counts, and writes the file
       lockstep-counts run PATH           runs one path, for callgrind to count";

const SKIP: &str = "--skip-other-architectures";

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["gate", baseline] => gate::check(Path::new(baseline), Elsewhere::Fail),
        ["gate", baseline, SKIP] => gate::check(Path::new(baseline), Elsewhere::Skip),
        ["update", baseline] => gate::update(Path::new(baseline)),
        ["run", path] => gate::run(path).map(|()| ExitCode::SUCCESS),
        ["--help" | "-h" | "help"] => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("{USAGE}"),
    }
}
