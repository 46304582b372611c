//! Numbers for people: with separators and units.

use std::time::{Duration, UNIX_EPOCH};

/// A count: `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the largest unit that leaves a number before the point: `1.5 GiB`.
pub fn bytes(n: u64) -> String {
    let mut value = n as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
        // 1,023.95 would be shown as 1024.0.
        if value < 1_023.95 {
            break;
        }
        value /= 1_024.0;
        unit = larger;
    }
    if unit == "B" {
        format!("{n} B")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// A share from 0 to 1: `33.3 %`.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// How often something happens in a second: `1,234`, `0.5` below ten, `-` where nobody knows.
pub fn rate(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(rate) if rate > 0.0 && rate < 9.95 => format!("{rate:.1}"),
        Some(rate) => count(rate.max(0.0).round() as u64),
    }
}

/// Bits in a second, in the largest unit that leaves a number before the point: `1.5 Gbit/s`.
pub fn bits(rate: Option<f64>) -> String {
    let Some(mut value) = rate else {
        return "-".to_owned();
    };
    let mut unit = "bit/s";
    for larger in ["kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"] {
        // 999.95 would be shown as 1000.0.
        if value < 999.95 {
            break;
        }
        value /= 1_000.0;
        unit = larger;
    }
    match unit {
        "bit/s" => format!("{value:.0} {unit}"),
        _ => format!("{value:.1} {unit}"),
    }
}

/// A time in its two largest units: `3h 12m`.
pub fn time(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60);
    match (days, hours, minutes, whole % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m {s}s"),
        (0, h, m, _) => format!("{h}h {m}m"),
        (d, h, _, _) => format!("{d}d {h}h"),
    }
}

/// The time of day, in UTC, with milliseconds: `09:41:14.250`.
pub fn clock(seconds: f64) -> String {
    let at = UNIX_EPOCH + Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (day, millis) = (since.as_secs() % 86_400, since.subsec_millis());
    let (hours, minutes) = (day / 3_600, day / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{millis:03}", day % 60)
}

/// A time that is a fraction of a second, mostly: `850 ns`, `9.2 µs`, `1.5 ms`.
pub fn moment(seconds: f64) -> String {
    let nanos = seconds.max(0.0) * 1e9;
    match nanos {
        // What would be rounded up to 1,000 is of the next unit.
        _ if nanos < 999.5 => format!("{nanos:.0} ns"),
        _ if nanos < 999.95e3 => format!("{:.1} µs", nanos / 1e3),
        _ if nanos < 999.95e6 => format!("{:.1} ms", nanos / 1e6),
        _ => format!("{:.1} s", nanos / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_in_the_unit_that_leaves_one_to_three_digits() {
        for (seconds, text) in [
            (0.0, "0 ns"),
            (850e-9, "850 ns"),
            (999.9e-9, "1.0 µs"),
            (9.24e-6, "9.2 µs"),
            (1.5e-3, "1.5 ms"),
            (2.0, "2.0 s"),
        ] {
            assert_eq!(moment(seconds), text);
        }
    }

    #[test]
    fn numbers_have_separators_and_units() {
        for (n, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(count(n), text);
        }
        for (n, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (1_610_612_736, "1.5 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(n), text);
        }
        for (per_second, text) in [
            (None, "-"),
            (Some(0.0), "0"),
            (Some(0.04), "0.0"),
            (Some(9.94), "9.9"),
            (Some(9.95), "10"),
            (Some(1_234.4), "1,234"),
        ] {
            assert_eq!(rate(per_second), text);
        }
        for (per_second, text) in [
            (None, "-"),
            (Some(0.0), "0 bit/s"),
            (Some(999.0), "999 bit/s"),
            (Some(999.95), "1.0 kbit/s"),
            (Some(1_536e6), "1.5 Gbit/s"),
            (Some(5e15), "5000.0 Tbit/s"),
        ] {
            assert_eq!(bits(per_second), text);
        }
        assert_eq!(percent(1.0 / 3.0), "33.3 %");
        for (seconds, text) in [
            (-1.0, "0s"),
            (59.9, "59s"),
            (61.0, "1m 1s"),
            (11_520.0, "3h 12m"),
            (90_000.0, "1d 1h"),
        ] {
            assert_eq!(time(seconds), text);
        }
    }
}
