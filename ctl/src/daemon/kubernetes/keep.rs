//! What the cluster said last, on disk: a daemon that is started while the API server is away knows
//! what to serve and to announce.

use super::watch::Kind;
use crate::daemon::disk;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lockstep_ctl_core::kubernetes::{Change, World};
use lockstep_kubernetes::facts::gateway::{Gateway, GatewayClass, ReferenceGrant, Route};
use lockstep_kubernetes::facts::{Deployment, Name, Namespace, Node, Pod, Service, Slice};
use lockstep_kubernetes::resources::{AddressPool, Advertisement, Dire};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

/// The file, in the state directory.
const FILE: &str = "kubernetes.json";

/// What the file's fields mean. A file of another version is as none.
const VERSION: u32 = 3;

/// The largest file, in bytes.
const MAX_FILE: u64 = 256 << 20;

/// From the end of one write to the next, at least; and so many times as long as it took.
const PAUSE: (Duration, u32) = (Duration::from_secs(1), 20);

/// A change, and what it is about.
pub type Restored = (Kind, Name, Change);

/// See the module.
pub struct Keeper {
    file: PathBuf,
    was_read: bool,
    changed: bool,
    /// When the next write may begin.
    next: Instant,
    writing: Option<JoinHandle<Duration>>,
}

impl Keeper {
    /// In this state directory.
    pub fn new(state_dir: &Path) -> Self {
        Keeper {
            file: state_dir.join(FILE),
            was_read: false,
            changed: false,
            next: Instant::now() + PAUSE.0,
            writing: None,
        }
    }

    /// Whether the file was looked for.
    pub fn was_read(&self) -> bool {
        self.was_read
    }

    /// What was kept; `None` where there is nothing that can be used.
    pub async fn read(&mut self) -> Option<Vec<Restored>> {
        self.was_read = true;
        let file = self.file.clone();
        let read = spawn_blocking(move || {
            let bytes = match disk::read(&file, MAX_FILE) {
                Ok(bytes) => bytes?,
                Err(error) => {
                    tracing::warn!("cannot read {}: {error}", file.display());
                    return None;
                }
            };
            match serde_json::from_slice::<Kept>(&bytes) {
                Ok(kept) if kept.version == VERSION => Some(kept.changes()),
                Ok(_) => None,
                Err(error) => {
                    tracing::warn!("{} is not used: {error}", file.display());
                    None
                }
            }
        });
        read.await.ok().flatten()
    }

    /// The world is another one.
    pub fn changed(&mut self) {
        self.changed = true;
    }

    /// When there is something to keep.
    pub fn due(&self) -> Option<Instant> {
        (self.changed && self.writing.is_none()).then_some(self.next)
    }

    /// Begins to write where that is due.
    pub fn keep(&mut self, world: &World) {
        if self.due().is_none_or(|due| Instant::now() < due) {
            return;
        }
        self.changed = false;
        let (file, kept) = (self.file.clone(), Kept::of(world));
        self.writing = Some(spawn_blocking(move || {
            let begun = Instant::now();
            if let Err(error) = kept.write(&file) {
                tracing::warn!("cannot write {}: {error}", file.display());
            }
            begun.elapsed()
        }));
    }

    /// Waits for a write that is under way; for ever where there is none.
    pub async fn is_done(&mut self) {
        let Some(writing) = &mut self.writing else {
            return std::future::pending().await;
        };
        let took = writing.await.unwrap_or_default();
        self.writing = None;
        self.next = Instant::now() + PAUSE.0.max(took * PAUSE.1);
    }

    /// Writes what was not written yet.
    pub async fn finish(mut self, world: &World) {
        if self.writing.is_some() {
            self.is_done().await;
        }
        if self.changed {
            self.next = Instant::now();
            self.keep(world);
            self.is_done().await;
        }
    }
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    services: Vec<Arc<Service>>,
    slices: Vec<Arc<Slice>>,
    pools: Vec<Arc<AddressPool>>,
    advertisements: Vec<Arc<Advertisement>>,
    namespaces: Vec<Arc<Namespace>>,
    nodes: Vec<Arc<Node>>,
    dires: Vec<Arc<Dire>>,
    deployments: Vec<Arc<Deployment>>,
    pods: Vec<Arc<Pod>>,
    gateway_classes: Vec<Arc<GatewayClass>>,
    gateways: Vec<Arc<Gateway>>,
    tcp_routes: Vec<Arc<Route>>,
    udp_routes: Vec<Arc<Route>>,
    grants: Vec<Arc<ReferenceGrant>>,
}

