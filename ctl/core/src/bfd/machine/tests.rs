use super::*;

mod simulation;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn settings(transmit: u64, receive: u64, multiplier: u8) -> Settings {
    Settings {
        local: None,
        transmit: MS(transmit),
        receive: MS(receive),
        multiplier,
    }
}

fn machine() -> Machine {
    let number = NonZeroU32::new(7).unwrap();
    Machine::new(settings(300, 300, 3), number, MS(0), 0)
}

fn from_neighbor(state: State) -> Packet {
    Packet {
        state,
        diagnostic: Diagnostic::None,
        flags: Flags::default(),
        multiplier: NonZeroU8::new(3).unwrap(),
        mine: NonZeroU32::new(9).unwrap(),
        yours: 7,
        transmit: 300_000,
        receive: 300_000,
        echo: 0,
    }
}

/// A machine that is up, its poll sequence answered.
fn up() -> Machine {
    let mut machine = machine();
    machine.receive(MS(10), &from_neighbor(State::Down));
    machine.receive(MS(20), &from_neighbor(State::Init));
    let asks = machine.tick(MS(20), 0).unwrap();
    assert!(asks.flags.poll, "new intervals are asked about");
    let mut answer = from_neighbor(State::Up);
    answer.flags.last = true;
    machine.receive(MS(30), &answer);
    assert_eq!(machine.state(), State::Up);
    machine
}

#[test]
fn states_follow_the_table_of_the_rfc() {
    use State::{AdminDown, Down, Init, Up};
    let signaled = Diagnostic::NeighborSignaledDown;
    let none = Diagnostic::None;
    let table = [
        (AdminDown, AdminDown, Next::Discard),
        (AdminDown, Down, Next::Discard),
        (AdminDown, Init, Next::Discard),
        (AdminDown, Up, Next::Discard),
        (Down, AdminDown, Next::Stay),
        (Down, Down, Next::Enter(Init, none)),
        (Down, Init, Next::Enter(Up, none)),
        (Down, Up, Next::Stay),
        (Init, AdminDown, Next::Enter(Down, signaled)),
        (Init, Down, Next::Stay),
        (Init, Init, Next::Enter(Up, none)),
        (Init, Up, Next::Enter(Up, none)),
        (Up, AdminDown, Next::Enter(Down, signaled)),
        (Up, Down, Next::Enter(Down, signaled)),
        (Up, Init, Next::Stay),
        (Up, Up, Next::Stay),
    ];
    assert_eq!(table.len(), State::ALL.len() * State::ALL.len());
    for (ours, theirs, expected) in table {
        assert_eq!(next(ours, theirs), expected, "{ours} hears {theirs}");
    }
}

#[test]
fn the_first_packet_goes_at_once_and_slow_ones_follow_until_the_session_is_up() {
    let mut machine = machine();
    assert_eq!(machine.next_deadline(), Some(MS(0)));
    let first = machine.tick(MS(0), 0).unwrap();
    assert_eq!((first.state, first.yours), (State::Down, 0));
    assert_eq!((first.transmit, first.receive), (1_000_000, 300_000));
    assert!(!first.flags.independent, "our sessions die with the daemon");
    assert_eq!(machine.next_deadline(), Some(MS(750)));
    assert_eq!(machine.tick(MS(749), 0), None);
    assert!(machine.tick(MS(750), u16::MAX).is_some());
    let next = machine.next_deadline().unwrap();
    assert!(MS(1_749) < next && next < MS(1_750), "{next:?}");
}

#[test]
fn one_packet_that_decides_comes_early() {
    let number = NonZeroU32::new(7).unwrap();
    let mut machine = Machine::new(settings(300, 300, 1), number, MS(0), 0);
    machine.tick(MS(0), u16::MAX);
    let next = machine.next_deadline().unwrap();
    assert!(MS(899) < next && next <= MS(900), "{next:?}");
}

#[test]
fn a_change_of_state_is_told_at_once() {
    let mut machine = machine();
    machine.tick(MS(0), 0);
    machine.receive(MS(10), &from_neighbor(State::Down));
    let told = machine.tick(MS(10), 0).unwrap();
    assert_eq!((told.state, told.yours), (State::Init, 9));
    assert_eq!(machine.tick(MS(10), 0), None, "once");
}

#[test]
fn silence_is_death_after_the_detection_time_and_not_before() {
    let mut machine = up();
    assert_eq!(machine.detection(), MS(900));
    while let Some(at) = machine.next_deadline().filter(|at| *at < MS(930)) {
        machine.tick(at, 0);
        assert_eq!(machine.state(), State::Up, "{at:?}");
    }
    let last = machine.tick(MS(930), 0).unwrap();
    assert_eq!(machine.state(), State::Down);
    assert_eq!(machine.diagnostic(), Diagnostic::DetectionTimeExpired);
    assert_eq!(
        (last.state, last.diagnostic, last.yours),
        (State::Down, Diagnostic::DetectionTimeExpired, 0)
    );
    assert_eq!(machine.interval(), SLOW);
}

