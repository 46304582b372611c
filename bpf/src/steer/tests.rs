//! What cannot be reached from outside: more room than [`Room`] allows.

use super::*;
use crate::{Action, Room};
use libbpf_rs::{MapCore, MapFlags};
use std::os::fd::AsFd;

/// An Ethernet frame with an IPv4 TCP segment from and to 0.0.0.0, port 0.
fn frame() -> Vec<u8> {
    let mut frame = vec![0; 54];
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[14] = 0x45;
    frame[17] = 40;
    frame[23] = 6;
    frame
}

#[test]
fn a_frame_without_the_head_room_goes_to_the_kernel_untouched() {
    let program = SteerProgram::load(Duration::from_secs(3600), &Seeds::default()).unwrap();
    let socket = socket2::Socket::new(44.into(), 3.into(), None).unwrap();
    program.set_socket(0, socket.as_fd()).unwrap();
    program.beat().unwrap();
    let key = Destination::new([0, 0, 0, 0].into(), 0, Some(6)).key();
    let set_room = |room: u16| {
        let [low, high] = room.to_ne_bytes();
        let map = &program.skeleton.maps.destinations;
        map.update(&key, &[low, high, 0, 0, 0, 0, 0, 0], MapFlags::ANY)
            .unwrap();
    };

    // A test run has the 256 bytes that drivers leave, of which the kernel keeps some.
    for room in [257, 1000, u16::MAX] {
        set_room(room);
        let before = program.counters().unwrap().no_headroom;
        let run = program.run(&frame(), 1).unwrap();
        assert_eq!((run.action, run.frame), (Action::Pass, frame()), "{room}");
        assert_eq!(
            program.counters().unwrap().no_headroom,
            before + 1,
            "{room}"
        );
    }
    set_room(Room::MAX);
    assert_eq!(program.run(&frame(), 1).unwrap().action, Action::Redirect);
}
