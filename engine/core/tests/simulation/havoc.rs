//! What goes wrong, when, and only where the promise still holds: a fault is wreaked while every
//! session has enough replicas in sync on servers that are well.

use super::dice::Dice;
use super::program::LISTENS;
use super::scenario::tables;
use super::server::Health;
use super::world::{Event, World};
use etherparse::PacketBuilder;
use lockstep_core::Micros;
use lockstep_core::replicate::replicator::SessionDetails;
use lockstep_core::replicate::session::{ReplicaState, SessionState};
use lockstep_plan::health::Verdict;
use std::time::Duration;

/// Something that goes wrong with a server, or with all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL; the process is started again later.
    Kill,
    /// The host loses power, and is started again later.
    Vanish,
    /// SIGSTOP, and SIGCONT later.
    Freeze,
    /// The link is cut, and mended later.
    Cut,
    /// The daemon says it is down, and up again later.
    Verdict,
    /// An operator makes any replica primary.
    Switchover,
    /// All hosts lose power.
    Blackout,
    /// SYNs from addresses that are nobody's.
    Flood,
}

/// The state of what goes wrong.
pub struct Havoc {
    dice: Dice,
    /// When a server is well again.
    mends: Vec<(Micros, usize)>,
    /// When each server was last wronged.
    wronged: Vec<Micros>,
    down: Vec<usize>,
    next: Micros,
    over: bool,
    flooded: u16,
    epoch: u64,
    blackouts: u32,
}

impl Havoc {
    pub fn new(dice: Dice) -> Self {
        Havoc {
            dice,
            mends: Vec::new(),
            wronged: Vec::new(),
            down: Vec::new(),
            next: Micros::ZERO,
            over: false,
            flooded: 0,
            epoch: 1,
            blackouts: 0,
        }
    }
}

impl World {
    pub fn plan_havoc(&mut self) {
        let count = self.servers.len();
        self.havoc.wronged = vec![Micros::ZERO; count];
        if !self.scenario.faults.is_empty() {
            self.plan_next();
        }
    }

    fn plan_next(&mut self) {
        let ((least, most), now) = (self.scenario.pause, self.now);
        let havoc = &mut self.havoc;
        let at = now + Duration::from_micros(havoc.dice.between(least, most));
        havoc.next = at;
        self.at(at, Event::Havoc);
    }

    /// Time for a fault, or for the end of one.
    pub fn wreak(&mut self) -> Result<(), String> {
        let now = self.now;
        let mends = std::mem::take(&mut self.havoc.mends);
        let (due, rest): (Vec<_>, Vec<_>) = mends.into_iter().partition(|(at, _)| *at <= now);
        self.havoc.mends = rest;
        for (_, server) in due {
            self.mend_one(server)?;
        }
        if self.havoc.next <= now && !self.havoc.over {
            let faults = self.scenario.faults.clone();
            let fault = self.havoc.dice.pick(&faults);
            let wrongable = self.scenario.wrongable.clone();
            let server = self.havoc.dice.pick(&wrongable);
            self.wrong(fault, server)?;
            self.plan_next();
        }
        self.check_sessions()
    }

    fn wrong(&mut self, fault: Fault, server: usize) -> Result<(), String> {
        match fault {
            Fault::Switchover => return self.switch_over(),
            Fault::Flood => return self.flood(),
            Fault::Blackout => return self.black_out(),
            _ if self.servers[server].health != Health::Up => return Ok(()),
            _ if self.havoc.down.contains(&server) => return Ok(()),
            _ if !self.can_spare(server, fault == Fault::Kill) => return Ok(()),
            _ => {}
        }
        self.say(|| format!("server {server}: {fault:?}"));
        match fault {
            Fault::Kill => self.servers[server].kill(),
            Fault::Vanish => self.servers[server].vanish(),
            Fault::Freeze => self.servers[server].health = Health::Frozen,
            Fault::Cut => self.servers[server].health = Health::Cut,
            _ => {
                self.havoc.down.push(server);
                self.adopt_tables();
            }
        }
        let ((least, most), now) = (self.scenario.lasts, self.now);
        let havoc = &mut self.havoc;
        havoc.wronged[server] = now;
        let until = now + Duration::from_micros(havoc.dice.between(least, most));
        havoc.mends.push((until, server));
        self.at(until, Event::Havoc);
        self.wake_all(server)
    }

    fn wake_all(&mut self, server: usize) -> Result<(), String> {
        let keys: Vec<_> = self.servers[server].talks.keys().copied().collect();
        for key in keys {
            self.wake_server(server, key)?;
        }
        Ok(())
    }

    fn mend_one(&mut self, server: usize) -> Result<(), String> {
        self.say(|| format!("server {server}: well again"));
        self.servers[server].health = Health::Up;
        let down = &mut self.havoc.down;
        if let Some(at) = down.iter().position(|n| *n == server) {
            down.remove(at);
            self.adopt_tables();
        }
        self.wake_all(server)
    }

    /// All is well from here on.
    pub fn mend(&mut self) {
        self.havoc.over = true;
    }

