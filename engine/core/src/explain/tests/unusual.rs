//! Pings, errors and fragments.

use super::*;
use crate::explain::seen::{Seen, seen};
use crate::{PortId, Verdict};
use std::net::Ipv4Addr;

const ROUTER: [u8; 4] = [198, 51, 100, 1];
const ADDRESS: [u8; 4] = [203, 0, 113, 10];

fn tables() -> Tables {
    compile(&Tables::default(), 1, web())
}

fn explain(bytes: &[u8]) -> Explanation {
    frame(&tables(), &["eth0"], bytes, None)
}

/// An error from a router to the VIP about what it answered a client.
fn error(kind: u8, code: u8, mtu: u16, client: u16) -> Vec<u8> {
    // What the backend sent: from the VIP to the client, its first eight bytes of TCP.
    let mut quoted = Vec::new();
    PacketBuilder::ipv4(ADDRESS, [198, 51, 100, 7], 60)
        .tcp(80, client, 1, 1)
        .write(&mut quoted, b"an answer")
        .expect("it fits");
    quoted.truncate(28);
    let [high, low] = mtu.to_be_bytes();
    let mut message = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(ROUTER, ADDRESS, 60)
        .icmpv4_raw(kind, code, [0, 0, high, low])
        .write(&mut message, &quoted)
        .expect("it fits");
    message
}

#[test]
fn a_ping_is_answered_where_it_is_for_us() {
    let ping = |to: [u8; 4]| {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([198, 51, 100, 7], to, 60)
            .icmpv4_echo_request(1, 1)
            .write(&mut frame, b"ping")
            .expect("it fits");
        frame
    };
    for (to, what) in [
        (ADDRESS, "has a VIP"),
        ([192, 0, 2, 1], "is an engine address"),
    ] {
        let said = explain(&ping(to));
        assert_eq!(said.fate, Fate::Reply);
        assert!(said.steps[0].contains(what), "{said:?}");
        let to = Ipv4Addr::from(to);
        assert_eq!(said.packet, format!("ping 198.51.100.7 > {to}"));
    }
    assert_eq!(explain(&ping([10, 0, 0, 99])).fate, Fate::Pass);
}

#[test]
fn an_error_goes_to_the_backend_of_the_flow_that_it_quotes() {
    for client in 40_000..40_020 {
        let about = error(3, 4, 1_400, client);
        let said = explain(&about);
        let flow = tcp(("198.51.100.7", client), VIP, "A");
        assert_eq!(flow_of(&about), flow_of(&flow));
        let packet = frame(&tables(), &["eth0"], &flow, None);
        assert_eq!(said.fate, packet.fate, "{said:#?}");
        assert_eq!(said.service.as_deref(), Some("web"));
        assert!(said.steps[0].contains("too big (MTU 1400)"), "{said:#?}");
        assert!(
            said.steps[1].contains("another balancer may have it"),
            "{said:#?}"
        );
    }
    // Of no VIP.
    let mut stray = error(3, 1, 0, 40_000);
    stray[14 + 20 + 8 + 20..][..2].copy_from_slice(&81u16.to_be_bytes());
    // The sum over the message: what the port has more, the sum has less.
    let sum = u16::from_be_bytes([stray[36], stray[37]]) - 1;
    stray[36..38].copy_from_slice(&sum.to_be_bytes());
    let said = explain(&stray);
    assert_eq!(
        said.fate,
        Fate::Drop(DropReason::IcmpUnmatched),
        "{said:#?}"
    );
}

#[test]
fn fragments_go_with_the_first_one() {
    let mut first = udp(("198.51.100.7", 40_000), VIP_UDP, &[0; 64]);
    let whole = explain(&first);
    let flags = 14 + 6;
    let set = |frame: &mut Vec<u8>, field: u16| {
        frame[flags..flags + 2].copy_from_slice(&field.to_be_bytes());
        frame[24..26].fill(0);
        let words = frame[14..34].chunks(2);
        let sum: u32 = words
            .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
            .sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        frame[24..26].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    };
    // More fragments, offset 0; then the last one.
    set(&mut first, 0x2000);
    let said = explain(&first);
    assert_eq!(said.fate, whole.fate, "{said:#?}");
    assert!(said.steps[0].contains("first fragment"), "{said:#?}");
    let mut last = first.clone();
    set(&mut last, 9);
    let said = explain(&last);
    assert_eq!(said.fate, Fate::Unsettled);
    assert_eq!(said.packet, "fragment 198.51.100.7 > 203.0.113.10");
    // A worker that has seen the first knows more.
    let sent = Seen {
        verdict: Verdict::Forward {
            port: PortId(0),
            length: 100,
        },
        before: None,
        after: None,
    };
    assert_eq!(seen(&tables(), &["eth0"], &last, &sent).fate, Fate::Sent);
}

/// An error about a packet that the engine sent in a tunnel.
fn about_tunnel(kind: u8, code: u8, protocol: u8) -> Vec<u8> {
    let (engine, end) = ([192, 0, 2, 1], [10, 0, 0, 2]);
    let quoted = etherparse::Ipv4Header::new(1_400, 64, protocol.into(), engine, end);
    let mut quoted = quoted.expect("it fits");
    quoted.header_checksum = quoted.calc_header_checksum();
    let mut message = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(end, engine, 60)
        .icmpv4_raw(kind, code, [0, 0, 4, 0])
        .write(&mut message, &[&quoted.to_bytes()[..], &[0; 8]].concat())
        .expect("it fits");
    message
}

#[test]
fn an_error_about_a_tunnel_says_which_and_whose() {
    let rows = [
        (3, 2, 4, "unreachable (code 2)", "(IPv4 in IP)", true),
        (11, 0, 41, "time exceeded (code 0)", "(IPv6 in IP)", true),
        (3, 4, 4, "too big (MTU 1024)", "(IPv4 in IP)", false),
    ];
    for (kind, code, protocol, what, how, dropped) in rows {
        let said = explain(&about_tunnel(kind, code, protocol));
        assert_eq!(said.packet, "icmp error about tunnel 192.0.2.1 > 10.0.0.2");
        let fate = match dropped {
            true => Fate::Drop(DropReason::IcmpTunnel),
            false => Fate::Unsettled,
        };
        assert_eq!(said.fate, fate, "{said:#?}");
        for part in [
            what,
            how,
            "from 192.0.2.1 to 10.0.0.2: backend 10.0.0.2 of service web",
        ] {
            assert!(said.steps[0].contains(part), "{part} in {said:#?}");
        }
    }
}
