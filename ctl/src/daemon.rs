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
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tracing_subscriber::EnvFilter;

mod actor;
mod checks;
mod clock;
mod control;
mod disk;
mod exporter;
mod group;
mod layer2;
mod link;
mod parts;
mod pinger;
mod random;
mod refusal;
mod replicas;
mod routing;
mod store;
mod view;
mod wanted;
mod watch;

use actor::Actor;
use control::ControlService;
use lockstep_ctl_core::config::Config;
use parts::{Orders, Reports, Wires};
use replicas::Replicas;
use store::Store;

/// Events that wait for the actor. Whoever has more waits: a full queue holds up the command that
/// caused it, nothing else.
const EVENTS: usize = 64;

/// How long open connections are waited for at the end.
const GOODBYE: Duration = Duration::from_secs(1);

/// lockstepd: the control daemon of a Lockstep load balancer.
///
/// It tells lockstep-engine what services.toml says, at once when the file changes and whenever
/// the engine starts. A file with errors leaves what is in force as it is. The engine goes on
/// forwarding while the daemon is not there.
///
/// The log goes to standard error; LOCKSTEP_LOG=debug shows more of it.
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

/// Runs the daemon until SIGTERM or SIGINT. The exit code is 0 after one of those, 1 when it
/// could not start.
pub fn run(options: Options) -> ExitCode {
    let filter = EnvFilter::try_from_env("LOCKSTEP_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // A log nobody can write to any more must not end the daemon.
        .log_internal_errors(false)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let served = match runtime {
        Ok(runtime) => runtime.block_on(serve(options)),
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

async fn serve(options: Options) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let (listener, _listening) = listen_on(Peer::Daemon, &options.socket)?;
    let store = Store::open(&options.state_dir, &options.services)?;
    let (events, inbox) = mpsc::channel(EVENTS);
    let watcher = watch::start(&options.services, events.clone())?;
    let (replicas, wanted) = Replicas::new();
    let (orders, reports) = (Orders::new(Config::default()), Reports::default());
    let wires = Wires::new(&orders, &reports, events.clone(), options.state_dir.clone());
    let (actor, view) = Actor::new(&options, store, replicas, orders)?;
    let _parts = parts::start(&wires);

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

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = &mut server => {
            ended.context("the control server panicked")?.context("cannot serve the control socket")?;
        }
    }
    tracing::info!("lockstepd ends; the engine goes on forwarding");
    drop(watcher);
    let _ = stop.send(());
    // A client that holds its connection open does not hold up the end.
    let _ = tokio::time::timeout(GOODBYE, server).await;
    actor.abort();
    Ok(())
}
