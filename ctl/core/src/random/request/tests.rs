//! Parameters, and what is said of wrong ones.

use super::*;
use proptest::prelude::*;

const TODAY: &str = "2026-11-21";

fn pairs(query: &str) -> Vec<(String, String)> {
    let pair = |p: &str| {
        let (name, value) = p.split_once('=').unwrap_or((p, ""));
        (name.to_owned(), value.to_owned())
    };
    query
        .split('&')
        .filter(|p| !p.is_empty())
        .map(pair)
        .collect()
}

fn parse(query: &str) -> Result<Request, String> {
    Request::parse(&pairs(query), TODAY).map_err(|e| e.to_string())
}

fn which(rest: &str) -> Result<Which, String> {
    parse(&format!("num=1&min=1&max=6&{rest}")).map(|r| r.which)
}

#[test]
fn a_request_as_clients_of_random_org_send_it_is_read() {
    let request = parse("num=10&min=-1&max=6&col=5&base=16&format=html&rnd=new");
    let range = Range {
        num: 10,
        min: -1,
        max: 6,
    };
    let layout = Layout {
        col: 5,
        base: Base::Hexadecimal,
        format: Format::Html,
    };
    assert_eq!(
        request,
        Ok(Request {
            range,
            which: Which::Current,
            layout
        })
    );
}

#[test]
fn every_wrong_parameter_has_its_error() {
    let num = "Error: The num value must be an integer in the [1,10000] interval";
    let min =
        "Error: The minimum value must be an integer in the [-1000000000,1000000000] interval";
    let max =
        "Error: The maximum value must be an integer in the [-1000000000,1000000000] interval";
    let col = "Error: The number of columns must be an integer in the [1,1000000000] interval";
    let rnd = "Error: The randomization must be new, id.identifier or date.iso-date";
    for (query, error) in [
        ("", num),
        ("num=0&min=1&max=6", num),
        ("num=10001&min=1&max=6", num),
        ("num=1.5&min=1&max=6", num),
        ("num=99999999999999999999999999&min=1&max=6", num),
        ("num=1&max=6", min),
        ("num=1&min=-1000000001&max=6", min),
        ("num=1&min=1&max=", max),
        ("num=1&min=1&max=1000000001", max),
        (
            "num=1&min=6&max=6",
            "Error: The maximum value must be greater than the minimum value",
        ),
        ("num=1&min=1&max=6&col=0", col),
        ("num=1&min=1&max=6&col=1000000001", col),
        (
            "num=1&min=1&max=6&base=7",
            "Error: The base must be 2, 8, 10 or 16",
        ),
        (
            "num=1&min=1&max=6&format=json",
            "Error: The format must be html or plain",
        ),
        ("num=1&min=1&max=6&rnd=old", rnd),
        ("num=1&min=1&max=6&rnd=id.", rnd),
        ("num=1&min=1&max=6&rnd=date.2025-02-29", rnd),
        ("num=1&min=1&max=6&rnd=date.2025-1-1", rnd),
        (
            "num=1&min=1&max=6&rnd=date.2026-11-22",
            "Error: The date must not be in the future",
        ),
        (
            "num=1&min=1&max=6&session=a&call=0",
            "Error: The call value must be an integer in the [1,9223372036854775807] interval",
        ),
        (
            "num=1&min=1&max=6&call=1",
            "Error: The call value must be given with a session",
        ),
        (
            "num=1&min=1&max=6&session=",
            "Error: The session must be 1 to 64 letters, digits, '-', '_', '.' or ':'",
        ),
        (
            "num=1&min=1&max=6&session=a&rnd=id.x",
            "Error: The randomization must be new where there is a session",
        ),
        (
            "num=1&min=1&max=6&sesion=a",
            "Error: The parameter sesion is unknown, or stands there twice",
        ),
        (
            "num=1&min=1&max=6&num=2",
            "Error: The parameter num is unknown, or stands there twice",
        ),
        (
            "num=1&<script>=1",
            "Error: The parameter ?script? is unknown, or stands there twice",
        ),
        (&"a=1&".repeat(17), "Error: There are too many parameters"),
    ] {
        assert_eq!(parse(query), Err(error.to_owned()), "{query}");
    }
}

#[test]
fn the_answer_that_is_meant_is_read() {
    let name = |text| Name::new(text).unwrap();
    for (rest, expected) in [
        ("", Which::Current),
        ("rnd=new", Which::Current),
        ("rnd=id.game-7", Which::Fixed(name("id.game-7"))),
        ("rnd=date.2024-02-29", Which::Fixed(name("date.2024-02-29"))),
        ("rnd=date.2026-11-21", Which::Fixed(name("date.2026-11-21"))),
        (
            "session=a:1&call=7",
            Which::Call {
                session: name("a:1"),
                call: 7,
            },
        ),
        ("session=a&rnd=new", Which::NextCall { session: name("a") }),
    ] {
        assert_eq!(which(rest), Ok(expected), "{rest}");
    }
}

#[test]
fn days_become_dates() {
    for (days, date) in [
        (0, "1970-01-01"),
        (59, "1970-03-01"),
        (11_016, "2000-02-29"),
        (11_017, "2000-03-01"),
        (20_453, "2025-12-31"),
        (20_454, "2026-01-01"),
    ] {
        assert_eq!(date_of(days), date);
    }
    // Every day is the one after the day before, and a day of the calendar.
    let mut before = date_of(0);
    for day in 1..80_000 {
        let date = date_of(day);
        assert!(is_date(&date) && date > before, "{before} {date}");
        before = date;
    }
}

proptest! {
    #[test]
    fn no_query_does_harm(pairs in proptest::collection::vec((".{0,12}", ".{0,80}"), 0..20)) {
        if let Err(error) = Request::parse(&pairs, TODAY) {
            prop_assert!(error.to_string().starts_with("Error: "));
        }
    }

    #[test]
    fn keys_are_the_same_for_the_same_numbers_only(
        a in (1u16..5, -3i32..0, 1i32..4, 1u64..4), b in (1u16..5, -3i32..0, 1i32..4, 1u64..4),
    ) {
        let key = |(num, min, max, call): (u16, i32, i32, u64)| {
            let session = Name::new("s").unwrap();
            Key::new(Range { num, min, max }, &Which::Call { session, call }).unwrap()
        };
        prop_assert_eq!(key(a) == key(b), a == b);
    }
}
