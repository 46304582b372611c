//! The generator's side of a TCP connection: bytes and time in, at most one segment out.
//!
//! It is a client for loads and no more: it sends a request that fits a segment, takes the response in
//! order, acknowledges each segment, and sends again what was not acknowledged. It has no congestion
//! window, since it has nothing to fill one with, and no timer for TIME-WAIT: the next connection of
//! the same ports begins at a higher sequence number (RFC 9293, section 3.6.1).

use super::Protocol;
use super::packet::Segment;
use super::response::{Read, Response};
use lockstep_wire::TcpFlags;

/// How clients behave.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// What a transaction is.
    pub protocol: Protocol,
    /// Bytes of a request.
    pub request: u32,
    /// Nanoseconds until something is sent again for the first time; twice as long each time.
    pub patience: u64,
}

/// How often something is sent again until it is given up.
const TRIES: u8 = 4;
/// Sequence numbers that a reset may be ahead (RFC 9293, section 3.10.7.4): our window.
const WINDOW: u32 = 65_535;
/// Each has a sequence number of its own.
const FIN_OR_SYN: TcpFlags = TcpFlags::from_bits(TcpFlags::FIN.bits() | TcpFlags::SYN.bits());

/// What is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Send {
    /// Its header.
    pub segment: Segment,
    /// Whether it carries the request.
    pub request: bool,
}

/// What happened to a transaction, or to a connection without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A transaction came to its end; `good` if it is not an error of the server's.
    Completed {
        /// Not an error.
        good: bool,
    },
    /// A transaction was reset or closed before its response.
    Reset,
    /// A transaction was given up: nothing came for too long.
    GaveUp,
    /// A connection is there, without a transaction.
    Connected,
    /// A connection without a transaction is gone, or could not be had.
    Dropped,
}

/// What comes of what happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Step {
    /// To be sent.
    pub send: Option<Send>,
    /// To be counted.
    pub event: Option<Event>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    SynSent,
    /// Nothing is asked.
    Open,
    /// The response is awaited.
    Asked,
    /// Our FIN is sent; whether it was acknowledged, and whether theirs has come.
    Closing {
        acknowledged: bool,
        theirs: bool,
    },
}

/// One connection.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    state: State,
    /// The next byte to be sent.
    next: u32,
    /// The first byte that is not acknowledged.
    unacknowledged: u32,
    /// The next byte expected.
    expected: u32,
    /// When the transaction was due; none without one.
    intended: Option<u64>,
    /// When something is sent again or given up.
    deadline: u64,
    tries: u8,
    response: Response,
    /// The response ends with the connection.
    endless: bool,
}

impl Client {
    /// One that is not connected.
    pub const fn new() -> Self {
        Client {
            state: State::Closed,
            next: 0,
            unacknowledged: 0,
            expected: 0,
            intended: None,
            deadline: u64::MAX,
            tries: 0,
            response: Response::new(),
            endless: false,
        }
    }

    /// When [`Client::expired`] is to be called; `u64::MAX`: never.
    pub fn deadline(&self) -> u64 {
        self.deadline
    }

    /// When its transaction was due.
    pub fn intended(&self) -> Option<u64> {
        self.intended
    }

    /// Whether nothing is left of a connection.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether a request can be asked on it.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Opens the connection: with a transaction that was due at `intended`, or without one.
    pub fn connect(
        &mut self,
        manner: &Manner,
        now: u64,
        intended: Option<u64>,
        first: u32,
    ) -> Send {
        *self = Client {
            state: State::SynSent,
            next: first.wrapping_add(1),
            unacknowledged: first,
            intended,
            ..Client::new()
        };
        self.wait(manner, now);
        self.syn()
    }

    /// Asks on an open connection, for a transaction that was due at `intended`.
    pub fn ask(&mut self, manner: &Manner, now: u64, intended: u64) -> Send {
        self.intended = Some(intended);
        self.request(manner, now)
    }

    /// Ends it at once. None where there is nothing to end.
    pub fn abort(&mut self) -> Option<Send> {
        let there = !matches!(self.state, State::Closed | State::SynSent);
        let reset = self.plain(TcpFlags::RST);
        *self = Client::new();
        there.then_some(reset)
    }

    /// Takes in a segment.
    pub fn arrived(
        &mut self,
        manner: &Manner,
        segment: &Segment,
        payload: &[u8],
        now: u64,
    ) -> Step {
        match self.state {
            State::Closed => refuse(segment, payload),
            State::SynSent => self.answered(manner, segment, now),
            State::Open | State::Asked | State::Closing { .. } => {
                self.connected(manner, segment, payload, now)
            }
        }
    }

