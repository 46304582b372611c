//! The daemon as a process, and backends that are really there, in a network namespace: what the
//! engine is told when they are stopped, frozen, slow, refuse or answer wrongly. Needs root.

mod databases;
mod signs;
mod tunnel;

use crate::common::net::{Net, Server};
use crate::common::{Daemon, FakeEngine, Place, wait_for};
use nix::sys::signal::Signal;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const A: &str = "10.99.0.1";
const B: &str = "10.99.0.2";

/// A service over these backends with this check.
fn service(name: &str, check: &str, backends: &[&str]) -> String {
    let backends: Vec<String> = backends
        .iter()
        .map(|b| format!("{{ address = \"{b}\" }}"))
        .collect();
    let version = if backends[0].contains(':') {
        "[2001:db8::10]"
    } else {
        "203.0.113.10"
    };
    // One that no other name has.
    let port = name
        .bytes()
        .fold(1, |port: u16, b| port.wrapping_mul(31) ^ u16::from(b));
    format!(
        "[[service]]\nname = \"{name}\"\nvips = [\"{version}:{port}/tcp\"]\nmode = \"full-nat\"\n\
         health = {{ {check} }}\nbackends = [{}]\n",
        backends.join(", ")
    )
}

/// Everything of a test: the daemon follows these services without damping.
struct Bench {
    engine: FakeEngine,
    daemon: Daemon,
    net: Net,
    place: Place,
}

impl Bench {
    /// The daemon starts when the servers of `before` are there.
    fn new<T>(services: &str, config: &str, before: impl FnOnce(&Place, &Net) -> T) -> (Self, T) {
        let place = Place::new(services);
        let net = Net::new(&place);
        place.configure(config);
        let servers = before(&place, &net);
        let engine = place.engine();
        let daemon = net.daemon(&place);
        let bench = Bench {
            engine,
            daemon,
            net,
            place,
        };
        wait_for("the daemon", || bench.place.daemon_socket().exists());
        (bench, servers)
    }

    /// Addresses of a service's backends in force.
    fn in_force(&self, service: &str) -> Vec<String> {
        let current = self.engine.current();
        let service = current.services.iter().find(|s| s.name == service);
        let backends = service.map_or(&[][..], |s| &s.backends);
        backends.iter().map(|b| b.address.clone()).collect()
    }

    #[track_caller]
    fn wait_in_force(&self, service: &str, expected: &[&str]) {
        wait_for(&format!("{expected:?} of {service}"), || {
            self.in_force(service) == expected
        });
    }

    /// A field of a backend in `lockstep health`.
    fn health(&self, service: &str, address: &str, field: &str) -> serde_json::Value {
        let json = self.place.lockstep(&["health", "--output", "json"]).json();
        let backends = json["backends"].as_array().unwrap();
        let found = backends
            .iter()
            .find(|b| b["service"] == service && b["address"] == address);
        found.map_or(serde_json::Value::Null, |b| b[field].clone())
    }

    #[track_caller]
    fn wait_for_error(&self, service: &str, address: &str, expected: &str) {
        wait_for(&format!("{expected:?} of {service}"), || {
            let error = self.health(service, address, "error");
            error.as_str().is_some_and(|e| e.contains(expected))
        });
    }
}

/// nginx at an address: `/` is 200 unless there is a file `broken`, `/slow` never answers, `/text`
/// has a body.
struct Nginx {
    dir: PathBuf,
    address: String,
}

