//! Addresses that several Services have.

use super::*;

fn ports(ports: &[u16], policy: &str) -> Value {
    let ports: Vec<Value> = ports.iter().map(|port| json!({ "port": port })).collect();
    json!({ "spec": { "ports": ports, "externalTrafficPolicy": policy } })
}

#[test]
fn an_address_is_shared_by_those_who_agree_on_it() {
    let key = |cluster: &mut Cluster, name: &str, key: &str, spec: Value| {
        cluster
            .annotated(name, &[("allow-shared-ip", key)])
            .edit(name, spec);
    };
    let mut cluster = cluster();
    key(&mut cluster, "first", "k", ports(&[80], "Cluster"));
    key(&mut cluster, "second", "k", ports(&[443], "Cluster"));
    key(&mut cluster, "same-port", "k", ports(&[80], "Cluster"));
    key(&mut cluster, "local", "k", ports(&[8080], "Local"));
    key(&mut cluster, "other-key", "x", ports(&[8081], "Cluster"));
    cluster.settle();
    let all = ["first", "second", "same-port", "local"].map(|name| cluster.has(name));
    assert_eq!(
        all,
        [
            "192.0.2.1 (a)",
            "192.0.2.1 (a)",
            "192.0.2.2 (a)",
            "192.0.2.3 (a)"
        ]
    );
    assert_eq!(cluster.has("other-key"), "192.0.2.4 (a)");
    // By name as well: not without the key.
    cluster.annotated("stranger", &[("load-balancer-ips", "192.0.2.1")]);
    refused(
        &cluster,
        "stranger",
        "AddressTaken",
        "192.0.2.1 is Service default/first's",
    );
    cluster.annotated(
        "friend",
        &[("load-balancer-ips", "192.0.2.1"), ("allow-shared-ip", "k")],
    );
    refused(&cluster, "friend", "AddressTaken", "which has port 80 too");
    cluster.edit("friend", ports(&[8443], "Cluster"));
    cluster.settle();
    assert_eq!(cluster.has("friend"), "192.0.2.1 (a)");
}

#[test]
fn who_no_longer_agrees_moves_and_it_is_the_younger_one() {
    let mut cluster = cluster();
    for (name, port) in [("old", 80), ("young", 443)] {
        cluster.annotated(name, &[("allow-shared-ip", "k")]);
        cluster.edit(name, ports(&[port], "Cluster"));
    }
    cluster.settle();
    assert_eq!(cluster.has("young"), "192.0.2.1 (a)");
    cluster.edit("young", ports(&[80], "Cluster"));
    cluster.settle();
    assert_eq!(cluster.has("young"), "192.0.2.2 (a)");
    assert_eq!(cluster.has("old"), "192.0.2.1 (a)");
}

#[test]
fn two_statuses_with_one_address_end_with_the_older_one_having_it() {
    let status = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } } });
    let mut cluster = cluster();
    cluster.service("z", status.clone()).service("a", status);
    cluster.settle();
    assert_eq!(cluster.has("z"), "192.0.2.1 (a)");
    assert_eq!(cluster.has("a"), "192.0.2.2 (a)");
}
