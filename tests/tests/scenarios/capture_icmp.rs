//! `lockstep capture` of rewritten packets, ICMP and fragments: beside each packet as tcpdump reads it
//! stands what became of it.

use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{Capture, Datagrams, Forwarding, Lab, Version, scenario, wait_until};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
const PORT: u16 = 5_301;

#[test]
fn scenario_a_capture_of_nat_icmp_and_fragments_over_ipv4() {
    scenario(&Lab::builder().servers(1), |lab| {
        captured(lab, Forwarding::Nat, Version::V4)
    });
}

#[test]
fn scenario_a_capture_of_full_nat_icmp_and_fragments_over_ipv6() {
    scenario(&Lab::builder().servers(1), |lab| {
        captured(lab, Forwarding::FullNat, Version::V6)
    });
}

/// What tcpdump says in a line, and the beginning of what became of the packet.
type Row<'a> = (&'a str, &'a str);

fn captured(lab: &mut Lab, way: Forwarding, version: Version) -> Result<()> {
    // So that routers need not cut what servers send.
    let link = "link set dev eth0 mtu 1500";
    lab.servers[0].netns().ip(link)?;
    let port = format!("{PORT}/udp");
    lab.start_forwarding(way, &way.service("dns", version, &[&port], &[0], ""))?;
    let mut capture = Capture::begin(&lab.balancers[0], "all", &[])?;
    talk(lab, version)?;
    let packets = capture.end()?;
    let lines = capture.by_tcpdump()?;
    ensure!(lines.len() == packets.len(), "{lines:#?}");
    let server = version.server(0);
    let (to_server, to_client) = (
        format!("forward to s1 ({server}), service dns\n"),
        format!("forward to client {}:", bracketed(version.client())),
    );
    let rows: [Row; 11] = [
        ("echo request", "reply\n"),
        ("length 100", &to_server),
        ("length 100", &to_client),
        // In fragments: their first shows where they go.
        ("length 2000", &to_server),
        ("", "forward\nparsed: a later fragment"),
        ("length 2000", &to_client),
        ("", "forward\nparsed: a later fragment"),
        ("length 14", &to_client),
        ("unreachable", &to_server),
        ("length 14", &to_server),
        ("unreachable", &to_client),
    ];
    let text: Vec<String> = lines
        .iter()
        .zip(&packets)
        .map(|(line, packet)| format!("{line}\n{}", packet.comment))
        .collect();
    let text = text.join("\n\n");
    ensure!(lines.len() == rows.len(), "{text}");
    for ((line, packet), (packet_is, became)) in lines.iter().zip(&packets).zip(rows) {
        ensure!(
            line.contains(packet_is) && packet.comment.starts_with(became),
            "{line}: {} instead of {packet_is}: {became}, in:\n{text}",
            packet.comment
        );
    }
    Ok(())
}

/// As it stands before a port.
fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// A ping, a question and its answer, both in one piece and in fragments, and errors about both.
fn talk(lab: &Lab, version: Version) -> Result<()> {
    let vip = version.vip().to_string();
    let ping = ["-c", "1", "-W", "5", &vip];
    lab.client.netns().output("ping", &ping)?;
    let at = SocketAddr::new(version.server(0), PORT);
    let server = Datagrams::bind(lab.servers[0].netns(), at)?;
    let from = SocketAddr::new(version.client(), 0);
    let client = Datagrams::bind(lab.client.netns(), from)?;
    let to = SocketAddr::new(version.vip(), PORT);
    let mut seen = None;
    for datagram in [vec![1; 100], vec![2; 2_000]] {
        client.send(&datagram, to)?;
        let (question, from) = wait_until("the question arrives", SOON, || Ok(server.receive()))?;
        server.send(&question, from)?;
        wait_until("the answer arrives", SOON, || Ok(client.receive()))?;
        seen = Some(from);
    }
    drop(client);
    server.send(b"nobody listens", seen.context("nobody asked")?)?;
    server.hears()?;
    drop(server);
    let client = Datagrams::bind(lab.client.netns(), from)?;
    client.send(b"nobody listens", to)?;
    client.hears().map(drop)
}
