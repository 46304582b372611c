//! How the parts of the daemon talk to each other: what each is told, by channels that hold the
//! last word only, and what each tells the command line.

use super::actor::Event;
use super::view::View;
use lockstep_api::engine_client::EngineClient;
use lockstep_api::{BgpReply, GroupReply, HealthReply, KubernetesReply, Layer2Reply};
use lockstep_ctl_core::announce::Announced;
use lockstep_ctl_core::checks::Subjects;
use lockstep_ctl_core::config::Config;
use lockstep_ctl_core::group::Own;
use lockstep_ctl_core::services::sources::Placed;
use lockstep_process::log::Log;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tonic::transport::Channel;

/// How the daemon ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Not now.
    Running,
    /// Another daemon follows at once: what peers know stays as it is (RFC 4724).
    Restart,
    /// For good: peers are told.
    Shutdown,
}

/// What every part is told, by the actor.
#[derive(Debug)]
pub struct Orders {
    /// What `lockstepd.toml` says.
    pub config: watch::Sender<Arc<Config>>,
    /// The backends to be checked.
    pub subjects: watch::Sender<Arc<Subjects>>,
    /// The VIPs to announce, and how.
    pub announcements: watch::Sender<Arc<Announced>>,
    /// What other balancers are told.
    pub own: watch::Sender<Arc<Own>>,
    /// What became of the services of providers.
    pub placed: watch::Sender<Arc<Placed>>,
    /// The engine, while there is one.
    pub engine: watch::Sender<Option<EngineClient<Channel>>>,
    /// Whether the daemon ends.
    pub ending: watch::Sender<Ending>,
}

impl Orders {
    /// Nothing to do under this configuration.
    pub fn new(config: Config) -> Self {
        Orders {
            config: watch::Sender::new(Arc::new(config)),
            subjects: watch::Sender::default(),
            announcements: watch::Sender::default(),
            own: watch::Sender::default(),
            placed: watch::Sender::default(),
            engine: watch::Sender::new(None),
            ending: watch::Sender::new(Ending::Running),
        }
    }
}

/// What parts tell the command line, as messages.
#[derive(Debug, Clone, Default)]
pub struct Reports {
    /// Of the checks.
    pub health: watch::Sender<HealthReply>,
    /// Of the routers.
    pub bgp: watch::Sender<BgpReply>,
    /// Of the link.
    pub layer2: watch::Sender<Layer2Reply>,
    /// Of the group and the random numbers.
    pub group: watch::Sender<GroupReply>,
    /// Of the cluster.
    pub kubernetes: watch::Sender<KubernetesReply>,
    /// Why metrics are not served where they should be; empty where they are.
    pub metrics_error: watch::Sender<String>,
}

/// What a part gets at its start.
#[derive(Debug, Clone)]
pub struct Wires {
    /// See [`Orders`].
    pub config: watch::Receiver<Arc<Config>>,
    /// See [`Orders`].
    pub subjects: watch::Receiver<Arc<Subjects>>,
    /// See [`Orders`].
    pub announcements: watch::Receiver<Arc<Announced>>,
    /// See [`Orders`].
    pub own: watch::Receiver<Arc<Own>>,
    /// See [`Orders`].
    pub placed: watch::Receiver<Arc<Placed>>,
    /// See [`Orders`].
    pub engine: watch::Receiver<Option<EngineClient<Channel>>>,
    /// See [`Orders`]. A part that has something to end returns after it has.
    pub ending: watch::Receiver<Ending>,
    /// To the actor.
    pub events: mpsc::Sender<Event>,
    /// To the command line.
    pub reports: Reports,
    /// Where a part keeps what outlives the daemon, in files of its own.
    pub state_dir: PathBuf,
}

impl Wires {
    /// The other ends.
    pub fn new(
        orders: &Orders,
        reports: &Reports,
        events: mpsc::Sender<Event>,
        state_dir: PathBuf,
    ) -> Self {
        Wires {
            config: orders.config.subscribe(),
            subjects: orders.subjects.subscribe(),
            announcements: orders.announcements.subscribe(),
            own: orders.own.subscribe(),
            placed: orders.placed.subscribe(),
            engine: orders.engine.subscribe(),
            ending: orders.ending.subscribe(),
            events,
            reports: reports.clone(),
            state_dir,
        }
    }
}

/// Starts every part. They end by themselves after [`Ending`] was said.
pub fn start(wires: &Wires, view: &watch::Receiver<View>, log: Log) -> JoinSet<()> {
    let mut parts = JoinSet::new();
    let (group, shared) = super::group::new(wires.clone());
    parts.spawn(group);
    parts.spawn(super::privileges::run(wires.clone()));
    parts.spawn(super::checks::run(wires.clone()));
    parts.spawn(super::routing::run(wires.clone()));
    parts.spawn(super::layer2::run(wires.clone()));
    parts.spawn(super::kubernetes::run(wires.clone()));
    parts.spawn(super::ways::run(wires.clone()));
    parts.spawn(super::random::run(wires.clone(), shared));
    parts.spawn(super::exporter::run(wires.clone(), view.clone()));
    parts.spawn(super::manager::run(wires.clone(), view.clone(), log));
    parts
}
