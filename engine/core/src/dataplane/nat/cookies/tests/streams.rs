//! Streams of bytes through a flow that began with a cookie.

use super::*;
use proptest::prelude::*;

/// A piece that one end sends, and where: some are sent again, some come before others.
#[derive(Debug, Clone)]
struct Piece {
    from_client: bool,
    at: u32,
    length: u16,
    /// How much of the other's stream it acknowledges, and has besides.
    acknowledged: u32,
    block: Option<(u32, u32)>,
}

fn piece() -> impl Strategy<Value = Piece> {
    let block = proptest::option::of((any::<u32>(), any::<u32>()));
    let of = |(from_client, at, length, acknowledged, block)| Piece {
        from_client,
        at,
        length,
        acknowledged,
        block,
    };
    let parts = (any::<bool>(), any::<u32>(), 0..1_400_u16, any::<u32>());
    (parts, block).prop_map(move |((a, b, c, d), e)| of((a, b, c, d, e)))
}

/// The bytes at a place of a stream.
fn bytes(at: u32, length: u16) -> Vec<u8> {
    let byte = |n: u16| (at.wrapping_add(n.into()) % 251) as u8;
    (0..length).map(byte).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn each_byte_arrives_at_its_place_of_the_stream(
        ends in prop_oneof![Just(V4), Just(V6)],
        client: u32,
        backend: u32,
        pieces in proptest::collection::vec(piece(), 1..40),
    ) {
        let mut w = World::pressed(ends);
        let syn = Seg { sequence: client, ..w.syn_of(40_000).options(&USUAL) };
        let cookie = w.back(&syn).sequence;
        let first = |isn: u32| isn.wrapping_add(1);
        let ack = Seg::new(ends.client, ends.vip, "A", first(client), first(cookie));
        let syn = w.at_backend(&ack);
        prop_assert_eq!(syn.sequence, client);
        let answer = w.answer(&syn, backend).options(&[WindowScale(7)]);
        let probe = w.at_client(&answer);
        prop_assert_eq!((probe.sequence, probe.acknowledgment), (cookie, first(client)));
        for piece in pieces {
            let block = |isn: u32| -> Vec<TcpOptionElement> {
                let edge = |at: u32| first(isn).wrapping_add(at);
                let sack = |(from, to)| {
                    SelectiveAcknowledgement((edge(from), edge(to)), [None; 3])
                };
                piece.block.map(sack).into_iter().collect()
            };
            let payload = bytes(piece.at, piece.length);
            let at = |isn: u32| first(isn).wrapping_add(piece.at);
            let acknowledged = |isn: u32| first(isn).wrapping_add(piece.acknowledged);
            if piece.from_client {
                let seg = Seg::new(ends.client, ends.vip, "A", at(client), acknowledged(cookie));
                let seg = seg.options(&block(cookie)).payload(&payload);
                let out = w.at_backend(&seg);
                let expected = Seg {
                    from: syn.from,
                    to: syn.to,
                    acknowledgment: acknowledged(backend),
                    options: block(backend),
                    ..seg
                };
                prop_assert_eq!(out, expected);
            } else {
                let seg = Seg {
                    flags: "A".to_string(),
                    sequence: at(backend),
                    acknowledgment: acknowledged(client),
                    options: block(client),
                    payload,
                    ..w.answer(&syn, 0)
                };
                let out = w.at_client(&seg);
                let (from, to) = w.outside();
                let expected = Seg { from, to, sequence: at(cookie), ..seg };
                prop_assert_eq!(out, expected);
            }
        }
    }
}
