//! `lockstepd`: keeps an engine told what `services.toml` says.
//!
//! One task owns everything that is decided ([`actor`]); around it are a watcher of the file
//! ([`watch`]), a link to the engine ([`link`]), pings of replicas ([`pinger`]), what is kept on
//! disk ([`store`]) and the daemon's own gRPC ([`control`]). They talk to the actor by [`actor::Event`]s only. The daemon never
//! touches a packet: the engine goes on with its last snapshot when the daemon ends.

use crate::transport::{MAX_MESSAGE, Peer, listen_on};
use anyhow::Context;
use clap::Parser;
use lockstep_api::control_server::ControlServer;
use lockstep_api::{DAEMON_SOCKET, ENGINE_SOCKET};
use lockstep_process::log::{self, Log};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

mod actor;
mod apart;
mod checks;
mod clock;
mod control;
mod disk;
mod exporter;
mod group;
mod host;
pub(crate) mod kubernetes;
mod layer2;
mod link;
mod manager;
mod parts;
mod pinger;
mod privileges;
mod quiet;
mod random;
mod refusal;
mod replicas;
mod routing;
mod store;
mod view;
mod wanted;
mod watch;
mod ways;

use actor::{Actor, Event};
use control::ControlService;
use lockstep_ctl_core::config::Config;
use parts::{Ending, Orders, Reports, Wires};
use replicas::Replicas;
use store::Store;
use tokio::sync::watch::Sender;

/// Events that wait for the actor. Whoever has more waits: a full queue holds up the command that
/// caused it, nothing else.
const EVENTS: usize = 64;

/// Where the configuration is looked for.
const CONFIG: &str = "/etc/lockstep/lockstepd.toml";

/// How long routers and neighbors may take to be told that the daemon ends.
const FAREWELL: Duration = Duration::from_secs(3);

/// How long the actor may take to withdraw what is announced.
const TOLD: Duration = Duration::from_secs(3);

/// How long open connections are waited for at the end.
const GOODBYE: Duration = Duration::from_secs(1);

/// lockstepd: the control daemon of a Lockstep load balancer.
///
/// It tells lockstep-engine what services.toml says, at once when the file changes and whenever
/// the engine starts. A file with errors leaves what is in force as it is. The engine goes on
/// forwarding while the daemon is not there.
///
/// The log goes to standard error; LOCKSTEP_LOG=debug shows more of it, and
/// LOCKSTEP_LOG_FORMAT=json a JSON object a line.
#[derive(Debug, Clone, Parser)]
#[command(name = "lockstepd", version)]
pub struct Options {
    /// The services, watched for changes.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/lockstep/services.toml"
    )]
    pub services: PathBuf,
    /// The daemon's settings, watched for changes [default: /etc/lockstep/lockstepd.toml, if there
    /// is one].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The engine's socket.
    #[arg(long, value_name = "SOCKET", default_value = ENGINE_SOCKET, env = "LOCKSTEP_ENGINE_SOCKET")]
    pub engine_socket: PathBuf,
    /// The daemon's own socket, for `lockstep`.
    #[arg(long, value_name = "SOCKET", default_value = DAEMON_SOCKET, env = "LOCKSTEP_DAEMON_SOCKET")]
    pub socket: PathBuf,
    /// What outlives the daemon: drains under way, the last services without errors.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/lockstep")]
    pub state_dir: PathBuf,
}

impl Options {
    /// The configuration file.
    fn config(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(CONFIG))
    }
}

