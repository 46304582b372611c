//! Time as flow entries keep it.

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

    /// Seconds from `earlier` to `self`.
    pub const fn since(self, earlier: Seconds) -> u32 {
        self.0.wrapping_sub(earlier.0) as u32
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
