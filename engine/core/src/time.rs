//! Time: as flow entries keep it, and as sessions do.

use core::time::Duration;

/// Whole seconds since some moment before the engine's start, modulo 2^16.
///
/// Idle times are at most 12 hours and the sweep passes every entry within seconds, so that 16
/// bits tell any two moments apart that are ever compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seconds(u16);

impl Seconds {
    /// Seconds of a monotonic clock.
    pub const fn new(seconds: u64) -> Self {
        // The truncation is the point: arithmetic on it wraps.
        Seconds((seconds & 0xffff) as u16)
    }

    /// The second that a moment is in.
    pub const fn at(moment: Micros) -> Self {
        Seconds::new(moment.get() / 1_000_000)
    }

    /// The moment that many seconds before, at most the 12 hours that are ever told apart.
    pub const fn before(self, seconds: u32) -> Self {
        let most = 12 * 3600;
        let seconds = if seconds < most { seconds } else { most };
        Seconds(self.0.wrapping_sub(seconds as u16))
    }

    /// Seconds from `earlier` to `self`.
    pub const fn since(self, earlier: Seconds) -> u32 {
        self.0.wrapping_sub(earlier.0) as u32
    }
}

/// Microseconds of a monotonic clock since some moment before the engine's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Micros(u64);

impl Micros {
    /// The clock's start.
    pub const ZERO: Micros = Micros(0);

    /// That many microseconds after the start.
    pub const fn new(micros: u64) -> Self {
        Micros(micros)
    }

    /// Microseconds since the start.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`; zero when that is later.
    pub const fn since(self, earlier: Micros) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl core::ops::Add<Duration> for Micros {
    type Output = Micros;

    fn add(self, by: Duration) -> Micros {
        // A duration of 580,000 years is as good as any longer one.
        let by = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        Micros(self.0.saturating_add(by))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_hold_across_the_wrap() {
        assert_eq!(Seconds::new(65_540).since(Seconds::new(65_530)), 10);
        assert_eq!(Seconds::new(43_200).since(Seconds::new(0)), 43_200);
    }
}
