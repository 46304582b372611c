//! One connection to the store, from its beginning until it is lost.

use super::super::actor::until;
use super::super::parts::{Ending, Wires};
use super::desk::Desk;
use super::link::{Link, PATIENCE, Unanswered, answer};
use super::shared::Standing;
use super::{ending, has_changed};
use etcd_client::{
    Compare, CompareOp, EventType, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse, WatchOptions,
    WatchResponse, WatchStream,
};
use lockstep_ctl_core::checks::Verdicts;
use lockstep_ctl_core::drains::{Target, Timestamp};
use lockstep_ctl_core::group::DrainChange;
use lockstep_ctl_core::group::keys::{MAX_VALUE, Member, SharedDrain};
use lockstep_ctl_core::group::ledger::{Listing, MAX_DRAINS, Origin, Write};
use lockstep_ctl_core::group::roster::MAX_MEMBERS;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How a session ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The store is away.
    Lost {
        /// Why.
        error: String,
        /// Whether it was there before.
        was_there: bool,
    },
    /// The configuration has changed.
    Config,
    /// The daemon ends.
    Ending,
}

/// Where this balancer stands in the list of members.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seat {
    /// Not registered.
    None,
    /// Registered, with these verdicts.
    Taken(Verdicts),
    /// Another daemon has its name.
    Others,
}

struct Session<'a> {
    desk: &'a mut Desk,
    wires: &'a mut Wires,
    link: Link,
    lease: i64,
    seat: Seat,
    since: Timestamp,
    /// Until when those who leave may be cut off still from a store that was lost.
    settled: Timestamp,
    /// Why what is found here does not fit into the store; empty where it does.
    too_much: String,
}

/// Connects, and stays until something ends it.
pub async fn run(desk: &mut Desk, wires: &mut Wires, standing: &watch::Sender<Standing>) -> End {
    let before = wires.config.borrow().clone();
    let mut was_there = false;
    let mut config = wires.config.clone();
    let end = wires.ending.clone();
    let stay = async {
        let link = Link::open(&desk.store).await?;
        let ttl = i64::try_from(desk.store.lease.as_secs()).unwrap_or(i64::MAX);
        let granted = answer(link.client().lease_grant(ttl, None)).await?;
        let since = desk.clock.now();
        let mut session = Session {
            desk,
            wires,
            link,
            lease: granted.id(),
            seat: Seat::None,
            since,
            settled: since,
            too_much: String::new(),
        };
        session.stay(standing, &mut was_there).await
    };
    tokio::select! {
        lost = stay => {
            let error = match lost {
                Ok(never) => match never {},
                Err(Unanswered(error)) => error,
            };
            End::Lost { error, was_there }
        }
        end = ending(end) => {
            let how = *wires.ending.borrow();
            leave(standing, how).await;
            end
        }
        () = async {
            while config.changed().await.is_ok() && !has_changed(&before, &config.borrow()) {}
        } => {
            leave(standing, Ending::Shutdown).await;
            End::Config
        }
    }
}

/// Says goodbye where this balancer does not come back at once.
async fn leave(standing: &watch::Sender<Standing>, ending: Ending) {
    let link = match &*standing.borrow() {
        Standing::There(link) => link.clone(),
        Standing::Alone | Standing::Away(_) => return,
    };
    if ending == Ending::Shutdown
        && let Some(lease) = link.seat()
    {
        // A store that does not answer ends the lease by itself.
        let _ = answer(link.client().lease_revoke(lease)).await;
    }
}

/// Nothing: a session ends with an error only.
enum Never {}

