//! Flow keys: what tells one flow from another, and the hash that spreads them.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The 5-tuple of an IPv4 flow: 16 bytes, aligned to 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey4 {
    /// Source address as a number.
    pub source: u32,
    /// Destination address as a number.
    pub destination: u32,
    /// Source port << 16 | destination port.
    pub ports: u32,
    /// IP protocol number.
    pub protocol: u8,
}

/// The 5-tuple of an IPv6 flow: 40 bytes, aligned to 4.
///
/// Addresses are bytes in network order, as they come in; as `u128` the key would be aligned to 16
/// and an entry of a flow table with 20 bytes beside it would not fit a cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey6 {
    /// Source address, in network order.
    pub source: [u8; 16],
    /// Destination address, in network order.
    pub destination: [u8; 16],
    /// Source port << 16 | destination port.
    pub ports: u32,
    /// IP protocol number of the transport, behind any extension headers.
    pub protocol: u8,
}

/// The 5-tuple of a flow of either IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlowKey {
    /// Over IPv4.
    V4(FlowKey4),
    /// Over IPv6.
    V6(FlowKey6),
}

impl FlowKey4 {
    /// A key from its parts.
    #[inline]
    pub const fn new(
        source: Ipv4Addr,
        source_port: u16,
        destination: Ipv4Addr,
        destination_port: u16,
        protocol: u8,
    ) -> Self {
        FlowKey4 {
            source: source.to_bits(),
            destination: destination.to_bits(),
            ports: join_ports(source_port, destination_port),
            protocol,
        }
    }

    /// Source address.
    #[inline]
    pub const fn source_address(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(self.source))
    }

    /// Destination address.
    #[inline]
    pub const fn destination_address(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(self.destination))
    }

    /// Source port.
    #[inline]
    pub const fn source_port(&self) -> u16 {
        (self.ports >> 16) as u16
    }

    /// Destination port.
    #[inline]
    pub const fn destination_port(&self) -> u16 {
        self.ports as u16
    }

    /// The key of the packets that come back.
    #[inline]
    pub const fn reversed(&self) -> Self {
        FlowKey4 {
            source: self.destination,
            destination: self.source,
            ports: self.ports.rotate_left(16),
            protocol: self.protocol,
        }
    }

    /// The flow's hash: see [`HashSeed`]. Two multiplications.
    #[inline]
    pub const fn hash(&self, seed: &HashSeed) -> u64 {
        let addresses = (self.source as u64) << 32 | self.destination as u64;
        let rest = (self.ports as u64) << 32 | self.protocol as u64;
        seed.finish(addresses ^ seed.0[0], rest ^ seed.0[1])
    }
}

impl FlowKey6 {
    /// A key from its parts.
    #[inline]
    pub const fn new(
        source: Ipv6Addr,
        source_port: u16,
        destination: Ipv6Addr,
        destination_port: u16,
        protocol: u8,
    ) -> Self {
        FlowKey6 {
            source: source.octets(),
            destination: destination.octets(),
            ports: join_ports(source_port, destination_port),
            protocol,
        }
    }

    /// Source address.
    #[inline]
    pub const fn source_address(&self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from_octets(self.source))
    }

    /// Destination address.
    #[inline]
    pub const fn destination_address(&self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from_octets(self.destination))
    }

    /// Source port.
    #[inline]
    pub const fn source_port(&self) -> u16 {
        (self.ports >> 16) as u16
    }

    /// Destination port.
    #[inline]
    pub const fn destination_port(&self) -> u16 {
        self.ports as u16
    }

    /// The key of the packets that come back.
    #[inline]
    pub const fn reversed(&self) -> Self {
        FlowKey6 {
            source: self.destination,
            destination: self.source,
            ports: self.ports.rotate_left(16),
            protocol: self.protocol,
        }
    }

    /// The flow's hash: see [`HashSeed`]. Four multiplications, two of them side by side.
    #[inline]
    pub const fn hash(&self, seed: &HashSeed) -> u64 {
        let (source, destination) = (halves(&self.source), halves(&self.destination));
        let rest = (self.ports as u64) << 32 | self.protocol as u64;
        let source = folded(source.0 ^ seed.0[4], source.1 ^ seed.0[5]);
        let destination = folded(destination.0 ^ seed.0[6], destination.1 ^ seed.0[7]);
        seed.finish(source ^ rest ^ seed.0[0], destination ^ seed.0[1])
    }
}

impl FlowKey {
    /// Source address.
    #[inline]
    pub const fn source_address(&self) -> IpAddr {
        match self {
            FlowKey::V4(key) => key.source_address(),
            FlowKey::V6(key) => key.source_address(),
        }
    }

