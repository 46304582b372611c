//! The clients of a world: when each begins, what it does at its turn, how it ends.

use super::super::client::{Client, Outcome};
use super::super::program::Script;
use super::super::scenario::{VIP4, VIP6};
use super::super::seen::summary;
use super::{Event, World, client_mac};
use smoltcp::socket::tcp::State;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

impl World {
    /// Whether no server resets what others go on with: where all of them reset in the end, the
    /// last words of those that are not primary may be lost.
    fn resets_alike(&self) -> bool {
        let servers = &self.scenario.servers;
        servers.iter().all(|server| server.temper.resets == 0)
    }

    /// The second connection of a group is opened once the first one is.
    pub(super) fn may_start(&mut self, session: u32) -> bool {
        if !self.scenario.grouped || session.is_multiple_of(2) {
            return true;
        }
        let control = self.clients[session as usize - 1].as_mut();
        control.is_some_and(|control| control.peer.state() == State::Established)
    }

    /// The second connection of a group is over: the first one may end.
    fn let_go(&mut self, session: u32) -> Result<(), String> {
        if !self.scenario.grouped || session.is_multiple_of(2) {
            return Ok(());
        }
        if let Some(control) = &mut self.clients[session as usize - 1] {
            control.holds = false;
        }
        self.wake_client(session - 1)
    }

    pub(super) fn start(&mut self, session: u32) {
        let mut dice = self.dice.fork();
        let most = self.scenario.most;
        let grouped = self.scenario.grouped;
        let is_control = grouped && session.is_multiple_of(2);
        let script = if is_control {
            Script::echo(&mut dice, session, most)
        } else if grouped && self.resets_alike() && dice.chance(6_000) {
            Script::part(&mut dice, session, most)
        } else {
            Script::write(&mut dice, session, most)
        };
        let manner = (self.scenario.manner)(&mut dice);
        let host = if grouped { session & !1 } else { session };
        let [.., high, low] = host.to_be_bytes();
        let port = 20_000 + session as u16;
        let six = if grouped {
            host % 8 == 0
        } else {
            dice.chance(3_000)
        };
        let (address, vip): (IpAddr, IpAddr) = if six {
            let client = [0x2001, 0xdb8, 0, 1, 0, 0, u16::from(high), u16::from(low)];
            (client.into(), VIP6.into())
        } else {
            ([198, 18, high, low].into(), VIP4.into())
        };
        let ends = (
            SocketAddr::new(address, port),
            SocketAddr::new(vip, script.port),
        );
        let mut client = Client::new(self.now, session, ends, script, manner, dice);
        client.may_be_flipped = self.scenario.may_flip;
        client.holds = is_control;
        self.say(|| format!("session {session}: {ends:?} {manner:?}"));
        self.clients[session as usize] = Some(client);
    }

    /// A client's turn.
    pub(super) fn wake_client(&mut self, session: u32) -> Result<(), String> {
        let now = self.now;
        let Some(client) = &mut self.clients[session as usize] else {
            return Ok(());
        };
        let before = client.outcome;
        let again = client
            .work(now)
            .map_err(|error| format!("session {session}, the client: {error}"))?;
        let over = (client.outcome != before)
            .then_some(client.outcome)
            .flatten();
        let packets = client.peer.send(now);
        let (mac, cut) = (client_mac(session), client.is_cut);
        let due = again.into_iter().chain(client.peer.due(now)).min();
        let due = due
            .filter(|_| !cut)
            .map(|at| at.max(now + Duration::from_micros(10)));
        if due.is_some_and(|due| client.due.is_none_or(|at| due < at || at <= now)) {
            client.due = due;
            self.at(due.unwrap_or(now), Event::WakeClient(session));
        }
        if !cut {
            let weather = self.scenario.client_weather;
            for packet in packets {
                if self.watched == Some(session) {
                    eprintln!("{:>12} < {}", self.now.get(), summary(&packet));
                }
                self.launch(weather, packet, |packet| Event::ToEngine { packet, mac });
            }
        }
        over.map_or(Ok(()), |outcome| self.conclude(session, outcome))
    }

    pub(super) fn conclude(&mut self, session: u32, outcome: Outcome) -> Result<(), String> {
        self.open -= 1;
        self.say(|| format!("session {session}: {outcome:?}"));
        match outcome {
            Outcome::Complete => self.seen.complete += 1,
            Outcome::Own => self.seen.own += 1,
            Outcome::Reset if self.scenario.may_reset => self.seen.reset += 1,
            Outcome::Reset if self.is_reset_rightly(session) => self.seen.reset += 1,
            Outcome::Reset => {
                let described = self.describe(session);
                return Err(format!("session {session} was reset: {described}"));
            }
        }
        self.let_go(session)
    }

    fn is_reset_rightly(&self, session: u32) -> bool {
        let client = self.clients[session as usize].as_ref();
        client.is_some_and(Client::may_be_reset)
    }
}