    /// Sends again what was not acknowledged, or gives up. To be called at the deadline.
    pub fn expired(&mut self, manner: &Manner, now: u64) -> Step {
        if now < self.deadline {
            return Step::default();
        }
        // A SYN's answer is what is measured: another one would answer for it.
        if self.tries == TRIES || manner.protocol == Protocol::Syn {
            let event = match (self.state, self.intended) {
                (State::Closed, _) | (State::Closing { .. }, None) => None,
                (_, Some(_)) => Some(Event::GaveUp),
                (_, None) => Some(Event::Dropped),
            };
            return Step {
                send: self.abort(),
                event,
            };
        }
        self.tries += 1;
        self.deadline = now.saturating_add(manner.patience << self.tries);
        let send = match self.state {
            State::Closed | State::Open => {
                self.deadline = u64::MAX;
                None
            }
            State::SynSent => Some(self.syn()),
            State::Asked if self.unacknowledged != self.next => {
                Some(self.asking(self.next.wrapping_sub(manner.request)))
            }
            State::Closing {
                acknowledged: false,
                ..
            } => Some(self.fin()),
            State::Asked | State::Closing { .. } => Some(self.plain(TcpFlags::ACK)),
        };
        Step { send, event: None }
    }

    /// Something came while the SYN is out (RFC 9293, section 3.10.7.3).
    fn answered(&mut self, manner: &Manner, segment: &Segment, now: u64) -> Step {
        let flags = segment.flags;
        let acknowledges = flags.contains(TcpFlags::ACK) && segment.acknowledgment == self.next;
        if flags.contains(TcpFlags::RST) {
            if !acknowledges {
                return Step::default();
            }
            return self.gone();
        }
        if flags.contains(TcpFlags::ACK) && !acknowledges {
            // Of a connection before this one: they are to forget it.
            return refuse(segment, &[]);
        }
        if !flags.contains(TcpFlags::SYN) || !acknowledges {
            return Step::default();
        }
        self.expected = segment.sequence.wrapping_add(1);
        self.unacknowledged = self.next;
        match (manner.protocol, self.intended) {
            (Protocol::Syn, _) => {
                self.state = State::Open;
                Step {
                    send: self.abort(),
                    event: Some(Event::Completed { good: true }),
                }
            }
            (_, Some(_)) => Step {
                send: Some(self.request(manner, now)),
                event: None,
            },
            (_, None) => {
                self.open();
                Step {
                    send: Some(self.plain(TcpFlags::ACK)),
                    event: Some(Event::Connected),
                }
            }
        }
    }

    fn connected(&mut self, manner: &Manner, segment: &Segment, payload: &[u8], now: u64) -> Step {
        let flags = segment.flags;
        if flags.contains(TcpFlags::RST) {
            let ahead = segment.sequence.wrapping_sub(self.expected);
            return if ahead <= WINDOW {
                self.gone()
            } else {
                Step::default()
            };
        }
        if flags.contains(TcpFlags::ACK) {
            let newly = segment.acknowledgment.wrapping_sub(self.unacknowledged);
            if newly <= self.next.wrapping_sub(self.unacknowledged) {
                self.unacknowledged = segment.acknowledgment;
            }
        }
        let occupies = !payload.is_empty() || flags.intersects(FIN_OR_SYN);
        let known = self.expected.wrapping_sub(segment.sequence) as usize;
        let in_order = !flags.contains(TcpFlags::SYN) && known <= payload.len();
        if !in_order {
            // Too early, or known: they learn what is expected (section 3.10.7.4).
            let send = occupies.then(|| self.plain(TcpFlags::ACK));
            return self.settled(send);
        }
        let fresh = &payload[known..];
        let fin = flags.contains(TcpFlags::FIN);
        // No segment is longer than a packet.
        self.expected = (self.expected).wrapping_add(fresh.len() as u32 + u32::from(fin));
        match self.state {
            State::Asked if !fresh.is_empty() || fin => self.response(manner, fresh, fin, now),
            State::Open if fin => {
                let send = self.close(manner, true, now);
                Step {
                    send: Some(send),
                    event: Some(Event::Dropped),
                }
            }
            State::Closing { theirs, .. } => {
                self.state = State::Closing {
                    acknowledged: self.unacknowledged == self.next,
                    theirs: theirs || fin,
                };
                let send = occupies.then(|| self.plain(TcpFlags::ACK));
                self.settled(send)
            }
            State::Closed | State::SynSent | State::Open | State::Asked => {
                let send = occupies.then(|| self.plain(TcpFlags::ACK));
                Step { send, event: None }
            }
        }
    }

