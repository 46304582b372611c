//! Replica servers: a host, its kernel, and a process that can be killed, frozen and restarted.

use super::client::{Client, FLIP};
use super::dice::Dice;
use super::peer::Peer;
use super::program::{HEADER, LISTENS, Program, TALKS};
use lockstep_core::Micros;
use smoltcp::socket::tcp::State;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How a server fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Up,
    /// SIGSTOP: the kernel goes on, the process does not.
    Frozen,
    /// The process is gone: the kernel says RST.
    Down,
    /// Its link is cut.
    Cut,
    /// The host is gone, and everything it knew.
    Gone,
}

/// How a process behaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Temper {
    /// The most it reads and writes at once, and how long it then rests, in microseconds. Zero is
    /// all and not at all.
    pub gulp: usize,
    pub pause: u64,
    /// Connections whose output has a byte turned, of ten thousand.
    pub corrupt: u32,
    /// A PROXY header comes first.
    pub proxied: bool,
    /// Connections that it resets some time, of ten thousand.
    pub resets: u32,
}

/// One accepted connection.
pub struct Talk {
    peer: Peer,
    program: Program,
    /// Nobody has the socket open any more.
    is_orphan: bool,
    /// The header that is still to come.
    prefix: Option<Vec<u8>>,
    /// Input before it is known whose it is.
    early: Vec<u8>,
    session: Option<u32>,
    seen: usize,
    input_ended: bool,
    has_finished: bool,
    pending: Vec<u8>,
    produced: u64,
    flip_at: Option<u64>,
    /// Bytes of input after which it resets the connection.
    reset_at: Option<u64>,
    rests_until: Micros,
    pub due: Option<Micros>,
}

/// A remote address and port, and the local port.
pub type TalkKey = (SocketAddr, u16);

/// A host.
pub struct Server {
    pub address: IpAddr,
    pub health: Health,
    pub temper: Temper,
    pub talks: BTreeMap<TalkKey, Talk>,
    deaf: Peer,
    dice: Dice,
    pub accepted: u64,
}

impl Server {
    pub fn new(address: IpAddr, temper: Temper, mut dice: Dice) -> Self {
        Server {
            address,
            health: Health::Up,
            temper,
            talks: BTreeMap::new(),
            deaf: Peer::deaf(address, dice.next()),
            dice,
            accepted: 0,
        }
    }

    /// A packet arrives. Returns the talk that it belongs to.
    pub fn deliver(&mut self, now: Micros, packet: Vec<u8>) -> Option<TalkKey> {
        let (key, is_syn) = ends(&packet)?;
        let known = self.talks.get_mut(&key);
        let is_over = known.is_none_or(|talk| talk.peer.state() == State::Closed);
        let served = key.1 == LISTENS || TALKS.iter().any(|(port, _)| *port == key.1);
        let listens = served && matches!(self.health, Health::Up | Health::Frozen);
        if is_over && is_syn && listens {
            let talk = self.accept(key.1);
            self.talks.insert(key, talk);
        } else if is_over {
            self.talks.remove(&key);
            self.deaf.deliver(now, packet);
            return None;
        }
        let talk = self.talks.get_mut(&key)?;
        talk.peer.deliver(now, packet);
        if talk.is_orphan && talk.peer.socket().can_recv() {
            // RFC 1122 section 4.2.2.13: nobody will ever read this.
            talk.peer.socket().abort();
        }
        Some(key)
    }

    /// RSTs for packets of no connection.
    pub fn refusals(&mut self, now: Micros) -> Vec<Vec<u8>> {
        self.deaf.send(now)
    }

    fn accept(&mut self, port: u16) -> Talk {
        self.accepted += 1;
        let buffer = self.dice.pick(&[4_096, 16_384, 65_535]);
        let local = SocketAddr::new(self.address, port);
        let corrupt = self.dice.chance(self.temper.corrupt);
        let flip_at = corrupt.then(|| self.dice.size(50_000));
        let resets = self.temper.resets > 0 && self.dice.chance(self.temper.resets);
        let reset_at = resets.then(|| self.dice.size(20_000));
        Talk {
            peer: Peer::listen(local, self.dice.next(), buffer),
            program: Program::new(port),
            is_orphan: false,
            prefix: self.temper.proxied.then(Vec::new),
            early: Vec::new(),
            session: None,
            seen: 0,
            input_ended: false,
            has_finished: false,
            pending: Vec::new(),
            produced: 0,
            flip_at,
            reset_at,
            rests_until: Micros::ZERO,
            due: None,
        }
    }

