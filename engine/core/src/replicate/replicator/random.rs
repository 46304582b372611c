//! Numbers nobody outside can guess, from the worker's seed.

use core::hash::Hasher;
use siphasher::sip::SipHasher13;

/// SipHash of a counter.
pub(super) struct Random {
    key: [u64; 2],
    count: u64,
}

impl Random {
    pub(super) fn new(key: [u64; 2]) -> Self {
        Random { key, count: 0 }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.count += 1;
        let mut hasher = SipHasher13::new_with_keys(self.key[0], self.key[1]);
        hasher.write_u64(self.count);
        hasher.finish()
    }
}