    /// More of the response, or its end.
    fn response(&mut self, manner: &Manner, fresh: &[u8], fin: bool, now: u64) -> Step {
        let read = match (self.endless, fresh.is_empty()) {
            (false, false) => self.response.take(fresh),
            _ => Read::Part,
        };
        self.endless |= read == Read::Endless && manner.protocol == Protocol::Crr;
        let whole = match read {
            Read::Whole { good } => Some(good),
            Read::Part | Read::Endless if self.endless && fin => Some(true),
            Read::Part | Read::Endless if self.endless => None,
            Read::Part if !fin => None,
            // It ended before its end, or is nothing that has one.
            Read::Part | Read::Endless | Read::Broken => {
                let send = self.abort();
                return Step {
                    send,
                    event: Some(Event::Reset),
                };
            }
        };
        let Some(good) = whole else {
            self.wait(manner, now);
            let send = Some(self.plain(TcpFlags::ACK));
            return Step { send, event: None };
        };
        let send = if manner.protocol == Protocol::Crr || fin {
            self.close(manner, fin, now)
        } else {
            self.open();
            self.plain(TcpFlags::ACK)
        };
        Step {
            send: Some(send),
            event: Some(Event::Completed { good }),
        }
    }

    /// The connection was reset.
    fn gone(&mut self) -> Step {
        let event = match (self.state, self.intended) {
            // What was to be measured is over.
            (State::Closing { .. }, None) => None,
            (_, Some(_)) => Some(Event::Reset),
            (_, None) => Some(Event::Dropped),
        };
        *self = Client::new();
        Step { send: None, event }
    }

    /// Forgets the connection once both sides have closed it.
    fn settled(&mut self, send: Option<Send>) -> Step {
        if let State::Closing {
            acknowledged: true,
            theirs: true,
        } = self.state
        {
            *self = Client::new();
        }
        Step { send, event: None }
    }

    fn open(&mut self) {
        self.state = State::Open;
        self.intended = None;
        self.deadline = u64::MAX;
    }

    fn close(&mut self, manner: &Manner, theirs: bool, now: u64) -> Send {
        self.state = State::Closing {
            acknowledged: false,
            theirs,
        };
        self.intended = None;
        self.next = self.next.wrapping_add(1);
        self.wait(manner, now);
        self.fin()
    }

    fn request(&mut self, manner: &Manner, now: u64) -> Send {
        let from = self.next;
        self.state = State::Asked;
        self.response = Response::new();
        self.endless = false;
        self.next = from.wrapping_add(manner.request);
        self.wait(manner, now);
        self.asking(from)
    }

    fn wait(&mut self, manner: &Manner, now: u64) {
        self.tries = 0;
        self.deadline = now.saturating_add(manner.patience);
    }

    fn syn(&self) -> Send {
        let segment = Segment {
            sequence: self.next.wrapping_sub(1),
            acknowledgment: 0,
            flags: TcpFlags::SYN,
        };
        Send {
            segment,
            request: false,
        }
    }

    fn fin(&self) -> Send {
        let mut send = self.plain(TcpFlags::from_bits(
            TcpFlags::FIN.bits() | TcpFlags::ACK.bits(),
        ));
        send.segment.sequence = self.next.wrapping_sub(1);
        send
    }

    fn asking(&self, from: u32) -> Send {
        let mut send = self.plain(TcpFlags::from_bits(
            TcpFlags::PSH.bits() | TcpFlags::ACK.bits(),
        ));
        send.segment.sequence = from;
        send.request = true;
        send
    }

    fn plain(&self, flags: TcpFlags) -> Send {
        let segment = Segment {
            sequence: self.next,
            acknowledgment: self.expected,
            flags,
        };
        Send {
            segment,
            request: false,
        }
    }
}

/// Answers what is for no connection (RFC 9293, section 3.10.7.1).
fn refuse(segment: &Segment, payload: &[u8]) -> Step {
    if segment.flags.contains(TcpFlags::RST) {
        return Step::default();
    }
    let occupies = payload.len() as u32
        + u32::from(segment.flags.contains(TcpFlags::SYN))
        + u32::from(segment.flags.contains(TcpFlags::FIN));
    let segment = if segment.flags.contains(TcpFlags::ACK) {
        Segment {
            sequence: segment.acknowledgment,
            acknowledgment: 0,
            flags: TcpFlags::RST,
        }
    } else {
        Segment {
            sequence: 0,
            acknowledgment: segment.sequence.wrapping_add(occupies),
            flags: TcpFlags::from_bits(TcpFlags::RST.bits() | TcpFlags::ACK.bits()),
        }
    };
    Step {
        send: Some(Send {
            segment,
            request: false,
        }),
        event: None,
    }
}

#[cfg(test)]
mod tests;
