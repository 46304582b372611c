//! Several daemons with one etcd: verdicts, drains, and a store that comes and goes.

use crate::common::etcd::Etcd;
use crate::common::{Daemon, FakeEngine, Place, wait_for};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A balancer of a group: its daemon, its engine, its files.
struct Balancer {
    daemon: Option<Daemon>,
    engine: FakeEngine,
    place: Place,
}

const ALL: &[&str] = &["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];

/// A service whose checks find a backend up where its balancer has a file of that name.
const SERVICES: &str = r#"
[[service]]
name = "web"
vips = ["203.0.113.10:80/tcp"]
backends = [{ address = "10.0.0.1" }, { address = "10.0.0.2" }, { address = "10.0.0.3" },
    { address = "10.0.0.4" }]
health = { type = "script", command = ["is-up"], interval = "1s", timeout = "1s", fast_interval = "200ms", rise = 1, fall = 2 }
"#;

fn config(name: &str, etcd: &Etcd) -> String {
    format!(
        "[node]\nname = \"{name}\"\n[store]\nendpoints = [\"{}\"]\nlease = \"2s\"\n",
        etcd.endpoint()
    )
}

/// With these backends up.
fn place(up: &[&str]) -> Place {
    let place = Place::new(SERVICES);
    fs::create_dir(place.path("up")).unwrap();
    fs::create_dir(place.path("scripts")).unwrap();
    let script = place.path("scripts/is-up");
    let text = format!(
        "#!/bin/sh\ntest -e {}/$LOCKSTEP_ADDRESS\n",
        place.path("up").display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    for backend in up {
        fs::write(place.path("up").join(backend), "").unwrap();
    }
    place
}

impl Balancer {
    fn new(name: &str, etcd: &Etcd, up: &[&str]) -> Self {
        let place = place(up);
        let scripts = place.path("scripts");
        let health = format!("[health]\nscripts = \"{}\"\n", scripts.display());
        place.configure(&(health + &config(name, etcd)));
        let engine = place.engine();
        let daemon = Some(place.daemon());
        Balancer {
            daemon,
            engine,
            place,
        }
    }

    /// What its checks find from now on.
    fn finds(&self, backend: &str, up: bool) {
        let file = self.place.path("up").join(backend);
        match up {
            true => fs::write(file, "").unwrap(),
            false => fs::remove_file(file).unwrap(),
        }
    }

    /// Null where the daemon does not answer yet.
    fn group(&self) -> Value {
        let text = self.place.lockstep(&["group", "--output", "json"]).out;
        let json: Value = serde_json::from_str(&text).unwrap_or_default();
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

    /// The VIPs that are not announced, as address, reason and service.
    fn withheld(&self) -> Vec<[String; 3]> {
        let text = self.place.lockstep(&["bgp", "--output", "json"]).out;
        let json: Value = serde_json::from_str(&text).unwrap_or_default();
        let text = |v: &Value, key: &str| v[key].as_str().unwrap_or_default().to_owned();
        let vip = |v: &Value| ["address", "reason", "service"].map(|key| text(v, key));
        let withheld = json["withheld"].as_array();
        withheld.map_or_else(Vec::new, |all| all.iter().map(vip).collect())
    }

    fn is_connected(&self) -> bool {
        self.group()["connected"] == true
    }

    fn drain(&self, arguments: &[&str]) {
        self.place.lockstep(arguments).expect(0, &[]);
    }

    /// The addresses of drained backends, as the status shows them.
    fn drained(&self) -> Vec<String> {
        let text = self.place.lockstep(&["status", "--output", "json"]).out;
        let json: Value = serde_json::from_str(&text).unwrap_or_default();
        let drains = json.pointer("/daemon/drains").and_then(Value::as_array);
        let address = |d: &Value| d["address"].as_str().unwrap().to_owned();
        drains.map_or_else(Vec::new, |d| d.iter().map(address).collect())
    }
}

/// As many balancers, all of which know each other and have asked every backend.
fn balancers<const N: usize>(etcd: &Etcd, up: [&[&str]; N]) -> [Balancer; N] {
    let mut at = 0;
    let balancers = up.map(|up| {
        at += 1;
        Balancer::new(&format!("lb-{at}"), etcd, up)
    });
    for balancer in &balancers {
        wait_for("everybody in the group, with all backends asked", || {
            let group = balancer.group();
            let members = group["members"].as_array().map_or(&[][..], Vec::as_slice);
            let asked = |m: &Value| m["up"].as_u64().unwrap() + m["down"].as_u64().unwrap() == 4;
            members.len() == N && members.iter().all(asked)
        });
    }
    balancers
}

#[test]
fn most_of_the_balancers_decide_and_one_that_dies_has_no_say_any_more() {
    let etcd = Etcd::start();
    let some: &[&str] = &["10.0.0.1", "10.0.0.3", "10.0.0.4"];
    let [one, mut two, mut three] = balancers(&etcd, [ALL, some, some]);
    for balancer in [&one, &two, &three] {
        wait_for("what most have found", || balancer.engine.has(some));
    }
    let group = one.group();
    assert_eq!(
        group["members"][0]["differing"][0]["address"], "10.0.0.2",
        "{group}"
    );
    assert_eq!(group["members"][0]["differing_count"], 1, "{group}");
    assert_eq!(group["members"][1]["differing_count"], 0, "{group}");
    two.daemon.take().unwrap().kill();
    wait_for("the lease to end", || one.members() == ["lb-1", "lb-3"]);
    wait_for("each to be right where they are split", || {
        one.engine.has(ALL) && three.engine.has(some)
    });
    // A daemon that ends says so, and does not wait for its lease.
    assert_eq!(three.daemon.take().unwrap().terminate(), Some(0));
    let left = etcd.tell(&["get", "--prefix", "/lockstep/lb/members/", "--keys-only"]);
    assert_eq!(left.trim(), "/lockstep/lb/members/lb-1");
    wait_for("one left", || one.members() == ["lb-1"]);
}

#[test]
fn a_backend_is_out_where_two_of_three_find_it_down_and_in_again_with_them() {
    let etcd = Etcd::start();
    let all = balancers(&etcd, [ALL, ALL, ALL]);
    all[0].finds("10.0.0.2", false);
    wait_for("the first one to say so", || {
        all[1].group()["members"][0]["down"] == 1
    });
    assert!(
        all.iter().all(|b| b.engine.has(ALL)),
        "one of three has no majority"
    );
    all[1].finds("10.0.0.2", false);
    for balancer in &all {
        wait_for("the second backend out", || {
            balancer.engine.has(&["10.0.0.1", "10.0.0.3", "10.0.0.4"])
        });
    }
    all[0].finds("10.0.0.2", true);
    for balancer in &all {
        wait_for("the second backend back", || balancer.engine.has(ALL));
    }
}

#[test]
fn one_that_is_cut_off_from_every_backend_leaves_its_vips_to_the_others() {
    let etcd = Etcd::start();
    let [one, two] = balancers(&etcd, [&[], &["10.0.0.3"]]);
    let cut_off = ["203.0.113.10", "cut_off", "web"].map(str::to_owned);
    wait_for("the VIP withdrawn", || one.withheld() == [cut_off.clone()]);
    assert!(one.engine.has(ALL), "what still comes is forwarded");
    assert!(two.withheld().is_empty());
    // Where nobody reaches any it is the service's policy that decides, and that keeps them.
    two.finds("10.0.0.3", false);
    wait_for("the VIP back", || one.withheld().is_empty());
    assert!(two.withheld().is_empty());
}

#[test]
fn drains_are_those_of_the_group() {
    let etcd = Etcd::start();
    let [one, mut two] = balancers(&etcd, [ALL, ALL]);
    one.drain(&["drain", "10.0.0.3", "--deadline", "1h"]);
    wait_for("the drain on the other one", || two.drained().len() == 1);
    let deadline = two.place.status("/daemon/drains/0/remaining_seconds");
    assert!(
        (3_500.0..=3_600.0).contains(&deadline.as_f64().unwrap()),
        "{deadline}"
    );
    // One that was not there when the drain ended does not begin it anew.
    two.daemon.take().unwrap().kill();
    one.drain(&["undrain", "10.0.0.3"]);
    wait_for("the drain to be gone", || {
        etcd.tell(&["get", "--prefix", "/lockstep/lb/drains/"])
            .is_empty()
    });
    two.daemon = Some(two.place.daemon());
    wait_for("the other one back without it", || {
        two.is_connected() && two.drained().is_empty()
    });
    assert!(one.drained().is_empty());
    two.drain(&["drain", "10.0.0.2", "--deadline", "0s"]);
    wait_for("a drain in the other direction", || {
        one.drained().len() == 1
    });
}

#[test]
fn a_store_that_is_lost_changes_nothing_and_brings_everybody_together_when_it_is_back() {
    let mut etcd = Etcd::start();
    let some: &[&str] = &["10.0.0.1", "10.0.0.3", "10.0.0.4"];
    let [one, two, three] = balancers(&etcd, [ALL, some, some]);
    let all = [&one, &two, &three];
    one.drain(&["drain", "10.0.0.3", "--deadline", "0s"]);
    let drained = [
        ("10.0.0.1".to_owned(), false),
        ("10.0.0.3".to_owned(), true),
        ("10.0.0.4".to_owned(), false),
    ];
    for balancer in all {
        wait_for("verdicts and drain", || {
            balancer.engine.backends() == drained
        });
    }
    let applied = || all.map(|balancer| balancer.engine.applied());
    let away = || {
        for balancer in all {
            wait_for("the loss", || !balancer.is_connected());
        }
    };
    let back = || {
        for balancer in all {
            wait_for("the store back, with everybody", || {
                let group = balancer.group();
                let members = group["members"].as_array().map_or(&[][..], Vec::as_slice);
                let back = members.iter().filter(|m| m["returning"] == false);
                group["connected"] == true && back.count() == 3
            });
        }
    };

    let before = applied();
    etcd.freeze();
    away();
    let says = ["does NOT answer", "Needs attention"];
    one.place.lockstep(&["group"]).expect(1, &says);
    etcd.thaw();
    back();
    etcd.kill();
    away();
    etcd.run();
    back();
    assert_eq!(applied(), before, "the engines were told something");

    // What happens while it is away: a backend dies, one drain ends and another one begins.
    etcd.kill();
    away();
    all.iter()
        .for_each(|balancer| balancer.finds("10.0.0.1", false));
    for balancer in all {
        wait_for("the dead backend out", || {
            let backends = balancer.engine.backends();
            backends.iter().all(|(address, _)| address != "10.0.0.1")
        });
    }
    one.drain(&["undrain", "10.0.0.3"]);
    two.drain(&["drain", "10.0.0.2", "--deadline", "0s"]);
    assert_eq!(three.drained(), ["10.0.0.3"]);
    etcd.run();
    back();
    for balancer in all {
        wait_for("one opinion on drains", || {
            balancer.drained() == ["10.0.0.2"]
        });
    }
}

#[test]
fn a_store_that_is_set_up_anew_ends_no_drain() {
    let mut etcd = Etcd::start();
    let [one, mut two] = balancers(&etcd, [ALL, ALL]);
    one.drain(&["drain", "10.0.0.3", "--deadline", "0s"]);
    wait_for("the drain on the other one", || two.drained().len() == 1);
    // One hears of it as it runs, the other one when it starts.
    assert_eq!(two.daemon.take().unwrap().terminate(), Some(0));
    etcd.wipe();
    wait_for("the drain to be written anew", || {
        let drains = etcd.tell(&["get", "--prefix", "/lockstep/lb/drains/", "--keys-only"]);
        drains.contains("10.0.0.3")
    });
    etcd.wipe();
    two.daemon = Some(two.place.daemon());
    for balancer in [&one, &two] {
        wait_for("both in the new store", || {
            balancer.members() == ["lb-1", "lb-2"]
        });
        assert_eq!(balancer.drained(), ["10.0.0.3"]);
    }
    one.drain(&["undrain", "10.0.0.3"]);
    wait_for("its end on the other one", || two.drained().is_empty());
}

#[test]
fn two_of_one_name_do_not_fight() {
    let etcd = Etcd::start();
    let mut first = Balancer::new("lb-1", &etcd, ALL);
    wait_for("the first one", || first.members() == ["lb-1"]);
    let second = Balancer::new("lb-1", &etcd, ALL);
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
    let mut balancer = Balancer::new("lb-1", &etcd, ALL);
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
    let [one, two] = balancers(&etcd, [ALL, ALL]);
    // Long enough that a frozen daemon is a slow one, not one that is gone.
    let config = fs::read_to_string(two.place.config()).unwrap();
    two.place
        .configure(&config.replace("lease = \"2s\"", "lease = \"5m\""));
    wait_for("the daemon back in the group", || {
        two.is_connected() && two.members().len() == 2
    });
    one.drain(&["drain", "10.0.0.2", "--deadline", "0s"]);
    wait_for("the drain", || two.drained().len() == 1);
    two.daemon.as_ref().unwrap().freeze();
    one.drain(&["undrain", "10.0.0.2"]);
    // More than the store and the sockets keep for a balancer that does not read.
    etcd.churn("/lockstep/lb/members/nobody", 3_000, 4_096);
    one.drain(&["drain", "10.0.0.3", "--deadline", "0s"]);
    wait_for("the other drain in the store", || {
        let drains = etcd.tell(&["get", "--prefix", "/lockstep/lb/drains/", "--keys-only"]);
        drains.trim() == "/lockstep/lb/drains/web/10.0.0.3"
    });
    etcd.tell(&["compact", &etcd.revision()]);
    let daemon = two.daemon.as_ref().unwrap();
    daemon.thaw();
    // Which of them comes first depends on how long it was frozen.
    wait_for("the loss of history, or of the connection", || {
        let log = daemon.log();
        log.contains("the store has forgotten what happened") || log.contains("is away")
    });
    wait_for("the drain of now", || two.drained() == ["10.0.0.3"]);
    wait_for("both members", || two.members() == ["lb-1", "lb-2"]);
}

#[test]
fn a_store_may_be_configured_and_taken_away_while_the_daemon_runs() {
    let etcd = Etcd::start();
    let place = place(ALL);
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

#[test]
fn a_store_may_speak_tls_and_know_its_users() {
    let etcd = Etcd::secured();
    etcd.tell(&["user", "add", "root:secret", "--interactive=false"]);
    etcd.tell(&["user", "grant-role", "root", "root"]);
    etcd.tell(&["auth", "enable"]);
    let place = place(ALL);
    let password = place.path("password");
    fs::write(&password, "wrong\n").unwrap();
    let config = |user: &str| {
        let of = |name: &str| etcd.file(name);
        config("lb-1", &etcd)
            + &format!("ca = \"{}\"\n", of("ca.pem"))
            + &format!(
                "certificate = \"{}\"\nkey = \"{}\"\n",
                of("certificate.pem"),
                of("key.pem")
            )
            + user
    };
    let user = format!(
        "user = \"root\"\npassword_file = \"{}\"\n",
        password.display()
    );
    place.configure(&config(&user));
    let _engine = place.engine();
    let _daemon = place.daemon();
    wait_for("a refusal that says why", || {
        place
            .lockstep(&["group"])
            .out
            .contains("authentication failed")
    });
    fs::write(&password, "secret\n").unwrap();
    wait_for("the group", || {
        place.lockstep(&["group"]).out.contains("lb-1 (here)")
    });
    place.lockstep(&["group"]).expect(0, &["answers"]);
}
