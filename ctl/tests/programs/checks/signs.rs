//! What the engine sees brings the next check forward.

use super::*;

#[test]
fn what_the_engine_sees_brings_the_next_check_forward() {
    let services = service(
        "web",
        "type = \"tcp\", port = 80, interval = \"1h\", fast_interval = \"100ms\", timeout = \"100ms\"",
        &[A, B],
    );
    let (bench, (there, _other)) =
        Bench::new(&services, FAST, |_, net| (listen(net, A), listen(net, B)));
    wait_for("both up", || {
        [A, B]
            .iter()
            .all(|a| bench.health("web", a, "state") == "up")
    });
    drop(there);
    // Without a sign nobody asks for an hour. The first status is what there was before.
    let mut resets = 0;
    wait_for("the one that is gone", || {
        resets += 1;
        bench.engine.reset(resets);
        bench.in_force("web") == [B]
    });
    assert_eq!(bench.health("web", A, "error"), "connection refused");
    assert_eq!(bench.health("web", B, "state"), "up", "its check passes");
}

#[test]
fn an_evicted_replica_is_asked_at_once() {
    let services = service(
        "web",
        "type = \"tcp\", port = 80, interval = \"1h\", fast_interval = \"100ms\", timeout = \"100ms\"",
        &[A, B],
    );
    let named = |text: &str, address: &str, name: &str| {
        let end = format!("\"{address}\" }}");
        text.replace(&end, &format!("\"{address}\", name = \"{name}\" }}"))
    };
    let services = named(&named(&services, A, "s1"), B, "s2");
    let (bench, (there, _other)) =
        Bench::new(&services, FAST, |_, net| (listen(net, A), listen(net, B)));
    wait_for("both up", || {
        [A, B]
            .iter()
            .all(|a| bench.health("web", a, "state") == "up")
    });
    drop(there);
    // Without a sign nobody asks for an hour.
    bench.engine.evict("web", "s1");
    bench.wait_in_force("web", &[B]);
    assert_eq!(bench.health("web", A, "error"), "connection refused");
    assert_eq!(bench.health("web", B, "state"), "up");
}