impl Session<'_> {
    async fn stay(
        &mut self,
        standing: &watch::Sender<Standing>,
        was_there: &mut bool,
    ) -> Result<Never, Unanswered> {
        let ttl = self.desk.store.lease;
        let (mut keeper, mut beats) =
            answer(self.link.client().lease_keep_alive(self.lease)).await?;
        if self.desk.roster.iter().next().is_some() {
            self.settled = self.desk.clock.now().after(self.grace());
        }
        let (changes, revision) = self.list().await?;
        let mut events = self.watch(revision).await?;
        self.link.sit(self.lease);
        self.register().await?;
        *was_there = true;
        self.desk.connected(self.wires, changes).await;
        self.complain();
        standing.send_replace(Standing::There(Box::new(self.link.clone())));
        self.publish().await?;

        let mut beat = interval(ttl / 4);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            let deadline = self.desk.roster.next_deadline();
            let deadline = deadline.and_then(|d| self.desk.clock.instant(d));
            tokio::select! {
                event = events.message() => match event? {
                    None => return Err(Unanswered("it has ended the connection".to_owned())),
                    Some(event) if event.canceled() => {
                        tracing::info!(
                            "the store has forgotten what happened since ({}); reading all of it",
                            event.cancel_reason()
                        );
                        let (changes, revision) = self.list().await?;
                        events = self.watch(revision).await?;
                        self.desk.changed(self.wires, changes).await;
                    }
                    Some(event) => self.hear(&event).await?,
                },
                alive = beats.message() => match alive? {
                    Some(alive) if alive.ttl() > 0 => heard = Instant::now(),
                    _ => return Err(Unanswered("the lease has ended meanwhile".to_owned())),
                },
                _ = beat.tick() => {
                    if heard.elapsed() > ttl {
                        return Err(Unanswered(format!("no sign of life for {ttl:?}")));
                    }
                    answer(keeper.keep_alive()).await?;
                    if self.seat == Seat::None || self.seat == Seat::Others {
                        self.register().await?;
                        self.complain();
                    }
                    self.publish().await?;
                },
                changed = self.wires.own.changed() => {
                    if changed.is_err() {
                        // The actor is gone, and so is the daemon, soon.
                        std::future::pending::<()>().await;
                    }
                    self.publish().await?;
                }
                () = until(deadline) => {
                    self.desk.roster.advance(self.desk.clock.now());
                    self.desk.changed(self.wires, Vec::new()).await;
                }
            }
        }
    }

    /// Reads everything, as of one revision.
    async fn list(&mut self) -> Result<(Vec<DrainChange>, i64), Unanswered> {
        let keys = self.link.keys.clone();
        let limited = |most: usize| {
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            Some(GetOptions::new().with_prefix().with_limit(most))
        };
        let members = TxnOp::get(keys.members(), limited(MAX_MEMBERS));
        let drains = TxnOp::get(keys.drains(), limited(MAX_DRAINS));
        let reply = answer(
            self.link
                .values()
                .txn(Txn::new().and_then([members, drains])),
        )
        .await?;
        let origin = reply.header().map(|header| Origin {
            cluster: header.cluster_id(),
            revision: header.revision(),
        });
        let mut members = BTreeMap::new();
        let mut listing = Listing {
            origin,
            ..Listing::default()
        };
        for op in reply.op_responses() {
            let TxnOpResponse::Get(get) = op else {
                continue;
            };
            for kv in get.kvs() {
                let Ok(key) = kv.key_str() else { continue };
                if let Some(name) = keys.member_of(key) {
                    if let Some(member) = Member::from_json(kv.value()) {
                        members.insert(name.to_owned(), member);
                    }
                } else if let Some(target) = keys.drain_of(key) {
                    match SharedDrain::from_json(kv.value()) {
                        Some(drain) => drop(listing.drains.insert(target, drain)),
                        None => drop(listing.unreadable.insert(target)),
                    }
                }
            }
        }
        let (now, grace) = (self.desk.clock.now(), self.grace());
        self.desk.roster.list(members, now, grace);
        if !self.desk.ledger.is_of(origin) {
            tracing::warn!(
                "the store is another one than before, or an older copy of it: no drain ends for \
                 that, and this balancer writes its own"
            );
        }
        let changes = self.desk.ledger.list(&self.desk.instance, &listing);
        self.desk.save();
        Ok((changes, origin.map_or(0, |origin| origin.revision)))
    }

    /// How long others may take to come back: as this one did, with a pause between their tries.
    fn grace(&self) -> Duration {
        self.desk.store.lease + super::LAST_RETRY + PATIENCE
    }

    async fn watch(&self, revision: i64) -> Result<WatchStream, Unanswered> {
        let from = || {
            Some(
                WatchOptions::new()
                    .with_prefix()
                    .with_start_revision(revision + 1),
            )
        };
        let mut client = self.link.watcher();
        let mut events = answer(client.watch(self.link.keys.members(), from())).await?;
        answer(events.watch(self.link.keys.drains(), from())).await?;
        Ok(events)
    }

    async fn hear(&mut self, response: &WatchResponse) -> Result<(), Unanswered> {
        if let Some(header) = response.header() {
            self.desk.ledger.reach(header.revision());
        }
        let mut changes = Vec::new();
        for event in response.events() {
            let Some(kv) = event.kv() else { continue };
            let Ok(key) = kv.key_str() else { continue };
            let value = match event.event_type() {
                EventType::Put => Some(kv.value()),
                EventType::Delete => None,
            };
            if let Some(name) = self.link.keys.member_of(key) {
                self.hear_of_member(name, value);
            } else if let Some(target) = self.link.keys.drain_of(key) {
                changes.extend(self.hear_of_drain(target, value, kv.mod_revision()));
            }
        }
        if self.seat == Seat::None {
            self.register().await?;
            self.complain();
        }
        if !changes.is_empty() {
            self.desk.save();
        }
        self.desk.changed(self.wires, changes).await;
        Ok(())
    }

    fn hear_of_member(&mut self, name: &str, value: Option<&[u8]>) {
        let member = value.and_then(Member::from_json);
        let mine = name == self.desk.name;
        let now = self.desk.clock.now();
        match member {
            Some(member) => {
                if mine && member.instance != self.desk.instance {
                    self.seat = Seat::Others;
                    self.complain();
                }
                self.desk.roster.join(name.to_owned(), member, now);
            }
            None => {
                if now < self.settled {
                    self.desk.roster.miss(name, self.settled);
                } else if self.desk.roster.leave(name) {
                    tracing::info!(balancer = name, "has left the group");
                }
                if mine {
                    self.seat = Seat::None;
                }
            }
        }
    }

    fn hear_of_drain(
        &mut self,
        target: Target,
        value: Option<&[u8]>,
        revision: i64,
    ) -> Option<DrainChange> {
        let drain = match value {
            Some(value) => Some(SharedDrain::from_json(value)?),
            None => None,
        };
        let instance = &self.desk.instance;
        self.desk
            .ledger
            .hear(instance, target, drain.as_ref(), revision)
    }

    fn member(&self) -> Member {
        Member {
            instance: self.desk.instance.clone(),
            since: self.since,
            verdicts: self.wires.own.borrow().verdicts.clone(),
        }
    }

    /// Puts this balancer into the list, where nobody else has its name.
    async fn register(&mut self) -> Result<(), Unanswered> {
        let key = self.link.keys.member(&self.desk.name);
        let there = self.link.get(&key).await?;
        let mine = there.as_ref().is_none_or(|value| {
            Member::from_json(&value.bytes).is_none_or(|m| m.instance == self.desk.instance)
        });
        if !mine {
            self.seat = Seat::Others;
            return Ok(());
        }
        let revision = there.map_or(0, |value| value.revision);
        let unchanged = Compare::mod_revision(key.as_str(), CompareOp::Equal, revision);
        self.seat = match self.write(&key, unchanged).await? {
            Some(verdicts) => Seat::Taken(verdicts),
            None => Seat::None,
        };
        Ok(())
    }

    /// Writes what this balancer says where a condition holds; returns the verdicts then.
    async fn write(
        &mut self,
        key: &str,
        condition: Compare,
    ) -> Result<Option<Verdicts>, Unanswered> {
        let member = self.member();
        let text = member.to_json();
        if text.len() > MAX_VALUE {
            self.too_much = format!(
                "what the checks have found is too much for the store ({} bytes): the group goes \
                 on with what it has of this balancer",
                text.len()
            );
            return Ok(Some(member.verdicts));
        }
        self.too_much.clear();
        let lease = PutOptions::new().with_lease(self.lease);
        let put = TxnOp::put(key, text, Some(lease));
        let txn = Txn::new().when([condition]).and_then([put]);
        let reply = answer(self.link.client().txn(txn)).await?;
        Ok(reply.succeeded().then_some(member.verdicts))
    }

    /// Says in the log and the command line that the name is taken, or no longer.
    fn complain(&mut self) {
        let error = match self.seat {
            Seat::None | Seat::Taken(_) => self.too_much.clone(),
            Seat::Others => format!(
                "another balancer of group {} is called {}: this one hears the others, but is not \
                 heard; give one of the two another `name` in [node] of its lockstepd.toml",
                self.desk.store.group, self.desk.name
            ),
        };
        self.desk.hinder(self.wires, error);
    }

    /// Writes what has changed here.
    async fn publish(&mut self) -> Result<(), Unanswered> {
        let own = self.wires.own.borrow_and_update().clone();
        if let Seat::Taken(told) = &self.seat
            && *told != own.verdicts
        {
            let key = self.link.keys.member(&self.desk.name);
            let still_mine = Compare::lease(key.as_str(), CompareOp::Equal, self.lease);
            self.seat = match self.write(&key, still_mine).await? {
                Some(verdicts) => Seat::Taken(verdicts),
                None => Seat::None,
            };
            self.complain();
            // Its own verdicts decide with those of others.
            self.desk.report(self.wires);
        }
        let writes = self.desk.ledger.writes(&own, self.desk.generation());
        for write in &writes {
            let mut client = self.link.client();
            let header = match write {
                Write::Put(target, deadline) => {
                    let drain = SharedDrain {
                        deadline_unix_ms: *deadline,
                        by: self.desk.instance.clone(),
                    };
                    let key = self.link.keys.drain(target);
                    let put = answer(client.put(key, drain.to_json(), None)).await?;
                    put.header().map(|h| h.revision())
                }
                Write::Delete(target) => {
                    let key = self.link.keys.drain(target);
                    let deleted = answer(client.delete(key, None)).await?;
                    deleted.header().map(|h| h.revision())
                }
            };
            self.desk.ledger.wrote(write, header.unwrap_or(0));
        }
        if !writes.is_empty() {
            self.desk.save();
            self.desk.report(self.wires);
        }
        Ok(())
    }
}
