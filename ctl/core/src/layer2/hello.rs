//! The message of one balancer to another, as bytes. Every list is bounded.
//!
//! ```text
//! "LSL2"  version (1)  flags (1: leaving, 2: recovering)  interval ms (4)  restart ms (4)
//! life (8)  sequence (8)
//! group: length (1), bytes      name: length (1), bytes
//! heard: number (1), each: length (1), bytes, life (8), sequence (8)
//! VIPs:  number (2), each: flags (1: willing, 2: owned, 4: IPv4), 4 or 16 bytes
//! ```
//! Numbers are in network order. Where the balancers share a key, a tag follows (not made here).

use super::{MAX_MEMBERS, MAX_VIPS};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

const MAGIC: [u8; 4] = *b"LSL2";

/// Of what is said here. Every balancer of a group speaks the same one.
pub const VERSION: u8 = 2;

const LEAVING: u8 = 1;
const RECOVERING: u8 = 2;

const WILLING: u8 = 1;
const OWNED: u8 = 2;
const V4: u8 = 4;

/// The most lives that a hello echoes: of each balancer the one that is believed, and one that has
/// still to prove itself.
pub(super) const MAX_HEARD: usize = 2 * MAX_MEMBERS;

/// No hello is longer.
pub const MAX_BYTES: usize = 30 + 2 * 256 + 1 + MAX_HEARD * (256 + 16) + 2 + 2 * MAX_VIPS * 17;

/// What a balancer says to the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Balancers of other groups are not listened to.
    pub group: String,
    /// The sender.
    pub name: String,
    /// What no other life of it has: a random number.
    pub life: u64,
    /// Higher than in any hello of this life before: the sender's time, in microseconds.
    pub sequence: u64,
    /// The next hello comes in this time.
    pub interval: Duration,
    /// It is the last one, or says the same as the last one.
    pub leaving: bool,
    /// The sender ends, what it owns stays its own, and its next life is there in this time; zero
    /// while it does not end.
    pub restart: Duration,
    /// The sender has begun, and does not know yet what it can serve.
    pub recovering: bool,
    /// The balancers that the sender hears: by name and life the sequence that came last. Who is
    /// told a sequence of its own, which it sent a moment ago, knows that this was said just now.
    pub heard: BTreeMap<(String, u64), u64>,
    /// The VIPs that it could own now.
    pub willing: BTreeSet<IpAddr>,
    /// The VIPs that it owns.
    pub owned: BTreeSet<IpAddr>,
}

/// Why bytes are no hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HelloError {
    /// Something else.
    #[error("not a hello")]
    Foreign,
    /// Of another version than this program's.
    #[error("a hello of version {0}")]
    Version(u8),
    /// It ends too early, or goes on after its end.
    #[error("wrong length")]
    Length,
    /// A name that is not text, a number of entries over the limit, or a flag nobody knows.
    #[error("malformed")]
    Malformed,
}

impl Hello {
    /// Its bytes. Of lists that are too long, which [`Election`](super::Election) never makes, the
    /// first entries are said.
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend(MAGIC);
        bytes.push(VERSION);
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        bytes.push(flag(self.leaving, LEAVING) | flag(self.recovering, RECOVERING));
        for time in [self.interval, self.restart] {
            let ms = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
            bytes.extend(ms.to_be_bytes());
        }
        bytes.extend(self.life.to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        text(&mut bytes, &self.group);
        text(&mut bytes, &self.name);
        let heard = self.heard.len().min(MAX_HEARD);
        bytes.push(heard as u8);
        for ((name, life), sequence) in self.heard.iter().take(heard) {
            text(&mut bytes, name);
            bytes.extend(life.to_be_bytes());
            bytes.extend(sequence.to_be_bytes());
        }
        let all = self.willing.union(&self.owned);
        let vips: Vec<&IpAddr> = all.take(2 * MAX_VIPS).collect();
        bytes.extend((vips.len() as u16).to_be_bytes());
        for vip in vips {
            let bit = |set: &BTreeSet<IpAddr>, bit: u8| if set.contains(vip) { bit } else { 0 };
            let flags = bit(&self.willing, WILLING) | bit(&self.owned, OWNED);
            match vip {
                IpAddr::V4(v4) => {
                    bytes.push(flags | V4);
                    bytes.extend(v4.octets());
                }
                IpAddr::V6(v6) => {
                    bytes.push(flags);
                    bytes.extend(v6.octets());
                }
            }
        }
        bytes
    }

    /// Reads a hello.
    pub fn parse(bytes: &[u8]) -> Result<Self, HelloError> {
        let mut rest = Reader(bytes);
        if rest.array() != Ok(MAGIC) {
            return Err(HelloError::Foreign);
        }
        match rest.byte()? {
            VERSION => {}
            other => return Err(HelloError::Version(other)),
        }
        let flags = rest.byte()?;
        if flags & !(LEAVING | RECOVERING) != 0 {
            return Err(HelloError::Malformed);
        }
        let interval = Duration::from_millis(u32::from_be_bytes(rest.array()?).into());
        let restart = Duration::from_millis(u32::from_be_bytes(rest.array()?).into());
        let life = u64::from_be_bytes(rest.array()?);
        let sequence = u64::from_be_bytes(rest.array()?);
        let (group, name) = (rest.text()?, rest.text()?);
        let mut hello = Hello {
            group,
            name,
            life,
            sequence,
            interval,
            leaving: flags & LEAVING != 0,
            restart,
            recovering: flags & RECOVERING != 0,
            heard: BTreeMap::new(),
            willing: BTreeSet::new(),
            owned: BTreeSet::new(),
        };
        let heard = usize::from(rest.byte()?);
        if heard > MAX_HEARD {
            return Err(HelloError::Malformed);
        }
        for _ in 0..heard {
            let (name, life) = (rest.text()?, u64::from_be_bytes(rest.array()?));
            let sequence = u64::from_be_bytes(rest.array()?);
            hello.heard.insert((name, life), sequence);
        }
        let vips = usize::from(u16::from_be_bytes(rest.array()?));
        if vips > 2 * MAX_VIPS {
            return Err(HelloError::Malformed);
        }
        for _ in 0..vips {
            let flags = rest.byte()?;
            let vip: IpAddr = match flags & V4 {
                0 => rest.array::<16>()?.into(),
                _ => rest.array::<4>()?.into(),
            };
            if flags & !(WILLING | OWNED | V4) != 0 {
                return Err(HelloError::Malformed);
            }
            if flags & WILLING != 0 {
                hello.willing.insert(vip);
            }
            if flags & OWNED != 0 {
                hello.owned.insert(vip);
            }
        }
        match rest.0 {
            [] => Ok(hello),
            _ => Err(HelloError::Length),
        }
    }
}

