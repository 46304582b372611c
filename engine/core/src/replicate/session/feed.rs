//! The client's bytes, into the log and from there to every replica at its own pace (rules 1, 5, 9).

use super::{Drive, Session, Stage};
use crate::replicate::chunks::CHUNK;
use crate::replicate::event::{EventKind, EvictCause};
use crate::replicate::leg::Leg;
use crate::replicate::log::Read;
use crate::replicate::session::replica::ReplicaState;

/// Bytes that the fastest replica may be behind while the memory of all logs is nearly used up.
const SCARCE: u64 = 4 * CHUNK as u64;

impl Session {
    /// Reads the client, as far as the fastest replica in sync keeps up and no slow one is waited
    /// for. What is not read closes the client's window.
    pub(super) fn ingest<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) {
        let refused_at = self.refused_at.take();
        if self.slowed_at.is_some() || self.usable() < self.quorum() || self.log.is_finished() {
            return;
        }
        let acknowledged = self.committed() - self.unacknowledged(drive);
        loop {
            // What nobody reads must not take the memory of sessions whose replicas do read.
            let scarce = drive.resources.pool.is_low();
            let window = if scarce {
                SCARCE.min(self.lag_limit() / 2)
            } else {
                self.lag_limit() / 2
            };
            let room = window.saturating_sub(self.log.end() - self.fastest());
            let front = drive.client.front();
            if front.is_empty() || room == 0 {
                break;
            }
            let length = front.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            let gate = self.gate(drive, acknowledged);
            self.log.gate(gate);
            let front = &drive.client.front()[..length];
            let mut taken = self.log.append(front, drive.resources.pool);
            if taken < length {
                self.release(drive);
                let front = &drive.client.front()[taken..length];
                taken += self.log.append(front, drive.resources.pool);
            }
            drive.client.consume(taken);
            drive.resources.counters.input_bytes.add(taken as u64);
            if taken < length {
                self.refused_at = refused_at.or(Some(drive.now));
                self.again = true;
                break;
            }
        }
        if drive.client.is_finished() {
            self.log.finish();
            self.finish_gate = self.gate(drive, acknowledged);
        }
    }

    /// Without room for the client's bytes for too long, the log stops waiting for the disk.
    fn hurry<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) {
        let grace = self.policy.grace;
        if self.log.is_spilling() && self.refused_at.is_some_and(|at| drive.now >= at + grace) {
            self.log.give_up(drive.resources.spill);
        }
    }

    /// Committed bytes that the client has not acknowledged.
    fn unacknowledged<L: Leg>(&self, drive: &Drive<'_, '_, L>) -> u64 {
        // The FIN may be counted too: it stands behind all bytes.
        (drive.client.unacknowledged() as u64).min(self.committed())
    }

    /// How far the fastest replica in sync has been fed.
    pub(super) fn fastest(&self) -> u64 {
        let in_sync = self.replicas.iter().filter(|r| r.is_in_sync());
        in_sync.map(|r| r.fed).max().unwrap_or(self.log.end())
    }

    /// Gives each replica what it has not been given and may have.
    pub(super) fn feed<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) {
        for index in 0..self.replicas.len() {
            if self.replicas[index].is_live() {
                self.feed_one(drive, index);
            }
        }
    }

    fn feed_one<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>, index: usize) {
        let out = self.replicas[index].out;
        let Some(leg) = drive.leg(index) else {
            return;
        };
        // What it has sent counts, read or not: it was offered.
        let covered = out + leg.readable() as u64;
        let covered = self.covers(drive, index, covered);
        let Some(leg) = drive.legs.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let replica = &mut self.replicas[index];
        let before = replica.fed;
        loop {
            let allowed = self.log.allowed(replica.fed, covered) - replica.fed;
            if allowed == 0 || leg.room() == 0 {
                break;
            }
            match self.log.read(replica.fed) {
                Read::Bytes(bytes) => {
                    let length = bytes
                        .len()
                        .min(usize::try_from(allowed).unwrap_or(usize::MAX));
                    let written = leg.write(&bytes[..length]);
                    replica.fed += written as u64;
                    let counters = &drive.resources.counters.by_backend;
                    let bytes = counters.of(replica.candidate.backend);
                    bytes.input.add(written as u64);
                    if written < length {
                        break;
                    }
                }
                Read::Spilled => {
                    let resources = &mut *drive.resources;
                    self.log
                        .request(replica.fed, resources.pool, resources.spill);
                    self.again = true;
                    break;
                }
                Read::Gone | Read::End => break,
            }
        }
        if replica.fed > before {
            replica.moved_at = drive.now;
        }
        let complete = self.log.is_finished() && replica.fed == self.log.end();
        if complete && !replica.finished && covered >= self.finish_gate {
            leg.finish();
            replica.finished = true;
        }
    }

    /// Lets go of input, and of replicas whose input is gone. Whether anything changed.
    pub(super) fn let_go<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) -> bool {
        self.hurry(drive);
        self.release(drive);
        let mut changed = false;
        for index in 0..self.replicas.len() {
            let replica = &self.replicas[index];
            // One that waits for its group is as good as connected.
            let waits = replica.state == ReplicaState::Joining && replica.first;
            let concerned = replica.connected || waits;
            if concerned && self.log.read(replica.fed) == Read::Gone {
                self.evict(drive, index, EvictCause::LogCut);
                changed = true;
            }
        }
        changed
    }

    /// Lets go of what nobody in sync needs any more, and tells when the log is cut.
    fn release<L: Leg>(&mut self, drive: &mut Drive<'_, '_, L>) {
        let in_sync = self.replicas.iter().filter(|r| r.is_in_sync());
        let needed = in_sync.map(|r| r.fed).min();
        let Some(needed) = needed.or((self.stage != Stage::Serving).then_some(self.log.end()))
        else {
            // Without a replica everything is kept: one that comes back needs all of it.
            return;
        };
        // Without rejoin, who lags still reads there, and so does who has not accepted yet.
        let behind = self.replicas.iter().any(|r| match r.state {
            ReplicaState::Joining => r.connected || r.first,
            ReplicaState::Lagging => true,
            // One that lagged until no other was left.
            ReplicaState::InSync => r.fed < self.log.spilled_bytes(),
            ReplicaState::Evicted(_) => false,
        });
        let keep = self.log.is_whole() && self.policy.rejoin || behind;
        let resources = &mut *drive.resources;
        self.log
            .release(needed, keep, resources.pool, resources.spill);
        let spilled = self.log.spilled_bytes();
        if !self.replicas.iter().any(|r| r.is_live() && r.fed < spilled) {
            self.log.forget_windows(resources.pool);
        }
        if !self.log.is_whole() && !self.log_cut {
            self.log_cut = true;
            if let Some(group) = &mut drive.resources.group {
                group.cut();
            }
            self.tell(drive, EventKind::LogCut);
        }
    }
}
