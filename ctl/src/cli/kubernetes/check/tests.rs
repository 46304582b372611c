use super::judge::judge;
use super::look::{compare, overlay};
use super::seen::{Definition, Leader, Node, Right, Seen, Unread};
use crate::cli::doctor::{Finding, Severity};
use kube::CustomResourceExt;
use lockstep_ctl_core::kubernetes::Change;
use lockstep_ctl_core::kubernetes::access::ACCESS;
use lockstep_kubernetes::facts::{self, Name};
use lockstep_kubernetes::resources::{AddressPool, Advertisement, Dire};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

fn pool(name: &str, addresses: &str) -> Change {
    let object = json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "AddressPool",
        "metadata": {"name": name}, "spec": {"addresses": [addresses]},
    });
    let pool: AddressPool = serde_json::from_value(object).unwrap();
    Change::Pool(name.to_owned(), Some(Arc::new(pool)))
}

fn advertisement(pools: &[&str]) -> Change {
    let object = json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "Advertisement",
        "metadata": {"name": "all"}, "spec": {"type": "BGP", "pools": pools},
    });
    let object: Advertisement = serde_json::from_value(object).unwrap();
    Change::Advertisement("all".to_owned(), Some(Arc::new(object)))
}

fn service(name: &str, more: &Value) -> Change {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": name, "uid": name},
        "spec": {
            "type": "LoadBalancer", "loadBalancerClass": "lockstep.dev/xdp", "ipFamilies": ["IPv4"],
            "ports": [{"port": 80}],
        },
    });
    for (key, value) in more.as_object().unwrap() {
        for (field, value) in value.as_object().unwrap() {
            object[key][field] = value.clone();
        }
    }
    let object: k8s_openapi::api::core::v1::Service = serde_json::from_value(object).unwrap();
    let fact = facts::Service::from(&object);
    Change::Service(Name::new("shop", name), Some(Arc::new(fact)))
}

/// A cluster in which nothing is missing.
fn well() -> Seen {
    let mut seen = Seen {
        server: "https://10.0.0.1:6443/".to_owned(),
        namespace: "lockstep-system".to_owned(),
        version: (1, 36),
        leader: Leader::Is(
            "a".to_owned(),
            Duration::from_secs(1),
            Duration::from_secs(15),
        ),
        nodes: vec![Node {
            name: "node-a".to_owned(),
            labelled: true,
            ready: true,
            kernel: "6.1.0-31-amd64".to_owned(),
            overlay: None,
        }],
        topologies: Some(BTreeSet::from(["node-a".to_owned()])),
        ..Seen::default()
    };
    let rows = ACCESS.iter().filter(|row| row.is_needed(true, false));
    let rights = rows.flat_map(|row| row.verbs.iter().map(|verb| (*row, *verb, Right::Allowed)));
    seen.rights = rights.collect();
    for name in [
        AddressPool::crd_name(),
        Advertisement::crd_name(),
        Dire::crd_name(),
    ] {
        seen.definitions.insert(name, Definition::Same);
    }
    let namespace = facts::Namespace {
        name: "lockstep-system".to_owned(),
        labels: [].into(),
    };
    let name = namespace.name.clone();
    seen.world
        .apply(Change::Namespace(name, Some(Arc::new(namespace))));
    seen.world.apply(pool("public", "203.0.113.0/24"));
    seen.world.apply(advertisement(&["public"]));
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}});
    seen.world.apply(service("web", &status));
    seen
}

/// What is found where this is otherwise.
fn found(change: impl FnOnce(&mut Seen)) -> Vec<Finding> {
    let mut seen = well();
    change(&mut seen);
    judge(seen)
}

/// The only finding, which says this.
#[track_caller]
fn one(severity: Severity, says: &str, change: impl FnOnce(&mut Seen)) {
    let found = found(change);
    assert_eq!(found.len(), 1, "{says}: {found:#?}");
    assert_eq!(found[0].severity, severity, "{found:#?}");
    let text = format!(
        "{}: {} -> {}",
        found[0].about, found[0].found, found[0].mend
    );
    assert!(text.contains(says), "{says:?} in {text}");
}

#[test]
fn a_cluster_that_has_everything_has_no_findings() {
    assert_eq!(found(|_| {}), []);
}

