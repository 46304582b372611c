//! Several daemons with one etcd: verdicts, drains, and a store that comes and goes.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod common;

use common::etcd::{Etcd, free_port};
use common::{Daemon, FakeEngine, Place, wait_for};
use serde_json::Value;
use std::net::TcpListener;

/// A balancer of a group: its files, its engine, its daemon.
struct Balancer {
    place: Place,
    engine: FakeEngine,
    daemon: Option<Daemon>,
}

const BOTH: &[&str] = &["127.0.0.2", "127.0.0.3"];
const FIRST: &[&str] = &["127.0.0.2"];

/// Two backends; the checks of the second one ask at this port.
fn services(port: u16) -> String {
    format!(
        "[[service]]\nname = \"web\"\nvips = [\"203.0.113.10:80/tcp\"]\n\
         backends = [{{ address = \"127.0.0.2\", port = {port} }}, \
         {{ address = \"127.0.0.3\", port = {port} }}]\nmode = \"nat\"\n\
         health = {{ type = \"tcp\", interval = \"100ms\", rise = 1, fall = 1 }}\n"
    )
}

fn config(name: &str, etcd: &Etcd) -> String {
    format!(
        "[node]\nname = \"{name}\"\n[store]\nendpoints = [\"{}\"]\nlease = \"2s\"\n",
        etcd.endpoint()
    )
}

impl Balancer {
    fn new(name: &str, etcd: &Etcd, services: &str) -> Self {
        let place = Place::new(services);
        place.configure(&config(name, etcd));
        let engine = place.engine();
        let daemon = Some(place.daemon());
        Balancer {
            place,
            engine,
            daemon,
        }
    }

    fn group(&self) -> Value {
        let json = self.place.lockstep(&["group", "--output", "json"]).json();
        json["group"].clone()
    }

    fn members(&self) -> Vec<String> {
        let group = self.group();
        let Some(members) = group["members"].as_array() else {
            return Vec::new();
        };
        let name = |m: &Value| m["name"].as_str().unwrap().to_owned();
        members.iter().map(name).collect()
    }

    fn is_connected(&self) -> bool {
        self.group()["connected"] == true
    }

    fn drain(&self, arguments: &[&str]) {
        self.place.lockstep(arguments).expect(0, &[]);
    }

    fn drained(&self) -> usize {
        let drains = self.place.status("/daemon/drains");
        drains.as_array().map_or(0, Vec::len)
    }
}

/// As many balancers, all of which know each other.
fn balancers<const N: usize>(etcd: &Etcd, services: [String; N]) -> [Balancer; N] {
    let mut at = 0;
    let balancers = services.map(|services| {
        at += 1;
        Balancer::new(&format!("lb-{at}"), etcd, &services)
    });
    for balancer in &balancers {
        wait_for("everybody in the group", || balancer.members().len() == N);
    }
    balancers
}

/// Two listeners, one for each backend, at one port.
fn backends() -> (u16, TcpListener, TcpListener) {
    let one = TcpListener::bind("127.0.0.2:0").unwrap();
    let port = one.local_addr().unwrap().port();
    (port, one, TcpListener::bind(("127.0.0.3", port)).unwrap())
}

#[test]
fn most_of_the_balancers_decide_and_one_that_dies_has_no_say_any_more() {
    let etcd = Etcd::start();
    let (port, _one, _two) = backends();
    // The second balancer and the third find both backends down: they ask at a port that nobody
    // has, as one whose path is broken.
    let closed = free_port();
    let [one, mut two, mut three] =
        balancers(&etcd, [services(port), services(closed), services(closed)]);
    wait_for("the first one to be outvoted", || {
        one.group()["members"][0]["differing_count"] == 2
    });
    let group = one.group();
    assert_eq!(group["members"][0]["up"], 2, "{group}");
    assert_eq!(group["members"][1]["down"], 2, "{group}");
    // Where all are down, all stay: the default of `all_down`.
    assert!(one.engine.has(BOTH));
    two.daemon.take().unwrap().kill();
    wait_for("the lease to end", || one.members() == ["lb-1", "lb-3"]);
    wait_for("each to be right where they are split", || {
        let groups = [one.group(), three.group()];
        groups.iter().all(|g| g["members"][0]["up"] == 2)
            && groups[0]["members"][0]["differing_count"] == 0
            && groups[1]["members"][1]["differing_count"] == 0
    });
    // A daemon that ends says so, and does not wait for its lease.
    assert_eq!(three.daemon.take().unwrap().terminate(), Some(0));
    let left = etcd.tell(&["get", "--prefix", "/lockstep/lb/members/", "--keys-only"]);
    assert_eq!(left.trim(), "/lockstep/lb/members/lb-1");
    assert_eq!(one.members(), ["lb-1"]);
}

