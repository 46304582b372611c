use super::balancer::{Balancer, InForce};
use super::churn::{self, Size, chance, course, losses};
use super::costs::{Costs, Devices, Treatment};
use super::ecmp::{Router, Way};
use super::headline;
use super::hosts::{Hosts, PACKETS};
use super::rack::{Rack, Random};
use super::service::{Pool, VIP, disruption, ring_balance};
use lockstep_core::tables::PortId;
use lockstep_core::{BURST, Dataplane, DataplaneConfig, Micros, Seconds, Verdict};
use lockstep_plan::DropReason;
use lockstep_wire::{FlowKey4, STEER_ETHERTYPE};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// A hundredth of the real one, that takes a second in a development build.
const SMALL: Size = Size {
    backends: 60,
    balancers: 8,
    flows: 6_000,
    entries: 6_007,
    steps: 24,
    seed: 7,
};

#[test]
fn connections_stay_where_backend_and_balancer_stay_and_spread_as_chance_has_it() {
    for way in Way::ALL {
        let moments = course(&SMALL, way).unwrap();
        assert_eq!(moments.len(), 24);
        let betrayed: usize = moments.iter().map(|m| m.round.betrayed).sum();
        assert_eq!(betrayed, 0, "{way:?}");
        // Where no balancer came or went nobody moves, whatever the backends do.
        for moment in moments.iter().filter(|m| m.round.rerouted == 0) {
            assert_eq!(moment.round.moved, 0, "{way:?} {moment:?}");
        }
        let rerouted = moments.iter().filter(|m| m.round.rerouted > 0).count();
        assert_eq!(rerouted, 3, "{way:?}: two were lost, one came");
        for moment in moments {
            let balancers = chance(SMALL.flows as f64, f64::from(SMALL.balancers));
            assert!(
                moment.backends <= 1.3 * churn::fullest_backend(&SMALL),
                "{moment:?}"
            );
            assert!(
                moment.balancers <= 1.6 * (balancers - 1.0) + 1.0,
                "{moment:?}"
            );
        }
    }
}

#[test]
fn the_model_says_what_the_simulation_does() {
    for way in Way::ALL {
        for loss in losses(&SMALL, way, &[1, 6, 20]).unwrap() {
            let (moved, live) = (loss.moved.moved as f64, loss.moved.live as f64);
            let expected = loss.expected * live;
            // Four standard deviations of chance, and a tenth for the model itself.
            let tolerance = 4.0 * expected.sqrt() + 0.1 * expected;
            assert!(
                (moved - expected).abs() <= tolerance,
                "{way:?}, {} replaced: {moved} of {live} moved, expected {expected:.0} ± {tolerance:.0}",
                loss.replaced
            );
            assert!(loss.moved.betrayed == 0 && loss.at_once.betrayed == 0);
            // The ring before keeps all of them in the minute after the change.
            assert_eq!(loss.at_once.moved, 0, "{way:?}");
        }
    }
}

#[test]
fn routers_give_as_much_to_others_as_the_formulas_say() {
    const FLOWS: usize = 40_000;
    for way in Way::ALL {
        for place in [0, 3, 7] {
            let mut router = Router::new(way, 8);
            let mut random = Random(1);
            let hashes: Vec<u64> = (0..FLOWS).map(|_| random.next()).collect();
            let before: Vec<_> = hashes.iter().map(|hash| router.hop(*hash)).collect();
            router.lose(place);
            let pairs = hashes.iter().zip(&before);
            let moved = pairs
                .filter(|(hash, was)| router.hop(**hash) != **was)
                .count();
            let share = moved as f64 / FLOWS as f64;
            let expected = way.share_moved_by_loss(8, usize::from(place));
            assert!(
                (share - expected).abs() < 0.02,
                "{way:?}, {place}: {share} instead of {expected}"
            );
        }
    }
}

