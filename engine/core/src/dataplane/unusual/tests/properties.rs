//! Whatever comes: no panic, and what is answered has right checksums.

use super::*;
use proptest::prelude::*;

/// Good frames of every kind, for mutation.
fn frames() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for net in nets() {
        let echo = if net.is_v4() { 8 } else { 128 };
        let tunnel = if net.is_v4() { 4 } else { 41 };
        let inside = packet(net.engine, net.server, tunnel, &net.request(TCP, 600));
        let packets = [
            icmp(net.client, net.vip, (echo, 0, [0; 4]), &[7; 100]),
            icmp(
                net.router,
                net.vip,
                net.too_big(1_400),
                &net.answer(TCP, 500),
            ),
            icmp(net.router, net.engine, net.too_big(1_400), &inside),
            net.request(UDP, 1_590),
        ];
        for packet in packets {
            frames.push(plain(&[], &packet));
            frames.push(roomy(net.header() as u16, &packet));
            frames.push(roomy(48, &packet));
        }
    }
    frames
}

proptest! {
    #[test]
    fn no_change_of_a_frame_makes_it_panic_or_answer_wrongly(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        length in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let frames = frames();
        let mut frame = frames[which.index(frames.len())].clone();
        for (at, value) in changes {
            // Headers are where it matters.
            let at = at.index(frame.len().min(160));
            frame[at] = value;
        }
        if !whole {
            frame.truncate(length.index(frame.len()));
        }
        for net in nets() {
            // Reads the answer, and with it checks the checksum of its IP header.
            if let Ok(sent) = send(&mut net.dataplane(), T0, &frame)
                && sent.goes_back()
            {
                let _ = sent.message();
            }
        }
    }
}