    fn adopt_tables(&mut self) {
        let havoc = &mut self.havoc;
        havoc.epoch += 1;
        let (epoch, down) = (havoc.epoch, havoc.down.clone());
        self.tables = tables(&self.tables, epoch, &self.scenario, |n| {
            if down.contains(&n) {
                Verdict::Down
            } else {
                Verdict::Up
            }
        });
        self.replicator.adopt();
        self.at(self.now + Duration::from_millis(1), Event::Nudge);
    }

    fn black_out(&mut self) -> Result<(), String> {
        if self.havoc.blackouts > 0 {
            return Ok(());
        }
        self.havoc.blackouts += 1;
        self.say(|| "blackout".into());
        let now = self.now;
        for server in 0..self.servers.len() {
            self.servers[server].vanish();
            self.havoc.wronged[server] = now;
            let (least, most) = self.scenario.lasts;
            if most > 0 {
                let lasts = self.havoc.dice.between(least, most);
                let until = now + Duration::from_micros(lasts);
                self.havoc.mends.push((until, server));
                self.at(until, Event::Havoc);
            }
        }
        Ok(())
    }

    fn switch_over(&mut self) -> Result<(), String> {
        let page = self.page();
        if page.is_empty() {
            return Ok(());
        }
        let at = self.havoc.dice.below(page.len() as u64) as usize;
        let server = self.havoc.dice.below(self.servers.len() as u64) as usize;
        let (id, to) = (page[at].report.id, self.servers[server].address);
        if !self.servers[server].is_well() {
            return Ok(());
        }
        // It may say no, with a reason.
        let _ = self.replicator.switch_to(self.now, &self.tables, id, to);
        self.at(self.now + Duration::from_micros(10), Event::Nudge);
        Ok(())
    }

    fn flood(&mut self) -> Result<(), String> {
        for _ in 0..100 {
            let havoc = &mut self.havoc;
            havoc.flooded = havoc.flooded.wrapping_add(1);
            let [high, low] = havoc.flooded.to_be_bytes();
            let sequence = havoc.dice.next() as u32;
            let mut packet = Vec::new();
            PacketBuilder::ipv4([198, 19, 0xff, low], [203, 0, 113, 10], 64)
                .tcp(1_024 + u16::from(high), 80, sequence, 1_024)
                .syn()
                .write(&mut packet, &[])
                .unwrap();
            let mac = [2, 1, 0, 0, 0xff, low];
            self.at(self.now, Event::ToEngine { packet, mac });
        }
        Ok(())
    }

    /// Which server each replica of a session is on, and whether it can be relied on.
    fn reliable(&self, details: &SessionDetails, without: usize) -> (usize, usize) {
        let members = &self.tables.rings()[0].members;
        let (mut reliable, mut doubtful) = (0, 0);
        for replica in &details.report.replicas {
            let at = members
                .iter()
                .position(|m| m.backend_ref == replica.backend);
            let Some(server) = at else { continue };
            if replica.state != ReplicaState::InSync || server == without {
                continue;
            }
            let session = u32::from(details.client.port()).wrapping_sub(20_000);
            let silent = details.destination.port() != LISTENS;
            let serves = self.servers[server].serves(session, silent);
            let fresh = replica.since > self.wronged_at(server) && serves;
            let corrupt = self.servers[server].temper.corrupt > 0 || replica.diverged;
            if self.servers[server].is_well() && fresh && !corrupt {
                reliable += 1;
            } else {
                doubtful += 1;
            }
        }
        (reliable, doubtful)
    }

    fn wronged_at(&self, server: usize) -> Micros {
        self.havoc.wronged[server]
    }

    /// Whether all sessions can do without a server. A process that is killed may end its
    /// connections by FIN, as if all was said: then nobody else may be in doubt, or the votes are
    /// those of the dead.
    fn can_spare(&self, victim: usize, may_say_fin: bool) -> bool {
        let needed = usize::from(self.scenario.policy.quorum()).max(1);
        // Sessions to come need servers as well.
        let begin = needed.max(usize::from(self.scenario.policy.min_sync.get()));
        let well = |n: &usize| {
            let server = &self.servers[*n];
            let wanted = *n != victim && !self.havoc.down.contains(n);
            wanted && server.is_well() && server.temper.corrupt == 0
        };
        if (0..self.servers.len()).filter(well).count() < begin {
            return false;
        }
        self.page().iter().all(|details| {
            if matches!(
                details.report.state,
                SessionState::Opening | SessionState::Closed
            ) {
                return true;
            }
            let (reliable, doubtful) = self.reliable(details, victim);
            reliable >= needed && !(may_say_fin && doubtful > 0)
        })
    }

    /// What can be seen of sessions from outside is right at any moment.
    pub fn check_sessions(&mut self) -> Result<(), String> {
        let most = u64::from(self.scenario.policy.log_memory).max(64 << 10) + 8_192;
        if let Some(session) = self.watched {
            let described = self.describe(session);
            self.say(|| described);
        }
        for details in self.page() {
            let report = &details.report;
            if report.memory as u64 > most {
                return Err(format!("a log above its cap: {details:#?}"));
            }
            if report.replicas.iter().any(|r| r.fed > report.input) {
                return Err(format!("fed what is not there: {details:#?}"));
            }
        }
        let used = self.replicator.counters().log_memory.get();
        if used > self.scenario.log_memory as u64 {
            return Err(format!("{used} bytes of logs"));
        }
        Ok(())
    }
}
