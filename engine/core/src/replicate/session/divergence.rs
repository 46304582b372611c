//! Rule 7: what follows a difference.

use super::replica::{Replica, ReplicaState};
use super::{Drive, Session};
use crate::replicate::event::{EndCause, EventKind, EvictCause, ReplicaIndex};
use crate::replicate::leg::Leg;
use lockstep_plan::{Commit, Divergence};

impl Session {
    /// Whether the hash of an output that differs is still of use: replicas that differ in the same
    /// way may be the majority.
    pub(super) fn keeps_hashes(&self) -> bool {
        self.policy.divergence == Divergence::Evict && self.policy.commit == Commit::Primary
    }

    /// From here on the client's stream is that of a replica whose output differed before.
    pub(super) fn forgive(&mut self, index: usize) {
        let committed = self.committed();
        let replica = &mut self.replicas[index];
        if replica.forgiven && replica.out == committed {
            replica.forgiven = false;
            replica.running = None;
            replica.differs = None;
            replica.verified = committed;
        }
    }

    /// Deals with differences that were noticed. Whether anything changed.
    pub(super) fn judge<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) -> bool {
        let mut changed = false;
        for index in 0..self.replicas.len() {
            self.forgive(index);
            let replica = &mut self.replicas[index];
            let Some(difference) = &mut replica.differs else {
                continue;
            };
            if replica.forgiven || core::mem::replace(&mut difference.counted, true) {
                continue;
            }
            let offset = difference.offset;
            let joining = replica.state == ReplicaState::Joining;
            changed = true;
            if self.policy.divergence != Divergence::Ignore {
                let replica = index as ReplicaIndex;
                self.tell(drive, EventKind::Diverged { replica, offset });
            }
            if joining {
                self.evict(drive, index, EvictCause::Diverged);
            } else if self.policy.divergence == Divergence::Reset {
                drive.client.abort();
                self.end(drive, EndCause::Diverged);
                return true;
            }
        }
        if self.policy.divergence == Divergence::Evict {
            changed |= self.evict_minority(drive);
        }
        changed
    }

    /// Evicts the minority, as soon as it is known which one that is.
    fn evict_minority<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) -> bool {
        let differs = |replica: &Replica| {
            let counts = replica.is_in_sync() || replica.state == ReplicaState::Lagging;
            counts && replica.differs.is_some() && !replica.forgiven
        };
        let offsets = self.replicas.iter().filter(|r| differs(r));
        let Some(offset) = offsets.filter_map(|r| r.differs).map(|d| d.offset).max() else {
            return false;
        };
        let count = |which: &dyn Fn(&Replica) -> bool| {
            let in_sync = self.replicas.iter().filter(|r| r.is_in_sync());
            in_sync.filter(|r| which(r)).count()
        };
        let against = count(&differs);
        let known = count(&|r| r.agrees() && r.verified >= offset);
        let unknown = count(&|r| r.agrees() && r.verified < offset);
        // A tie is the client's stream's: it cannot be taken back.
        if self.policy.commit != Commit::Primary || against <= known {
            for index in 0..self.replicas.len() {
                if differs(&self.replicas[index]) {
                    self.evict(drive, index, EvictCause::Diverged);
                }
            }
            return true;
        }
        if against <= known + unknown || !self.differ_alike() {
            return false;
        }
        self.follow_majority(drive);
        true
    }

    /// Whether all replicas in sync that differ have the same output, as far as the client's goes.
    fn differ_alike(&self) -> bool {
        let committed = self.committed();
        let others = self
            .replicas
            .iter()
            .filter(|r| r.is_in_sync() && r.differs.is_some());
        let mut hashes = others.map(|r| match &r.running {
            Some(running) if r.out == committed => Some(&running.hash),
            _ => None,
        });
        let first = hashes.next().flatten();
        first.is_some() && hashes.all(|hash| hash == first)
    }

    /// The client was sent what most replicas do not have: on with them.
    fn follow_majority<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) {
        for index in 0..self.replicas.len() {
            if self.replicas[index].agrees() {
                self.evict(drive, index, EvictCause::Diverged);
            } else if self.replicas[index].is_in_sync() {
                self.replicas[index].forgiven = true;
                self.forgive(index);
            }
        }
    }
}
