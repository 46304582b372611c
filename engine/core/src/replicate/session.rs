//! A session: one client, and the replicas that answer it.
//!
//! [`Session::drive`] is called whenever something has changed (a segment came, a timer ran out, a
//! snapshot changed) and looks at everything: the client's bytes go into the log, the log to the
//! replicas, their bytes to the client, and whoever fell out of step is dealt with. It keeps no
//! queue of its own. What a replica has sent past the committed offset stays unread in its leg,
//! where TCP's window holds the replica.

mod check;
mod close;
mod commit;
mod divergence;
mod election;
mod feed;
mod health;
mod member;
mod open;
mod replica;
mod report;
mod resets;

pub use replica::ReplicaState;
pub use report::{ReplicaReport, SessionReport, SessionState};

use super::chain::Chain;
use super::chunks::ChunkPool;
use super::counters::ReplicateCounters;
use super::event::{EndCause, EventKind, EvictCause, ReplicaIndex, SessionId, SwitchCause};
use super::group::Group;
use super::leg::{Leg, Loss};
use super::log::InputLog;
use super::mask::{Masker, Masks};
use super::spill::{SpillQueue, SpillReply};
use crate::Micros;
use crate::tables::BackendRef;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;
use lockstep_plan::{Commit, Divergence, Replicate};
use member::Membership;
use replica::Replica;
use thiserror::Error;

/// Replicas of a session at most. No plan has a service with more.
pub const MAX_REPLICAS: usize = lockstep_plan::Limits::REPLICAS;

/// How soon a session is driven again that had no memory or no way to the disk.
const RETRY: Duration = Duration::from_millis(5);

/// A backend that can be a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub backend: BackendRef,
    /// Its round trip as the daemon measured it.
    pub rtt: Option<Duration>,
    /// Whether the daemon says it is down.
    pub down: bool,
    /// Whether it is given no more new sessions.
    pub draining: bool,
}

/// What the sessions of a worker share.
#[derive(Debug)]
pub struct Resources<'a> {
    /// The memory of input logs.
    pub pool: &'a mut ChunkPool,
    /// Requests to the thread that writes older parts of logs to files.
    pub spill: &'a mut SpillQueue,
    /// What is counted.
    pub counters: &'a ReplicateCounters,
    /// The group the session belongs to, when its service groups connections by client.
    pub group: Option<&'a mut Group>,
}

/// What a session wants done. To be done in this order, and before it is driven again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Connect to a replica: its leg is there when the session is driven next, or when there is
    /// none to be had, [`Session::unconnected`] says so.
    Connect(ReplicaIndex),
    /// Let the SYN-ACK to the client go.
    Answer,
    /// RST to the client, which was not answered yet. The session is over.
    Refuse,
    /// The session is done with this leg: it is closed, or was aborted.
    Release(ReplicaIndex),
    /// Tell who listens.
    Event(EventKind),
    /// The session is over, and the client's leg closed or aborted.
    Ended(EndCause),
}

/// Why a session was not switched over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SwitchError {
    /// There is no such replica.
    #[error("the session has no such replica")]
    NoSuchReplica,
    /// It is not in sync.
    #[error("that replica is not in sync: only one that is can become primary")]
    NotInSync,
    /// Its output differs from what the client was sent.
    #[error("that replica's output differs from what the client was sent")]
    Diverged,
    /// It has sent its FIN.
    #[error("that replica has ended its connection")]
    Finished,
    /// It is primary.
    #[error("that replica is primary already")]
    AlreadyPrimary,
    /// The session is not open.
    #[error("the session is not open")]
    NotOpen,
}

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The client waits for an answer.
    Opening,
    /// It was answered.
    Serving,
    /// Its connection is closed, and replicas are still given what it has sent.
    Draining { since: Micros },
    /// Over.
    Ended(EndCause),
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    policy: Arc<Replicate>,
    masks: Arc<Masks>,
    membership: Option<Membership>,
    seed: u64,
    began_at: Micros,
    stage: Stage,
    /// Input that stands before the client's own.
    prefix: Vec<u8>,
    log: InputLog,
    /// Whether its cut was told of.
    log_cut: bool,
    /// The gate before the client's FIN.
    finish_gate: u64,
    /// What the client was sent. Its length is the committed offset.
    chain: Chain,
    masker: Masker,
    replicas: Vec<Replica>,
    primary: Option<usize>,
    /// Who is, or was, primary.
    last_primary: ReplicaIndex,
    /// Why there is no primary, while there is none.
    vacancy: SwitchCause,
    switchovers: u32,
    /// Asked for by [`Session::switch_to`].
    asked: Option<ReplicaIndex>,
    /// When the client was last given a byte.
    committed_at: Option<Micros>,
    /// Whether nothing was committed since the last switchover.
    resumes: bool,
    /// Since when the client has waited for it, if it did.
    waited_from: Option<Micros>,
    /// Since when a replica has had bytes that the client was not sent.
    available_at: Option<Micros>,
    /// Since when others are ahead of the primary.
    stalled: Option<Stall>,
    /// Whether the client was sent a FIN.
    closed: bool,
    /// Since when too few replicas are in sync to commit anything, or, behind the client's FIN, none
    /// is left.
    orphaned_at: Option<Micros>,
    /// Whether that was told of.
    orphan_told: bool,
    /// Since when replicas contradict each other, and nobody has a quorum.
    disputed_at: Option<Micros>,
    /// Since when the client is not read for the sake of slow replicas.
    slowed_at: Option<Micros>,
    /// Since when bytes of the client find no room in the log.
    refused_at: Option<Micros>,
    /// Whether something has to be tried again soon.
    again: bool,
    deadline: Option<Micros>,
}

