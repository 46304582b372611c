//! Ports on real AF_XDP sockets. Needs root.

#![allow(clippy::unwrap_used)]

mod support;

use std::os::fd::AsFd;
use std::time::Duration;

use lockstep_xsk::{BURST, BindMode, Mode, PortOptions, statistics_of, wait};
use support::{Namespace, Program, Worker, in_a_row, packet, small, small_rings, until};

#[test]
fn packets_of_every_length_arrive_byte_exact() {
    let namespace = Namespace::new();
    namespace.veth("a0", "a1", 1);
    namespace.run(|| {
        let program = Program::load();
        program.attach("redirect", "a1", true);
        let (mut sender, mut receiver) = (Worker::on("a0", 0), Worker::on("a1", 0));
        assert_eq!(receiver.ports[0].mode(), Mode::NativeCopy);
        program.steer(&receiver.ports[0]);
        for (seed, len) in (22..=1792).step_by(59).chain([1792]).enumerate() {
            let sent = packet(len, seed as u64);
            sender.send(&sent);
            assert_eq!(receiver.receive(1), [sent]);
        }
        sender.assert_no_frame_is_lost();
        receiver.assert_no_frame_is_lost();
    });
}

#[test]
fn a_generic_program_delivers_too_and_the_mode_says_so() {
    let namespace = Namespace::new();
    namespace.veth("a0", "a1", 1);
    namespace.run(|| {
        let program = Program::load();
        program.attach("redirect", "a1", false);
        let mut receiver = Worker::new(&small());
        let options = PortOptions {
            program_native: false,
            ..small_rings()
        };
        let port = receiver.bind("a1", 0, &options);
        assert_eq!(port.mode(), Mode::Generic);
        program.steer(port);
        let mut sender = Worker::on("a0", 0);
        let sent = packet(64, 7);
        sender.send(&sent);
        assert_eq!(receiver.receive(1), [sent]);
    });
}

#[test]
fn the_room_the_program_made_is_in_front_of_the_packet() {
    let namespace = Namespace::new();
    namespace.veth("a0", "a1", 1);
    namespace.run(|| {
        let program = Program::load();
        program.attach("redirect_with_room", "a1", true);
        let (mut sender, mut receiver) = (Worker::on("a0", 0), Worker::on("a1", 0));
        program.steer(&receiver.ports[0]);
        // With the room, the longest packet a frame of 2,048 bytes takes.
        for len in [64, 1772] {
            let sent = packet(len, 1);
            sender.send(&sent);
            let received = receiver.receive(1);
            assert_eq!(received[0].len(), len + 20);
            assert_eq!(received[0][20..], sent);
        }
        // One byte more is dropped by the kernel, and counted.
        sender.send(&packet(1773, 2));
        until(|| receiver.ports[0].statistics().unwrap().rx_dropped == 1);
    });
}

#[test]
fn another_descriptor_of_a_socket_tells_what_the_kernel_dropped() {
    let namespace = Namespace::new();
    namespace.veth("a0", "a1", 1);
    namespace.run(|| {
        let program = Program::load();
        program.attach("redirect", "a1", true);
        let (mut sender, receiver) = (Worker::on("a0", 0), Worker::on("a1", 0));
        let port = &receiver.ports[0];
        program.steer(port);
        let fd = port.fd().try_clone_to_owned().unwrap();
        assert_eq!(statistics_of(fd.as_fd()).unwrap().lost(), 0);
        // Nobody receives: every frame of the fill ring is used up, and ten packets find none.
        let ring = small_rings().rx_ring.get() as usize;
        for seed in 0..ring + 10 {
            sender.send(&packet(64, seed as u64));
        }
        until(|| statistics_of(fd.as_fd()).unwrap().lost() == 10);
        let kernel = statistics_of(fd.as_fd()).unwrap();
        assert_eq!(kernel, receiver.ports[0].statistics().unwrap());
        assert!(kernel.rx_fill_ring_empty_descs >= 10, "{kernel:?}");
    });
}

#[test]
fn what_is_no_socket_tells_no_statistics() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let error = statistics_of(file.as_fd()).unwrap_err().to_string();
    assert!(error.contains("cannot read the statistics"), "{error}");
}

#[test]
fn a_queue_gets_its_own_packets_only() {
    let namespace = Namespace::new();
    namespace.veth("a0", "a1", 2);
    namespace.run(|| {
        let program = Program::load();
        program.attach("redirect", "a1", true);
        let mut workers = [0, 1].map(|queue| (Worker::on("a0", queue), Worker::on("a1", queue)));
        for (_, receiver) in &workers {
            program.steer(&receiver.ports[0]);
        }
        for (queue, (sender, receiver)) in workers.iter_mut().enumerate() {
            let sent = packet(100, queue as u64);
            sender.send(&sent);
            assert_eq!(receiver.receive(1), [sent]);
        }
        for (_, receiver) in &workers {
            assert_eq!(receiver.ports[0].counters().received, 1);
        }
    });
}

