//! The objects of a cluster, as far as they decide something.

use lockstep_kubernetes::facts::gateway::{Gateway, GatewayClass, ReferenceGrant, Route};
use lockstep_kubernetes::facts::{Deployment, Name, Namespace, Node, Pod, Service, Slice};
use lockstep_kubernetes::resources::{AddressPool, Advertisement, Dire};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An object that is there, is another one now, or is gone (`None`).
#[derive(Debug, Clone)]
pub enum Change {
    /// A Service.
    Service(Name, Option<Arc<Service>>),
    /// An EndpointSlice.
    Slice(Name, Option<Arc<Slice>>),
    /// A pool.
    Pool(String, Option<Arc<AddressPool>>),
    /// An advertisement.
    Advertisement(String, Option<Arc<Advertisement>>),
    /// A namespace.
    Namespace(String, Option<Arc<Namespace>>),
    /// A node.
    Node(String, Option<Arc<Node>>),
    /// A `Dire`.
    Dire(Name, Option<Arc<Dire>>),
    /// A Deployment.
    Deployment(Name, Option<Arc<Deployment>>),
    /// A pod.
    Pod(Name, Option<Arc<Pod>>),
    /// A class of Gateways.
    GatewayClass(String, Option<Arc<GatewayClass>>),
    /// A Gateway.
    Gateway(Name, Option<Arc<Gateway>>),
    /// A TCPRoute.
    TcpRoute(Name, Option<Arc<Route>>),
    /// A UDPRoute.
    UdpRoute(Name, Option<Arc<Route>>),
    /// A ReferenceGrant.
    Grant(Name, Option<Arc<ReferenceGrant>>),
}

/// See the module.
#[derive(Debug, Default)]
pub struct World {
    /// Services, ours or not.
    pub services: BTreeMap<Name, Arc<Service>>,
    /// Services of which nothing more is told, since they are of another type now, with what is left of
    /// us in them: that is taken back.
    pub left: BTreeMap<Name, Arc<Service>>,
    /// The slices of each Service.
    pub slices: BTreeMap<Name, BTreeMap<Name, Arc<Slice>>>,
    /// Whose slice each one is, so that one that changes hands leaves the other.
    owners: BTreeMap<Name, Name>,
    /// Pools.
    pub pools: BTreeMap<String, Arc<AddressPool>>,
    /// Advertisements.
    pub advertisements: BTreeMap<String, Arc<Advertisement>>,
    /// Namespaces.
    pub namespaces: BTreeMap<String, Arc<Namespace>>,
    /// Nodes.
    pub nodes: BTreeMap<String, Arc<Node>>,
    /// `Dire`s.
    pub dires: BTreeMap<Name, Arc<Dire>>,
    /// Deployments.
    pub deployments: BTreeMap<Name, Arc<Deployment>>,
    /// Pods.
    pub pods: BTreeMap<Name, Arc<Pod>>,
    /// Classes of Gateways.
    pub gateway_classes: BTreeMap<String, Arc<GatewayClass>>,
    /// Gateways.
    pub gateways: BTreeMap<Name, Arc<Gateway>>,
    /// TCPRoutes.
    pub tcp_routes: BTreeMap<Name, Arc<Route>>,
    /// UDPRoutes.
    pub udp_routes: BTreeMap<Name, Arc<Route>>,
    /// ReferenceGrants.
    pub grants: BTreeMap<Name, Arc<ReferenceGrant>>,
    /// Services whose translation may be another one since it was last asked for.
    dirty: BTreeSet<Name>,
}

