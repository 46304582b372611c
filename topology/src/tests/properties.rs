//! What holds for every topology, made up by chance.

use super::*;
use proptest::collection::{btree_map, btree_set, hash_set, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Of a file, with what has to be written otherwise in TOML.
const PATH: &str = "/[a-z\"\\\\ \u{e9}]{1,20}";

/// An engine; under which `spread`, its workers tell.
fn engines() -> impl Strategy<Value = Engine> {
    let parts = (
        PATH,
        select(vec![
            (Poll::Busy, Receive::Worker),
            (Poll::Busy, Receive::Kernel),
            (Poll::Adaptive, Receive::Worker),
            (Poll::Adaptive, Receive::Kernel),
            (Poll::Interrupt, Receive::Kernel),
        ]),
        FlowCapacity::MIN..=FlowCapacity::MAX,
        FlowCapacity::MIN..=FlowCapacity::MAX,
        14u32..=20,
        select(vec![FrameSize::Bytes2048, FrameSize::Bytes4096]),
        10u64..=60_000,
        btree_set(any::<[u8; 16]>(), 1..4),
    );
    parts.prop_map(
        |(path, (poll, receive), ipv4, ipv6, frames, frame_size, watchdog, addresses)| {
            let addresses = addresses.into_iter().map(|mut bytes| {
                bytes[0] = 0x20;
                IpAddr::from(bytes)
            });
            Engine {
                socket: path.clone().into(),
                pin_dir: path.into(),
                poll,
                receive,
                flows_ipv4: FlowCapacity::new(ipv4).unwrap(),
                flows_ipv6: FlowCapacity::new(ipv6).unwrap(),
                umem_frames: UmemFrames::new(1 << frames).unwrap(),
                frame_size,
                watchdog: Watchdog::new(Duration::from_millis(watchdog)).unwrap(),
                ..Engine::new(Addresses::new(addresses.collect()).unwrap())
            }
        },
    )
}

fn sessions() -> impl Strategy<Value = Sessions> {
    let parts = (
        SessionCapacity::MIN..=SessionCapacity::MAX,
        ConnectionCapacity::MIN..=ConnectionCapacity::MAX,
        12u32..=24,
        LogMemory::MIN..=LogMemory::MAX,
        16_384u16..=60_000,
        proptest::option::of(PATH),
        SpillLimit::MIN..=SpillLimit::MAX,
    );
    parts.prop_map(
        |(max, connections, buffer, log_memory, port, spill, spill_limit)| Sessions {
            max: SessionCapacity::new(max).unwrap(),
            connections: ConnectionCapacity::new(connections).unwrap(),
            client_buffer: BufferSize::new(1 << buffer).unwrap(),
            replica_buffer: BufferSize::new(1 << (36 - buffer)).unwrap(),
            log_memory: LogMemory::new(log_memory).unwrap(),
            ports: PortRange::new(port..=65_535).unwrap(),
            spill: spill.map(Into::into),
            spill_limit: SpillLimit::new(spill_limit).unwrap(),
        },
    )
}

fn interfaces() -> impl Strategy<Value = Vec<Interface>> {
    let modes = select(vec![
        BindMode::Auto,
        BindMode::ZeroCopy,
        BindMode::Copy,
        BindMode::Generic,
    ]);
    btree_map("[a-z][a-z0-9.@-]{0,14}", modes, 1..4).prop_map(|interfaces| {
        let interfaces = interfaces.into_iter().map(|(name, mode)| Interface {
            name: InterfaceName::new(&name).unwrap(),
            mode,
        });
        interfaces.collect()
    })
}

/// Gives an interface's queues to the workers: one to each first, then stretches to whom it may be.
fn deal(interface: &Interface, stretches: &[(Index, u32)], workers: &mut [Worker]) {
    let mut next = 0;
    let mut give = |worker: &mut Worker, count: u32| {
        for _ in 0..count {
            worker.queues.push(Queue {
                interface: interface.name.clone(),
                number: next,
            });
            next += 1;
        }
    };
    workers.iter_mut().for_each(|worker| give(worker, 1));
    for (worker, count) in stretches {
        let index = worker.index(workers.len());
        give(&mut workers[index], *count);
    }
}

/// Topologies with several interfaces and workers; queues are dealt to the workers at random.
fn topologies() -> impl Strategy<Value = Topology> {
    let cores = hash_set(0u16..=Core::MAX, 1..5);
    let stretches = vec((any::<Index>(), 1u32..4), 0..8);
    let parts = (engines(), sessions(), interfaces(), cores, stretches);
    parts.prop_map(|(mut engine, sessions, interfaces, cores, stretches)| {
        let worker = |core| Worker {
            core: Core::new(core).unwrap(),
            queues: Vec::new(),
            process: true,
        };
        let mut workers: Vec<Worker> = cores.into_iter().map(worker).collect();
        for interface in &interfaces {
            deal(interface, &stretches, &mut workers);
        }
        if engine.frame_size == FrameSize::Bytes4096
            && let [first, .., last] = workers.as_mut_slice()
        {
            engine.spread = Spread::Rps;
            first.process = false;
            last.queues.clear();
        }
        Topology::new(engine, sessions, interfaces, workers).unwrap()
    })
}

proptest! {
    #[test]
    fn what_is_rendered_reads_back_as_the_same(topology in topologies()) {
        let text = render(&topology);
        let parsed = Topology::parse("t.toml", &text);
        prop_assert_eq!(parsed, Ok(topology), "{}", text);
    }

    #[test]
    fn ranges_of_queues_read_back_and_cover_what_they_were_made_of(
        numbers in vec((0usize..2, 0u32..=QueueRange::MAX), 0..20)
    ) {
        let names = ["eth0", "eth1"].map(|name| InterfaceName::new(name).unwrap());
        let queues: Vec<Queue> = numbers
            .into_iter()
            .map(|(name, number)| Queue { interface: names[name].clone(), number })
            .collect();
        let ranges = QueueRange::cover(&queues);
        let covered: Vec<Queue> = ranges.iter().flat_map(QueueRange::queues).collect();
        prop_assert_eq!(covered, queues);
        for range in ranges {
            prop_assert_eq!(range.to_string().parse::<QueueRange>(), Ok(range));
        }
    }

    /// Whatever is changed in a good file, the answer is a topology or a report.
    #[test]
    fn a_damaged_file_is_answered(
        topology in topologies(), at: Index, with in "[\\[\\]\"=,a-z0-9\n -]{0,3}"
    ) {
        let mut text = render(&topology);
        let starts: Vec<usize> = text.char_indices().map(|(start, _)| start).collect();
        let start = starts[at.index(starts.len())];
        let length = text[start..].chars().next().unwrap().len_utf8();
        text.replace_range(start..start + length, &with);
        if let Err(found) = Topology::parse("t.toml", &text) {
            prop_assert!(found.has_errors());
        }
    }
}
