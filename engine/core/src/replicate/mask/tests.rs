use super::{Masker, Masks, TooManyMasks};
use crate::replicate::chain::Hash;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use lockstep_plan::mask::{Mask, Pattern, PatternState};
use proptest::prelude::*;
use std::sync::LazyLock;

fn pattern(source: &str) -> Mask {
    Mask::Pattern(Pattern::new(source).expect(source))
}

fn range(offset: u64, length: u32) -> Mask {
    Mask::Range { offset, length }
}

fn masker(masks: &[Mask]) -> Masker {
    Masker::new(Arc::new(Masks::new(masks).unwrap()))
}

/// Of each byte, whether it is masked, for a stream that comes in pieces of these sizes.
fn segmentation(masker: &mut Masker, stream: &[u8], sizes: &[usize]) -> Vec<bool> {
    let mut result = Vec::new();
    let mut rest = stream;
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let size = sizes
            .next()
            .map_or(rest.len(), |&size| size.clamp(1, rest.len()));
        let (piece, later) = rest.split_at(size);
        let mut seen = Vec::new();
        for (masked, segment) in masker.segments(piece) {
            assert!(!segment.is_empty());
            result.extend(segment.iter().map(|_| masked));
            seen.extend_from_slice(segment);
        }
        assert_eq!(seen, piece);
        rest = later;
    }
    assert_eq!(masker.position(), stream.len() as u64);
    result
}

/// The stream with `.` for what is masked.
fn shown(masks: &[Mask], stream: &str) -> String {
    let masked = segmentation(&mut masker(masks), stream.as_bytes(), &[]);
    let bytes = stream.bytes().zip(masked);
    bytes
        .map(|(byte, masked)| if masked { '.' } else { char::from(byte) })
        .collect()
}

/// What the documentation says, byte by byte and without any of the shortcuts.
fn model(masks: &[Mask], stream: &[u8]) -> Vec<bool> {
    let patterns: Vec<&Pattern> = masks
        .iter()
        .filter_map(|mask| match mask {
            Mask::Pattern(pattern) => Some(pattern),
            Mask::Range { .. } => None,
        })
        .collect();
    // For each pattern: the bytes its literal may still end with, or the state behind it.
    let mut plain: Vec<Vec<u8>> = vec![Vec::new(); patterns.len()];
    let mut states: Vec<Option<PatternState>> = vec![None; patterns.len()];
    let mut result = Vec::new();
    for (offset, &byte) in stream.iter().enumerate() {
        let mut masked = masks.iter().any(|mask| match mask {
            Mask::Range {
                offset: first,
                length,
            } => (*first..*first + u64::from(*length)).contains(&(offset as u64)),
            Mask::Pattern(_) => false,
        });
        for (state, pattern) in states.iter_mut().zip(&patterns) {
            *state = state.and_then(|state| pattern.next(state, byte));
            masked |= state.is_some();
        }
        for ((state, plain), pattern) in states.iter_mut().zip(&mut plain).zip(&patterns) {
            if masked || state.is_some() {
                plain.clear();
                continue;
            }
            plain.push(byte);
            if plain.ends_with(pattern.literal()) {
                *state = Some(pattern.start());
                plain.clear();
            }
        }
        result.push(masked);
    }
    result
}

const ANSWER: &str = "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sat, 21 Nov 2026 09:16:05 GMT\r\n\
                      Content-Type: text/html\r\nETag: \"65f2-267\"\r\nConnection: keep-alive\r\n\r\n<html>";

#[test]
fn the_date_of_an_http_answer_is_masked_up_to_the_end_of_its_line() {
    let masks = [pattern(r"Date: [^\r]*")];
    let expected = ANSWER.replace(
        "Sat, 21 Nov 2026 09:16:05 GMT",
        ".............................",
    );
    assert_eq!(shown(&masks, ANSWER), expected);
    // And in the next answer on the same connection.
    assert_eq!(shown(&masks, &ANSWER.repeat(3)), expected.repeat(3));
}

#[test]
fn two_answers_of_different_seconds_are_equal_behind_their_masks() {
    let masks = [pattern(r"Date: [^\r]*"), pattern("ETag: \"[0-9a-f-]*")];
    let later = ANSWER
        .replace("09:16:05", "09:16:06")
        .replace("65f2", "0001");
    let masker = masker(&masks);
    assert_eq!(masker.compare(ANSWER.as_bytes(), later.as_bytes()), None);
    let other = later.replace("<html>", "<HTML>");
    let expected = ANSWER.find("html>");
    assert_eq!(
        masker.compare(ANSWER.as_bytes(), other.as_bytes()),
        expected
    );

    let hash = |text: &str| {
        let mut hash = Hash::new(7);
        masker.clone().hash(text.as_bytes(), &mut hash);
        hash
    };
    assert_eq!(hash(ANSWER), hash(&later));
    assert_ne!(hash(ANSWER), hash(&other));
}

