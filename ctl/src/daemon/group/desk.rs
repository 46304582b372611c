//! What this balancer knows of its group, over losses of the store, and whom it tells.

use super::super::actor::Event;
use super::super::clock::Clock;
use super::super::disk;
use super::super::host;
use super::super::parts::Wires;
use lockstep_api::{GroupMember, GroupTarget};
use lockstep_ctl_core::checks::Verdicts;
use lockstep_ctl_core::config::Config;
use lockstep_ctl_core::config::store::Store;
use lockstep_ctl_core::drains::Timestamp;
use lockstep_ctl_core::group::ledger::Ledger;
use lockstep_ctl_core::group::roster::{Entry, Roster};
use lockstep_ctl_core::group::{DrainChange, Group, agreed, keys};
use lockstep_ctl_core::random::derive::hex;
use lockstep_plan::health::Verdict;
use std::path::{Path, PathBuf};

/// The most differing backends that are told of each balancer.
const MAX_DIFFERING: usize = 20;
/// The largest of our own files that is read, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// See the module.
#[derive(Debug)]
pub struct Desk {
    /// What the configuration says.
    pub store: Store,
    /// What this balancer is called.
    pub name: String,
    /// Tells it from others of that name; the same over restarts.
    pub instance: String,
    pub clock: Clock,
    pub roster: Roster,
    pub ledger: Ledger,
    /// What the actor was told last.
    told: Group,
    since: Timestamp,
    error: String,
    ledger_file: PathBuf,
}

impl Desk {
    /// With what the last daemon knew.
    pub fn new(wires: &Wires, config: &Config, store: &Store) -> Result<Self, String> {
        let name = match &config.operation.name {
            Some(name) => name.clone(),
            None => host::name()?,
        };
        if !keys::is_name(&name) {
            return Err(format!(
                "this balancer cannot be called {name:?} in its group: set `name` in [node] to \
                 1 to 64 letters, digits, '-', '_' or '.'"
            ));
        }
        let ledger_file = wires.state_dir.join("group.json");
        let clock = Clock::start();
        Ok(Desk {
            store: store.clone(),
            name,
            instance: instance(&wires.state_dir.join("group.instance")),
            roster: Roster::default(),
            ledger: ledger(&ledger_file, &store.group),
            told: Group {
                // Another group's generations are not taken for this one's.
                generation: wires.own.borrow().heard,
                ..Group::default()
            },
            since: clock.now(),
            clock,
            error: "the store was not asked yet".to_owned(),
            ledger_file,
        })
    }

    /// What stands in the way; empty where nothing does.
    pub fn error(&self) -> &str {
        &self.error
    }

    /// The generation that the actor was told last.
    pub fn generation(&self) -> u64 {
        self.told.generation
    }

    /// Something stands in the way while the store is there.
    pub fn hinder(&mut self, wires: &Wires, error: String) {
        if self.error != error {
            if !error.is_empty() {
                tracing::error!("{error}");
            }
            self.error = error;
            self.report(wires);
        }
    }

    /// The store is there.
    pub async fn connected(&mut self, wires: &Wires, changes: Vec<DrainChange>) {
        tracing::info!(group = self.store.group, "the store answers");
        self.error.clear();
        self.since = self.clock.now();
        self.told.connected = true;
        self.told.own_at_loss = None;
        self.tell(wires, changes, true).await;
    }

    /// It is not.
    pub async fn lost(&mut self, wires: &Wires, error: String) {
        let first = self.told.connected;
        if first || self.error != error {
            tracing::warn!(
                "the store at {} is away ({error}); what the group has agreed on stays",
                self.store.endpoints.join(", ")
            );
        }
        self.error = error;
        if first {
            self.since = self.clock.now();
            self.told.connected = false;
            self.told.own_at_loss = Some(wires.own.borrow().verdicts.clone());
            self.tell(wires, Vec::new(), true).await;
        }
        self.report(wires);
    }

    /// Tells the actor what has changed.
    pub async fn changed(&mut self, wires: &Wires, changes: Vec<DrainChange>) {
        self.tell(wires, changes, false).await;
    }

    async fn tell(&mut self, wires: &Wires, changes: Vec<DrainChange>, force: bool) {
        let members = self.roster.others(&self.instance);
        let drains = Some(self.ledger.drains());
        let same = members == self.told.members && drains == self.told.drains;
        if force || !same || !changes.is_empty() {
            self.told.members = members;
            self.told.drains = drains;
            self.told.changes = changes;
            self.told.generation += 1;
            // An actor that is gone ends this part too.
            let _ = wires.events.send(Event::Group(self.told.clone())).await;
        }
        self.report(wires);
    }

