use super::{BLOCK, CHECKPOINTS, Chain, DISTANCE, Hash};
use crate::replicate::mask::{Masker, Masks};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use lockstep_plan::mask::{Mask, Pattern};
use proptest::prelude::*;

fn hash(seed: u64, bytes: &[u8]) -> Hash {
    let mut hash = Hash::new(seed);
    hash.update(bytes);
    hash
}

/// Feeds a stream in pieces of these sizes, again and again.
fn pieces<'a>(stream: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = stream;
    let mut sizes = sizes.iter().cycle();
    core::iter::from_fn(move || {
        let size = sizes
            .next()
            .copied()
            .unwrap_or(1)
            .clamp(1, rest.len().max(1));
        (!rest.is_empty()).then(|| rest.split_off(..size)).flatten()
    })
}

fn masker(masks: &[Mask]) -> Masker {
    Masker::new(Arc::new(Masks::new(masks).unwrap()))
}

/// A stream that looks random and is as long as asked.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let words = core::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    });
    words.take(length).collect()
}

#[test]
fn zeros_count() {
    let lengths = [0, 1, 7, 31, 32, 33, 64, 1000];
    for a in lengths {
        for b in lengths {
            let (x, y) = (hash(1, &vec![0; a]), hash(1, &vec![0; b]));
            assert_eq!(x == y, a == b);
            assert_eq!(x.digest() == y.digest(), a == b);
        }
    }
}

#[test]
fn every_bit_of_a_stream_counts() {
    let stream = noise(3 * BLOCK + 5);
    let whole = hash(3, &stream);
    for bit in 0..stream.len() * 8 {
        let mut other = stream.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        let other = hash(3, &other);
        assert_ne!(other, whole, "bit {bit}");
        assert_ne!(other.digest(), whole.digest(), "bit {bit}");
    }
}

/// Half of the digest's bits turn when one of the stream's does.
#[test]
fn differences_spread() {
    let stream = noise(4 * BLOCK);
    let whole = hash(3, &stream).digest().0;
    let mut turned = 0;
    for bit in 0..stream.len() * 8 {
        let mut other = stream.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        turned += (hash(3, &other).digest().0 ^ whole).count_ones();
    }
    let mean = f64::from(turned) / (stream.len() * 8) as f64;
    assert!((31.0..33.0).contains(&mean), "{mean}");
}

/// Words and blocks in another order are another stream.
#[test]
fn order_counts() {
    let stream = noise(4 * BLOCK);
    for size in [8, BLOCK] {
        let mut other = stream.clone();
        let (a, b) = other.split_at_mut(size);
        a.swap_with_slice(&mut b[..size]);
        assert_ne!(hash(9, &stream), hash(9, &other));
        assert_ne!(hash(9, &stream).digest(), hash(9, &other).digest());
    }
}

#[test]
fn seeds_make_other_hashes() {
    assert_ne!(hash(1, b"abc"), hash(2, b"abc"));
    assert_ne!(hash(1, b"abc").digest(), hash(2, b"abc").digest());
}

#[test]
fn checkpoints_are_the_hash_at_their_offset() {
    let stream = noise(5 * DISTANCE as usize + 17);
    let mut chain = Chain::new(4);
    let mut masker = masker(&[]);
    for piece in pieces(&stream, &[1, 1448, 70_000]) {
        chain.commit(piece, &mut masker);
    }
    assert_eq!(chain.len(), stream.len() as u64);
    assert_eq!(*chain.head(), hash(4, &stream));
    let mut after = 0;
    for index in 1..=5 {
        let (offset, digest) = chain.next_checkpoint(after).expect("one every 64 KiB");
        assert_eq!(offset, index * DISTANCE);
        assert_eq!(digest, hash(4, &stream[..offset as usize]).digest());
        assert_eq!(chain.next_checkpoint(offset - 1), Some((offset, digest)));
        after = offset;
    }
    assert_eq!(chain.next_checkpoint(after), None);
    assert_eq!(chain.next_checkpoint(u64::MAX), None);
}

