//! Random numbers of several balancers that share a store.

use super::source::Upstream;
use super::{REPLICAS, SIX, Server};
use crate::common::etcd::Etcd;
use crate::common::wait_for;
use std::collections::BTreeSet;
use std::sync::Barrier;

fn store(etcd: &Etcd, name: &str) -> String {
    format!(
        "[node]\nname = \"{name}\"\n[store]\nendpoints = [\"{}\"]\nlease = \"2s\"\n",
        etcd.endpoint()
    )
}

#[test]
fn replicas_get_the_same_numbers_from_every_balancer_of_a_group() {
    let etcd = Etcd::start();
    let mut servers = ["lb-1", "lb-2"].map(|name| Server::of(&store(&etcd, name), ""));
    for server in &servers {
        wait_for("the store", || server.ask(REPLICAS[0], SIX).0 == 200);
    }
    let call = format!("{SIX}&session=game&call=7");
    let next = format!("{SIX}&session=game2");
    let answers = |servers: &[Server; 2], query: &str| -> BTreeSet<String> {
        let all = servers
            .iter()
            .flat_map(|s| REPLICAS.map(|r| s.get(r, query)));
        all.collect()
    };
    let by_call = answers(&servers, &call);
    assert_eq!(by_call.len(), 1);
    // Within its time to live, which a slow machine may see end once: then both have the next one.
    wait_for("one answer by time", || answers(&servers, SIX).len() == 1);
    // A replica's requests are counted wherever they go.
    let one = servers[0].get(REPLICAS[0], &next);
    let two = servers[1].get(REPLICAS[0], &next);
    assert_ne!(one, two);
    assert_eq!(servers[1].get(REPLICAS[1], &next), one);
    servers.iter_mut().for_each(Server::crash);
    for server in &servers {
        wait_for("the store", || server.ask(REPLICAS[0], SIX).0 == 200);
    }
    assert_eq!(servers[0].get(REPLICAS[1], &next), two);
    assert_eq!(answers(&servers, &call), by_call);
}

#[test]
fn without_the_store_a_group_gives_what_is_the_same_everywhere_and_nothing_else() {
    let mut etcd = Etcd::start();
    let mut servers = ["lb-1", "lb-2"].map(|name| Server::of(&store(&etcd, name), ""));
    for server in &servers {
        wait_for("the store", || server.ask(REPLICAS[0], SIX).0 == 200);
    }
    let call = |n: u32| format!("{SIX}&session=game&call={n}");
    let before = servers[0].get(REPLICAS[0], &call(1));
    // Each has the group's secret once it has derived from it.
    assert_eq!(servers[1].get(REPLICAS[0], &call(1)), before);
    etcd.kill();
    // Also where the daemons have never seen the store.
    servers.iter_mut().for_each(Server::crash);
    let after = servers[0].get(REPLICAS[0], &call(2));
    assert_eq!(servers[1].get(REPLICAS[0], &call(2)), after);
    assert_eq!(servers[1].get(REPLICAS[0], &call(1)), before);
    for query in [
        "num=3&min=1&max=77".to_owned(),
        format!("{SIX}&session=game"),
    ] {
        let (status, text) = servers[0].ask(REPLICAS[0], &query);
        assert_eq!(status, 503);
        assert!(
            text.starts_with("Error: The store of the group does not answer"),
            "{text}"
        );
    }
    // A balancer that never had the secret cannot know it.
    let mut third = Server::reserve(&store(&etcd, "lb-3"), "");
    third.daemon = Some(third.place.daemon());
    wait_for("a refusal", || third.ask(REPLICAS[0], &call(1)).0 == 503);
    etcd.run();
    wait_for("the secret", || {
        third.ask(REPLICAS[0], &call(1)) == (200, before.clone())
    });
    wait_for("counts again", || {
        servers[0]
            .ask(REPLICAS[0], &format!("{SIX}&session=game"))
            .0
            == 200
    });
}

#[test]
fn numbers_of_a_source_are_those_of_the_first_balancer_that_asked() {
    let etcd = Etcd::start();
    let upstream = Upstream::start();
    let keys = upstream.keys();
    let servers = ["lb-1", "lb-2"].map(|name| Server::of(&store(&etcd, name), &keys));
    for server in &servers {
        wait_for("the store", || server.ask(REPLICAS[0], SIX).0 == 200);
    }
    let mut all = BTreeSet::new();
    for n in 1..=5 {
        let query = format!("num=2&min=1&max=1000&session=s&call={n}");
        let barrier = Barrier::new(2);
        let answers: Vec<String> = std::thread::scope(|scope| {
            let asking: Vec<_> = servers
                .iter()
                .map(|server| {
                    let (barrier, query) = (&barrier, &query);
                    scope.spawn(move || {
                        barrier.wait();
                        server.get(REPLICAS[0], query)
                    })
                })
                .collect();
            asking.into_iter().map(|a| a.join().unwrap()).collect()
        });
        assert_eq!(answers[0], answers[1], "call {n}");
        all.insert(answers[0].clone());
    }
    assert_eq!(all.len(), 5);
}
