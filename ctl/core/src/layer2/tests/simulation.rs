//! Some balancers on a link that delays, loses and parts, while they are killed, frozen and
//! started again, and while somebody sends again what they once said. What must hold is looked at
//! after every event.

use super::*;
use proptest::prelude::*;

const INTERVAL: Duration = MS_200;
/// The longest delay of the link.
const DELAY: u64 = 20;
/// The most hellos that the attacker remembers.
const RECORDED: usize = 2_000;
const SECOND: Duration = Duration::from_secs(1);

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

struct Node {
    name: String,
    election: Option<Election>,
    frozen: bool,
    /// What came while it was frozen.
    waiting: Vec<Hello>,
    /// Which part of the link it is on.
    side: bool,
    lost_before: bool,
}

struct World {
    now: Duration,
    nodes: Vec<Node>,
    flying: BTreeMap<(Duration, u64), (usize, Hello)>,
    sent: u64,
    vips: Vec<IpAddr>,
    loss: u64,
    /// What somebody wrote down, and sends again.
    recorded: Option<Vec<Hello>>,
    dice: Dice,
    /// When a fault was last made or mended.
    fault: Duration,
    two_owners: BTreeMap<IpAddr, Duration>,
    no_owner: BTreeMap<IpAddr, Duration>,
}

impl World {
    fn new(members: usize, vips: u32, loss: u64, seed: u64) -> Self {
        let node = |n: usize| Node {
            name: format!("lb{n}"),
            election: None,
            frozen: false,
            waiting: Vec::new(),
            side: false,
            lost_before: false,
        };
        let mut world = World {
            now: MS(0),
            nodes: (0..members).map(node).collect(),
            flying: BTreeMap::new(),
            sent: 0,
            vips: (0..vips).map(vip).collect(),
            loss,
            recorded: None,
            dice: Dice(seed | 1 << 50),
            fault: MS(0),
            two_owners: BTreeMap::new(),
            no_owner: BTreeMap::new(),
        };
        for n in 0..members {
            world.start(n);
        }
        world
    }

    fn start(&mut self, n: usize) {
        self.begin(n);
        self.offer(n);
    }

    fn offer(&mut self, n: usize) {
        let election = self.nodes[n].election.as_mut();
        election.unwrap().offer(self.now, self.vips.iter().copied());
    }

    /// It has its last word, and ends.
    fn end_for_a_restart(&mut self, n: usize) {
        for _ in 0..3 {
            let next = self.now + MS(25);
            let Some(mut election) = self.nodes[n].election.take() else {
                return;
            };
            election.restart(self.now);
            if let Some(hello) = election.tick(self.now) {
                self.send(n, &hello);
            }
            self.nodes[n].election = Some(election);
            self.step_to(next);
        }
        self.nodes[n].election = None;
        self.fault = self.now;
    }

    /// Begins to listen, and does not know yet what it serves.
    fn begin(&mut self, n: usize) {
        let names = self.nodes.iter().map(|node| node.name.clone());
        let name = self.nodes[n].name.clone();
        let peers: Vec<String> = names.filter(|other| *other != name).collect();
        let life = self.dice.below(1 << 53);
        let election = Election::new(("g", &name), peers, TIMING, life, self.now);
        self.nodes[n].election = Some(election);
        self.nodes[n].frozen = false;
    }

    /// Writes down what is said on either side, and sends something of it to anybody, as often as
    /// the balancers themselves say something.
    fn replay(&mut self, hello: &Hello) {
        let Some(recorded) = &mut self.recorded else {
            return;
        };
        match recorded.len() {
            0..RECORDED => recorded.push(hello.clone()),
            _ => recorded[self.dice.below(RECORDED as u64) as usize] = hello.clone(),
        }
        let hello = recorded[self.dice.below(recorded.len() as u64) as usize].clone();
        let to = self.dice.below(self.nodes.len() as u64) as usize;
        if self.nodes[to].name != hello.name {
            let at = self.now + Duration::from_micros(self.dice.below(DELAY * 1_000));
            self.sent += 1;
            self.flying.insert((at, self.sent), (to, hello));
        }
    }

    fn send(&mut self, from: usize, hello: &Hello) {
        self.replay(hello);
        for to in 0..self.nodes.len() {
            if to == from || self.nodes[to].side != self.nodes[from].side {
                continue;
            }
            let lost = !self.nodes[to].lost_before && self.dice.below(100) < self.loss;
            self.nodes[to].lost_before = lost;
            if lost {
                continue;
            }
            let at = self.now + Duration::from_micros(self.dice.below(DELAY * 1_000));
            self.sent += 1;
            let hello = Hello::parse(&hello.emit()).expect("what we write is valid");
            self.flying.insert((at, self.sent), (to, hello));
        }
    }

