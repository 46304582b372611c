//! What cannot be bound, and what the operator is told. Needs root.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use lockstep_xsk::{
    BindMode, Burst, FramePool, Port, PortOptions, RingSize, Umem, UmemConfig, XskError,
    raise_memlock, wait,
};
use support::{Namespace, Program, Worker, packet, small, small_rings, until};

/// Binds with a fresh UMEM.
fn bind(interface: &str, queue: u32, options: &PortOptions) -> Result<Port, XskError> {
    let (umem, mut pool) = Umem::new(&small()).unwrap();
    Port::bind(&umem, &mut pool, interface, queue, options)
}

#[test]
fn an_unknown_interface_is_named() {
    let namespace = Namespace::new();
    namespace.run(|| {
        for name in ["nowhere0", "a-name-too-long-for-linux", "zero\0byte", ""] {
            let error = bind(name, 0, &small_rings()).unwrap_err();
            assert!(
                matches!(error, XskError::NoSuchInterface { .. }),
                "{error:?}"
            );
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("{name} queue 0: no such interface"))
            );
        }
    });
}

#[test]
fn an_unknown_queue_is_told_with_how_many_there_are() {
    let namespace = Namespace::new();
    namespace.veth("a0", "a1", 2);
    namespace.run(|| {
        let error = bind("a0", 2, &small_rings()).unwrap_err();
        assert!(
            matches!(error, XskError::NoSuchQueue { queues: 2, .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains("the interface has 2"));
        bind("a0", 1, &small_rings()).unwrap();
    });
}

#[test]
fn a_busy_queue_is_tried_for_the_time_given_and_then_named() {
    let namespace = Namespace::new();
    namespace.veth("a0", "a1", 1);
    namespace.run(|| {
        let holder = Worker::on("a0", 0);
        let patience = Duration::from_millis(100);
        let options = PortOptions {
            busy_timeout: patience,
            ..small_rings()
        };
        let start = Instant::now();
        let error = bind("a0", 0, &options).unwrap_err();
        assert!(matches!(error, XskError::Busy { waited, .. } if waited >= patience));
        assert!(start.elapsed() < support::PATIENCE);
        drop(holder);
        bind("a0", 0, &small_rings()).unwrap();
    });
}

#[test]
fn a_queue_that_is_freed_in_time_is_bound() {
    let namespace = Namespace::new();
    namespace.veth("a0", "a1", 1);
    namespace.run(|| {
        let holder = Worker::on("a0", 0);
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // Long enough for the first attempt to fail, which the counter below cannot see.
                let release = told.recv_timeout(Duration::from_millis(100));
                assert!(release.is_err(), "bound while the queue was busy");
                drop(holder);
            });
            let options = PortOptions {
                busy_timeout: support::PATIENCE,
                ..small_rings()
            };
            bind("a0", 0, &options).unwrap();
            let _ = tell.send(());
        });
    });
}

#[test]
fn a_queue_is_free_again_each_time_its_worker_is_gone() {
    let namespace = Namespace::new();
    namespace.veth("a0", "a1", 1);
    namespace.veth("b0", "b1", 1);
    namespace.run(|| {
        let program = Program::load();
        program.attach("redirect", "a1", true);
        for round in 0..20 {
            let mut worker = Worker::on("a1", 0);
            worker.bind("b0", 0, &small_rings());
            program.steer(&worker.ports[0]);
            let mut sender = Worker::on("a0", 0);
            sender.send(&packet(64, round));
            assert_eq!(worker.receive(1), [packet(64, round)]);
        }
    });
}

#[test]
fn one_umem_does_not_bind_a_queue_twice() {
    let namespace = Namespace::new();
    namespace.veth("a0", "a1", 1);
    namespace.run(|| {
        let mut worker = Worker::on("a0", 0);
        let error = Port::bind(&worker.umem, &mut worker.pool, "a0", 0, &small_rings());
        assert!(matches!(error, Err(XskError::Busy { .. })));
        // The port that is there works on.
        worker.send(&packet(64, 1));
        worker.reap_all();
        worker.assert_no_frame_is_lost();
    });
}

