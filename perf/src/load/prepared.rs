//! Frames that are written once and sent again and again.

use super::datagrams::Datagrams;
use super::packet::{CHECKSUM_SEQUENCE, write_stamped};
use super::stamp::Stamp;

/// The most memory for them, in bytes.
const MOST: usize = 64 << 20;

/// A frame of each flow, all of one length. Where nobody here takes what is sent, nobody reads its
/// stamps, and writing each packet anew would only cost the generator some of its rate.
#[derive(Debug)]
pub struct Prepared {
    bytes: Vec<u8>,
    length: usize,
}

impl Prepared {
    /// Those of `datagrams`; none where they differ in length, or are too many to be kept.
    pub fn new(datagrams: &Datagrams) -> Option<Self> {
        let length = datagrams.sizes.longest() - CHECKSUM_SEQUENCE;
        let all = (datagrams.flows.count() as usize).checked_mul(length)?;
        if datagrams.sizes.shortest() != datagrams.sizes.longest() || all > MOST {
            return None;
        }
        let mut bytes = vec![0; all];
        for (flow, frame) in (0..).zip(bytes.chunks_exact_mut(length)) {
            let stamp = Stamp {
                intended: 0,
                flow,
                sequence: 0,
                run: datagrams.run,
            };
            let link = &datagrams.links[flow as usize % datagrams.links.len()];
            write_stamped(frame, link, &datagrams.flows.tuple(flow), &stamp.bytes());
        }
        Some(Prepared { bytes, length })
    }

    /// The frame of a flow.
    #[inline]
    pub fn of(&self, flow: u32) -> &[u8] {
        let at = flow as usize * self.length;
        &self.bytes[at..at + self.length]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::load::Mix;
    use crate::load::flows::Flows;
    use crate::load::packet::{Content, Link, read};
    use std::collections::BTreeSet;
    use std::net::{IpAddr, SocketAddr};

    fn datagrams(flows: u32, sizes: &str) -> Datagrams {
        let to: SocketAddr = "203.0.113.10:53".parse().unwrap();
        let from: Vec<IpAddr> = ["198.18.0.2", "198.18.0.3"]
            .map(|at| at.parse().unwrap())
            .into();
        Datagrams {
            flows: Flows::new(&[to], &from, 10_000..=59_999, flows).unwrap(),
            sizes: sizes.parse::<Mix>().unwrap(),
            links: vec![Link {
                to: [2, 0, 0, 0, 0, 9],
                from: [2, 0, 0, 0, 0, 1],
            }],
            gue_port: 6_080,
            run: 7,
            verify: false,
            prepared: None,
        }
    }

    #[test]
    fn every_flow_has_a_whole_frame_of_its_own() {
        let datagrams = datagrams(50_010, "64");
        let prepared = Prepared::new(&datagrams).unwrap();
        let mut sources = BTreeSet::new();
        for flow in 0..datagrams.flows.count() {
            let frame = prepared.of(flow);
            assert_eq!(frame.len(), 60);
            let arrived = read(frame, datagrams.gue_port).unwrap();
            assert_eq!(arrived.ends, datagrams.flows.tuple(flow));
            let Content::Udp(payload) = arrived.content else {
                panic!("no UDP: {arrived:?}")
            };
            assert_eq!(Stamp::read(payload, datagrams.run).unwrap().flow, flow);
            sources.insert(arrived.ends.source);
        }
        assert_eq!(sources.len(), 50_010);
    }

    #[test]
    fn what_differs_in_length_or_is_too_much_is_written_packet_by_packet() {
        assert!(Prepared::new(&datagrams(10, "64:1,1400:1")).is_none());
        assert!(Prepared::new(&datagrams(100_000, "1400")).is_none());
        assert!(Prepared::new(&datagrams(10, "1400")).is_some());
    }
}
