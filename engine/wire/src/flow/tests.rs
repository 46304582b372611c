use std::format;
use std::vec;
use std::vec::Vec;

use super::*;

const SEED: HashSeed = HashSeed::new(0x1234_5678_9abc_def0);

fn v4(client: u32, port: u16) -> FlowKey4 {
    FlowKey4::new(
        Ipv4Addr::from_bits(client),
        port,
        Ipv4Addr::new(192, 0, 2, 1),
        443,
        6,
    )
}

fn v6(client: u32, port: u16) -> FlowKey6 {
    let client = Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(client));
    FlowKey6::new(client, port, "2001:db8:ffff::1".parse().unwrap(), 443, 6)
}

/// A million flows as an attacker or a load generator makes them: clients and ports that count up.
fn sequential() -> impl Iterator<Item = (u32, u16)> {
    (0..1000).flat_map(|client| (0..1000).map(move |port| (0x0a00_0001 + client, 1024 + port)))
}

#[test]
fn hashes_are_the_same_on_every_machine_and_build() {
    assert_eq!(v4(0x0a00_0001, 40_000).hash(&SEED), 0x66b9_ef6c_1aea_354b);
    assert_eq!(v6(0x0a00_0001, 40_000).hash(&SEED), 0xf171_77a1_3138_7150);
}

#[test]
fn keys_are_as_small_as_a_flow_entry_needs_them() {
    assert_eq!(size_of::<FlowKey4>(), 16);
    assert_eq!(size_of::<FlowKey6>(), 40);
    // With 20 bytes of other data an entry of either kind fits one cache line.
    assert!(size_of::<(FlowKey6, [u32; 5])>() <= 64);
}

#[test]
fn the_parts_of_a_key_come_back() {
    let key = FlowKey::V4(v4(0x0a00_0001, 40_000));
    assert_eq!(key.source_address(), IpAddr::from([10, 0, 0, 1]));
    assert_eq!(key.destination_address(), IpAddr::from([192, 0, 2, 1]));
    assert_eq!(
        (key.source_port(), key.destination_port(), key.protocol()),
        (40_000, 443, 6)
    );

    let key = FlowKey::V6(v6(7, 40_000)).reversed();
    assert_eq!(
        key.source_address(),
        "2001:db8:ffff::1".parse::<IpAddr>().unwrap()
    );
    assert_eq!(
        key.destination_address(),
        "2001:db8::7".parse::<IpAddr>().unwrap()
    );
    assert_eq!(
        (key.source_port(), key.destination_port(), key.protocol()),
        (443, 40_000, 6)
    );
    assert_eq!(key.reversed(), FlowKey::V6(v6(7, 40_000)));
    assert_eq!(
        FlowKey::from(v4(1, 2)).reversed().reversed(),
        FlowKey::V4(v4(1, 2))
    );
}

#[test]
fn the_hash_of_either_version_is_that_of_the_key_inside() {
    assert_eq!(FlowKey::V4(v4(1, 2)).hash(&SEED), v4(1, 2).hash(&SEED));
    assert_eq!(FlowKey::V6(v6(1, 2)).hash(&SEED), v6(1, 2).hash(&SEED));
}

#[test]
fn a_seed_does_not_show_in_debug_output() {
    assert_eq!(format!("{SEED:?}"), "HashSeed(..)");
}

/// Flips every bit of a key in turn, for many keys: every bit of the hash has to flip in half of
/// the cases.
fn avalanche<K: Copy>(keys: &[K], bits: usize, flip: impl Fn(K, usize) -> K, hash: fn(K) -> u64) {
    for input in 0..bits {
        let mut flips = [0u32; 64];
        for &key in keys {
            let changed = hash(key) ^ hash(flip(key, input));
            for (output, count) in flips.iter_mut().enumerate() {
                *count += (changed >> output & 1) as u32;
            }
        }
        // 1,000 fair coins: six standard deviations are 95.
        for (output, count) in flips.into_iter().enumerate() {
            assert!(
                count.abs_diff(500) < 95,
                "input bit {input} flips output bit {output} in {count} of 1000 cases"
            );
        }
    }
}

#[test]
fn every_input_bit_flips_every_output_bit_in_half_of_the_cases() {
    let pairs: Vec<(u32, u16)> = sequential().step_by(1000).collect();
    let keys: Vec<FlowKey4> = pairs
        .iter()
        .map(|&(client, port)| v4(client, port))
        .collect();
    let flip = |mut key: FlowKey4, bit: usize| {
        match bit {
            0..32 => key.source ^= 1 << bit,
            32..64 => key.destination ^= 1 << (bit - 32),
            64..96 => key.ports ^= 1 << (bit - 64),
            _ => key.protocol ^= 1 << (bit - 96),
        }
        key
    };
    avalanche(&keys, 104, flip, |key| key.hash(&SEED));

    let keys: Vec<FlowKey6> = pairs
        .iter()
        .map(|&(client, port)| v6(client, port))
        .collect();
    let flip = |mut key: FlowKey6, bit: usize| {
        match bit {
            0..128 => key.source[bit / 8] ^= 1 << (bit % 8),
            128..256 => key.destination[bit / 8 - 16] ^= 1 << (bit % 8),
            256..288 => key.ports ^= 1 << (bit - 256),
            _ => key.protocol ^= 1 << (bit - 288),
        }
        key
    };
    avalanche(&keys, 296, flip, |key| key.hash(&SEED));
}