    /// Destination address.
    #[inline]
    pub const fn destination_address(&self) -> IpAddr {
        match self {
            FlowKey::V4(key) => key.destination_address(),
            FlowKey::V6(key) => key.destination_address(),
        }
    }

    /// Source port.
    #[inline]
    pub const fn source_port(&self) -> u16 {
        match self {
            FlowKey::V4(key) => key.source_port(),
            FlowKey::V6(key) => key.source_port(),
        }
    }

    /// Destination port.
    #[inline]
    pub const fn destination_port(&self) -> u16 {
        match self {
            FlowKey::V4(key) => key.destination_port(),
            FlowKey::V6(key) => key.destination_port(),
        }
    }

    /// IP protocol number.
    #[inline]
    pub const fn protocol(&self) -> u8 {
        match self {
            FlowKey::V4(key) => key.protocol,
            FlowKey::V6(key) => key.protocol,
        }
    }

    /// The key of the packets that come back.
    #[inline]
    pub const fn reversed(&self) -> Self {
        match self {
            FlowKey::V4(key) => FlowKey::V4(key.reversed()),
            FlowKey::V6(key) => FlowKey::V6(key.reversed()),
        }
    }

    /// The flow's hash, the same as that of the key inside.
    #[inline]
    pub const fn hash(&self, seed: &HashSeed) -> u64 {
        match self {
            FlowKey::V4(key) => key.hash(seed),
            FlowKey::V6(key) => key.hash(seed),
        }
    }
}

impl From<FlowKey4> for FlowKey {
    fn from(key: FlowKey4) -> Self {
        FlowKey::V4(key)
    }
}

impl From<FlowKey6> for FlowKey {
    fn from(key: FlowKey6) -> Self {
        FlowKey::V6(key)
    }
}

/// The secret of the flow hash: eight words expanded from one.
///
/// The hash multiplies 64 by 64 to 128 bits and folds the halves onto each other, which mixes
/// upwards and downwards at once: both the high bits (a fair range by multiplication) and the low
/// bits (a mask) of the result can be used.
///
/// A product is blind where an operand is zero: it is zero whatever the other one is. With bare
/// keys as operands, all flows with one such half would collide under every seed. So each operand
/// is exclusive-ored with a word of the secret *before* it is multiplied, in the last step too:
/// which key makes an operand zero is then the seed's secret, a different one of 2^64 for each
/// seed, and nobody can aim at it from outside.
///
/// It keeps strangers from filling one bucket; it is no message authentication, and somebody who
/// sees many hashes can compute the seed. Hashes never leave the host, the seed must not either.
///
/// The same seed gives the same hash on every machine and build: balancers that share a snapshot
/// choose the same backend (the golden values in the tests pin that).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashSeed([u64; 8]);

impl HashSeed {
    /// Expands `seed` (SplitMix64: a bijection of a counter, so the eight words all differ).
    pub const fn new(seed: u64) -> Self {
        let mut words = [0; 8];
        let mut at = 0;
        let mut state = seed;
        while at < words.len() {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            words[at] = mixed ^ mixed >> 31;
            at += 1;
        }
        HashSeed(words)
    }

    /// The eight words, for the XDP program, which hashes as we do.
    pub const fn words(&self) -> &[u64; 8] {
        &self.0
    }

    /// Two keyed words to one. The whole 128-bit product goes into the second multiplication: for
    /// a given `y` other than 0 it tells every `x` apart.
    #[inline]
    const fn finish(&self, x: u64, y: u64) -> u64 {
        let (low, high) = wide(x, y);
        folded(low ^ self.0[2], high ^ self.0[3])
    }
}

impl core::fmt::Debug for HashSeed {
    /// Without the words: a log is no place for a secret.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("HashSeed(..)")
    }
}

#[inline]
const fn join_ports(source: u16, destination: u16) -> u32 {
    (source as u32) << 16 | destination as u32
}

#[inline]
const fn halves(address: &[u8; 16]) -> (u64, u64) {
    let bits = u128::from_be_bytes(*address);
    ((bits >> 64) as u64, bits as u64)
}

/// Low and high half of the product.
#[inline]
const fn wide(x: u64, y: u64) -> (u64, u64) {
    let product = x as u128 * y as u128;
    (product as u64, (product >> 64) as u64)
}

#[inline]
const fn folded(x: u64, y: u64) -> u64 {
    let (low, high) = wide(x, y);
    low ^ high
}

#[cfg(test)]
mod tests;
