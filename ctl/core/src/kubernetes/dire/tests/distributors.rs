//! A distributor of its own: what is rendered is read by those who will read it.

use super::*;
use crate::kubernetes::write::Kind;
use k8s_openapi::api::apps::v1::Deployment as ApiDeployment;
use lockstep_kubernetes::annotations::{DISTRIBUTOR, RENDERED, SERVICES};

fn with_distributor(more: Value) -> Dire {
    let mut spec = json!({
        "distributorImage": "lockstep:0.1.0",
        "distributor": {
            "addresses": ["10.0.1.202", "fd00::202"], "interface": "ens3",
            "nodeSelector": { "lockstep.dev/edge": "yes" },
        },
    });
    for (key, value) in more.as_object().expect("each is an object") {
        spec[key] = value.clone();
    }
    dire(spec)
}

fn of_kind(writes: &[Write], kind: Kind) -> Option<Value> {
    writes.iter().find_map(|write| match write {
        Write::Apply { object, body, .. } if object.kind == kind => Some(body.clone()),
        _ => None,
    })
}

fn round(cluster: &Cluster) -> Vec<Write> {
    writes(&cluster.world, &settings(), &Ages::default(), now())
}

/// As the API server would have it.
fn deploy(cluster: &mut Cluster, body: &Value) {
    let mut whole = body.clone();
    whole["metadata"]["name"] = json!("game-dire");
    whole["metadata"]["namespace"] = json!("default");
    whole["metadata"]["uid"] = json!("uid-distributor");
    let object: ApiDeployment = serde_json::from_value(whole).expect("it is a Deployment");
    let object = Deployment::from(&object);
    cluster.put(Change::Deployment(
        object.name.clone(),
        Some(Arc::new(object)),
    ));
}

fn own_pod(address: &str) -> Pod {
    let mut own = pod("game-dire-1", address);
    own.labels = BTreeMap::from([(DISTRIBUTOR.to_owned(), "game".to_owned())]);
    own
}

#[test]
fn its_deployment_is_one_and_says_all_that_its_programs_read() {
    let mut cluster = Cluster::new(with_distributor(json!({ "randomNumbers": true })), three());
    let body = of_kind(&round(&cluster), Kind::Deployment).expect("it is made");
    let typed: ApiDeployment = serde_json::from_value(body.clone()).expect("it is a Deployment");
    let spec = typed.spec.clone().expect("it has one");
    // Nothing in it is unknown to the API.
    let back = serde_json::to_value(&spec).expect("it is JSON");
    assert_eq!(back, body["spec"]);
    let template = spec.template;
    let labels = template.metadata.as_ref().and_then(|m| m.labels.clone());
    assert_eq!(labels, spec.selector.match_labels);
    let annotations = template.metadata.and_then(|m| m.annotations).unwrap();
    let config = crate::config::parse("lockstepd.toml", &annotations["lockstep.dev/lockstepd"]);
    assert!(config.is_ok_and(|parsed| parsed.config.random.is_some()));
    let services = crate::services::parse("services.toml", &annotations[SERVICES]);
    assert!(services.is_ok_and(|file| file.services.is_empty()));
    let pod = template.spec.unwrap();
    assert_eq!(pod.host_network, Some(true));
    let init = pod.init_containers.unwrap()[0].command.clone().unwrap();
    let wanted = [
        "--interface",
        "ens3",
        "--address",
        "10.0.1.202",
        "--address",
        "fd00::202",
    ];
    assert_eq!(init[4..], wanted);
    let mounts = |at: usize| {
        let mounts = pod.containers[at].volume_mounts.clone().unwrap_or_default();
        mounts.into_iter().map(|m| m.name).collect::<Vec<_>>()
    };
    let volumes: Vec<String> = pod.volumes.unwrap().into_iter().map(|v| v.name).collect();
    for name in mounts(0).into_iter().chain(mounts(1)) {
        assert!(volumes.contains(&name), "{name}");
    }
    deploy(&mut cluster, &body);
    assert_eq!(of_kind(&round(&cluster), Kind::Deployment), None);
    cluster.change(|dire| dire.spec.distributor_image = Some("lockstep:0.2.0".to_owned()));
    let other = of_kind(&round(&cluster), Kind::Deployment).expect("it is another one");
    let rendered = |body: &Value| body["metadata"]["annotations"][RENDERED].clone();
    assert_ne!(rendered(&other), rendered(&body));
}

