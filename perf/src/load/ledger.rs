//! What arrived of each flow: once, out of order, once more.

/// Bits of memory for all flows together: a flow's share of them is how far back it is known which
/// packets came.
const BITS: usize = 1 << 26;
const WORD: usize = u64::BITS as usize;
/// Words of a flow, at least and at most.
const WORDS: (usize, usize) = (1, 1 << 10);

/// Counts by flow and sequence number.
///
/// A packet is reordered when one of the same flow that was sent later came before it: when its
/// sequence number is below the next one expected (RFC 4737, section 3.3). Of a packet that comes
/// twice, the second does not count as reordered but as a duplicate (RFC 5560). A packet that is
/// further behind than its flow is remembered counts as reordered, since nobody knows whether it
/// came before.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// The next sequence number that each flow expects.
    next: Vec<u32>,
    /// Whether the packet came, for those last before `next`: a ring of bits for each flow.
    came: Vec<u64>,
    /// Words of a flow, a power of two.
    words: usize,
    counts: Counts,
}

/// What a ledger has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets, each once.
    pub received: u64,
    /// Those of them that came too late for their order.
    pub reordered: u64,
    /// Packets that came once more.
    pub duplicated: u64,
}

impl Ledger {
    /// For flows from 0 up to, but not including, `flows`.
    pub fn new(flows: u32) -> Self {
        let flows = flows as usize;
        let share = BITS / WORD / flows.max(1);
        let words = share.clamp(WORDS.0, WORDS.1);
        // The power of two below.
        let words = 1 << words.ilog2();
        Ledger {
            next: vec![0; flows],
            came: vec![0; flows * words],
            words,
            counts: Counts::default(),
        }
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether it counts, for the latency: not a duplicate, nor of a flow that there is not.
    #[inline]
    pub fn arrived(&mut self, flow: u32, sequence: u32) -> bool {
        let flow = flow as usize;
        let Some(next) = self.next.get_mut(flow) else {
            return false;
        };
        let window = self.words * WORD;
        let bits = &mut self.came[flow * self.words..][..self.words];
        let at = sequence as usize % window;
        let (word, bit) = (at / WORD, 1_u64 << (at % WORD));
        if sequence >= *next {
            forget(bits, *next, sequence);
            *next = sequence.saturating_add(1);
        } else if (*next - sequence) as usize > window {
            self.counts.reordered += 1;
            self.counts.received += 1;
            return true;
        } else if bits[word] & bit != 0 {
            self.counts.duplicated += 1;
            return false;
        } else {
            self.counts.reordered += 1;
        }
        bits[word] |= bit;
        self.counts.received += 1;
        true
    }
}

/// Packets from `next` up to, but not including, `sequence` have not come.
#[inline]
fn forget(bits: &mut [u64], next: u32, sequence: u32) {
    let window = bits.len() * WORD;
    let gap = (sequence - next) as usize;
    if gap >= window {
        bits.fill(0);
        return;
    }
    // The packet's own bit is of one a whole window before.
    for at in next..=sequence {
        let at = at as usize % window;
        bits[at / WORD] &= !(1 << (at % WORD));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// As plainly as it can be said, with all the memory it likes.
    #[derive(Default)]
    struct Naive {
        came: BTreeSet<(u32, u32)>,
        counts: Counts,
    }

    impl Naive {
        fn arrived(&mut self, flow: u32, sequence: u32) {
            let mut later = self.came.range((flow, sequence + 1)..=(flow, u32::MAX));
            let late = later.next().is_some();
            if !self.came.insert((flow, sequence)) {
                self.counts.duplicated += 1;
                return;
            }
            self.counts.received += 1;
            self.counts.reordered += u64::from(late);
        }
    }

    fn counts(flows: u32, arrivals: &[(u32, u32)]) -> Counts {
        let mut ledger = Ledger::new(flows);
        for (flow, sequence) in arrivals {
            ledger.arrived(*flow, *sequence);
        }
        ledger.counts()
    }

    #[test]
    fn rows_of_rfc_4737() {
        for (says, sequences, received, reordered, duplicated) in [
            ("in order", &[0, 1, 2, 3][..], 4, 0, 0),
            ("a loss is no reordering", &[0, 2, 3], 3, 0, 0),
            ("one late, its table 1", &[0, 1, 2, 4, 5, 3, 6], 7, 1, 0),
            ("two exchanged", &[1, 0, 3, 2], 4, 2, 0),
            ("one early", &[3, 0, 1, 2, 4], 5, 3, 0),
            ("one twice", &[0, 1, 1, 2], 3, 0, 1),
            ("one late twice", &[0, 2, 1, 1, 3], 4, 1, 1),
        ] {
            let arrivals: Vec<_> = sequences.iter().map(|at| (0, *at)).collect();
            let expected = Counts {
                received,
                reordered,
                duplicated,
            };
            assert_eq!(counts(1, &arrivals), expected, "{says}");
        }
    }

    #[test]
    fn flows_do_not_mix_and_others_do_not_count() {
        let arrivals = [(0, 5), (1, 0), (1, 1), (0, 4), (2, 0), (1, 1)];
        let expected = Counts {
            received: 4,
            reordered: 1,
            duplicated: 1,
        };
        assert_eq!(counts(2, &arrivals), expected);
        assert!(!Ledger::new(2).arrived(2, 0));
    }

    #[test]
    fn a_window_is_bounded_and_far_ahead_is_fine() {
        let mut ledger = Ledger::new(1 << 20);
        assert_eq!(ledger.words, 1);
        for sequence in [0, 63, 64, 1_000, 1_000_000, u32::MAX - 1] {
            assert!(ledger.arrived(7, sequence));
        }
        assert_eq!(ledger.counts().reordered, 0);
        assert!(ledger.arrived(7, 0), "nobody knows any more");
        assert_eq!(ledger.counts().reordered, 1);
        assert_eq!(Ledger::new(1).words, 1 << 10);
    }

    proptest! {
        #[test]
        fn it_counts_what_the_naive_one_does(
            arrivals in prop::collection::vec((0_u32..3, 0_u32..60), 0..400),
        ) {
            let mut naive = Naive::default();
            arrivals.iter().for_each(|(flow, sequence)| naive.arrived(*flow, *sequence));
            prop_assert_eq!(counts(3, &arrivals), naive.counts);
        }

        /// Long flows, as a path delivers them: forward, with packets lost, late and twice, none of
        /// them by more than the smallest window.
        #[test]
        fn also_over_many_windows(
            steps in prop::collection::vec((0_u32..40, 0_u32..64), 0..500),
        ) {
            let mut naive = Naive::default();
            let mut ledger = Ledger::new(1 << 20);
            let mut newest = 0_u32;
            for (ahead, behind) in steps {
                newest += ahead;
                for sequence in [newest, newest.saturating_sub(behind)] {
                    naive.arrived(0, sequence);
                    ledger.arrived(0, sequence);
                }
            }
            prop_assert_eq!(ledger.counts(), naive.counts);
        }
    }
}
