//! Taps around a dataplane.

#![allow(clippy::unwrap_used)]

use super::*;
use lockstep_core::tables::{NextHop, Route};
use lockstep_core::{DataplaneConfig, EngineAddresses, Tables};
use lockstep_plan::{
    Backend, BackendState, Guard, Health, IdleTimeouts, Mode, Scheduler, Service, ServiceName,
    Snapshot, TableSize, Weight,
};
use lockstep_wire::{LinkHeader, STEER_ETHERTYPE, ethernet};

const NOW: Micros = Micros::new(5_000_000);
const VIP: [u8; 4] = [203, 0, 113, 10];
const CLIENT: [u8; 4] = [198, 51, 100, 7];
/// Of the tunnel.
const IN_FRONT: u16 = 20;

/// A worker's dataplane with a web service on one backend.
fn dataplane() -> Dataplane {
    let service = Service {
        name: ServiceName::new("web").unwrap(),
        vips: vec!["203.0.113.10:80/udp".parse().unwrap()],
        mode: Mode::TUNNEL,
        backends: vec![Backend {
            name: "s1".to_owned(),
            address: "10.0.0.1".parse().unwrap(),
            weight: Weight::DEFAULT,
            state: BackendState::Active,
            port: None,
            health: Health::UNKNOWN,
        }],
        unserved: lockstep_plan::Unserved::Drop,
        table_size: TableSize::DEFAULT,
        idle: IdleTimeouts::DEFAULT,
        scheduler: Scheduler::default(),
        guard: Guard::default(),
    };
    let addresses = EngineAddresses {
        v4: Some("192.0.2.1".parse().unwrap()),
        v6: None,
    };
    let way = NextHop::Via(Route {
        port: PortId(0),
        link: LinkHeader {
            destination: [2; 6],
            source: [4; 6],
            vlan: None,
        },
        mtu: 1_600,
    });
    let snapshot = Snapshot::new(1, vec![service]).unwrap();
    let tables = Tables::compile(&Tables::default(), &snapshot, addresses, |_| way).unwrap();
    let mut dataplane = Dataplane::new(&DataplaneConfig {
        flows_v4: 1_024,
        flows_v6: 1_024,
        seed: 3,
        ..DataplaneConfig::default()
    });
    dataplane.adopt(Arc::new(tables));
    dataplane
}

