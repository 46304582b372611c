//! A client's host, replicas and the replicator on a network that can lose, repeat and delay.

use super::super::*;
use crate::fixtures::{addresses, backend, replicated, via_router};
use crate::replicate::event::EventKind;
use crate::replicate::stack::peer::{Peer, Wiretap, frame};
use crate::replicate::stack::segment::{Bare, SynOptions};
use core::net::IpAddr;
use core::time::Duration;
use lockstep_plan::{Backend, Mode, Replicate, Snapshot};
use lockstep_wire::TcpFlags;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;
use std::collections::{BTreeMap, HashMap};
use std::vec::Vec;

pub const VIP: &str = "203.0.113.10:80";
pub const CLIENT: &str = "198.51.100.7";
pub const REPLICAS: [&str; 3] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
pub const PORTS: RangeInclusive<u16> = 20_000..=20_999;

/// SplitMix64.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % sides
    }
}

/// How bad the network is, in thousandths.
#[derive(Clone, Copy, Default)]
pub struct Weather {
    pub lost: u64,
    pub repeated: u64,
    pub delayed: u64,
}

/// What a replica does with a connection.
pub struct Talk {
    pub socket: SocketHandle,
    /// Read and not yet written back.
    pending: Vec<u8>,
    closing: bool,
}

/// A SYN as a client's host writes it.
pub fn syn(from: SocketAddr, sequence: u32) -> Vec<u8> {
    written(&Bare {
        source: from,
        destination: VIP.parse().unwrap(),
        sequence,
        acknowledgment: 0,
        flags: TcpFlags::SYN,
        window: 64_240,
        options: SynOptions {
            mss: Some(1_460),
            scale: Some(7),
            sack: true,
        },
    })
}

/// The packet of a segment.
pub fn written(segment: &Bare) -> Vec<u8> {
    let mut packet = std::vec![0; segment.length()];
    segment.write(&mut packet);
    packet
}

/// A deterministic server: writes every byte back, plus one, and closes when its peer has.
pub struct Server {
    pub peer: Peer,
    /// One for each port.
    listeners: [(u16, SocketHandle); 2],
    pub talks: Vec<Talk>,
    pub accepted: usize,
    /// Takes no part in anything any more.
    pub dead: bool,
    /// Its first connections, as many, are not read.
    pub deaf: usize,
}

const BUFFER: usize = 32_768;

impl Server {
    /// It listens there as well as at the VIP's port.
    pub const OTHER_PORT: u16 = 8_080;

    pub fn new(address: &str, seed: u64) -> Server {
        let mut peer = Peer::new(address, seed);
        let listeners = [80, Server::OTHER_PORT].map(|port| (port, peer.listen(port, BUFFER)));
        Server {
            peer,
            listeners,
            talks: Vec::new(),
            accepted: 0,
            dead: false,
            deaf: 0,
        }
    }

    fn work(&mut self) {
        for (port, listener) in &mut self.listeners {
            if self.peer.state(*listener) == State::Listen {
                continue;
            }
            self.accepted += 1;
            self.talks.push(Talk {
                socket: *listener,
                pending: Vec::new(),
                closing: false,
            });
            *listener = self.peer.listen(*port, BUFFER);
        }
        let peer = &mut self.peer;
        let mut deaf = self.deaf;
        self.talks.retain_mut(|talk| {
            if deaf > 0 {
                deaf -= 1;
                return true;
            }
            let read = peer.read(talk.socket);
            talk.pending.extend(read.iter().map(|b| b.wrapping_add(1)));
            let written = peer.write(talk.socket, &talk.pending);
            talk.pending.drain(..written);
            let state = peer.state(talk.socket);
            if state == State::CloseWait && talk.pending.is_empty() && !talk.closing {
                talk.closing = true;
                peer.get(talk.socket).close();
            }
            let over = matches!(state, State::Closed | State::TimeWait | State::Listen);
            if over {
                peer.remove(talk.socket);
            }
            !over
        });
    }
}

