//! The clock of stamps, and the turn of a loop that has nothing to do.

use anyhow::Result;
use lockstep_xsk::Port;
use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// How far ahead the next thing to do has to be for a thread to sleep until then. Waking up takes
/// longer than half of it hardly ever.
const SLEEP: u64 = 200_000;
/// So much of it is not slept.
const EARLY: u64 = 100_000;
/// The longest sleep.
const LONGEST: u64 = 100_000_000;

/// Nanoseconds of `CLOCK_MONOTONIC`: the same for all threads and processes of a host.
#[inline]
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock");
    // It counts from the start of the machine, and is never negative.
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// Leaves the CPU to others until `next`, or until something comes. On a CPU that is shared with what
/// is tested, that is how it gets on with its work.
#[inline]
pub fn idle<'a>(ports: impl IntoIterator<Item = &'a Port>, now: u64, next: u64) -> Result<()> {
    let ahead = next.saturating_sub(now);
    if ahead < SLEEP {
        std::thread::yield_now();
        return Ok(());
    }
    let time = Duration::from_nanos(ahead.min(LONGEST) - EARLY);
    lockstep_xsk::wait(ports, None, time)?;
    Ok(())
}
