//! `lockstep-counts`: counts the instructions of the dataplane's paths, and compares.

#![forbid(unsafe_code)]

use anyhow::{Result, bail};
use lockstep_counts::gate;
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
Counts the instructions of the dataplane's paths and compares them with a baseline.

usage: lockstep-counts gate BASELINE      fails when a path needs over 5 % more than in this file
       lockstep-counts update BASELINE    counts, and writes the file
       lockstep-counts run PATH           runs one path, for callgrind to count";

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["gate", baseline] => gate::check(Path::new(baseline)),
        ["update", baseline] => gate::update(Path::new(baseline)),
        ["run", path] => gate::run(path).map(|()| ExitCode::SUCCESS),
        ["--help" | "-h" | "help"] => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("{USAGE}"),
    }
}