pub struct World {
    pub replicator: Replicator,
    pub tables: Tables,
    pub now: Micros,
    pub clients: Vec<Peer>,
    pub servers: Vec<Server>,
    pub out: Wiretap,
    pub weather: Weather,
    pub dice: Dice,
    /// Packets under way, by when they arrive.
    air: BTreeMap<(Micros, u64), Vec<u8>>,
    serial: u64,
    /// Segments to addresses of nobody.
    pub lost: Vec<Vec<u8>>,
    pub drops: HashMap<DropReason, u64>,
    pub events: Vec<EventKind>,
    /// Allocations of the replicator.
    pub allocations: u64,
    /// Packets it was given.
    pub received: u64,
}

pub fn config() -> ReplicatorConfig {
    ReplicatorConfig {
        spread: crate::Spread::alone(),
        ports: PORTS,
        sessions: 64,
        connections: 256,
        client_buffer: 65_536,
        replica_buffer: 32_768,
        log_memory: 8 << 20,
        mtus: std::vec![1_500],
        addresses: addresses(),
        seed: [3, 5],
    }
}

pub fn backends() -> Vec<Backend> {
    REPLICAS.map(backend).to_vec()
}

pub fn tables(previous: &Tables, epoch: u64, policy: Replicate, backends: Vec<Backend>) -> Tables {
    let mut service = replicated(
        "game",
        &["203.0.113.10:80/tcp", "[2001:db8::10]:80/tcp"],
        backends,
    );
    service.mode = Mode::Replicate(Arc::new(policy));
    let snapshot = Snapshot::new(epoch, std::vec![service]).unwrap();
    Tables::compile(previous, &snapshot, addresses(), via_router)
        .unwrap()
        .with_session_ports(PORTS)
}

impl World {
    pub fn new(config: ReplicatorConfig, policy: Replicate) -> World {
        World {
            replicator: Replicator::new(config),
            tables: tables(&Tables::default(), 1, policy, backends()),
            now: Micros::new(1_000_000),
            clients: std::vec![Peer::new(CLIENT, 77)],
            servers: (0..)
                .zip(REPLICAS)
                .map(|(n, a)| Server::new(a, n))
                .collect(),
            out: Wiretap::default(),
            weather: Weather::default(),
            dice: Dice(1),
            air: BTreeMap::new(),
            serial: 0,
            lost: Vec::new(),
            drops: HashMap::new(),
            events: Vec::new(),
            allocations: 0,
            received: 0,
        }
    }

    pub fn default() -> World {
        World::new(config(), Replicate::DEFAULT)
    }

    /// A packet sets off.
    pub fn launch(&mut self, packet: Vec<u8>) {
        let Weather {
            lost,
            repeated,
            delayed,
        } = self.weather;
        let copies = match self.dice.roll(1_000) {
            n if n < lost => 0,
            n if n < lost + repeated => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let mut at = self.now;
            if self.dice.roll(1_000) < delayed {
                at = at + Duration::from_micros(self.dice.roll(20_000));
            }
            self.serial += 1;
            self.air.insert((at, self.serial), packet.clone());
        }
    }

    /// Nothing arrives any more, not even what is under way.
    pub fn cut(&mut self) {
        self.air.clear();
        self.weather.lost = 1_000;
    }

    /// A millisecond passes.
    pub fn step(&mut self) {
        let now = self.now;
        for at in 0..self.clients.len() {
            for packet in self.clients[at].poll(now) {
                self.launch(packet);
            }
        }
        for at in 0..self.servers.len() {
            if self.servers[at].dead {
                continue;
            }
            self.servers[at].work();
            for packet in self.servers[at].peer.poll(now) {
                self.launch(packet);
            }
        }
        while let Some(entry) = self.air.first_entry()
            && entry.key().0 <= now
        {
            let packet = entry.remove();
            self.arrive(packet);
        }
        let Self {
            replicator,
            tables,
            out,
            ..
        } = self;
        let counted = allocation_counter::measure(|| {
            replicator.poll(now, tables, out);
            replicator.tick(now, tables, out);
        });
        self.allocations += counted.count_total;
        while let Some(packet) = self.out.packets.pop_front() {
            self.launch(packet);
        }
        while let Some(event) = self.replicator.events().pop() {
            self.events.push(event.event.kind);
        }
        self.now = now + Duration::from_millis(1);
    }

