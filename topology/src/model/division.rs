//! Who has what part of the work.

use super::{InterfaceName, Topology};

impl Topology {
    /// The workers that process packets, by their indexes, in order: a worker's place among them is its
    /// share of what they divide, such as ports.
    pub fn processing(&self) -> Vec<usize> {
        let all = self.workers.iter().enumerate();
        all.filter(|(_, worker)| worker.process)
            .map(|(index, _)| index)
            .collect()
    }

    /// Every queue of an interface that is polled, in ascending order.
    pub fn queues_of(&self, interface: &InterfaceName) -> Vec<u32> {
        let queues = self.workers.iter().flat_map(|w| &w.queues);
        let mut numbers: Vec<u32> = queues
            .filter(|q| q.interface == *interface)
            .map(|q| q.number)
            .collect();
        numbers.sort_unstable();
        numbers
    }
}
