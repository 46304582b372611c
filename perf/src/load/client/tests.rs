use super::*;
use proptest::prelude::*;

const MS: u64 = 1_000_000;
const REQUEST: u32 = 30;
const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n0123456789012345678901234567890123456789";
const FIN_ACK: u8 = 0x11;
const SYN_ACK: u8 = 0x12;
const PSH_ACK: u8 = 0x18;

fn manner(protocol: Protocol) -> Manner {
    Manner {
        protocol,
        request: REQUEST,
        patience: 200 * MS,
    }
}

fn segment(flags: u8, sequence: u32, acknowledgment: u32) -> Segment {
    Segment {
        sequence,
        acknowledgment,
        flags: TcpFlags::from_bits(flags),
    }
}

fn sent(step: Step) -> Segment {
    step.send.unwrap().segment
}

/// A client of a transaction that was due at 5, at time 10, whose SYN has number 99.
fn connecting(manner: &Manner) -> Client {
    let mut client = Client::new();
    let syn = client.connect(manner, 10, Some(5), 99);
    assert_eq!(syn.segment, segment(0x02, 99, 0));
    assert_eq!(client.deadline(), 10 + 200 * MS);
    client
}

#[test]
fn a_syn_is_answered_and_reset() {
    let manner = manner(Protocol::Syn);
    let mut client = connecting(&manner);
    let step = client.arrived(&manner, &segment(SYN_ACK, 1_000, 100), &[], 20);
    assert_eq!(step.event, Some(Event::Completed { good: true }));
    assert_eq!(sent(step), segment(0x04, 100, 1_001));
    assert!(client.is_closed());
    let mut client = connecting(&manner);
    let step = client.arrived(&manner, &segment(0x14, 0, 100), &[], 20);
    assert_eq!(
        step,
        Step {
            send: None,
            event: Some(Event::Reset)
        }
    );
    let mut client = connecting(&manner);
    let step = client.expired(&manner, 10 + 200 * MS);
    assert_eq!(
        step,
        Step {
            send: None,
            event: Some(Event::GaveUp)
        }
    );
}

#[test]
fn connect_request_response_close() {
    let manner = manner(Protocol::Crr);
    let mut client = connecting(&manner);
    let step = client.arrived(&manner, &segment(SYN_ACK, 1_000, 100), &[], 20);
    assert!(step.send.unwrap().request && step.event.is_none());
    assert_eq!(sent(step), segment(PSH_ACK, 100, 1_001));
    let (one, two) = RESPONSE.split_at(50);
    let step = client.arrived(&manner, &segment(PSH_ACK, 1_001, 130), one, 30);
    assert_eq!(sent(step), segment(0x10, 130, 1_051));
    assert_eq!(client.intended(), Some(5));
    let step = client.arrived(&manner, &segment(PSH_ACK, 1_051, 130), two, 40);
    assert_eq!(step.event, Some(Event::Completed { good: true }));
    let end = 1_001 + RESPONSE.len() as u32;
    assert_eq!(sent(step), segment(FIN_ACK, 130, end));
    assert_eq!(client.intended(), None);
    let step = client.arrived(&manner, &segment(FIN_ACK, end, 131), &[], 50);
    assert_eq!(sent(step), segment(0x10, 131, end + 1));
    assert!(client.is_closed());
}

#[test]
fn a_server_may_close_with_its_response_or_after_our_fin_is_acknowledged() {
    let manner = manner(Protocol::Crr);
    for closes in [FIN_ACK, PSH_ACK] {
        let mut client = connecting(&manner);
        client.arrived(&manner, &segment(SYN_ACK, 1_000, 100), &[], 20);
        let step = client.arrived(&manner, &segment(closes, 1_001, 130), RESPONSE, 30);
        assert_eq!(step.event, Some(Event::Completed { good: true }));
        let end = 1_001 + RESPONSE.len() as u32;
        let fin = u32::from(closes == FIN_ACK);
        assert_eq!(sent(step), segment(FIN_ACK, 130, end + fin));
        let step = client.arrived(&manner, &segment(0x10, end + fin, 131), &[], 40);
        assert_eq!(step.send, None);
        if fin == 0 {
            assert!(!client.is_closed());
            let step = client.arrived(&manner, &segment(FIN_ACK, end, 131), &[], 50);
            assert_eq!(sent(step), segment(0x10, 131, end + 1));
        }
        assert!(client.is_closed());
    }
}

#[test]
fn without_a_length_the_response_ends_with_the_connection() {
    let manner = manner(Protocol::Crr);
    let mut client = connecting(&manner);
    client.arrived(&manner, &segment(SYN_ACK, 1_000, 100), &[], 20);
    let text = b"HTTP/1.1 200 OK\r\n\r\nhello";
    let step = client.arrived(&manner, &segment(PSH_ACK, 1_001, 130), text, 30);
    assert_eq!(step.event, None);
    let end = 1_001 + text.len() as u32;
    let step = client.arrived(&manner, &segment(FIN_ACK, end, 130), &[], 40);
    assert_eq!(step.event, Some(Event::Completed { good: true }));
}

