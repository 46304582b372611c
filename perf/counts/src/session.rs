//! One replicated session in memory, without a network. Its client and its replicas are TCP stacks of
//! their own, which are neither timed nor counted.

mod peer;

use anyhow::{Context, Result, anyhow, ensure};
use lockstep_core::replicate::replicator::{Replicator, ReplicatorConfig};
use lockstep_core::replicate::stack::Transmit;
use lockstep_core::tables::{NextHop, PortId, Route};
use lockstep_core::{EngineAddresses, Micros, Tables};
use lockstep_plan::health::Health;
use lockstep_plan::{
    Backend, BackendState, IdleTimeouts, Mode, Replicate, Service, ServiceName, Snapshot,
    TableSize, Weight,
};
use lockstep_wire::LinkHeader;
use peer::{MTU, Peer};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

const VIP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), PORT);
const PORT: u16 = 80;
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const ENGINE: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 202);
const ETHERNET: usize = 14;
/// Frames that a worker takes at once.
const BURST: usize = 64;
/// What a round of everybody takes of the session's time.
const ROUND: Duration = Duration::from_micros(50);
/// Bytes of the stream after which it repeats itself.
const PERIOD: usize = 65_537;

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From each replica to the client.
    Download,
    /// From the client to each replica.
    Upload,
}

/// What was measured.
pub struct Trial {
    /// The replicator's time.
    pub spent: Duration,
    /// In and out, at the replicator.
    pub packets: u64,
    /// What the client got, or each replica.
    pub bytes: u64,
}

/// One session and everybody in it.
pub struct Bench {
    replicator: Replicator,
    tables: Tables,
    client: Peer,
    replicas: Vec<Peer>,
    direction: Direction,
    stream: Vec<u8>,
    /// What each replica has written, or read in an upload.
    served: Vec<u64>,
    /// What the client has read, or written in an upload.
    used: u64,
    frames: Frames,
    out: Frames,
    now: u64,
    spent: Duration,
    packets: u64,
}

impl Bench {
    /// A client that is connecting to a service of so many replicas.
    pub fn new(replicas: usize, direction: Direction) -> Result<Self> {
        let mut client = Peer::new(CLIENT, 1);
        client.connect(VIP)?;
        let replicas = (0..replicas)
            .map(|index| {
                let mut peer = Peer::new(replica(index), 2 + index as u64);
                peer.listen(PORT)?;
                Ok(peer)
            })
            .collect::<Result<Vec<_>>>()?;
        let ports = 20_000..=29_999;
        let mut stream: Vec<u8> = (0..PERIOD).map(|at| (at * at / 7) as u8).collect();
        stream.extend_from_within(..);
        Ok(Bench {
            replicator: Replicator::new(ReplicatorConfig {
                spread: lockstep_core::Spread::alone(),
                ports: ports.clone(),
                sessions: 16,
                connections: 16 + replicas.len(),
                client_buffer: 262_144,
                replica_buffer: 131_072,
                log_memory: 64 << 20,
                mtus: vec![MTU as u16],
                addresses: addresses(),
                seed: [3, 4],
            }),
            tables: tables(replicas.len())?.with_session_ports(ports),
            client,
            served: vec![0; replicas.len()],
            replicas,
            direction,
            stream,
            used: 0,
            frames: Frames::default(),
            out: Frames::default(),
            now: 1_000_000,
            spent: Duration::ZERO,
            packets: 0,
        })
    }

    /// Moves so many bytes and says what it took, without the first tenth.
    pub fn run(mut self, bytes: u64) -> Result<Trial> {
        self.advance(bytes / 10)?;
        let before = (self.spent, self.packets, self.received());
        self.advance(bytes)?;
        Ok(Trial {
            spent: self.spent - before.0,
            packets: self.packets - before.1,
            bytes: self.received() - before.2,
        })
    }

    fn advance(&mut self, until: u64) -> Result<()> {
        let mut idle = 0;
        while self.received() < until {
            let before = self.received();
            self.round()?;
            idle = if self.received() > before {
                0
            } else {
                idle + 1
            };
            ensure!(
                idle < 200_000,
                "nothing has moved for {:?} after {} bytes",
                ROUND * idle,
                self.received()
            );
        }
        Ok(())
    }

    /// Everybody once.
    fn round(&mut self) -> Result<()> {
        self.now += ROUND.as_micros() as u64;
        self.applications()?;
        let Bench {
            client,
            replicas,
            frames,
            now,
            ..
        } = self;
        for peer in std::iter::once(client).chain(replicas) {
            peer.turn(*now, |packet| frames.push(packet));
        }
        self.replicate();
        for packet in self.out.used() {
            let to = Ipv4Addr::from_octets([packet[30], packet[31], packet[32], packet[33]]);
            let peers = std::iter::once(&mut self.client).chain(&mut self.replicas);
            for peer in peers.filter(|peer| peer.address == to) {
                peer.deliver(&packet[ETHERNET..]);
            }
        }
        self.out.clear();
        Ok(())
    }

