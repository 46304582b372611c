//! The burst loop takes no memory: not for known flows, new flows, floods, drops or sweeps.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use etherparse::PacketBuilder;
use lockstep_core::dataplane::NatConfig;
use lockstep_core::tables::{NextHop, PortId, Route};
use lockstep_core::{
    BURST, Dataplane, DataplaneConfig, EngineAddresses, Micros, Seconds, Tables, Verdict,
};
use lockstep_plan::{
    Backend, BackendState, DropReason, Health, IdleTimeouts, Mode, Service, ServiceName, Snapshot,
    TableSize, Weight,
};
use lockstep_wire::{LinkHeader, STEER_ETHERTYPE};
use std::sync::Arc;

fn tables(mode: Mode) -> Tables {
    let backend = Backend {
        name: "s1".to_owned(),
        address: "10.0.0.1".parse().unwrap(),
        weight: Weight::DEFAULT,
        state: BackendState::Active,
        port: None,
        health: Health::UNKNOWN,
    };
    let service = Service {
        name: ServiceName::new("web").unwrap(),
        vips: vec!["203.0.113.10:80/tcp".parse().unwrap()],
        mode,
        backends: vec![backend],
        unserved: lockstep_plan::Unserved::Drop,
        table_size: TableSize::DEFAULT,
        idle: IdleTimeouts::DEFAULT,
        scheduler: lockstep_plan::Scheduler::default(),
        guard: lockstep_plan::Guard::default(),
    };
    let snapshot = Snapshot::new(1, vec![service]).unwrap();
    let addresses = EngineAddresses {
        v4: Some("192.0.2.1".parse().unwrap()),
        v6: None,
    };
    let link = LinkHeader {
        destination: [2, 0, 0, 0, 0, 1],
        source: [2, 0, 0, 0, 0, 2],
        vlan: None,
    };
    let route = Route {
        port: PortId(0),
        link,
        mtu: 1600,
    };
    Tables::compile(&Tables::default(), &snapshot, addresses, |_| {
        NextHop::Via(route)
    })
    .unwrap()
}

/// A SYN from client `n`; every eighth is for no VIP, so that drops are among them.
fn frame(n: u32) -> Vec<u8> {
    let last = if n.is_multiple_of(8) { 99 } else { 10 };
    let mut plain = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4((0x0b00_0000 + n).to_be_bytes(), [203, 0, 113, last], 64)
        .tcp(40_000, 80, 1, 1024)
        .syn()
        .write(&mut plain, &[])
        .unwrap();
    let mut steered = plain[..12].to_vec();
    steered.extend(STEER_ETHERTYPE.to_be_bytes());
    steered.extend(20_u16.to_be_bytes());
    steered.resize(34, 0);
    steered.extend(&plain[14..]);
    steered
}

#[test]
fn no_burst_and_no_tick_allocates_or_frees() {
    let mut dataplane = Dataplane::new(&DataplaneConfig {
        flows_v4: 1_000,
        flows_v6: 1_000,
        seed: 1,
        ..DataplaneConfig::default()
    });
    dataplane.adopt(Arc::new(tables(Mode::TUNNEL)));
    // Five times the table's capacity: its end is reached, and flows are evicted.
    let mut bursts: Vec<Vec<Vec<u8>>> = (0..5_000 / BURST as u32)
        .map(|b| {
            (0..BURST as u32)
                .map(|i| frame(b * BURST as u32 + i))
                .collect()
        })
        .collect();
    let mut verdicts = [Verdict::Drop(DropReason::NotIp); BURST];
    let mut forwarded = 0;
    let used = allocation_counter::measure(|| {
        for (at, burst) in bursts.iter_mut().enumerate() {
            let now = Seconds::new(at as u64);
            let micros = Micros::new(at as u64 * 1_000_000);
            dataplane.process(micros, &[PortId(0); BURST], burst, &mut verdicts);
            dataplane.tick(now, 16);
            let went = |v: &&Verdict| matches!(v, Verdict::Forward { .. });
            forwarded += verdicts.iter().filter(went).count();
        }
    });
    assert!(forwarded > 4_000, "{forwarded} packets were forwarded");
    assert!(
        dataplane.counters().evicted.get() > 1_000,
        "the table was full"
    );
    assert_eq!((used.count_total, used.count_current), (0, 0), "{used:?}");

    let control = allocation_counter::measure(|| drop(std::hint::black_box(Box::new(1_u8))));
    assert_eq!(control.count_total, 1, "the allocator does count");
}

/// The answer to a SYN that was rewritten: its addresses and ports exchanged.
fn answer(out: &[u8]) -> Vec<u8> {
    let key = lockstep_wire::parse(out).unwrap().key;
    let (std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) =
        (key.destination_address(), key.source_address())
    else {
        panic!("IPv4 only");
    };
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(from.octets(), to.octets(), 64)
        .tcp(key.destination_port(), key.source_port(), 1, 1024)
        .syn()
        .ack(2)
        .write(&mut frame, &[])
        .unwrap();
    frame
}