#[test]
fn a_balancer_that_comes_takes_its_share_and_no_more_behind_resilient_hashing() {
    let pool = Pool::new(20, 2_003).unwrap();
    let mut rack = Rack::new(Way::Resilient, 8, 20_000, 3, pool.in_force()).unwrap();
    rack.gain();
    let round = rack.round(Seconds::new(1), pool.in_force(), false).unwrap();
    let share = round.rerouted as f64 / round.live as f64;
    assert!((share - 1.0 / 9.0).abs() < 0.02, "{share}");
    assert_eq!(round.moved, 0, "the ring is the same on all of them");
    assert!(rack.balance_of_balancers() < 1.1);
}

#[test]
fn the_ring_is_as_even_as_its_authors_promise() {
    // A hundred entries for each backend and more: a hundredth at most between any two.
    for (backends, entries) in [(10, 1_009), (60, 6_007), (100, 65_537)] {
        let pool = Pool::new(backends, entries).unwrap();
        let balance = ring_balance(pool.in_force());
        assert!(balance <= 1.01, "{backends}: {balance}");
    }
}

#[test]
fn the_ring_moves_little_more_than_it_must() {
    let mut pool = Pool::new(60, 65_537).unwrap();
    let old = pool.in_force().clone();
    assert!(disruption(&old, &old) == 0.0);
    pool.replace(1, |_| 5).unwrap();
    // One comes and has to get its sixtieth; twice that is the bound of ADR 5.
    let moved = disruption(&old, pool.in_force());
    assert!((1.0 / 60.0..2.0 / 60.0).contains(&moved), "{moved}");
}

#[test]
fn the_same_seed_gives_the_same_course() {
    let size = Size {
        steps: 11,
        flows: 2_000,
        ..SMALL
    };
    let [first, second] = [(), ()].map(|()| course(&size, Way::Resilient).unwrap());
    let rounds = |moments: Vec<super::Moment>| moments.iter().map(|m| m.round).collect::<Vec<_>>();
    assert_eq!(rounds(first), rounds(second));
}

/// A TCP segment to the VIP as the XDP program hands it over.
fn segment(key: &FlowKey4, flags: u8) -> [u8; 80] {
    let mut frame = [0; 80];
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 3]);
    frame[12..14].copy_from_slice(&STEER_ETHERTYPE.to_be_bytes());
    frame[14..16].copy_from_slice(&20_u16.to_be_bytes());
    let packet = &mut frame[34..];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&46_u16.to_be_bytes());
    packet[8] = 64;
    packet[9] = 6;
    packet[12..16].copy_from_slice(&key.source.to_be_bytes());
    packet[16..20].copy_from_slice(&key.destination.to_be_bytes());
    let sum = lockstep_wire::checksum::checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet[20..24].copy_from_slice(&key.ports.to_be_bytes());
    packet[32] = 0x50;
    packet[33] = flags;
    frame
}

/// Where a dataplane tunnels a segment to.
fn tunnelled_to(dataplane: &mut Dataplane, key: &FlowKey4, flags: u8, seconds: u64) -> Ipv4Addr {
    let mut frames = [segment(key, flags)];
    let mut verdicts = [Verdict::Drop(DropReason::TxFull)];
    let now = Micros::new(seconds * 1_000_000);
    dataplane.process(now, &[PortId(0); BURST], &mut frames, &mut verdicts);
    let forwarded = matches!(verdicts[0], Verdict::Forward { .. });
    assert!(forwarded, "{:?}", verdicts[0]);
    let address: [u8; 4] = frames[0][30..34].try_into().unwrap();
    address.into()
}

/// The engine's dataplane, and what the simulation has for it.
struct Pair {
    engine: Dataplane,
    balancer: Balancer,
}

impl Pair {
    fn new(seed: u64) -> Self {
        Pair {
            engine: Dataplane::new(&DataplaneConfig {
                flows_v4: 2_000,
                seed,
                ..DataplaneConfig::default()
            }),
            balancer: Balancer::new(2_000, seed),
        }
    }

