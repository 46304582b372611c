//! Scenarios: what kind of world, drawn from a seed.

use super::client::Manner;
use super::dice::Dice;
use super::havoc::Fault;
use super::program::{LISTENS, TALKS};
use super::server::Temper;
use super::wire::Weather;
use super::world::{ENGINE_MAC, SERVER_MAC};
use lockstep_core::replicate::replicator::ReplicatorConfig;
use lockstep_core::{EngineAddresses, NextHop, PortId, Route, Tables};
use lockstep_plan::health::{Health, Verdict};
use lockstep_plan::{
    Backend, BackendState, Commit, Divergence, Grouping, IdleTimeouts, Mode, Replicate, Service,
    ServiceName, Snapshot, TableSize, Weight,
};
use lockstep_wire::LinkHeader;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Duration;

pub const VIP4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);

const ENGINE4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ENGINE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);

const MILLISECOND: u64 = 1_000;
const SECOND: u64 = 1_000_000;

/// A server of a scenario.
#[derive(Debug, Clone, Copy)]
pub struct Host {
    pub weather: Weather,
    pub temper: Temper,
}

/// A kind of world. Times are in microseconds, chances of ten thousand.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub sessions: u32,
    /// Bytes of a transfer at most.
    pub most: u64,
    /// Sessions begin within that time.
    pub arrivals: u64,
    pub policy: Replicate,
    pub client_weather: Weather,
    pub servers: Vec<Host>,
    pub faults: Vec<Fault>,
    /// Servers that faults happen to.
    pub wrongable: Vec<usize>,
    /// Sessions of two connections: the second is one that all servers reset, or any.
    pub grouped: bool,
    /// Between two faults, and how long one lasts; zero is for ever.
    pub pause: (u64, u64),
    pub lasts: (u64, u64),
    pub manner: fn(&mut Dice) -> Manner,
    /// Packets that find no room on the engine's ring.
    pub refused: u32,
    /// Sessions besides those of clients.
    pub spare_sessions: usize,
    pub client_buffer: usize,
    pub replica_buffer: usize,
    pub log_memory: usize,
    /// A client may be reset.
    pub may_reset: bool,
    /// A client may be given what a corrupt server says.
    pub may_flip: bool,
    /// Requests for the disk that fail.
    pub disk_full: u32,
    /// Requests for the disk that may wait; without any nothing is spilled.
    pub spill: usize,
}

fn plain(_: &mut Dice) -> Manner {
    Manner::Plain
}

/// As a client should be able to behave: it always gets all.
fn patient(dice: &mut Dice) -> Manner {
    match dice.below(6) {
        0 => {
            let gulp = 1 + dice.size(8_192);
            Manner::Slow {
                gulp: gulp as usize,
                pause: dice.below(gulp * 40),
            }
        }
        1 => Manner::Rests {
            after: dice.size(20_000),
            pause: dice.below(20 * SECOND),
        },
        _ => Manner::Plain,
    }
}

/// As clients behave too.
fn rude(dice: &mut Dice) -> Manner {
    let after = dice.size(20_000);
    match dice.below(4) {
        0 => Manner::Resets { after },
        1 => Manner::Vanishes { after },
        _ => patient(dice),
    }
}

fn weather(dice: &mut Dice, badness: u32) -> Weather {
    let mut up_to = |most: u32| dice.below(u64::from(most * badness / 10) + 1) as u32;
    Weather {
        lost: up_to(300),
        repeated: up_to(300),
        late: up_to(800),
        garbled: up_to(100),
        delay: dice.between(20, 2_000),
        jitter: dice.size(200),
        late_by: dice.size(30 * MILLISECOND),
    }
}

fn temper(dice: &mut Dice) -> Temper {
    let mut temper = Temper::default();
    if dice.chance(3_000) {
        temper.gulp = 512 + dice.size(32_768) as usize;
        temper.pause = dice.size(10 * MILLISECOND);
    }
    temper
}