#[test]
fn many_requests_on_one_connection() {
    let manner = manner(Protocol::Rr);
    let mut client = Client::new();
    client.connect(&manner, 10, None, 99);
    let step = client.arrived(&manner, &segment(SYN_ACK, 1_000, 100), &[], 20);
    assert_eq!(
        (step.event, sent(step)),
        (Some(Event::Connected), segment(0x10, 100, 1_001))
    );
    assert!(client.is_open() && client.deadline() == u64::MAX);
    let length = RESPONSE.len() as u32;
    for turn in 0..3 {
        let (ours, theirs) = (100 + turn * REQUEST, 1_001 + turn * length);
        let send = client.ask(&manner, 30, 25);
        assert_eq!(
            (send.segment, send.request),
            (segment(PSH_ACK, ours, theirs), true)
        );
        let step = client.arrived(
            &manner,
            &segment(PSH_ACK, theirs, ours + REQUEST),
            RESPONSE,
            40,
        );
        assert_eq!(step.event, Some(Event::Completed { good: true }));
        assert!(client.is_open());
    }
    // They close what nobody uses: the next request needs another connection.
    let (ours, theirs) = (100 + 3 * REQUEST, 1_001 + 3 * length);
    let step = client.arrived(&manner, &segment(FIN_ACK, theirs, ours), &[], 50);
    assert_eq!(
        (step.event, sent(step)),
        (Some(Event::Dropped), segment(FIN_ACK, ours, theirs + 1))
    );
    client.arrived(&manner, &segment(0x10, theirs + 1, ours + 1), &[], 60);
    assert!(client.is_closed());
}

#[test]
fn what_is_lost_is_sent_again_until_it_is_given_up() {
    let manner = manner(Protocol::Crr);
    let mut client = connecting(&manner);
    for (turn, at) in [(1, 200), (2, 600), (3, 1_400), (4, 3_000)] {
        let due = 10 + at * MS;
        assert_eq!(client.deadline(), due, "try {turn}");
        assert_eq!(client.expired(&manner, due - 1), Step::default());
        assert_eq!(sent(client.expired(&manner, due)), segment(0x02, 99, 0));
    }
    let step = client.expired(&manner, 10 + 6_200 * MS);
    assert_eq!(
        step,
        Step {
            send: None,
            event: Some(Event::GaveUp)
        }
    );
    let mut client = connecting(&manner);
    client.arrived(&manner, &segment(SYN_ACK, 1_000, 100), &[], 20);
    let step = client.expired(&manner, 20 + 200 * MS);
    assert_eq!(
        (sent(step), step.send.unwrap().request),
        (segment(PSH_ACK, 100, 1_001), true)
    );
    // It has come, and only the response is missing: theirs to send again.
    client.arrived(&manner, &segment(0x10, 1_001, 130), &[], 30);
    let step = client.expired(&manner, 900 * MS);
    assert_eq!(
        (sent(step), step.send.unwrap().request),
        (segment(0x10, 130, 1_001), false)
    );
}

#[test]
fn what_is_out_of_order_is_asked_for_again() {
    let manner = manner(Protocol::Crr);
    let mut client = connecting(&manner);
    client.arrived(&manner, &segment(SYN_ACK, 1_000, 100), &[], 20);
    let (one, two) = RESPONSE.split_at(50);
    let early = client.arrived(&manner, &segment(PSH_ACK, 1_051, 130), two, 30);
    assert_eq!(
        (sent(early), early.event),
        (segment(0x10, 130, 1_001), None)
    );
    client.arrived(&manner, &segment(PSH_ACK, 1_001, 130), one, 40);
    let known = client.arrived(&manner, &segment(PSH_ACK, 1_001, 130), one, 50);
    assert_eq!(
        (sent(known), known.event),
        (segment(0x10, 130, 1_051), None)
    );
    // All of it once more: what is new of it counts.
    let step = client.arrived(&manner, &segment(PSH_ACK, 1_001, 130), RESPONSE, 60);
    assert_eq!(step.event, Some(Event::Completed { good: true }));
}

#[test]
fn resets_end_what_they_are_about_and_nothing_else() {
    let manner = manner(Protocol::Crr);
    let mut client = connecting(&manner);
    client.arrived(&manner, &segment(SYN_ACK, 1_000, 100), &[], 20);
    let foreign = client.arrived(&manner, &segment(0x04, 1_000, 0), &[], 30);
    assert_eq!((foreign, client.is_closed()), (Step::default(), false));
    let step = client.arrived(&manner, &segment(0x04, 1_001, 0), &[], 30);
    assert_eq!(
        step,
        Step {
            send: None,
            event: Some(Event::Reset)
        }
    );
    // What comes for it now is refused, but for resets.
    let step = client.arrived(&manner, &segment(PSH_ACK, 1_001, 130), b"x", 40);
    assert_eq!(sent(step), segment(0x04, 130, 0));
    assert_eq!(
        client.arrived(&manner, &segment(0x04, 1_001, 0), &[], 40),
        Step::default()
    );
}