#[test]
fn a_umem_whose_first_port_is_closed_takes_no_more() {
    let namespace = Namespace::new();
    namespace.veth("a0", "a1", 2);
    namespace.run(|| {
        let mut worker = Worker::on("a0", 0);
        worker.bind("a0", 1, &small_rings());
        // Another than the first may come and go.
        worker.ports.pop();
        worker.bind("a0", 1, &small_rings());
        worker.ports.clear();
        let error = Port::bind(&worker.umem, &mut worker.pool, "a0", 0, &small_rings());
        assert!(matches!(error, Err(XskError::UmemSpent { .. })));
    });
}

#[test]
fn a_failed_first_bind_leaves_the_umem_usable() {
    let namespace = Namespace::new();
    namespace.veth("a0", "a1", 1);
    namespace.run(|| {
        let mut worker = Worker::new(&small());
        for (interface, queue) in [("nowhere0", 0), ("a0", 1)] {
            let port = Port::bind(
                &worker.umem,
                &mut worker.pool,
                interface,
                queue,
                &small_rings(),
            );
            assert!(port.is_err());
            assert_eq!(worker.pool.outstanding(), 0);
        }
        worker.bind("a0", 0, &small_rings());
        worker.send(&packet(64, 1));
        worker.reap_all();
        worker.assert_no_frame_is_lost();
    });
}

#[test]
fn zero_copy_is_refused_where_the_driver_has_none() {
    let namespace = Namespace::new();
    namespace.veth("a0", "a1", 1);
    namespace.run(|| {
        let options = PortOptions {
            mode: BindMode::ZeroCopy,
            ..small_rings()
        };
        let error = bind("a0", 0, &options).unwrap_err();
        assert!(matches!(error, XskError::NoZeroCopy { .. }), "{error:?}");
        // Behind a port that copies as well, where the kernel is not even asked.
        let mut worker = Worker::on("a1", 0);
        namespace.veth("b0", "b1", 1);
        let error = Port::bind(&worker.umem, &mut worker.pool, "b0", 0, &options).unwrap_err();
        assert!(
            matches!(error, XskError::SharedMode { first: "copy", .. }),
            "{error:?}"
        );
    });
}

#[test]
fn the_mode_has_to_go_with_the_program() {
    for (mode, program_native) in [
        (BindMode::ZeroCopy, false),
        (BindMode::Copy, false),
        (BindMode::Generic, true),
    ] {
        let options = PortOptions {
            mode,
            program_native,
            ..small_rings()
        };
        let error = bind("lo", 0, &options).unwrap_err();
        assert!(matches!(error, XskError::ProgramMode { .. }), "{error:?}");
    }
}

#[test]
fn a_pool_that_cannot_fill_the_ring_is_told() {
    let namespace = Namespace::new();
    namespace.veth("a0", "a1", 1);
    namespace.run(|| {
        let config = UmemConfig {
            frames: 255,
            huge_pages: false,
            ..small()
        };
        let (umem, mut pool) = Umem::new(&config).unwrap();
        let error = Port::bind(&umem, &mut pool, "a0", 0, &small_rings()).unwrap_err();
        assert!(
            matches!(
                error,
                XskError::NoFrames {
                    free: 255,
                    needed: 256,
                    ..
                }
            ),
            "{error:?}"
        );
        assert_eq!(pool.outstanding(), 0);
    });
}

#[test]
fn a_removed_interface_is_told() {
    let namespace = Namespace::new();
    namespace.veth("a0", "a1", 1);
    namespace.run(|| {
        let mut worker = Worker::on("a0", 0);
        worker.ports[0].check().unwrap();
        namespace.ip(&["link", "set", "a0", "down"]);
        worker.ports[0].check().unwrap();
        namespace.ip(&["link", "delete", "a0"]);
        // Removal is announced before the socket is unbound, on the kernel's own time.
        until(|| worker.ports[0].check().is_err());
        let gone = wait(&worker.ports, None, Duration::from_millis(1)).unwrap_err();
        assert!(matches!(gone, XskError::Gone { .. }), "{gone:?}");
        let mut frame = worker.pool.take().unwrap();
        frame.fill(&packet(64, 1)).unwrap();
        worker.ports[0].send(frame).unwrap();
        let gone = worker.ports[0].flush().unwrap_err();
        assert!(matches!(gone, XskError::Gone { .. }), "{gone:?}");
    });
}

#[test]
fn impossible_sizes_are_refused() {
    assert!(RingSize::new(100).is_none() && RingSize::new(32).is_none());
    assert!(RingSize::new(65_536).is_none() && RingSize::new(64).is_some());
    for frames in [0, u32::MAX] {
        let error = Umem::new(&UmemConfig { frames, ..small() }).unwrap_err();
        assert!(matches!(error, XskError::UmemConfig { .. }), "{error:?}");
    }
}