fn hosts(dice: &mut Dice, count: usize, badness: u32) -> Vec<Host> {
    (0..count)
        .map(|_| Host {
            weather: weather(dice, badness),
            temper: temper(dice),
        })
        .collect()
}

fn at_least(count: u8) -> NonZeroU8 {
    NonZeroU8::new(count).unwrap()
}

impl Scenario {
    /// Nothing goes wrong.
    fn fair(dice: &mut Dice, badness: u32) -> Scenario {
        let count = dice.pick(&[1, 2, 3, 3, 3, 5]);
        let policy = Replicate {
            min_sync: at_least(dice.between(1, (count as u64).min(2)) as u8),
            proxy_protocol: dice.chance(3_000),
            // Packets are lost more than once in a row: a link like that is not a dead replica.
            open_timeout: Duration::from_secs(60),
            dead_after: Duration::from_secs(60),
            client_timeout: Duration::from_secs(120),
            ..Replicate::DEFAULT
        };
        let servers = hosts(dice, count, badness);
        Scenario {
            sessions: 50,
            most: 60_000,
            arrivals: 4 * SECOND,
            policy,
            client_weather: weather(dice, badness),
            servers,
            faults: Vec::new(),
            wrongable: (0..count).collect(),
            grouped: false,
            pause: (20 * MILLISECOND, 400 * MILLISECOND),
            lasts: (5 * MILLISECOND, 2 * SECOND),
            manner: patient,
            refused: dice.pick(&[0, 0, 20]),
            spare_sessions: 0,
            client_buffer: dice.pick(&[4_096, 16_384, 65_536, 131_072]),
            replica_buffer: dice.pick(&[4_096, 16_384, 65_536]),
            log_memory: 24 << 20,
            may_reset: false,
            may_flip: false,
            disk_full: dice.pick(&[0, 0, 300]),
            spill: dice.pick(&[0, 16, 256, 256]),
        }
    }

    /// Three servers or more, with a policy that survives the loss of one.
    fn redundant(dice: &mut Dice, badness: u32) -> Scenario {
        let mut scenario = Scenario::fair(dice, badness);
        let count = dice.pick(&[3, 3, 4]);
        scenario.servers = hosts(dice, count, badness);
        scenario.wrongable = (0..count).collect();
        scenario.policy.min_sync = at_least(2);
        scenario.policy.dead_after = Duration::from_secs(dice.between(4, 8));
        scenario
    }

    /// Loss, reordering, repetition, delay, bits turned; a few MiB at times.
    pub fn weather(dice: &mut Dice) -> Scenario {
        let mut scenario = Scenario::fair(dice, 10);
        if scenario.servers.len() >= 3 && dice.chance(4_000) {
            scenario.policy.commit = Commit::Quorum(at_least(2));
            scenario.policy.min_sync = at_least(2);
        }
        scenario
    }

    /// A few large transfers.
    pub fn bulk(dice: &mut Dice) -> Scenario {
        let mut scenario = Scenario::redundant(dice, 2);
        scenario.sessions = 6;
        scenario.most = 3 << 20;
        scenario.policy.log_memory = 8 << 20;
        scenario.log_memory = 64 << 20;
        scenario.faults = vec![Fault::Kill, Fault::Freeze, Fault::Cut, Fault::Switchover];
        if dice.chance(3_000) {
            scenario.policy.commit = Commit::Quorum(at_least(2));
        }
        scenario
    }

    /// Processes are killed and hosts lose power, under sessions that go on.
    pub fn kills(dice: &mut Dice) -> Scenario {
        let mut scenario = Scenario::redundant(dice, 1);
        scenario.faults = vec![Fault::Kill, Fault::Kill, Fault::Vanish];
        scenario
    }

