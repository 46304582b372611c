//! A network namespace with veth pairs, and an XDP program that redirects to sockets.

// Each test binary uses a part of it.
#![allow(dead_code)]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use libbpf_rs::{MapCore, MapFlags, Object, ObjectBuilder, Xdp, XdpFlags};
use lockstep_xsk::{Burst, FramePool, Port, PortOptions, RingSize, Umem, UmemConfig, wait};
use nix::sched::{CloneFlags, setns};

/// How long a condition may take to come true on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The EtherType that the test program redirects (IEEE 802, local experimental 1).
pub const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

static NAMESPACES: AtomicU32 = AtomicU32::new(0);

/// A network namespace of our own; gone, with all interfaces, when it is dropped.
pub struct Namespace {
    name: String,
}

impl Namespace {
    pub fn new() -> Self {
        let number = NAMESPACES.fetch_add(1, Ordering::Relaxed);
        let name = format!("lockstep-xsk-{}-{number}", std::process::id());
        run("ip", &["netns", "add", &name]);
        Namespace { name }
    }

    /// Makes a pair of veths with `queues` queues each, up, with an MTU of 3,000.
    pub fn veth(&self, one: &str, other: &str, queues: u32) {
        let queues = queues.to_string();
        let number = ["numtxqueues", &queues, "numrxqueues", &queues];
        let mut add = vec!["link", "add", one, "mtu", "3000"];
        add.extend(number);
        add.extend(["type", "veth", "peer", "name", other, "mtu", "3000"]);
        add.extend(number);
        self.ip(&add);
        self.ip(&["link", "set", one, "up"]);
        self.ip(&["link", "set", other, "up"]);
    }

    pub fn ip(&self, arguments: &[&str]) {
        let mut all = vec!["-netns", &self.name];
        all.extend(arguments);
        run("ip", &all);
    }

    /// Has a device leave its packets for `nanoseconds` to those who poll it.
    pub fn defer(&self, interface: &str, nanoseconds: u32) {
        let files = format!("/sys/class/net/{interface}");
        let script = format!(
            "echo 2 > {files}/napi_defer_hard_irqs && echo {nanoseconds} > {files}/gro_flush_timeout"
        );
        // In a mount namespace of its own, whose /sys shows this network namespace.
        run("ip", &["netns", "exec", &self.name, "sh", "-c", &script]);
    }

    /// Runs `test` on a thread inside the namespace.
    pub fn run<T: Send>(&self, test: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let namespace = File::open(format!("/run/netns/{}", self.name)).unwrap();
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                test()
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Not `run`: a failure here must not hide the one that may be unwinding.
        let _ = Command::new("ip")
            .args(["netns", "delete", &self.name])
            .status();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {}: {error}",
        arguments.join(" ")
    );
}

/// The redirecting program, loaded.
pub struct Program {
    object: Object,
}

impl Program {
    pub fn load() -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/redirect.bpf.c");
        let directory = tempfile::tempdir().unwrap();
        let compiled = directory.path().join("redirect.bpf.o");
        let multiarch = format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH);
        let (source, target) = (source.to_str().unwrap(), compiled.to_str().unwrap());
        let flags = [
            "-O2", "-g", "-Wall", "-Werror", "-target", "bpf", &multiarch,
        ];
        run(
            "clang",
            &[&flags[..], &["-c", source, "-o", target]].concat(),
        );
        let object = ObjectBuilder::default()
            .open_file(&compiled)
            .unwrap()
            .load()
            .unwrap();
        Program { object }
    }

    /// Attaches one of the programs to an interface of this thread's namespace. It stays until
    /// the interface goes.
    pub fn attach(&self, name: &str, interface: &str, native: bool) {
        let program = self
            .object
            .progs()
            .find(|program| program.name() == name)
            .unwrap();
        let index = nix::net::if_::if_nametoindex(interface).unwrap();
        let mode = if native {
            XdpFlags::DRV_MODE
        } else {
            XdpFlags::SKB_MODE
        };
        Xdp::new(program.as_fd())
            .attach(index.try_into().unwrap(), mode)
            .unwrap();
    }

    /// Redirects the queue of this port to its socket. All interfaces share one map, so that a
    /// test gives each port that receives a queue number of its own.
    pub fn steer(&self, port: &Port) {
        let map = self
            .object
            .maps()
            .find(|map| map.name() == "sockets")
            .unwrap();
        let socket = port.fd().as_raw_fd().to_ne_bytes();
        map.update(&port.queue().to_ne_bytes(), &socket, MapFlags::ANY)
            .unwrap();
    }
}

/// A worker's memory and ports, as the engine has them.
pub struct Worker {
    pub ports: Vec<Port>,
    pub burst: Burst,
    pub pool: FramePool,
    pub umem: Umem,
}

