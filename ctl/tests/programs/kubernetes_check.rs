//! `lockstep kubernetes check` with a real API server.

use crate::common::kube::KubeApi;
use crate::common::{Answer, Place, wait_for};
use serde_json::{Value, json};

const POOLS: &str = "/apis/lockstep.dev/v1alpha1/addresspools";
const ADVERTISEMENTS: &str = "/apis/lockstep.dev/v1alpha1/advertisements";
const SERVICES: &str = "/api/v1/namespaces/checked/services";
const CLASS: &str = "lockstep.dev/checked";

fn ours(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name}, "spec": spec,
    })
}

fn service(name: &str, annotations: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "checked", "name": name, "annotations": annotations},
        "spec": {
            "type": "LoadBalancer", "loadBalancerClass": CLASS, "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "ports": [{"protocol": "TCP", "port": 80}],
        },
    })
}

/// By the daemon's own configuration, as in its pod; there is no engine here.
fn check(place: &Place, more: &[&str]) -> Answer {
    let config = place.config();
    let mut arguments = vec!["kubernetes", "check", "--config", config.to_str().unwrap()];
    arguments.extend(["--engine-socket", "none.sock"]);
    arguments.extend(more);
    place.lockstep(&arguments)
}

#[test]
fn a_cluster_is_asked_what_it_lacks_until_it_lacks_nothing() {
    let api = KubeApi::start();
    api.namespace("checked");
    let place = Place::new("");
    place.configure(&format!(
        "[node]\nname = \"checked\"\n[kubernetes]\nkubeconfig = \"{}\"\nnode = \"checked\"\n\
         class = \"{CLASS}\"\nlease = \"checked\"\n",
        api.kubeconfig().display()
    ));
    check(&place, &[]).expect(
        1,
        &[
            "ERROR    Lease lockstep-system/checked: nobody leads",
            "-> is a daemon with `lead` running",
        ],
    );
    api.apply(
        POOLS,
        ours(
            "AddressPool",
            "checked",
            &json!({"addresses": ["203.0.113.0/24"]}),
        ),
    );
    check(&place, &[]).expect(1, &["AddressPool checked: no Advertisement is of it"]);
    let all = json!({"type": "L2", "pools": ["checked"]});
    api.apply(ADVERTISEMENTS, ours("Advertisement", "checked", &all));
    api.apply(SERVICES, service("web", &json!({})));
    let found = check(&place, &[]);
    found.expect(
        1,
        &["Service checked/web: it has no address, although there is one for it"],
    );
    assert!(!found.out.contains("AddressPool checked:"), "{found:#?}");

    let _engine = place.engine();
    let daemon = place.daemon();
    wait_for("nothing to mend", || check(&place, &[]).code == 0);
    let found = check(&place, &["--output", "json"]).json();
    assert_eq!(found["ok"], true);
    let definitions = found["findings"].as_array().unwrap().iter();
    let mut definitions =
        definitions.filter(|f| f["about"].as_str().unwrap().ends_with("lockstep.dev"));
    assert_eq!(
        definitions.next(),
        None,
        "what is installed is what the types say"
    );

    let elsewhere = json!({"lockstep.dev/load-balancer-ips": "192.0.2.9"});
    api.apply(SERVICES, service("elsewhere", &elsewhere));
    check(&place, &[]).expect(
        1,
        &["ERROR    Service checked/elsewhere: no AddressPool has 192.0.2.9; add it to one"],
    );
    api.delete(&format!("{SERVICES}/elsewhere"));
    daemon.terminate();
    api.delete(&format!("{SERVICES}/web"));
    api.delete(&format!("{ADVERTISEMENTS}/checked"));
    api.delete(&format!("{POOLS}/checked"));
}

#[test]
fn without_an_api_server_the_check_says_who_does_not_answer() {
    let place = Place::new("");
    check(&place, &[]).expect(1, &["it has no [kubernetes]", "this is no pod"]);
    place.configure("[kubernetes]\nkubeconfig = \"missing\"\n");
    check(&place, &[]).expect(1, &["ERROR    cluster: cannot use missing"]);
    // Nobody listens at a port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "users": [{"name": "me", "user": {}}],
    });
    let file = place.path("kubeconfig");
    std::fs::write(&file, kubeconfig.to_string()).unwrap();
    let file = file.to_str().unwrap();
    let server = format!("ERROR    http://127.0.0.1:{port}/: cannot get /version");
    check(&place, &["--kubeconfig", file]).expect(1, &[&server, "refused"]);
    check(&place, &["--kubeconfig", file, "--context", "there"]).expect(1, &["there"]);
    place.configure("[kubernetes]\n");
    check(&place, &["--context", "here"]).expect(2, &["name it with --kubeconfig"]);
    place.configure("[kubernetes]\nclas = \"a/b\"\n");
    check(&place, &[]).expect(1, &["unknown key `clas`", "lockstep check"]);
}