impl Nginx {
    fn new(place: &Place, address: &str) -> Self {
        let dir = place.path(&format!("nginx-{}", address.replace(['[', ']', ':'], "_")));
        fs::create_dir(&dir).unwrap();
        let nginx = Nginx {
            dir,
            address: address.to_owned(),
        };
        nginx.key();
        let (dir, broken) = (nginx.dir.display(), nginx.broken().display().to_string());
        let config = format!(
            "daemon off;\nmaster_process on;\nworker_processes 1;\nuser root;\npid {dir}/pid;\nerror_log {dir}/error.log;\n\
             events {{ worker_connections 256; }}\n\
             http {{\n access_log {dir}/access.log;\n server {{\n  listen {address}:80;\n  listen {address}:81 http2;\n  listen {address}:443 ssl http2;\n\
             ssl_certificate {dir}/cert.pem;\n  ssl_certificate_key {dir}/key.pem;\n\
             location / {{ if (-f {broken}) {{ return 500; }} return 200 'fine'; }}\n\
             location /moved {{ return 301 /; }}\n\
             location /host {{ return 200 \"$host $http_x_check\"; }}\n\
             location /slow {{ proxy_pass http://{address}:82; }}\n }}\n \
             server {{ listen {address}:82; location / {{ proxy_pass http://{address}:83; proxy_read_timeout 60s; }} }}\n}}\n\
             stream {{}}\n"
        );
        let config = config.replace("stream {}\n", "");
        fs::write(nginx.dir.join("nginx.conf"), config).unwrap();
        nginx
    }