    /// Both get a segment of each connection; returns where those go.
    fn segments(&mut self, flags: u8, seconds: u64, in_force: &InForce) -> Vec<Ipv4Addr> {
        self.engine.adopt(Arc::clone(&in_force.tables));
        let keys = (1..=400_u32)
            .map(|n| FlowKey4::new(Ipv4Addr::from(0x0b00_0000 + n), 2_000, VIP.0, VIP.1, 6));
        let each = keys.map(|key| {
            let opens = flags == SYN;
            let now = Seconds::new(seconds);
            let backend = self.balancer.packet(&key, opens, now, in_force).unwrap();
            let member = in_force.ring().unwrap().member(backend).unwrap();
            let engine = tunnelled_to(&mut self.engine, &key, flags, seconds);
            assert_eq!(member.backend.address, engine, "{key:?} at {seconds}");
            engine
        });
        each.collect()
    }
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

#[test]
fn the_simulation_decides_as_the_engine_does() {
    let mut pool = Pool::new(20, 2_003).unwrap();
    let mut random = Random(11);
    let mut first = Pair::new(1);
    let opened = first.segments(SYN, 1, pool.in_force());
    assert_eq!(first.segments(ACK, 2, pool.in_force()), opened);
    pool.replace(5, |count| random.below(count)).unwrap();
    let kept = first.segments(ACK, 3, pool.in_force());
    assert_ne!(kept, opened, "some backends are gone");
    // One that has not seen them open: in the minute after the change, and later.
    assert_eq!(Pair::new(2).segments(ACK, 3, pool.in_force()), kept);
    pool.settle();
    let late = Pair::new(3).segments(ACK, 90, pool.in_force());
    assert_ne!(late, kept, "the ring has changed");
    assert_eq!(first.segments(ACK, 90, pool.in_force()), kept);
    // What begins a flow goes by the ring in force, also where there is one before.
    pool.replace(5, |count| random.below(count)).unwrap();
    let new = Pair::new(4).segments(SYN, 91, pool.in_force());
    assert_ne!(Pair::new(5).segments(ACK, 91, pool.in_force()), new);
}

fn costs() -> Costs {
    Costs {
        tunnel: 50.0,
        nat: 70.0,
        replicate: 300.0,
        opening: 150.0,
        opening_nat: 350.0,
        copied: 1_400.0,
        copied_segment: 5_000.0,
        flow_bytes: 60.0,
        session_bytes: 40_000.0,
    }
}

fn hosts() -> Hosts {
    Hosts {
        cores: 16,
        nic_gbit: 100.0,
        memory_gib: 64.0,
        share: 0.5,
        device_ns: 50.0,
        flow_seconds: 60.0,
    }
}

#[test]
fn hosts_are_reckoned_from_what_is_used_up_first() {
    let (hosts, costs) = (hosts(), costs());
    let small = (Treatment::Tunnel, Devices::ZeroCopy);
    // 148.8 million packets a second of 100 ns are 14.9 cores; the header makes 124 % of the NIC of them.
    let needed = hosts.for_traffic(&costs, 100.0, PACKETS[0], small, 1.0);
    assert_eq!((needed.hosts, needed.bound), (3.0 + 1.0, "NIC"));
    let copied = (Treatment::Tunnel, Devices::Copied);
    let needed = hosts.for_traffic(&costs, 100.0, PACKETS[0], copied, 1.0);
    // 208 cores, of which a host may use 8.
    assert_eq!((needed.hosts, needed.bound), (27.0 + 1.0, "CPU"));
    let large = hosts.for_traffic(&costs, 1_000.0, PACKETS[2], small, 1.0);
    assert_eq!((large.hosts, large.bound), (21.0 + 1.0, "NIC"));
    let thrice = (Treatment::Replicate, Devices::ZeroCopy);
    let needed = hosts.for_traffic(&costs, 1_000.0, PACKETS[2], thrice, 1.0);
    assert_eq!((needed.hosts, needed.bound), (60.0 + 1.0, "NIC"));
    let uneven = hosts.for_traffic(&costs, 1_000.0, PACKETS[2], thrice, 1.1);
    assert_eq!(uneven.hosts, 66.0 + 1.0);
}

#[test]
fn a_segment_to_three_replicas_is_four_packets_in_memory_and_two_ways_through_a_device() {
    let cost = |devices| costs().packet(Treatment::Replicate, devices, 50.0);
    assert_eq!(cost(Devices::ZeroCopy), 4.0 * 300.0 + 2.0 * 50.0);
    assert_eq!(cost(Devices::Copied), 5_000.0);
}

#[test]
fn flows_take_memory_and_opening_them_time() {
    let (hosts, costs) = (hosts(), costs());
    // 6 GB of 34; 1.7 million new ones a second take a third of a core.
    let flows = hosts.for_flows(&costs, 1e8, Treatment::Tunnel, 1.0);
    assert_eq!((flows.hosts, flows.bound), (1.0 + 1.0, "memory"));
    let sessions = hosts.for_flows(&costs, 1e8, Treatment::Replicate, 1.0);
    assert_eq!((sessions.hosts, sessions.bound), (117.0 + 1.0, "memory"));
    let short = Hosts {
        flow_seconds: 0.1,
        ..hosts
    };
    let flows = short.for_flows(&costs, 1e8, Treatment::Tunnel, 1.0);
    assert_eq!((flows.hosts, flows.bound), (25.0 + 1.0, "CPU"));
    // Two entries take longer: a billion a second of 400 ns are 400 cores, 8 of a host.
    let flows = short.for_flows(&costs, 1e8, Treatment::Nat, 1.0);
    assert_eq!((flows.hosts, flows.bound), (50.0 + 1.0, "CPU"));
}

#[test]
fn hosts_that_carry_nothing_are_refused() {
    hosts().check().unwrap();
    let of = |change: fn(&mut Hosts)| {
        let mut hosts = hosts();
        change(&mut hosts);
        hosts.check().unwrap_err().to_string()
    };
    assert!(of(|hosts| hosts.cores = 0).contains("--cores"));
    assert!(of(|hosts| hosts.share = 0.0).contains("--share"));
    assert!(of(|hosts| hosts.share = 1.5).contains("--share"));
    assert!(of(|hosts| hosts.flow_seconds = 0.0).contains("--flow-seconds"));
    assert!(of(|hosts| hosts.nic_gbit = f64::NAN).contains("--nic-gbit"));
    assert!(of(|hosts| hosts.device_ns = -1.0).contains("--device-ns"));
}

#[test]
fn costs_are_read_from_the_results() {
    let results = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
    let costs = Costs::read(&results).unwrap();
    // A flow of IPv4: 32 bytes an entry, 1.6 of them for each flow, and their tags.
    assert!((51.0..120.0).contains(&costs.flow_bytes), "{costs:?}");
    for treatment in Treatment::ALL {
        let [zero_copy, copied] = Devices::ALL.map(|d| costs.packet(treatment, d, 143.0));
        assert!(zero_copy < copied, "{treatment:?}: {costs:?}");
    }
    assert!(costs.tunnel < costs.nat && costs.nat < costs.replicate);
    assert!(costs.opening < costs.opening_nat, "{costs:?}");
}

#[test]
fn what_a_copied_packet_costs_is_the_comparison_s() {
    let committed = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
    let directory = tempfile::tempdir().unwrap();
    let results = directory.path();
    for file in ["core.json", "session.json", "replicate.json"] {
        std::fs::copy(committed.join(file), results.join(file)).unwrap();
    }
    let row = |load: &str, bytes: u32, cost: f64| {
        let case = "lockstep-tunnel-one-cpu";
        serde_json::json!({"case": case, "load": load, "bytes": bytes, "cpu_s_per_million_packets": cost})
    };
    let others = vec![row("udp", 1_400, 9.0), row("tcp-stream", 64, 8.0)];
    let write = |rows: &[serde_json::Value]| {
        let text = serde_json::json!({ "packets": rows }).to_string();
        std::fs::write(results.join("compare.json"), text).unwrap();
    };
    write(&others);
    let error = format!("{:#}", Costs::read(results).unwrap_err());
    assert!(error.contains("`make compare`"), "{error}");
    write(&[others, vec![row("udp", 64, 1.25)]].concat());
    assert_eq!(Costs::read(results).unwrap().copied, 1_250.0);
}

#[test]
fn a_short_run_says_so_in_each_of_its_headlines() {
    let mut figure = crate::plot::tests::sample(crate::figure::Kind::Bars);
    assert_eq!(headline(&figure), figure.title);
    figure.quick = true;
    assert_eq!(headline(&figure), format!("{} (short run)", figure.title));
}
