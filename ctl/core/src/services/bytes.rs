//! Amounts of memory as an operator writes them: `64KiB`, `1MiB`, `2GiB`.

const UNITS: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// What is allowed, for messages.
pub const ALLOWED: &str = "a whole number and B, KiB, MiB or GiB, such as \"64KiB\" or \"1MiB\"";

/// Bytes from their text: one number, one unit. `None` for any other form and past 2^64.
pub fn parse(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let (_, bytes) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*bytes)
}

/// The text of an amount, in the largest unit that expresses it.
pub fn format(bytes: u64) -> String {
    let (name, unit) = UNITS
        .iter()
        .find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit))
        .unwrap_or(&("B", 1));
    format!("{}{name}", bytes / unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn other_forms_are_no_amounts() {
        for text in [
            "",
            "1",
            "1M",
            "1 MiB",
            "1mib",
            "1.5MiB",
            "-1B",
            "MiB",
            "18446744073709551615KiB",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(format(0), "0B");
        assert_eq!(format(3 << 19), "1536KiB");
    }

    proptest! {
        #[test]
        fn an_amount_reads_back(bytes in any::<u64>(), shift in 0..64_u32) {
            let bytes = bytes >> shift << (shift / 2);
            prop_assert_eq!(parse(&format(bytes)), Some(bytes));
        }
    }
}