#[test]
fn a_frame_goes_out_on_another_interface_without_a_copy() {
    in_a_row(|[sender, worker, sink]| {
        sender.send(&packet(200, 3));
        until(|| worker.ports[0].receive(&mut worker.burst) == 1);
        let mut frame = worker.burst.drain().next().unwrap();
        let chunk = frame.bytes().as_ptr();
        frame.bytes_mut()[0] = 0x0a;
        worker.ports[1].send(frame).unwrap();
        worker.reap_all();

        let mut expected = packet(200, 3);
        expected[0] = 0x0a;
        assert_eq!(sink.receive(1), [expected]);
        // What completed on the second interface is the chunk the first one received into.
        assert_eq!(worker.pool.take().unwrap().bytes().as_ptr(), chunk);
    });
}

#[test]
fn no_frame_is_lost_in_100_000_packets() {
    const PACKETS: u64 = 100_000;
    in_a_row(|[sender, worker, sink]| {
        let (mut sent, mut arrived) = (0, 0);
        until(|| {
            // No more on the way than the veth's 256 slots take.
            while sent < PACKETS && sent - arrived < 128 {
                let mut frame = sender.pool.take().unwrap();
                frame.fill(&packet(64, sent)).unwrap();
                sender.ports[0].send(frame).unwrap();
                sent += 1;
            }
            sender.settle();
            worker.ports[0].receive(&mut worker.burst);
            for frame in worker.burst.drain() {
                worker.ports[1].send(frame).unwrap();
            }
            worker.settle();
            sink.ports[0].receive(&mut sink.burst);
            for bytes in sink.burst.iter_mut() {
                assert_eq!(bytes, packet(64, arrived));
                arrived += 1;
            }
            sink.burst.drain().for_each(|frame| sink.pool.put(frame));
            sink.settle();
            arrived == PACKETS
        });
        for worker in [sender, &mut *worker, sink] {
            worker.reap_all();
            worker.assert_no_frame_is_lost();
            assert_eq!(worker.pool.reclaimed(), 0);
        }
        assert_eq!(worker.ports[1].counters().completed, PACKETS);
    });
}

#[test]
fn a_full_tx_ring_gives_the_frame_back() {
    let namespace = Namespace::new();
    namespace.veth("a0", "a1", 1);
    namespace.run(|| {
        let mut sender = Worker::on("a0", 0);
        for seed in 0..256 {
            let mut frame = sender.pool.take().unwrap();
            frame.fill(&packet(64, seed)).unwrap();
            sender.ports[0].send(frame).unwrap();
        }
        let mut frame = sender.pool.take().unwrap();
        frame.fill(&packet(64, 999)).unwrap();
        let frame = sender.ports[0].send(frame).unwrap_err();
        assert_eq!(frame.bytes(), packet(64, 999));
        assert_eq!(sender.ports[0].counters().send_refused, 1);
        assert_eq!(sender.ports[0].counters().tx_wakeups, 0);

        // Once the kernel has sent them, there is room again.
        sender.reap_all();
        sender.ports[0].send(frame).unwrap();
        sender.reap_all();
        assert_eq!(sender.ports[0].counters().completed, 257);
        sender.assert_no_frame_is_lost();
    });
}

#[test]
fn an_empty_frame_is_not_sent() {
    let namespace = Namespace::new();
    namespace.veth("a0", "a1", 1);
    namespace.run(|| {
        let mut sender = Worker::on("a0", 0);
        let frame = sender.pool.take().unwrap();
        let frame = sender.ports[0].send(frame).unwrap_err();
        sender.pool.put(frame);
        sender.assert_no_frame_is_lost();
    });
}

#[test]
fn a_flush_makes_one_system_call_at_most_and_none_for_nothing() {
    let namespace = Namespace::new();
    namespace.veth("a0", "a1", 1);
    namespace.run(|| {
        let mut sender = Worker::on("a0", 0);
        sender.settle();
        assert_eq!(sender.ports[0].counters().tx_wakeups, 0);
        // More than the 32 frames that the kernel sends a call unless told otherwise.
        for seed in 0..200 {
            let mut frame = sender.pool.take().unwrap();
            frame.fill(&packet(64, seed)).unwrap();
            sender.ports[0].send(frame).unwrap();
        }
        sender.ports[0].flush().unwrap();
        assert_eq!(sender.ports[0].counters().tx_wakeups, 1);
        assert!(!sender.ports[0].has_unsent());
        assert_eq!(sender.ports[0].counters().sent, 200);
        sender.reap_all();
        assert_eq!(sender.ports[0].counters().tx_wakeups, 1);
    });
}