#[test]
fn what_is_missing_for_the_daemon_is_found_with_its_mend() {
    use Severity::{Error, Note, Warning};
    one(Error, "https://10.0.0.1:6443/: refused", |seen| {
        seen.silent = Some("refused".to_owned());
        seen.definitions.clear();
    });
    one(Warning, "Kubernetes 1.28 -> use 1.31", |seen| {
        seen.version = (1, 28)
    });
    one(
        Error,
        "we may not patch services/status: the addresses",
        |seen| {
            let mut rights = seen.rights.iter_mut();
            let status = rights.find(|(row, ..)| row.resource == "services/status");
            status.unwrap().2 = Right::Denied;
        },
    );
    one(
        Error,
        "get leases.coordination.k8s.io in lockstep-system: who leads -> add the verb to Role",
        |seen| {
            let mut rights = seen.rights.iter_mut();
            let lease = rights.find(|(row, verb, _)| row.resource == "leases" && *verb == "get");
            lease.unwrap().2 = Right::Denied;
        },
    );
    one(Note, "what we may do was not told: 404", |seen| {
        for (.., right) in &mut seen.rights {
            *right = Right::Unknown("404".to_owned());
        }
    });
    one(Error, "dires.lockstep.dev: there is no such", |seen| {
        seen.definitions
            .insert("dires.lockstep.dev", Definition::Missing);
        seen.unread.insert("dires.lockstep.dev", Unread::Missing);
    });
    one(
        Warning,
        "first in v1alpha1.schema -> kubectl apply",
        |seen| {
            let differs = Definition::Differs("v1alpha1.schema".to_owned());
            seen.definitions.insert("dires.lockstep.dev", differs);
        },
    );
    one(Error, "services: cannot list", |seen| {
        let why = Unread::Failed("cannot list services".to_owned());
        seen.unread.insert("services", why);
    });
    one(Error, "kubectl create namespace elsewhere", |seen| {
        seen.namespace = "elsewhere".to_owned();
    });
    one(
        Error,
        "Lease lockstep-system/lockstep: nobody leads",
        |seen| seen.leader = Leader::Nobody,
    );
    one(Error, "lb1 has not renewed it for 40 s", |seen| {
        let (ago, long) = (Duration::from_secs(40), Duration::from_secs(15));
        seen.leader = Leader::Is("lb1".to_owned(), ago, long);
    });
    one(
        Warning,
        "gateways.gateway.networking.k8s.io: this cluster does not have it",
        |seen| {
            seen.wanted.gateway_controller = Some("a/b".to_owned());
            seen.unread
                .insert("gateways.gateway.networking.k8s.io", Unread::Missing);
            seen.unread.insert(
                "gatewayclasses.gateway.networking.k8s.io",
                Unread::Failed(String::new()),
            );
            seen.unread
                .remove("gatewayclasses.gateway.networking.k8s.io");
            let class = json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
                "metadata": {"name": "a"}, "spec": {"controllerName": "a/b"},
            });
            let class = serde_json::from_value(class).unwrap();
            seen.world
                .apply(Change::GatewayClass("a".to_owned(), Some(Arc::new(class))));
        },
    );
    one(
        Warning,
        "no GatewayClass has the controllerName a/b",
        |seen| {
            seen.wanted.gateway_controller = Some("a/b".to_owned());
        },
    );
}

#[test]
fn pools_and_their_advertisements_are_looked_at() {
    use Severity::{Error, Warning};
    one(
        Warning,
        "AddressPool spare: no Advertisement is of it",
        |seen| {
            seen.world.apply(pool("spare", "198.51.100.0/24"));
        },
    );
    let overlap = found(|seen| {
        seen.world.apply(pool("other", "203.0.113.0/25"));
        seen.world.apply(advertisement(&[]));
    });
    assert_eq!(overlap.len(), 2, "{overlap:#?}");
    assert!(
        overlap[0].found.contains("203.0.113.0/25 with public"),
        "{overlap:#?}"
    );
    one(
        Warning,
        "AddressPool small: it has no free address left",
        |seen| {
            seen.world.apply(pool("public", "203.0.113.0/24"));
            seen.world.apply(pool("small", "198.51.100.7"));
            seen.world.apply(advertisement(&[]));
            let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}}});
            seen.world.apply(service("other", &status));
        },
    );
    one(Error, "there is no AddressPool gone", |seen| {
        seen.world.apply(advertisement(&["public", "gone"]));
    });
    let none = found(|seen| {
        seen.world.apply(Change::Pool("public".to_owned(), None));
        seen.world
            .apply(Change::Service(Name::new("shop", "web"), None));
    });
    assert!(
        none[0].found.contains("no Service gets an address"),
        "{none:#?}"
    );
}

#[test]
fn services_that_are_not_served_say_why() {
    use Severity::{Error, Note};
    one(
        Error,
        "Service shop/named: no AddressPool has 192.0.2.1",
        |seen| {
            let annotations =
                json!({"annotations": {"lockstep.dev/load-balancer-ips": "192.0.2.1"}});
            seen.world
                .apply(service("named", &json!({ "metadata": annotations })));
        },
    );
    one(
        Error,
        "Service shop/late: it has no address, although",
        |seen| {
            seen.world.apply(service("late", &json!({})));
        },
    );
    one(Error, "Service shop/sctp:", |seen| {
        let spec = json!({"ports": [{"port": 80, "protocol": "SCTP"}]});
        let status = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.2"}]}});
        seen.world
            .apply(service("sctp", &json!({"spec": spec, "status": status})));
    });
    one(
        Note,
        "1 of type LoadBalancer have no loadBalancerClass and no address: shop/plain",
        |seen| {
            seen.world.apply(service(
                "plain",
                &json!({"spec": {"loadBalancerClass": null}}),
            ));
        },
    );
    let many = found(|seen| {
        for n in 0..20 {
            seen.world.apply(service(&format!("s{n}"), &json!({})));
        }
    });
    assert_eq!(many.len(), 11, "{many:#?}");
    assert!(many[10].found.contains("10 more"));
}

