//! Losses that nothing shows: the last segments of what was sent have none behind them that would
//! make the peer complain, and smoltcp's retransmission timer waits for a second at least.
//!
//! As RFC 8985 section 7 does, something is sent again after two round trips without an
//! acknowledgment, once for each step forward. Unlike there it is the first segment that is
//! missing, which also fills one hole after the other where several were lost.

use crate::Micros;
use core::time::Duration;

/// How much longer than two round trips the peer may take: its timers, its scheduler.
const MARGIN: Duration = Duration::from_millis(20);
/// And where only one segment is in flight, whose acknowledgment it may delay (RFC 8985's
/// `TLP.max_ack_delay`; RFC 1122 section 4.2.3.2 allows more, and the timer is left to that).
const DELAYED: Duration = Duration::from_millis(200);

/// What was sent last, and how long acknowledgments take. Sequence numbers are as the peer sees
/// them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tail {
    /// Smoothed round trip.
    rtt: Option<Duration>,
    /// A sequence number whose acknowledgment is timed, and when it was sent.
    timed: Option<(u32, Micros)>,
    /// The sequence number behind the last one sent.
    next: u32,
    /// The last acknowledgment.
    acknowledged: u32,
    /// When something was last sent or acknowledged that was not before.
    moved: Micros,
    /// Whether the first missing segment was sent again since.
    probed: bool,
}

impl Tail {
    /// Of a connection whose handshake is over and took that long: nothing is in flight.
    pub fn new(next: u32, rtt: Option<Duration>) -> Self {
        Tail {
            rtt,
            next,
            acknowledged: next,
            ..Tail::default()
        }
    }

    /// What was sent reaches up to `next`; `again` when some of it had been sent before.
    pub fn sent(&mut self, now: Micros, next: u32, again: bool) {
        if again {
            // Which of both is acknowledged cannot be told (Karn; RFC 6298 section 3).
            self.timed = None;
        }
        if is_behind(self.next, next) {
            self.next = next;
            self.moved = now;
            self.probed = false;
            if !again {
                self.timed.get_or_insert((next, now));
            }
        }
    }

    /// An acknowledgment has come.
    pub fn acknowledged(&mut self, now: Micros, number: u32) {
        if !is_behind(self.acknowledged, number) || is_behind(self.next, number) {
            return;
        }
        self.acknowledged = number;
        self.moved = now;
        self.probed = false;
        if let Some((until, at)) = self.timed
            && !is_behind(number, until)
        {
            let sample = now.since(at);
            self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
            self.timed = None;
        }
    }

    /// When the first missing segment has to be sent again. None while nothing is in flight, or
    /// nothing is known of the round trip.
    pub fn due(&self, mss: u32) -> Option<Micros> {
        let flight = self.next.wrapping_sub(self.acknowledged);
        let rtt = self.rtt.filter(|_| flight > 0 && !self.probed)?;
        let margin = if flight <= mss { DELAYED } else { MARGIN };
        Some(self.moved + rtt * 2 + margin)
    }

    /// The first missing segment is sent again.
    pub fn probe(&mut self) {
        self.probed = true;
        self.timed = None;
    }
}

/// Whether a sequence number is before another (RFC 9293 section 3.4).
fn is_behind(number: u32, other: u32) -> bool {
    (other.wrapping_sub(number) as i32) > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1_460;

    fn ms(ms: u64) -> Micros {
        Micros::new(ms * 1_000)
    }

    /// A connection that was measured: 10 ms.
    fn measured(start: u32) -> Tail {
        let mut tail = Tail::new(start, None);
        tail.sent(ms(0), start.wrapping_add(100), false);
        assert_eq!(tail.due(MSS), None);
        tail.acknowledged(ms(10), start.wrapping_add(100));
        assert_eq!(tail.due(MSS), None);
        tail
    }

    #[test]
    fn two_round_trips_after_the_last_step_it_is_time_once() {
        for start in [0, 0xffff_ff00] {
            let mut tail = measured(start);
            let sent = start.wrapping_add(100 + 5 * MSS);
            tail.sent(ms(100), sent, false);
            assert_eq!(tail.due(MSS), Some(ms(140)));
            tail.acknowledged(ms(110), start.wrapping_add(100 + 2 * MSS));
            assert_eq!(tail.due(MSS), Some(ms(150)));
            tail.probe();
            assert_eq!(tail.due(MSS), None);
            // The hole is filled, there is another one behind it.
            tail.acknowledged(ms(160), start.wrapping_add(100 + 3 * MSS));
            assert_eq!(tail.due(MSS), Some(ms(200)));
            tail.acknowledged(ms(170), sent);
            assert_eq!(tail.due(MSS), None);
        }
    }

    #[test]
    fn a_single_segment_waits_for_a_delayed_acknowledgment() {
        let mut tail = measured(0);
        tail.sent(ms(100), 200, false);
        assert_eq!(tail.due(MSS), Some(ms(320)));
    }

    #[test]
    fn nobody_measures_what_was_sent_twice_or_believes_what_was_not_sent() {
        let mut tail = Tail::new(0, None);
        tail.sent(ms(0), 100, false);
        tail.sent(ms(50), 100, true);
        tail.acknowledged(ms(60), 100);
        assert_eq!(tail.rtt, None);
        tail.sent(ms(70), 200, false);
        tail.acknowledged(ms(80), 900);
        assert_eq!(tail.rtt, None);
        tail.acknowledged(ms(90), 200);
        assert_eq!(tail.rtt, Some(Duration::from_millis(20)));
    }
}
