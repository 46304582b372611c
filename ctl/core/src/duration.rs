//! Durations as operators write them: a whole number and a unit, `500ms`, `60s`, `15m`, `2h`.

use std::time::Duration;

/// Not a duration: what one looks like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is not a duration; write a whole number and a unit (ms, s, m or h), such as \"60s\""
)]
pub struct ParseDurationError(String);

/// Reads a duration. The unit is required: a bare number has been taken for milliseconds by one
/// tool and for seconds by another too often.
///
/// # Errors
/// When `text` is anything else, or longer than fits in 64 bits of milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, ParseDurationError> {
    let error = || ParseDurationError(text.to_owned());
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let milliseconds_each: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(error()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(milliseconds_each))
        .map(Duration::from_millis)
        .ok_or_else(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_unit_are_a_duration() {
        for (text, milliseconds) in [
            ("0s", 0),
            ("250ms", 250),
            ("60s", 60_000),
            ("15m", 900_000),
            ("12h", 43_200_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_right_form() {
        for text in [
            "",
            "s",
            "60",
            "60 s",
            "1.5h",
            "-1s",
            "+1s",
            "1d",
            "1h30m",
            "60S",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            let error = parse_duration(text).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("\"{text}\" is not a duration")),
                "{error}"
            );
        }
    }
}