#[test]
#[should_panic(expected = "of another UMEM")]
fn frames_do_not_change_umem() {
    let (_one, mut pool) = Umem::new(&small()).unwrap();
    let (_other, mut strangers) = Umem::new(&small()).unwrap();
    pool.put(strangers.take().unwrap());
}

#[test]
fn a_worker_can_be_moved_to_its_thread() {
    fn moves<T: Send>() {}
    moves::<(Umem, FramePool, Port, Burst, lockstep_xsk::Frame)>();
}

/// Runs one of the tests below, which are ignored otherwise, as a process with `limits`.
fn run_with(limits: &[&str], test: &str) {
    let this = std::env::current_exe().unwrap();
    let output = Command::new(limits[0])
        .args(&limits[1..])
        .arg(this)
        .args(["--exact", test, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{error}"
    );
}

#[test]
fn without_capabilities_the_error_says_which() {
    run_with(
        &["setpriv", "--bounding-set=-all", "--inh-caps=-all"],
        "child_without_capabilities",
    );
}

#[test]
#[ignore = "run by the test above"]
fn child_without_capabilities() {
    let error = Umem::new(&small()).unwrap_err();
    assert!(matches!(error, XskError::NotPermitted), "{error:?}");
    assert!(error.to_string().contains("CAP_NET_RAW"));
}

#[test]
fn the_lock_limit_is_raised_or_the_error_says_how() {
    let no_lock = ["setpriv", "--bounding-set=-ipc_lock,-sys_resource"];
    let limits = [&["prlimit", "--memlock=65536:65536"], &no_lock[..]].concat();
    run_with(&limits, "child_that_may_not_lock");
    let limits = [&["prlimit", "--memlock=65536:8388608"], &no_lock[..]].concat();
    run_with(&limits, "child_that_may_raise_the_limit");
}

#[test]
#[ignore = "run by the test above"]
fn child_that_may_not_lock() {
    let error = Umem::new(&small()).unwrap_err();
    assert!(
        matches!(
            error,
            XskError::Memlock {
                needed: 4_194_304,
                limit: 65_536
            }
        ),
        "{error:?}"
    );
    assert!(error.to_string().contains("LimitMEMLOCK=infinity"));
    raise_memlock(65_536).unwrap();
    raise_memlock(65_537).unwrap_err();
}

#[test]
#[ignore = "run by the test above"]
fn child_that_may_raise_the_limit() {
    Umem::new(&small()).unwrap();
}

#[test]
fn dropped_frames_come_home_and_keep_the_memory_until_then() {
    let (umem, mut pool) = Umem::new(&small()).unwrap();
    let total = pool.total();
    let mut frames: Vec<_> = (0..total).map(|_| pool.take().unwrap()).collect();
    assert!(pool.take().is_none());
    let mut kept = frames.pop().unwrap();
    drop(frames);
    assert!(pool.take().is_some_and(|frame| frame.is_empty()));
    assert_eq!(pool.reclaimed(), total as u64 - 1);
    drop((umem, pool));
    kept.fill(&packet(64, 1)).unwrap();
    assert_eq!(kept.bytes(), packet(64, 1));
}

#[test]
fn a_dropped_burst_gives_its_frames_back() {
    let namespace = Namespace::new();
    namespace.veth("a0", "a1", 1);
    namespace.run(|| {
        let program = Program::load();
        program.attach("redirect", "a1", true);
        let (mut sender, mut worker) = (Worker::on("a0", 0), Worker::on("a1", 0));
        program.steer(&worker.ports[0]);
        for seed in 0..10 {
            sender.send(&packet(64, seed));
        }
        until(|| {
            worker.ports[0].receive(&mut worker.burst);
            worker.burst.len() == 10
        });
        // One is kept, one is taken and dropped, the iterator drops the rest.
        let kept = worker.burst.drain().nth(1).unwrap();
        assert!(worker.burst.is_empty());
        assert_eq!(kept.bytes(), packet(64, 1));
        worker.settle();
        assert_eq!(worker.pool.reclaimed(), 9);
        worker.pool.put(kept);
        worker.assert_no_frame_is_lost();
    });
}
