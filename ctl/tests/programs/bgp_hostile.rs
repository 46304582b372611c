//! BGP with routers of the test's own: they reset, flood, and send what is no BGP. Sessions begin
//! again, and nothing else happens. And how long a change takes to the wire.

use crate::common::routers::{Lab, REFLECTOR, services};
use crate::common::wait_for;
use lockstep_ctl_core::bgp::open::{Settings, offer};
use lockstep_ctl_core::bgp::{Families, Family, wire};
use netgauze_bgp_pkt::BgpMessage;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const V4: &str = "203.0.113.10";

/// gobgpd on .2, which has to stay undisturbed, and this test on .5.
const CONFIG: &str = r#"
[bgp]
as = 64512
router_id = "10.0.0.1"
listen = ["10.0.0.1:179"]
[[bgp.peer]]
address = "10.0.0.2"
as = 64512
source = "10.0.0.1"
[[bgp.peer]]
address = "10.0.0.5"
as = 64515
passive = true
multihop = 2
"#;

fn open() -> Vec<u8> {
    let settings = Settings {
        local_as: 64515,
        router_id: [10, 0, 0, 5].into(),
        remote_as: 64512,
        hold_time: 90,
        families: Families::from(Family::ALL),
        add_path: false,
        graceful_restart: Some(120),
        passive: false,
    };
    wire::encode(&BgpMessage::Open(offer(&settings, false)))
}

fn keepalive() -> Vec<u8> {
    wire::encode(&BgpMessage::KeepAlive)
}

/// An UPDATE with so many prefixes, from a number on.
fn update(from: u32, prefixes: u32) -> Vec<u8> {
    let attributes = [
        &[0x40, 1, 1, 0][..],
        &[0x40, 2, 6, 2, 1, 0, 0, 0xfc, 3],
        &[0x40, 3, 4, 10, 0, 0, 5],
    ]
    .concat();
    let mut body = vec![0, 0];
    body.extend((attributes.len() as u16).to_be_bytes());
    body.extend(&attributes);
    for number in from..from + prefixes {
        body.push(24);
        body.extend(&(0x0b00_0000 + number).to_be_bytes()[1..]);
    }
    let mut message = vec![0xff; 16];
    message.extend((body.len() as u16 + 19).to_be_bytes());
    message.push(2);
    message.extend(body);
    message
}

/// A connection from .5 to the balancer.
fn connect(lab: &Lab) -> TcpStream {
    let to: SocketAddr = "10.0.0.1:179".parse().unwrap();
    let mut stream = None;
    let once = move || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let from: SocketAddr = "10.0.0.5:0".parse().unwrap();
        socket.bind(&from.into()).unwrap();
        socket.connect(&to.into()).map(|()| TcpStream::from(socket))
    };
    wait_for("the daemon listens", || {
        stream = lab.net.within(once).ok();
        stream.is_some()
    });
    let stream = stream.unwrap();
    let patience = Some(Duration::from_secs(10));
    stream.set_read_timeout(patience).unwrap();
    stream.set_write_timeout(patience).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// The next message; `None` where the connection ends.
fn read(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut message = vec![0; 19];
    stream.read_exact(&mut message).ok()?;
    let length = usize::from(u16::from_be_bytes([message[16], message[17]]));
    message.resize(length, 0);
    stream.read_exact(&mut message[19..]).ok()?;
    Some(message)
}

/// A session.
fn session(lab: &Lab) -> TcpStream {
    let mut stream = connect(lab);
    stream.write_all(&open()).unwrap();
    stream.write_all(&keepalive()).unwrap();
    let kinds: Vec<u8> = (0..2).map(|_| read(&mut stream).unwrap()[18]).collect();
    assert_eq!(kinds, [1, 4], "OPEN and KEEPALIVE");
    stream
}

/// Memory of the daemon in use, in bytes.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1_024
}

/// More than this a router must not be able to make the daemon use.
const MORE: u64 = 24 << 20;

fn undisturbed(lab: &Lab) {
    lab.up("10.0.0.2");
    assert_eq!(lab.peer("10.0.0.2", "/flaps"), 0);
    assert_eq!(lab.peer("10.0.0.2", "/counters/sessions"), 1);
    assert_eq!(lab.gobgp_paths("203.0.113.10/32").len(), 1);
}

#[test]
fn a_router_that_resets_again_and_again_harms_nobody() {
    let lab = Lab::new(&[V4], CONFIG);
    let _router = lab.gobgpd(REFLECTOR);
    let daemon = lab.daemon();
    lab.up("10.0.0.2");
    let before = memory(daemon.pid());
    for round in 0..300 {
        let stream = connect(&lab);
        // A close with this time to linger is a reset.
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        let mut stream = stream;
        let said = match round % 3 {
            0 => Vec::new(),
            1 => open(),
            _ => [open(), keepalive()].concat(),
        };
        // It may have been closed for a newer one.
        let _ = stream.write_all(&said);
    }
    undisturbed(&lab);
    let _stream = session(&lab);
    lab.up("10.0.0.5");
    let after = memory(daemon.pid());
    assert!(after < before + MORE, "{before} to {after}");
}

