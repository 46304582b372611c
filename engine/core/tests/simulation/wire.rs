//! Links that lose, repeat, delay, overtake and garble.

use super::dice::Dice;
use lockstep_core::Micros;
use std::time::Duration;

/// How a link treats packets. Chances are of ten thousand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    pub lost: u32,
    pub repeated: u32,
    /// Held back, so that others overtake it.
    pub late: u32,
    /// One bit is turned.
    pub garbled: u32,
    /// The way takes that long, in microseconds.
    pub delay: u64,
    /// And that much more at times.
    pub jitter: u64,
    /// The longest a late packet is held back.
    pub late_by: u64,
}

impl Weather {
    /// Sends a packet off at `now`: when which copies arrive.
    pub fn carry(
        &self,
        dice: &mut Dice,
        now: Micros,
        packet: Vec<u8>,
        mut arrives: impl FnMut(Micros, Vec<u8>),
    ) {
        if dice.chance(self.lost) {
            return;
        }
        let copies = 1 + usize::from(dice.chance(self.repeated));
        for _ in 0..copies {
            let mut delay = self.delay + dice.below(self.jitter + 1);
            if dice.chance(self.late) {
                delay += dice.below(self.late_by + 1);
            }
            let mut packet = packet.clone();
            if dice.chance(self.garbled) {
                let bit = dice.below(8 * packet.len() as u64);
                packet[(bit / 8) as usize] ^= 1 << (bit % 8);
            }
            // A burst is what comes within ten microseconds.
            let at = (now + Duration::from_micros(delay)).get();
            arrives(Micros::new(at - at % 10 + 10), packet);
        }
    }
}
