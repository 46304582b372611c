//! What is kept, for how long, and over restarts.

use super::*;
use crate::random::request::{Range, Which};
use proptest::prelude::*;

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

fn key(call: u64) -> Key {
    let range = Range {
        num: 2,
        min: 1,
        max: 6,
    };
    let session = Name::new("s").unwrap();
    Key::new(range, &Which::Call { session, call }).unwrap()
}

fn kept(until: u64, numbers: &[i32]) -> Kept {
    Kept {
        until: Timestamp(until),
        numbers: Numbers::List(numbers.to_vec()),
    }
}

#[test]
fn an_answer_lasts_until_its_time_is_over() {
    let mut book = Book::default();
    book.keep(Record::answer(key(1), kept(100, &[1, 2])));
    assert_eq!(
        book.answer(&key(1), Timestamp(99)),
        Some(kept(100, &[1, 2]))
    );
    assert_eq!(book.answer(&key(1), Timestamp(100)), None);
    assert_eq!(book.answer(&key(2), Timestamp(0)), None);
    let next = Record::answer(key(1), kept(200, &[3, 4]));
    book.make_room(&next, Timestamp(100)).unwrap();
    assert!(book.is_empty(), "what is over makes room");
    book.keep(next);
    assert_eq!(
        book.answer(&key(1), Timestamp(100)),
        Some(kept(200, &[3, 4]))
    );
}

#[test]
fn calls_are_counted_for_each_replica_while_it_calls() {
    let (a, b) = (Name::new("a").unwrap(), Name::new("b").unwrap());
    let other: IpAddr = "2001:db8::1".parse().unwrap();
    let mut book = Book::default();
    let mut call = |session: &Name, client, now: u64| {
        let (call, record) = book.next_call(session, client, Timestamp(now), Timestamp(now + 10));
        book.keep(record);
        call
    };
    assert_eq!([call(&a, CLIENT, 0), call(&a, CLIENT, 9)], [1, 2]);
    assert_eq!([call(&a, other, 9), call(&b, CLIENT, 9)], [1, 1]);
    assert_eq!(call(&a, CLIENT, 18), 3);
    assert_eq!(
        call(&a, CLIENT, 28),
        1,
        "10 after the last call it is forgotten"
    );
}

#[test]
fn a_full_book_takes_nothing_more_until_something_is_over() {
    let mut book = Book::default();
    let big = vec![1; MAX_BYTES / 4];
    book.keep(Record::answer(key(1), kept(100, &big)));
    let next = Record::answer(key(2), kept(200, &[1]));
    assert_eq!(book.make_room(&next, Timestamp(99)), Err(Full::All));
    assert!(book.answer(&key(1), Timestamp(99)).is_some());
    // The same thing anew takes the place of what it was.
    let anew = Record::answer(key(1), kept(100, &big));
    assert_eq!(book.make_room(&anew, Timestamp(99)), Ok(()));
    assert_eq!(book.make_room(&next, Timestamp(100)), Ok(()));
    let mut book = Book::default();
    for call in 0..MAX_RECORDS as u64 {
        book.keep(Record::answer(key(call), kept(100 + call, &[])));
    }
    let next = Record::answer(key(u64::MAX), kept(1, &[]));
    assert_eq!(book.make_room(&next, Timestamp(99)), Err(Full::All));
    assert_eq!(book.has_room(None, Timestamp(99)), Err(Full::All));
    assert_eq!(book.make_room(&next, Timestamp(100)), Ok(()));
    assert_eq!(book.has_room(None, Timestamp(100)), Ok(()));
    assert_eq!(book.len(), MAX_RECORDS - 1);
}

#[test]
fn a_client_that_makes_up_sessions_takes_no_more_than_its_share() {
    let mut book = Book::default();
    let next = |book: &Book, n: usize, client: &str| {
        let name = Name::new(&format!("s{n}")).unwrap();
        let client = client.parse().unwrap();
        let (_, record) = book.next_call(&name, client, Timestamp(0), Timestamp(100));
        record
    };
    for n in 0..MAX_OF_CLIENT {
        // One host of IPv6 has many addresses.
        let record = next(&book, n, &format!("2001:db8::{n:x}"));
        assert_eq!(book.make_room(&record, Timestamp(0)), Ok(()));
        book.keep(record);
    }
    let more = next(&book, MAX_OF_CLIENT, "2001:db8::1:0:0:0");
    assert_eq!(book.make_room(&more, Timestamp(0)), Err(Full::Client));
    let client = "2001:db8::f".parse().ok();
    assert_eq!(book.has_room(client, Timestamp(0)), Err(Full::Client));
    // What it has already goes on, and so does everybody else.
    let known = next(&book, 7, "2001:db8::7");
    assert_eq!(book.make_room(&known, Timestamp(0)), Ok(()));
    let other = next(&book, 0, "2001:db8:0:1::1");
    assert_eq!(book.make_room(&other, Timestamp(0)), Ok(()));
    assert_eq!(book.has_room(client, Timestamp(100)), Ok(()));
}

fn record() -> impl Strategy<Value = Record> {
    let list = proptest::collection::vec(any::<i32>(), 0..4).prop_map(Numbers::List);
    let salt = any::<[u8; 16]>().prop_map(Numbers::Salt);
    let answer = (0u64..6, 0u64..20, prop_oneof![list, salt]).prop_map(|(call, until, numbers)| {
        let until = Timestamp(until);
        Record::answer(key(call), Kept { until, numbers })
    });
    let calls = ("[a-c]", any::<u8>(), 0u64..20, any::<u64>());
    let calls = calls.prop_map(|(session, host, until, calls)| Record {
        id: Id::Calls(Name::new(&session).unwrap(), [10, 0, 0, host].into()),
        until: Timestamp(until),
        content: Content::Calls(calls),
    });
    prop_oneof![answer, calls]
}

proptest! {
    #[test]
    fn a_book_that_is_read_again_is_the_same(
        records in proptest::collection::vec(record(), 0..30), now in 0u64..20,
    ) {
        let mut book = Book::default();
        for record in records {
            book.make_room(&record, Timestamp(now)).unwrap();
            book.keep(record);
        }
        let mut again = Book::default();
        for line in book.records().map(|r| r.to_line()) {
            again.keep(Record::from_line(line.strip_suffix('\n').unwrap()).unwrap());
        }
        prop_assert_eq!(&book, &again);
        prop_assert_eq!(book.bytes, book.records().map(|r| r.size()).sum::<usize>());
        prop_assert_eq!(book.ends.len(), book.len());
        let sessions = book.records.keys().filter(|id| matches!(id, Id::Calls(..))).count();
        prop_assert_eq!(book.sessions.values().sum::<usize>(), sessions);
    }

    #[test]
    fn no_line_does_harm(line in ".{0,200}") {
        let _ = Record::from_line(&line);
    }
}