    /// The replicator's part, by the clock.
    fn replicate(&mut self) {
        let now = Micros::new(self.now);
        self.packets += self.frames.count as u64;
        let sent = self.out.count;
        let start = Instant::now();
        replicate_all(
            now,
            &mut self.replicator,
            &self.tables,
            self.frames.used(),
            &mut self.out,
        );
        self.spent += start.elapsed();
        self.packets += (self.out.count - sent) as u64;
        self.frames.clear();
    }

    /// Servers and client write what there is room for, and read what there is.
    fn applications(&mut self) -> Result<()> {
        for (replica, served) in self.replicas.iter_mut().zip(&mut self.served) {
            match self.direction {
                Direction::Download => write_some(replica, &self.stream, served)?,
                Direction::Upload => *served += read_all(replica)?,
            }
        }
        match self.direction {
            Direction::Download => self.used += read_all(&mut self.client)?,
            Direction::Upload => write_some(&mut self.client, &self.stream, &mut self.used)?,
        }
        Ok(())
    }

    /// What everybody has who is to have it.
    fn received(&self) -> u64 {
        match self.direction {
            Direction::Download => self.used,
            Direction::Upload => self.served.iter().copied().min().unwrap_or_default(),
        }
    }
}

/// What callgrind counts inside of.
pub const MEASURED: &str = "*session*replicate_all*";

/// Everything that has come, in bursts as a worker takes them. Kept out of line so that callgrind finds
/// it by name.
#[inline(never)]
fn replicate_all(
    now: Micros,
    replicator: &mut Replicator,
    tables: &Tables,
    frames: &mut [Vec<u8>],
    out: &mut Frames,
) {
    for burst in frames.chunks_mut(BURST) {
        for frame in burst {
            // What it drops is sent again.
            let _ = replicator.receive(now, tables, PortId(0), &mut frame[..], out);
        }
        replicator.poll(now, tables, out);
    }
    replicator.tick(now, tables, out);
}

fn write_some(peer: &mut Peer, stream: &[u8], sent: &mut u64) -> Result<()> {
    while peer.socket().can_send() {
        let at = (*sent % PERIOD as u64) as usize;
        *sent += peer.socket().send_slice(&stream[at..at + PERIOD])? as u64;
    }
    Ok(())
}

fn read_all(peer: &mut Peer) -> Result<u64> {
    let mut count = 0;
    while peer.socket().can_recv() {
        count += peer.socket().recv(|bytes| (bytes.len(), bytes.len()))? as u64;
    }
    Ok(count)
}

/// Frames in memory that is used again.
#[derive(Default)]
struct Frames {
    memory: Vec<Vec<u8>>,
    count: usize,
}

impl Frames {
    fn push(&mut self, packet: &[u8]) {
        self.next(packet.len())[ETHERNET..].copy_from_slice(packet);
    }

    /// One more frame, with an Ethernet header and room for a packet of `length` bytes.
    fn next(&mut self, length: usize) -> &mut [u8] {
        if self.count == self.memory.len() {
            self.memory.push(Vec::with_capacity(ETHERNET + MTU));
        }
        let frame = &mut self.memory[self.count];
        self.count += 1;
        // No byte is written twice: what was in it is overwritten.
        frame.resize(ETHERNET + length, 0);
        frame[..ETHERNET].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 3, 8, 0]);
        frame
    }

    fn used(&mut self) -> &mut [Vec<u8>] {
        &mut self.memory[..self.count]
    }

    fn clear(&mut self) {
        self.count = 0;
    }
}

impl Transmit for Frames {
    fn transmit(
        &mut self,
        _: PortId,
        _: &LinkHeader,
        length: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> bool {
        write(&mut self.next(length)[ETHERNET..]);
        true
    }
}

fn replica(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, 1 + index as u8)
}

fn addresses() -> EngineAddresses {
    EngineAddresses {
        v4: Some(ENGINE),
        v6: None,
    }
}

/// One service with all defaults.
fn tables(replicas: usize) -> Result<Tables> {
    let backends = (0..replicas)
        .map(|index| Backend {
            name: format!("s{index}"),
            address: replica(index).into(),
            port: None,
            weight: Weight::DEFAULT,
            state: BackendState::Active,
            health: Health::UNKNOWN,
        })
        .collect();
    let service = Service {
        name: ServiceName::new("bench").context("a plain name")?,
        vips: vec![format!("{VIP}/tcp").parse()?],
        mode: Mode::Replicate(Arc::new(Replicate::DEFAULT)),
        backends,
        unserved: lockstep_plan::Unserved::Drop,
        table_size: TableSize::DEFAULT,
        idle: IdleTimeouts::DEFAULT,
        scheduler: lockstep_plan::Scheduler::default(),
        guard: lockstep_plan::Guard::default(),
    };
    let snapshot = Snapshot::new(1, vec![service]).map_err(|errors| anyhow!("{errors:?}"))?;
    let route = Route {
        port: PortId(0),
        link: LinkHeader {
            destination: [2, 0, 0, 0, 0, 1],
            source: [2, 0, 0, 0, 0, 2],
            vlan: None,
        },
        mtu: MTU as u16,
    };
    let hop = |_: IpAddr| NextHop::Via(route);
    Ok(Tables::compile(
        &Tables::default(),
        &snapshot,
        addresses(),
        hop,
    )?)
}
