//! lockstep: the command line of a Lockstep load balancer.

#![forbid(unsafe_code)]

use clap::Parser;
use lockstep_ctl::cli::{Options, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    run(Options::parse())
}