    fn step_to(&mut self, end: Duration) {
        loop {
            let deadline = |node: &Node| {
                let election = node.election.as_ref().filter(|_| !node.frozen)?;
                Some(election.next_deadline().max(self.now))
            };
            let deadline = self.nodes.iter().filter_map(deadline).min();
            let arrival = self.flying.keys().next().map(|(at, _)| *at);
            let Some(next) = deadline.into_iter().chain(arrival).min() else {
                self.now = end;
                return;
            };
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            while let Some(entry) = self.flying.first_entry()
                && entry.key().0 <= self.now
            {
                let (to, hello) = entry.remove();
                let node = &mut self.nodes[to];
                match &mut node.election {
                    Some(_) if node.frozen => node.waiting.push(hello),
                    Some(election) => drop(election.receive(self.now, hello)),
                    None => {}
                }
            }
            for n in 0..self.nodes.len() {
                let node = &mut self.nodes[n];
                let election = node.election.as_mut().filter(|_| !node.frozen);
                if let Some(hello) = election.and_then(|election| election.tick(self.now)) {
                    self.send(n, &hello);
                }
            }
            self.look();
        }
    }

    /// At most one owner on a side but for an interval, and one after a second without faults.
    fn look(&mut self) {
        // A hello, its delay, and how long the hello before holds up an urgent one; once more where
        // it is lost.
        let hello = INTERVAL + MS(DELAY) + INTERVAL / 16;
        // The answer that proves who lives takes its way, too.
        let hello = hello + MS(DELAY);
        let grace = if self.loss == 0 { hello } else { hello * 3 };
        // What was never received may be received late, where somebody wrote it down; and an
        // answer waits for one that is given to a recording.
        let (late, waits) = match &self.recorded {
            Some(_) => (INTERVAL * FRESH, 2 * INTERVAL),
            None => (MS(0), MS(0)),
        };
        let grace = grace + waits;
        for vip in &self.vips {
            let mut two = false;
            let mut none = false;
            for side in [false, true] {
                let living = |node: &&Node| node.side == side && !node.frozen;
                let elections = self.nodes.iter().filter(living);
                let elections: Vec<&Election> = elections
                    .filter_map(|node| node.election.as_ref())
                    .collect();
                let owners = elections.iter().filter(|e| e.owned().contains_key(vip));
                let owners = owners.count();
                two |= owners > 1;
                none |= owners == 0 && !elections.is_empty();
            }
            note(&mut self.two_owners, *vip, two, self.now);
            note(&mut self.no_owner, *vip, none, self.now);
            if let Some(since) = self.two_owners.get(vip) {
                let long = self.now - *since;
                assert!(
                    long <= grace,
                    "{vip} had two owners for {long:?} at {:?}",
                    self.now
                );
            }
            if let Some(since) = self.no_owner.get(vip) {
                let long = self.now - (*since).max(self.fault);
                assert!(
                    long <= SECOND + late,
                    "{vip} had no owner for {long:?} at {:?}",
                    self.now
                );
            }
        }
    }

    /// Breaks or mends something.
    fn disturb(&mut self) {
        self.fault = self.now;
        let n = self.dice.below(self.nodes.len() as u64) as usize;
        match self.dice.below(7) {
            0 => self.nodes[n].election = None,
            1 | 2 if self.nodes[n].election.is_none() => self.start(n),
            3 if self.nodes[n].election.is_some() && !self.nodes[n].frozen => {
                self.nodes[n].frozen = true;
            }
            4 if self.nodes[n].frozen => self.thaw(n),
            5 => {
                for node in &mut self.nodes {
                    node.side = self.dice.below(2) == 0;
                }
                self.flying.clear();
            }
            6 if self.nodes[n].election.is_some() && !self.nodes[n].frozen => {
                self.end_for_a_restart(n);
            }
            _ => {
                for node in &mut self.nodes {
                    node.side = false;
                }
            }
        }
    }

    fn thaw(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.frozen = false;
        let waiting = std::mem::take(&mut node.waiting);
        if let Some(election) = &mut node.election {
            for hello in waiting {
                election.receive(self.now, hello);
            }
        }
    }