#[test]
fn a_backend_that_most_find_down_is_out_everywhere_and_in_again_with_them() {
    let etcd = Etcd::start();
    let (port, _one, second) = backends();
    let [one, two] = balancers(&etcd, [services(port), services(port)]);
    for balancer in [&one, &two] {
        wait_for("both backends", || balancer.engine.has(BOTH));
    }
    drop(second);
    for balancer in [&one, &two] {
        wait_for("the second one out", || balancer.engine.has(FIRST));
    }
    let _second = TcpListener::bind(("127.0.0.3", port)).unwrap();
    for balancer in [&one, &two] {
        wait_for("the second one back", || balancer.engine.has(BOTH));
    }
}

#[test]
fn drains_are_those_of_the_group() {
    let etcd = Etcd::start();
    let (port, _one, _two) = backends();
    let [one, mut two] = balancers(&etcd, [services(port), services(port)]);
    one.drain(&["drain", "127.0.0.3", "--deadline", "1h"]);
    wait_for("the drain on the other one", || two.drained() == 1);
    let deadline = two.place.status("/daemon/drains/0/remaining_seconds");
    assert!(
        (3_500.0..=3_600.0).contains(&deadline.as_f64().unwrap()),
        "{deadline}"
    );
    // One that was not there when the drain ended does not begin it anew.
    two.daemon.take().unwrap().kill();
    one.drain(&["undrain", "127.0.0.3"]);
    wait_for("the drain to be gone", || {
        etcd.tell(&["get", "--prefix", "/lockstep/lb/drains/"])
            .is_empty()
    });
    two.daemon = Some(two.place.daemon());
    wait_for("the other one back without it", || {
        two.is_connected() && two.drained() == 0
    });
    assert_eq!(one.drained(), 0);
    two.drain(&["drain", "127.0.0.2", "--deadline", "0s"]);
    wait_for("a drain in the other direction", || one.drained() == 1);
}

#[test]
fn a_store_that_is_lost_changes_nothing_and_brings_everybody_together_when_it_is_back() {
    let mut etcd = Etcd::start();
    let (port, _one, second) = backends();
    let [one, two] = balancers(&etcd, [services(port), services(port)]);
    for balancer in [&one, &two] {
        wait_for("both backends", || balancer.engine.has(BOTH));
    }
    one.drain(&["drain", "127.0.0.2", "--deadline", "0s"]);
    wait_for("the drain on the other one", || two.drained() == 1);
    for balancer in [&one, &two] {
        wait_for("a snapshot for each change", || {
            balancer.engine.applied() == balancer.engine.epoch()
        });
    }
    let applied = || [&one, &two].map(|balancer| balancer.engine.applied());

    let before = applied();
    etcd.freeze();
    for balancer in [&one, &two] {
        wait_for("the loss of a frozen store", || !balancer.is_connected());
        balancer
            .place
            .lockstep(&["group"])
            .expect(1, &["does NOT answer", "Needs attention"]);
    }
    etcd.thaw();
    for balancer in [&one, &two] {
        wait_for("a thawed store", || {
            balancer.is_connected() && balancer.members().len() == 2
        });
    }
    etcd.kill();
    for balancer in [&one, &two] {
        wait_for("the loss of a killed store", || !balancer.is_connected());
    }
    etcd.run();
    for balancer in [&one, &two] {
        wait_for("a store that is back", || {
            balancer.is_connected() && balancer.members().len() == 2
        });
    }
    assert_eq!(applied(), before, "the engines were told something");

    // What happens while it is away: a backend dies, a drain ends here and one begins there.
    etcd.kill();
    for balancer in [&one, &two] {
        wait_for("the loss", || !balancer.is_connected());
    }
    drop(second);
    one.drain(&["undrain", "127.0.0.2"]);
    for (balancer, drained) in [(&one, 0), (&two, 1)] {
        wait_for("the dead backend out", || {
            balancer.engine.has(FIRST) && balancer.drained() == drained
        });
    }
    etcd.run();
    for balancer in [&one, &two] {
        wait_for("one opinion on drains", || {
            balancer.is_connected() && balancer.drained() == 0
        });
    }
}

