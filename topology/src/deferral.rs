//! How long an interface leaves its packets to a worker that takes them in itself.

use std::fmt;

/// For how long, and how many times, a device waits to be asked for packets before it interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deferral {
    /// Polls without a packet after which its interrupts are on again (`napi_defer_hard_irqs`).
    pub polls: u64,
    /// Nanoseconds from one poll until the kernel makes the next one itself (`gro_flush_timeout`).
    pub nanoseconds: u64,
}

impl Deferral {
    /// What `receive = "worker"` needs.
    ///
    /// A worker with packets asks every few microseconds. One that sleeps, or is gone, is missed for
    /// this long, which a ring of 256 packets outlasts at ten million a second.
    pub const FOR_WORKERS: Deferral = Deferral {
        polls: 2,
        nanoseconds: 20_000,
    };

    /// The files of sysfs that hold it, in the order of [`Deferral::values`].
    pub const FILES: [&'static str; 2] = ["napi_defer_hard_irqs", "gro_flush_timeout"];

    /// What the files hold.
    pub const fn values(self) -> [u64; 2] {
        [self.polls, self.nanoseconds]
    }
}

impl fmt::Display for Deferral {
    /// As the files say it: `napi_defer_hard_irqs 2 and gro_flush_timeout 20000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([polls, nanoseconds], [first, second]) = (self.values(), Self::FILES);
        write!(f, "{first} {polls} and {second} {nanoseconds}")
    }
}