#[test]
fn its_pod_is_told_of_replicas_as_they_come_and_go() {
    let spec = json!({ "commit": "Quorum", "quorum": 2, "group": "Client" });
    let mut cluster = Cluster::new(with_distributor(spec), three());
    let body = of_kind(&round(&cluster), Kind::Deployment).expect("it is made");
    deploy(&mut cluster, &body);
    assert_eq!(of_kind(&round(&cluster), Kind::Pod), None);
    let told = |cluster: &mut Cluster| {
        let body = of_kind(&round(cluster), Kind::Pod)?;
        assert_eq!(body["metadata"]["uid"], "uid-game-dire-1");
        let text = body["metadata"]["annotations"][SERVICES].as_str();
        let text = text.expect("it is text").to_owned();
        let mut own = own_pod("192.0.2.9");
        own.annotations.insert(SERVICES.to_owned(), text.clone());
        cluster.put_pod(own);
        assert_eq!(of_kind(&round(cluster), Kind::Pod), None);
        let file = crate::services::parse("services.toml", &text);
        Some(file.expect("it is a file").services)
    };
    cluster.put_pod(own_pod("192.0.2.9"));
    let services = told(&mut cluster).expect("it is told");
    let vips: Vec<String> = services[0].vips.iter().map(ToString::to_string).collect();
    assert_eq!(vips, ["192.0.2.9:5201/tcp", "192.0.2.9:5202/tcp"]);
    let names = |services: &[Service]| {
        let backends = services[0].backends.iter();
        backends.map(|b| b.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&services), ["a", "b", "c"]);
    let policy = services[0].mode.replicate().expect("it replicates");
    assert_eq!(policy.quorum(), 2);
    cluster.lose_pod("b");
    cluster.put_pod(pod("d", "10.0.0.4"));
    let services = told(&mut cluster).expect("it is told");
    assert_eq!(names(&services), ["a", "c", "d"]);
    // Fewer than a file may have.
    cluster.lose_pod("a");
    cluster.lose_pod("c");
    assert_eq!(told(&mut cluster), Some(Vec::new()));
    // The balancers of the cluster leave it alone.
    assert_eq!(super::services(&cluster.world, &settings()), []);
}

#[test]
fn its_service_is_balanced_to_as_any_other() {
    let cluster = Cluster::new(with_distributor(json!({})), three());
    let body = of_kind(&round(&cluster), Kind::Service).expect("it is made");
    assert_eq!(body["spec"]["selector"], json!({ DISTRIBUTOR: "game" }));
    let annotations = &body["metadata"]["annotations"];
    assert_eq!(annotations[DISTRIBUTOR], "game");
    assert!(annotations[annotations::DIRE].is_null());
    assert!(annotations[annotations::MODE].is_null());
}

#[test]
fn without_an_image_it_is_taken_away_and_what_is_others_stays() {
    let mut cluster = Cluster::new(with_distributor(json!({})), three());
    let body = of_kind(&round(&cluster), Kind::Deployment).expect("it is made");
    deploy(&mut cluster, &body);
    cluster.change(|dire| {
        dire.spec.distributor_image = None;
        dire.spec.distributor = None;
    });
    let deleted = |cluster: &Cluster| {
        let all = round(cluster).into_iter();
        let all = all.filter_map(|write| match write {
            Write::Delete { object, uid } => Some((object.kind, uid)),
            _ => None,
        });
        all.collect::<Vec<_>>()
    };
    let wanted = [(Kind::Deployment, "uid-distributor".to_owned())];
    assert_eq!(deleted(&cluster), wanted);
    let mut others = body.clone();
    others["metadata"]["annotations"] = json!({});
    deploy(&mut cluster, &others);
    assert_eq!(deleted(&cluster), []);
    cluster.change(|dire| *dire = with_distributor(json!({})));
    assert_eq!(of_kind(&round(&cluster), Kind::Deployment), None);
}