#[test]
fn two_of_one_name_do_not_fight() {
    let etcd = Etcd::start();
    let (port, _one, _two) = backends();
    let mut first = Balancer::new("lb-1", &etcd, &services(port));
    wait_for("the first one", || first.members() == ["lb-1"]);
    let second = Balancer::new("lb-1", &etcd, &services(port));
    wait_for("the second one to be told", || {
        second.group()["error"]
            .to_string()
            .contains("another balancer of group lb is called lb-1")
    });
    second
        .place
        .lockstep(&["group"])
        .expect(1, &["give one of the two another `name`"]);
    assert!(
        second
            .daemon
            .as_ref()
            .unwrap()
            .log()
            .contains("another balancer")
    );
    assert_eq!(first.group()["error"], Value::Null);
    first.daemon.take().unwrap().kill();
    wait_for("the name to be free", || {
        let group = second.group();
        group["error"].is_null() && group["members"][0]["here"] == true
    });
}

#[test]
fn a_daemon_that_was_killed_is_at_once_who_it_was() {
    let etcd = Etcd::start();
    let (port, _one, _two) = backends();
    let mut balancer = Balancer::new("lb-1", &etcd, &services(port));
    wait_for("it to be there", || balancer.members() == ["lb-1"]);
    balancer.daemon.take().unwrap().kill();
    balancer.daemon = Some(balancer.place.daemon());
    wait_for("it to be there again", || balancer.is_connected());
    assert_eq!(balancer.group()["error"], Value::Null);
    assert_eq!(balancer.group()["members"][0]["here"], true);
}

#[test]
fn a_store_that_forgets_its_history_is_read_anew() {
    let etcd = Etcd::start();
    let (port, _one, _two) = backends();
    let [one, two] = balancers(&etcd, [services(port), services(port)]);
    one.drain(&["drain", "127.0.0.2", "--deadline", "0s"]);
    wait_for("the drain", || two.drained() == 1);
    // A balancer that is held up hears of nothing, and then finds it compacted away.
    two.daemon.as_ref().unwrap().freeze();
    one.drain(&["undrain", "127.0.0.2"]);
    one.drain(&["drain", "127.0.0.3", "--deadline", "0s"]);
    wait_for("the other drain in the store", || {
        let drains = etcd.tell(&["get", "--prefix", "/lockstep/lb/drains/", "--keys-only"]);
        drains.trim() == "/lockstep/lb/drains/web/127.0.0.3"
    });
    etcd.tell(&["compact", &etcd.revision()]);
    two.daemon.as_ref().unwrap().thaw();
    wait_for("the drain of now", || {
        two.place.status("/daemon/drains/0/address") == "127.0.0.3" && two.drained() == 1
    });
    wait_for("both members", || {
        two.members().len() == 2 && one.members().len() == 2
    });
}

#[test]
fn a_store_may_be_configured_and_taken_away_while_the_daemon_runs() {
    let etcd = Etcd::start();
    let (port, _one, _two) = backends();
    let place = Place::new(&services(port));
    let _engine = place.engine();
    let _daemon = place.daemon();
    wait_for("the daemon", || place.lockstep(&["group"]).code == 0);
    place
        .lockstep(&["group"])
        .expect(0, &["no group", "no random numbers"]);
    place.configure(&config("lb-7", &etcd));
    wait_for("the group", || {
        place.lockstep(&["group"]).out.contains("lb-7 (here)")
    });
    place.configure("");
    wait_for("no group", || {
        place.lockstep(&["group"]).out.contains("no group")
    });
    let left = etcd.tell(&["get", "--prefix", "/lockstep/", "--keys-only"]);
    assert_eq!(left.trim(), "");
}