#[test]
fn rewriting_and_answering_do_not_allocate_or_free() {
    for mode in [Mode::Nat, Mode::FullNat] {
        let mut dataplane = Dataplane::new(&DataplaneConfig {
            flows_v4: 1_000,
            flows_v6: 1_000,
            seed: 1,
            nat: NatConfig {
                pool_v4: vec!["192.0.2.1".parse().unwrap()],
                ports: Some(2_000..=2_999),
                ..NatConfig::default()
            },
        });
        dataplane.adopt(Arc::new(tables(mode)));
        let syn = |n: u32| {
            let mut plain = Vec::new();
            // Every client by a way of its own, so that ways come and go too.
            PacketBuilder::ethernet2([2, 0, 0, 0, (n >> 8) as u8, n as u8], [4; 6])
                .ipv4((0x0b00_0000 + n).to_be_bytes(), [203, 0, 113, 10], 64)
                .tcp(40_000, 80, 1, 1024)
                .syn()
                .write(&mut plain, &[])
                .unwrap();
            plain
        };
        let mut verdicts = [Verdict::Drop(DropReason::NotIp); BURST];
        let (mut forwarded, mut answered) = (0, 0);
        for at in 0..80 {
            let first = at * BURST as u32;
            let mut burst: Vec<Vec<u8>> = (first..first + BURST as u32).map(syn).collect();
            let now = Micros::new(u64::from(at) * 1_000_000);
            let mut process = |burst: &mut [Vec<u8>]| {
                let used = allocation_counter::measure(|| {
                    dataplane.process(now, &[PortId(0); BURST], burst, &mut verdicts);
                    dataplane.tick(Seconds::at(now), 16);
                });
                assert_eq!((used.count_total, used.count_current), (0, 0), "{used:?}");
                let went = |v: &Verdict| matches!(v, Verdict::Forward { .. });
                verdicts[..burst.len()]
                    .iter()
                    .map(went)
                    .collect::<Vec<bool>>()
            };
            let went = process(&mut burst);
            let sent = burst.iter().zip(&went).filter(|(_, went)| **went);
            let mut answers: Vec<Vec<u8>> = sent.map(|(frame, _)| answer(frame)).collect();
            forwarded += answers.len();
            answered += process(&mut answers).iter().filter(|went| **went).count();
        }
        assert!(forwarded > 1_000, "{forwarded}");
        // A flow may be evicted within the burst that opened it.
        assert!(answered * 10 > forwarded * 9, "{answered} of {forwarded}");
    }
}

/// A segment with right checksums, as long as a worker makes it.
fn segment(port: u16, sequence: u32, acknowledges: Option<u32>, payload: &[u8]) -> Vec<u8> {
    let tcp = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([198, 51, 100, 7], [203, 0, 113, 10], 64)
        .tcp(port, 80, sequence, 1024);
    let tcp = match acknowledges {
        None => tcp.syn(),
        Some(number) => tcp.ack(number),
    };
    let mut frame = Vec::new();
    tcp.write(&mut frame, payload).unwrap();
    frame.resize(frame.len().max(100), 0);
    frame
}

/// A backend's segment to whom sent this one.
fn backends(to: &[u8], sequence: u32, acknowledges: u32, syn: bool) -> Vec<u8> {
    let key = lockstep_wire::parse(to).unwrap().key;
    let (std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) =
        (key.destination_address(), key.source_address())
    else {
        panic!("IPv4 only");
    };
    let tcp = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(from.octets(), to.octets(), 64)
        .tcp(key.destination_port(), key.source_port(), sequence, 1024)
        .ack(acknowledges);
    let tcp = if syn { tcp.syn() } else { tcp };
    let mut frame = Vec::new();
    let size = [etherparse::TcpOptionElement::MaximumSegmentSize(1_400)];
    let tcp = tcp.options(if syn { &size } else { &[] }).unwrap();
    tcp.write(&mut frame, &[]).unwrap();
    frame.resize(frame.len().max(100), 0);
    frame
}

#[test]
fn connections_behind_cookies_do_not_allocate_or_free() {
    let mut dataplane = Dataplane::new(&DataplaneConfig {
        flows_v4: 1_000,
        flows_v6: 1_000,
        seed: 1,
        nat: NatConfig {
            pool_v4: vec!["192.0.2.1".parse().unwrap()],
            ports: Some(2_000..=9_999),
            ..NatConfig::default()
        },
    });
    dataplane.adopt(Arc::new(tables(Mode::FullNat)));
    let mut now = Micros::new(1_000_000);
    let mut process = |frame: Vec<u8>| {
        let mut frames = [frame];
        let mut verdicts = [Verdict::Drop(DropReason::NotIp)];
        now = Micros::new(now.get() + 10_000);
        let used = allocation_counter::measure(|| {
            dataplane.process(now, &[PortId(0)], &mut frames, &mut verdicts);
            dataplane.tick(Seconds::at(now), 16);
        });
        assert_eq!((used.count_total, used.count_current), (0, 0), "{used:?}");
        let ([frame], Verdict::Forward { .. }) = (frames, verdicts[0]) else {
            panic!("{:?}", verdicts[0]);
        };
        frame
    };
    let number = |frame: &[u8], at: usize| {
        let bytes = frame[14 + 20 + at..][..4].try_into().unwrap();
        u32::from_be_bytes(bytes)
    };
    let mut spliced = 0;
    for port in 1_000..2_000 {
        let syn = process(segment(port, 1, None, &[]));
        if number(&syn, 8) != 2 {
            process(backends(&syn, 50, 2, true));
            continue;
        }
        let cookie = number(&syn, 4);
        let ack = segment(port, 2, Some(cookie.wrapping_add(1)), b"");
        let syn = process(ack.clone());
        assert_eq!(number(&process(backends(&syn, 50, 2, true)), 4), cookie);
        assert_eq!(number(&process(ack), 8), 51);
        let data = process(backends(&syn, 51, 2, false));
        assert_eq!(number(&data, 4), cookie.wrapping_add(1));
        let reset = process(backends(&syn, 52, 2, false));
        assert_eq!(number(&reset, 4), cookie.wrapping_add(2));
        spliced += 1;
        if spliced == 200 {
            break;
        }
    }
    assert_eq!(spliced, 200);
}
