//! Pings.

use super::*;

fn ping(net: &Net, to: IpAddr, bytes: &[u8]) -> Vec<u8> {
    let kind = if net.is_v4() { 8 } else { 128 };
    icmp(net.client, to, (kind, 0, [0x12, 0x34, 0, 1]), bytes)
}

#[test]
fn a_ping_is_answered_by_the_way_it_came() {
    for net in nets() {
        let body: Vec<u8> = (0..57).collect();
        let request = ping(&net, net.vip, &body);
        let tagged = |tci: u16, room| {
            let mut frame = roomy(room, &request);
            frame[16..18].copy_from_slice(&tci.to_be_bytes());
            frame
        };
        let rows = [
            ("without room", plain(&[], &request), Vec::new()),
            ("with a tag", plain(&[100], &request), Vec::from([100])),
            ("two tags", plain(&[7, 100], &request), Vec::from([7, 100])),
            ("room for IPv4", roomy(20, &request), Vec::new()),
            ("room for IPv6 and UDP", roomy(48, &request), Vec::new()),
            ("its tag is in the room", tagged(100, 20), Vec::from([100])),
            ("little room", tagged(100, 4), Vec::from([100])),
        ];
        for (description, frame, tags) in rows {
            let answer = send(&mut net.dataplane(), T0, &frame).expect(description);
            assert!(answer.goes_back(), "{description}: {answer:?}");
            assert_eq!(answer.tags, tags, "{description}");
            assert_eq!((answer.from, answer.to), (net.vip, net.client));
            assert_eq!(answer.ttl, 64);
            let kind = if net.is_v4() { 0 } else { 129 };
            let expected = (kind, 0, [0x12, 0x34, 0, 1], &body[..]);
            assert_eq!(answer.message(), expected, "{description}");
        }
    }
}

#[test]
fn the_class_of_a_ping_is_that_of_its_answer_and_options_are_not_sent_back() {
    let [v4, _] = nets();
    let mut request = ping(&v4, v4.vip, b"ping");
    // Four bytes of options, no operation.
    request.splice(20..20, [1; 4]);
    request[0] = 0x46;
    request[1] = 0xb8;
    request[3] += 4;
    request[10..12].copy_from_slice(&[0, 0]);
    let sum = !ones(&request[..24]);
    request[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frames = [plain(&[], &request)];
    let mut verdicts = [Verdict::Local];
    v4.dataplane()
        .process(T0, &[PORT], &mut frames, &mut verdicts);
    let length = (14 + 20 + 8 + 4) as u16;
    assert_eq!(verdicts[0], Verdict::Forward { port: PORT, length });
    assert_eq!(frames[0][14..16], [0x45, 0xb8]);
    assert_eq!(Sent::read(PORT, &frames[0][..46]).message().3, b"ping");
}

#[test]
fn a_ping_that_ends_here_may_have_a_ttl_of_1_and_engine_addresses_answer_too() {
    for net in nets() {
        let mut request = ping(&net, net.engine, b"");
        if net.is_v4() {
            request[8] = 1;
            request[10..12].copy_from_slice(&[0, 0]);
            let sum = !ones(&request[..20]);
            request[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            request[7] = 1;
        }
        let answer = send(&mut net.dataplane(), T0, &plain(&[], &request)).unwrap();
        assert_eq!((answer.from, answer.to), (net.engine, net.client));
    }
}

#[test]
fn what_must_not_be_answered_is_not() {
    let [v4, v6] = nets();
    let other = "203.0.113.99".parse().unwrap();
    let broken = {
        let mut request = ping(&v4, v4.vip, b"ping");
        request[30] ^= 1;
        plain(&[], &request)
    };
    let from = |net: &Net, from: &str| {
        let kind = if net.is_v4() { 8 } else { 128 };
        plain(
            &[],
            &icmp(from.parse().unwrap(), net.vip, (kind, 0, [0; 4]), b""),
        )
    };
    let mut group = plain(&[], &ping(&v4, v4.vip, b""));
    group[0] = 1;
    let mut several = roomy(20, &ping(&v4, v4.vip, b""));
    several[16..18].copy_from_slice(&[0xff; 2]);
    let pong = plain(&[], &icmp(v4.client, v4.vip, (0, 0, [0; 4]), b""));
    let neighbor = plain(&[], &icmp(v6.client, v6.vip, (135, 0, [0; 4]), &[0; 16]));
    let rows = [
        (
            "no VIP",
            plain(&[], &ping(&v4, other, b"")),
            DropReason::NoVip,
        ),
        ("a wrong checksum", broken, DropReason::BadChecksum),
        ("from nobody", from(&v4, "0.0.0.0"), DropReason::Malformed),
        (
            "from a group",
            from(&v4, "224.0.0.1"),
            DropReason::Malformed,
        ),
        (
            "from everybody",
            from(&v4, "255.255.255.255"),
            DropReason::Malformed,
        ),
        (
            "from a group, IPv6",
            from(&v6, "ff02::1"),
            DropReason::Malformed,
        ),
        ("to a group of hosts", group, DropReason::Malformed),
        ("tags that are lost", several, DropReason::Malformed),
        ("an echo reply", pong, DropReason::NotTransport),
        ("neighbor discovery", neighbor, DropReason::NotTransport),
    ];
    for (description, frame, expected) in rows {
        let net = if frame[12] == 8 || frame[12] == 0x88 {
            v4
        } else {
            v6
        };
        let mut dataplane = net.dataplane();
        assert_eq!(
            send(&mut dataplane, T0, &frame),
            Err(expected),
            "{description}"
        );
        assert_eq!(drops(&dataplane, expected), 1, "{description} is counted");
    }
}

#[test]
fn so_many_pings_are_answered_a_second() {
    let [net, _] = nets();
    let mut dataplane = net.dataplane();
    let frame = plain(&[], &ping(&net, net.vip, b"ping"));
    let mut answered = |at: u64, times: usize| {
        let at = Micros::new(T0.get() + at);
        (0..times)
            .filter(|_| send(&mut dataplane, at, &frame).is_ok())
            .count()
    };
    assert_eq!(answered(0, 500), 100, "at once");
    assert_eq!(answered(1_000, 500), 1, "a thousandth of a second later");
    let over_a_second: usize = (1..=1_000).map(|ms| answered(1_000 + ms * 1_000, 5)).sum();
    assert_eq!(over_a_second, 1_000);
    assert_eq!(
        drops(&dataplane, DropReason::IcmpLimited),
        400 + 499 + 4_000
    );
}
