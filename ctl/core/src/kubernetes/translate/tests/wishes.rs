//! What annotations and fields of a Service ask for.

use super::*;

#[test]
fn annotations_say_how_in_the_words_of_services_toml() {
    let of = |annotations: Value| alone(&annotated(annotations)).services().remove(0);
    let plain = of(json!({}));
    assert_eq!(plain.scheduler, Scheduler::Maglev);
    assert_eq!(plain.table_size.get(), 2_039);
    assert_eq!(plain.unserved, Unserved::Reset);
    let chosen = of(json!({
        "lockstep.dev/mode": " nat ", "lockstep.dev/scheduler": "wlc",
        "lockstep.dev/table-size": "65537",
    }));
    assert_eq!(chosen.mode, lockstep_plan::Mode::Nat);
    assert_eq!(chosen.scheduler, Scheduler::LeastConnections);
    assert_eq!(chosen.table_size.get(), 65_537);
    let policy = of(json!({
        "lockstep.dev/mode": "replicate",
        "lockstep.dev/replicate": "commit = { quorum = 2 }\nproxy_protocol = true",
    }));
    let policy = policy.mode.replicate().unwrap();
    assert_eq!((policy.quorum(), policy.min_sync.get()), (2, 2));
    assert!(policy.proxy_protocol);
}

#[test]
fn affinity_is_a_choice_by_the_clients_address() {
    let of = |annotations: Value| {
        let mut over = annotated(annotations);
        merge(
            &mut over,
            &json!({ "spec": { "sessionAffinity": "ClientIP" } }),
        );
        let cluster = alone(&over);
        (
            cluster.services().remove(0).scheduler,
            cluster.problems("web"),
        )
    };
    for annotations in [
        json!({}),
        json!({ "lockstep.dev/scheduler": "maglev" }),
        json!({ "lockstep.dev/scheduler": "source-hash" }),
    ] {
        assert_eq!(of(annotations), (Scheduler::SourceHash, vec![]));
    }
    let (scheduler, problems) = of(json!({ "lockstep.dev/scheduler": "wrr" }));
    assert_eq!(scheduler, Scheduler::SourceHash);
    assert!(
        problems[0].contains("leave one of both out"),
        "{problems:?}"
    );
}

#[test]
fn a_time_after_which_affinity_ends_is_told_to_mean_nothing_unless_it_is_the_default() {
    let of = |seconds: u32| {
        let config = json!({ "clientIP": { "timeoutSeconds": seconds } });
        let over = json!({
            "spec": { "sessionAffinity": "ClientIP", "sessionAffinityConfig": config },
        });
        let cluster = alone(&over);
        assert_eq!(
            cluster.services().remove(0).scheduler,
            Scheduler::SourceHash
        );
        cluster.problems("web")
    };
    assert_eq!(of(10_800), [""; 0]);
    let problems = of(60);
    assert!(
        problems[0].contains("not for 60 s: leave out"),
        "{problems:?}"
    );
}

#[test]
fn source_ranges_never_open_what_they_close() {
    let of = |ranges: &[&str]| {
        let cluster = alone(&json!({ "spec": { "loadBalancerSourceRanges": ranges } }));
        let guard = cluster.services().remove(0).guard;
        let text = |prefixes: &[lockstep_plan::Prefix]| -> Vec<String> {
            prefixes.iter().map(ToString::to_string).collect()
        };
        (
            text(&guard.allow),
            text(&guard.deny),
            cluster.problems("web").len(),
        )
    };
    let strings =
        |texts: &[&str]| -> Vec<String> { texts.iter().map(|t| (*t).to_owned()).collect() };
    assert_eq!(of(&[]), (vec![], vec![], 0));
    // As Kubernetes reads them: spaces and host bits mean nothing.
    let (allow, deny, problems) = of(&[" 192.0.2.0/24 ", "198.51.100.7/24", "2001:db8::/32"]);
    assert_eq!(
        allow,
        strings(&["192.0.2.0/24", "198.51.100.0/24", "2001:db8::/32"])
    );
    assert_eq!((deny, problems), (vec![], 0));
    let (allow, deny, problems) = of(&["192.0.2.0/24", "nonsense"]);
    assert_eq!(
        (allow, deny, problems),
        (strings(&["192.0.2.0/24"]), vec![], 1)
    );
    for nonsense in [
        "nonsense",
        "192.0.2.0",
        "192.0.2.0/33",
        "2001:db8::/129",
        "/8",
        "",
    ] {
        let (allow, deny, problems) = of(&[nonsense]);
        assert_eq!((allow, problems), (vec![], 1), "{nonsense}");
        assert_eq!(deny, strings(&["0.0.0.0/0", "::/0"]), "{nonsense}");
    }
}

