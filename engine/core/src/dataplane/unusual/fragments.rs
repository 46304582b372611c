//! Fragments: the later ones of a datagram follow the first, which alone has the ports.

use super::Flows;
use crate::dataplane::{Now, reason};
use crate::time::Micros;
use alloc::boxed::Box;
use alloc::vec;
use core::net::Ipv4Addr;
use core::time::Duration;
use lockstep_plan::DropReason;
use lockstep_wire::{FlowKey, FlowKey4, FlowKey6, Headers, ParseError, parse_fragment};

/// Datagrams under way in fragments that a worker remembers.
pub(super) const DATAGRAMS: usize = 4_096;
/// Those of one bucket: a new one takes the place of its oldest.
const WAYS: usize = 8;
const BUCKETS: usize = DATAGRAMS / WAYS;
/// How long later fragments may follow over IPv4. RFC 791 section 3.2 suggests 15 seconds at
/// first; 30 is what Linux waits for them.
const LIMIT_V4: Duration = Duration::from_secs(30);
/// Over IPv6 (RFC 8200 section 4.5).
const LIMIT_V6: Duration = Duration::from_secs(60);

/// Datagrams whose first fragment came.
///
/// A fragment that comes before the first one of its datagram is dropped: to hold it would need
/// frames that others can fill, and senders send in order. Nothing here is shared with the flow
/// table, so that a flood of fragments costs other fragments and no flow.
pub(super) struct FragmentTable(Box<[[Datagram; WAYS]]>);

#[derive(Debug, Clone, Copy)]
struct Datagram {
    key: FlowKey,
    ports: u32,
    protocol: u8,
    until: Micros,
}

impl FragmentTable {
    pub(super) fn new() -> Self {
        let none = Datagram {
            key: FlowKey4::new(Ipv4Addr::UNSPECIFIED, 0, Ipv4Addr::UNSPECIFIED, 0, 0).into(),
            ports: 0,
            protocol: 0,
            until: Micros::ZERO,
        };
        FragmentTable(vec![[none; WAYS]; BUCKETS].into_boxed_slice())
    }

    fn bucket(&mut self, hash: u64) -> &mut [Datagram; WAYS] {
        &mut self.0[(hash >> 32) as usize % BUCKETS]
    }

    fn find(&mut self, hash: u64, key: &FlowKey, now: Micros) -> Option<Datagram> {
        let found = self.bucket(hash).iter().find(|d| d.key == *key)?;
        (found.until > now).then_some(*found)
    }

    /// The newest first fragment counts: identifications come around.
    fn remember(&mut self, hash: u64, datagram: Datagram) {
        let bucket = self.bucket(hash);
        let same = bucket.iter().position(|d| d.key == datagram.key);
        let place = same.or_else(|| {
            let oldest = bucket.iter().enumerate().min_by_key(|(_, d)| d.until);
            oldest.map(|(at, _)| at)
        });
        if let Some(at) = place {
            bucket[at] = datagram;
        }
    }
}

impl Flows {
    /// The headers of a fragment, with the ports of its datagram.
    pub(super) fn fragment(&mut self, now: Now, frame: &[u8]) -> Result<Headers, DropReason> {
        let fragment = parse_fragment(frame).map_err(|error| match error {
            // Of a ping, say: nobody puts it together here.
            ParseError::NotTransport => DropReason::Fragment,
            other => reason(other),
        })?;
        let hash = fragment.datagram.hash(&self.seed);
        let table = &mut self.unusual.fragments;
        let headers = fragment.headers;
        if fragment.is_first() {
            let (ports, protocol) = match headers.key {
                FlowKey::V4(key) => (key.ports, key.protocol),
                FlowKey::V6(key) => (key.ports, key.protocol),
            };
            let limit = match headers.key {
                FlowKey::V4(_) => LIMIT_V4,
                FlowKey::V6(_) => LIMIT_V6,
            };
            table.remember(
                hash,
                Datagram {
                    key: fragment.datagram,
                    ports,
                    protocol,
                    until: now.micros + limit,
                },
            );
            return Ok(headers);
        }
        let first = table
            .find(hash, &fragment.datagram, now.micros)
            .ok_or(DropReason::Fragment)?;
        let key = match headers.key {
            FlowKey::V4(key) => FlowKey::V4(FlowKey4 {
                ports: first.ports,
                ..key
            }),
            FlowKey::V6(key) => FlowKey::V6(FlowKey6 {
                ports: first.ports,
                protocol: first.protocol,
                ..key
            }),
        };
        Ok(Headers { key, ..headers })
    }
}
