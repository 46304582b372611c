//! SYN cookies: what a SYN says, in the number the SYN-ACK is sent with, so that a flood of SYNs
//! takes no memory (RFC 4987 section 3.6).
//!
//! 24 bits of a keyed hash over the flow, the client's initial number, the minute and the other 8
//! bits: MSS, window scale, selective acknowledgments. Whoever guesses has one chance in 2^23 for
//! each number that is checked, and gains a connection.

use super::segment::{Segment, SynOptions};
use crate::Micros;
use core::hash::Hasher;
use core::time::Duration;
use lockstep_wire::FlowKey;
use siphasher::sip::SipHasher13;

/// Microseconds after which a cookie is made with another number; it is good for one to two of
/// them.
const PERIOD: u64 = 64_000_000;

/// A cookie is never good for longer.
pub const LIFETIME: Duration = Duration::from_micros(2 * PERIOD);

/// The MSS a cookie can tell: what clients send, rounded down. 536 is what RFC 9293 section 3.7.1
/// gives a client that says nothing.
const SIZES: [u16; 8] = [536, 1_220, 1_300, 1_360, 1_400, 1_440, 1_460, 8_900];
/// The window scale of a client that has none.
const NO_SCALE: u8 = 15;

/// Makes and checks cookies.
pub struct Cookies {
    key: [u64; 2],
}

/// What a SYN of which only the cookie is left has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    /// The number the SYN-ACK was sent with.
    pub isn: u32,
    /// The client's initial number.
    pub client: u32,
    /// Its options.
    pub options: SynOptions,
}

impl Cookies {
    /// `key` is secret.
    pub fn new(key: [u64; 2]) -> Self {
        Cookies { key }
    }

    /// The initial sequence number for an answer to a SYN.
    pub fn make(&self, now: Micros, syn: &Segment, options: &SynOptions) -> u32 {
        let mss = options.mss.unwrap_or(SIZES[0]);
        let size = SIZES.iter().rposition(|&s| s <= mss).unwrap_or(0) as u8;
        let scale = options.scale.unwrap_or(NO_SCALE);
        let said = size << 5 | scale << 1 | u8::from(options.sack);
        let hash = self.hash(&syn.key, syn.sequence, now.get() / PERIOD, said);
        hash << 8 | u32::from(said)
    }

    /// What the SYN said, if a segment acknowledges a cookie of ours.
    pub fn check(&self, now: Micros, segment: &Segment) -> Option<Promise> {
        let isn = segment.acknowledgment.wrapping_sub(1);
        let client = segment.sequence.wrapping_sub(1);
        let said = isn as u8;
        let period = now.get() / PERIOD;
        let good = [Some(period), period.checked_sub(1)]
            .into_iter()
            .flatten()
            .any(|period| self.hash(&segment.key, client, period, said) == isn >> 8);
        good.then_some(Promise {
            isn,
            client,
            options: options_of(isn),
        })
    }

    fn hash(&self, key: &FlowKey, client: u32, period: u64, said: u8) -> u32 {
        let mut hasher = SipHasher13::new_with_keys(self.key[0], self.key[1]);
        match key {
            FlowKey::V4(key) => {
                hasher.write_u32(key.source);
                hasher.write_u32(key.destination);
                hasher.write_u32(key.ports);
            }
            FlowKey::V6(key) => {
                hasher.write(&key.source);
                hasher.write(&key.destination);
                hasher.write_u32(key.ports);
            }
        }
        hasher.write_u32(client);
        hasher.write_u64(period << 8 | u64::from(said));
        (hasher.finish() & 0x00ff_ffff) as u32
    }
}

/// What a SYN has said, by the cookie that answered it.
pub fn options_of(cookie: u32) -> SynOptions {
    let said = cookie as u8;
    let scale = said >> 1 & 0xf;
    SynOptions {
        mss: Some(SIZES[usize::from(said >> 5)]),
        scale: (scale != NO_SCALE).then_some(scale),
        sack: said & 1 != 0,
    }
}

impl core::fmt::Debug for Cookies {
    /// Without the key: a log is no place for a secret.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Cookies(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use lockstep_wire::{FlowKey4, TcpFlags, protocol};

    const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
    const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

    fn syn(port: u16) -> Segment {
        Segment {
            key: FlowKey4::new(CLIENT, port, VIP, 80, protocol::TCP).into(),
            sequence: 0xffff_ffff,
            acknowledgment: 0,
            flags: TcpFlags::SYN,
            window: 65_535,
            transport: 20,
            payload: 0,
        }
    }

    fn answer(syn: &Segment, isn: u32) -> Segment {
        Segment {
            sequence: syn.sequence.wrapping_add(1),
            acknowledgment: isn.wrapping_add(1),
            flags: TcpFlags::ACK,
            ..*syn
        }
    }

    fn seconds(seconds: u64) -> Micros {
        Micros::new(seconds * 1_000_000)
    }

    #[test]
    fn a_cookie_tells_what_the_syn_said() {
        let cookies = Cookies::new([1, 2]);
        for (mss, said) in [
            (None, 536),
            (Some(1_460), 1_460),
            (Some(1_448), 1_440),
            (Some(9_000), 8_900),
            (Some(100), 536),
        ] {
            for scale in [None, Some(0), Some(7), Some(14)] {
                for sack in [false, true] {
                    let options = SynOptions { mss, scale, sack };
                    let isn = cookies.make(seconds(63), &syn(4_000), &options);
                    let promise = cookies.check(seconds(65), &answer(&syn(4_000), isn));
                    assert_eq!(
                        promise,
                        Some(Promise {
                            isn,
                            client: 0xffff_ffff,
                            options: SynOptions {
                                mss: Some(said),
                                scale,
                                sack
                            },
                        })
                    );
                }
            }
        }
    }

    #[test]
    fn a_cookie_is_good_for_its_flow_its_secret_and_two_minutes() {
        let cookies = Cookies::new([1, 2]);
        let options = SynOptions::default();
        let isn = cookies.make(seconds(0), &syn(4_000), &options);
        let good = answer(&syn(4_000), isn);
        assert!(cookies.check(seconds(127), &good).is_some());
        assert!(cookies.check(seconds(128), &good).is_none());
        assert!(Cookies::new([1, 3]).check(seconds(0), &good).is_none());
        assert!(
            cookies
                .check(seconds(0), &answer(&syn(4_001), isn))
                .is_none()
        );
        let other = Segment {
            sequence: 1,
            ..good
        };
        assert!(cookies.check(seconds(0), &other).is_none());
        for bit in 0..32 {
            let forged = answer(&syn(4_000), isn ^ 1 << bit);
            assert!(cookies.check(seconds(0), &forged).is_none(), "bit {bit}");
        }
    }
}
