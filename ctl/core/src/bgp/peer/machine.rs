//! One connection's part of a session: the states of RFC 4271 §8.2.2, and what each input does in
//! each of them.

use super::super::Family;
use super::super::notification::Notification;
use super::super::open::Session;
use super::jittered;
use crate::drains::Timestamp;
use std::time::Duration;

/// The states of RFC 4271, in the order in which a session comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum State {
    /// Nothing is done: stopped, or waiting for the next attempt.
    #[default]
    Idle,
    /// A connection is being made.
    Connect,
    /// A connection is awaited.
    Active,
    /// OPEN was sent.
    OpenSent,
    /// OPEN was received; a KEEPALIVE is awaited.
    OpenConfirm,
    /// There is a session.
    Established,
}

impl State {
    /// Its name in output.
    pub const fn name(self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::Connect => "connect",
            State::Active => "active",
            State::OpenSent => "open-sent",
            State::OpenConfirm => "open-confirm",
            State::Established => "established",
        }
    }
}

/// How long a connection may take to come about.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// How long the other side's OPEN may take. RFC 4271 §8.2.2 suggests four minutes, for which a
/// router that hangs would keep us from trying again.
pub(super) const OPEN: Duration = Duration::from_secs(20);

/// What a machine hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Input {
    /// Begin; whether with a connection of ours.
    Start(bool),
    /// End for good.
    Stop(Option<Notification>),
    /// The time for the next attempt has come, or that for the one under way is over.
    Retry,
    /// Nothing was heard for the hold time.
    Hold,
    /// A KEEPALIVE is due.
    Due,
    /// The connection stands.
    Connected,
    /// The connection is gone, or did not come about.
    Closed,
    /// An OPEN that we agree with.
    Open(Box<Session>),
    /// KEEPALIVE.
    Keepalive,
    /// UPDATE.
    Update,
    /// ROUTE-REFRESH; without a family where it is about none of ours.
    Refresh(Option<Family>),
    /// NOTIFICATION.
    Notification,
    /// Something that ends it, with what the other side is told.
    End(Notification),
}

/// What a machine does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Opens a connection.
    Connect,
    /// Waits for the next attempt.
    Wait,
    /// Sends OPEN, and waits for theirs.
    Open,
    /// Sends KEEPALIVE, and sets the time of the next.
    Keepalive,
    /// Has heard of the other side.
    Heard,
    /// Has never had an answer.
    Silent,
    /// Sends NOTIFICATION.
    Notify(Notification),
    /// Closes its connection.
    Close,
    /// Has a session.
    Up,
    /// Has lost it.
    Down,
    /// Hands on a ROUTE-REFRESH.
    Refresh(Family),
}

/// The machine of a connection.
#[derive(Debug, Default)]
pub(super) struct Machine {
    state: State,
    /// Whether it opens its connection itself.
    ours: bool,
    session: Option<Box<Session>>,
    retry: Option<Timestamp>,
    hold: Option<Timestamp>,
    keepalive: Option<Timestamp>,
}

impl Machine {
    pub fn state(&self) -> State {
        self.state
    }

    /// The state of a session that has no connection yet: between attempts one is awaited.
    pub fn shown(&self) -> State {
        match (self.state, self.retry) {
            (State::Idle, Some(_)) => State::Active,
            (state, _) => state,
        }
    }

    pub fn established(&self) -> Option<&Session> {
        let session = self.session.as_deref();
        session.filter(|_| self.state == State::Established)
    }

    pub fn deadline(&self) -> Option<Timestamp> {
        let all = [self.retry, self.hold, self.keepalive];
        all.into_iter().flatten().min()
    }

    /// What has become due by now; each is told once.
    pub fn due(&mut self, now: Timestamp) -> Option<Input> {
        let passed = |at: &mut Option<Timestamp>| at.take_if(|at| *at <= now).is_some();
        if passed(&mut self.hold) {
            Some(Input::Hold)
        } else if passed(&mut self.keepalive) {
            Some(Input::Due)
        } else {
            passed(&mut self.retry).then_some(Input::Retry)
        }
    }

    pub fn retry_at(&mut self, at: Timestamp) {
        self.retry = Some(at);
    }

    pub fn hold_for(&mut self, now: Timestamp, time: Duration) {
        self.hold = Some(now.after(time));
    }

    /// The other side was heard of: its hold time begins again, when there is one.
    pub fn heard(&mut self, now: Timestamp) {
        let time = self.hold_time();
        self.hold = (!time.is_zero()).then(|| now.after(time));
    }

    /// A KEEPALIVE was sent: the next is due after a third of the hold time, when there is one.
    pub fn sent(&mut self, now: Timestamp, fraction: u8) {
        let time = self.hold_time() / 3;
        self.keepalive = (!time.is_zero()).then(|| now.after(jittered(time, fraction)));
    }

    fn hold_time(&self) -> Duration {
        let session = self.session.as_ref();
        session.map_or(Duration::ZERO, |s| s.hold_time)
    }

