//! What the client gets, and who has said the same (rules 3 and 7).

use super::replica::{Difference, ReplicaState, Running};
use super::{Drive, Session, Stage};
use crate::Micros;
use crate::replicate::event::EventKind;
use crate::replicate::leg::{Leg, Phase};
use arrayvec::ArrayVec;
use lockstep_plan::Commit;

impl Session {
    /// Sees how much output there is.
    pub(super) fn measure<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) {
        let (committed, now) = (self.committed(), drive.now);
        let mut available = false;
        for index in 0..self.replicas.len() {
            let Some(leg) = drive.leg(index) else {
                continue;
            };
            let replica = &mut self.replicas[index];
            if !replica.is_live() {
                continue;
            }
            let position = replica.out + leg.readable() as u64;
            replica.ended = leg.is_finished();
            if position > replica.position {
                let counters = &drive.resources.counters.by_backend;
                let bytes = counters.of(replica.candidate.backend);
                bytes.output.add(position - replica.position);
                replica.position = position;
                replica.moved_at = now;
            }
            available |= replica.is_in_sync() && position > committed;
        }
        // Where the client's window is closed, it is the client that is waited for.
        if !available || drive.client.room() == 0 {
            self.available_at = None;
        } else if self.available_at.is_none() {
            self.available_at = Some(now);
        }
    }

    /// Reads who is behind, up to the committed offset, and checks it at the chain's checkpoints and
    /// where it catches up.
    pub(super) fn catch_up<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) {
        for index in 0..self.replicas.len() {
            let replica = &self.replicas[index];
            if replica.is_live() && replica.out < self.committed() {
                self.catch_up_one(drive, index);
            }
        }
    }

    fn catch_up_one<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>, index: usize) {
        let (committed, keeps) = (self.committed(), self.keeps_hashes());
        let replica = &mut self.replicas[index];
        let Some(leg) = drive.legs.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        while replica.out < committed {
            let (next, digest) = match self.chain.next_checkpoint(replica.out) {
                Some((at, digest)) if replica.running.is_some() => (at, Some(digest)),
                _ => (committed, None),
            };
            let front = leg.front();
            let length = front.len().min(as_length(next - replica.out));
            if length == 0 {
                break;
            }
            if let Some(running) = &mut replica.running {
                running.update(&front[..length]);
            }
            leg.consume(length);
            replica.out += length as u64;
            let Some(running) = &replica.running else {
                continue;
            };
            let same = match digest {
                Some(digest) if replica.out == next => running.hash == digest,
                _ if replica.out == committed => running.hash == *self.chain.head(),
                _ => continue,
            };
            if same && replica.differs.is_none() {
                replica.verified = replica.out;
            } else if replica.differs.is_none() {
                replica.differs = Some(Difference {
                    offset: replica.out,
                    counted: false,
                });
            }
            let checked = replica.out == committed && replica.differs.is_none();
            if checked || (replica.differs.is_some() && !keeps) {
                replica.running = None;
            }
        }
        replica.ended = leg.is_finished();
    }

    /// What a replica had said before its connection was lost is as good as what it said before: the
    /// client gets it, as far as it has room.
    pub(super) fn hear_last_words<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) {
        let mut replicas = self.replicas.iter().enumerate();
        let speaks = replicas.any(|(index, replica)| {
            let leg = drive.legs.get(index).and_then(Option::as_ref);
            let lost = |leg: &L| matches!(leg.phase(), Phase::Lost(_)) && leg.readable() > 0;
            replica.is_live() && leg.is_some_and(lost)
        });
        if speaks && self.stage == Stage::Serving && !self.closed {
            self.measure(drive);
            self.catch_up(drive);
            self.commit(drive);
        }
    }

    /// Gives the client what may be committed.
    pub(super) fn commit<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) -> bool {
        let before = self.committed();
        if self.closed {
            return false;
        }
        while let room @ 1.. = drive.client.room() {
            let source = match self.policy.commit {
                Commit::Primary => self.primary_front(drive, room),
                Commit::Quorum(_) => self.agreed_front(drive, room),
            };
            let Some((source, length)) = source else {
                break;
            };
            if !self.commit_piece(drive, source, length) {
                break;
            }
        }
        let count = self.committed() - before;
        if count == 0 {
            return false;
        }
        self.disputed_at = None;
        drive.resources.counters.output_bytes.add(count);
        self.account(drive);
        true
    }

    /// What the primary has at the committed offset.
    fn primary_front<L: Leg>(
        &mut self,
        drive: &mut Drive<'_, '_, L>,
        room: usize,
    ) -> Option<(usize, usize)> {
        let primary = self.primary?;
        if !self.replicas[primary].is_level(self.committed()) {
            return None;
        }
        let length = drive.leg(primary)?.front().len().min(room);
        (length > 0).then_some((primary, length))
    }

    /// What enough replicas have at the committed offset, and one of them. The primary comes first,
    /// then the others in the order in which they would be elected.
    fn agreed_front<L: Leg>(
        &mut self,
        drive: &mut Drive<'_, '_, L>,
        room: usize,
    ) -> Option<(usize, usize)> {
        let committed = self.committed();
        let mut voters: ArrayVec<usize, { super::MAX_REPLICAS }> = (0..self.replicas.len())
            .filter(|i| self.replicas[*i].agrees() && self.replicas[*i].is_level(committed))
            .filter(|i| drive.leg(*i).is_some_and(|leg| leg.readable() > 0))
            .collect();
        if voters.len() < self.quorum() {
            self.disputed_at = None;
            return None;
        }
        voters.sort_by_key(|i| (self.primary != Some(*i), self.rank(*i)));
        for source in voters.iter().copied() {
            let mut agreed: ArrayVec<usize, { super::MAX_REPLICAS }> = voters
                .iter()
                .filter(|other| **other != source)
                .map(|other| self.agreement(drive, source, *other))
                .collect();
            agreed.sort_unstable_by(|a, b| b.cmp(a));
            let length = match self.quorum() {
                0 | 1 => drive.leg(source)?.front().len(),
                quorum => agreed.get(quorum - 2).copied()?,
            };
            if length > 0 {
                return Some((source, length.min(room)));
            }
        }
        // All have bytes, and no quorum has the same ones.
        self.disputed_at.get_or_insert(drive.now);
        None
    }

    /// How many bytes two replicas agree on, from the committed offset.
    fn agreement<L: Leg>(
        &self,
        drive: &mut Drive<'_, '_, L>,
        source: usize,
        other: usize,
    ) -> usize {
        let Ok([Some(source), Some(other)]) = drive.legs.get_disjoint_mut([source, other]) else {
            return 0;
        };
        let (front, other) = (source.front(), other.front());
        let length = front.len().min(other.len());
        self.masker.compare(front, other).unwrap_or(length)
    }

    /// Sends a piece of a replica's output to the client, and sees what the others have there.
    fn commit_piece<L: Leg>(
        &mut self,
        drive: &mut Drive<'_, '_, L>,
        source: usize,
        length: usize,
    ) -> bool {
        let Some(leg) = drive.legs.get_mut(source).and_then(Option::as_mut) else {
            return false;
        };
        let length = drive.client.write(&leg.front()[..length]);
        if length == 0 {
            return false;
        }
        let committed = self.committed();
        for other in 0..self.replicas.len() {
            if other != source && self.replicas[other].out == committed {
                self.settle(drive, source, other, length);
            }
        }
        let Some(leg) = drive.legs.get_mut(source).and_then(Option::as_mut) else {
            return false;
        };
        self.chain.commit(&leg.front()[..length], &mut self.masker);
        leg.consume(length);
        let replica = &mut self.replicas[source];
        replica.out += length as u64;
        replica.verified = replica.out;
        replica.ended = leg.is_finished();
        true
    }

    /// Compares what a replica has with what is being committed, and consumes it. If it has less, or
    /// something else, it is behind from there on.
    fn settle<L: Leg>(
        &mut self,
        drive: &mut Drive<'_, '_, L>,
        source: usize,
        other: usize,
        length: usize,
    ) {
        let (compares, offset) = (self.compares(), self.committed());
        let keeps = self.keeps_hashes();
        let replica = &mut self.replicas[other];
        if matches!(replica.state, ReplicaState::Evicted(_)) {
            return;
        }
        let Ok([Some(source), leg]) = drive.legs.get_disjoint_mut([source, other]) else {
            return;
        };
        let piece = &source.front()[..length];
        let mut same = 0;
        if let (Some(leg), true) = (leg, replica.is_live()) {
            let front = leg.front();
            same = front.len().min(length);
            if compares && replica.differs.is_none() {
                if let Some(differs) = self.masker.compare(piece, &front[..same]) {
                    same = differs;
                    replica.differs = Some(Difference {
                        offset: offset + same as u64,
                        counted: false,
                    });
                }
            } else if let Some(running) = &mut replica.running {
                running.update(&front[..same]);
            }
            leg.consume(same);
            replica.ended = leg.is_finished();
        }
        replica.out += same as u64;
        let behind = match replica.differs {
            Some(_) => keeps,
            None => same < length,
        };
        if compares && replica.running.is_none() && behind {
            let mut running = Running {
                hash: *self.chain.head(),
                masker: self.masker.clone(),
            };
            running.update(&piece[..same]);
            replica.running = Some(running);
        }
        if replica.differs.is_none() {
            replica.verified = replica.out;
        }
    }

    /// Times of what was committed: how long it waited, and how long the client did.
    fn account<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) {
        let counters = drive.resources.counters;
        let since = self.available_at.take();
        if let Some(since) = since {
            counters.commit_delay.record(as_micros(drive.now, since));
        }
        let waited_from = self.waited_from.take().or(since).unwrap_or(drive.now);
        if core::mem::take(&mut self.resumes) {
            let gap = as_micros(drive.now, waited_from);
            counters.gap.record(gap);
            self.tell(drive, EventKind::Resumed { gap });
        }
        self.committed_at = Some(drive.now);
    }
}

fn as_micros(now: Micros, earlier: Micros) -> u64 {
    now.get().saturating_sub(earlier.get())
}

fn as_length(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
