use std::vec::Vec;

use proptest::prelude::*;

use super::*;

/// RFC 1071 section 1 word by word, as slow and plain as it can be.
fn by_the_book(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
        sum += u32::from(word);
        if sum > 0xffff {
            sum = (sum & 0xffff) + 1;
        }
    }
    sum as u16
}

#[test]
fn the_example_of_rfc_1071_comes_to_its_sum() {
    let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(Sum::new().add_bytes(&bytes).finish(), 0xddf2);
    assert_eq!(checksum(&bytes), 0x220d);
}

#[test]
fn the_example_of_rfc_1624_does_not_come_to_minus_zero() {
    // Section 4: equation 4 of RFC 1141 gives 0xffff here.
    assert_eq!(update_u16(0xdd2f, 0x5555, 0x3285), 0x0000);
}

#[test]
fn the_checksum_of_a_known_ipv4_header_is_right() {
    let header = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00,
        0x01, 0xc0, 0xa8, 0x00, 0xc7,
    ];
    assert!(ipv4_header_is_valid(&header));
    let mut wrong = header;
    wrong[19] ^= 1;
    assert!(!ipv4_header_is_valid(&wrong));
}

#[test]
fn a_udp_checksum_of_zero_is_refused_over_ipv6() {
    let (source, destination) = ([1; 16], [2; 16]);
    let mut datagram = [0, 1, 0, 2, 0, 8, 0, 0];
    assert!(!segment_v6_is_valid(
        &source,
        &destination,
        protocol::UDP,
        &datagram
    ));
    let sum = Sum::pseudo_v6(&source, &destination, protocol::UDP, 8).add_bytes(&datagram);
    datagram[6..].copy_from_slice(&sum.checksum().to_be_bytes());
    assert!(segment_v6_is_valid(
        &source,
        &destination,
        protocol::UDP,
        &datagram
    ));
}

proptest! {
    #[test]
    fn the_sum_is_that_of_the_book(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(Sum::new().add_bytes(&bytes).finish(), by_the_book(&bytes));
    }

    #[test]
    fn an_ipv4_header_is_valid_exactly_with_its_checksum(
        header in any::<[u8; 20]>(), other in any::<u16>(),
    ) {
        let mut header = header;
        header[0] = 0x45;
        header[10..12].copy_from_slice(&[0, 0]);
        let right = !by_the_book(&header);
        for sum in [right, other, !right, right ^ 1, right.swap_bytes()] {
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            // 0 and 0xffff are the same number in ones' complement.
            let same = sum == right || (sum ^ right == 0xffff && (sum == 0 || right == 0));
            prop_assert_eq!(ipv4_header_is_valid(&header), same);
            prop_assert_eq!(by_the_book(&header) == 0xffff, same);
        }
    }

    #[test]
    fn numbers_are_added_as_their_bytes(a in any::<u16>(), b in any::<u32>()) {
        let bytes: Vec<u8> = [&a.to_be_bytes()[..], &b.to_be_bytes()[..]].concat();
        prop_assert_eq!(Sum::new().add_u16(a).add_u32(b).finish(), by_the_book(&bytes));
    }

    #[test]
    fn the_pseudo_header_of_ipv6_is_laid_out_as_in_rfc_8200(
        source in any::<[u8; 16]>(),
        destination in any::<[u8; 16]>(),
        protocol in any::<u8>(),
        length in any::<u32>(),
    ) {
        let laid_out: Vec<u8> =
            [&source[..], &destination, &length.to_be_bytes(), &[0, 0, 0, protocol]].concat();
        prop_assert_eq!(
            Sum::pseudo_v6(&source, &destination, protocol, length).finish(),
            by_the_book(&laid_out)
        );
    }

    // A word that no change touches keeps the data from becoming all zero, where ones' complement
    // has two zeros and the checksum field could be either.

    #[test]
    fn an_incremental_change_of_16_bits_is_a_full_computation(
        data in any::<[u8; 24]>(), at in 0usize..11, new in any::<u16>(), kept in 1u16..,
    ) {
        let mut data = data;
        data[22..].copy_from_slice(&kept.to_be_bytes());
        let before = checksum(&data);
        let old = u16::from_be_bytes([data[at * 2], data[at * 2 + 1]]);
        data[at * 2..at * 2 + 2].copy_from_slice(&new.to_be_bytes());
        prop_assert_eq!(update_u16(before, old, new), checksum(&data));
    }

    #[test]
    fn an_incremental_change_of_32_bits_is_a_full_computation(
        data in any::<[u8; 24]>(), at in 0usize..10, new in any::<u32>(), kept in 1u16..,
    ) {
        let mut data = data;
        data[22..].copy_from_slice(&kept.to_be_bytes());
        let before = checksum(&data);
        let at = at * 2;
        let old = u32::from_be_bytes(data[at..at + 4].try_into().unwrap());
        data[at..at + 4].copy_from_slice(&new.to_be_bytes());
        prop_assert_eq!(update_u32(before, old, new), checksum(&data));
    }

    #[test]
    fn an_incremental_change_of_16_bytes_is_a_full_computation(
        data in any::<[u8; 24]>(), at in 0usize..4, new in any::<[u8; 16]>(), kept in 1u16..,
    ) {
        let mut data = data;
        data[22..].copy_from_slice(&kept.to_be_bytes());
        let before = checksum(&data);
        let at = at * 2;
        let old: [u8; 16] = data[at..at + 16].try_into().unwrap();
        data[at..at + 16].copy_from_slice(&new);
        prop_assert_eq!(update_16_bytes(before, &old, &new), checksum(&data));
    }
}
