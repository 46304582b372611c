//! Two sides against each other, both connecting, with connections that are slow, refused, cut,
//! and seen to be cut at different times: in the end there is one session, the same for both.

use super::*;
use std::collections::BTreeMap;

/// A connection: its ends are slots of the two sides, while they have it.
#[derive(Default)]
struct Wire {
    ends: [Option<Slot>; 2],
}

/// What will happen to a side.
enum Later {
    /// Its attempt reaches the other side, or is refused.
    Attempt(u64),
    /// Bytes come by a connection.
    Bytes(usize, Vec<u8>),
    /// The end of a connection is seen.
    End(usize),
}

struct World {
    now: Timestamp,
    sides: [Peer; 2],
    settings: [Settings; 2],
    wires: Vec<Wire>,
    /// By time, then in the order in which it was sent.
    later: BTreeMap<(Timestamp, u64), (usize, Later)>,
    /// The last time at which something comes by a connection to a side: TCP keeps the order.
    order: BTreeMap<(usize, usize), Timestamp>,
    /// The number of the attempt under way.
    attempts: [Option<u64>; 2],
    number: u64,
    random: Random,
    /// Until when connections are refused and cut.
    calm: Timestamp,
}

impl World {
    fn new(seed: u64, both: [Settings; 2]) -> Self {
        let now = NOW;
        let mut world = World {
            now,
            sides: [0, 1].map(|n| Peer::new(both[n].clone(), None, seed ^ n as u64, now)),
            settings: both,
            wires: Vec::new(),
            later: BTreeMap::new(),
            order: BTreeMap::new(),
            attempts: [None; 2],
            number: 0,
            random: Random(seed),
            calm: now.after(Duration::from_secs(60)),
        };
        (0..2).for_each(|side| world.carry_out(side));
        world
    }

    fn chance(&mut self, of_256: u8) -> bool {
        self.random.fraction() < of_256
    }

    fn soon(&mut self, side: usize, what: Later) {
        let delay = u64::from(self.random.fraction());
        let mut at = self.now.after(Duration::from_millis(delay));
        if let Later::Bytes(wire, _) | Later::End(wire) = what {
            let last = self.order.entry((wire, side)).or_insert(at);
            at = at.max(*last);
            *last = at;
        }
        self.number += 1;
        self.later.insert((at, self.number), (side, what));
    }

    fn wire_of(&self, side: usize, slot: Slot) -> Option<usize> {
        (self.wires.iter()).position(|w| w.ends[side] == Some(slot))
    }

    fn carry_out(&mut self, side: usize) {
        while let Some(output) = self.sides[side].poll() {
            match output {
                Output::Connect => {
                    self.number += 1;
                    self.attempts[side] = Some(self.number);
                    let attempt = Later::Attempt(self.number);
                    self.soon(side, attempt);
                }
                Output::Accept(_) => unreachable!("taken where it is asked for"),
                Output::Send(slot, say) => {
                    let bytes = bytes(&self.settings[side], &say);
                    if let Some(wire) = self.wire_of(side, slot) {
                        self.soon(1 - side, Later::Bytes(wire, bytes));
                    }
                }
                Output::Close(slot) => {
                    if slot == Slot::OURS {
                        self.attempts[side] = None;
                    }
                    if let Some(wire) = self.wire_of(side, slot) {
                        self.wires[wire].ends[side] = None;
                        self.soon(1 - side, Later::End(wire));
                    }
                }
                Output::Up(_) | Output::Down | Output::Refresh(_) => {}
            }
        }
    }