/// However long the stream, there are some behind every offset but the last ones.
#[test]
fn checkpoints_thin_out_and_stay_true() {
    let mut chain = Chain::new(4);
    let mut masker = masker(&[]);
    let mut model = Hash::new(4);
    let mut all = Vec::new();
    let piece = noise(DISTANCE as usize);
    for index in 1..=2 * CHECKPOINTS as u64 + 3 {
        chain.commit(&piece, &mut masker);
        model.update(&piece);
        all.push((index * DISTANCE, model.digest()));
        assert!(chain.checkpoints.len() < CHECKPOINTS);
        assert_eq!(chain.checkpoints.capacity(), CHECKPOINTS);
    }
    assert_eq!(chain.distance, 4 * DISTANCE);
    assert_eq!(*chain.head(), model);
    let mut after = 0;
    let mut found = Vec::new();
    while let Some((offset, digest)) = chain.next_checkpoint(after) {
        assert!(offset > after);
        found.push((offset, digest));
        after = offset;
    }
    let expected: Vec<_> = all.into_iter().skip(3).step_by(4).collect();
    assert_eq!(found, expected);
}

/// A replica that is behind is hashed with a masker of its own and found equal where it is.
#[test]
fn a_replica_behind_is_checked_past_its_masks() {
    let answer = |second: u32| {
        let second = second % 60;
        alloc::format!(
            "HTTP/1.1 200 OK\r\nDate: Sat, 21 Nov 2026 09:16:{second:02} GMT\r\n\r\nbody"
        )
    };
    let committed: Vec<u8> = (0..3000).flat_map(|i| answer(i).into_bytes()).collect();
    let mut replica: Vec<u8> = (0..3000).flat_map(|i| answer(i + 9).into_bytes()).collect();
    let mask = [Mask::Pattern(Pattern::new(r"Date: [^\r]*").unwrap())];
    let (mut chain, mut ours) = (Chain::new(6), masker(&mask));
    for piece in pieces(&committed, &[1448]) {
        chain.commit(piece, &mut ours);
    }
    let check = |replica: &[u8]| {
        let (mut hash, mut theirs) = (Hash::new(6), masker(&mask));
        let (offset, digest) = chain.next_checkpoint(0).unwrap();
        for piece in pieces(&replica[..offset as usize], &[999, 5]) {
            theirs.hash(piece, &mut hash);
        }
        let at_checkpoint = hash == digest;
        theirs.hash(&replica[offset as usize..], &mut hash);
        (at_checkpoint, hash == *chain.head())
    };
    assert_ne!(committed, replica);
    assert_eq!(check(&replica), (true, true));
    *replica.last_mut().unwrap() ^= 1;
    assert_eq!(check(&replica), (true, false));
    replica[0] ^= 1;
    assert_eq!(check(&replica), (false, false));
}

proptest! {
    #[test]
    fn hashes_are_equal_exactly_when_the_bytes_are(
        seed: u64, a in prop::collection::vec(0_u8..2, 0..100), b in prop::collection::vec(0_u8..2, 0..100),
        flip in prop::option::of(any::<prop::sample::Index>()),
        splits_a in prop::collection::vec(1_usize..70, 1..8), splits_b in prop::collection::vec(1_usize..70, 1..8),
    ) {
        // Mostly streams that differ in one bit or not at all: random ones are never equal.
        let b = match flip {
            Some(at) if !a.is_empty() => {
                let mut b = a.clone();
                b[at.index(a.len())] ^= b[0];
                b
            }
            _ => b,
        };
        let of = |stream: &[u8], sizes: &[usize]| {
            let mut hash = Hash::new(seed);
            for piece in pieces(stream, sizes) {
                hash.update(piece);
            }
            hash
        };
        let (x, y) = (of(&a, &splits_a), of(&b, &splits_b));
        prop_assert_eq!(x == y, a == b);
        prop_assert_eq!(x.digest() == y.digest(), a == b);
        prop_assert_eq!(x == y.digest(), a == b);
        prop_assert_eq!(x.len(), a.len() as u64);
    }

    #[test]
    fn skipping_is_hashing_zeros(seed: u64, before in 0_usize..70, count in 0_usize..700) {
        let mut skipped = hash(seed, &vec![1; before]);
        skipped.skip(count);
        let mut zeros = hash(seed, &vec![1; before]);
        zeros.update(&vec![0; count]);
        prop_assert_eq!(skipped, zeros);
    }
}
