//! Packets that no decent sender sends: each is counted under its reason, and traffic goes on.

use anyhow::{Result, ensure};
use etherparse::{PacketBuilder, PacketBuilderStep, ip_number};
use lockstep_tests::lab::{
    CLIENT_V4, CLIENT_V6, Injector, Lab, VIP_V4, VIP_V6, Version, Wrk, scenario, wait_until, web,
};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
/// Of each hostile packet; fewer than a veth ring holds.
const COPIES: u64 = 50;

/// A packet that must be dropped: what it is, under which reason, its bytes.
struct Hostile {
    what: &'static str,
    reason: &'static str,
    frame: Vec<u8>,
}

#[test]
fn scenario_hostile_packets_are_counted_under_their_reason_and_traffic_goes_on() {
    scenario(&Lab::builder(), |lab| {
        lab.start_lockstep(&web(&[0, 1, 2]))?;
        let port = lab.router.injector("b0")?;
        let from = lab.router.netns().mac("b0")?;
        let to = lab.balancers[0].netns().mac("eth0")?;
        let load = lab
            .client
            .start_wrk(&Wrk::new(Version::V4.url()).seconds(6).connections(4))?;
        for hostile in hostile(from, to)? {
            counted(lab, &port, &hostile)?;
        }
        let report = load.report()?;
        ensure!(report.errors() == 0, "{report:?}");
        for version in [Version::V4, Version::V6] {
            let report = lab.client.wrk(&Wrk::new(version.url()).seconds(1))?;
            ensure!(report.errors() == 0, "{report:?}");
        }
        Ok(())
    });
}

fn counted(lab: &Lab, port: &Injector, hostile: &Hostile) -> Result<()> {
    let Hostile {
        what,
        reason,
        frame,
    } = hostile;
    let drops = || lab.balancers[0].status()?.drops(reason);
    let before = drops()?;
    for _ in 0..COPIES {
        port.send(frame)?;
    }
    wait_until(
        &format!("{COPIES} x {what} are counted as {reason}"),
        SOON,
        || Ok((drops()? >= before + COPIES).then_some(())),
    )?;
    let after = drops()?;
    ensure!(
        after == before + COPIES,
        "{what}: {} counted as {reason}",
        after - before
    );
    Ok(())
}

fn hostile(from: [u8; 6], to: [u8; 6]) -> Result<Vec<Hostile>> {
    let v4 =
        |ttl| PacketBuilder::ethernet2(from, to).ipv4(CLIENT_V4.octets(), VIP_V4.octets(), ttl);
    let v6 =
        |ttl| PacketBuilder::ethernet2(from, to).ipv6(CLIENT_V6.octets(), VIP_V6.octets(), ttl);
    let (good4, good6) = (tcp(v4(64), &[0; 64])?, tcp(v6(64), &[0; 64])?);
    let row = |what, reason, frame| Hostile {
        what,
        reason,
        frame,
    };
    Ok(vec![
        row(
            "IPv4 cut inside the TCP header",
            "truncated",
            cut(&good4, ETHERNET + IPV4 + 7),
        ),
        row(
            "IPv6 cut inside the TCP header",
            "truncated",
            cut(&good6, ETHERNET + IPV6 + 7),
        ),
        row(
            "IPv4 shorter than its total length",
            "truncated",
            cut(&good4, good4.len() - 9),
        ),
        row(
            "IPv4 with a header of 16 bytes",
            "malformed",
            ipv4(&good4, |ip| ip[0] = 0x44),
        ),
        row(
            "IPv4 with a total length below its header's",
            "malformed",
            ipv4(&good4, |ip| ip[2..4].copy_from_slice(&19_u16.to_be_bytes())),
        ),
        row(
            "IPv4 with a wrong header checksum",
            "bad_checksum",
            changed(&good4, |ip| ip[10] ^= 0x55),
        ),
        row("IPv4 with TTL 1", "ttl_exceeded", tcp(v4(1), &[])?),
        row("IPv6 with hop limit 1", "ttl_exceeded", tcp(v6(1), &[])?),
        row(
            "a later fragment of an IPv4 packet whose first never came",
            "fragment",
            ipv4(&good4, |ip| {
                ip[6..8].copy_from_slice(&0x0010_u16.to_be_bytes())
            }),
        ),
        row(
            "a fragment that would overwrite a TCP header",
            "malformed",
            ipv4(&good4, |ip| {
                ip[6..8].copy_from_slice(&0x0001_u16.to_be_bytes())
            }),
        ),
        row(
            "a later fragment of an IPv6 packet whose first never came",
            "fragment",
            extensions(&good6, &[44]),
        ),
        row(
            "nine IPv6 destination options",
            "header_chain",
            extensions(&good6, &[60; 9]),
        ),
        row(
            "a full packet too long for the way out",
            "too_big",
            tcp(v4(64), &[0; 1545])?,
        ),
    ])
}

fn tcp(ip: PacketBuilderStep<etherparse::IpHeaders>, payload: &[u8]) -> Result<Vec<u8>> {
    let mut frame = Vec::new();
    ip.tcp(40_000, 80, 1, 65_535).write(&mut frame, payload)?;
    Ok(frame)
}

fn cut(frame: &[u8], len: usize) -> Vec<u8> {
    frame[..len].to_vec()
}

/// The frame with its IP header changed, and nothing else put right.
fn changed(frame: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut frame = frame.to_vec();
    change(&mut frame[ETHERNET..]);
    frame
}

/// The frame with its IPv4 header changed and its checksum right again.
fn ipv4(frame: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    changed(frame, |ip| {
        change(ip);
        ip[10..12].fill(0);
        let words = ip[..IPV4]
            .chunks(2)
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
        let sum: u32 = words.sum();
        // RFC 1071: 20 bytes carry at most twice.
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        ip[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    })
}

/// The IPv6 frame with extension headers of 8 bytes of these kinds before its TCP header.
fn extensions(frame: &[u8], kinds: &[u8]) -> Vec<u8> {
    let (head, body) = frame.split_at(ETHERNET + IPV6);
    let mut frame = head.to_vec();
    let following = kinds.iter().copied().skip(1).chain([ip_number::TCP.0]);
    for (&kind, next) in kinds.iter().zip(following) {
        match kind {
            // More fragments, offset 16 (RFC 8200, 4.5).
            44 => frame.extend([next, 0, 0, 0x11, 0, 0, 0, 7]),
            // PadN over the whole (RFC 8200, 4.2).
            _ => frame.extend([next, 0, 1, 4, 0, 0, 0, 0]),
        }
    }
    frame.extend(body);
    let ip = &mut frame[ETHERNET..];
    ip[6] = kinds.first().copied().unwrap_or(ip_number::TCP.0);
    let length = (ip.len() - IPV6) as u16;
    ip[4..6].copy_from_slice(&length.to_be_bytes());
    frame
}
