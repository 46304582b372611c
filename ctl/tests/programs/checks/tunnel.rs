//! Checks through the tunnel, of the VIP on a server.

use super::*;

/// The server's own address answers all the time; what it serves to clients is the VIP, at the end
/// of the tunnel.
#[test]
fn a_server_that_does_not_serve_the_vip_is_found_through_the_tunnel() {
    let to = |name: &str, vip: &str, check: &str, keys: &str, backend: &str| {
        format!(
            "[[service]]\nname = \"{name}\"\nvips = [\"{vip}\"]\nall_down = \"drop\"\n{keys}\n\
             health = {{ {check} }}\nbackends = [{{ address = \"{backend}\" }}]\n"
        )
    };
    let through = |name: &str, vip: &str, check: &str| to(name, vip, check, "", "10.97.0.2");
    let tunnel = "type = \"tcp\", via = \"tunnel\"";
    let services = through("four", "203.0.113.10:80/tcp", tunnel)
        + &through("six", "[2001:db8::10]:80/tcp", tunnel)
        + &through(
            "http",
            "203.0.113.10:81/tcp",
            "type = \"http\", via = \"tunnel\", port = 80",
        )
        + &through(
            "udp",
            "203.0.113.10:53/udp",
            "type = \"udp\", via = \"tunnel\"",
        )
        + &through("own", "203.0.113.10:82/tcp", "type = \"tcp\", port = 80");
    const ENDS: &str = "--address 10.97.0.2 --address fd97::2";
    let decap = env!("CARGO_BIN_EXE_lockstep");
    // GUE, and tunnels over IPv6.
    let port_80 = "type = \"tcp\", via = \"tunnel\", port = 80";
    let gue = "encapsulation = \"gue\"";
    let other = [
        ("gue", 1, gue, "10.97.0.2"),
        ("over6", 2, "", "fd97::2"),
        ("gue6", 3, gue, "fd97::2"),
    ];
    let services = other
        .iter()
        .fold(services, |text, (name, port, keys, backend)| {
            let vip = format!("203.0.113.10:100{port}/tcp");
            text + &to(name, &vip, port_80, keys, backend)
        });
    let (bench, (server, nginx)) = Bench::new(&services, FAST, |place, net| {
        let server = Net::new(place);
        net.join(&server);
        // Where the tunnel is of another IP version, the check's address is the one towards the VIP.
        net.run("ip route add default via 10.97.0.2");
        // Linux says once a second that a port is unreachable, and these checks ask more often.
        server.run("echo 0 > /proc/sys/net/ipv4/icmp_ratelimit");
        server.run(
            "ip address add 203.0.113.10/32 dev lo && ip address add 2001:db8::10/128 dev lo nodad",
        );
        server.run(&format!(
            "{decap} decap attach eth0 {ENDS} --gue-port 6080 > {}",
            place.path("decap").display()
        ));
        let nginx = ["203.0.113.10", "[2001:db8::10]", "10.97.0.2"]
            .map(|a| Nginx::new(place, a).start(&server));
        (server, nginx)
    });
    for name in ["four", "six", "http", "own"] {
        wait_for(name, || bench.health(name, "10.97.0.2", "state") == "up");
    }
    for (name, _, _, backend) in other {
        wait_for(name, || bench.health(name, backend, "state") == "up");
    }
    // Where no tunnel by UDP ends any more, only checks that go by one notice.
    server.run(&format!("{decap} decap detach eth0 > /dev/null"));
    server.run(&format!("{decap} decap attach eth0 {ENDS} > /dev/null"));
    for name in ["gue", "gue6"] {
        bench.wait_in_force(name, &[]);
    }
    assert_eq!(bench.in_force("over6"), ["fd97::2"]);
    assert_eq!(bench.in_force("four"), ["10.97.0.2"]);
    // Nobody is there, which an ICMP error says: its answer comes by the same way.
    bench.wait_for_error("udp", "10.97.0.2", "port unreachable");
    let shown = bench.place.lockstep(&["health"]);
    shown.expect(1, &["tcp 203.0.113.10:80 through the tunnel"]);

    let [vip, _six, _own] = nginx;
    vip.kill();
    for name in ["four", "http"] {
        bench.wait_in_force(name, &[]);
        bench.wait_for_error(name, "10.97.0.2", "connection refused");
    }
    bench.wait_in_force("over6", &[]);
    bench.wait_for_error("over6", "fd97::2", "connection refused");
    // Nor is the VIP there any more.
    server.run("ip address del 2001:db8::10/128 dev lo");
    bench.wait_in_force("six", &[]);
    assert_eq!(bench.in_force("own"), ["10.97.0.2"]);
    assert_eq!(bench.health("own", "10.97.0.2", "state"), "up");
}

#[test]
fn a_daemon_that_may_not_make_tunnels_says_what_to_do() {
    let services = "[[service]]\nname = \"web\"\nvips = [\"203.0.113.10:80/tcp\"]\n\
                    health = { type = \"tcp\", via = \"tunnel\" }\nbackends = [{ address = \"10.99.0.1\" }]\n";
    let place = Place::new(services);
    place.configure(FAST);
    let net = Net::new(&place);
    let engine = place.engine();
    let daemon = net.daemon_without(&place, "net_admin,-net_raw");
    wait_for("the daemon", || place.daemon_socket().exists());
    wait_for("what to do", || {
        place
            .lockstep(&["health"])
            .out
            .contains("give lockstepd CAP_NET_ADMIN, CAP_NET_RAW")
    });
    place.lockstep(&["health"]).expect(0, &["unknown"]);
    wait_for("it serves", || engine.has(&["10.99.0.1"]));
    drop(daemon);
}
