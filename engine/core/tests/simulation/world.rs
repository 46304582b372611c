//! The world: virtual time, links, hosts, and one real [`Replicator`] in the middle.

mod clients;

use super::client::{Client, Outcome};
use super::dice::Dice;
use super::disk::Disk;
use super::havoc::Havoc;
use super::scenario::{Scenario, config, tables};
use super::seen::{Seen, summary};
use super::server::{Server, TalkKey};
use super::wire::Weather;
use lockstep_core::replicate::event::EventKind;
use lockstep_core::replicate::replicator::{Replicator, ReplicatorConfig, SessionDetails};
use lockstep_core::replicate::spill::SpillReply;
use lockstep_core::replicate::stack::Transmit;
use lockstep_core::{Micros, PortId, Tables};
use lockstep_wire::LinkHeader;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

pub const ENGINE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];

/// A session that is not over by then is stuck, in microseconds after its beginning.
const PATIENCE: Duration = Duration::from_secs(400);
/// Steps of one world at most: more is a storm.
const STORM: u64 = 1_000_000;

/// What happens at a moment.
#[derive(Debug)]
pub enum Event {
    Start(u32),
    ToEngine {
        packet: Vec<u8>,
        mac: [u8; 6],
    },
    ToServer(usize, Vec<u8>),
    ToClient(u32, Vec<u8>),
    WakeClient(u32),
    WakeServer(usize, TalkKey),
    Tick,
    /// The thread that owns the files has done something.
    Disk(SpillReply),
    /// Somebody has asked the engine for something.
    Nudge,
    Havoc,
}

/// Packets the engine has sent.
struct Out {
    sent: Vec<(LinkHeader, Vec<u8>)>,
    dice: Dice,
    /// Of ten thousand packets, so many find no room on the ring.
    refused: u32,
}

impl Transmit for Out {
    fn transmit(
        &mut self,
        _: PortId,
        link: &LinkHeader,
        length: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> bool {
        if self.dice.chance(self.refused) {
            return false;
        }
        // What a frame has in it before is anybody's guess.
        let mut packet = vec![0xa5; length];
        write(&mut packet);
        self.sent.push((*link, packet));
        true
    }
}

/// See the module.
pub struct World {
    pub now: Micros,
    pub scenario: Scenario,
    pub tables: Tables,
    pub replicator: Replicator,
    pub clients: Vec<Option<Client>>,
    pub servers: Vec<Server>,
    pub dice: Dice,
    config: ReplicatorConfig,
    out: Out,
    disk: Disk,
    events: BTreeMap<(Micros, u64), Event>,
    serial: u64,
    pub havoc: Havoc,
    tick_at: Option<Micros>,
    last_tick: Micros,
    open: usize,
    seen: Seen,
    steps: u64,
    looked_at: Micros,
    disk_at: Micros,
    trace: bool,
    /// The session whose client's packets are told of.
    pub watched: Option<u32>,
}

impl World {
    pub fn new(scenario: Scenario, mut dice: Dice) -> World {
        let config = config(&scenario, dice.next());
        let mut world = World {
            now: Micros::new(1_000_000),
            tables: tables(&Tables::default(), 1, &scenario, |_| Default::default()),
            replicator: Replicator::new(config.clone()).with_spill(scenario.spill),
            clients: (0..scenario.sessions).map(|_| None).collect(),
            servers: Vec::new(),
            out: Out {
                sent: Vec::new(),
                dice: dice.fork(),
                refused: scenario.refused,
            },
            disk: Disk::new(dice.fork(), scenario.disk_full),
            events: BTreeMap::new(),
            serial: 0,
            havoc: Havoc::new(dice.fork()),
            tick_at: None,
            last_tick: Micros::ZERO,
            open: scenario.sessions as usize,
            seen: Seen::default(),
            steps: 0,
            looked_at: Micros::ZERO,
            disk_at: Micros::ZERO,
            trace: std::env::var_os("SIM_TRACE").is_some(),
            watched: std::env::var("SIM_WATCH").ok().and_then(|n| n.parse().ok()),
            config,
            dice,
            scenario,
        };
        for n in 0..world.scenario.servers.len() {
            let (mut temper, dice) = (world.scenario.servers[n].temper, world.dice.fork());
            temper.proxied = world.scenario.policy.proxy_protocol;
            let server = Server::new(super::scenario::server_address(n), temper, dice);
            world.servers.push(server);
        }
        for session in 0..world.scenario.sessions {
            let at = world.dice.below(world.scenario.arrivals);
            world.at(world.now + Duration::from_micros(at), Event::Start(session));
        }
        world.plan_havoc();
        world
    }

