use super::*;
use proptest::prelude::*;

const TIMING: Timing = Timing {
    duration: Duration::from_secs(15),
    renew_deadline: Duration::from_secs(10),
    retry: Duration::from_secs(2),
};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The API server's part: one Lease with optimistic locking.
#[derive(Default)]
struct Server {
    lease: Option<Lease>,
    version: u64,
    /// Who has held it, by its transitions.
    holders: Vec<String>,
}

impl Server {
    fn write(&mut self, holder: &str, transitions: i32) -> Answer {
        self.version += 1;
        let lease = Lease {
            holder: holder.to_owned(),
            transitions,
            version: self.version.to_string(),
        };
        if self.holders.last().is_none_or(|last| last != holder) {
            self.holders.push(holder.to_owned());
        }
        self.lease = Some(lease.clone());
        Answer::Is(lease)
    }

    fn serve(&mut self, me: &str, step: &Step) -> Answer {
        match (step, self.lease.clone()) {
            (Step::Get, None) | (Step::Update { .. }, None) => Answer::Missing,
            (Step::Get, Some(lease)) => Answer::Is(lease),
            (Step::Create, None) => self.write(me, 0),
            (Step::Create, Some(_)) => Answer::Conflict,
            (
                Step::Update {
                    version,
                    transitions,
                    ..
                },
                Some(lease),
            ) => {
                if lease.version == *version {
                    self.write(me, *transitions)
                } else {
                    Answer::Conflict
                }
            }
            (Step::Wait(_), _) => unreachable!("nothing is asked"),
        }
    }
}

/// Everything that is due at `now`.
fn run(machine: &mut Machine, me: &str, server: &mut Server, now: Duration) -> Duration {
    for _ in 0..10 {
        match machine.next(now) {
            Step::Wait(until) => return until,
            step => {
                let answer = server.serve(me, &step);
                machine.answer(now, answer);
            }
        }
    }
    panic!("it does not come to rest");
}

#[test]
fn the_first_one_makes_it_and_renews_it() {
    let (mut server, mut a) = (Server::default(), Machine::new("a".to_owned(), TIMING));
    assert_eq!(a.next(s(1)), Step::Get);
    a.answer(s(1), Answer::Missing);
    assert_eq!(a.next(s(1)), Step::Create);
    assert!(!a.holds(s(1)));
    let answer = server.serve("a", &Step::Create);
    a.answer(s(1), answer);
    assert!(a.holds(s(1)) && a.holder() == Some("a"));
    assert_eq!(a.next(s(1)), Step::Wait(s(3)));
    let renewal = Step::Update {
        version: "1".to_owned(),
        renews: true,
        transitions: 0,
    };
    assert_eq!(a.next(s(3)), renewal);
}

#[test]
fn another_waits_until_it_has_not_changed_for_its_duration() {
    let mut server = Server::default();
    let (mut a, mut b) = (
        Machine::new("a".to_owned(), TIMING),
        Machine::new("b".to_owned(), TIMING),
    );
    run(&mut a, "a", &mut server, s(0));
    // Its own clock is another one, by far.
    let other = s(1_000_000);
    run(&mut b, "b", &mut server, other);
    assert!(!b.holds(other) && b.holder() == Some("a"));
    for now in (2..15).step_by(2) {
        run(&mut b, "b", &mut server, other + s(now));
        assert!(!b.holds(other + s(now)), "{now}");
    }
    run(&mut b, "b", &mut server, other + s(16));
    assert!(b.holds(other + s(16)));
    assert_eq!(server.lease.as_ref().unwrap().transitions, 1);
    // By then the first one is none any more, by its own clock.
    assert!(a.holds(s(9)) && !a.holds(s(10)));
    run(&mut a, "a", &mut server, s(16));
    assert!(!a.holds(s(16)) && a.holder() == Some("b"));
}

#[test]
fn one_that_is_let_go_is_taken_at_the_next_look() {
    let mut server = Server::default();
    let (mut a, mut b) = (
        Machine::new("a".to_owned(), TIMING),
        Machine::new("b".to_owned(), TIMING),
    );
    run(&mut a, "a", &mut server, s(0));
    run(&mut b, "b", &mut server, s(1));
    let lease = a.release(s(2)).expect("it holds it");
    assert!(!a.holds(s(2)));
    assert_eq!(lease.version, server.lease.as_ref().unwrap().version);
    server.write("", lease.transitions);
    run(&mut b, "b", &mut server, s(3));
    assert!(b.holds(s(3)));
    assert_eq!(a.release(s(3)), None);
}

