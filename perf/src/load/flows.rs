//! Which addresses and ports a flow has, and which flow an answer is for.

use anyhow::{Result, ensure};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

/// Both ends of a flow, as the generator's packets have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    /// The generator's.
    pub source: SocketAddr,
    /// Whom it talks to.
    pub destination: SocketAddr,
}

impl Tuple {
    /// As the answers have them.
    pub fn reversed(&self) -> Self {
        Tuple {
            source: self.destination,
            destination: self.source,
        }
    }
}

/// All flows: each destination in turns, from every source port of every source address.
#[derive(Debug, Clone)]
pub struct Flows {
    destinations: Vec<SocketAddr>,
    numbers: HashMap<SocketAddr, u32>,
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
    ports: RangeInclusive<u16>,
    count: u32,
}

impl Flows {
    /// So many flows.
    ///
    /// # Errors
    ///
    /// When addresses and ports do not suffice, or an address family has no source.
    pub fn new(
        destinations: &[SocketAddr],
        sources: &[IpAddr],
        ports: RangeInclusive<u16>,
        count: u32,
    ) -> Result<Self> {
        let of = |v4: bool| sources.iter().copied().filter(move |at| at.is_ipv4() == v4);
        let numbers: HashMap<SocketAddr, u32> = destinations.iter().copied().zip(0..).collect();
        let flows = Flows {
            destinations: destinations.to_vec(),
            numbers,
            v4: of(true).collect(),
            v6: of(false).collect(),
            ports,
            count,
        };
        ensure!(
            !flows.destinations.is_empty(),
            "there is nowhere to send to: name --to"
        );
        ensure!(
            flows.numbers.len() == destinations.len(),
            "a destination is named twice with --to"
        );
        ensure!(count > 0, "there are no flows: --flows is 1 at least");
        for to in destinations {
            ensure!(to.port() != 0, "{to} has no port");
            let sources = flows.sources(to);
            ensure!(
                !sources.is_empty(),
                "there is no source address for {to}: give the interface an address of its family, \
                 or name one with --from"
            );
            let most = sources.len() as u64 * flows.ports.len() as u64 * destinations.len() as u64;
            ensure!(
                u64::from(count) <= most,
                "{count} flows do not fit: {} source addresses and {} ports make {most}; name more \
                 with --from or --source-ports",
                sources.len(),
                flows.ports.len()
            );
        }
        Ok(flows)
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Where they come from.
    pub fn all_sources(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.iter().chain(&self.v6).copied()
    }

    /// The ports they come from.
    pub fn ports(&self) -> RangeInclusive<u16> {
        self.ports.clone()
    }

    /// The ends of a flow.
    #[inline]
    pub fn tuple(&self, flow: u32) -> Tuple {
        let to = self.destinations.len() as u32;
        let destination = self.destinations[(flow % to) as usize];
        let turn = flow / to;
        let ports = self.ports.len() as u32;
        let address = self.sources(&destination)[(turn / ports) as usize];
        // Within the range of ports.
        let port = self.ports.start() + (turn % ports) as u16;
        Tuple {
            source: SocketAddr::new(address, port),
            destination,
        }
    }

    /// The flow that a packet between these is an answer to.
    #[inline]
    pub fn answered(&self, answer: &Tuple) -> Option<u32> {
        let to = self.destinations.len() as u64;
        let destination = *self.numbers.get(&answer.source)?;
        let own = answer.destination;
        if !self.ports.contains(&own.port()) {
            return None;
        }
        let sources = self.sources(&answer.source);
        let address = sources.iter().position(|at| *at == own.ip())? as u64;
        let port = u64::from(own.port() - self.ports.start());
        let turn = address * self.ports.len() as u64 + port;
        let flow = u32::try_from(turn * to + u64::from(destination)).ok()?;
        (flow < self.count).then_some(flow)
    }

    fn sources(&self, destination: &SocketAddr) -> &[IpAddr] {
        if destination.is_ipv4() {
            &self.v4
        } else {
            &self.v6
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn flows(count: u32) -> Result<Flows> {
        let to: Vec<SocketAddr> = ["192.0.2.1:80", "192.0.2.1:81", "[2001:db8::1]:80"]
            .map(|at| at.parse().unwrap())
            .into();
        let from: Vec<IpAddr> = ["198.18.0.2", "198.18.0.3", "2001:db8::2", "2001:db8::3"]
            .map(|at| at.parse().unwrap())
            .into();
        Flows::new(&to, &from, 1_000..=1_009, count)
    }

    #[test]
    fn every_flow_has_its_own_ends_and_is_found_by_its_answer() {
        let flows = flows(60).unwrap();
        let mut seen = HashSet::new();
        for flow in 0..60 {
            let tuple = flows.tuple(flow);
            assert!(seen.insert((tuple.source, tuple.destination)));
            assert_eq!(tuple.source.is_ipv4(), tuple.destination.is_ipv4());
            assert_eq!(flows.answered(&tuple.reversed()), Some(flow));
        }
    }

    #[test]
    fn what_is_no_answer_is_for_no_flow() {
        let some = flows(59).unwrap();
        assert_eq!(
            some.answered(&flows(60).unwrap().tuple(59).reversed()),
            None
        );
        let answer = some.tuple(0).reversed();
        for wrong in [
            Tuple {
                source: "192.0.2.2:80".parse().unwrap(),
                ..answer
            },
            Tuple {
                destination: "198.18.0.2:1010".parse().unwrap(),
                ..answer
            },
            Tuple {
                destination: "198.18.0.4:1000".parse().unwrap(),
                ..answer
            },
        ] {
            assert_eq!(some.answered(&wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn more_flows_than_there_are_ends_are_refused() {
        let error = flows(61).unwrap_err().to_string();
        assert!(
            error.contains("61 flows do not fit") && error.contains("make 60"),
            "{error}"
        );
        assert!(flows(0).is_err());
        let v6 = ["[2001:db8::1]:80".parse().unwrap()];
        let error = Flows::new(&v6, &["198.18.0.2".parse().unwrap()], 1..=2, 1).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("no source address for [2001:db8::1]:80")
        );
    }
}