    /// Lets everything happen, and sees that nothing is wrong and nothing left.
    pub fn run(mut self) -> Result<Seen, String> {
        let result = self.run_through();
        let now = self.now.get();
        result.map_err(|error| format!("at {now} us: {error}"))
    }

    fn run_through(&mut self) -> Result<Seen, String> {
        while self.open > 0 {
            self.step()?;
        }
        self.mend();
        // What was silent counts as gone after a while.
        let patience = self.scenario.policy.client_timeout * 3 + PATIENCE;
        let end = self.now + patience;
        while !self.replicator.is_empty() {
            self.step()?;
            if self.now > end {
                return Err(format!("sessions are left: {:?}", self.page()));
            }
        }
        self.now = self.now + Duration::from_secs(70);
        self.replicator.tick(self.now, &self.tables, &mut self.out);
        self.judge_rest()?;
        self.count();
        Ok(self.seen.clone())
    }

    fn step(&mut self) -> Result<(), String> {
        let Some((&(now, _), _)) = self.events.first_key_value() else {
            return Err("nothing will ever happen again".into());
        };
        self.now = now;
        self.steps += 1;
        if self.steps > STORM {
            return Err("too much happens: something goes round".into());
        }
        if now > self.looked_at + Duration::from_secs(5) {
            self.looked_at = now;
            self.look_for_stuck()?;
        }
        let (mut burst, mut tick) = (false, false);
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= now
        {
            match entry.remove() {
                Event::ToEngine { packet, mac } => {
                    burst = true;
                    self.receive(&packet, mac);
                }
                Event::Disk(reply) => {
                    burst = true;
                    self.replicator.spilled(reply);
                }
                Event::Nudge => burst = true,
                Event::Tick => tick |= self.tick_at == Some(now),
                event => self.happen(event)?,
            }
        }
        if burst {
            self.replicator.poll(now, &self.tables, &mut self.out);
        }
        if tick {
            self.tick_at = None;
            self.last_tick = now;
            self.replicator.tick(now, &self.tables, &mut self.out);
        }
        if burst || tick {
            self.follow()?;
        }
        Ok(())
    }

    /// Clients whose RST was lost, and who have nothing to say that would call for another.
    fn look_for_reset(&mut self) -> Result<(), String> {
        let known: Vec<_> = self.page().iter().map(|d| d.client).collect();
        for session in 0..self.clients.len() {
            let Some(client) = &mut self.clients[session] else {
                continue;
            };
            let waits = client.outcome.is_none() && client.may_be_reset();
            if waits && !known.contains(&client.address) {
                client.outcome = Some(Outcome::Reset);
                self.conclude(session as u32, Outcome::Reset)?;
            }
        }
        Ok(())
    }

    fn look_for_stuck(&mut self) -> Result<(), String> {
        if self.scenario.grouped {
            self.look_for_reset()?;
        }
        let late =
            |client: &&Client| client.outcome.is_none() && self.now > client.began + PATIENCE;
        let Some(session) = self.clients.iter().flatten().find(late).map(|c| c.session) else {
            return Ok(());
        };
        let client = self.clients[session as usize].as_ref();
        let address = client.map(|client| client.address);
        let is_known = self.page().iter().any(|d| Some(d.client) == address);
        if self.scenario.may_reset && !is_known {
            // Its RST was lost, and it has nothing to say that would call for another.
            if let Some(client) = &mut self.clients[session as usize] {
                client.outcome = Some(Outcome::Reset);
            }
            return self.conclude(session, Outcome::Reset);
        }
        let described = self.describe(session);
        Err(format!("session {session} is stuck: {described}"))
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Start(session) if !self.may_start(session) => {
                let later = self.now + Duration::from_millis(20);
                self.at(later, Event::Start(session));
                Ok(())
            }
            Event::Start(session) => {
                self.start(session);
                self.wake_client(session)
            }
            Event::ToClient(session, packet) => {
                if let Some(client) = &mut self.clients[session as usize]
                    && !client.is_cut
                {
                    if self.watched == Some(session) {
                        eprintln!("{:>12} > {}", self.now.get(), summary(&packet));
                    }
                    client.peer.deliver(self.now, packet);
                }
                self.wake_client(session)
            }
            Event::WakeClient(session) => {
                let client = self.clients[session as usize].as_mut();
                match client.filter(|client| client.due == Some(self.now)) {
                    Some(client) => {
                        client.due = None;
                        self.wake_client(session)
                    }
                    None => Ok(()),
                }
            }
            Event::ToServer(n, packet) => {
                if !self.servers[n].is_reachable() {
                    return Ok(());
                }
                if self.watched.is_some() {
                    eprintln!("{:>12} s{n} > {}", self.now.get(), summary(&packet));
                }
                match self.servers[n].deliver(self.now, packet) {
                    Some(key) => self.wake_server(n, key),
                    None => {
                        for packet in self.servers[n].refusals(self.now) {
                            self.launch_from_server(n, packet);
                        }
                        Ok(())
                    }
                }
            }
            Event::WakeServer(n, key) => {
                let talk = self.servers[n].talks.get_mut(&key);
                match talk.filter(|talk| talk.due == Some(self.now)) {
                    Some(talk) => {
                        talk.due = None;
                        self.wake_server(n, key)
                    }
                    None => Ok(()),
                }
            }
            Event::Havoc => self.wreak(),
            Event::ToEngine { .. } | Event::Tick | Event::Disk(_) | Event::Nudge => Ok(()),
        }
    }

