//! Floods, and what guards refuse.

use anyhow::{Context, Result, ensure};
use etherparse::PacketBuilder;
use lockstep_tests::lab::{
    Balancer, Forwarding, Injector, KeepAlive, Lab, LabBuilder, Netns, Spread, Version, Wrk,
    scenario, service, wait_until, web,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SOURCES: u64 = 1_000_000;
const CONNECTIONS: usize = 10_000;
/// The flood's sources, one after the other: of 100.64.0.0/10, where nobody is.
const FROM: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
const FROM_BITS: u32 = 22;
/// Over IPv6 these are the last bits of an address in 2001:db8:f::/96, where nobody is either.
const FROM_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 0);
/// Flows that the engine's table is for.
const TABLE: u64 = 65_536;
/// Frames between two looks at what has arrived.
const PIECE: u32 = 32_768;
/// The time between two frames at least.
const GAP: Duration = Duration::from_micros(4);
/// The same where clients are to get through on the same processors.
const CALM: Duration = Duration::from_micros(40);
/// Connections that are asked after each piece.
const ASKED: usize = 80;
/// A port whose server speaks first.
const GREETING_PORT: u16 = 7001;
const GREETING: &str = "220 speak\n";
const TIMEOUT: Duration = Duration::from_secs(10);

#[test]
fn scenario_a_syn_flood_of_a_million_sources_loses_none_of_ten_thousand_connections() {
    raise_open_files().expect("10,000 connections need as many open files");
    scenario(&Lab::builder(), |lab| {
        // A small table, so that a million sources are many times what it holds.
        let topology = lab.balancers[0].topology_file();
        let text = std::fs::read_to_string(&topology)?;
        let text = text.replace("[engine]\n", &format!("[engine]\nflows_ipv4 = {TABLE}\n"));
        std::fs::write(&topology, text)?;
        lab.start_lockstep(&web(&[0, 1, 2]))?;
        blackhole(lab)?;
        let vip = Version::V4.vip();
        let mut open = KeepAlive::open_many(lab.client.netns(), vip, CONNECTIONS)?;
        let balancer = &lab.balancers[0];
        let flows = || balancer.metric("lockstep_backend_new_flows_total");
        let before = flows()?;
        ensure!(
            before >= CONNECTIONS as u64,
            "only {before} flows are known"
        );
        let mut flood = Flood::new(lab, Version::V4, GAP)?;
        let mut rounds = 0;
        // Not by what was sent: what a slow machine loses on the way is sent again by others.
        while flows()? < before + SOURCES {
            flood.send()?;
            let from = rounds * ASKED % CONNECTIONS;
            open[from..from + ASKED]
                .iter_mut()
                .try_for_each(KeepAlive::must_stay)?;
            rounds += 1;
        }
        open.iter_mut().try_for_each(KeepAlive::must_stay)?;
        let evicted = balancer.metric("lockstep_worker_evicted_flows_total")?;
        ensure!(evicted > SOURCES / 2, "the table was not full: {evicted}");
        ensure!(balancer.status()?.flows_moved()? == 0, "a flow has moved");
        Ok(())
    });
}

#[test]
fn scenario_cookies_let_clients_through_a_syn_flood_by_rss() {
    cookies(&Lab::builder().queues(2), Version::V4);
}

#[test]
fn scenario_cookies_let_clients_through_a_syn_flood_by_rps() {
    cookies(&Lab::builder().spread(Spread::Rps), Version::V4);
}

#[test]
fn scenario_cookies_let_clients_through_a_syn_flood_over_ipv6() {
    cookies(&Lab::builder(), Version::V6);
}

/// A full-NAT service under a flood: HTTP with nginx and wrk, a server that speaks first, and
/// connections from before.
fn cookies(lab: &LabBuilder, version: Version) {
    scenario(lab, |lab| {
        let way = Forwarding::FullNat;
        let greeting = format!("{GREETING_PORT}/tcp");
        let text = way.service("web", version, &["80/tcp", &greeting], &[0], "");
        lab.start_forwarding(way, &text)?;
        blackhole(lab)?;
        let server = SocketAddr::new(version.server(0), GREETING_PORT);
        let listener = lab.servers[0]
            .netns()
            .within(|| Ok(TcpListener::bind(server)?))?;
        let netns = lab.client.netns();
        let balancer = &lab.balancers[0];
        let mut flood = Flood::new(lab, version, CALM)?;
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| greet(&listener, &is_over));
            let done = greeted(netns, version.vip()).and_then(|()| {
                let mut before = KeepAlive::open_many(netns, version.vip(), 20)?;
                let flooding = scope.spawn(|| -> Result<()> {
                    while !is_over.load(Ordering::Relaxed) {
                        flood.send_piece(PIECE / 16)?;
                    }
                    Ok(())
                });
                let done = under_flood(lab, &mut before, version);
                is_over.store(true, Ordering::Relaxed);
                flooding.join().expect("the flood does not panic")?;
                done
            });
            is_over.store(true, Ordering::Relaxed);
            // It waits for one that will not come.
            let _ = netns.within(|| Ok(TcpStream::connect_timeout(&server, TIMEOUT)?));
            done
        })?;
        let status = balancer.status()?;
        let full = (status.drops("flows_full")?, status.drops("ports_full")?);
        ensure!(full == (0, 0), "flows and ports that were full: {full:?}");
        ensure!(status.flows_moved()? == 0, "a flow has moved");
        Ok(())
    });
}