#[test]
fn what_cannot_be_served_says_what_to_do() {
    let sctp = json!({ "spec": { "ports": [
        { "name": "http", "port": 80, "protocol": "TCP" },
        { "name": "sig", "port": 3868, "protocol": "SCTP" },
    ] } });
    let mode = |mode: &str| annotated(json!({ "lockstep.dev/mode": mode }));
    let policy = |policy: &str| {
        annotated(json!({ "lockstep.dev/mode": "replicate", "lockstep.dev/replicate": policy }))
    };
    let mut udp = mode("replicate");
    let port = json!([{ "name": "dns", "port": 53, "protocol": "UDP" }]);
    merge(&mut udp, &json!({ "spec": { "ports": port } }));
    let twice = json!({ "spec": { "ports": [
        { "name": "http", "port": 80, "protocol": "TCP" }, { "name": "web", "port": 80, "protocol": "TCP" },
    ] } });
    let loopback = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "127.0.0.1" }] } } });
    let rows = [
        (
            sctp,
            1,
            "3868 UnsupportedProtocol: port 3868 is neither TCP nor UDP",
        ),
        (
            mode("tunel"),
            0,
            "80 InvalidMode: lockstep.dev/mode: \"tunel\" is no mode; did you mean `tunnel`?",
        ),
        (
            mode("tunnel"),
            0,
            "80 PortMismatch: the targetPort of port 80 is another one",
        ),
        (
            policy("commit = 3"),
            0,
            "80 InvalidPolicy: lockstep.dev/replicate: ",
        ),
        (
            policy("quorum = 3"),
            0,
            "80 InvalidPolicy: lockstep.dev/replicate: ",
        ),
        (
            policy(&format!(
                "masks = [{}]",
                "{ offset = 0, length = 1 },".repeat(9)
            )),
            0,
            "80 InvalidPolicy: lockstep.dev/replicate: more than 8 masks",
        ),
        (udp, 0, "53 UnsupportedProtocol: port 53 is UDP"),
        (
            twice,
            1,
            "80 DuplicatePort: port 80 or its name is there twice",
        ),
        (
            loopback,
            0,
            "- AddressUnusable: 127.0.0.1 is not a unicast address",
        ),
        (
            annotated(json!({ "lockstep.dev/scheduler": "maglef" })),
            1,
            "- InvalidScheduler: lockstep.dev/scheduler: \"maglef\" is no scheduler; did you mean `maglev`?",
        ),
        (
            annotated(json!({ "lockstep.dev/table-size": "65536" })),
            1,
            "- InvalidTableSize: lockstep.dev/table-size: 65536 is not a prime; the nearest is 65537",
        ),
        (
            annotated(json!({ "lockstep.dev/table-size": "many" })),
            1,
            "- InvalidTableSize: lockstep.dev/table-size: \"many\" is no table size",
        ),
        (
            annotated(json!({ "lockstep.dev/replicate": "min_sync = 2" })),
            1,
            "- AnnotationIgnored: lockstep.dev/replicate says how",
        ),
    ];
    for (over, served, problem) in rows {
        let cluster = alone(&over);
        assert_eq!(cluster.said().len(), served, "{over}");
        let problems = cluster.problems("web");
        assert_eq!(problems.len(), 1, "{over}: {problems:?}");
        assert!(problems[0].starts_with(problem), "{problems:?}");
    }
}
