//! lockstep-engine: reads `topology.toml`, takes its interfaces' queues, and forwards.

#![forbid(unsafe_code)]

use anyhow::{Context, bail};
use clap::Parser;
use lockstep_bpf::{ModeChoice, Seeds, Steer, SteerOptions};
use lockstep_core::maglev::SELECTION_SEED;
use lockstep_engine::agent::{Agent, Ended, Heritage, give_up, inherit};
use lockstep_engine::workers;
use lockstep_process::{log, manager::Manager};
use lockstep_topology::{BindMode, Host, Topology};
use lockstep_wire::ipip::LABEL_SEED;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// Flow tables on huge pages: with 4 KiB pages, translating addresses costs more than the lookup.
#[global_allocator]
static ALLOCATOR: lockstep_xsk::HugePages = lockstep_xsk::HugePages;

/// How long the engine before may take to end.
const PREDECESSOR: Duration = Duration::from_secs(10);

#[derive(Parser)]
#[command(
    name = "lockstep-engine",
    version,
    about = "The packet engine of Lockstep"
)]
struct Arguments {
    /// Which queue is polled on which core; `lockstep topology detect` writes one.
    #[arg(
        long,
        default_value = "/etc/lockstep/topology.toml",
        env = "LOCKSTEP_TOPOLOGY"
    )]
    topology: PathBuf,
    /// Take the place of the engine that runs: what it has in force and its flows in tunnels go on,
    /// while the XDP program carries their packets.
    #[arg(long)]
    takeover: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log::start();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without anybody to read it there is nothing to do about it either.
            let _ = writeln!(std::io::stderr(), "lockstep-engine: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let topology = read(&arguments.topology)?;
    check(&topology)?;
    // The agent is one thread: the cores belong to the workers.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the agent's runtime")?;
    runtime.block_on(async {
        let manager = Manager::of_this_process();
        let heritage = heritage(&topology, arguments, &manager).await?;
        let _claims = match &heritage {
            Some(_) => claim_after_predecessor(&topology).await?,
            None => claim(&topology)?,
        };
        // From here on a signal waits until everything can be undone.
        let told_to_stop = signals()?;
        let steers = attach(&topology)?;
        let started = match workers::start(&topology, &steers, random) {
            Ok(started) => started,
            Err(error) => {
                give_up(steers);
                return Err(error);
            }
        };
        let agent = Agent::new(topology, started, steers).await?;
        if let Some(heritage) = heritage
            && let Err(error) = agent.succeed(heritage).await
        {
            // The daemon has the services too; flows are where their hashes say, mostly.
            tracing::error!("what the engine before had is not in force: {error:#}");
        }
        let ended = tokio::select! {
            result = agent.run(|| manager.ready()) => result,
            () = told_to_stop => Ok(Ended::Stopped),
        };
        if let Ok(Ended::Succeeded) = ended {
            // The service goes on: the manager is not told of an end.
            tracing::info!("another engine has taken over");
            agent.leave().await;
        } else {
            manager.stopping();
            tracing::info!("stopping; the kernel gets the packets");
            agent.shut_down().await;
        }
        ended.map(drop)
    })
}

/// What the engine that runs leaves to this one, if there is one and it is to be replaced.
async fn heritage(
    topology: &Topology,
    arguments: &Arguments,
    manager: &Manager,
) -> anyhow::Result<Option<Heritage>> {
    let socket = &topology.engine().socket;
    if !lockstep_engine::agent::is_served(socket).await {
        return Ok(None);
    }
    if !arguments.takeover {
        bail!(
            "another engine serves {}; stop it, take its place with --takeover, or give this one \
             a `socket` of its own under [engine] in {}",
            socket.display(),
            arguments.topology.display()
        );
    }
    // The one before ends after its last word: it must not be the service's main process then.
    inherit(socket, || manager.main_process()).await.map(Some)
}