    /// Processes are stopped, links cut, verdicts given, primaries changed.
    pub fn freezes(dice: &mut Dice) -> Scenario {
        let mut scenario = Scenario::redundant(dice, 1);
        scenario.faults = vec![
            Fault::Freeze,
            Fault::Freeze,
            Fault::Cut,
            Fault::Verdict,
            Fault::Switchover,
        ];
        scenario.lasts = (5 * MILLISECOND, 12 * SECOND);
        scenario
    }

    /// Two of three must agree: one is killed, frozen or cut, or turns bytes.
    pub fn quorum(dice: &mut Dice) -> Scenario {
        let mut scenario = Scenario::redundant(dice, 1);
        scenario.servers.truncate(3);
        scenario.policy.commit = Commit::Quorum(at_least(2));
        // The one that decides between two may be behind by all its retransmissions.
        scenario.policy.orphan_timeout = Duration::from_secs(150);
        scenario.policy.divergence = dice.pick(&[Divergence::Count, Divergence::Evict]);
        scenario.wrongable = vec![dice.below(3) as usize];
        scenario.faults = vec![Fault::Kill, Fault::Vanish, Fault::Freeze, Fault::Cut];
        if dice.chance(6_000) {
            let one = scenario.wrongable[0];
            scenario.servers[one].temper.corrupt = 5_000;
        }
        scenario
    }

    /// A server turns bytes, and may be believed: it may be primary.
    pub fn corrupt(dice: &mut Dice) -> Scenario {
        let mut scenario = Scenario::redundant(dice, 1);
        let one = dice.below(3) as usize;
        scenario.servers[one].temper.corrupt = 5_000;
        scenario.wrongable = vec![one];
        scenario.policy.divergence = dice.pick(&[Divergence::Count, Divergence::Evict]);
        scenario.may_flip = true;
        scenario
    }

    /// All hosts lose power, and come back soon enough or never.
    pub fn blackout(dice: &mut Dice) -> Scenario {
        let mut scenario = Scenario::redundant(dice, 1);
        scenario.faults = vec![Fault::Blackout];
        // No cookies for clients that come meanwhile: those are promises.
        scenario.spare_sessions = 300;
        scenario.client_buffer = scenario.client_buffer.min(16_384);
        scenario.replica_buffer = scenario.replica_buffer.min(16_384);
        scenario.pause = (SECOND, 5 * SECOND);
        if dice.chance(5_000) {
            scenario.lasts = (SECOND, 3 * SECOND);
            scenario.policy.orphan_timeout = Duration::from_secs(60);
        } else {
            scenario.lasts = (0, 0);
            scenario.may_reset = true;
        }
        scenario
    }

    /// Clients that reset, vanish, rest and dawdle.
    pub fn clients(dice: &mut Dice) -> Scenario {
        let mut scenario = Scenario::redundant(dice, 3);
        scenario.manner = rude;
        scenario.faults = vec![Fault::Kill, Fault::Switchover];
        scenario
    }

    /// Little memory, and servers that do not read.
    pub fn memory(dice: &mut Dice) -> Scenario {
        let mut scenario = Scenario::redundant(dice, 0);
        scenario.sessions = 40;
        scenario.most = 400_000;
        scenario.policy.log_memory = dice.pick(&[64 << 10, 256 << 10]);
        scenario.policy.max_lag = 32 << 10;
        scenario.policy.min_sync = at_least(1);
        scenario.policy.lag_timeout = Duration::from_secs(dice.between(1, 20));
        scenario.log_memory = dice.pick(&[2 << 20, 6 << 20]);
        scenario.wrongable = vec![dice.below(3) as usize];
        scenario.faults = vec![Fault::Freeze];
        scenario.lasts = (SECOND, 60 * SECOND);
        scenario
    }

