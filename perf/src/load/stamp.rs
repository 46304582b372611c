//! What every datagram of the generator carries: its intended time, its flow, its place in the flow.

/// Bytes of a stamp: as many as the smallest frame of UDP over IPv4 has room for.
pub const LENGTH: usize = 18;

/// A datagram's stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// When it was due, in nanoseconds of `CLOCK_MONOTONIC`.
    pub intended: u64,
    /// Its flow's number.
    pub flow: u32,
    /// How many datagrams of this flow were sent before it.
    pub sequence: u32,
    /// Tells runs apart, so that what is left of one is not counted in the next.
    pub run: u16,
}

impl Stamp {
    /// As it stands in the payload.
    #[inline]
    pub fn bytes(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..8].copy_from_slice(&self.intended.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.flow.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[16..].copy_from_slice(&self.run.to_be_bytes());
        bytes
    }

    /// What a payload begins with; none of a run but this one.
    #[inline]
    pub fn read(payload: &[u8], run: u16) -> Option<Self> {
        let bytes: &[u8; LENGTH] = payload.first_chunk()?;
        let [i @ .., f0, f1, f2, f3, s0, s1, s2, s3, r0, r1] = *bytes;
        let stamp = Stamp {
            intended: u64::from_be_bytes(i),
            flow: u32::from_be_bytes([f0, f1, f2, f3]),
            sequence: u32::from_be_bytes([s0, s1, s2, s3]),
            run: u16::from_be_bytes([r0, r1]),
        };
        (stamp.run == run).then_some(stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_stamp_is_read_as_it_was_written(
            intended: u64, flow: u32, sequence: u32, run: u16, behind: Vec<u8>,
        ) {
            let stamp = Stamp { intended, flow, sequence, run };
            let mut payload = stamp.bytes().to_vec();
            payload.extend(behind);
            prop_assert_eq!(Stamp::read(&payload, run), Some(stamp));
            prop_assert_eq!(Stamp::read(&payload, !run), None);
            prop_assert_eq!(Stamp::read(&payload[..LENGTH - 1], run), None);
        }
    }
}
