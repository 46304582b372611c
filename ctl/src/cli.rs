//! `lockstep`: the command line.
//!
//! One file a command. What only reads a file works anywhere (`check`, `topology`); `doctor` looks
//! at this host; what shows
//! traffic asks the engine, also when the daemon is gone (`status`, `top`, `flows`, `sessions`,
//! `events`, `explain`, `capture`,
//! `metrics`); what changes services goes to the daemon (`diff`, `apply`, `drain`, `undrain`).

use crate::transport::ConnectError;
use clap::{Args, Parser, Subcommand, ValueEnum};
use lockstep_api::{DAEMON_SOCKET, ENGINE_SOCKET};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use tonic::{Code, Status};

mod apply;
mod ask;
mod bgp;
mod capture;
mod check;
mod completions;
mod decap;
mod diff;
mod doctor;
mod drain;
mod events;
mod explain;
mod flows;
mod group;
mod health;
mod kubernetes;
mod layer2;
mod metrics;
mod output;
mod pcap;
mod sessions;
mod status;
mod top;
mod topology;
mod units;

use output::Out;

const EXIT_CODES: &str = "\
Exit codes:
  0  fine: no errors, no change, nothing dropped
  1  the answer is no, or it was refused: check found errors, diff found
     changes, explain has a dropped packet, status has something that needs
     attention, doctor found an error, the file or the backend was not accepted
  2  wrong usage: arguments, or a file that cannot be read
  3  the daemon or the engine cannot be reached";

/// The command line of a Lockstep load balancer.
#[derive(Debug, Parser)]
#[command(name = "lockstep", version, after_help = EXIT_CODES)]
pub struct Options {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
struct Global {
    /// How to print the answer.
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// The engine's socket.
    #[arg(long, global = true, value_name = "SOCKET", default_value = ENGINE_SOCKET, env = "LOCKSTEP_ENGINE_SOCKET")]
    engine_socket: PathBuf,
    /// The daemon's socket.
    #[arg(long, global = true, value_name = "SOCKET", default_value = DAEMON_SOCKET, env = "LOCKSTEP_DAEMON_SOCKET")]
    daemon_socket: PathBuf,
}

/// How to print an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// For programs; the names of its fields are stable.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look for errors in a services.toml, lockstepd.toml or topology.toml, and of several together
    /// (exit code 1 when there are)
    Check(check::Arguments),
    /// Show what applying a services.toml or lockstepd.toml would change (exit code 1 when it would)
    Diff(diff::Arguments),
    /// Put a services.toml or lockstepd.toml in force, in place of the daemon's
    Apply(apply::Arguments),
    /// Show the engine, its workers, services and backends, and the daemon
    Status,
    /// Show traffic as rates, live: services, backends, workers, drops
    Top(top::Arguments),
    /// Show what the checks of backends have found (exit code 1 when one is down)
    Health(health::Arguments),
    /// List live flows
    Flows(flows::Arguments),
    /// List replicated sessions
    Sessions(sessions::ListArguments),
    /// Show one replicated session and its replicas
    Session(sessions::ShowArguments),
    /// Make another replica the primary of a session
    Switchover(sessions::SwitchoverArguments),
    /// Show what happened to sessions: switchovers, evictions, differences
    Events(events::Arguments),
    /// Show the routers, the sessions with them, and the routes that they have
    Bgp(bgp::Arguments),
    /// Take a backend out of new flows, and remove it at a deadline
    Drain(drain::DrainArguments),
    /// End a drain: the backend takes new flows again
    Undrain(drain::UndrainArguments),
    /// Show which balancer on the link answers for each VIP
    Layer2,
    /// Show what the engine does with a packet, and why (exit code 1 when it drops one)
    Explain(explain::Arguments),
    /// Capture packets with what became of each, as pcapng or as lines
    Capture(capture::Arguments),
    /// Look for what stands in the way on this host, each with its mend (exit code 1 for errors)
    Doctor(doctor::Arguments),
    /// Show the balancers that share what they know, and the random numbers served (exit code 1
    /// when something needs attention)
    Group,
    /// Show the Kubernetes cluster whose Services are served (exit code 1 when something needs
    /// attention)
    #[command(visible_alias = "k8s")]
    Kubernetes(kubernetes::Arguments),
    /// Print the metrics of daemon and engine, in the Prometheus text format
    Metrics,
    /// Propose, check or show which queue is polled on which core
    #[command(subcommand)]
    Topology(topology::Command),
    /// End the tunnels on a real server whose kernel has no tunnel driver
    #[command(subcommand)]
    Decap(decap::Command),
    /// Print the completions of a shell
    Completions(completions::Arguments),
}