    /// Sessions of two connections, one of which all servers reset, or one of them does.
    pub fn groups(dice: &mut Dice) -> Scenario {
        let mut scenario = if dice.chance(3_000) {
            let mut scenario = Scenario::fair(dice, 1);
            scenario.servers.truncate(1);
            scenario.wrongable.truncate(1);
            scenario
        } else {
            let mut scenario = Scenario::redundant(dice, 1);
            scenario.faults = vec![Fault::Kill, Fault::Switchover];
            // Nobody comes back to a group of which a connection is over: one fault is enough.
            if dice.chance(5_000) {
                scenario.faults = vec![Fault::Switchover];
                scenario.servers[0].temper.resets = 5_000;
            }
            scenario
        };
        scenario.policy.min_sync = at_least(1);
        scenario.policy.group = Grouping::Client;
        scenario.grouped = true;
        scenario
    }

    /// A flood of SYNs while clients connect.
    pub fn flood(dice: &mut Dice) -> Scenario {
        let mut scenario = Scenario::redundant(dice, 1);
        // An ACK that is lost has promised nothing: a cookie's client that only listens would
        // wait for ever.
        // And one that is overtaken by data has a cookie that cannot be checked.
        scenario.client_weather = Weather {
            delay: scenario.client_weather.delay,
            ..Weather::default()
        };
        scenario.refused = 0;
        scenario.manner = plain;
        scenario.spare_sessions = 400;
        scenario.client_buffer = 16_384;
        scenario.replica_buffer = 4_096;
        scenario.faults = vec![Fault::Flood];
        scenario.pause = (50 * MILLISECOND, 300 * MILLISECOND);
        scenario
    }
}

pub fn server_address(n: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, 1 + n as u8])
}

pub fn config(scenario: &Scenario, seed: u64) -> ReplicatorConfig {
    let sessions = scenario.sessions as usize + scenario.spare_sessions;
    let connections = sessions * scenario.servers.len();
    ReplicatorConfig {
        spread: lockstep_core::Spread::alone(),
        ports: 20_000..=20_000 + (connections as u16).max(1_999),
        sessions,
        connections,
        client_buffer: scenario.client_buffer,
        replica_buffer: scenario.replica_buffer,
        log_memory: scenario.log_memory,
        mtus: vec![1_500],
        addresses: addresses(),
        seed: [seed, !seed],
    }
}

fn addresses() -> EngineAddresses {
    EngineAddresses {
        v4: Some(ENGINE4),
        v6: Some(ENGINE6),
    }
}

/// What the daemon and the kernel know of the world.
pub fn tables(
    previous: &Tables,
    epoch: u64,
    scenario: &Scenario,
    verdict: impl Fn(usize) -> Verdict,
) -> Tables {
    let backends = (0..scenario.servers.len()).map(|n| Backend {
        name: format!("s{n}"),
        address: server_address(n),
        weight: Weight::DEFAULT,
        state: BackendState::Active,
        port: None,
        health: Health {
            verdict: verdict(n),
            rtt: None,
        },
    });
    let ports = TALKS.iter().map(|(port, _)| *port).chain([LISTENS]);
    let vips =
        ports.flat_map(|port| [format!("{VIP4}:{port}/tcp"), format!("[{VIP6}]:{port}/tcp")]);
    let service = Service {
        name: ServiceName::new("game").unwrap(),
        vips: vips.map(|vip| vip.parse().unwrap()).collect(),
        mode: Mode::Replicate(Arc::new(scenario.policy.clone())),
        backends: backends.collect(),
        unserved: lockstep_plan::Unserved::Drop,
        table_size: TableSize::new(5_003).unwrap(),
        idle: IdleTimeouts::DEFAULT,
        scheduler: lockstep_plan::Scheduler::default(),
        guard: lockstep_plan::Guard::default(),
    };
    let snapshot = Snapshot::new(epoch, vec![service]).unwrap();
    let link = LinkHeader {
        destination: SERVER_MAC,
        source: ENGINE_MAC,
        vlan: None,
    };
    let route = Route {
        port: PortId(0),
        link,
        mtu: 1_500,
    };
    let ports = config(scenario, 0).ports;
    Tables::compile(previous, &snapshot, addresses(), |_| NextHop::Via(route))
        .unwrap()
        .with_session_ports(ports)
}
