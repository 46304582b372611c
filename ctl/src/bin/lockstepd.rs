//! lockstepd: keeps an engine told what `services.toml` says.

#![forbid(unsafe_code)]

use clap::Parser;
use lockstep_ctl::daemon::{Options, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    run(Options::parse())
}
