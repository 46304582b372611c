use super::{Pattern, PatternError};
use alloc::string::ToString;
use alloc::vec::Vec;
use proptest::prelude::*;

/// How many bytes of `text` the part behind the literal beginning lives through.
fn masked(pattern: &Pattern, text: &[u8]) -> usize {
    let mut state = pattern.start();
    for (index, &byte) in text.iter().enumerate() {
        match pattern.next(state, byte) {
            Some(next) => state = next,
            None => return index,
        }
    }
    text.len()
}

#[test]
fn the_automaton_dies_at_the_first_byte_that_is_in_no_match() {
    for (source, text, expected) in [
        (r"Date: [^\r]*", "Sat, 21 Nov\r\nServer: x", 11),
        (r"Date: [^\r]*\r", "Sat, 21 Nov\r\nServer: x", 12),
        ("id=[0-9a-f]{4}", "09afbe", 4),
        ("id=[0-9]+", "12x", 2),
        ("id=(?:ab|abc)x", "abcx!", 4),
        ("id=.*?;", "12;34;", 3),
        ("id=.*;", "12;34;", 6),
        ("(id=)([0-9]+)", "77 ", 2),
        ("id=[0-9]", "x", 0),
        ("id=(?s-u:.)", "\n\n", 1),
    ] {
        let pattern = Pattern::new(source).expect(source);
        assert_eq!(
            masked(&pattern, text.as_bytes()),
            expected,
            "{source} on {text:?}"
        );
    }
}

#[test]
fn the_literal_beginning_is_what_every_match_begins_with() {
    for (source, literal) in [
        (r"Date: [^\r]*", "Date: "),
        (r"(Date): \d+", "Date: "),
        ("abc(?:d|e)", "abc"),
        (r"a\.b\x00[0-9]", "a.b\0"),
        ("Größe=[0-9]+", "Größe="),
    ] {
        assert_eq!(
            Pattern::new(source).expect(source).literal(),
            literal.as_bytes(),
            "{source}"
        );
    }
}

#[test]
fn what_cannot_be_a_mask_is_refused_with_the_reason() {
    for (source, expected) in [
        ("ab[0-9]", PatternError::Literal { found: 2 }),
        ("[0-9]+", PatternError::Literal { found: 0 }),
        ("", PatternError::Literal { found: 0 }),
        ("(?i)Date: .*", PatternError::Literal { found: 0 }),
        ("abc|xyz", PatternError::Literal { found: 0 }),
        ("^Date: .*", PatternError::Look),
        ("Date: .*$", PatternError::Look),
        (r"Date: \b.*", PatternError::Look),
        ("Date: ", PatternError::Nothing),
        ("Date: [0-9]*?", PatternError::Nothing),
        ("Date: [0-9]{5000}", PatternError::Large),
        ("Date: (?:[0-9]{200}){200}{200}", PatternError::Large),
    ] {
        assert_eq!(Pattern::new(source), Err(expected), "{source}");
    }
    let long = "x".repeat(256) + "[0-9]";
    assert_eq!(
        Pattern::new(&long),
        Err(PatternError::LongLiteral { found: 256 })
    );
    let error = Pattern::new("Date: [").unwrap_err();
    assert!(matches!(error, PatternError::Syntax(_)), "{error}");
    assert!(error.to_string().contains("unclosed"), "{error}");
}

#[test]
fn patterns_are_equal_when_they_are_written_the_same() {
    let pattern = Pattern::new("Date: .*").unwrap();
    assert_eq!(pattern, Pattern::new("Date: .*").unwrap());
    assert_ne!(pattern, Pattern::new("Date: .+").unwrap());
    assert_eq!(
        alloc::format!("{pattern:?} {pattern}"),
        r#"Pattern("Date: .*") Date: .*"#
    );
}

proptest! {
    // Compiling is most of it.
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// For an expression without laziness, what is alive is what some longer text can still match:
    /// the class of the repetition says so directly.
    #[test]
    fn a_repetition_of_a_class_lives_as_long_as_its_bytes_do(
        min in 0_usize..4, max in 4_usize..12, text in prop::collection::vec(b'a'..=b'f', 0..60),
    ) {
        let pattern = Pattern::new(&alloc::format!("id=[a-d]{{{min},{max}}}")).unwrap();
        let expected = text.iter().take(max).take_while(|byte| (b'a'..=b'd').contains(byte)).count();
        prop_assert_eq!(masked(&pattern, &text), expected);
    }

    #[test]
    fn no_expression_panics(source in "(id=)?[-a-d0-9\\[\\]{}()|*+?.,^$\\\\]{0,24}", text: Vec<u8>) {
        if let Ok(pattern) = Pattern::new(&source) {
            prop_assert!(pattern.literal().len() >= Pattern::MIN_LITERAL);
            masked(&pattern, &text);
        }
    }
}
