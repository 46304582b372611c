//! Durations as an operator writes them: `500ms`, `1s`, `5m`, `2h`.

use std::time::Duration;

const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// What is allowed, for messages.
pub const ALLOWED: &str = "a whole number and ms, s, m or h, such as \"500ms\" or \"5m\"";

/// Not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a duration is {ALLOWED}")]
pub struct ParseDurationError;

/// A duration from its text. One number, one unit: `90s`, not `1m30s`.
///
/// # Errors
/// [`ParseDurationError`] for any other form and for more than 2^64 milliseconds.
pub fn parse(text: &str) -> Result<Duration, ParseDurationError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| ParseDurationError)?;
    let (_, milliseconds) = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or(ParseDurationError)?;
    number
        .checked_mul(*milliseconds)
        .map(Duration::from_millis)
        .ok_or(ParseDurationError)
}

/// A duration's text in the largest unit that expresses it, in whole milliseconds (a remainder
/// below is cut off, as nothing [`parse`] returns has one).
pub fn format(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let (name, unit) = UNITS
        .iter()
        .find(|(_, unit)| milliseconds > 0 && milliseconds.is_multiple_of(u128::from(*unit)))
        .unwrap_or(&("s", 1_000));
    format!("{}{name}", milliseconds / u128::from(*unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_and_written() {
        let rows = [
            ("1ms", 1, "1ms"),
            ("1000ms", 1_000, "1s"),
            ("90s", 90_000, "90s"),
            ("60s", 60_000, "1m"),
            ("120m", 7_200_000, "2h"),
            ("0ms", 0, "0s"),
        ];
        for (text, milliseconds, written) in rows {
            let duration = parse(text).unwrap();
            assert_eq!(duration, Duration::from_millis(milliseconds), "{text}");
            assert_eq!(format(duration), written, "{text}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "s",
            "1",
            "-1s",
            "+1s",
            "1.5s",
            "1 s",
            " 1s",
            "1m30s",
            "1S",
            "1d",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert_eq!(parse(text), Err(ParseDurationError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(milliseconds: u64) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }
    }
}