    /// The other side is connected to. Returns its slot.
    fn accept(&mut self, side: usize, wire: usize) -> bool {
        self.sides[side].handle(self.now, Event::Accepted);
        let mut rest = Vec::new();
        let mut given = None;
        while let Some(output) = self.sides[side].poll() {
            match output {
                Output::Accept(slot) => given = slot,
                Output::Close(slot) if given.is_none() => {
                    // One that gives way to this.
                    if let Some(old) = self.wire_of(side, slot) {
                        self.wires[old].ends[side] = None;
                        self.soon(1 - side, Later::End(old));
                    }
                }
                other => rest.push(other),
            }
        }
        self.wires[wire].ends[side] = given;
        for output in rest {
            match (output, given) {
                (Output::Send(slot, say), Some(given)) if slot == given => {
                    let bytes = bytes(&self.settings[side], &say);
                    self.soon(1 - side, Later::Bytes(wire, bytes));
                }
                (other, _) => panic!("{other:?}"),
            }
        }
        given.is_some()
    }

    fn attempt(&mut self, side: usize) {
        self.attempts[side] = None;
        if self.now < self.calm && self.chance(60) {
            return self.sides[side].handle(self.now, Event::Refused("lost".to_owned()));
        }
        let wire = self.wires.len();
        self.wires.push(Wire::default());
        self.wires[wire].ends[side] = Some(Slot::OURS);
        if !self.accept(1 - side, wire) {
            self.soon(side, Later::End(wire));
        }
        self.sides[side].handle(self.now, Event::Connected);
    }

    fn step(&mut self) {
        let next = self.later.first_key_value().map(|((at, _), _)| *at);
        let timer = |side: usize| self.sides[side].next_deadline();
        let due = (0..2).filter_map(|side| Some((timer(side)?, side))).min();
        match (next, due) {
            (Some(next), due) if due.is_none_or(|(at, _)| next <= at) => {
                let (_, (side, what)) = self.later.pop_first().unwrap();
                self.now = self.now.max(next);
                self.happen(side, what);
                self.carry_out(side);
            }
            (_, Some((at, side))) => {
                self.now = self.now.max(at);
                self.sides[side].handle(self.now, Event::Timer);
                self.carry_out(side);
            }
            (_, None) => unreachable!("a side has a timer always"),
        }
    }

    fn happen(&mut self, side: usize, what: Later) {
        match what {
            Later::Attempt(number) if self.attempts[side] == Some(number) => self.attempt(side),
            Later::Attempt(_) => {}
            Later::Bytes(wire, bytes) => {
                let Some(slot) = self.wires[wire].ends[side] else {
                    return;
                };
                if self.now < self.calm && self.chance(8) {
                    // The connection is cut here, and seen there some time later.
                    self.wires[wire].ends[side] = None;
                    self.soon(1 - side, Later::End(wire));
                    return self.sides[side].handle(self.now, Event::Closed(slot));
                }
                let event = Event::Received(slot, message(&bytes));
                self.sides[side].handle(self.now, event);
            }
            Later::End(wire) => {
                if let Some(slot) = self.wires[wire].ends[side].take() {
                    self.sides[side].handle(self.now, Event::Closed(slot));
                }
            }
        }
    }

    /// Whether both have a session, by the same connection.
    fn converged(&self) -> bool {
        let wire = |side: usize| {
            let (slot, _) = self.sides[side].session()?;
            self.wire_of(side, slot)
        };
        wire(0).is_some() && wire(0) == wire(1)
    }
}

fn converges(seed: u64, both: [Settings; 2]) {
    let mut world = World::new(seed, both);
    let end = world.calm.after(Duration::from_secs(120));
    while world.now < end {
        world.step();
    }
    assert!(world.converged(), "seed {seed}");
    let flaps: Vec<u64> = world.sides.iter().map(|s| s.counters().flaps).collect();
    let quiet = world.now.after(Duration::from_secs(60));
    while world.now < quiet {
        world.step();
        assert!(world.converged(), "seed {seed}");
    }
    let after: Vec<u64> = world.sides.iter().map(|s| s.counters().flaps).collect();
    assert_eq!(after, flaps, "seed {seed}");
}

#[test]
fn both_sides_come_to_one_session_however_connections_cross_and_break() {
    for seed in 0..400 {
        let mut both = [settings(1, 2), settings(2, 1)];
        if seed % 2 == 0 {
            both[1].graceful_restart = None;
        }
        if seed % 3 == 0 {
            both[0].passive = true;
        }
        converges(seed, both);
    }
}