#[test]
fn nodes_that_take_traffic_need_a_topology() {
    use Severity::{Error, Warning};
    one(Error, "node node-b: its engine has no topology", |seen| {
        let node = Node {
            name: "node-b".to_owned(),
            ..seen.nodes[0].clone()
        };
        seen.nodes.push(node);
    });
    one(Warning, "its kernel is 5.10.0-9-amd64", |seen| {
        seen.nodes[0].kernel = "5.10.0-9-amd64".to_owned();
    });
    one(Warning, "node-a: it is not Ready", |seen| {
        seen.nodes[0].ready = false
    });
    one(
        Warning,
        "kubectl label node NAME lockstep.dev/engine=true",
        |seen| {
            seen.nodes[0].labelled = false;
        },
    );
    one(Warning, "several nodes have the same topology", |seen| {
        let node = Node {
            name: "node-b".to_owned(),
            ..seen.nodes[0].clone()
        };
        seen.nodes.push(node);
        seen.topologies = Some(BTreeSet::from(["default".to_owned()]));
    });
    let outside = found(|seen| {
        seen.topologies = None;
        seen.nodes[0].labelled = false;
    });
    assert_eq!(outside, [], "balancers outside of the cluster need no node");
}

#[test]
fn a_resource_is_of_another_version_where_a_field_or_a_rule_differs() {
    let ours = Dire::crd();
    assert_eq!(compare(&ours, &ours), None);
    let value = serde_json::to_value(&ours).unwrap();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut value = value.clone();
        change(&mut value["spec"]["versions"][0]);
        compare(&ours, &serde_json::from_value(value).unwrap())
    };
    let spec = |version: &mut Value, field: &str, to: Value| {
        let schema = &mut version["schema"]["openAPIV3Schema"];
        schema["properties"]["spec"]["properties"][field] = to;
    };
    let more = changed(&|version| spec(version, "newer", json!({"type": "string"})));
    assert!(more.unwrap().ends_with("spec.properties.newer"));
    let other = changed(&|version| spec(version, "rejoin", json!({"type": "string"})));
    assert!(other.unwrap().contains("spec.properties.rejoin"));
    let less = changed(&|version| {
        let schema = &mut version["schema"]["openAPIV3Schema"]["properties"]["spec"];
        schema
            .as_object_mut()
            .unwrap()
            .remove("x-kubernetes-validations");
    });
    assert!(less.unwrap().contains("x-kubernetes-validations"));
    let named = changed(&|version| version["deprecated"] = json!(false));
    assert_eq!(named, None, "what the API server adds");
}

#[test]
fn pods_that_engines_do_not_reach_are_told_of() {
    use Severity::Warning;
    let on = |node: &str| {
        let object: k8s_openapi::api::discovery::v1::EndpointSlice =
            serde_json::from_value(json!({
                "metadata": {
                    "namespace": "shop", "name": "web-1",
                    "labels": {"kubernetes.io/service-name": "web"},
                },
                "addressType": "IPv4",
                "ports": [{"port": 80}],
                "endpoints": [{"addresses": ["10.1.0.1"], "nodeName": node}],
            }))
            .unwrap();
        let fact = facts::Slice::from(&object);
        Change::Slice(fact.name.clone(), Some(Arc::new(fact)))
    };
    one(
        Warning,
        "node node-a: it has pods of Service shop/web: an engine",
        |seen| {
            seen.world.apply(on("node-a"));
        },
    );
    let elsewhere = found(|seen| _ = seen.world.apply(on("node-b")));
    assert!(elsewhere.is_empty(), "{elsewhere:#?}");
    one(Warning, "node-a has an overlay (flannel: vxlan)", |seen| {
        seen.nodes[0].overlay = Some("flannel: vxlan".to_owned());
    });
    let says = |key: &str, value: &str| overlay(&[(key.to_owned(), value.to_owned())].into());
    let flannel = "flannel.alpha.coreos.com/backend-type";
    assert_eq!(says(flannel, "vxlan").as_deref(), Some("flannel: vxlan"));
    assert_eq!(says(flannel, "host-gw"), None);
    let calico = says("projectcalico.org/IPv4VXLANTunnelAddr", "10.0.0.1");
    assert_eq!(calico.as_deref(), Some("Calico: VXLAN"));
}
