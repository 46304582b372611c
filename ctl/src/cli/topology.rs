//! `lockstep topology detect | check | show | apply`.

mod machine;

use super::output::Out;
use super::{Answer, Failure, check, read_file};
use clap::{Args, Subcommand, ValueEnum};
use lockstep_topology::apply::{self, Outcome, Step};
use lockstep_topology::diagnostics::{Diagnostic, Diagnostics};
use lockstep_topology::{Host, Spread, Topology, Wishes, detect, render, rows, show, total_memory};
use machine::ThisMachine;
use serde::Serialize;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

/// What to do with a topology.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Propose a topology.toml for this host
    Detect(Detect),
    /// Look for errors, also for what this host cannot do (exit code 1 when there are)
    Check(File),
    /// Show workers, cores, queues and memory
    Show(File),
    /// Set the NICs up for it: queues, shares, hash key, interrupts, how long packets wait for a
    /// worker (exit code 1 when something cannot be)
    Apply(Apply),
}

/// Arguments of `lockstep topology detect`.
#[derive(Debug, Args)]
pub struct Detect {
    /// The interfaces to use; otherwise every Ethernet device and veth that is up.
    #[arg(long = "interface", value_name = "NAME")]
    interfaces: Vec<String>,
    /// The engine's addresses, from which its tunnels come: one of each IP version in use. Needed,
    /// because they must be nobody else's, the host's own services included.
    #[arg(long = "address", value_name = "ADDRESS")]
    addresses: Vec<IpAddr>,
    /// How packets are spread over workers: by the NIC's queues (rss), or by the workers themselves
    /// (rps), which then take the cores that have no queue too.
    #[arg(long, value_name = "HOW", default_value = "rss")]
    spread: SpreadArgument,
    /// The most queues of an interface that are used; 1 leaves nothing to the NIC. `topology apply`
    /// then takes the others away from it.
    #[arg(long, value_name = "N")]
    queues: Option<NonZeroU32>,
}

/// The words for it.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum SpreadArgument {
    /// Each worker processes what comes to its queues.
    Rss,
    /// Workers with queues hand each packet to the one that has its flow.
    Rps,
}

/// A topology.toml.
#[derive(Debug, Args)]
pub struct File {
    /// The file; `-` is standard input.
    #[arg(default_value = "/etc/lockstep/topology.toml")]
    file: PathBuf,
}

/// Arguments of `lockstep topology apply`.
#[derive(Debug, Args)]
pub struct Apply {
    #[command(flatten)]
    file: File,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
}

/// What was done, as JSON.
#[derive(Debug, Serialize)]
struct Applied {
    steps: Vec<AppliedStep>,
}

#[derive(Debug, Serialize)]
struct AppliedStep {
    interface: String,
    what: String,
    outcome: &'static str,
    /// The command, or why it cannot be.
    detail: String,
}

/// A topology as JSON.
#[derive(Debug, Serialize)]
struct Report {
    addresses: Vec<IpAddr>,
    interfaces: Vec<String>,
    spread: &'static str,
    workers: Vec<Worker>,
    memory_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Worker {
    index: usize,
    core: u32,
    numa_node: Option<u32>,
    queues: Vec<String>,
    process: bool,
    umem_bytes: u64,
    flow_table_bytes: u64,
}

impl Report {
    fn new(topology: &Topology, host: &Host) -> Self {
        let workers = rows(topology, host).into_iter().map(|row| Worker {
            index: row.worker,
            core: row.core,
            numa_node: row.node,
            queues: row
                .queues
                .split_terminator(' ')
                .map(str::to_owned)
                .collect(),
            process: row.process,
            umem_bytes: row.memory.umem,
            flow_table_bytes: row.memory.flows,
        });
        Report {
            addresses: topology.engine().addresses.all().to_vec(),
            interfaces: topology
                .interfaces()
                .iter()
                .map(|i| i.name.to_string())
                .collect(),
            spread: topology.engine().spread.name(),
            workers: workers.collect(),
            memory_bytes: total_memory(topology),
        }
    }
}

/// Does what was asked for.
pub fn run(command: Command, out: &mut Out) -> Result<Answer, Failure> {
    match command {
        Command::Detect(wishes) => propose(wishes, out),
        Command::Check(file) => compare(&file.file, out),
        Command::Show(file) => print(&file.file, out),
        Command::Apply(arguments) => apply(&arguments, out),
    }
}

fn host() -> Result<Host, Failure> {
    Host::discover(Path::new("/sys"), Path::new("/proc"))
        .map_err(|error| Failure::Refused(error.to_string()))
}

fn propose(wishes: Detect, out: &mut Out) -> Result<Answer, Failure> {
    let host = host()?;
    let wishes = Wishes {
        interfaces: wishes.interfaces,
        addresses: wishes.addresses,
        spread: match wishes.spread {
            SpreadArgument::Rss => Spread::Rss,
            SpreadArgument::Rps => Spread::Rps,
        },
        queues: wishes.queues.map(NonZeroU32::get),
    };
    let topology = detect(&host, &wishes).map_err(|error| Failure::Refused(error.to_string()))?;
    out.answer(&Report::new(&topology, &host), || render(&topology))?;
    Ok(Answer::Yes)
}

fn compare(path: &Path, out: &mut Out) -> Result<Answer, Failure> {
    let (file, text) = (path.display().to_string(), read_file(path)?);
    let found = match Topology::parse(&file, &text) {
        Err(errors) => errors,
        Ok(topology) => lockstep_topology::check(&topology, &host()?),
    };
    check::report(
        &file,
        check::Kind::Topology,
        "no errors: this host can do it",
        &found,
        out,
    )
}

fn print(path: &Path, out: &mut Out) -> Result<Answer, Failure> {
    let (file, text) = (path.display().to_string(), read_file(path)?);
    let topology = match Topology::parse(&file, &text) {
        Err(errors) => return check::report(&file, check::Kind::Topology, "", &errors, out),
        Ok(topology) => topology,
    };
    let host = host()?;
    let found: Diagnostics = lockstep_topology::check(&topology, &host);
    found
        .iter()
        .map(Diagnostic::to_string)
        .for_each(super::output::say);
    out.answer(&Report::new(&topology, &host), || show(&topology, &host))?;
    Ok(if found.has_errors() {
        Answer::No
    } else {
        Answer::Yes
    })
}

fn apply(arguments: &Apply, out: &mut Out) -> Result<Answer, Failure> {
    let path = &arguments.file.file;
    let (file, text) = (path.display().to_string(), read_file(path)?);
    let topology = match Topology::parse(&file, &text) {
        Err(errors) => return check::report(&file, check::Kind::Topology, "", &errors, out),
        Ok(topology) => topology,
    };
    let steps = apply::apply(&topology, &mut ThisMachine, arguments.dry_run);
    let applied = Applied {
        steps: steps.iter().map(AppliedStep::from).collect(),
    };
    out.answer(&applied, || {
        let lines: Vec<String> = steps.iter().map(ToString::to_string).collect();
        lines.join("\n") + "\n"
    })?;
    let cannot = |step: &Step| matches!(step.outcome, Outcome::Cannot(_));
    Ok(if steps.iter().any(cannot) {
        Answer::No
    } else {
        Answer::Yes
    })
}

impl From<&Step> for AppliedStep {
    fn from(step: &Step) -> Self {
        AppliedStep {
            interface: step.interface.clone(),
            what: step.what.clone(),
            outcome: step.outcome.name(),
            detail: step.outcome.detail().to_owned(),
        }
    }
}