/// Others are ahead of the primary.
#[derive(Debug, Clone, Copy)]
struct Stall {
    /// When the primary is replaced.
    until: Micros,
    /// Where the primary stands.
    position: u64,
}

/// What a drive works with.
struct Drive<'a, 'r, L> {
    now: Micros,
    client: &'a mut L,
    legs: &'a mut [Option<L>],
    resources: &'a mut Resources<'r>,
    actions: &'a mut Vec<Action>,
}

impl<L> Drive<'_, '_, L> {
    fn leg(&mut self, replica: usize) -> Option<&mut L> {
        self.legs.get_mut(replica)?.as_mut()
    }
}

impl Session {
    /// A session for a client whose SYN has come. `prefix` is given to each replica before the
    /// client's bytes (a PROXY protocol header), `seed` is for the hash of outputs and unknown to
    /// anybody.
    pub fn new(
        now: Micros,
        id: SessionId,
        policy: Arc<Replicate>,
        masks: Arc<Masks>,
        candidates: impl Iterator<Item = Candidate>,
        prefix: &[u8],
        seed: u64,
    ) -> Self {
        let mut session = Session {
            id,
            membership: None,
            seed,
            began_at: now,
            stage: Stage::Opening,
            prefix: prefix.to_vec(),
            log: InputLog::new(policy.log_memory, policy.log_disk, id),
            log_cut: false,
            finish_gate: 0,
            chain: Chain::new(seed),
            masker: Masker::new(Arc::clone(&masks)),
            replicas: Vec::new(),
            primary: None,
            last_primary: 0,
            vacancy: SwitchCause::Asked,
            switchovers: 0,
            asked: None,
            committed_at: None,
            resumes: false,
            waited_from: None,
            available_at: None,
            stalled: None,
            closed: false,
            orphaned_at: None,
            orphan_told: false,
            disputed_at: None,
            slowed_at: None,
            refused_at: None,
            again: false,
            deadline: Some(now),
            policy,
            masks,
        };
        session.invite(now, candidates);
        session
    }

    /// Brings the session as far as its legs let it. May be called at any time; has to be when a
    /// leg has changed, and at [`Session::next_deadline`]. `replicas[i]` is there from when
    /// [`Action::Connect`] was obeyed until [`Action::Release`].
    pub fn drive<L: Leg>(
        &mut self,
        now: Micros,
        client: &mut L,
        replicas: &mut [Option<L>],
        resources: &mut Resources<'_>,
        actions: &mut Vec<Action>,
    ) {
        let mut drive = Drive {
            now,
            client,
            legs: replicas,
            resources,
            actions,
        };
        self.again = false;
        self.step(&mut drive);
        self.deadline = self.earliest(now);
        if cfg!(debug_assertions) {
            self.check();
        }
    }