    /// What a talk has to send, after the process had its turn; and when to look again.
    pub fn work(
        &mut self,
        now: Micros,
        key: TalkKey,
        clients: &[Option<Client>],
    ) -> Result<(Vec<Vec<u8>>, Option<Micros>), String> {
        let Some(talk) = self.talks.get_mut(&key) else {
            return Ok((Vec::new(), None));
        };
        let runs = matches!(self.health, Health::Up | Health::Cut) && !talk.is_orphan;
        let mut again = None;
        if runs && now < talk.rests_until {
            again = Some(talk.rests_until);
        } else if runs && talk.work(self.temper.gulp, clients)? && self.temper.gulp > 0 {
            let pause = self.dice.below(2 * self.temper.pause);
            talk.rests_until = now + Duration::from_micros(pause + 1);
            again = Some(talk.rests_until);
        }
        let sent = talk.peer.send(now);
        if matches!(talk.peer.state(), State::Closed | State::TimeWait) {
            self.talks.remove(&key);
            return Ok((sent, None));
        }
        Ok((sent, again.into_iter().chain(talk.peer.due(now)).min()))
    }

    /// SIGKILL: the kernel closes every socket, by RST where something was unread.
    pub fn kill(&mut self) {
        self.health = Health::Down;
        for talk in self.talks.values_mut() {
            if talk.peer.socket().can_recv() {
                talk.peer.socket().abort();
            } else {
                talk.peer.socket().close();
            }
            talk.is_orphan = true;
        }
    }

    /// Power off.
    pub fn vanish(&mut self) {
        self.health = Health::Gone;
        self.talks.clear();
    }

    /// Whether the process that runs has a connection of this session. One whose client says
    /// nothing cannot be told from another: then no connection may be left of a process that died.
    pub fn serves(&self, session: u32, silent: bool) -> bool {
        let talks = || self.talks.values();
        let is_its = |talk: &Talk| !talk.is_orphan && talk.session == Some(session);
        let is_lost = |talk: &Talk| talk.is_orphan && talk.session.is_none();
        if silent {
            !talks().any(is_lost)
        } else {
            talks().any(is_its)
        }
    }

    pub fn is_reachable(&self) -> bool {
        !matches!(self.health, Health::Cut | Health::Gone)
    }

    /// Whether replicas on it do their part.
    pub fn is_well(&self) -> bool {
        self.health == Health::Up
    }
}

impl Talk {
    /// The process's turn. Whether it did something.
    fn work(&mut self, gulp: usize, clients: &[Option<Client>]) -> Result<bool, String> {
        let most = if gulp == 0 { 65_536 } else { gulp };
        let mut moved = false;
        if self.program.is_listening() {
            let mut input = Vec::new();
            self.peer.read(&mut input, most);
            moved |= !input.is_empty();
            self.take(&input, clients)?;
            if self.peer.has_ended() && !self.input_ended {
                self.input_ended = true;
                self.judge_end(clients)?;
                self.program.finish();
            }
        }
        let mut left = most;
        while left > 0 && self.peer.socket().can_send() {
            if self.pending.is_empty() {
                self.produce(left.min(4_096));
            }
            let length = self.pending.len().min(left);
            let written = self.peer.write(&self.pending[..length]);
            if written == 0 {
                break;
            }
            self.pending.drain(..written);
            left -= written;
            moved = true;
        }
        let all_said = self.pending.is_empty() && self.peer.socket().send_queue() == 0;
        let tired = self.reset_at.is_some_and(|at| self.seen as u64 >= at);
        if tired || (self.program.resets() && all_said) {
            self.peer.socket().abort();
            return Ok(moved);
        }
        let done = self.pending.is_empty() && self.program.is_complete();
        if done && !self.has_finished && self.peer.socket().may_send() {
            self.has_finished = true;
            self.peer.socket().close();
        }
        Ok(moved)
    }

