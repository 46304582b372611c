//! The invariants, as far as one drive shows them. Debug builds check them after each.

use super::replica::ReplicaState;
use super::{Session, Stage};

impl Session {
    pub(super) fn check(&self) {
        if matches!(self.stage, Stage::Ended(_)) {
            return;
        }
        let committed = self.committed();
        assert_eq!(self.masker.position(), committed);
        let draining = self.closed;
        for (index, replica) in self.replicas.iter().enumerate() {
            assert!(replica.fed <= self.log.end(), "fed what is not there");
            assert!(replica.out <= committed || draining, "read past the client");
            assert!(
                replica.verified <= replica.out,
                "verified what was not read"
            );
            let primary = self.primary == Some(index);
            assert!(!primary || replica.is_in_sync(), "a primary out of sync");
            match replica.state {
                ReplicaState::InSync => {
                    assert!(replica.connected && replica.accepted);
                    assert!(replica.fed >= self.log.start(), "its input is gone");
                }
                ReplicaState::Evicted(_) => assert!(!replica.connected),
                ReplicaState::Joining | ReplicaState::Lagging => {}
            }
            let behind = replica.out < committed;
            let compared = self.compares() && replica.is_live() && !draining;
            if compared && behind && replica.differs.is_none() {
                assert!(replica.running.is_some(), "behind, and not checked");
            }
        }
        if self.stage == Stage::Serving && !self.closed && self.primary.is_none() {
            assert!(
                !self.replicas.iter().any(|r| r.is_in_sync()),
                "nobody was elected"
            );
        }
    }
}
