//! The metrics over HTTP, the log and what systemd is told, with the daemon as a process.

use crate::common::{Place, wait_for, web};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

const ONE: &[&str] = &["10.0.0.1"];

/// An address that nobody listens at.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn listen_at(address: SocketAddr) -> String {
    format!("[metrics]\nlisten = \"{address}\"\n")
}

/// The answer to a request as it comes: status line, head and body; `None` where nobody listens.
fn ask(address: SocketAddr, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn get(address: SocketAddr, path: &str) -> Option<String> {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
}

/// A daemon that serves metrics, and its engine, when both are up.
fn served(place: &Place) -> (SocketAddr, crate::common::FakeEngine, crate::common::Daemon) {
    let address = free();
    place.configure(&listen_at(address));
    let engine = place.engine();
    let daemon = place.daemon();
    wait_for("readiness", || {
        get(address, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200 "))
    });
    (address, engine, daemon)
}

#[test]
fn prometheus_gets_the_metrics_of_both() {
    let place = Place::new(&web(ONE));
    let (address, engine, _daemon) = served(&place);
    let page = get(address, "/metrics").unwrap();
    for part in [
        "HTTP/1.1 200 OK\r\n",
        "content-type: text/plain; version=0.0.4; charset=utf-8\r\n",
        "\nlockstep_daemon_engine_connected 1\n",
        "\nlockstep_daemon_epoch 1\n",
        "\nlockstep_daemon_file_error{file=\"services.toml\"} 0\n",
        "\nlockstep_announcements{state=\"announced\"} 1\n",
        "\nlockstep_epoch 1\n",
    ] {
        assert!(page.contains(part), "{part} in\n{page}");
    }
    engine.kill();
    wait_for("the engine's absence", || {
        let page = get(address, "/metrics").unwrap();
        page.contains("\nlockstep_daemon_engine_connected 0\n")
            && !page.contains("\nlockstep_epoch ")
    });
    let ready = get(address, "/readyz").unwrap();
    assert!(
        ready.starts_with("HTTP/1.1 503 ") && ready.ends_with("there is no engine\n"),
        "{ready}"
    );
    assert!(
        get(address, "/healthz")
            .unwrap()
            .starts_with("HTTP/1.1 200 ")
    );
}

#[test]
fn a_file_with_errors_is_not_ready() {
    let place = Place::new(&web(ONE));
    let (address, _engine, _daemon) = served(&place);
    place.edit("x = 1\n");
    wait_for("the error", || {
        get(address, "/readyz")
            .is_some_and(|a| a.starts_with("HTTP/1.1 503 ") && a.contains("services.toml:1:1"))
    });
    let page = get(address, "/metrics").unwrap();
    assert!(
        page.contains("\nlockstep_daemon_file_error{file=\"services.toml\"} 1\n"),
        "{page}"
    );
}

#[test]
fn another_address_is_followed_and_one_that_is_taken_is_an_error() {
    let place = Place::new(&web(ONE));
    let (first, _engine, daemon) = served(&place);
    let second = free();
    place.configure(&listen_at(second));
    wait_for("the new address", || get(second, "/healthz").is_some());
    wait_for("the old one's end", || get(first, "/healthz").is_none());

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    place.configure(&listen_at(taken.local_addr().unwrap()));
    wait_for("the error in the status", || {
        place
            .status("/daemon/metrics_error")
            .to_string()
            .contains("cannot listen at")
    });
    assert!(daemon.log().contains("metrics are not served"));
    assert!(
        get(second, "/healthz").is_some(),
        "the old address is served meanwhile"
    );
    place.configure("");
    wait_for("the end", || get(second, "/healthz").is_none());
    wait_for("no error", || {
        place.status("/daemon/metrics_error").is_null()
    });
    place.lockstep(&["status"]).expect(0, &[]);
}

/// `0.0.0.0` and an address of it cannot be listened at side by side.
#[test]
fn an_address_that_holds_the_old_one_takes_its_place() {
    let place = Place::new(&web(ONE));
    let (address, _engine, _daemon) = served(&place);
    let all = SocketAddr::from(([0, 0, 0, 0], address.port()));
    place.configure(&listen_at(all));
    let other = SocketAddr::from(([127, 0, 0, 2], address.port()));
    wait_for("every address", || get(other, "/healthz").is_some());
    place.configure(&listen_at(address));
    wait_for("one address", || {
        get(other, "/healthz").is_none() && get(address, "/healthz").is_some()
    });
}

#[test]
fn what_is_asked_wrongly_is_told_so() {
    let place = Place::new(&web(ONE));
    let (address, _engine, _daemon) = served(&place);
    for (request, answer) in [
        (
            "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 405 ",
        ),
        ("GET /other HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404 "),
        ("GET\r\n\r\n", "HTTP/1.1 400 "),
        ("HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 "),
    ] {
        let found = ask(address, request).unwrap();
        assert!(found.starts_with(answer), "{request}: {found}");
    }
    let long = format!(
        "GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n",
        "x".repeat(1 << 20)
    );
    // Refused or reset while it is sent, and nothing else happens.
    assert!(ask(address, &long).is_none_or(|a| a.starts_with("HTTP/1.1 4")));
    assert!(
        get(address, "/metrics")
            .unwrap()
            .starts_with("HTTP/1.1 200 ")
    );
}

/// Clients that say nothing are left after two seconds; who comes meanwhile waits no longer.
#[test]
fn silent_clients_do_not_keep_others_out() {
    let place = Place::new(&web(ONE));
    let (address, _engine, _daemon) = served(&place);
    let silent: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let began = Instant::now();
    let page = get(address, "/metrics").unwrap();
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    // Three rounds of 32 before it, two seconds each.
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    drop(silent);
}

#[test]
fn an_engine_that_hangs_is_absent_and_holds_nobody_up() {
    let place = Place::new(&web(ONE));
    let (address, engine, _daemon) = served(&place);
    engine.hang();
    wait_for("an answer without the engine's part", || {
        let page = get(address, "/metrics").unwrap();
        page.contains("\nlockstep_daemon_engine_connected 0\n")
            && !page.contains("\nlockstep_epoch ")
    });
}

#[test]
fn the_command_line_prints_both() {
    let place = Place::new(&web(ONE));
    let engine = place.engine();
    place.lockstep(&["metrics"]).expect(0, &["lockstep_epoch "]);
    let daemon = place.daemon();
    wait_for("both", || {
        let answer = place.lockstep(&["metrics"]);
        answer.code == 0
            && answer.out.contains("lockstep_daemon_epoch 1")
            && answer.out.contains("\nlockstep_epoch 1\n")
    });
    engine.kill();
    wait_for("the daemon's alone", || {
        let answer = place.lockstep(&["metrics"]);
        answer.code == 0 && answer.out.contains("lockstep_daemon_engine_connected 0")
    });
    daemon.kill();
    assert_eq!(place.lockstep(&["metrics"]).code, 3);
}

#[test]
fn the_log_is_written_as_the_file_says_at_once() {
    let place = Place::new(&web(ONE));
    let _engine = place.engine();
    let daemon = place.daemon();
    wait_for("a line of text", || {
        daemon.log().contains(" INFO lockstepd is running")
    });
    place.configure("[log]\nformat = \"json\"\n");
    let is_object = |line: &str| {
        let object: Option<serde_json::Value> = serde_json::from_str(line).ok();
        object.is_some_and(|o| {
            o["level"] == "ERROR"
                && o["message"]
                    .as_str()
                    .is_some_and(|m| m.contains("unknown key"))
        })
    };
    // Something to log, again and again, until the file is followed.
    let mut edits = 0;
    wait_for("an object", || {
        edits += 1;
        place.edit(&format!("x{edits} = 1\n"));
        daemon.log().lines().any(is_object)
    });
}

#[test]
fn systemd_is_told_of_readiness_life_and_the_end() {
    let place = Place::new(&web(ONE));
    let _engine = place.engine();
    let path = place.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let log = place.path("lockstepd.log");
    let mut command = place.daemon_command();
    command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "200000");
    command.stderr(std::fs::File::create(&log).unwrap());
    let daemon = crate::common::Daemon::start(&mut command, log);
    let until = |word: &str| {
        let mut buffer = [0; 4096];
        loop {
            let length = socket
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("no {word}: {error}"));
            if String::from_utf8_lossy(&buffer[..length]).starts_with(word) {
                return;
            }
        }
    };
    until("READY=1");
    until("STATUS=Epoch 1 is in force");
    until("WATCHDOG=1");
    until("WATCHDOG=1");
    assert_eq!(daemon.terminate(), Some(0));
    until("STOPPING=1");
}
