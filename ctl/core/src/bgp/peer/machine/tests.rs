//! The table of RFC 4271 §8.2.2 once more: each state, each input, what follows.

use super::super::super::Families;
use super::*;
use Input as I;
use State as S;

fn session() -> Session {
    Session {
        router_id: [10, 0, 0, 2].into(),
        hold_time: Duration::from_secs(9),
        four_octet_as: true,
        families: Families::from(Family::ALL),
        add_path: Families::new(),
        graceful_restart: None,
    }
}

/// A machine in a state, by the inputs that lead there.
fn machine(state: State, ours: bool) -> Machine {
    let mut machine = Machine::default();
    let way = [
        I::Start(ours),
        I::Connected,
        I::Open(Box::new(session())),
        I::Keepalive,
    ];
    let inputs = match state {
        S::Idle => 0,
        S::Connect | S::Active => 1,
        S::OpenSent => 2,
        S::OpenConfirm => 3,
        S::Established => 4,
    };
    for input in way.into_iter().take(inputs) {
        machine.step(input);
    }
    assert_eq!(machine.state(), state);
    machine
}

const STATES: [State; 6] = [
    S::Idle,
    S::Connect,
    S::Active,
    S::OpenSent,
    S::OpenConfirm,
    S::Established,
];

/// What each state makes of an input: the next state, and whether it says something (`open`,
/// `keepalive`, a NOTIFICATION's numbers), in the order of [`STATES`].
type Row = (Input, [(State, &'static str); 6]);

fn rows() -> Vec<Row> {
    let end = Notification::new(3, 1);
    let hold = "4.0 close";
    vec![
        (
            I::Retry,
            [
                (S::Connect, "connect"),
                (S::Idle, "silent close wait"),
                (S::Active, ""),
                (S::OpenSent, ""),
                (S::OpenConfirm, ""),
                (S::Established, ""),
            ],
        ),
        (
            I::Connected,
            [
                (S::Idle, ""),
                (S::OpenSent, "open"),
                (S::OpenSent, "open"),
                (S::OpenSent, ""),
                (S::OpenConfirm, ""),
                (S::Established, ""),
            ],
        ),
        (
            I::Closed,
            [
                (S::Idle, ""),
                (S::Idle, "close wait"),
                (S::Active, ""),
                (S::Idle, "close wait"),
                (S::Idle, "close wait"),
                (S::Idle, "close down wait"),
            ],
        ),
        (
            I::Open(Box::new(session())),
            [
                (S::Idle, ""),
                (S::Connect, ""),
                (S::Active, ""),
                (S::OpenConfirm, "keepalive heard"),
                (S::Idle, "5.2 close wait"),
                (S::Idle, "5.3 close down wait"),
            ],
        ),
        (
            I::Keepalive,
            [
                (S::Idle, ""),
                (S::Connect, ""),
                (S::Active, ""),
                (S::Idle, "5.1 close wait"),
                (S::Established, "heard up"),
                (S::Established, "heard"),
            ],
        ),
        (
            I::Update,
            [
                (S::Idle, ""),
                (S::Connect, ""),
                (S::Active, ""),
                (S::Idle, "5.1 close wait"),
                (S::Idle, "5.2 close wait"),
                (S::Established, "heard"),
            ],
        ),
        (
            I::Refresh(Some(Family::Ipv6)),
            [
                (S::Idle, ""),
                (S::Connect, ""),
                (S::Active, ""),
                (S::Idle, "5.1 close wait"),
                (S::Idle, "5.2 close wait"),
                (S::Established, "heard refresh"),
            ],
        ),
        (
            I::Refresh(None),
            [
                (S::Idle, ""),
                (S::Connect, ""),
                (S::Active, ""),
                (S::Idle, "5.1 close wait"),
                (S::Idle, "5.2 close wait"),
                (S::Established, "heard"),
            ],
        ),
        (
            I::Notification,
            [
                (S::Idle, ""),
                (S::Connect, ""),
                (S::Active, ""),
                (S::Idle, "close wait"),
                (S::Idle, "close wait"),
                (S::Idle, "close down wait"),
            ],
        ),
        (
            I::Hold,
            [
                (S::Idle, ""),
                (S::Connect, ""),
                (S::Active, ""),
                (S::Idle, "silent 4.0 close wait"),
                (S::Idle, "4.0 close wait"),
                (S::Idle, "4.0 close down wait"),
            ],
        ),
        (
            I::Due,
            [
                (S::Idle, ""),
                (S::Connect, ""),
                (S::Active, ""),
                (S::OpenSent, ""),
                (S::OpenConfirm, "keepalive"),
                (S::Established, "keepalive"),
            ],
        ),
        (
            I::End(end),
            [
                (S::Idle, ""),
                (S::Idle, "close wait"),
                (S::Active, ""),
                (S::Idle, "3.1 close wait"),
                (S::Idle, "3.1 close wait"),
                (S::Idle, "3.1 close down wait"),
            ],
        ),
        (
            I::Stop(Some(Notification::HOLD_TIMER)),
            [
                (S::Idle, ""),
                (S::Idle, "close"),
                (S::Idle, ""),
                (S::Idle, hold),
                (S::Idle, hold),
                (S::Idle, "4.0 close down"),
            ],
        ),
        (
            I::Stop(None),
            [
                (S::Idle, ""),
                (S::Idle, "close"),
                (S::Idle, ""),
                (S::Idle, "close"),
                (S::Idle, "close"),
                (S::Idle, "close down"),
            ],
        ),
        (
            I::Start(true),
            [
                (S::Connect, "connect"),
                (S::Connect, ""),
                (S::Active, ""),
                (S::OpenSent, ""),
                (S::OpenConfirm, ""),
                (S::Established, ""),
            ],
        ),
    ]
}

fn words(steps: &[Step]) -> String {
    let word = |step: &Step| match step {
        Step::Connect => "connect".to_owned(),
        Step::Wait => "wait".to_owned(),
        Step::Open => "open".to_owned(),
        Step::Keepalive => "keepalive".to_owned(),
        Step::Heard => "heard".to_owned(),
        Step::Silent => "silent".to_owned(),
        Step::Notify(why) => format!("{}.{}", why.code, why.subcode),
        Step::Close => "close".to_owned(),
        Step::Up => "up".to_owned(),
        Step::Down => "down".to_owned(),
        Step::Refresh(_) => "refresh".to_owned(),
    };
    steps.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_state_makes_of_every_input_what_the_rfc_says() {
    for (input, expected) in rows() {
        for (state, (next, said)) in STATES.into_iter().zip(expected) {
            let mut one = machine(state, state != S::Active);
            if state == S::Idle {
                one.ours = true;
            }
            let steps = one.step(input.clone());
            assert_eq!(
                (one.state(), words(&steps).as_str()),
                (next, said),
                "{input:?} in {state:?}"
            );
        }
    }
}

#[test]
fn a_connection_of_theirs_is_awaited_again_at_once() {
    for state in [S::OpenSent, S::OpenConfirm, S::Established] {
        let mut theirs = machine(state, false);
        let steps = theirs.step(I::Closed);
        assert_eq!(theirs.state(), S::Active, "from {state:?}");
        assert!(!steps.contains(&Step::Wait), "from {state:?}");
        assert_eq!(theirs.deadline(), None);
    }
}

#[test]
fn without_a_hold_time_there_are_no_timers() {
    let mut machine = machine(S::OpenSent, true);
    let endless = Session {
        hold_time: Duration::ZERO,
        ..session()
    };
    machine.step(I::Open(Box::new(endless)));
    machine.sent(Timestamp(5), 0);
    machine.heard(Timestamp(5));
    assert_eq!(machine.deadline(), None);
}