    /// A key, and a certificate that it has signed itself.
    fn key(&self) {
        let subject = "/CN=shop.example.com";
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt"]);
        command.args(["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
        command.args(["-subj", subject, "-keyout", "key.pem", "-out", "cert.pem"]);
        command.args(["-addext", "subjectAltName=DNS:shop.example.com"]);
        command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        let made = command.current_dir(&self.dir).output().unwrap();
        assert!(made.status.success(), "{made:?}");
    }

    fn start(&self, net: &Net) -> Server {
        let config = self.dir.join("nginx.conf");
        let server = net.start("nginx", &["-e", "stderr", "-c", config.to_str().unwrap()]);
        let address = self.address.trim_matches(['[', ']']);
        wait_for("nginx", || net.accepts(address, 80));
        server
    }

    fn broken(&self) -> PathBuf {
        self.dir.join("broken")
    }
}

/// Checks every 200 ms, and no damping: these backends go up and down often.
const FAST: &str = "[health]\ninterval = \"200ms\"\ndamping = \"off\"\n";

#[test]
fn nginx_that_answers_500_freezes_refuses_and_is_stopped_is_out_until_it_is_back() {
    let services = service("web", "type = \"http\", port = 80", &[A, B]);
    let (bench, (nginx, first, _second)) = Bench::new(&services, FAST, |place, net| {
        let (a, b) = (Nginx::new(place, A), Nginx::new(place, B));
        let servers = (a.start(net), b.start(net));
        (a, servers.0, servers.1)
    });
    bench.wait_in_force("web", &[A, B]);
    wait_for("both up", || {
        [A, B]
            .iter()
            .all(|a| bench.health("web", a, "state") == "up")
    });
    let shown = bench.place.lockstep(&["health"]);
    shown.expect(0, &["http 10.99.0.1:80/", "up"]);

    fs::write(nginx.broken(), "").unwrap();
    bench.wait_in_force("web", &[B]);
    bench.wait_for_error("web", A, "HTTP status 500, wanted 200-399");
    let shown = bench.place.lockstep(&["health", "--service", "web"]);
    shown.expect(1, &["down", "HTTP status 500"]);
    let status = bench.place.lockstep(&["status"]);
    status.expect(
        1,
        &["service web: backend 10.99.0.1 (10.99.0.1) is down for"],
    );
    // The engine does not have it, and it has a row all the same.
    let status = bench.place.lockstep(&["status", "--output", "json"]).json();
    let backends = &status["engine"]["services"][0]["backends"];
    let rows = backends.as_array().unwrap().iter();
    let rows: Vec<_> = rows
        .map(|b| (b["address"].as_str().unwrap(), b["state"].as_str().unwrap()))
        .collect();
    assert_eq!(rows, [(B, "active"), (A, "down")]);
    fs::remove_file(nginx.broken()).unwrap();
    bench.wait_in_force("web", &[A, B]);

    first.signal(Signal::SIGSTOP);
    bench.wait_in_force("web", &[B]);
    bench.wait_for_error("web", A, "no answer within 100ms");
    first.signal(Signal::SIGCONT);
    bench.wait_in_force("web", &[A, B]);

    first.kill();
    bench.wait_in_force("web", &[B]);
    bench.wait_for_error("web", A, "connection refused");
    let _first = nginx.start(&bench.net);
    bench.wait_in_force("web", &[A, B]);
    assert_eq!(bench.health("web", A, "flaps"), 3);
    assert_eq!(bench.health("web", B, "flaps"), 0);
    let log = bench.daemon.log();
    assert!(
        log.contains("is down: HTTP status 500, wanted 200-399"),
        "{log}"
    );
}

#[test]
fn requests_have_what_is_asked_and_answers_what_is_expected() {
    let fine = [
        (
            "moved",
            r#"type = "http", port = 80, path = "/moved", status = [301]"#,
        ),
        ("text", r#"type = "http", port = 80, body = '^f[a-z]+e$'"#),
        (
            "host",
            r#"type = "http", port = 80, path = "/host", host = "shop.example.com", headers = { x-check = "yes" }, body = 'shop.example.com yes'"#,
        ),
        ("h2", r#"type = "http2", port = 81, body = 'fine'"#),
        ("tls", r#"type = "https", port = 443, body = 'fine'"#),
        (
            "h2tls",
            r#"type = "http2", tls = true, port = 443, body = 'fine'"#,
        ),
        (
            "ca",
            r#"type = "https", port = 443, host = "shop.example.com", ca = "CA""#,
        ),
    ];
    let wrong = [
        (
            "status",
            r#"type = "http", port = 80, path = "/moved", status = "200-299""#,
            "HTTP status 301, wanted 200-299",
        ),
        (
            "body",
            r#"type = "http", port = 80, body = 'warm'"#,
            "its body of 4 bytes does not match 'warm'",
        ),
        (
            "slow",
            r#"type = "http", port = 80, path = "/slow""#,
            "no answer within 100ms",
        ),
        ("plain", r#"type = "https", port = 80"#, "TLS: "),
        (
            "name",
            r#"type = "https", port = 443, ca = "CA", server_name = "other.example.com""#,
            "TLS: invalid peer certificate",
        ),
        ("empty", r#"type = "http", port = 84"#, "connection refused"),
    ];
    let mut services = String::new();
    for (name, check) in fine {
        services.push_str(&service(name, check, &[A]));
    }
    for (name, check, _) in wrong {
        services.push_str(&service(name, check, &[A, B]));
    }
    // B is like A, so that all are down: the policy keeps them, which is not looked at here.
    let (bench, _servers) = Bench::new("service = []\n", FAST, |place, net| {
        let nginx = Nginx::new(place, A);
        let ca = nginx.dir.join("cert.pem");
        place.edit(&services.replace("\"CA\"", &format!("{:?}", ca.display().to_string())));
        let server = nginx.start(net);
        let silent = net.inside(|| TcpListener::bind("10.99.0.1:83").unwrap());
        (server, silent)
    });
    for (name, _) in fine {
        wait_for(name, || bench.health(name, A, "state") == "up");
    }
    for (name, _, error) in wrong {
        bench.wait_for_error(name, A, error);
        assert_eq!(bench.health(name, A, "state"), "down", "{name}");
    }
}

/// From a failure to the snapshot without the backend, with a frozen server: the worst case, since
/// every check then takes its whole timeout.
#[test]
fn a_failed_backend_is_out_within_interval_times_fall_and_100_ms() {
    let services = service("web", "type = \"http\", port = 80, fall = 3", &[A, B]);
    let config = "[health]\ninterval = \"1s\"\ndamping = \"off\"\n";
    let (bench, servers) = Bench::new(&services, config, |place, net| {
        [A, B].map(|a| Nginx::new(place, a).start(net))
    });
    wait_for("both up", || {
        [A, B]
            .iter()
            .all(|a| bench.health("web", a, "state") == "up")
    });
    bench.wait_in_force("web", &[A, B]);
    let mut worst = Duration::ZERO;
    for _ in 0..3 {
        let failed = Instant::now();
        servers[0].signal(Signal::SIGSTOP);
        bench.wait_in_force("web", &[B]);
        worst = worst.max(failed.elapsed());
        servers[0].signal(Signal::SIGCONT);
        bench.wait_in_force("web", &[A, B]);
    }
    assert!(worst <= Duration::from_millis(3_100), "{worst:?}");
}

#[test]
fn grpc_servers_say_themselves_whether_they_serve() {
    let services = service(
        "grpc",
        "type = \"grpc\", port = 50051, service = \"shop.Cart\"",
        &[A, B],
    ) + &service("whole", "type = \"grpc\", port = 50051", &[A])
        + &service(
            "unknown",
            "type = \"grpc\", port = 50051, service = \"shop.Other\"",
            &[A],
        );
    let (bench, (runtime, reporters)) = Bench::new(&services, FAST, |_, net| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let reporters = [A, B].map(|address| {
            let listener = net.inside(move || TcpListener::bind((address, 50_051)).unwrap());
            listener.set_nonblocking(true).unwrap();
            let (reporter, health) = tonic_health::server::health_reporter();
            let _inside = runtime.enter();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            let server = tonic::transport::Server::builder().add_service(health);
            runtime.spawn(server.serve_with_incoming(incoming));
            let serving = tonic_health::ServingStatus::Serving;
            runtime.block_on(reporter.set_service_status("shop.Cart", serving));
            reporter
        });
        (runtime, reporters)
    });
    bench.wait_in_force("grpc", &[A, B]);
    wait_for("all up", || bench.health("grpc", A, "state") == "up");
    wait_for("the whole server", || {
        bench.health("whole", A, "state") == "up"
    });
    bench.wait_for_error("unknown", A, "gRPC status NotFound");
    let not = tonic_health::ServingStatus::NotServing;
    runtime.block_on(reporters[0].set_service_status("shop.Cart", not));
    bench.wait_in_force("grpc", &[B]);
    bench.wait_for_error("grpc", A, "gRPC health NOT_SERVING, wanted SERVING");
}

#[test]
fn datagrams_are_answered_or_at_least_not_refused() {
    let answer = "type = \"udp\", port = 5353, send = \"ping\", expect = \"pong\"";
    let services = service("answer", answer, &[A, B])
        + &service("silent", "type = \"udp\", port = 5354", &[A, B]);
    let (bench, (stop, _silent)) = Bench::new(&services, FAST, |_, net| {
        let stop = Arc::new(AtomicBool::new(false));
        for address in [A, B] {
            let socket = net.inside(move || UdpSocket::bind((address, 5_353)).unwrap());
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                answer_pings(&socket, || address == A && stop.load(Ordering::Relaxed))
            });
        }
        let silent = net.inside(|| UdpSocket::bind((A, 5_354)).unwrap());
        (stop, silent)
    });
    wait_for("both answer", || {
        [A, B]
            .iter()
            .all(|a| bench.health("answer", a, "state") == "up")
    });
    wait_for("silence is fine", || {
        bench.health("silent", A, "state") == "up"
    });
    bench.wait_for_error("silent", B, "port unreachable");
    bench.wait_in_force("silent", &[A]);
    stop.store(true, Ordering::Relaxed);
    bench.wait_in_force("answer", &[B]);
    bench.wait_for_error("answer", A, "no expected answer within 100ms");
}

fn answer_pings(socket: &UdpSocket, is_stopped: impl Fn() -> bool) {
    let mut datagram = [0; 64];
    while let Ok((length, from)) = socket.recv_from(&mut datagram) {
        let answer: &[u8] = match (is_stopped(), &datagram[..length]) {
            (false, b"ping") => b"pong",
            _ => b"what?",
        };
        let _ = socket.send_to(answer, from);
    }
}

#[test]
fn pings_are_answered_by_hosts_that_are_there() {
    // The last one is routed nowhere.
    let services = service("v4", "type = \"icmp\"", &[A, "10.98.0.1"])
        + &service("v6", "type = \"icmp\"", &["fd99::1", "fd98::1"])
            .replace("\"203.0.113.10:", "\"[2001:db8::10]:");
    let (bench, ()) = Bench::new(&services, FAST, |_, _| ());
    bench.wait_in_force("v4", &[A]);
    bench.wait_in_force("v6", &["fd99::1"]);
    wait_for("up", || bench.health("v6", "fd99::1", "state") == "up");
}

#[test]
fn scripts_say_what_they_find_and_are_ended_with_all_they_started() {
    let services = service(
        "script",
        "type = \"script\", command = [\"check\", \"x y\"]",
        &[A, B],
    );
    let (bench, dir) = Bench::new(&services, FAST, |place, _| {
        let dir = place.path("scripts");
        fs::create_dir(&dir).unwrap();
        let script = format!(
            "#!/bin/sh\ncd {0}\nenv | sort > env-$LOCKSTEP_ADDRESS.new && mv env-$LOCKSTEP_ADDRESS.new env-$LOCKSTEP_ADDRESS\n\
             grep ^Cap /proc/self/status > may-$LOCKSTEP_ADDRESS\n\
             if [ -e hang-$LOCKSTEP_ADDRESS ]; then sleep 4711 & wait; fi\n\
             if [ -e fail-$LOCKSTEP_ADDRESS ]; then echo \"the queue is $1\"; exit 3; fi\n",
            dir.display()
        );
        fs::write(dir.join("check"), script).unwrap();
        fs::set_permissions(dir.join("check"), fs::Permissions::from_mode(0o755)).unwrap();
        dir
    });
    // Not before the operator has allowed it.
    bench.wait_for_error("script", A, "name their directory as `scripts` in [health]");
    assert_eq!(bench.health("script", A, "state"), "unknown");
    let config = format!(
        "[health]\ninterval = \"1s\"\nscripts = {:?}\ndamping = \"off\"\n",
        dir.display().to_string()
    );
    bench.place.configure(&config);
    wait_for("both up", || {
        [A, B]
            .iter()
            .all(|a| bench.health("script", a, "state") == "up")
    });
    let environment = fs::read_to_string(dir.join("env-10.99.0.1")).unwrap();
    for line in [
        "LOCKSTEP_ADDRESS=10.99.0.1",
        "LOCKSTEP_BACKEND=10.99.0.1",
        "LOCKSTEP_SERVICE=script",
        "LOCKSTEP_VIP=203.0.113.10",
    ] {
        assert!(
            environment.lines().any(|l| l == line),
            "{line} in {environment}"
        );
    }
    assert!(!environment.contains("HOME="), "{environment}");
    // None that root usually has.
    let may = fs::read_to_string(dir.join("may-10.99.0.1")).unwrap();
    assert_eq!(may.lines().count(), 5, "{may}");
    let nothing = |line: &str| line.ends_with("\t0000000000000000");
    assert!(may.lines().all(nothing), "{may}");
    fs::write(dir.join("fail-10.99.0.1"), "").unwrap();
    bench.wait_in_force("script", &[B]);
    bench.wait_for_error("script", A, "exit status: 3: the queue is x y");
    fs::write(dir.join("hang-10.99.0.1"), "").unwrap();
    bench.wait_for_error("script", A, "still running after 500ms");
    bench.place.edit("service = []\n");
    wait_for("no checks", || {
        bench
            .place
            .lockstep(&["health"])
            .out
            .contains("nothing is checked")
    });
    wait_for("nothing left of it", || !is_running("sleep\x004711"));
}

/// Whether a process with this command line runs.
fn is_running(command: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|p| fs::read(p.path().join("cmdline")).ok());
    lines
        .into_iter()
        .any(|line| line.starts_with(command.as_bytes()))
}

#[test]
fn what_becomes_of_a_service_without_backends_is_its_policy() {
    let check = "type = \"tcp\", port = 80";
    let all_down = |name: &str, policy: &str| {
        let text = service(name, check, &[A, B]);
        text.replace("mode = ", &format!("all_down = \"{policy}\"\nmode = "))
    };
    let services = all_down("keep", "keep") + &all_down("drop", "drop") + &all_down("rst", "reset");
    let (bench, ()) = Bench::new(&services, FAST, |_, _| ());
    bench.wait_in_force("drop", &[]);
    bench.wait_in_force("rst", &[]);
    for name in ["keep", "drop", "rst"] {
        for address in [A, B] {
            wait_for("down", || bench.health(name, address, "state") == "down");
        }
    }
    bench.wait_in_force("keep", &[A, B]);
}

#[test]
fn a_backend_that_flaps_is_held_down() {
    let services = service(
        "web",
        "type = \"tcp\", port = 80, rise = 1, fall = 1",
        &[A, B],
    );
    let config = "[health]\ninterval = \"100ms\"\ndamping = \"5s\"\n";
    let (bench, _other) = Bench::new(&services, config, |_, net| listen(net, B));
    for _ in 0..3 {
        let there = listen(&bench.net, A);
        wait_for("it is up", || bench.health("web", A, "state") == "up");
        bench.wait_in_force("web", &[A, B]);
        drop(there);
        bench.wait_in_force("web", &[B]);
    }
    let there = listen(&bench.net, A);
    wait_for("it is held", || {
        bench.health("web", A, "held_until").is_number()
    });
    bench.place.lockstep(&["health"]).expect(1, &["down, held"]);
    let released = Instant::now();
    bench.wait_in_force("web", &[A, B]);
    assert!(released.elapsed() > Duration::from_secs(1), "for longer");
    drop(there);
}

/// Accepts connections, counts them and ends them, until it is dropped.
struct Listener(TcpListener, Arc<AtomicU64>);

fn listen(net: &Net, address: &'static str) -> Listener {
    let listener = net.inside(move || TcpListener::bind((address, 80)).unwrap());
    let accepting = listener.try_clone().unwrap();
    let accepted = Arc::<AtomicU64>::default();
    let count = Arc::clone(&accepted);
    std::thread::spawn(move || {
        for stream in accepting.incoming().take_while(Result::is_ok) {
            drop(stream);
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    Listener(listener, accepted)
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Wakes the thread, which closes its own.
        let _ = socket2::SockRef::from(&self.0).shutdown(std::net::Shutdown::Both);
    }
}

/// Less than a tenth of a core with `--release`; the development build takes several times as much.
#[test]
fn a_thousand_backends_are_checked_every_second() {
    let backends: Vec<String> = (0..1_000)
        .map(|n| format!("10.99.{}.{}", 1 + n / 250, 1 + n % 250))
        .collect();
    let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
    let services = service("web", "type = \"tcp\", port = 80", &backends);
    let config = "[health]\ninterval = \"1s\"\n";
    let (bench, listener) = Bench::new(&services, config, |_, net| listen(net, "0.0.0.0"));
    // By what the backends see: to ask the daemon would cost it more than the checks.
    let asked = || listener.1.load(Ordering::SeqCst);
    wait_for("all were asked", || asked() >= 1_000);
    let (begun, cpu, before) = (Instant::now(), bench.daemon.cpu_time(), asked());
    wait_for("five thousand more", || asked() >= before + 5_000);
    let (took, cpu) = (begun.elapsed(), bench.daemon.cpu_time() - cpu);
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert!(bench.in_force("web").len() == 1_000);
    let json = bench.place.lockstep(&["health", "--output", "json"]).json();
    let passed = json["backends"].as_array().unwrap().iter();
    let passed: u64 = passed.map(|b| b["passed"].as_u64().unwrap()).sum();
    assert!(passed >= 5_000, "{passed} of {}", asked());
    let share = cpu.as_secs_f64() / took.as_secs_f64();
    println!("{:.1} % of a core", share * 100.0);
    let most = if cfg!(debug_assertions) { 0.6 } else { 0.1 };
    assert!(share < most, "{share}");
}
