//! Random numbers, asked for by curl: the same for every replica, balancer and restart.

mod group;
mod source;

use crate::common::etcd::free_port;
use crate::common::{Daemon, Place, wait_for, web};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Barrier;

/// What is asked for where only the answer matters.
const SIX: &str = "num=6&min=1&max=1000000";

/// A daemon that serves random numbers.
struct Server {
    daemon: Option<Daemon>,
    place: Place,
    port: u16,
}

impl Server {
    /// Alone.
    fn new() -> Self {
        Server::of("", "")
    }

    /// With keys of `[random]`.
    fn with(keys: &str) -> Self {
        Server::of("", keys)
    }

    /// With other sections, and keys of `[random]`.
    fn of(sections: &str, keys: &str) -> Self {
        let mut server = Server::reserve(sections, keys);
        server.start();
        server
    }

    /// One that does not run yet.
    fn reserve(sections: &str, keys: &str) -> Self {
        let place = Place::new(&web(&["10.0.0.1"]));
        let port = free_port();
        let random = format!("[random]\nlisten = \"0.0.0.0:{port}\"\n{keys}\n");
        place.configure(&format!("{sections}\n{random}"));
        Server {
            daemon: None,
            place,
            port,
        }
    }

    fn start(&mut self) {
        self.daemon = Some(self.place.daemon());
        // Whatever it answers, it listens.
        wait_for("random numbers", || self.ask("127.0.0.1", "").0 == 503);
    }

    /// As `kill -9`, and a start after it.
    fn crash(&mut self) {
        self.daemon.take().unwrap().kill();
        self.start();
    }

    /// Status and text that a replica with this address gets. 0 is no answer.
    fn ask(&self, replica: &str, query: &str) -> (u16, String) {
        curl(self.port, replica, query)
    }

    /// The text of an answer that has to go well.
    fn get(&self, replica: &str, query: &str) -> String {
        let (status, text) = self.ask(replica, query);
        assert_eq!(status, 200, "{query}: {text}");
        text
    }

    fn report(&self) -> serde_json::Value {
        let json = self.place.lockstep(&["group", "--output", "json"]).json();
        json["random"].clone()
    }
}

fn curl(port: u16, replica: &str, query: &str) -> (u16, String) {
    let output = Command::new("curl")
        .args([
            "--silent",
            "--globoff",
            "--max-time",
            "20",
            "--interface",
            replica,
        ])
        .args(["--write-out", "%{http_code}"])
        .arg(format!("http://127.0.0.1:{port}/integers/?{query}"))
        .output()
        .expect("curl is needed: apt install curl");
    let text = String::from_utf8(output.stdout).unwrap();
    let (text, status) = text.split_at(text.len() - 3);
    (status.parse().unwrap(), text.to_owned())
}

const REPLICAS: [&str; 3] = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];

#[test]
fn answers_have_the_form_of_random_org() {
    let server = Server::new();
    let text = server.get(
        REPLICAS[0],
        "num=7&min=0&max=255&col=3&base=16&format=plain&rnd=new",
    );
    let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split('\t').collect()).collect();
    assert_eq!(rows.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);
    for number in rows.concat() {
        assert_eq!(number.len(), 2);
        u8::from_str_radix(number, 16).unwrap();
    }
    let page = server.get(REPLICAS[0], &format!("{SIX}&format=html"));
    assert!(page.contains("<pre class=\"data\">"), "{page}");
    for (query, error) in [
        (
            "num=10001&min=1&max=6",
            "Error: The num value must be an integer in the [1,10000] interval\n",
        ),
        (
            "",
            "Error: The num value must be an integer in the [1,10000] interval\n",
        ),
        (
            "num=1&min=1&max=6&sesion=x",
            "Error: The parameter sesion is unknown, or stands there twice\n",
        ),
        (
            "num=1&min=1&max=6&call=1",
            "Error: The call value must be given with a session\n",
        ),
        ("%ff%fe=%00&num", "Error: The parameter"),
    ] {
        let (status, text) = server.ask(REPLICAS[0], query);
        assert!(
            status == 503 && text.starts_with(error),
            "{query}: {status} {text}"
        );
    }
    let report = server.report();
    assert_eq!(
        (&report["errors"], &report["error"]),
        (&6.into(), &serde_json::Value::Null),
        "the five, and one at the start"
    );
    let long = "9".repeat(12_000);
    assert_eq!(server.ask(REPLICAS[0], &format!("num={long}")).0, 503);
}