#[test]
fn the_slower_wish_wins_on_each_way() {
    let mut machine = up();
    let mut slow = from_neighbor(State::Up);
    (slow.transmit, slow.receive) = (2_000_000, 500_000);
    slow.multiplier = NonZeroU8::new(5).unwrap();
    machine.receive(MS(40), &slow);
    assert_eq!(machine.interval(), MS(500));
    assert_eq!(machine.detection(), MS(10_000));
}

#[test]
fn a_question_is_answered_at_once_and_an_answer_is_no_question() {
    let mut machine = up();
    machine.configure(settings(500, 300, 3));
    let mut asks = from_neighbor(State::Up);
    asks.flags.poll = true;
    let answer = machine.receive(MS(50), &asks).unwrap();
    assert!(answer.flags.last && !answer.flags.poll);
    assert!(machine.tick(MS(50), 0).unwrap().flags.poll, "ours goes on");
}

#[test]
fn slower_packets_wait_until_the_neighbor_knows() {
    let mut machine = up();
    machine.configure(settings(500, 100, 3));
    assert_eq!(machine.interval(), MS(300));
    assert_eq!(machine.detection(), MS(900));
    let asks = machine.tick(MS(50), 0).unwrap();
    assert_eq!((asks.transmit, asks.receive), (500_000, 100_000));
    assert!(asks.flags.poll);
    // Changed again before the answer to the first question: that answer ends nothing.
    machine.configure(settings(600, 100, 3));
    let mut answer = from_neighbor(State::Up);
    answer.flags.last = true;
    answer.transmit = 100_000;
    machine.receive(MS(60), &answer);
    assert_eq!(machine.interval(), MS(300));
    assert!(machine.tick(MS(60), 0).unwrap().flags.poll);
    machine.receive(MS(70), &answer);
    assert_eq!(machine.interval(), MS(600));
    assert_eq!(machine.detection(), MS(300));
    let next = machine.next_deadline().and_then(|at| machine.tick(at, 0));
    assert!(!next.unwrap().flags.poll, "the sequence has ended");
}

#[test]
fn faster_packets_come_at_once() {
    let mut machine = up();
    machine.configure(settings(100, 500, 3));
    let mut fast = from_neighbor(State::Up);
    fast.receive = 50_000;
    machine.receive(MS(50), &fast);
    assert_eq!(machine.interval(), MS(100));
    assert_eq!(machine.detection(), MS(1_500));
}

#[test]
fn another_sessions_number_changes_nothing() {
    let mut machine = up();
    let mut wrong = from_neighbor(State::Down);
    wrong.yours = 8;
    wrong.flags.poll = true;
    assert_eq!(machine.receive(MS(500), &wrong), None);
    assert_eq!(machine.state(), State::Up);
    machine.tick(MS(930), 0);
    assert_eq!(machine.state(), State::Down, "it did not count as heard");
}

#[test]
fn held_down_it_hears_nothing_and_says_so() {
    let mut machine = up();
    machine.administer(MS(100), false);
    let told = machine.tick(MS(100), 0).unwrap();
    assert_eq!(told.state, State::AdminDown);
    assert_eq!(told.diagnostic, Diagnostic::AdministrativelyDown);
    let mut asks = from_neighbor(State::Up);
    asks.flags.poll = true;
    assert_eq!(machine.receive(MS(110), &asks), None);
    assert_eq!(machine.state(), State::AdminDown);
    machine.administer(MS(200), true);
    assert_eq!(machine.state(), State::Down);
    machine.receive(MS(210), &from_neighbor(State::Down));
    assert_eq!(machine.state(), State::Init);
}

#[test]
fn a_neighbor_that_takes_no_packets_gets_none() {
    let mut machine = up();
    let mut deaf = from_neighbor(State::Up);
    deaf.receive = 0;
    machine.receive(MS(40), &deaf);
    assert_eq!(machine.tick(MS(900), 0), None);
    assert_eq!(
        machine.next_deadline(),
        Some(MS(940)),
        "silence still counts"
    );
}

#[test]
fn demand_mode_is_silence_but_for_questions() {
    let mut machine = up();
    let mut demands = from_neighbor(State::Up);
    demands.flags.demand = true;
    machine.receive(MS(40), &demands);
    assert_eq!(machine.tick(MS(900), 0), None);
    machine.configure(settings(400, 300, 3));
    assert!(machine.tick(MS(901), 0).unwrap().flags.poll);
}

#[test]
fn a_clock_that_goes_back_does_no_harm() {
    let mut machine = up();
    let mut asks = from_neighbor(State::Up);
    asks.flags.poll = true;
    assert!(machine.receive(MS(5), &asks).is_some());
    machine.tick(MS(0), 0);
    assert_eq!(machine.state(), State::Up);
}