    fn produce(&mut self, most: usize) {
        let begin = self.pending.len();
        self.program.produce(&mut self.pending, most);
        let made = (self.pending.len() - begin) as u64;
        if let Some(at) = self.flip_at.and_then(|at| at.checked_sub(self.produced))
            && at < made
        {
            self.pending[begin + at as usize] ^= FLIP;
        }
        self.produced += made;
    }

    fn take(&mut self, mut input: &[u8], clients: &[Option<Client>]) -> Result<(), String> {
        while let (Some(prefix), [first, rest @ ..]) = (&mut self.prefix, input) {
            prefix.push(*first);
            input = rest;
            if let Some(client) = proxied(prefix)? {
                self.prefix = None;
                let known = clients.iter().flatten().find(|c| c.address == client);
                self.session = known.map(|known| known.session);
                if known.is_none() && !is_made_up(client) {
                    return Err(format!("a PROXY header for {client}, who is nobody"));
                }
            }
        }
        if input.is_empty() {
            return Ok(());
        }
        self.program.feed(input);
        let talks = self.peer.socket().local_endpoint().map_or(0, |e| e.port);
        if self.session.is_none() && TALKS.iter().any(|(port, _)| *port == talks) {
            return Err("input that no client sent".into());
        }
        self.early.extend(input);
        if self.session.is_none() && self.early.len() >= HEADER {
            let number = &self.early[4..HEADER];
            self.session = Some(u32::from_be_bytes(number.try_into().unwrap()));
        }
        let Some(session) = self.session else {
            return Ok(());
        };
        let client = clients.get(session as usize).and_then(Option::as_ref);
        let client = client.ok_or(format!("input of session {session}, which is none"))?;
        let (said, _) = client.said();
        let end = self.seen + self.early.len();
        if said.get(self.seen..end) != Some(&self.early) {
            return Err(format!(
                "a replica of session {session} got input {}..{end} that the client did not send",
                self.seen
            ));
        }
        self.seen = end;
        self.early.clear();
        Ok(())
    }

    /// The input's end has come: it must be the client's.
    fn judge_end(&self, clients: &[Option<Client>]) -> Result<(), String> {
        let Some(session) = self.session else {
            return Ok(());
        };
        let client = clients.get(session as usize).and_then(Option::as_ref);
        match client.map(Client::said) {
            Some((said, true)) if said.len() == self.seen => Ok(()),
            said => Err(format!(
                "a replica of session {session} got FIN after {} bytes; the client: {:?}",
                self.seen,
                said.map(|(said, finished)| (said.len(), finished))
            )),
        }
    }
}

/// Whether an address is one of a flood's.
pub fn is_made_up(address: SocketAddr) -> bool {
    matches!(address.ip(), IpAddr::V4(v4) if v4.octets()[..2] == [198, 19])
}

/// The client's address, once the whole header is there.
fn proxied(header: &[u8]) -> Result<Option<SocketAddr>, String> {
    if header.len() < 16 {
        return Ok(None);
    }
    if !header.starts_with(b"\r\n\r\n\0\r\nQUIT\n\x21") {
        return Err("no PROXY header".into());
    }
    let length = 16 + usize::from(u16::from_be_bytes([header[14], header[15]]));
    if header.len() < length {
        return Ok(None);
    }
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    Ok(Some(match header[13] {
        0x11 => {
            let ip: [u8; 4] = header[16..20].try_into().unwrap();
            SocketAddr::new(ip.into(), word(24))
        }
        _ => {
            let ip: [u8; 16] = header[16..32].try_into().unwrap();
            SocketAddr::new(ip.into(), word(48))
        }
    }))
}

/// Where a packet comes from and to which port it goes, and whether it opens a connection.
fn ends(packet: &[u8]) -> Option<(TalkKey, bool)> {
    let parsed = etherparse::SlicedPacket::from_ip(packet).ok()?;
    let source: IpAddr = match parsed.net? {
        etherparse::NetSlice::Ipv4(ip) => ip.header().source_addr().into(),
        etherparse::NetSlice::Ipv6(ip) => ip.header().source_addr().into(),
        _ => return None,
    };
    let Some(etherparse::TransportSlice::Tcp(tcp)) = parsed.transport else {
        return None;
    };
    let from = SocketAddr::new(source, tcp.source_port());
    let is_syn = tcp.syn() && !tcp.ack() && !tcp.rst();
    Some(((from, tcp.destination_port()), is_syn))
}
