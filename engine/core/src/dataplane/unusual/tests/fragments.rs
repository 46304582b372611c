//! Fragments.

use super::*;
use crate::fixtures::three;

/// A datagram cut as a sender does it: `part` bytes of its payload each.
pub(super) fn cut(net: &Net, whole: &[u8], id: u16, part: usize) -> Vec<Vec<u8>> {
    let header = net.header();
    let payload = &whole[header..];
    let count = payload.len().div_ceil(part);
    let fragment = |(at, bytes): (usize, &[u8])| {
        let more = u16::from(at + 1 < count);
        let offset = (at * part / 8) as u16;
        if net.is_v4() {
            let mut packet = [&whole[..header], bytes].concat();
            let length = packet.len() as u16;
            packet[2..4].copy_from_slice(&length.to_be_bytes());
            packet[4..6].copy_from_slice(&id.to_be_bytes());
            packet[6..8].copy_from_slice(&(more << 13 | offset).to_be_bytes());
            packet[10..12].copy_from_slice(&[0, 0]);
            let sum = !ones(&packet[..20]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            packet
        } else {
            let [a, b] = (offset << 3 | more).to_be_bytes();
            let [c, d] = id.to_be_bytes();
            let extension = [whole[6], 0, a, b, 0xab, 0xcd, c, d];
            let mut packet = [&whole[..header], &extension, bytes].concat();
            packet[6] = 44;
            let length = (packet.len() - header) as u16;
            packet[4..6].copy_from_slice(&length.to_be_bytes());
            packet
        }
    };
    payload.chunks(part).enumerate().map(fragment).collect()
}

/// Three backends of the net's version, so that fragments could go wrong.
fn spread(net: &Net) -> Dataplane {
    let backends = if net.is_v4() {
        three()
    } else {
        ["fd00::1", "fd00::2", "fd00::3"].map(backend).to_vec()
    };
    let vips = net.vips();
    let vips: Vec<&str> = vips.iter().map(String::as_str).collect();
    let web = service("web", &vips, backends);
    dataplane(compile(&Tables::default(), 1, Vec::from([web])))
}

fn datagram(net: &Net, port: u16, bytes: usize) -> Vec<u8> {
    transport(UDP, (net.client, port), (net.vip, 53), bytes)
}

#[test]
fn all_fragments_of_a_datagram_go_where_its_ports_say() {
    for net in nets() {
        let mut dataplane = spread(&net);
        let room = net.header() as u16;
        for n in 0..50_u16 {
            let port = 1_024 + n;
            let whole = datagram(&net, port, 4_000);
            let short = datagram(&net, port, 10);
            let to = send(&mut dataplane, T0, &roomy(room, &short)).unwrap().to;
            let mut inside = Vec::new();
            for (at, part) in cut(&net, &whole, n, 1_400).iter().enumerate() {
                let sent = send(&mut dataplane, T0, &roomy(48, part)).unwrap();
                assert_eq!(
                    (sent.from, sent.to),
                    (net.engine, to),
                    "fragment {at} of {n}"
                );
                let behind = if net.is_v4() { 20 } else { 48 };
                inside.extend_from_slice(&sent.payload[behind..]);
            }
            assert_eq!(inside, whole[net.header()..], "nothing in them changes");
        }
        let flows = dataplane.flows_v4().len() + dataplane.flows_v6().len();
        assert_eq!(flows, 50, "fragments are packets of the flow");
    }
}

#[test]
fn fragments_of_tcp_follow_theirs() {
    for net in nets() {
        let mut dataplane = spread(&net);
        let room = net.header() as u16;
        let segment = net.request(TCP, 3_000);
        let parts = cut(&net, &segment, 1, 1_400);
        let to: Vec<_> = parts
            .iter()
            .map(|part| send(&mut dataplane, T0, &roomy(room, part)).unwrap().to)
            .collect();
        assert!(to.iter().all(|server| *server == to[0]), "{to:?}");
    }
}

#[test]
fn the_fragments_of_one_burst_are_told_in_order() {
    let [net, _] = nets();
    let parts = cut(&net, &datagram(&net, 1_024, 4_000), 1, 1_400);
    let mut frames: Vec<_> = parts.iter().map(|part| roomy(20, part)).collect();
    let mut verdicts = [Verdict::Local; 3];
    spread(&net).process(T0, &[PORT; 3], &mut frames, &mut verdicts);
    assert!(
        verdicts
            .iter()
            .all(|v| matches!(v, Verdict::Forward { .. }))
    );
}

#[test]
fn fragments_are_refused_that_have_no_first_one_or_a_wrong_one() {
    for net in nets() {
        let room = net.header() as u16;
        let parts = cut(&net, &datagram(&net, 1_024, 4_000), 1, 1_400);
        let others = cut(&net, &datagram(&net, 1_024, 4_000), 2, 1_400);
        let tiny = cut(&net, &net.request(TCP, 100), 3, 16);
        let tiny_udp = {
            let mut part = cut(&net, &datagram(&net, 1_024, 100), 4, 8).remove(0);
            part.truncate(part.len() - 4);
            if net.is_v4() {
                part[3] -= 4;
                part[10..12].copy_from_slice(&[0, 0]);
                let sum = !ones(&part[..20]);
                part[10..12].copy_from_slice(&sum.to_be_bytes());
            } else {
                part[5] -= 4;
            }
            part
        };
        let overwrites = cut(&net, &net.request(TCP, 100), 5, 8).remove(1);
        let ping = {
            let kind = if net.is_v4() { 8 } else { 128 };
            let whole = icmp(net.client, net.vip, (kind, 0, [0; 4]), &[0; 2_000]);
            cut(&net, &whole, 6, 1_400)
        };
        let mut dataplane = spread(&net);
        let before = send(&mut dataplane, T0, &roomy(room, &parts[1]));
        assert_eq!(before, Err(DropReason::Fragment), "before its first one");
        send(&mut dataplane, T0, &roomy(room, &parts[0])).unwrap();
        send(&mut dataplane, T0, &roomy(room, &parts[1])).unwrap();
        let rows = [
            ("of another datagram", &others[1], DropReason::Fragment),
            (
                "cut in the TCP header (RFC 1858)",
                &tiny[0],
                DropReason::Truncated,
            ),
            ("cut in the UDP header", &tiny_udp, DropReason::Truncated),
            ("over the TCP header", &overwrites, DropReason::Malformed),
            ("of a ping", &ping[1], DropReason::Fragment),
        ];
        for (description, part, expected) in rows {
            let sent = send(&mut dataplane, T0, &roomy(room, part));
            // Only the first fragment says what an IPv6 datagram is.
            assert_eq!(sent, Err(expected), "{description}");
        }
        let limit = if net.is_v4() { 30 } else { 60 };
        for (seconds, known) in [(limit - 1, true), (limit, false)] {
            let later = Micros::new(T0.get() + seconds * 1_000_000);
            let sent = send(&mut dataplane, later, &roomy(room, &parts[2]));
            assert_eq!(sent.is_ok(), known, "after {seconds} s: {sent:?}");
        }
    }
}

#[test]
fn the_newest_first_fragment_of_an_identification_counts() {
    let [net, _] = nets();
    let mut dataplane = spread(&net);
    for port in 1_024..1_100 {
        let parts = cut(&net, &datagram(&net, port, 2_000), 7, 1_400);
        let to = send(&mut dataplane, T0, &roomy(20, &parts[0])).unwrap().to;
        let next = send(&mut dataplane, T0, &roomy(20, &parts[1])).unwrap();
        assert_eq!(next.to, to, "port {port}");
    }
}

#[test]
fn a_flood_of_fragments_takes_no_flow_and_no_more_than_its_table() {
    let [net, _] = nets();
    let mut dataplane = spread(&net);
    let request = net.request(TCP, 10);
    let to = send(&mut dataplane, T0, &roomy(20, &request)).unwrap().to;
    // Later ones without a first one: not even looked up among the flows.
    let whole = datagram(&net, 1_024, 2_000);
    for id in 0..20_000 {
        let later = &cut(&net, &whole, id, 1_400)[1];
        let sent = send(&mut dataplane, T0, &roomy(20, later));
        assert_eq!(sent, Err(DropReason::Fragment));
    }
    assert_eq!(dataplane.flows_v4().len(), 1);
    // First ones: the table keeps the newest, about as many as it is for.
    let parts: Vec<_> = (0..20_000_u16)
        .map(|id| {
            let at = Micros::new(T0.get() + u64::from(id));
            let parts = cut(&net, &whole, id, 1_400);
            send(&mut dataplane, at, &roomy(20, &parts[0])).unwrap();
            parts
        })
        .collect();
    let at = Micros::new(T0.get() + 20_000);
    let known: Vec<_> = parts
        .iter()
        .map(|parts| send(&mut dataplane, at, &roomy(20, &parts[1])).is_ok())
        .collect();
    let kept = known.iter().filter(|known| **known).count();
    assert_eq!(kept, super::super::fragments::DATAGRAMS);
    assert!(known[19_900..].iter().all(|known| *known), "the newest");
    assert_eq!(dataplane.flows_v4().len(), 2);
    assert_eq!(
        send(&mut dataplane, at, &roomy(20, &request)).unwrap().to,
        to
    );
}

#[test]
fn of_fragments_that_do_not_fit_the_first_is_answered() {
    for net in nets() {
        let room = net.header() as u16;
        let parts = cut(&net, &datagram(&net, 1_024, 4_000), 1, 1_576);
        let mut dataplane = spread(&net);
        let answer = send(&mut dataplane, T0, &roomy(room, &parts[0])).unwrap();
        assert_eq!((answer.from, answer.to), (net.vip, net.client));
        let second = send(&mut dataplane, T0, &roomy(room, &parts[1]));
        if net.is_v4() {
            assert_eq!(second, Err(DropReason::TooBig), "RFC 1122 section 3.2.2");
        } else {
            assert_eq!(second.unwrap().to, net.client);
        }
        assert_eq!(drops(&dataplane, DropReason::TooBig), 2);
    }
}
