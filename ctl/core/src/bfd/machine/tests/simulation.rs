//! Two machines and a wire that delays and loses.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Numbers that look random, the same ones for a seed (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.roll() >> 11) % n
    }
}

/// How the wire treats packets.
#[derive(Debug, Clone, Copy)]
struct Weather {
    /// In microseconds: the least delay, and what may come on top.
    delay: (u64, u64),
    /// Of a hundred packets.
    loss: u64,
    /// After this many losses in a row on one way, a packet gets through.
    in_a_row: u64,
}

struct World {
    now: Duration,
    ends: [Machine; 2],
    alive: [bool; 2],
    flying: BTreeMap<(Duration, u64), (usize, Packet)>,
    sent: u64,
    lost_in_a_row: [u64; 2],
    dice: Dice,
    weather: Weather,
}

impl World {
    fn new(settings: [Settings; 2], weather: Weather, seed: u64) -> Self {
        let mut dice = Dice(seed | 1 << 40);
        let ends = [0, 1].map(|end| {
            let number = NonZeroU32::new(100 + end as u32).unwrap();
            Machine::new(settings[end], number, MS(0), dice.roll() as u16)
        });
        World {
            now: MS(0),
            ends,
            alive: [true; 2],
            flying: BTreeMap::new(),
            sent: 0,
            lost_in_a_row: [0; 2],
            dice,
            weather,
        }
    }

    fn send(&mut self, from: usize, packet: Packet) {
        let lost = &mut self.lost_in_a_row[from];
        if self.dice.below(100) < self.weather.loss && *lost < self.weather.in_a_row {
            *lost += 1;
            return;
        }
        *lost = 0;
        let (least, more) = self.weather.delay;
        let delay = Duration::from_micros(least + self.dice.below(more + 1));
        self.sent += 1;
        // Over the wire as bytes.
        let packet = Packet::parse(&packet.emit()).expect("what we write is valid");
        self.flying
            .insert((self.now + delay, self.sent), (1 - from, packet));
    }

    /// Lets time pass, one event after the other.
    fn run_until(&mut self, end: Duration, mut look: impl FnMut(&[Machine; 2], Duration)) {
        loop {
            let living = |end: &usize| self.alive[*end];
            let ends = [0, 1].into_iter().filter(living);
            let deadline = ends.filter_map(|end| self.ends[end].next_deadline()).min();
            let arrival = self.flying.keys().next().map(|(at, _)| *at);
            let next = deadline.into_iter().chain(arrival).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            while let Some(entry) = self.flying.first_entry()
                && entry.key().0 <= self.now
            {
                let (to, packet) = entry.remove();
                if self.alive[to]
                    && let Some(answer) = self.ends[to].receive(self.now, &packet)
                {
                    self.send(to, answer);
                }
            }
            for end in [0, 1] {
                let random = self.dice.roll() as u16;
                if self.alive[end]
                    && let Some(packet) = self.ends[end].tick(self.now, random)
                {
                    self.send(end, packet);
                }
            }
            look(&self.ends, self.now);
        }
    }

    fn both_up(&self) -> bool {
        self.ends.iter().all(|end| end.state() == State::Up)
    }
}

const CALM: Weather = Weather {
    delay: (200, 0),
    loss: 0,
    in_a_row: 0,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn losses_that_must_be_borne_never_take_a_session_down(seed in any::<u64>(), loss in 0u64..60) {
        // Jitter shortens intervals only: with a delay that stays the same, one packet of three
        // is always in time.
        let weather = Weather { delay: (500, 0), loss, in_a_row: 2 };
        let mut world = World::new([settings(50, 50, 3), settings(70, 30, 3)], weather, seed);
        world.run_until(MS(20_000), |_, _| {});
        prop_assert!(world.both_up());
        let ups = world.ends.each_ref().map(Machine::ups);
        world.run_until(MS(120_000), |ends, now| {
            assert!(ends.iter().all(|end| end.state() == State::Up), "{now:?}");
        });
        prop_assert_eq!(ups, world.ends.each_ref().map(Machine::ups));
    }

    #[test]
    fn a_dead_neighbor_is_noticed_within_the_detection_time(
        seed in any::<u64>(),
        (a, b) in ((10u64..500, 10u64..500, 2u8..6), (10u64..500, 10u64..500, 2u8..6)),
        death in 5_000u64..8_000,
    ) {
        let settings = [settings(a.0, a.1, a.2), settings(b.0, b.1, b.2)];
        let mut world = World::new(settings, CALM, seed);
        world.run_until(MS(death), |_, _| {});
        prop_assert!(world.both_up());
        world.alive[1] = false;
        let detection = world.ends[0].detection();
        prop_assert_eq!(detection, settings[0].receive.max(settings[1].transmit) * u32::from(b.2));
        world.run_until(MS(death) + detection + MS(1), |_, _| {});
        prop_assert_eq!(world.ends[0].state(), State::Down);
        prop_assert_eq!(world.ends[0].diagnostic(), Diagnostic::DetectionTimeExpired);
        // It comes back with another number, as a daemon that was restarted.
        let number = NonZeroU32::new(999).unwrap();
        world.ends[1] = Machine::new(settings[1], number, world.now, 0);
        world.alive[1] = true;
        world.run_until(MS(death) + MS(8_000), |_, _| {});
        prop_assert!(world.both_up());
    }

    #[test]
    fn intervals_change_under_a_session_that_stays_up(seed in any::<u64>(), changes in proptest::collection::vec((10u64..400, 10u64..400, 2u8..6, 0usize..2), 1..20)) {
        let weather = Weather { delay: (200, 100), loss: 0, in_a_row: 0 };
        let mut world = World::new([settings(50, 50, 3); 2], weather, seed);
        world.run_until(MS(5_000), |_, _| {});
        prop_assert!(world.both_up());
        let mut last = [settings(50, 50, 3); 2];
        for (transmit, receive, multiplier, end) in changes {
            last[end] = settings(transmit, receive, multiplier);
            world.ends[end].configure(last[end]);
            let until = world.now + MS(u64::from(multiplier) * 37);
            world.run_until(until, |ends, now| {
                assert!(ends.iter().all(|end| end.state() == State::Up), "{now:?}");
            });
        }
        let until = world.now + MS(3_000);
        world.run_until(until, |_, _| {});
        for end in [0, 1] {
            let (mine, theirs) = (last[end], last[1 - end]);
            prop_assert_eq!(world.ends[end].interval(), mine.transmit.max(theirs.receive));
            let expected = mine.receive.max(theirs.transmit) * u32::from(theirs.multiplier);
            prop_assert_eq!(world.ends[end].detection(), expected);
        }
    }
}