    fn mend(&mut self) {
        self.loss = 0;
        self.fault = self.now;
        for n in 0..self.nodes.len() {
            self.nodes[n].side = false;
            if self.nodes[n].frozen {
                self.thaw(n);
            }
            if self.nodes[n].election.is_none() {
                self.start(n);
            }
        }
    }

    fn shares(&self) -> Vec<usize> {
        let nodes = self.nodes.iter().filter_map(|node| node.election.as_ref());
        nodes.map(|election| election.owned().len()).collect()
    }
}

fn note(since: &mut BTreeMap<IpAddr, Duration>, vip: IpAddr, is: bool, now: Duration) {
    match is {
        true => drop(since.entry(vip).or_insert(now)),
        false => drop(since.remove(&vip)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, max_shrink_iters: 30, ..ProptestConfig::default() })]

    #[test]
    fn one_owner_whatever_happens(
        seed in any::<u64>(),
        members in 2usize..=6,
        loss in prop_oneof![Just(0u64), 1u64..15],
        faults in 1usize..25,
        attacked in any::<bool>(),
    ) {
        let mut world = World::new(members, 6, loss, seed);
        world.recorded = attacked.then(Vec::new);
        for _ in 0..faults {
            let pause = MS(10 + world.dice.below(3_000));
            let next = world.now + pause;
            world.step_to(next);
            world.disturb();
        }
        world.mend();
        // The longest way back to where everything belongs: silence, then `hold`.
        let end = world.now + TIMING.hold + 3 * SECOND;
        world.step_to(end);
        for vip in &world.vips {
            let names = world.nodes.iter().map(|node| node.name.as_str());
            let best = names.max_by_key(|name| rank::rank(*vip, name)).unwrap();
            for node in &world.nodes {
                prop_assert_eq!(node.election.as_ref().unwrap().owner(*vip), Some(best));
            }
        }
    }

    #[test]
    fn a_killed_owner_is_replaced_within_a_second(seed in any::<u64>(), members in 2usize..=8, at in 8_000u64..9_000) {
        let mut world = World::new(members, 10, 0, seed);
        world.step_to(MS(at));
        prop_assert!(world.no_owner.is_empty() && world.two_owners.is_empty());
        let before: Vec<Option<BTreeSet<IpAddr>>> = (world.nodes.iter())
            .map(|node| node.election.as_ref().map(|e| e.owned().keys().copied().collect()))
            .collect();
        world.nodes[0].election = None;
        world.fault = world.now;
        // Death is noticed after three intervals and a delay; nothing more is waited for.
        world.step_to(MS(at) + 3 * INTERVAL + MS(2 * DELAY));
        prop_assert!(world.no_owner.is_empty(), "{:?}", world.no_owner);
        // Nothing moved but what had to.
        for (node, before) in world.nodes.iter().zip(before).skip(1) {
            let now = node.election.as_ref().unwrap().owned();
            prop_assert!(before.unwrap().iter().all(|vip| now.contains_key(vip)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 30, ..ProptestConfig::default() })]

    #[test]
    fn a_restart_moves_nothing(
        seed in any::<u64>(),
        members in 2usize..=4,
        (away, engine) in (0u64..700, 0u64..2_000),
    ) {
        let mut world = World::new(members, 6, 0, seed);
        world.step_to(MS(8_000));
        let owned = |world: &World, n: usize| -> BTreeSet<IpAddr> {
            let election = world.nodes[n].election.as_ref().unwrap();
            election.owned().keys().copied().collect()
        };
        let before: Vec<_> = (0..members).map(|n| owned(&world, n)).collect();
        world.end_for_a_restart(0);
        let back = world.now + MS(away);
        world.step_to(back);
        world.begin(0);
        // While its engine takes its time, nobody looks for an owner.
        let knows = world.now + MS(engine);
        while world.now < knows {
            world.fault = world.now;
            let next = (world.now + MS(100)).min(knows);
            world.step_to(next);
        }
        world.offer(0);
        world.fault = world.now;
        let after = world.now + 4 * INTERVAL;
        world.step_to(after);
        for (n, before) in before.iter().enumerate() {
            prop_assert_eq!(&owned(&world, n), before);
        }
    }
}

#[test]
fn shares_are_even() {
    let mut world = World::new(4, 400, 0, 7);
    world.step_to(MS(2_000));
    let shares = world.shares();
    assert_eq!(shares.iter().sum::<usize>(), 400);
    // 100 each, with a standard deviation of 9.
    assert!(shares.iter().all(|n| (65..135).contains(n)), "{shares:?}");
}