#[test]
fn a_server_that_remembers_an_earlier_connection_is_made_to_forget_it() {
    let manner = manner(Protocol::Crr);
    let mut client = connecting(&manner);
    let step = client.arrived(&manner, &segment(0x10, 7_777, 55), &[], 20);
    assert_eq!((sent(step), step.event), (segment(0x04, 55, 0), None));
    assert_eq!(
        sent(client.expired(&manner, 10 + 200 * MS)),
        segment(0x02, 99, 0)
    );
}

#[test]
fn an_error_or_half_a_response_is_told_from_a_good_one() {
    let manner = manner(Protocol::Crr);
    for (says, flags, text, event) in [
        (
            "an error",
            PSH_ACK,
            &b"HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n"[..],
            Event::Completed { good: false },
        ),
        ("half", FIN_ACK, b"HTTP/1.1 200 OK\r\n", Event::Reset),
        ("nothing", FIN_ACK, b"", Event::Reset),
        ("no HTTP", PSH_ACK, b"220 mail.example ESMTP", Event::Reset),
    ] {
        let mut client = connecting(&manner);
        client.arrived(&manner, &segment(SYN_ACK, 1_000, 100), &[], 20);
        let step = client.arrived(&manner, &segment(flags, 1_001, 130), text, 30);
        assert_eq!(step.event, Some(event), "{says}");
    }
}

/// A server as plain as can be: all it sends is sent again until it is acknowledged.
struct Server {
    state: Serving,
    expected: u32,
    asked: u32,
    closed: bool,
}

#[derive(PartialEq, Clone, Copy)]
enum Serving {
    Listening,
    Open,
    Gone,
}

const FIRST: u32 = u32::MAX - 20;

impl Server {
    fn arrived(&mut self, segment: &Segment, request: bool) -> Option<(Segment, Vec<u8>)> {
        let has = |flag: TcpFlags| segment.flags.contains(flag);
        if has(TcpFlags::RST) {
            self.state = Serving::Gone;
            return None;
        }
        if has(TcpFlags::SYN) {
            self.state = Serving::Open;
            self.expected = segment.sequence.wrapping_add(1);
            return Some((self::segment(SYN_ACK, FIRST, self.expected), Vec::new()));
        }
        if self.state != Serving::Open {
            return None;
        }
        if request && segment.sequence == self.expected {
            self.expected = self.expected.wrapping_add(REQUEST);
            self.asked += 1;
        }
        if has(TcpFlags::FIN) && segment.sequence == self.expected {
            self.expected = self.expected.wrapping_add(1);
            self.closed = true;
        }
        // What they acknowledged says what they still need: the rest of the response, then our FIN.
        let have = segment.acknowledgment.wrapping_sub(FIRST.wrapping_add(1));
        let all = self.asked * RESPONSE.len() as u32;
        if have < all {
            let rest = &RESPONSE[have as usize % RESPONSE.len()..];
            let part = &rest[..rest.len().min(37)];
            return Some((
                self::segment(PSH_ACK, segment.acknowledgment, self.expected),
                part.to_vec(),
            ));
        }
        if self.closed && have == all {
            return Some((
                self::segment(FIN_ACK, segment.acknowledgment, self.expected),
                Vec::new(),
            ));
        }
        None
    }
}

proptest! {
    /// Whatever is lost, a transaction is completed or given up, and an end is an end.
    #[test]
    fn against_a_server_over_a_path_that_loses(
        crr: bool, lost in prop::collection::vec(prop::bool::weighted(0.3), 0..40), first: u32,
    ) {
        let manner = manner(if crr { Protocol::Crr } else { Protocol::Rr });
        let mut losses = lost.into_iter();
        let mut lose = || losses.next().unwrap_or(false);
        let mut server = Server { state: Serving::Listening, expected: 0, asked: 0, closed: false };
        let mut client = Client::new();
        let mut now = 0;
        let (mut completed, mut failed, mut begun) = (0, 0, 0);
        let mut send = Some(client.connect(&manner, now, crr.then_some(now), first));
        begun += u32::from(crr);
        for _ in 0..200 {
            now += MS;
            let answer = send.take().filter(|_| !lose()).and_then(|send| {
                server.arrived(&send.segment, send.request)
            });
            let step = match answer.filter(|_| !lose()) {
                Some((segment, payload)) => client.arrived(&manner, &segment, &payload, now),
                None if client.deadline() != u64::MAX => {
                    now = now.max(client.deadline());
                    client.expired(&manner, now)
                }
                None => Step::default(),
            };
            send = step.send;
            match step.event {
                Some(Event::Completed { good }) => {
                    prop_assert!(good);
                    completed += 1;
                }
                Some(Event::Reset | Event::GaveUp) => failed += 1,
                Some(Event::Connected | Event::Dropped) | None => {}
            }
            if send.is_none() && client.is_open() && begun < 3 {
                begun += 1;
                send = Some(client.ask(&manner, now, now));
            }
            if client.is_closed() && send.is_none() {
                break;
            }
        }
        prop_assert_eq!(completed + failed, begun);
        prop_assert!(client.is_closed() || client.is_open());
        prop_assert!(server.asked >= completed);
    }
}
