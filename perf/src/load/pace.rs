//! When packets are due: an open loop.

/// Frames that are given out at a time at most.
const BURST: u64 = 64;

/// Sends at a fixed rate, whatever comes of it. Times are nanoseconds of one clock.
///
/// Each packet has a time at which it is due, which no stall moves. What could not be sent then is
/// sent as soon as it can be, but no faster than a quarter above the rate for longer than a burst: a
/// stall is not followed by a flood that the tested path was never to carry.
#[derive(Debug, Clone)]
pub struct Pace {
    start: u64,
    /// Packets a second.
    rate: u64,
    /// All that are due in the end.
    total: u64,
    sent: u64,
    /// Packets that may go out now beyond what was sent, in units of 1 / `UNIT` packets.
    allowance: u64,
    /// When the allowance was last counted up.
    last: u64,
}

const SECOND: u64 = 1_000_000_000;
/// No rate is above this: a packet each nanosecond.
pub const MOST: u64 = SECOND;
/// Fractions of a packet that the allowance is counted in.
const UNIT: u64 = 1 << 20;

impl Pace {
    /// `rate` packets a second (one at least, [`MOST`] at most) for `duration` nanoseconds from `start` on.
    pub fn new(start: u64, rate: u64, duration: u64) -> Self {
        let rate = rate.clamp(1, MOST);
        let total = u128::from(rate) * u128::from(duration) / u128::from(SECOND);
        Pace {
            start,
            rate,
            total: u64::try_from(total).unwrap_or(u64::MAX),
            sent: 0,
            allowance: BURST * UNIT,
            last: start,
        }
    }

    /// How many may be sent now: [`BURST`] at most.
    #[inline]
    pub fn due(&mut self, now: u64) -> u64 {
        let since = now.saturating_sub(self.last);
        if since > 0 {
            self.last = now;
            // Above a burst it is cut off anyway, so a long time does no harm.
            let gained = u128::from(since) * u128::from(self.rate) * u128::from(UNIT) * 5 / 4;
            let gained = u64::try_from(gained / u128::from(SECOND)).unwrap_or(u64::MAX);
            self.allowance = self.allowance.saturating_add(gained).min(BURST * UNIT);
        }
        self.backlog(now).min(self.allowance / UNIT)
    }

    /// When the next packet is, or was, due: its stamp.
    #[inline]
    pub fn intended(&self) -> u64 {
        self.time_of(self.sent)
    }

    /// When the packet with this number is due.
    #[inline]
    pub fn time_of(&self, number: u64) -> u64 {
        let after = u128::from(number) * u128::from(SECOND) / u128::from(self.rate);
        self.start + after as u64
    }

    /// One of those that were due was sent.
    #[inline]
    pub fn sent_one(&mut self) {
        self.sent += 1;
        self.allowance = self.allowance.saturating_sub(UNIT);
    }

    /// How many were sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// How many are due and not sent.
    #[inline]
    pub fn backlog(&self, now: u64) -> u64 {
        if now < self.start {
            return 0;
        }
        let since = u128::from(now - self.start) * u128::from(self.rate) / u128::from(SECOND);
        // The first is due at the start itself.
        let due = (since as u64).saturating_add(1).min(self.total);
        due.saturating_sub(self.sent)
    }

    /// Whether their time is over: that of the last one, too, until the next would be due.
    #[inline]
    pub fn is_over(&self, now: u64) -> bool {
        now >= self.time_of(self.total)
    }

    /// How many there are altogether.
    pub fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: u64 = 5_000;

    /// Sends all that may be sent at each of these times; returns (time, intended time) of each.
    fn sent(pace: &mut Pace, times: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
        let mut sent = Vec::new();
        for now in times {
            for _ in 0..pace.due(now) {
                sent.push((now, pace.intended()));
                pace.sent_one();
            }
        }
        sent
    }

    #[test]
    fn packets_go_out_when_they_are_due() {
        let mut pace = Pace::new(START, 1_000, SECOND);
        let times = (0..1_100_000).map(|at| START + at * 1_000);
        let sent = sent(&mut pace, times);
        assert_eq!(sent.len(), 1_000);
        for (number, (at, intended)) in (0_u64..).zip(&sent) {
            assert_eq!(*intended, START + number * 1_000_000);
            assert!((*intended..*intended + 1_000).contains(at));
        }
        assert_eq!(pace.backlog(u64::MAX), 0);
        assert!(pace.is_over(START + SECOND) && !pace.is_over(START + SECOND - 1));
    }

    #[test]
    fn after_a_stall_stamps_stay_and_what_is_late_does_not_flood() {
        let rate = 100_000;
        let mut pace = Pace::new(0, rate, SECOND);
        let before: Vec<u64> = (0..100_000).map(|at| at * 1_000).collect();
        let stalled = sent(&mut pace, before);
        assert_eq!(stalled.len(), 10_000);
        // Nothing for 100 ms, then a turn each microsecond.
        let after = (200_000..1_000_000).map(|at| at * 1_000);
        let sent = sent(&mut pace, after);
        assert_eq!(sent.len(), 90_000);
        assert_eq!(sent[0], (200_000_000, 100_000_000));
        // 10,000 behind, and 25,000 a second faster: 0.4 s until all is on time again.
        let late = |(at, intended): &&(u64, u64)| at - intended > 1_000_000;
        let last = sent.iter().rfind(late).unwrap();
        assert!((590_000_000..610_000_000).contains(&last.0), "{last:?}");
        for at in (200_000_000..600_000_000).step_by(10_000_000) {
            let within = sent
                .iter()
                .filter(|(now, _)| (at..at + 10_000_000).contains(now));
            assert!(within.count() <= 1_250 + 64);
        }
    }

    #[test]
    fn a_huge_rate_and_a_long_time_do_not_overflow() {
        let mut pace = Pace::new(0, u64::MAX, 1 << 60);
        assert_eq!(pace.due(1 << 59), 64);
        assert_eq!(Pace::new(0, 0, SECOND).total(), 1);
    }

    proptest! {
        #[test]
        fn nothing_is_early_or_skipped(
            rate in 1_u64..2_000_000,
            steps in prop::collection::vec(1_u64..2_000_000, 1..300),
        ) {
            let mut pace = Pace::new(START, rate, SECOND);
            let mut now = START;
            let mut number = 0;
            for step in steps {
                now += step;
                let due = pace.due(now);
                prop_assert!(due <= BURST && due <= pace.backlog(now));
                for _ in 0..due {
                    prop_assert!(pace.intended() <= now);
                    prop_assert_eq!(pace.intended(), pace.time_of(number));
                    pace.sent_one();
                    number += 1;
                }
            }
            prop_assert_eq!(pace.sent(), number);
        }
    }
}
