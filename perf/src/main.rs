//! `lockstep-perf`: measures Lockstep, one subcommand per question.

#![forbid(unsafe_code)]

mod core_bench;

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// As the engine has it: flow tables on huge pages.
#[global_allocator]
static ALLOCATOR: lockstep_xsk::HugePages = lockstep_xsk::HugePages;

#[derive(Parser)]
#[command(name = "lockstep-perf", version, about = "Measures Lockstep")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The dataplane alone, in memory: nanoseconds and instructions per packet.
    Core {
        /// Where the results go.
        #[arg(long, default_value = "perf/results/core.json")]
        output: PathBuf,
        /// Rounds per path; the median is reported.
        #[arg(long, default_value_t = 7)]
        rounds: usize,
        /// Leave the instruction counts out (they need valgrind and some minutes).
        #[arg(long)]
        no_instructions: bool,
    },
    /// Runs one path for callgrind to count.
    #[command(hide = true)]
    Count {
        /// The path's name.
        path: String,
        /// Live flows.
        flows: u32,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Core {
            output,
            rounds,
            no_instructions,
        } => core_bench::run(&output, rounds, !no_instructions),
        Command::Count { path, flows } => core_bench::count(&path, flows),
    }
}
