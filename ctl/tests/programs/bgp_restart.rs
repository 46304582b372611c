//! What routers keep, and what they drop, when the daemon or the router goes away.

use crate::common::routers::{Lab, Net, REFLECTOR};
use crate::common::wait_for;
use std::time::{Duration, Instant};

const V4: &str = "203.0.113.10";
const ROUTE: &str = "203.0.113.10/32";

fn config(more: &str) -> String {
    format!(
        r#"
[bgp]
as = 64512
router_id = "10.0.0.1"
{more}
[[bgp.peer]]
address = "10.0.0.2"
as = 64512
source = "10.0.0.1"
"#
    )
}

fn stale(lab: &Lab) -> Option<bool> {
    lab.gobgp_paths(ROUTE)
        .first()
        .map(|path| path["stale"] == true)
}

#[test]
fn routes_are_kept_while_the_daemon_is_killed_or_restarts() {
    let lab = Lab::new(&[V4], &config(""));
    let _router = lab.gobgpd(REFLECTOR);
    let mut daemon = lab.daemon();
    wait_for("the route", || stale(&lab) == Some(false));
    let watch = lab.monitor();
    for signal in ["KILL", "USR1"] {
        lab.up("10.0.0.2");
        daemon.signal(signal);
        daemon.wait();
        wait_for("the router notices", || stale(&lab) == Some(true));
        daemon = lab.daemon();
        wait_for("the route is fresh again", || stale(&lab) == Some(false));
        lab.up("10.0.0.2");
    }
    assert!(
        !watch.log().contains("\"withdrawal\":true"),
        "{}",
        watch.log()
    );
    // The monitor would have seen one.
    daemon.terminate();
    wait_for("the withdrawal", || stale(&lab).is_none());
    wait_for("the withdrawal in the monitor", || {
        watch.log().contains("\"withdrawal\":true")
    });
}

#[test]
fn without_graceful_restart_routes_go_with_the_daemon() {
    let lab = Lab::new(&[V4], &config("graceful_restart = false"));
    let _router = lab.gobgpd(REFLECTOR);
    let daemon = lab.daemon();
    wait_for("the route", || stale(&lab) == Some(false));
    let start = Instant::now();
    daemon.kill();
    wait_for("the route is gone", || stale(&lab).is_none());
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn an_orderly_end_withdraws_and_takes_leave() {
    let lab = Lab::new(&[V4], &config(""));
    let router = lab.gobgpd(REFLECTOR);
    let daemon = lab.daemon();
    wait_for("the route", || stale(&lab) == Some(false));
    lab.up("10.0.0.2");
    assert_eq!(daemon.terminate(), Some(0));
    wait_for("the route is gone", || stale(&lab).is_none());
    wait_for("the last word", || router.log().contains("lockstepd ends"));
}

#[test]
fn a_router_that_freezes_loses_its_session_by_the_hold_timer_and_gets_it_back() {
    let lab = Lab::new(&[V4], &config("hold_time = \"3s\""));
    let router = lab.gobgpd(REFLECTOR);
    let _daemon = lab.daemon();
    lab.up("10.0.0.2");
    router.signal("STOP");
    let start = Instant::now();
    wait_for("the hold timer", || {
        lab.peer("10.0.0.2", "/state") != "established"
    });
    let after = start.elapsed();
    assert!(after < Duration::from_secs(5), "{after:?}");
    assert_eq!(
        lab.peer("10.0.0.2", "/last_error"),
        "ended here: hold timer expired"
    );
    router.signal("CONT");
    lab.up("10.0.0.2");
    wait_for("the route", || stale(&lab) == Some(false));
    assert_eq!(lab.peer("10.0.0.2", "/flaps"), 1);
}

#[test]
fn without_an_engine_the_route_is_withdrawn_and_comes_back_with_it() {
    let mut lab = Lab::new(&[V4], &config(""));
    let _router = lab.gobgpd(REFLECTOR);
    let _daemon = lab.daemon();
    wait_for("the route", || stale(&lab) == Some(false));
    lab.engine.take().unwrap().kill();
    wait_for("the withdrawal", || stale(&lab).is_none());
    assert_eq!(lab.bgp()["withheld"][0]["reason"], "no_engine");
    lab.place
        .lockstep(&["bgp"])
        .expect(0, &["VIP NOT ANNOUNCED", "no engine"]);
    let _engine = lab.place.engine();
    wait_for("the route again", || stale(&lab) == Some(false));
    assert_eq!(lab.peer("10.0.0.2", "/flaps"), 0);
}

#[test]
fn bfd_ends_a_session_within_a_second_whichever_side_freezes() {
    let config = r#"
[bgp]
as = 64512
router_id = "10.0.0.1"
[[bgp.peer]]
address = "10.1.0.2"
as = 64514
bfd = { tx = "100ms", rx = "100ms", multiplier = 3 }
"#;
    let bird = "log stderr all;
router id 10.1.0.2;
protocol device { }
protocol bfd { interface \"*\" { interval 100 ms; multiplier 3; }; }
protocol bgp balancer {
  local 10.1.0.2 as 64514;
  neighbor 10.1.0.1 as 64512;
  bfd on;
  connect delay time 1;
  error wait time 1, 2;
  ipv4 { import all; export none; };
}
";
    let lab = Lab::new(&[V4], config);
    let far = Net::new();
    lab.net.link(&far);
    let router = lab.bird_in(&far, bird);
    let daemon = lab.daemon();
    let paths = |state: &str| lab.peer("10.1.0.2", "/bfd") == state;
    lab.up("10.1.0.2");
    wait_for("BFD", || paths("up"));
    router.signal("STOP");
    let start = Instant::now();
    wait_for("the end", || {
        lab.peer("10.1.0.2", "/state") != "established"
    });
    let after = start.elapsed();
    assert!(after < Duration::from_secs(1), "{after:?}");
    let ended = "router 10.1.0.2: session is lost: ended here: BFD down";
    assert!(daemon.log().contains(ended), "{}", daemon.log());
    router.signal("CONT");
    wait_for("BFD again", || paths("up"));
    lab.up("10.1.0.2");
    let has = || lab.birdc("show route").contains(ROUTE);
    wait_for("the route", has);
    daemon.freeze();
    let start = Instant::now();
    wait_for("the route is gone", || !has());
    let after = start.elapsed();
    daemon.thaw();
    assert!(after < Duration::from_secs(1), "{after:?}");
}
