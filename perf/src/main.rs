//! `lockstep-perf`: measures Lockstep, one subcommand per question.

#![forbid(unsafe_code)]

// First: its macros are everybody's.
#[macro_use]
mod output;

mod compare;
mod core_bench;
mod cpu;
mod experiments;
mod figure;
mod handover_bench;
mod host;
mod load;
mod machine;
mod measure;
mod model;
mod origin;
mod plot;
mod programs;
mod reading;
mod replicate;
mod report;
mod session_bench;
mod site;
mod turn;
mod whole_cpus;
mod written;

use clap::{Parser, Subcommand};
use std::net::Ipv4Addr;
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
        /// Where the results go: perf/results/core.json, unless said otherwise; those of a run of not
        /// everything to perf/results/partial.
        #[arg(long)]
        output: Option<PathBuf>,
        /// Rounds per path; the median is reported.
        #[arg(long, default_value_t = core_bench::ROUNDS)]
        rounds: usize,
        /// Leave the instruction counts out (they need valgrind and some minutes).
        #[arg(long)]
        no_instructions: bool,
        /// Only the paths whose names have this in them: to compare two versions in turns.
        #[arg(long, default_value = "")]
        only: String,
    },
    /// The engine beside nftables, Linux and XDP forwarding, HAProxy and nginx in a lab of network
    /// namespaces: packets and requests a second, CPU, latency.
    Compare(compare::Arguments),
    /// The replicator alone, in memory: nanoseconds per packet.
    Session(session_bench::Arguments),
    /// Replicated sessions beside HAProxy in a lab: throughput, CPU, gaps, memory.
    Replicate(replicate::Arguments),
    /// The evaluations of the systems that Lockstep follows, repeated with it in a lab.
    Experiments(experiments::Arguments),
    /// Sends packets, or asks over TCP, at a fixed rate, and counts what becomes of it.
    ///
    /// Open loop: what is due is sent, whatever came of what was sent before, and latency is counted
    /// from the time at which it was due. A stall is not hidden.
    Generate(Box<load::Arguments>),
    /// Answers on AF_XDP for any number of clients: HTTP over TCP, an echo over UDP.
    Respond(load::RespondArguments),
    /// How many hosts a load takes, reckoned from what was measured on one core; whose connections move when
    /// backends and balancers come and go, simulated.
    ///
    /// Nothing is measured here. What is taken for granted is printed with the figures, and options of hosts
    /// set it.
    Model(model::Arguments),
    /// Draws the figures and writes the results' pages: docs/src/performance.md, docs/src/experiments.md, README.md.
    Report(report::Arguments),
    /// Streams and echoes, as the servers of `replicate`.
    #[command(hide = true)]
    StreamServer {
        /// The address to listen on.
        #[arg(long)]
        address: Ipv4Addr,
        /// The port.
        #[arg(long)]
        port: u16,
        /// The CPU to run on.
        #[arg(long)]
        cpu: usize,
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
            only,
        } => core_bench::run(output.as_ref(), rounds, !no_instructions, &only),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Session(arguments) => session_bench::run(&arguments),
        Command::Replicate(arguments) => replicate::run(&arguments),
        Command::Experiments(arguments) => experiments::run(&arguments),
        Command::StreamServer { address, port, cpu } => replicate::serve(address, port, cpu),
        Command::Generate(arguments) => load::run(&arguments),
        Command::Respond(arguments) => load::respond(&arguments),
        Command::Model(arguments) => model::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Count { path, flows } => core_bench::count(&path, flows),
    }
}
