//! What 5,000 Services with 20 endpoints each cost.

use super::*;
use std::time::Duration;

const SERVICES: usize = 5_000;
const ENDPOINTS: usize = 20;
const CHANGES: usize = 400;

/// Facts of one of many Services, by way of the objects that the API server sends.
fn nth(at: usize, ready: bool) -> [Change; 2] {
    let name = format!("service-{at:04}");
    let address = format!("198.18.{}.{}", at / 250, at % 250 + 1);
    let (object, service) = service(
        &name,
        &json!({
            "metadata": { "labels": { "app": name, "team": "shop" } },
            "status": { "loadBalancer": { "ingress": [{ "ip": address, "ipMode": "Proxy" }] } },
        }),
    );
    let endpoints: Vec<Value> = (0..ENDPOINTS)
        .map(|n| {
            let pod = at * ENDPOINTS + n;
            json!({
                "addresses": [format!("10.{}.{}.{}", pod / 65_536, pod / 256 % 256, pod % 256)],
                "conditions": {
                    "ready": ready || n > 0, "serving": ready || n > 0, "terminating": false,
                },
                "nodeName": format!("node-{:03}.example.internal", pod % 500),
                "hints": { "forZones": [{ "name": "eu-central-1a" }] },
                "targetRef": { "kind": "Pod", "name": format!("{name}-7d4b9c6f5-{n:05}") },
            })
        })
        .collect();
    let slice: discovery::EndpointSlice = serde_json::from_value(json!({
        "metadata": {
            "namespace": "shop", "name": format!("{name}-x7k2p"),
            "labels": { "kubernetes.io/service-name": name },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        "endpoints": endpoints,
    }))
    .unwrap();
    let slice = Slice::from(&slice);
    [
        Change::Service(object, Some(service)),
        Change::Slice(slice.name.clone(), Some(Arc::new(slice))),
    ]
}

/// Memory of this process that is in use, in bytes (proc_pid_statm(5)).
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Time that this thread has run: others share the machine (proc_pid_schedstat(5)).
fn run() -> Duration {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(schedstat.split(' ').next().unwrap().parse().unwrap())
}

/// The shortest of some rounds.
fn best(rounds: usize, mut round: impl FnMut(usize)) -> Duration {
    let times = (0..rounds).map(|at| {
        let start = run();
        round(at);
        run() - start
    });
    times.min().unwrap()
}

#[test]
#[ignore = "a measurement of some seconds"]
fn five_thousand_services_of_twenty_endpoints_are_translated_in_half_a_second() {
    const MIB: usize = 1 << 20;
    let before = resident();
    let mut world = World::default();
    for at in 0..SERVICES {
        for change in nth(at, true) {
            assert!(world.apply(change));
        }
    }
    let facts = resident() - before;
    let mut translator = Translator::default();
    let cold = best(3, |_| {
        translator = Translator::default();
        assert!(translator.update(&mut world, &settings()));
    });
    let kept = resident() - before - facts;
    assert_eq!(translator.services().count(), SERVICES);
    // The kernel accounts in steps that are longer than one of these.
    let changes: Vec<Change> = (0..CHANGES)
        .flat_map(|at| nth(at / 2, at % 2 == 1))
        .collect();
    let start = run();
    for change in changes {
        if world.apply(change) {
            assert!(translator.update(&mut world, &settings()));
        }
    }
    let warm = (run() - start) / u32::try_from(CHANGES).unwrap();
    let offer = best(5, |_| {
        assert_eq!(translator.offer().services.len(), SERVICES)
    });
    let services = translator.offer().services;
    let check = best(3, |_| assert!(Snapshot::new(1, services.clone()).is_ok()));
    println!(
        "facts {} MiB, translated {} MiB, from the beginning {cold:?}, one slice {warm:?}, \
         an offer {offer:?}, its snapshot {check:?}",
        facts / MIB,
        kept / MIB,
    );
    // Without optimizations, as tests are built.
    let slower = if cfg!(debug_assertions) { 4 } else { 1 };
    assert!(cold < slower * Duration::from_millis(500), "{cold:?}");
    assert!(warm < slower * Duration::from_millis(10), "{warm:?}");
    assert!(facts + kept < 150 * MIB, "of 300 MiB for the daemon");
}