    /// Saves the drains of the group.
    pub fn save(&self) {
        let text = self.ledger.to_json(&self.store.group);
        if let Err(error) = disk::replace(&self.ledger_file, text.as_bytes(), 0o644) {
            tracing::warn!(
                "cannot write {}: {error}; a drain that ends elsewhere while this daemon is not \
                 running comes back with it",
                self.ledger_file.display()
            );
        }
    }

    /// Tells the command line.
    pub fn report(&self, wires: &Wires) {
        let own = wires.own.borrow().verdicts.clone();
        let in_force = agreed(&own, &self.told);
        let members = self.roster.iter();
        let members = members.map(|(name, entry)| {
            let here = entry.member.instance == self.instance;
            member(name, entry, here, &in_force)
        });
        let members = members.collect();
        wires.reports.group.send_modify(|reply| {
            reply.configured = true;
            reply.name.clone_from(&self.name);
            reply.group.clone_from(&self.store.group);
            reply.endpoints.clone_from(&self.store.endpoints);
            reply.connected = self.told.connected;
            reply.since_unix_ms = self.since.0;
            reply.error.clone_from(&self.error);
            reply.members = members;
            reply.drains = u32::try_from(self.ledger.drains().iter().count()).unwrap_or(u32::MAX);
        });
    }
}

fn member(name: &str, entry: &Entry, here: bool, in_force: &Verdicts) -> GroupMember {
    let verdicts = &entry.member.verdicts;
    let count = |wanted| {
        let found = verdicts.values().filter(|v| **v == wanted).count();
        u32::try_from(found).unwrap_or(u32::MAX)
    };
    let differing: Vec<GroupTarget> = verdicts
        .iter()
        .filter(|(target, verdict)| {
            **verdict != Verdict::Unknown && in_force.get(*target) != Some(*verdict)
        })
        .map(|(target, _)| GroupTarget {
            service: target.service.as_str().to_owned(),
            address: target.backend.0.to_string(),
        })
        .collect();
    GroupMember {
        name: name.to_owned(),
        here,
        alive_since_unix_ms: entry.member.since.0,
        heard_unix_ms: entry.heard.0,
        up: count(Verdict::Up),
        down: count(Verdict::Down),
        differing_count: u32::try_from(differing.len()).unwrap_or(u32::MAX),
        differing: differing.into_iter().take(MAX_DIFFERING).collect(),
        returning: entry.until.is_some(),
    }
}

/// There is no group any more.
pub async fn forget(wires: &Wires) {
    let before = wires.reports.group.borrow().configured;
    if before {
        wires.reports.group.send_modify(|reply| {
            let random = reply.random.take();
            *reply = lockstep_api::GroupReply {
                random,
                ..Default::default()
            };
        });
        // An actor that is gone ends this part too.
        let _ = wires.events.send(Event::Group(Group::default())).await;
    }
}

/// There is a group that this balancer cannot join.
pub fn refuse(wires: &Wires, store: &Store, error: String) {
    wires.reports.group.send_modify(|reply| {
        reply.configured = true;
        reply.group.clone_from(&store.group);
        reply.endpoints.clone_from(&store.endpoints);
        reply.error = error;
    });
}

/// What the last daemon of this state directory was known by; a new one where there was none.
fn instance(path: &Path) -> String {
    if let Ok(Some(text)) = disk::read(path, 64)
        && let Ok(text) = String::from_utf8(text)
        && text.len() == 32
        && text.bytes().all(|b| b.is_ascii_hexdigit())
    {
        return text;
    }
    let instance = hex(&rand::random::<[u8; 16]>());
    if let Err(error) = disk::replace(path, instance.as_bytes(), 0o644) {
        tracing::warn!(
            "cannot write {}: {error}; after a restart the group takes this daemon for another \
             one until its lease ends",
            path.display()
        );
    }
    instance
}

fn ledger(path: &Path, group: &str) -> Ledger {
    let text = match disk::read(path, MAX_FILE) {
        Ok(text) => text.and_then(|bytes| String::from_utf8(bytes).ok()),
        Err(error) => {
            tracing::warn!("cannot read {}: {error}", path.display());
            None
        }
    };
    text.and_then(|text| Ledger::from_json(group, &text))
        .unwrap_or_default()
}
