//! Which packets are answers: those from the backends of services that rewrite.
//!
//! An answer is found by the flow it belongs to ([`crate::flows`]); this says what to make of a
//! packet that belongs to none, which worker has its flow, and what the XDP program redirects.

use super::{Delivery, Tables, Translation};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;
use lockstep_plan::{Protocol, Service};
use lockstep_wire::{FlowKey, FlowKey6, HashSeed};

/// Where answers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// A backend's address.
    pub address: IpAddr,
    /// Its port; 0 for every port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// The sources of a snapshot's answers: built once, then only read.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// Open addressing with linear probing, at most half full; its length is a power of two.
    cells: Vec<Option<FlowKey6>>,
    /// The same, for whoever wants all of them.
    sources: Vec<Source>,
    /// Whether any is of every port.
    wildcards: bool,
    /// A bit for each source, and for few others.
    filter: Filter,
}

/// As for VIPs: no client chooses backends.
const SEED: HashSeed = HashSeed::new(2);

impl Answers {
    /// The sources of these services' answers.
    pub(super) fn new(services: &[Service]) -> Self {
        let mut sources: Vec<Source> = services
            .iter()
            .filter(|service| service.mode.translates())
            .flat_map(sources)
            .collect();
        sources.sort_unstable();
        sources.dedup();
        let mut answers = Answers {
            cells: vec![None; (sources.len() * 2).next_power_of_two().max(2)],
            wildcards: sources.iter().any(|source| source.port == 0),
            sources: Vec::new(),
            filter: Filter::default(),
        };
        for source in &sources {
            answers.filter.add(source.address, source.port);
            let key = key(source.address, source.port, source.protocol.number());
            let mut at = answers.start(&key);
            while answers.cells[at].is_some() {
                at = (at + 1) & (answers.cells.len() - 1);
            }
            answers.cells[at] = Some(key);
        }
        answers.sources = sources;
        answers
    }

    /// Whether nothing is rewritten, so that no packet is an answer.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Whether packets from here are answers, as far as their source says it.
    #[inline]
    pub fn has(&self, address: IpAddr, port: u16, protocol: u8) -> bool {
        !self.is_empty()
            && (self.has_exactly(&key(address, port, protocol))
                || self.wildcards && self.has_exactly(&key(address, 0, protocol)))
    }

    /// Whether a packet of this flow may be an answer: yes for all that are, and for few others.
    ///
    /// Asked of every packet where anything is rewritten, so that answers are not looked for among
    /// the flows of clients and the other way round: two accesses to memory less for each.
    #[inline]
    pub(crate) fn may_be(&self, key: &FlowKey) -> bool {
        let port = key.source_port();
        let word = match key {
            FlowKey::V4(key) => u64::from(key.source),
            FlowKey::V6(key) => folded(&key.source),
        };
        self.filter.has(word, port) || self.wildcards && self.filter.has(word, 0)
    }

    /// All of them.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    fn has_exactly(&self, key: &FlowKey6) -> bool {
        let mut at = self.start(key);
        // Half of the cells are empty: the walk ends.
        while let Some(cell) = &self.cells[at] {
            if cell == key {
                return true;
            }
            at = (at + 1) & (self.cells.len() - 1);
        }
        false
    }

    fn start(&self, key: &FlowKey6) -> usize {
        key.hash(&SEED) as usize & (self.cells.len() - 1)
    }
}

/// A backend that has no port of its own answers from those that clients send to.
fn sources(service: &Service) -> impl Iterator<Item = Source> {
    service.vips.iter().flat_map(|vip| {
        service.backends.iter().map(|backend| Source {
            address: backend.address,
            port: match backend.port {
                Some(port) => port.get(),
                None if vip.has_one_port() => vip.port(),
                None => 0,
            },
            protocol: vip.protocol(),
        })
    })
}

/// 32,768 bits: with a thousand backends one client in thirty is taken for one at first.
#[derive(Debug, Clone)]
struct Filter(Box<[u64; FILTER_WORDS]>);

const FILTER_WORDS: usize = 512;

impl Default for Filter {
    fn default() -> Self {
        Filter(Box::new([0; FILTER_WORDS]))
    }
}

impl Filter {
    fn add(&mut self, address: IpAddr, port: u16) {
        let word = match address {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            IpAddr::V6(v6) => folded(&v6.octets()),
        };
        let bit = Self::bit(word, port);
        self.0[bit / 64 % FILTER_WORDS] |= 1 << (bit % 64);
    }

    #[inline]
    fn has(&self, word: u64, port: u16) -> bool {
        let bit = Self::bit(word, port);
        self.0[bit / 64 % FILTER_WORDS] >> (bit % 64) & 1 != 0
    }

    /// The upper bits of a product depend on all bits of its factor.
    #[inline]
    const fn bit(word: u64, port: u16) -> usize {
        let word = word.rotate_left(16) ^ port as u64;
        (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 49) as usize
    }
}

/// Both halves of an address in one word.
#[inline]
const fn folded(address: &[u8; 16]) -> u64 {
    let bits = u128::from_be_bytes(*address);
    (bits >> 64) as u64 ^ (bits as u64).rotate_left(32)
}

fn key(address: IpAddr, port: u16, protocol: u8) -> FlowKey6 {
    let address = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    FlowKey6::new(address, port, address, 0, protocol)
}

impl Tables {
    /// The sources of answers.
    #[inline]
    pub fn answers(&self) -> &Answers {
        &self.answers
    }

    /// What the XDP program has to redirect besides the VIPs' packets.
    pub fn steered_sources(&self) -> &[Source] {
        self.answers.sources()
    }

    /// Whether a packet from there can be an answer to a rewritten one.
    #[inline]
    pub fn is_answer(&self, address: IpAddr, port: u16, protocol: u8) -> bool {
        self.answers.has(address, port, protocol)
    }
}

impl Delivery {
    /// Whether packets are rewritten.
    #[inline]
    pub const fn translates(&self) -> bool {
        matches!(self, Delivery::Nat(_) | Delivery::FullNat(_))
    }

    /// What packets are rewritten to, where they are.
    #[inline]
    pub const fn translation(&self) -> Option<Translation> {
        match self {
            Delivery::Nat(to) | Delivery::FullNat(to) => Some(*to),
            Delivery::Tunnel(_) | Delivery::Session => None,
        }
    }
}