/// Claims every interface as soon as the engine before has let go of them.
async fn claim_after_predecessor(topology: &Topology) -> anyhow::Result<Vec<UnixListener>> {
    let deadline = Instant::now() + PREDECESSOR;
    loop {
        match claim(topology) {
            Ok(claims) => return Ok(claims),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

fn read(file: &Path) -> anyhow::Result<Topology> {
    let text = std::fs::read_to_string(file).with_context(|| {
        format!(
            "cannot read {}; `lockstep topology detect` proposes one",
            file.display()
        )
    })?;
    Topology::parse(&file.display().to_string(), &text)
        .map_err(|errors| anyhow::anyhow!("{errors}"))
}

fn check(topology: &Topology) -> anyhow::Result<()> {
    let host = Host::discover(Path::new("/sys"), Path::new("/proc"))?;
    let found = lockstep_topology::check(topology, &host);
    if found.has_errors() {
        bail!("this host cannot do what the topology says:\n{found}");
    }
    for warning in found.iter() {
        tracing::warn!("{warning}");
    }
    Ok(())
}

/// Claims every interface for this process. An engine that finds its queue busy would otherwise
/// have replaced the running engine's XDP program by then, and cut its traffic.
///
/// Abstract Unix sockets belong to a network namespace, as interfaces do, and end with the process
/// however it ends.
fn claim(topology: &Topology) -> anyhow::Result<Vec<UnixListener>> {
    let one = |interface: &lockstep_topology::Interface| -> anyhow::Result<UnixListener> {
        let name = format!("lockstep-engine/{}", interface.name);
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?).map_err(|error| match error
            .kind()
        {
            std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
                "another engine runs on {}; `ss -xlp | grep lockstep-engine/` names it; stop \
                     it first",
                interface.name
            ),
            _ => anyhow::Error::new(error).context(format!("cannot claim {}", interface.name)),
        })
    };
    topology.interfaces().iter().map(one).collect()
}

/// Attaches the XDP program to every interface. Until sockets are there it passes everything, or
/// carries what a predecessor carried.
fn attach(topology: &Topology) -> anyhow::Result<Vec<Steer>> {
    let engine = topology.engine();
    let one = |first: Option<&Steer>,
               interface: &lockstep_topology::Interface|
     -> anyhow::Result<Steer> {
        let options = SteerOptions {
            pin_dir: engine.pin_dir.clone(),
            mode: match interface.mode {
                BindMode::Auto => ModeChoice::Auto,
                BindMode::ZeroCopy | BindMode::Copy => ModeChoice::Native,
                BindMode::Generic => ModeChoice::Generic,
            },
            deadline: engine.watchdog.get(),
            seeds: Seeds {
                selection: *SELECTION_SEED.words(),
                label: *LABEL_SEED.words(),
            },
        };
        let steer = Steer::attach_beside(first, interface.name.as_str(), &options)?;
        if steer.has_taken_over() {
            tracing::info!(
                interface = %interface.name,
                "another engine was here; what it left carries packets until there is a snapshot"
            );
        }
        if let Some(why) = steer.native_refused() {
            tracing::warn!(interface = %interface.name, "generic XDP, which is slow: {why}");
        }
        Ok(steer)
    };
    let mut steers: Vec<Steer> = Vec::new();
    for interface in topology.interfaces() {
        match one(steers.first(), interface) {
            Ok(steer) => steers.push(steer),
            Err(error) => {
                give_up(steers);
                return Err(error);
            }
        }
    }
    Ok(steers)
}

/// A number that nobody outside knows: the standard library seeds its hasher from the operating
/// system's random numbers.
fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// Hears SIGTERM and SIGINT from now on; the future ends with the first of them.
fn signals() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot hear SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot hear SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot hear SIGHUP")?;
    // It ends a process by default, and many programs read their files again for it.
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::info!(
                "SIGHUP: nothing is read again; services come from lockstepd, and another \
                 topology.toml by `lockstep-engine --takeover`"
            );
        }
    });
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