    /// A server's turn on one connection.
    pub fn wake_server(&mut self, n: usize, key: TalkKey) -> Result<(), String> {
        let now = self.now;
        let (packets, again) = self.servers[n]
            .work(now, key, &self.clients)
            .map_err(|error| format!("server {n}: {error}"))?;
        let soon = now + Duration::from_micros(10);
        let due = again.map(|at| at.max(soon));
        if let Some(talk) = self.servers[n].talks.get_mut(&key)
            && due.is_some_and(|due| talk.due.is_none_or(|at| due < at || at <= now))
        {
            talk.due = due;
            self.at(due.unwrap_or(now), Event::WakeServer(n, key));
        }
        for packet in packets {
            self.launch_from_server(n, packet);
        }
        Ok(())
    }

    pub fn launch_from_server(&mut self, n: usize, packet: Vec<u8>) {
        if self.servers[n].is_reachable() {
            if self.watched.is_some() {
                eprintln!("{:>12} s{n} < {}", self.now.get(), summary(&packet));
            }
            let weather = self.scenario.servers[n].weather;
            self.launch(weather, packet, |packet| Event::ToEngine {
                packet,
                mac: SERVER_MAC,
            });
        }
    }

    fn launch(&mut self, weather: Weather, packet: Vec<u8>, event: impl Fn(Vec<u8>) -> Event) {
        let (mut serial, events) = (self.serial, &mut self.events);
        weather.carry(&mut self.dice, self.now, packet, |at, packet| {
            serial += 1;
            events.insert((at, serial), event(packet));
        });
        self.serial = serial;
    }

    pub fn at(&mut self, at: Micros, event: Event) {
        self.serial += 1;
        self.events.insert((at, self.serial), event);
    }

    fn receive(&mut self, packet: &[u8], mac: [u8; 6]) {
        self.seen.packets += 1;
        let mut frame = Vec::with_capacity(packet.len() + 14);
        frame.extend(ENGINE_MAC);
        frame.extend(mac);
        frame.extend(match packet[0] >> 4 {
            6 => [0x86, 0xdd],
            _ => [0x08, 0x00],
        });
        frame.extend(packet);
        // A reason to drop it is none to stop: late packets of what is over come all the time.
        let _ =
            self.replicator
                .receive(self.now, &self.tables, PortId(0), &mut frame, &mut self.out);
    }

    /// After the engine's turn: its packets set off, its events are seen, its timer is set.
    fn follow(&mut self) -> Result<(), String> {
        for (link, packet) in std::mem::take(&mut self.out.sent) {
            self.deliver(&link, packet)?;
        }
        while let Some(request) = self.replicator.spill_queue().pop() {
            if let Some(reply) = self.disk.carry_out(request)? {
                // One after the other, as a thread does.
                self.disk_at = self.disk_at.max(self.now) + Duration::from_micros(20);
                let at = Micros::new(self.disk_at.get().next_multiple_of(10));
                self.at(at, Event::Disk(reply));
            }
        }
        while let Some(event) = self.replicator.events().pop() {
            self.say(|| format!("{:?} {:?}", event.client, event.event.kind));
            if let EventKind::Switched { .. } = event.event.kind {
                self.seen.switched += 1;
            }
        }
        let Some(due) = self.replicator.next_deadline() else {
            return Ok(());
        };
        // The engine looks every millisecond.
        let due = due
            .max(self.last_tick + Duration::from_millis(1))
            .max(self.now);
        let due = Micros::new(due.get().next_multiple_of(10));
        if self.tick_at.is_none_or(|at| due < at) {
            self.tick_at = Some(due);
            self.at(due, Event::Tick);
        }
        Ok(())
    }