impl World {
    /// Takes what has changed. What is as it was makes no work, and is `false`: everything is listed
    /// again after a gap in a watch, and nodes say every few minutes that they are there.
    pub fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::Service(name, object) => {
                let known = self.services.get(&name);
                if known == object.as_ref() {
                    return false;
                }
                let same = known.zip(object.as_ref());
                // Another version alone is only to be known for what is written.
                if !same.is_some_and(|(known, object)| is_but_for_the_version(known, object)) {
                    self.dirty.insert(name.clone());
                }
                // What is told of it from now on says what is left in it.
                self.left.remove(&name);
                put(&mut self.services, name, object);
            }
            Change::Slice(name, object) => return self.apply_slice(name, object),
            Change::Pool(name, object) => put(&mut self.pools, name, object),
            Change::Advertisement(name, object) => put(&mut self.advertisements, name, object),
            Change::Namespace(name, object) => {
                return put_other(&mut self.namespaces, name, object);
            }
            Change::Node(name, object) => return put_other(&mut self.nodes, name, object),
            Change::Dire(name, object) => put(&mut self.dires, name, object),
            Change::Deployment(name, object) => {
                return put_other(&mut self.deployments, name, object);
            }
            Change::Pod(name, object) => return put_other(&mut self.pods, name, object),
            Change::GatewayClass(name, object) => put(&mut self.gateway_classes, name, object),
            Change::Gateway(name, object) => put(&mut self.gateways, name, object),
            Change::TcpRoute(name, object) => put(&mut self.tcp_routes, name, object),
            Change::UdpRoute(name, object) => put(&mut self.udp_routes, name, object),
            Change::Grant(name, object) => put(&mut self.grants, name, object),
        }
        true
    }

    fn apply_slice(&mut self, name: Name, object: Option<Arc<Slice>>) -> bool {
        let object = object.filter(|slice| slice.service.is_some());
        if self.slice(&name) == object.as_ref() {
            return false;
        }
        if let Some(owner) = self.owners.remove(&name)
            && let Some(slices) = self.slices.get_mut(&owner)
        {
            slices.remove(&name);
            if slices.is_empty() {
                self.slices.remove(&owner);
            }
            self.dirty.insert(owner);
        }
        let Some((slice, owner)) = object.and_then(|slice| {
            let owner = slice.service.clone()?;
            Some((slice, owner))
        }) else {
            return true;
        };
        self.dirty.insert(owner.clone());
        self.owners.insert(name.clone(), owner.clone());
        self.slices.entry(owner).or_default().insert(name, slice);
        true
    }

    fn slice(&self, name: &Name) -> Option<&Arc<Slice>> {
        self.slices.get(self.owners.get(name)?)?.get(name)
    }

    /// The Services to translate anew, once.
    pub fn take_dirty(&mut self) -> BTreeSet<Name> {
        std::mem::take(&mut self.dirty)
    }
}

/// Whether both say the same, by another version or other writers.
fn is_but_for_the_version(one: &Service, other: &Service) -> bool {
    let other = Service {
        version: one.version.clone(),
        written_by: one.written_by.clone(),
        annotated_by: one.annotated_by.clone(),
        ..other.clone()
    };
    *one == other
}

/// The same, where it is another one.
fn put_other<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> bool {
    let differs = map.get(&key) != value.as_ref();
    if differs {
        put(map, key, value);
    }
    differs
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => {
            map.insert(key, value);
        }
        None => {
            map.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_again_as_it_was_is_no_change() {
        let mut world = World::default();
        let node = |zone: &str| {
            let zone = ("topology.kubernetes.io/zone".to_owned(), zone.to_owned());
            let node = Node {
                name: "n1".to_owned(),
                labels: BTreeMap::from([zone]),
            };
            Change::Node("n1".to_owned(), Some(Arc::new(node)))
        };
        assert!(world.apply(node("a")));
        assert!(!world.apply(node("a")));
        assert!(world.apply(node("b")));
        assert!(world.apply(Change::Node("n1".to_owned(), None)));
        assert!(!world.apply(Change::Node("n1".to_owned(), None)));
        assert!(!world.apply(Change::Slice(Name::new("shop", "web"), None)));
        assert!(world.take_dirty().is_empty());
    }
}
