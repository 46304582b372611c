//! What the topology says a worker's flow tables take is what they take.

use lockstep_core::{Dataplane, DataplaneConfig};
use lockstep_topology::{FlowCapacity, WorkerMemory};

#[test]
fn the_topology_counts_the_flow_tables_memory_right() {
    let address = "192.0.2.1".parse().expect("an address");
    let addresses = lockstep_topology::Addresses::new(vec![address]).expect("a unicast address");
    let mut engine = lockstep_topology::Engine::new(addresses);
    for (v4, v6) in [(1_000_000, 250_000), (1_024, 1_024), (77_777, 200_000)] {
        engine.flows_ipv4 = FlowCapacity::new(v4).expect("within bounds");
        engine.flows_ipv6 = FlowCapacity::new(v6).expect("within bounds");
        let dataplane = Dataplane::new(&DataplaneConfig {
            flows_v4: v4 as usize,
            flows_v6: v6 as usize,
            seed: 0,
            ..DataplaneConfig::default()
        });
        let taken = dataplane.flows_v4().memory() + dataplane.flows_v6().memory();
        let worker = lockstep_topology::Worker {
            core: lockstep_topology::Core::new(0).unwrap(),
            queues: Vec::new(),
            process: true,
        };
        let said = WorkerMemory::of(&engine, &worker).flows;
        // Tables are whole buckets.
        assert!(
            said.abs_diff(taken as u64) < 2_048,
            "{said} said, {taken} taken"
        );
    }
}