/// Runs the daemon until SIGTERM or SIGINT. The exit code is 0 after one of those, 1 when it
/// could not start.
pub fn run(options: Options) -> ExitCode {
    let log = log::start();
    if let Err(error) = privileges::start() {
        tracing::warn!("cannot give up capabilities, goes on with all there are: {error}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let served = match runtime {
        Ok(runtime) => runtime.block_on(serve(options, log)),
        Err(error) => Err(error).context("cannot start a thread"),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: Options, log: Log) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let (listener, _listening) = listen_on(Peer::Daemon, &options.socket)?;
    let mut restart = signal(SignalKind::user_defined1()).context("cannot wait for SIGUSR1")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
    let store = Store::open(&options)?;
    let (events, inbox) = mpsc::channel(EVENTS);
    let watcher = watch::start(&options.services, events.clone())?;
    let of_config = match watch::start(options.config(), events.clone()) {
        Ok(watcher) => Some(watcher),
        // There is no directory where it is usually.
        Err(_) if options.config.is_none() => None,
        Err(error) => return Err(error),
    };
    let (orders, reports) = (Orders::new(Config::default()), Reports::default());
    let wires = Wires::new(&orders, &reports, events.clone(), options.state_dir.clone());
    let ending = orders.ending.clone();
    let (replicas, wanted) = Replicas::new();
    let (actor, view) = Actor::new(&options, store, replicas, orders)?;
    let parts = parts::start(&wires, &view, log);

    tokio::spawn(link::keep(options.engine_socket.clone(), events.clone()));
    tokio::spawn(pinger::run(wanted, events.clone()));
    let actor = tokio::spawn(actor.run(inbox));
    let (stop, stopped) = oneshot::channel::<()>();
    let control = ControlServer::new(ControlService::new(events, view, reports))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let server = Server::builder()
        .add_service(control)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async {
            // A sender that is gone means the same as its signal.
            let _ = stopped.await;
        });
    let mut server = tokio::spawn(server);
    tracing::info!(
        services = %options.services.display(),
        socket = %options.socket.display(),
        "lockstepd is running"
    );

    // It ends a process by default, and many programs read their files again for it.
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::info!("SIGHUP: files are read by themselves when they change");
        }
    });

    let ending_as = tokio::select! {
        _ = terminate.recv() => Ending::Shutdown,
        _ = interrupt.recv() => Ending::Shutdown,
        _ = restart.recv() => Ending::Restart,
        ended = &mut server => {
            ended.context("the control server panicked")?.context("cannot serve the control socket")?;
            Ending::Restart
        }
    };
    match ending_as {
        Ending::Restart => {
            tracing::info!("lockstepd ends to be started again; routers are not told")
        }
        Ending::Running | Ending::Shutdown => {
            tracing::info!("lockstepd ends; the engine goes on forwarding");
        }
    }
    drop((watcher, of_config));
    let again = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    say_goodbye(&wires, &ending, ending_as, parts, again).await;
    let _ = stop.send(());
    // A client that holds its connection open does not hold up the end.
    let patience = match ending_as {
        // The next daemon is waited for, on the link too.
        Ending::Restart => GOODBYE / 10,
        Ending::Running | Ending::Shutdown => GOODBYE,
    };
    let _ = tokio::time::timeout(patience, server).await;
    actor.abort();
    Ok(())
}

/// Withdraws what is announced, waits until what is under way to this balancer has come, and ends
/// the parts.
async fn say_goodbye(
    wires: &Wires,
    ending: &Sender<Ending>,
    how: Ending,
    mut parts: JoinSet<()>,
    again: impl Future<Output = ()>,
) {
    let announces = wires.announcements.borrow().announced().next().is_some()
        && wires.config.borrow().announces();
    let (done, told) = oneshot::channel();
    let said = async {
        let sent = wires.events.send(Event::Ending(how, done)).await;
        sent.is_ok() && told.await.is_ok()
    };
    let said = tokio::time::timeout(TOLD, said).await == Ok(true);
    if said && how == Ending::Shutdown && announces {
        let deadline = wires.config.borrow().shutdown.deadline;
        tracing::info!(
            "VIPs are withdrawn; waiting for their traffic to end, {deadline:?} at most"
        );
        tokio::select! {
            () = quiet::wait(&wires.engine) => {}
            () = tokio::time::sleep(deadline) => {
                tracing::warn!("traffic still comes after {deadline:?}: some router has not followed");
            }
            () = again => tracing::warn!("told to end twice: not waiting for traffic to end"),
        }
    }
    ending.send_replace(how);
    let gone = async { while parts.join_next().await.is_some() {} };
    if tokio::time::timeout(FAREWELL, gone).await.is_err() {
        tracing::warn!("some router or neighbor could not be told");
    }
}