#[test]
fn a_holder_without_answers_stops_at_the_deadline_and_goes_on_when_they_come() {
    let (mut server, mut a) = (Server::default(), Machine::new("a".to_owned(), TIMING));
    run(&mut a, "a", &mut server, s(0));
    let mut now = s(0);
    while now < s(8) {
        match a.next(now) {
            Step::Wait(until) => now = until,
            _ => a.answer(now, Answer::Failed),
        }
    }
    assert!(a.holds(s(9)));
    assert!(!a.holds(s(10)));
    // Nobody else has taken it: it is renewed, not taken.
    run(&mut a, "a", &mut server, s(60));
    assert!(a.holds(s(60)));
    assert_eq!(server.holders, ["a"]);
}

#[test]
fn a_renewal_counts_from_when_it_was_begun() {
    let (mut server, mut a) = (Server::default(), Machine::new("a".to_owned(), TIMING));
    run(&mut a, "a", &mut server, s(0));
    let step = a.next(s(2));
    let answer = server.serve("a", &step);
    // The answer took eight seconds.
    a.answer(s(10), answer);
    assert_eq!(a.holds_until(), Some(s(12)));
}

#[test]
fn two_that_take_it_at_once_do_not_both_get_it() {
    let mut server = Server::default();
    server.write("gone", 3);
    let mut both = ["a", "b"].map(|me| (me, Machine::new(me.to_owned(), TIMING)));
    for (me, machine) in &mut both {
        run(machine, me, &mut server, s(0));
    }
    let steps = both.each_mut().map(|(_, m)| {
        let looks = m.next(s(16));
        assert_eq!(looks, Step::Get);
        m.answer(s(16), Answer::Is(server.lease.clone().unwrap()));
        m.next(s(16))
    });
    for ((me, machine), step) in both.iter_mut().zip(&steps) {
        assert!(
            matches!(step, Step::Update { renews: false, .. }),
            "{step:?}"
        );
        let answer = server.serve(me, step);
        machine.answer(s(16), answer);
    }
    let holds = both.each_ref().map(|(_, m)| m.holds(s(16)));
    assert_eq!(holds, [true, false]);
}

#[test]
fn a_lease_that_somebody_deletes_is_made_again() {
    let (mut server, mut a) = (Server::default(), Machine::new("a".to_owned(), TIMING));
    run(&mut a, "a", &mut server, s(0));
    server.lease = None;
    run(&mut a, "a", &mut server, s(2));
    assert!(a.holds(s(2)));
}

#[test]
fn a_holder_that_sees_another_in_its_place_is_none_at_once() {
    let (mut server, mut a) = (Server::default(), Machine::new("a".to_owned(), TIMING));
    run(&mut a, "a", &mut server, s(0));
    server.write("b", 1);
    run(&mut a, "a", &mut server, s(2));
    assert!(!a.holds(s(2)));
    assert_eq!(a.holder(), Some("b"));
}

/// What happens to one of three daemons in a moment.
#[derive(Debug, Clone)]
enum Happens {
    /// It does what is due; the API server answers after so many seconds, or never.
    Runs(u64, bool),
    /// It does nothing.
    Sleeps,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        3 => Just(Happens::Runs(0, true)),
        1 => (0..4_u64, any::<bool>()).prop_map(|(s, a)| Happens::Runs(s, a)),
        1 => Just(Happens::Sleeps),
    ]
}

proptest! {
    /// Clocks that start anywhere, answers that are late or lost, daemons that sleep: two never
    /// hold it at once.
    #[test]
    fn there_is_one_holder_at_most(
        starts in prop::array::uniform3(0_u64..1_000_000),
        moments in prop::collection::vec(prop::array::uniform3(happens()), 1..200),
    ) {
        let mut server = Server::default();
        let names = ["a", "b", "c"];
        let mut machines = names.map(|me| Machine::new(me.to_owned(), TIMING));
        // Answers on their way: when they come, in seconds of the one true time.
        let mut answers: [Option<(u64, Answer)>; 3] = [None, None, None];
        for (moment, all) in moments.iter().enumerate() {
            let time = moment as u64;
            for (index, what) in all.iter().enumerate() {
                let now = s(starts[index] + time);
                if answers[index].as_ref().is_some_and(|(at, _)| *at <= time) {
                    let (_, answer) = answers[index].take().expect("it is there");
                    machines[index].answer(now, answer);
                }
                let Happens::Runs(late, answered) = what else { continue };
                if answers[index].is_some() {
                    continue;
                }
                let step = machines[index].next(now);
                if matches!(step, Step::Wait(_)) {
                    continue;
                }
                let answer = server.serve(names[index], &step);
                let answer = if *answered { answer } else { Answer::Failed };
                answers[index] = Some((time + late, answer));
            }
            let holders = (0..3).filter(|i| machines[*i].holds(s(starts[*i] + time))).count();
            prop_assert!(holders <= 1, "at {time}");
        }
    }
}