impl Hello {
    /// The last sequence that the sender has heard of a balancer's life.
    pub(super) fn echo(&self, name: &str, life: u64) -> Option<u64> {
        let mut heard = self.heard.iter();
        let found = heard.find(|((of, its), _)| *its == life && of == name);
        found.map(|(_, sequence)| *sequence)
    }
}

/// A text of up to 255 bytes; a longer one is cut off.
fn text(bytes: &mut Vec<u8>, text: &str) {
    let end = text.floor_char_boundary(usize::from(u8::MAX));
    bytes.push(end as u8);
    bytes.extend(&text.as_bytes()[..end]);
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, length: usize) -> Result<&[u8], HelloError> {
        let (taken, rest) = (self.0)
            .split_at_checked(length)
            .ok_or(HelloError::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], HelloError> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| HelloError::Length)
    }

    fn byte(&mut self) -> Result<u8, HelloError> {
        self.array().map(|[byte]| byte)
    }

    fn text(&mut self) -> Result<String, HelloError> {
        let length = usize::from(self.byte()?);
        let bytes = self.take(length)?;
        let text = str::from_utf8(bytes).map_err(|_| HelloError::Malformed)?;
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_map, btree_set, vec};
    use proptest::prelude::*;

    fn addresses() -> impl Strategy<Value = BTreeSet<IpAddr>> {
        btree_set(any::<IpAddr>(), 0..20)
    }

    prop_compose! {
        fn hellos()(
            (group, name) in (".{0,20}", ".{0,20}"),
            (life, sequence, interval, restart) in any::<(u64, u64, u32, u32)>(),
            (leaving, recovering) in any::<(bool, bool)>(),
            heard in btree_map((".{0,20}", any::<u64>()), any::<u64>(), 0..MAX_HEARD),
            willing in addresses(),
            owned in addresses(),
        ) -> Hello {
            let [interval, restart] = [interval, restart].map(|ms| Duration::from_millis(ms.into()));
            Hello {
                group, name, life, sequence, interval, leaving, restart, recovering, heard, willing, owned,
            }
        }
    }

    proptest! {
        #[test]
        fn any_hello_comes_back(hello in hellos()) {
            let bytes = hello.emit();
            prop_assert!(bytes.len() <= MAX_BYTES);
            prop_assert_eq!(Hello::parse(&bytes), Ok(hello));
        }

        #[test]
        fn any_bytes_are_refused_or_a_hello(bytes in vec(any::<u8>(), 0..200)) {
            if let Ok(hello) = Hello::parse(&bytes) {
                prop_assert_eq!(Hello::parse(&hello.emit()), Ok(hello));
            }
        }

        #[test]
        fn a_hello_with_a_changed_byte_or_cut_off_is_refused_or_another(
            hello in hellos(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
        ) {
            let mut bytes = hello.emit();
            let at = at.index(bytes.len());
            if cut {
                bytes.truncate(at);
                prop_assert!(Hello::parse(&bytes).is_err());
                return Ok(());
            }
            bytes[at] = byte;
            if let Ok(other) = Hello::parse(&bytes) {
                prop_assert_eq!(Hello::parse(&other.emit()), Ok(other));
            }
        }
    }

    #[test]
    fn a_hello_of_another_version_says_which() {
        let version_1 = [&b"LSL2\x01"[..], &[0; 40]].concat();
        assert_eq!(Hello::parse(&version_1), Err(HelloError::Version(1)));
        assert_eq!(Hello::parse(b"LSL"), Err(HelloError::Foreign));
        assert_eq!(Hello::parse(b"GET / HTTP/1.1"), Err(HelloError::Foreign));
    }

    #[test]
    fn the_longest_hello_is_within_its_limit() {
        let name = |n: usize| format!("{n:0255}");
        let vip = |n: usize| IpAddr::V6((n as u128).into());
        let hello = Hello {
            group: name(0),
            name: name(0),
            life: 0,
            sequence: 0,
            interval: Duration::ZERO,
            leaving: false,
            restart: Duration::ZERO,
            recovering: false,
            heard: (0..MAX_HEARD).map(|n| ((name(n), u64::MAX), 1)).collect(),
            willing: (0..MAX_VIPS).map(vip).collect(),
            owned: (MAX_VIPS..2 * MAX_VIPS).map(vip).collect(),
        };
        let bytes = hello.emit();
        assert_eq!(bytes.len(), MAX_BYTES);
        assert_eq!(Hello::parse(&bytes), Ok(hello));
    }
}