/// Pairs of equal numbers.
fn collisions<T: Ord>(mut values: Vec<T>) -> usize {
    values.sort_unstable();
    values.windows(2).filter(|pair| pair[0] == pair[1]).count()
}

/// The chi-square statistic of counts that should be equal, in standard deviations from its mean.
fn unevenness(counts: &[u32]) -> f64 {
    let expected = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
    let chi_square: f64 = counts
        .iter()
        .map(|&count| (f64::from(count) - expected).powi(2) / expected)
        .sum();
    let freedom = (counts.len() - 1) as f64;
    (chi_square - freedom) / (2.0 * freedom).sqrt()
}

fn spread(hashes: &[u64]) {
    assert_eq!(collisions(hashes.to_vec()), 0, "of 64 bits");
    // A million balls into 2^32 bins meet 116 times on average, with a deviation of 11.
    for shift in [0, 16, 32] {
        let met = collisions(hashes.iter().map(|hash| (hash >> shift) as u32).collect());
        assert!(
            (50..190).contains(&met),
            "{met} collisions of 32 bits from bit {shift}"
        );
    }
    // A prime, as Maglev's table size, by multiplication of the high bits; powers of two by mask.
    let mut by_range = vec![0; 65_537];
    let mut by_mask = vec![0; 1 << 16];
    let mut few_by_range = [0; 7];
    for hash in hashes {
        by_range[(((hash >> 32) * 65_537) >> 32) as usize] += 1;
        few_by_range[(((hash >> 32) * 7) >> 32) as usize] += 1;
        by_mask[(hash & 0xffff) as usize] += 1;
    }
    for (counts, what) in [
        (&by_range[..], "65,537 ranges"),
        (&few_by_range, "7 ranges"),
        (&by_mask, "low 16 bits"),
    ] {
        let unevenness = unevenness(counts);
        // Uneven is worse than fair; far too even would be no hash but a counter.
        assert!(
            unevenness.abs() < 6.0,
            "{what}: {unevenness} standard deviations"
        );
    }
}

#[test]
fn a_million_sequential_flows_spread_over_high_and_low_bits() {
    spread(
        &sequential()
            .map(|(client, port)| v4(client, port).hash(&SEED))
            .collect::<Vec<_>>(),
    );
    spread(
        &sequential()
            .map(|(client, port)| v6(client, port).hash(&SEED))
            .collect::<Vec<_>>(),
    );
}

/// Words that a hash with bare or constant operands would multiply to zero, or that would cancel
/// each other: whatever the keys are, another seed is another hash.
#[test]
fn the_seed_matters_for_every_input() {
    let words = [0u32, 1, 0xffff_ffff, 0x8000_0000];
    let seeds = [0u64, 1, 2, u64::MAX, 1 << 63].map(HashSeed::new);
    let mut keys = Vec::new();
    for source in words {
        for destination in words {
            for ports in words {
                for protocol in [0, 6, 255] {
                    keys.push(FlowKey::V4(FlowKey4 {
                        source,
                        destination,
                        ports,
                        protocol,
                    }));
                    let wide = |word: u32| {
                        let [a, b, c, d] = word.to_be_bytes();
                        [a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d]
                    };
                    keys.push(FlowKey::V6(FlowKey6 {
                        source: wide(source),
                        destination: wide(destination),
                        ports,
                        protocol,
                    }));
                }
            }
        }
    }
    let hashes: Vec<u64> = seeds
        .iter()
        .flat_map(|seed| keys.iter().map(|key| key.hash(seed)))
        .collect();
    assert_eq!(hashes.len(), 5 * 4 * 4 * 4 * 3 * 2);
    assert!(!hashes.contains(&0));
    assert_eq!(collisions(hashes), 0);
}

#[test]
fn which_flows_share_a_bucket_depends_on_the_seed() {
    let bucket = |seed: &HashSeed, flow: (u32, u16)| v4(flow.0, flow.1).hash(seed) & 0x3ff;
    let first = HashSeed::new(1);
    let crowd: Vec<_> = sequential()
        .filter(|&flow| bucket(&first, flow) == 0)
        .collect();
    assert!(crowd.len() > 800, "{}", crowd.len());
    let second = HashSeed::new(2);
    let mut counts = vec![0; 1024];
    for &flow in &crowd {
        counts[bucket(&second, flow) as usize] += 1;
    }
    assert!(
        counts.iter().max() < Some(&12),
        "one seed's crowd is a crowd under another"
    );
}