/// The answer to a command that was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Fine, nothing to do.
    Yes,
    /// Errors, changes, drops: see [`EXIT_CODES`].
    No,
    /// What was asked for in part only, since a process is not there.
    Partly,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// It was refused.
    #[error("{0}")]
    Refused(String),
    /// It makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Nobody is there to ask.
    #[error("{0}")]
    Unreachable(String),
    /// Whoever read the output has read enough.
    #[error("the output was closed")]
    OutputClosed,
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Failure::Unreachable(error.to_string())
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let text = status.message().to_owned();
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded => Failure::Unreachable(text),
            Code::Cancelled | Code::Unknown => Failure::Unreachable(format!(
                "the process at the other end has ended, or broke off: {text}; see `lockstep status`"
            )),
            _ => Failure::Refused(text),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Refused(format!("cannot write the output: {error}")),
        }
    }
}

/// Runs a command. The exit codes are in its `--help`.
pub fn run(options: Options) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return finish(Err(Failure::Refused(format!("cannot start: {error}")))),
    };
    let mut out = Out::new(options.global.output);
    let answer = runtime.block_on(carry_out(options, &mut out));
    // A capture that is still being read when the output is closed is not waited for.
    runtime.shutdown_background();
    finish(answer.and_then(|answer| out.flush().map(|()| answer)))
}

async fn carry_out(options: Options, out: &mut Out) -> Result<Answer, Failure> {
    let Options { global, command } = options;
    match command {
        Command::Check(arguments) => check::run(&arguments, out),
        Command::Diff(arguments) => diff::run(&global, &arguments, out).await,
        Command::Apply(arguments) => apply::run(&global, &arguments, out).await,
        Command::Status => status::run(&global, out).await,
        Command::Top(arguments) => top::run(&global, arguments, out).await,
        Command::Health(arguments) => health::run(&global, arguments, out).await,
        Command::Flows(arguments) => flows::run(&global, arguments, out).await,
        Command::Sessions(arguments) => sessions::list(&global, arguments, out).await,
        Command::Session(arguments) => sessions::show(&global, arguments, out).await,
        Command::Bgp(arguments) => bgp::run(&global, &arguments, out).await,
        Command::Switchover(arguments) => sessions::switchover(&global, arguments, out).await,
        Command::Events(arguments) => events::run(&global, arguments, out).await,
        Command::Drain(arguments) => drain::drain(&global, arguments, out).await,
        Command::Undrain(arguments) => drain::undrain(&global, arguments, out).await,
        Command::Layer2 => layer2::run(&global, out).await,
        Command::Explain(arguments) => explain::run(&global, arguments, out).await,
        Command::Capture(arguments) => capture::run(&global, arguments, out).await,
        Command::Doctor(arguments) => doctor::run(&global, arguments, out).await,
        Command::Group => group::run(&global, out).await,
        Command::Kubernetes(arguments) => kubernetes::run(&global, &arguments, out).await,
        Command::Metrics => metrics::run(&global, out).await,
        Command::Topology(command) => topology::run(command, out),
        Command::Decap(command) => decap::run(command, out),
        Command::Completions(arguments) => completions::run(&arguments, out),
    }
}

fn finish(answer: Result<Answer, Failure>) -> ExitCode {
    let code = match &answer {
        Ok(Answer::Yes) | Err(Failure::OutputClosed) => 0,
        Ok(Answer::No) | Err(Failure::Refused(_)) => 1,
        Err(Failure::Usage(_)) => 2,
        Ok(Answer::Partly) | Err(Failure::Unreachable(_)) => 3,
    };
    match answer {
        Ok(_) | Err(Failure::OutputClosed) => {}
        Err(failure) => output::say(format!("lockstep: {failure}")),
    }
    ExitCode::from(code)
}

/// The text of a file that was named on the command line; `-` is standard input.
fn read_file(path: &std::path::Path) -> Result<String, Failure> {
    let read = match path.to_str() {
        Some("-") => io::read_to_string(io::stdin()),
        _ => std::fs::read_to_string(path),
    };
    read.map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Options::command().debug_assert();
    }
}