/// A UDP datagram as the XDP program hands it over.
fn datagram(from: [u8; 4], to: [u8; 4], port: u16, payload: usize) -> Vec<u8> {
    let length = 28 + payload as u16;
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0];
    ip[2..4].copy_from_slice(&length.to_be_bytes());
    ip.extend(from);
    ip.extend(to);
    let sum: u32 = ip
        .chunks(2)
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    ip[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    let mut frame = vec![0; 12];
    frame.extend(STEER_ETHERTYPE.to_be_bytes());
    frame.extend(IN_FRONT.to_be_bytes());
    frame.resize(ethernet::HEADER_LENGTH + usize::from(IN_FRONT), 0xee);
    frame.extend(ip);
    frame.extend(40_000u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend((8 + payload as u16).to_be_bytes());
    frame.extend([0, 0]);
    frame.resize(frame.len() + payload, b'x');
    frame
}

/// What a worker does with a burst.
fn pass(dataplane: &mut Dataplane, tap: &mut Tap, frames: &[Vec<u8>]) {
    let mut frames = frames.to_vec();
    let mut slices: Vec<&mut [u8]> = frames.iter_mut().map(|f| &mut f[..]).collect();
    let mut verdicts = [Verdict::Local; BURST];
    let ports = [PortId(3); BURST];
    tap.before(NOW, &ports, &slices, dataplane);
    dataplane.process(NOW, &ports, &mut slices, &mut verdicts);
    tap.after(&verdicts, dataplane);
}

fn filter(vip: Option<VipFilter>, client: Option<&str>, drops: Option<Drops>) -> Filter {
    Filter {
        vip,
        client: client.map(|text| text.parse().unwrap()),
        drops,
    }
}

/// The ports that packets of a burst were sent to, of those that a filter wants.
fn wanted(filter: Filter, frames: &[Vec<u8>]) -> Vec<u16> {
    let exchange = Exchange::new(64, 256);
    let mut tap = Tap::new(filter, Arc::clone(&exchange));
    pass(&mut dataplane(), &mut tap, frames);
    let records = std::iter::from_fn(|| exchange.full.pop());
    let ports = records.map(|r| match r.key.unwrap() {
        FlowKey::V4(key) => key.destination_port(),
        FlowKey::V6(key) => key.destination_port(),
    });
    let ports = ports.collect();
    assert_eq!(exchange.missed.load(Ordering::Relaxed), 0);
    ports
}

#[test]
fn a_packet_is_kept_as_it_came_with_what_became_of_it() {
    let exchange = Exchange::new(4, 64);
    let mut tap = Tap::new(Filter::default(), Arc::clone(&exchange));
    let mut dataplane = dataplane();
    let long = datagram(CLIENT, VIP, 80, 1_000);
    let none = datagram(CLIENT, VIP, 81, 10);
    pass(&mut dataplane, &mut tap, &[long.clone(), none.clone()]);
    pass(&mut dataplane, &mut tap, std::slice::from_ref(&long));
    let first = exchange.full.pop().unwrap();
    assert_eq!(
        (first.at, first.port, first.length),
        (NOW, PortId(3), long.len())
    );
    // Not rewritten, and cut: what is wanted, and the room beside it.
    assert_eq!(first.head, long[..64 + ROOM]);
    assert!(matches!(first.seen.verdict, Verdict::Forward { .. }));
    assert_eq!(first.seen.before, None);
    let entry = first.seen.after.unwrap();
    let second = exchange.full.pop().unwrap();
    assert_eq!(second.head, none);
    assert_eq!(second.seen.verdict, Verdict::Drop(DropReason::NoVip));
    assert_eq!((second.seen.before, second.seen.after), (None, None));
    let third = exchange.full.pop().unwrap();
    assert_eq!(third.seen.before, Some(entry));
    assert_eq!(third.seen.after, Some(entry));
}

#[test]
fn only_what_fits_the_filter_is_kept() {
    let other = [203, 0, 113, 11];
    let frames = [
        datagram(CLIENT, VIP, 80, 10),
        datagram([198, 51, 101, 1], VIP, 81, 10),
        datagram(CLIENT, other, 82, 10),
        // From where a VIP is: no client of anybody's.
        datagram(VIP, other, 83, 10),
    ];
    let vip = |port, protocol| {
        Some(VipFilter {
            address: VIP.into(),
            port,
            protocol,
        })
    };
    let rows = [
        (filter(None, None, None), &[80, 81, 82, 83][..]),
        (filter(vip(None, None), None, None), &[80, 81]),
        (filter(vip(Some(80), None), None, None), &[80]),
        (
            filter(vip(Some(80), Some(Protocol::Udp)), None, None),
            &[80],
        ),
        (filter(vip(Some(80), Some(Protocol::Tcp)), None, None), &[]),
        (filter(None, Some("198.51.100.0/24"), None), &[80, 82]),
        (
            filter(vip(None, None), Some("198.51.100.0/24"), None),
            &[80],
        ),
        (filter(None, Some("2001:db8::/32"), None), &[]),
        (filter(None, None, Some(Drops::Any)), &[81, 82, 83]),
        (
            filter(vip(None, None), None, Some(Drops::For(DropReason::NoVip))),
            &[81],
        ),
        (
            filter(None, None, Some(Drops::For(DropReason::TooBig))),
            &[],
        ),
    ];
    for (filter, expected) in rows {
        assert_eq!(wanted(filter, &frames), expected, "{filter:?}");
    }
}

#[test]
fn what_finds_no_room_is_counted_and_room_comes_back() {
    let exchange = Exchange::new(2, 64);
    let mut tap = Tap::new(Filter::default(), Arc::clone(&exchange));
    let mut dataplane = dataplane();
    let burst = vec![datagram(CLIENT, VIP, 80, 10); 5];
    pass(&mut dataplane, &mut tap, &burst);
    assert_eq!(exchange.missed.load(Ordering::Relaxed), 3);
    assert_eq!((exchange.full.len(), exchange.free.len()), (2, 0));
    exchange.free.push(exchange.full.pop().unwrap()).unwrap();
    pass(&mut dataplane, &mut tap, &burst[..1]);
    assert_eq!(exchange.missed.load(Ordering::Relaxed), 3);
    // What the filter does not want after all gives its room back at once.
    let exchange = Exchange::new(1, 64);
    let filter = filter(None, None, Some(Drops::Any));
    let mut tap = Tap::new(filter, Arc::clone(&exchange));
    for _ in 0..3 {
        pass(&mut dataplane, &mut tap, &burst[..1]);
    }
    assert_eq!((exchange.full.len(), exchange.free.len()), (0, 1));
    assert_eq!(exchange.missed.load(Ordering::Relaxed), 0);
}

#[test]
fn a_capture_that_has_ended_keeps_nothing() {
    let exchange = Exchange::new(2, 64);
    let mut tap = Tap::new(Filter::default(), Arc::clone(&exchange));
    exchange.ended.store(true, Ordering::Relaxed);
    pass(&mut dataplane(), &mut tap, &[datagram(CLIENT, VIP, 80, 10)]);
    assert_eq!((exchange.full.len(), exchange.free.len()), (0, 2));
}

#[test]
fn a_tap_takes_no_memory() {
    let exchange = Exchange::new(64, 64);
    let mut tap = Tap::new(Filter::default(), Arc::clone(&exchange));
    let mut dataplane = dataplane();
    let mut frames: Vec<Vec<u8>> = (0..32)
        .map(|n| datagram(CLIENT, VIP, 80 + n % 2, 900))
        .collect();
    let mut verdicts = [Verdict::Local; BURST];
    let ports = [PortId(0); BURST];
    let taken = allocation_counter::measure(|| {
        let mut slices: ArrayVec<&mut [u8], BURST> =
            frames.iter_mut().map(|f| &mut f[..]).collect();
        tap.before(NOW, &ports, &slices, &dataplane);
        dataplane.process(NOW, &ports, &mut slices, &mut verdicts);
        tap.after(&verdicts, &dataplane);
    });
    assert_eq!(taken.count_total, 0);
    assert_eq!(exchange.full.len(), 32);
}
