//! Layouts, against a formatter of its own kind.

use super::*;
use proptest::prelude::*;

fn range(num: u16, min: i32, max: i32) -> Range {
    Range { num, min, max }
}

fn layout(col: u32, base: Base) -> Layout {
    Layout {
        col,
        base,
        format: Format::Plain,
    }
}

#[test]
fn numbers_stand_in_columns() {
    let numbers = [1, 22, 3, 4, 5];
    for (col, text) in [
        (1, "1\n22\n3\n4\n5\n"),
        (2, "1\t22\n3\t4\n5\n"),
        (5, "1\t22\t3\t4\t5\n"),
        (1_000_000_000, "1\t22\t3\t4\t5\n"),
    ] {
        let layout = layout(col, Base::Decimal);
        assert_eq!(document(&numbers, range(5, 1, 22), layout), text);
    }
}

#[test]
fn numbers_in_other_bases_have_the_digits_of_the_largest() {
    let numbers = [0, 5, -255];
    for (base, text) in [
        (Base::Binary, "00000000\n00000101\n-11111111\n"),
        (Base::Octal, "000\n005\n-377\n"),
        (Base::Decimal, "0\n5\n-255\n"),
        (Base::Hexadecimal, "00\n05\n-ff\n"),
    ] {
        assert_eq!(document(&numbers, range(3, -255, 7), layout(1, base)), text);
    }
}

#[test]
fn a_page_has_the_numbers_in_it() {
    let layout = Layout {
        format: Format::Html,
        ..layout(2, Base::Decimal)
    };
    let page = document(&[1, 2], range(2, 1, 2), layout);
    assert!(page.starts_with("<!DOCTYPE html>"), "{page}");
    assert!(page.contains("<pre class=\"data\">1\t2\n</pre>"), "{page}");
}

#[test]
fn answers_of_other_services_are_read_or_refused() {
    let three = range(3, 1, 6);
    assert_eq!(read("1\t2\n6\n", three), Ok(vec![1, 2, 6]));
    for (text, error) in [
        ("1\n2\n", "not exactly 3 numbers"),
        ("1\n2\n3\n4\n", "not exactly 3 numbers"),
        ("", "not exactly 3 numbers"),
        ("1\n2\n7\n", "\"7\" is no number from 1 to 6"),
        ("1\n<html>\n", "\"<html>\" is no number"),
        (
            "Error: You have used your quota\n1 2 3",
            "Error: You have used your quota",
        ),
    ] {
        let found = read(text, three).unwrap_err();
        assert!(found.contains(error), "{found}");
    }
}

/// Digits by division, with zeros in front: shares nothing with the formatter of the standard
/// library.
fn by_division(mut number: i64, base: i64, width: usize) -> String {
    let negative = number < 0;
    number = number.abs();
    let mut digits = Vec::new();
    while number > 0 || digits.len() < width {
        digits.push(char::from_digit((number % base) as u32, base as u32).unwrap());
        number /= base;
    }
    if negative {
        digits.push('-');
    }
    digits.iter().rev().collect()
}

fn digits_of(mut number: i64, base: i64) -> usize {
    let mut digits = 1;
    while number >= base {
        number /= base;
        digits += 1;
    }
    digits
}

proptest! {
    #[test]
    fn documents_are_those_of_an_independent_formatter(
        numbers in proptest::collection::vec(-1_000_000i32..1_000_000, 1..60), col in 1u32..12,
        which in 0usize..4,
    ) {
        let (base, radix) = [
            (Base::Binary, 2), (Base::Octal, 8), (Base::Decimal, 10), (Base::Hexadecimal, 16),
        ][which];
        let (min, max) = (*numbers.iter().min().unwrap(), 1_000_000);
        let largest = i64::from(min).abs().max(i64::from(max));
        let width = if radix == 10 { 1 } else { digits_of(largest, radix) };
        let rows: Vec<String> = numbers.chunks(col as usize).map(|row| {
            let row: Vec<_> = row.iter().map(|&n| by_division(n.into(), radix, width)).collect();
            row.join("\t") + "\n"
        }).collect();
        let found = document(&numbers, range(numbers.len() as u16, min, max), layout(col, base));
        prop_assert_eq!(found, rows.concat());
    }

    #[test]
    fn what_is_written_in_base_10_is_read_back(
        numbers in proptest::collection::vec(-9i32..=9, 1..60), col in 1u32..12,
    ) {
        let range = range(numbers.len() as u16, -9, 9);
        prop_assert_eq!(read(&document(&numbers, range, layout(col, Base::Decimal)), range), Ok(numbers));
    }
}