#[test]
fn replicas_get_the_same_numbers_by_time_call_and_count_also_after_a_crash() {
    let mut server = Server::with("ttl = \"1h\"");
    let current = format!("{SIX}&rnd=new");
    let first = server.get(REPLICAS[0], &current);
    let call = |n: u32| format!("{SIX}&session=game&call={n}");
    let calls: Vec<String> = (1..=3).map(|n| server.get(REPLICAS[0], &call(n))).collect();
    assert_eq!(calls.iter().collect::<BTreeSet<_>>().len(), 3);
    let next = format!("{SIX}&session=game");
    assert_eq!(server.get(REPLICAS[1], &next), calls[0]);
    for (at, replica) in REPLICAS.into_iter().enumerate() {
        server.crash();
        assert_eq!(server.get(replica, &current), first);
        for n in 1..=3 {
            assert_eq!(server.get(replica, &call(n)), calls[n as usize - 1]);
        }
        // The second replica has asked once already.
        let count = if at == 1 { 1 } else { 0 };
        assert_eq!(server.get(replica, &next), calls[count], "{replica}");
    }
    assert_ne!(
        server.get(REPLICAS[0], &format!("{SIX}&session=other&call=1")),
        calls[0]
    );
    assert_ne!(server.get(REPLICAS[0], "num=6&min=2&max=1000000"), first);
    // Whoever can read the secret can tell every number.
    let secret = server.place.path("state/random.secret");
    let mode = std::fs::metadata(secret).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn replicas_that_ask_at_the_same_moment_get_the_same_numbers() {
    let server = Server::with("ttl = \"1h\"");
    for round in 2..12 {
        let query = format!("num=5&min=1&max={round}000000");
        let barrier = Barrier::new(REPLICAS.len());
        let answers: BTreeSet<String> = std::thread::scope(|scope| {
            let ask = |replica| {
                let (barrier, server, query) = (&barrier, &server, &query);
                scope.spawn(move || {
                    barrier.wait();
                    server.get(replica, query)
                })
            };
            let asking: Vec<_> = REPLICAS.into_iter().map(ask).collect();
            asking.into_iter().map(|a| a.join().unwrap()).collect()
        });
        assert_eq!(answers.len(), 1, "{answers:?}");
    }
}

#[test]
fn an_answer_is_another_one_when_its_time_is_over() {
    let server = Server::with("ttl = \"1s\"");
    wait_for("a ttl of a second", || {
        let (first, second) = (server.get(REPLICAS[0], SIX), server.get(REPLICAS[1], SIX));
        let mut now = second.clone();
        wait_for("the next answer", || {
            now = server.get(REPLICAS[2], SIX);
            now != second
        });
        first == second
    });
}

#[test]
fn a_full_disk_hands_out_nothing_that_would_be_forgotten() {
    let mut server = Server::new();
    let state = server.place.path("state");
    server.daemon.take().unwrap().kill();
    let run = |program: &str, arguments: &[&str]| {
        let done = Command::new(program).args(arguments).arg(&state).status();
        assert!(done.unwrap().success(), "{program} {arguments:?}");
    };
    // A disk of a few pages. It is unmounted with its directory's file system at the latest.
    run("mount", &["-t", "tmpfs", "-o", "size=64k", "tmpfs"]);
    let place = Unmount(state.clone());
    server.start();
    let kept = server.get(REPLICAS[0], SIX);
    let mut fill = std::fs::File::create(state.join("fill")).unwrap();
    while fill.write_all(&[0; 512]).is_ok() {}
    let mut refused = None;
    for max in 7..2_000 {
        let (status, text) = server.ask(REPLICAS[0], &format!("num=1&min=1&max={max}"));
        if status == 503 {
            refused = Some((max, text));
            break;
        }
    }
    let (max, text) = refused.expect("the disk was never full");
    assert!(
        text.starts_with("Error: The numbers could not be kept: cannot write"),
        "{text}"
    );
    // What is derived, and what is kept already, goes on.
    server.get(REPLICAS[1], &format!("{SIX}&session=a&call=1"));
    assert_eq!(server.get(REPLICAS[1], SIX), kept);
    let report = server.report();
    assert_eq!(report["errors"], 2, "the one at the start, and this one");
    drop(fill);
    std::fs::remove_file(state.join("fill")).unwrap();
    server.get(REPLICAS[0], &format!("num=1&min=1&max={max}"));
    drop(server);
    drop(place);
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        // Lazily: the daemon's directory may be open for a moment still.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn strangers_do_not_keep_replicas_from_their_numbers() {
    let server = Server::new();
    let at = SocketAddr::from(([127, 0, 0, 1], server.port));
    // One address that opens connections and says nothing, or hardly anything.
    let mut idle: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(at).unwrap()).collect();
    for stream in &mut idle {
        // Those beyond the limit are closed already.
        let _ = stream.write_all(b"GET /integers/?num=1");
    }
    let query = format!("{SIX}&session=a&call=1");
    server.get("127.0.0.2", &query);
    // They are ended, and their address has its turn again.
    wait_for("the idle ones to be ended", || {
        server.ask("127.0.0.1", &query).0 == 200
    });
    // All of them: one that is still there has the place of one that comes. A reset is an end too.
    for stream in &mut idle {
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let raw = |request: &[u8]| {
        let mut stream = TcpStream::connect(at).unwrap();
        // A server that refuses early may close before all is written.
        let _ = stream.write_all(request);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    };
    let mut large = b"GET /integers/?num=1 HTTP/1.1\r\nX: ".to_vec();
    large.resize(100_000, b'a');
    assert!(!raw(&large).contains("200 OK"));
    assert!(
        raw(b"POST /integers/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").contains("405")
    );
    assert!(raw(b"GET /other HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").contains("404"));
    server.get("127.0.0.1", &query);
}