fn under_flood(lab: &Lab, before: &mut [KeepAlive], version: Version) -> Result<()> {
    let vip = version.vip();
    let balancer = &lab.balancers[0];
    let sent = || balancer.metric("lockstep_worker_cookies_sent_total");
    let accepted = || balancer.metric("lockstep_worker_cookies_accepted_total");
    wait_until("SYNs are answered with cookies", TIMEOUT, || {
        Ok((sent()? > 20_000).then_some(()))
    })?;
    let first = accepted()?;
    let (mut greeting, mut answer) = (TIMEOUT, TIMEOUT);
    for _ in 0..20 {
        let start = Instant::now();
        greeted(lab.client.netns(), vip)?;
        greeting = greeting.min(start.elapsed());
        let start = Instant::now();
        KeepAlive::open(lab.client.netns(), vip)?;
        answer = answer.min(start.elapsed());
    }
    // The least of TCP's timers in Linux: none has to run out, whoever speaks first.
    let timer = Duration::from_millis(200);
    ensure!(
        greeting < timer && answer < timer,
        "{greeting:?}, {answer:?}"
    );
    lab.client.get(vip)?;
    ensure!(accepted()? > first + 40, "they did not connect by cookies");
    let mut during = KeepAlive::open_many(lab.client.netns(), vip, 20)?;
    let load = Wrk::new(version.url()).seconds(2).connection_per_request();
    let report = lab.client.wrk(&load)?;
    ensure!(report.errors() == 0 && report.requests > 100, "{report:?}");
    ensure!(accepted()? > first + 60 + report.requests / 2, "{report:?}");
    let mut all = before.iter_mut().chain(&mut during);
    all.try_for_each(KeepAlive::must_stay)?;
    // As many half-open ones as the backend may have, what came since, and hardly more.
    let flows = balancer.metric("lockstep_worker_flows")?;
    ensure!(flows < 10_000 + report.requests, "{flows} flows");
    Ok(())
}

/// Greets whoever connects.
fn greet(listener: &TcpListener, is_over: &AtomicBool) {
    while let Ok((mut stream, _)) = listener.accept() {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        // Who goes before it is greeted says so itself.
        let _ = stream.write_all(GREETING.as_bytes());
    }
}