/// Small rings, so that tests go round them.
pub fn small() -> UmemConfig {
    let ring = RingSize::new(256).unwrap();
    UmemConfig {
        frames: 2048,
        fill_ring: ring,
        completion_ring: ring,
        ..Default::default()
    }
}

pub fn small_rings() -> PortOptions {
    let ring = RingSize::new(256).unwrap();
    PortOptions {
        rx_ring: ring,
        tx_ring: ring,
        ..Default::default()
    }
}

impl Worker {
    pub fn new(config: &UmemConfig) -> Self {
        let (umem, pool) = Umem::new(config).unwrap();
        Worker {
            ports: Vec::new(),
            burst: Burst::new(&umem),
            pool,
            umem,
        }
    }

    /// A worker with small rings on one queue.
    pub fn on(interface: &str, queue: u32) -> Self {
        let mut worker = Worker::new(&small());
        worker.bind(interface, queue, &small_rings());
        worker
    }

    pub fn bind(&mut self, interface: &str, queue: u32, options: &PortOptions) -> &Port {
        let port = Port::bind(&self.umem, &mut self.pool, interface, queue, options).unwrap();
        self.ports.push(port);
        self.ports.last().unwrap()
    }

    /// Sends a packet on the first port.
    pub fn send(&mut self, packet: &[u8]) {
        let mut frame = self.pool.take().unwrap();
        frame.fill(packet).unwrap();
        self.ports[0].send(frame).unwrap();
        self.settle();
    }

    /// Flushes, reaps and refills all ports.
    pub fn settle(&mut self) {
        for port in &mut self.ports {
            port.flush().unwrap();
            port.reap(&mut self.pool);
            port.refill(&mut self.pool);
        }
    }

    /// Waits for `count` packets on the first port and returns copies of them.
    pub fn receive(&mut self, count: usize) -> Vec<Vec<u8>> {
        let start = Instant::now();
        let mut packets = Vec::new();
        while packets.len() < count {
            assert!(
                start.elapsed() < PATIENCE,
                "{} of {count} packets came",
                packets.len()
            );
            wait(&self.ports[..1], None, Duration::from_millis(100)).unwrap();
            self.ports[0].receive(&mut self.burst);
            packets.extend(self.burst.iter_mut().map(|bytes| bytes.to_vec()));
            self.burst.drain().for_each(|frame| self.pool.put(frame));
            self.settle();
        }
        packets
    }

    /// Waits until every frame that was sent has come back.
    pub fn reap_all(&mut self) {
        let done = |port: &Port| port.counters().sent == port.counters().completed;
        until(|| {
            self.settle();
            self.ports.iter().all(done)
        });
    }

    /// Asserts that every frame is in the pool or held by a port.
    pub fn assert_no_frame_is_lost(&self) {
        let held: usize = self.ports.iter().map(Port::held).sum();
        assert_eq!(self.pool.outstanding(), held + self.burst.len());
        for port in &self.ports {
            assert_eq!(port.counters().bad_descriptors, 0);
        }
    }
}

/// A sender on `a0`, a worker between `a1` and `b0`, and a sink on `b1`, in a namespace of their own;
/// with small rings.
pub fn in_a_row(test: impl FnOnce([&mut Worker; 3]) + Send) {
    in_a_row_with(&small(), &small_rings(), test);
}

/// The same with memory and rings of these sizes.
pub fn in_a_row_with(
    config: &UmemConfig,
    options: &PortOptions,
    test: impl FnOnce([&mut Worker; 3]) + Send,
) {
    let namespace = Namespace::new();
    namespace.veth("a0", "a1", 2);
    namespace.veth("b0", "b1", 2);
    namespace.run(|| {
        let program = Program::load();
        program.attach("redirect", "a1", true);
        program.attach("redirect", "b1", true);
        let [mut sender, mut worker, mut sink] = [config; 3].map(Worker::new);
        sender.bind("a0", 0, options);
        program.steer(sink.bind("b1", 1, options));
        program.steer(worker.bind("a1", 0, options));
        worker.bind("b0", 1, options);
        test([&mut sender, &mut worker, &mut sink]);
    });
}

/// Waits for a condition.
pub fn until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < PATIENCE,
            "the condition did not come true"
        );
        std::thread::yield_now();
    }
}

/// A frame for the test program, of `len` bytes that follow from `seed`.
pub fn packet(len: usize, seed: u64) -> Vec<u8> {
    assert!(len >= 22, "headers and the seed");
    let mut bytes = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    bytes.extend(ETHERTYPE);
    bytes.extend(seed.to_be_bytes());
    let fill = |at| (seed as usize).wrapping_mul(31).wrapping_add(at) as u8;
    bytes.extend((bytes.len()..len).map(fill));
    bytes
}