    /// RFC 4271 §8.2.2, for one connection. What a state cannot hear ends the connection with a
    /// finite state machine error (RFC 6608), or is of no consequence where there is none.
    pub fn step(&mut self, input: Input) -> Vec<Step> {
        use Input as I;
        use State as S;
        match (self.state, input) {
            (S::Idle, I::Start(ours)) => {
                self.ours = ours;
                self.begin()
            }
            (S::Idle, I::Retry) => self.begin(),
            (S::Idle | S::Active, I::Stop(_)) => self.stop(Vec::new()),
            (S::Connect, I::Stop(_)) => self.stop(vec![Step::Close]),
            (S::OpenSent | S::OpenConfirm | S::Established, I::Stop(why)) => {
                let mut steps = Vec::from_iter(why.map(Step::Notify));
                steps.extend(self.over());
                self.stop(steps)
            }

            // Our attempt has failed, or was given up.
            (S::Connect, I::Closed | I::End(_)) => self.wait(vec![Step::Close]),
            (S::Connect, I::Retry) => self.wait(vec![Step::Silent, Step::Close]),
            (S::Connect | S::Active, I::Connected) => self.to(S::OpenSent, vec![Step::Open]),

            (S::OpenSent, I::Open(session)) => {
                self.session = Some(session);
                self.to(S::OpenConfirm, vec![Step::Keepalive, Step::Heard])
            }
            (S::OpenConfirm, I::Keepalive) => self.to(S::Established, vec![Step::Heard, Step::Up]),
            (S::OpenConfirm | S::Established, I::Due) => vec![Step::Keepalive],
            // UPDATEs count as a sign of life, as KEEPALIVEs do.
            (S::Established, I::Keepalive | I::Update | I::Refresh(None)) => vec![Step::Heard],
            (S::Established, I::Refresh(Some(family))) => vec![Step::Heard, Step::Refresh(family)],

            (S::OpenSent, I::Hold) => {
                let mut steps = vec![Step::Silent];
                steps.extend(self.end(Notification::HOLD_TIMER));
                steps
            }
            (S::OpenConfirm | S::Established, I::Hold) => self.end(Notification::HOLD_TIMER),
            (S::OpenSent | S::OpenConfirm | S::Established, I::Closed | I::Notification) => {
                let steps = self.over();
                self.wait(steps)
            }
            (S::OpenSent | S::OpenConfirm | S::Established, I::End(why)) => self.end(why),

            (S::OpenSent, I::Keepalive | I::Update | I::Refresh(_)) => {
                self.end(Notification::new(5, 1))
            }
            (S::OpenConfirm, I::Open(_) | I::Update | I::Refresh(_)) => {
                self.end(Notification::new(5, 2))
            }
            (S::Established, I::Open(_)) => self.end(Notification::new(5, 3)),

            // Started already; timers of a state that was left; a connection of theirs that is
            // awaited, and so cannot be gone; bytes of a connection that was.
            (
                S::Connect | S::Active | S::OpenSent | S::OpenConfirm | S::Established,
                I::Start(_),
            )
            | (S::OpenSent | S::OpenConfirm | S::Established, I::Retry | I::Connected)
            | (S::OpenSent, I::Due)
            | (S::Active, I::Closed | I::End(_) | I::Retry)
            | (S::Idle, I::Connected | I::Closed | I::End(_))
            | (
                S::Idle | S::Connect | S::Active,
                I::Hold
                | I::Due
                | I::Open(_)
                | I::Keepalive
                | I::Update
                | I::Refresh(_)
                | I::Notification,
            ) => Vec::new(),
        }
    }

    fn to(&mut self, state: State, steps: Vec<Step>) -> Vec<Step> {
        self.state = state;
        self.retry = None;
        steps
    }

    fn begin(&mut self) -> Vec<Step> {
        match self.ours {
            true => self.to(State::Connect, vec![Step::Connect]),
            false => self.to(State::Active, Vec::new()),
        }
    }

    /// Ends a connection with a word to the other side.
    fn end(&mut self, why: Notification) -> Vec<Step> {
        let mut steps = vec![Step::Notify(why)];
        steps.extend(self.over());
        self.wait(steps)
    }

    /// What the end of a connection takes.
    fn over(&self) -> Vec<Step> {
        let lost = self.state == State::Established;
        let mut steps = vec![Step::Close];
        steps.extend(lost.then_some(Step::Down));
        steps
    }

    /// Ready for the next connection: ours after a while, theirs at once.
    fn wait(&mut self, mut steps: Vec<Step>) -> Vec<Step> {
        self.clear();
        match self.ours {
            true => {
                self.state = State::Idle;
                steps.push(Step::Wait);
            }
            false => self.state = State::Active,
        }
        steps
    }

    fn stop(&mut self, steps: Vec<Step>) -> Vec<Step> {
        self.clear();
        self.state = State::Idle;
        steps
    }

    fn clear(&mut self) {
        (self.retry, self.hold, self.keepalive) = (None, None, None);
        self.session = None;
    }
}

#[cfg(test)]
mod tests;