impl Kept {
    /// What decides something: slices of Services that may be ours, and of no others.
    fn of(world: &World) -> Self {
        let services = world.services.keys();
        let slices = services.filter_map(|name| world.slices.get(name));
        Kept {
            version: VERSION,
            services: world.services.values().cloned().collect(),
            slices: slices.flat_map(|s| s.values()).cloned().collect(),
            pools: world.pools.values().cloned().collect(),
            advertisements: world.advertisements.values().cloned().collect(),
            namespaces: world.namespaces.values().cloned().collect(),
            nodes: world.nodes.values().cloned().collect(),
            dires: world.dires.values().cloned().collect(),
            deployments: world.deployments.values().cloned().collect(),
            pods: world.pods.values().cloned().collect(),
            gateway_classes: world.gateway_classes.values().cloned().collect(),
            gateways: world.gateways.values().cloned().collect(),
            tcp_routes: world.tcp_routes.values().cloned().collect(),
            udp_routes: world.udp_routes.values().cloned().collect(),
            grants: world.grants.values().cloned().collect(),
        }
    }

    fn write(&self, file: &Path) -> std::io::Result<()> {
        let bytes = serde_json::to_vec(self)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        disk::replace(file, &bytes, 0o600)
    }

    fn changes(self) -> Vec<Restored> {
        let mut changes: Vec<Restored> = Vec::new();
        for object in self.services {
            let name = object.name.clone();
            let change = Change::Service(name.clone(), Some(object));
            changes.push((Kind::Services, name, change));
        }
        for object in self.slices {
            let name = object.name.clone();
            let change = Change::Slice(name.clone(), Some(object));
            changes.push((Kind::Slices, name, change));
        }
        for object in self.pools {
            let name = object.metadata.name.clone().unwrap_or_default();
            let change = Change::Pool(name.clone(), Some(object));
            changes.push((Kind::Pools, Name::new("", &name), change));
        }
        for object in self.advertisements {
            let name = object.metadata.name.clone().unwrap_or_default();
            let change = Change::Advertisement(name.clone(), Some(object));
            changes.push((Kind::Advertisements, Name::new("", &name), change));
        }
        for object in self.namespaces {
            let name = object.name.clone();
            let change = Change::Namespace(name.clone(), Some(object));
            changes.push((Kind::Namespaces, Name::new("", &name), change));
        }
        for object in self.nodes {
            let name = object.name.clone();
            let change = Change::Node(name.clone(), Some(object));
            changes.push((Kind::Nodes, Name::new("", &name), change));
        }
        for object in self.dires {
            let name = name_of(&object.metadata);
            let change = Change::Dire(name.clone(), Some(object));
            changes.push((Kind::Dires, name, change));
        }
        for object in self.deployments {
            let name = object.name.clone();
            let change = Change::Deployment(name.clone(), Some(object));
            changes.push((Kind::Deployments, name, change));
        }
        for object in self.pods {
            let name = object.name.clone();
            let change = Change::Pod(name.clone(), Some(object));
            changes.push((Kind::Pods, name, change));
        }
        for object in self.gateway_classes {
            let name = object.metadata.name.clone().unwrap_or_default();
            let change = Change::GatewayClass(name.clone(), Some(object));
            changes.push((Kind::GatewayClasses, Name::new("", &name), change));
        }
        for object in self.gateways {
            let name = name_of(&object.metadata);
            let change = Change::Gateway(name.clone(), Some(object));
            changes.push((Kind::Gateways, name, change));
        }
        for object in self.tcp_routes {
            let name = name_of(&object.metadata);
            let change = Change::TcpRoute(name.clone(), Some(object));
            changes.push((Kind::TcpRoutes, name, change));
        }
        for object in self.udp_routes {
            let name = name_of(&object.metadata);
            let change = Change::UdpRoute(name.clone(), Some(object));
            changes.push((Kind::UdpRoutes, name, change));
        }
        for object in self.grants {
            let name = name_of(&object.metadata);
            let change = Change::Grant(name.clone(), Some(object));
            changes.push((Kind::Grants, name, change));
        }
        changes
    }
}

fn name_of(meta: &ObjectMeta) -> Name {
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    Name::new(namespace, meta.name.as_deref().unwrap_or_default())
}