#[test]
fn segments_are_where_they_should_be() {
    let id = || pattern("id=[0-9]+");
    for (masks, stream, expected) in [
        (vec![range(2, 3)], "abcdefgh", "ab...fgh"),
        (
            vec![range(0, 2), range(1, 2), range(3, 1)],
            "abcdefgh",
            "....efgh",
        ),
        (vec![range(3, 0)], "abcdefgh", "abcdefgh"),
        (vec![range(6, 100)], "abcdefgh", "abcdef.."),
        (vec![id()], "id=12;id=x;iid=3", "id=..;id=x;iid=."),
        // The byte that ends a match may begin the next literal.
        (vec![id()], "id=12id=345", "id=..id=..."),
        (vec![pattern("aab[0-9]")], "aaab1aab2", "aaab.aab."),
        // A literal reaches across a range no more than the match of another pattern begins one.
        (vec![range(1, 1), id()], "id=1 id=2", "i.=1 id=."),
        (
            vec![pattern("key=[a-z0-9=]*"), id()],
            "key=id=12 id=3",
            "key=..... id=.",
        ),
        // A range inside a match changes nothing; a match goes on behind it.
        (vec![range(4, 1), id()], "id=123 id=4", "id=... id=."),
        // Two that begin alike are alive together.
        (
            vec![id(), pattern("id=[0-9]{2}[a-z]*")],
            "id=12ab id=7 id=77x",
            "id=.... id=. id=...",
        ),
        // One literal ends another.
        (
            vec![pattern("xid=[a-z]"), id()],
            "xid=a xid=1 id=1",
            "xid=. xid=. id=.",
        ),
    ] {
        assert_eq!(shown(&masks, stream), expected, "{masks:?}");
    }
}

#[test]
fn without_masks_every_piece_is_one_segment() {
    let mut masker = masker(&[]);
    for _ in 0..3 {
        let segments: Vec<_> = masker.segments(b"abcdef").collect();
        assert_eq!(segments, [(false, &b"abcdef"[..])]);
    }
    assert_eq!(masker.position(), 18);
    assert_eq!(masker.segments(b"").next(), None);
}

#[test]
fn comparison_goes_as_far_as_both_do() {
    let masker = masker(&[range(0, 1)]);
    assert_eq!(masker.compare(b"abc", b"xb"), None);
    assert_eq!(masker.compare(b"ab", b"xbc"), None);
    assert_eq!(masker.compare(b"abc", b"xxc"), Some(1));
    assert_eq!(masker.compare(b"", b"x"), None);
}

#[test]
fn nine_masks_are_too_many() {
    let masks = vec![range(0, 1); 9];
    assert_eq!(Masks::new(&masks), Err(TooManyMasks(9)));
    assert!(Masks::new(&masks[..8]).is_ok());
}

#[test]
fn a_masker_is_small() {
    assert!(size_of::<Masker>() <= 64, "{}", size_of::<Masker>());
}

/// Patterns over few letters, so that literals and matches meet all the time.
static PATTERNS: LazyLock<Vec<Mask>> = LazyLock::new(|| {
    let sources = [
        "aab[abc]{1,5}",
        "aba[ab]*",
        "abab.{3}",
        "bab(?:a|bc)+",
        "caa[^c]*",
        "aaa.*?b",
        "abc[ac]",
        "bca(?:aab)*",
    ];
    sources.map(pattern).to_vec()
});

fn masks() -> impl Strategy<Value = Vec<Mask>> {
    let one = prop_oneof![
        (0_u64..300, 0_u32..40).prop_map(|(offset, length)| range(offset, length)),
        any::<prop::sample::Index>().prop_map(|index| index.get(&PATTERNS).clone()),
    ];
    prop::collection::vec(one, 0..=8)
}

/// Mostly the letters of the masks, with stretches that none of them is in.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::collection::vec(b'a'..=b'c', 0..60),
        1 => prop::collection::vec(b'x'..=b'z', 0..120),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_pieces_give_the_segmentation_of_the_model(
        masks in masks(), stream in stream(), sizes in prop::collection::vec(1_usize..80, 1..20),
    ) {
        let expected = model(&masks, &stream);
        prop_assert_eq!(&segmentation(&mut masker(&masks), &stream, &[]), &expected);
        prop_assert_eq!(&segmentation(&mut masker(&masks), &stream, &[1]), &expected);
        prop_assert_eq!(&segmentation(&mut masker(&masks), &stream, &sizes), &expected);
    }

    #[test]
    fn a_comparison_finds_the_first_byte_that_is_not_masked(
        masks in masks(), stream in stream(), split in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 1_u8..), 0..6),
    ) {
        prop_assume!(!stream.is_empty());
        let split = split.index(stream.len());
        let mut other = stream.clone();
        for (at, change) in changes {
            let at = at.index(stream.len());
            other[at] = stream[at] ^ change;
        }
        let masked = model(&masks, &stream);
        let expected = (split..stream.len()).find(|&i| !masked[i] && stream[i] != other[i]);
        let mut masker = masker(&masks);
        masker.hash(&stream[..split], &mut Hash::new(0));
        let before = masker.position();
        prop_assert_eq!(masker.compare(&stream[split..], &other[split..]), expected.map(|i| i - split));
        prop_assert_eq!(masker.position(), before);
    }

    /// A stream hashed with its masks is the stream with zeros in their places.
    #[test]
    fn masked_bytes_hash_as_zeros(masks in masks(), stream in stream(), seed: u64) {
        let mut with_masks = Hash::new(seed);
        masker(&masks).hash(&stream, &mut with_masks);
        let zeros: Vec<u8> = stream
            .iter()
            .zip(model(&masks, &stream))
            .map(|(&byte, masked)| if masked { 0 } else { byte })
            .collect();
        let mut plain = Hash::new(seed);
        plain.update(&zeros);
        prop_assert_eq!(with_masks, plain);
    }
}