    fn deliver(&mut self, link: &LinkHeader, packet: Vec<u8>) -> Result<(), String> {
        let to = destination(&packet);
        let (weather, mac);
        if let Some(n) = self.servers.iter().position(|s| s.address == to) {
            (weather, mac) = (self.scenario.servers[n].weather, SERVER_MAC);
            self.launch(weather, packet, |packet| Event::ToServer(n, packet));
        } else {
            let session = u32::from(destination_port(&packet).wrapping_sub(20_000));
            if session as usize >= self.clients.len() {
                // A client that never was: of a flood.
                return Ok(());
            }
            (weather, mac) = (self.scenario.client_weather, client_mac(session));
            self.launch(weather, packet, |packet| Event::ToClient(session, packet));
        }
        if link.destination != mac || link.source != ENGINE_MAC {
            return Err(format!("a packet to {to} was sent to {link:?}"));
        }
        Ok(())
    }

    /// All sessions there are.
    pub fn page(&self) -> Vec<SessionDetails> {
        let mut page = Vec::with_capacity(self.clients.len() + 1);
        self.replicator.sessions(0, &mut page);
        page
    }

    pub fn describe(&mut self, session: u32) -> String {
        let Some(client) = &mut self.clients[session as usize] else {
            return String::new();
        };
        let (address, state) = (client.address, client.peer.state());
        let told = format!(
            "got {}, sent {} of {}, FIN {}, {:?}, {state}, since {:?}",
            client.got,
            client.sent,
            client.script.input.len(),
            client.has_finished,
            client.script.finish,
            client.began,
        );
        let page = self.page();
        let details = page.iter().find(|details| details.client == address);
        format!("{told}; {details:#?}")
    }

    /// Nothing may be left of what was.
    fn judge_rest(&self) -> Result<(), String> {
        let counters = self.replicator.counters();
        for (what, left) in [
            ("sessions", counters.sessions.get()),
            ("connections", counters.connections.get()),
            ("half-open sessions", counters.half_open.get()),
            ("bytes of logs", counters.log_memory.get()),
            ("connections in TIME-WAIT", counters.time_wait.get()),
            (
                "deadlines",
                self.replicator.next_deadline().map_or(0, |_| 1),
            ),
            ("events lost", counters.events_lost.get()),
            ("files", self.disk.files() as u64),
        ] {
            if left > 0 {
                return Err(format!("{left} {what} are left"));
            }
        }
        let full = counters.unconnected.get();
        if full > 0 && self.config.connections >= self.clients.len() * self.servers.len() {
            return Err(format!(
                "{full} connections could not be opened: ports leak"
            ));
        }
        Ok(())
    }

    fn count(&mut self) {
        let counters = self.replicator.counters();
        let seen = &mut self.seen;
        seen.sessions = self.clients.len() as u64;
        seen.evicted = counters.evicted.get();
        seen.joined = counters.joined.get();
        seen.diverged = counters.diverged.get();
        seen.lagging = counters.lagging.get();
        seen.log_cuts = counters.log_cuts.get();
        seen.orphaned = counters.orphaned.get();
        seen.refused = counters.refused.get();
        seen.spilled = self.disk.written;
        seen.cookies = counters.cookies_accepted.get();
        for client in self.clients.iter().flatten() {
            seen.bytes += client.got;
            seen.flipped += client.flipped;
        }
    }

    pub fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>12} {}", self.now.get(), what());
        }
    }
}

pub fn client_mac(session: u32) -> [u8; 6] {
    let [.., high, low] = session.to_be_bytes();
    [2, 1, 0, 0, high, low]
}

/// Nothing here has IP options.
fn destination_port(packet: &[u8]) -> u16 {
    let at = if packet[0] >> 4 == 4 { 22 } else { 42 };
    u16::from_be_bytes([packet[at], packet[at + 1]])
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