#[test]
fn frames_wait_while_the_link_is_down() {
    let namespace = Namespace::new();
    namespace.veth("a0", "a1", 1);
    namespace.run(|| {
        let program = Program::load();
        program.attach("redirect", "a1", true);
        let (mut sender, mut receiver) = (Worker::on("a0", 0), Worker::on("a1", 0));
        program.steer(&receiver.ports[0]);
        namespace.ip(&["link", "set", "a0", "down"]);
        sender.send(&packet(64, 5));
        assert!(sender.ports[0].has_unsent());
        assert_eq!(sender.ports[0].counters().tx_link_down, 1);
        namespace.ip(&["link", "set", "a0", "up"]);
        until(|| {
            sender.settle();
            !sender.ports[0].has_unsent()
        });
        assert_eq!(receiver.receive(1), [packet(64, 5)]);
    });
}

#[test]
fn waiting_ends_with_a_packet_or_in_time() {
    let namespace = Namespace::new();
    namespace.veth("a0", "a1", 1);
    namespace.run(|| {
        let program = Program::load();
        program.attach("redirect", "a1", true);
        let (mut sender, receiver) = (Worker::on("a0", 0), Worker::on("a1", 0));
        program.steer(&receiver.ports[0]);
        assert!(!wait(&receiver.ports, None, Duration::from_micros(100)).unwrap());
        sender.send(&packet(64, 5));
        assert!(wait(&receiver.ports, None, support::PATIENCE).unwrap());
    });
}

#[test]
fn copy_can_be_asked_for() {
    let namespace = Namespace::new();
    namespace.veth("a0", "a1", 1);
    namespace.run(|| {
        let options = PortOptions {
            mode: BindMode::Copy,
            ..small_rings()
        };
        let mut worker = Worker::new(&small());
        assert_eq!(worker.bind("a0", 0, &options).mode(), Mode::NativeCopy);
        assert_eq!(worker.ports[0].mode().to_string(), "native-copy");
    });
}

/// A veth's kernel can be asked for packets before Linux 6.13 only. Both is to be right: what the port says of itself,
/// and what comes of it.
#[test]
fn a_port_takes_packets_in_itself_where_the_kernel_knows_what_to_poll() {
    let namespace = Namespace::new();
    namespace.veth("a0", "a1", 1);
    // Longer than what is done by polling takes, and short enough to wait for.
    namespace.defer("a1", 1_000_000_000);
    namespace.run(|| {
        let program = Program::load();
        program.attach("redirect", "a1", true);
        let (mut sender, mut receiver) = (Worker::on("a0", 0), Worker::new(&small()));
        let options = PortOptions {
            busy_poll: true,
            ..small_rings()
        };
        receiver.bind("a1", 0, &options);
        program.steer(&receiver.ports[0]);
        // Of the first one there is an interrupt.
        sender.send(&packet(64, 0));
        assert_eq!(receiver.receive(1), [packet(64, 0)]);
        let polls = receiver.ports[0].polls();
        let before = receiver.ports[0].counters().rx_polls;

        let sent: Vec<Vec<u8>> = (1..=40).map(|n| packet(64, n)).collect();
        sent.iter().for_each(|bytes| sender.send(bytes));
        let at_once = receiver.ports[0].receive(&mut receiver.burst);
        let asked = receiver.ports[0].counters().rx_polls - before;
        assert_eq!((at_once, asked), if polls { (40, 1) } else { (0, 0) });
        // While there are packets that do not fit the burst, it asks for more all the same.
        sent.iter().for_each(|bytes| sender.send(bytes));
        if polls {
            let received = receiver.ports[0].receive(&mut receiver.burst);
            assert_eq!(received, BURST - 40);
            sent.iter().for_each(|bytes| sender.send(bytes));
            let burst: Vec<_> = receiver.burst.drain().collect();
            burst.into_iter().for_each(|frame| receiver.pool.put(frame));
            receiver.settle();
            assert_eq!(receiver.ports[0].receive(&mut receiver.burst), BURST);
        } else {
            // The device's own deferral ends.
            assert_eq!(receiver.receive(2 * 40).len(), 2 * 40);
        }
        receiver
            .burst
            .drain()
            .for_each(|frame| receiver.pool.put(frame));
        receiver.settle();
        receiver.assert_no_frame_is_lost();
    });
}