    fn step<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) {
        if matches!(self.stage, Stage::Ended(_)) || self.has_lost_client(drive) {
            return;
        }
        if !self.follow_group(drive) {
            self.refuse(drive);
            return;
        }
        self.observe(drive);
        match self.stage {
            Stage::Opening => self.open(drive),
            Stage::Serving => self.serve(drive),
            Stage::Draining { since } => self.drain(drive, since),
            Stage::Ended(_) => {}
        }
        if !matches!(self.stage, Stage::Ended(_)) {
            self.judge_resets(drive);
            self.reconnect(drive);
            self.tell_group(drive);
        }
    }

    /// One pass after the other, as long as one changes who is in sync, or primary.
    fn serve<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) {
        self.measure(drive);
        loop {
            self.ingest(drive);
            self.feed(drive);
            self.catch_up(drive);
            let mut changed = self.commit(drive);
            changed |= self.judge(drive);
            if matches!(self.stage, Stage::Ended(_)) {
                return;
            }
            changed |= self.admit(drive);
            changed |= self.vote(drive);
            changed |= self.keep_pace(drive);
            changed |= self.let_go(drive);
            changed |= self.replace(drive);
            if !changed {
                break;
            }
        }
        self.finish(drive);
    }

    /// When [`Session::drive`] has to be called again, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Micros> {
        self.deadline
    }

    /// Takes a new snapshot: new verdicts and round trips, new replicas, and those that are gone.
    /// To be driven afterwards.
    pub fn update(&mut self, now: Micros, candidates: impl Iterator<Item = Candidate>) {
        for replica in &mut self.replicas {
            replica.removed = true;
        }
        self.invite(now, candidates);
        self.deadline = Some(now);
    }

    /// Ends a session whose service is gone. To be driven no more.
    pub fn remove<L: Leg>(
        &mut self,
        now: Micros,
        client: &mut L,
        replicas: &mut [Option<L>],
        resources: &mut Resources<'_>,
        actions: &mut Vec<Action>,
    ) {
        let mut drive = Drive {
            now,
            client,
            legs: replicas,
            resources,
            actions,
        };
        if !matches!(self.stage, Stage::Ended(_)) {
            drive.client.abort();
            self.end(&mut drive, EndCause::Removed);
        }
    }

    /// Makes a replica primary when the session is driven next.
    pub fn switch_to(&mut self, now: Micros, replica: ReplicaIndex) -> Result<(), SwitchError> {
        let index = usize::from(replica);
        let candidate = self.replicas.get(index).ok_or(SwitchError::NoSuchReplica)?;
        if self.stage != Stage::Serving {
            return Err(SwitchError::NotOpen);
        }
        if self.primary == Some(index) {
            return Err(SwitchError::AlreadyPrimary);
        }
        if !candidate.is_in_sync() {
            return Err(SwitchError::NotInSync);
        }
        if candidate.differs.is_some() {
            return Err(SwitchError::Diverged);
        }
        if candidate.ended {
            return Err(SwitchError::Finished);
        }
        self.asked = Some(replica);
        self.deadline = Some(now);
        Ok(())
    }

    /// There is no leg to be had for [`Action::Connect`]: no memory or no port. It counts as refused.
    pub fn unconnected(&mut self, now: Micros, replica: ReplicaIndex) {
        if let Some(replica) = self.replicas.get_mut(usize::from(replica)) {
            replica.connected = false;
            replica.set(ReplicaState::Evicted(EvictCause::Lost(Loss::Refused)), now);
            replica.back_off(now);
            let retry = replica.retry_at;
            self.deadline = Some(self.deadline.map_or(retry, |deadline| deadline.min(retry)));
        }
    }

    /// Takes an answer from the thread that owns the files of logs. To be driven afterwards.
    pub fn spilled(&mut self, reply: SpillReply, resources: &mut Resources<'_>) {
        if matches!(self.stage, Stage::Ended(_)) {
            resources.pool.put(reply.into_chunk());
        } else {
            self.log.spilled(reply, resources.pool, resources.spill);
        }
    }

    /// Its name.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Replicas it knows: as many legs there may be.
    pub fn replicas(&self) -> usize {
        self.replicas.len()
    }

    /// Which backend a replica is.
    pub fn backend(&self, replica: ReplicaIndex) -> Option<BackendRef> {
        let replica = self.replicas.get(usize::from(replica))?;
        Some(replica.candidate.backend)
    }

    /// Whether the client was answered.
    pub fn is_answered(&self) -> bool {
        self.stage != Stage::Opening
    }
}

impl Session {
    /// What the client was sent.
    fn committed(&self) -> u64 {
        self.chain.len()
    }

    /// Replicas that must be in sync for anything to be committed.
    fn quorum(&self) -> usize {
        usize::from(self.policy.quorum())
    }

    /// Replicas that must be in sync for the session to be protected as asked.
    fn needed(&self) -> usize {
        usize::from(self.policy.min_sync.get()).max(self.quorum())
    }

    /// Replicas that are in sync, and whose bytes may be committed.
    fn usable(&self) -> usize {
        self.replicas.iter().filter(|r| self.counts(r)).count()
    }

    /// Whether a replica has a say. Where differences are only counted, one whose output differs
    /// has: a crash of the primary that looks like an end must not go through for want of others.
    fn counts(&self, replica: &Replica) -> bool {
        match self.policy.commit {
            Commit::Primary => replica.is_in_sync(),
            Commit::Quorum(_) => replica.agrees(),
        }
    }

    /// Whether outputs are compared at all.
    fn compares(&self) -> bool {
        self.policy.divergence != Divergence::Ignore || self.quorum() > 1
    }

    fn tell<L>(&self, drive: &mut Drive<'_, '_, L>, event: EventKind) {
        let counters = drive.resources.counters;
        match event {
            EventKind::Opened { .. } => counters.opened.add(1),
            EventKind::Switched { .. } => counters.switched.add(1),
            EventKind::Resumed { .. } => {}
            EventKind::Diverged { .. } => counters.diverged.add(1),
            EventKind::Lagging { .. } => counters.lagging.add(1),
            EventKind::Evicted { .. } => counters.evicted.add(1),
            EventKind::Joined { .. } => counters.joined.add(1),
            EventKind::LogCut => counters.log_cuts.add(1),
            EventKind::Orphaned => counters.orphaned.add(1),
            EventKind::Ended(_) => counters.ended.add(1),
        }
        drive.actions.push(Action::Event(event));
    }
}

#[cfg(test)]
mod tests;
