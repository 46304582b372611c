//! Numbers as people read them, wherever they stand: on a terminal, on a page, in a picture.

/// A whole number with its thousands told apart: `1,350,992`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The nearest whole number, in the same way: `-1,234`.
pub fn thousands(number: f64) -> String {
    if !number.is_finite() {
        return "-".to_owned();
    }
    let whole = number.round();
    let sign = if whole < 0.0 { "-" } else { "" };
    format!("{sign}{}", grouped(whole.abs() as u64))
}

/// With so many decimals: `36,749.60`.
pub fn decimals(number: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", number.abs());
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let Ok(whole) = whole.parse() else {
        return thousands(number);
    };
    let nothing = !text
        .bytes()
        .any(|digit| digit.is_ascii_digit() && digit != b'0');
    let sign = if number < 0.0 && !nothing { "-" } else { "" };
    format!("{sign}{}{fraction}", grouped(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_told_apart() {
        for (number, written) in [
            (0.0, "0"),
            (-0.4, "0"),
            (999.4, "999"),
            (999.5, "1,000"),
            (644_571.0, "644,571"),
            (1_234_567.4, "1,234,567"),
            (-1_234.4, "-1,234"),
            (f64::NAN, "-"),
            (f64::INFINITY, "-"),
        ] {
            assert_eq!(thousands(number), written, "{number}");
        }
        assert_eq!(grouped(1_000), "1,000");
    }

    #[test]
    fn decimals_stand_behind_thousands() {
        for (number, places, written) in [
            (36_749.6, 2, "36,749.60"),
            (-1_234.56, 1, "-1,234.6"),
            (-0.001, 2, "0.00"),
            (1.5, 0, "2"),
            (f64::NAN, 2, "-"),
        ] {
            assert_eq!(decimals(number, places), written, "{number}");
        }
    }
}