    fn arrive(&mut self, packet: Vec<u8>) {
        let to = destination(&packet);
        if let Some(server) = self.servers.iter_mut().find(|s| s.peer.address() == to) {
            server.peer.deliver(packet);
        } else if let Some(client) = self.clients.iter_mut().find(|c| c.address() == to) {
            client.deliver(packet);
        } else if to == VIP.parse::<SocketAddr>().unwrap().ip()
            || self.tables.is_engine_address(to)
            || std::format!("{to}") == "2001:db8::10"
        {
            self.receive(&packet);
        } else {
            self.lost.push(packet);
        }
    }

    pub fn receive(&mut self, packet: &[u8]) {
        let mut frame = frame(packet);
        let mut received = Ok(());
        let Self {
            replicator,
            tables,
            out,
            ..
        } = self;
        let counted = allocation_counter::measure(|| {
            received = replicator.receive(self.now, tables, PortId(0), &mut frame, out);
        });
        self.allocations += counted.count_total;
        self.received += 1;
        if let Err(reason) = received {
            *self.drops.entry(reason).or_default() += 1;
        }
    }

    /// Runs until something is so; fails when it is not within that many milliseconds.
    pub fn until(
        &mut self,
        milliseconds: u64,
        what: &str,
        mut is_so: impl FnMut(&mut World) -> bool,
    ) {
        for _ in 0..milliseconds {
            if is_so(self) {
                return;
            }
            self.step();
        }
        panic!(
            "not within {milliseconds} ms: {what}; {:?}",
            self.replicator
        );
    }

    /// A replica resets its first connection.
    pub fn reset(&mut self, server: usize) {
        let talk = self.servers[server].talks[0].socket;
        self.servers[server].peer.get(talk).abort();
        for packet in self.servers[server].peer.poll(self.now) {
            self.launch(packet);
        }
    }

    /// Runs for a while.
    pub fn run(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds {
            self.step();
        }
    }

    pub fn count(&self, reason: DropReason) -> u64 {
        self.drops.get(&reason).copied().unwrap_or(0)
    }

    pub fn counters(&self) -> &ReplicateCounters {
        self.replicator.counters()
    }

    /// A session of this worker.
    pub fn details(&self, number: u64) -> SessionDetails {
        let id = SessionId { worker: 0, number };
        self.replicator.session(id).expect("there is that session")
    }

    pub fn connect(&mut self, port: u16) -> SocketHandle {
        self.clients[0].connect(port, VIP.parse().unwrap(), BUFFER)
    }

    pub fn state(&mut self, socket: SocketHandle) -> State {
        self.clients[0].state(socket)
    }

    pub fn is_open(&mut self, socket: SocketHandle) -> bool {
        self.state(socket) == State::Established
    }

    /// Sends bytes to the VIP and sees the right answer come.
    pub fn exchange(&mut self, socket: SocketHandle, sent: &[u8], milliseconds: u64) {
        let expected: Vec<u8> = sent.iter().map(|b| b.wrapping_add(1)).collect();
        let (mut written, mut got) = (0, Vec::new());
        let count = sent.len();
        self.until(milliseconds, "all bytes are answered", |world| {
            let client = &mut world.clients[0];
            written += client.write(socket, &sent[written..]);
            got.extend(client.read(socket));
            assert!(got.len() <= count);
            got.len() == count
        });
        assert!(got == expected, "the answer differs");
    }

    /// Everything is where it was before the first session.
    pub fn assert_whole(&mut self) {
        let config = self.replicator.config.clone();
        let replicator = &self.replicator;
        assert!(replicator.is_empty());
        assert_eq!(replicator.places.len(), config.sessions);
        assert_eq!(replicator.clients.free(), config.sessions);
        assert_eq!(replicator.replicas.free(), config.connections);
        assert_eq!(replicator.ports.available(), config.ports.len());
        assert_eq!(replicator.half_open, 0);
        assert_eq!(replicator.groups.len(), 0);
        let pool = &replicator.shared.pool;
        assert_eq!(pool.free(), pool.total());
        assert_eq!(replicator.wheel.next(), None);
    }
}

fn destination(packet: &[u8]) -> IpAddr {
    if packet[0] >> 4 == 4 {
        let octets: [u8; 4] = packet[16..20].try_into().unwrap();
        octets.into()
    } else {
        let octets: [u8; 16] = packet[24..40].try_into().unwrap();
        octets.into()
    }
}