/// Connects, and waits to be greeted.
fn greeted(netns: &Netns, vip: IpAddr) -> Result<()> {
    let to = SocketAddr::new(vip, GREETING_PORT);
    let mut text = String::new();
    netns.within(|| {
        let mut stream = TcpStream::connect_timeout(&to, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.read_to_string(&mut text).context("no greeting")?;
        Ok(())
    })?;
    ensure!(text == GREETING, "{text}");
    Ok(())
}

/// Answers to the flood end there instead of going in a circle.
fn blackhole(lab: &Lab) -> Result<()> {
    let net = format!("{FROM}/{}", 32 - FROM_BITS);
    let netns = lab.router.netns();
    netns.ip(&format!("route add blackhole {net}"))?;
    netns.ip(&format!("-6 route add blackhole {FROM_V6}/96"))
}

#[test]
fn scenario_guards_refuse_who_is_denied_and_what_is_too_much() {
    scenario(&Lab::builder(), |lab| {
        lab.start_lockstep(&guarded("", ""))?;
        let netns = lab.client.netns();
        let (v4, v6) = (Version::V4.vip(), Version::V6.vip());
        let mut before = KeepAlive::open(netns, v4)?;
        let balancer = &lab.balancers[0];

        // The whole of the client's IPv4 network but not the client, then the client too.
        let nearly = "deny = [\"198.51.100.0/24\"]\nallow = [\"0.0.0.0/0\", \"198.51.100.2\"]\n";
        balancer.apply(&guarded(nearly, ""))?;
        before.must_stay()?;
        balancer.apply(&guarded("deny = [\"198.51.100.0/30\"]\n", ""))?;
        ensure!(before.ask().is_err(), "a denied client's connection lives");
        ensure!(drops(balancer, "denied")? > 0, "nothing is counted");
        KeepAlive::open(netns, v6)?.must_stay()?;

        // Two new flows a second of the client's prefix: the third SYN waits for its turn.
        let limits = "source_rate = { new_flows = 2 }\nrate = { new_flows = 1000 }\n";
        balancer.apply(&guarded("", limits))?;
        let mut open = KeepAlive::open_many(netns, v6, 4)?;
        ensure!(
            drops(balancer, "source_rate_limited")? > 0,
            "four connections were not too many"
        );
        open.iter_mut().try_for_each(KeepAlive::must_stay)?;
        ensure!(drops(balancer, "rate_limited")? == 0, "of 1,000 a second");

        let ends = ["[2001:db8:100::2]:40000", "[2001:db8:113::10]:80"];
        let explained = balancer.cli_text(&["explain", "--from", ends[0], "--to", ends[1]])?;
        ensure!(explained.contains("may open 2 flows"), "{explained}");
        Ok(())
    });
}

/// The web service, with keys of its IPv4 and its IPv6 part.
fn guarded(v4: &str, v6: &str) -> String {
    let one = |name, version, keys: &str| {
        let text = service(name, version, &["80/tcp"], version, &[0, 1, 2]);
        text.replace("backends = [", &format!("{keys}backends = ["))
    };
    one("web", Version::V4, v4) + &one("web-v6", Version::V6, v6)
}

fn drops(balancer: &Balancer, reason: &str) -> Result<u64> {
    balancer.status()?.drops(reason)
}

/// SYNs to a VIP, of another source each, put on the wire before the balancer.
struct Flood {
    port: Injector,
    frame: Vec<u8>,
    /// Where the lower 32 bits of the source are, and the checksums over it.
    source: usize,
    checksums: Vec<usize>,
    sources: u32,
    gap: Duration,
}

impl Flood {
    fn new(lab: &Lab, version: Version, gap: Duration) -> Result<Self> {
        let (from, to) = (
            lab.router.netns().mac("b0")?,
            lab.balancers[0].netns().mac("eth0")?,
        );
        let mut frame = Vec::new();
        let ethernet = PacketBuilder::ethernet2(from, to);
        let (ip, source, checksums) = match version.vip() {
            IpAddr::V4(vip) => {
                let ip = ethernet.ipv4(FROM.octets(), vip.octets(), 63);
                (ip, 14 + 12, vec![14 + 10, 14 + 20 + 16])
            }
            IpAddr::V6(vip) => {
                let from = Ipv6Addr::from_bits(FROM_V6.to_bits() | u128::from(FROM.to_bits()));
                let ip = ethernet.ipv6(from.octets(), vip.octets(), 63);
                (ip, 14 + 8 + 12, vec![14 + 40 + 16])
            }
        };
        ip.tcp(40_000, 80, 1, 65_535).syn().write(&mut frame, &[])?;
        Ok(Flood {
            port: lab.router.injector("b0")?,
            frame,
            source,
            checksums,
            sources: 0,
            gap,
        })
    }

    fn send(&mut self) -> Result<()> {
        self.send_piece(PIECE)
    }

    fn send_piece(&mut self, frames: u32) -> Result<()> {
        let start = Instant::now();
        for at in 0..frames {
            while start.elapsed() < self.gap * at {
                // The engine may be on this core.
                std::thread::yield_now();
            }
            let source = u32::from(FROM) + self.sources % (1 << FROM_BITS);
            self.sources += 1;
            self.set_source(source);
            self.port.send(&self.frame)?;
        }
        Ok(())
    }

    /// Changes the source, and both checksums by what that changes (RFC 1624, equation 3).
    fn set_source(&mut self, source: u32) {
        let word = |frame: &[u8], at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        for (at, new) in [
            (self.source, (source >> 16) as u16),
            (self.source + 2, source as u16),
        ] {
            let old = word(&self.frame, at);
            for &checksum in &self.checksums {
                let sum =
                    u32::from(!word(&self.frame, checksum)) + u32::from(!old) + u32::from(new);
                let sum = (sum & 0xffff) + (sum >> 16);
                let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
                self.frame[checksum..checksum + 2].copy_from_slice(&sum.to_be_bytes());
            }
            self.frame[at..at + 2].copy_from_slice(&new.to_be_bytes());
        }
    }
}

/// Both this process and the servers that it starts hold a socket of every connection.
fn raise_open_files() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let enough = (CONNECTIONS + CONNECTIONS / 5) as u64;
    ensure!(most >= enough, "no more than {most} files may be open");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("cannot raise the limit of open files")
}