#[test]
fn a_full_table_and_more_is_read_and_forgotten() {
    let lab = Lab::new(&[V4], CONFIG);
    let _router = lab.gobgpd(REFLECTOR);
    let daemon = lab.daemon();
    lab.up("10.0.0.2");
    let mut stream = session(&lab);
    lab.up("10.0.0.5");
    let before = memory(daemon.pid());
    const MESSAGES: u64 = 4_000;
    for number in 0..MESSAGES as u32 {
        stream.write_all(&update(number * 900, 900)).unwrap();
    }
    wait_for("all of it is read", || {
        lab.peer("10.0.0.5", "/counters/updates_received").as_u64() == Some(MESSAGES)
    });
    let after = memory(daemon.pid());
    assert!(after < before + MORE, "{before} to {after}");
    assert_eq!(lab.peer("10.0.0.5", "/state"), "established");
    assert_eq!(lab.peer("10.0.0.5", "/counters/malformed_received"), 0);
    undisturbed(&lab);
}

/// Numbers with a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) as usize % end
    }
}

#[test]
fn broken_messages_end_their_session_and_nothing_else() {
    let lab = Lab::new(&[V4], CONFIG);
    let _router = lab.gobgpd(REFLECTOR);
    let daemon = lab.daemon();
    lab.up("10.0.0.2");
    let before = memory(daemon.pid());
    let mut dice = Dice(5);
    for round in 0..400 {
        let mut stream = connect(&lab);
        let mut bytes = [open(), keepalive(), update(0, 3), keepalive()].concat();
        // One broken at the first message would never come to the others.
        let first = if round % 2 == 0 { open().len() + 19 } else { 0 };
        for _ in 0..=dice.below(4) {
            let at = first + dice.below(bytes.len() - first);
            bytes[at] ^= 1 << dice.below(8);
        }
        bytes.truncate(bytes.len() - dice.below(30));
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        // Until the balancer has had enough of it.
        let mut rest = Vec::new();
        match stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
    }
    undisturbed(&lab);
    let after = memory(daemon.pid());
    assert!(after < before + MORE, "{before} to {after}");
    let _stream = session(&lab);
    lab.up("10.0.0.5");
    assert_ne!(lab.peer("10.0.0.5", "/last_error"), serde_json::Value::Null);
}

/// A ROUTE-REFRESH for IPv4.
fn refresh() -> Vec<u8> {
    let mut message = vec![0xff; 16];
    message.extend([0, 23, 5, 0, 1, 0, 1]);
    message
}

#[test]
fn a_router_that_does_not_read_is_given_up_without_holding_up_others() {
    let lab = Lab::new(&[V4], CONFIG);
    let _router = lab.gobgpd(REFLECTOR);
    let daemon = lab.daemon();
    lab.up("10.0.0.2");
    let mut stream = session(&lab);
    lab.up("10.0.0.5");
    let vips: Vec<String> = (0..500)
        .map(|n| format!("203.0.{}.{}", n / 250, n % 250 + 1))
        .collect();
    let mut vips: Vec<&str> = vips.iter().map(String::as_str).collect();
    vips.push(V4);
    lab.place.edit(&services(&vips));
    wait_for("routes at the other", || {
        lab.peer("10.0.0.2", "/routes").as_u64() == Some(501)
    });
    let before = memory(daemon.pid());
    // Each asks for all routes again; none of the answers is read.
    let many = refresh().repeat(1_000);
    wait_for("the end of its session", || {
        // It may have ended in between.
        let _ = stream.write_all(&many);
        lab.peer("10.0.0.5", "/flaps") == 1
    });
    assert!(
        daemon
            .log()
            .contains("10.0.0.5 does not read what it is sent")
    );
    let after = memory(daemon.pid());
    assert!(after < before + MORE, "{before} to {after}");
    undisturbed(&lab);
}

#[test]
fn whoever_is_no_router_is_not_talked_to() {
    let lab = Lab::new(&[V4], &CONFIG.replace("10.0.0.5", "10.0.0.6"));
    let _router = lab.gobgpd(REFLECTOR);
    let _daemon = lab.daemon();
    lab.up("10.0.0.2");
    let mut stream = connect(&lab);
    assert_eq!(read(&mut stream), None);
}

#[test]
fn changes_are_on_the_wire_at_once() {
    let lab = Lab::new(&[V4], CONFIG);
    let _router = lab.gobgpd(REFLECTOR);
    let _daemon = lab.daemon();
    let mut stream = session(&lab);
    let mut dice = Dice(7);
    let (mut here, mut times) = (vec![V4.to_owned()], Vec::new());
    let next = |stream: &mut TcpStream| loop {
        let message = read(stream).expect("the session goes on");
        match message[18] {
            // End-of-RIB has no prefix.
            2 if message.len() > 23 && message[19..23] != [0, 0, 0, 6] => return message,
            _ => stream.write_all(&keepalive()).unwrap(),
        }
    };
    next(&mut stream);
    for _ in 0..200 {
        let vip = format!("203.0.113.{}", dice.below(20));
        match here.iter().position(|known| *known == vip) {
            Some(at) => drop(here.remove(at)),
            None => here.push(vip),
        }
        let vips: Vec<&str> = here.iter().map(String::as_str).collect();
        let start = Instant::now();
        lab.place.edit(&services(&vips));
        next(&mut stream);
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let (median, most) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("from the file to the wire: median {median:?}, p99 {most:?}");
    assert!(most < Duration::from_secs(1), "{times:?}");
}
