//! What a router says, from the first byte of a connection or of a session: no bytes make the
//! state machine stop trying, answer without end, or keep a session that is broken.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use lockstep_ctl_core::bgp::open::Settings;
use lockstep_ctl_core::bgp::peer::{Event, Peer, Slot};
use lockstep_ctl_core::bgp::{Families, Family, wire};
use lockstep_ctl_core::drains::Timestamp;

/// The OPEN of AS 64513 with 10.0.0.2, without capabilities.
const OPEN: [u8; 29] = [
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 29, 1, 4,
    0xfc, 0x01, 0, 9, 10, 0, 0, 2, 0,
];
const KEEPALIVE: [u8; 19] = [
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 19, 4,
];

fuzz_target!(|data: &[u8]| {
    let Some((&prologue, data)) = data.split_first() else {
        return;
    };
    let settings = Settings {
        local_as: 64_512,
        router_id: [10, 0, 0, 1].into(),
        remote_as: 64_513,
        hold_time: 9,
        families: Families::from(Family::ALL),
        add_path: true,
        graceful_restart: Some(120),
        passive: false,
    };
    let now = Timestamp(1_000);
    let mut peer = Peer::new(settings, None, 1, now);
    peer.handle(now, Event::Connected);
    let mut buffer = BytesMut::new();
    if prologue & 1 != 0 {
        buffer.extend_from_slice(&OPEN);
    }
    if prologue & 2 != 0 {
        buffer.extend_from_slice(&KEEPALIVE);
    }
    buffer.extend_from_slice(data);
    let mut messages = 0;
    loop {
        let before = buffer.len();
        match wire::decode(&mut buffer) {
            Ok(Some(message)) => {
                assert!(buffer.len() < before);
                messages += 1;
                peer.handle(now, Event::Received(Slot::OURS, message));
            }
            Ok(None) => break,
            Err(why) => {
                peer.handle(now, Event::Broken(Slot::OURS, why));
                assert!(peer.session().is_none());
                break;
            }
        }
    }
    let outputs = std::iter::from_fn(|| peer.poll()).count();
    assert!(outputs <= 8 + 2 * messages);
    assert!(peer.next_deadline().is_some());
});
