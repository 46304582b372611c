//! Sizes of frames, and how they follow each other.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Lengths that a frame may have, its checksum sequence included: from Ethernet's shortest to what a
/// chunk of packet memory takes in.
pub const SIZES: RangeInclusive<usize> = 64..=3_844;
/// The most sizes of a mix, and the most frames until it repeats.
const MOST: usize = 4_096;
/// The mix that routers are measured with: 7 of 64 bytes, 4 of 570, 1 of 1,518.
const IMIX: &[(usize, usize)] = &[(64, 7), (570, 4), (1_518, 1)];

/// Sizes of frames in bytes, their checksum sequences included, with how many there are of each until
/// the mix repeats. They are spread evenly: no two runs of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix {
    parts: Vec<(usize, usize)>,
    /// A whole period.
    order: Vec<u16>,
}

impl Mix {
    /// Frames of one size.
    ///
    /// # Errors
    ///
    /// When no frame can have that size.
    pub fn one(bytes: usize) -> Result<Self, String> {
        Self::new(vec![(bytes, 1)])
    }

    /// So many frames of each size.
    ///
    /// # Errors
    ///
    /// When no frame can have such a size, or there are none of one, or too many of all.
    pub fn new(parts: Vec<(usize, usize)>) -> Result<Self, String> {
        let period: usize = parts.iter().map(|(_, count)| count).sum();
        for &(bytes, count) in &parts {
            if !SIZES.contains(&bytes) {
                return Err(format!(
                    "no frame has {bytes} bytes: {} to {}, the 4 of the checksum sequence included",
                    SIZES.start(),
                    SIZES.end()
                ));
            }
            if count == 0 {
                return Err(format!("there are 0 frames of {bytes} bytes in this mix"));
            }
        }
        if period == 0 || period > MOST {
            return Err(format!("a mix has 1 to {MOST} frames, not {period}"));
        }
        let order = spread(&parts, period);
        Ok(Mix { parts, order })
    }

    /// The size of the frame with this number, in bytes with the checksum sequence.
    #[inline]
    pub fn of(&self, number: u64) -> usize {
        let at = (number % self.order.len() as u64) as usize;
        usize::from(self.order[at])
    }

    /// The longest.
    pub fn longest(&self) -> usize {
        self.parts
            .iter()
            .map(|(bytes, _)| *bytes)
            .max()
            .unwrap_or(0)
    }

    /// The shortest.
    pub fn shortest(&self) -> usize {
        self.parts
            .iter()
            .map(|(bytes, _)| *bytes)
            .min()
            .unwrap_or(0)
    }

    /// The mean, in bytes.
    pub fn mean(&self) -> f64 {
        let total: usize = self.order.iter().map(|bytes| usize::from(*bytes)).sum();
        total as f64 / self.order.len() as f64
    }
}

/// Whichever size is furthest behind its share comes next.
fn spread(parts: &[(usize, usize)], period: usize) -> Vec<u16> {
    let mut given = vec![0_usize; parts.len()];
    let mut order = Vec::with_capacity(period);
    for at in 1..=period {
        let behind = |index: &usize| {
            let due = at * parts[*index].1;
            due as i64 - (given[*index] * period) as i64
        };
        // Of two that are as far behind, the one that is named first.
        let next = (0..parts.len()).rev().max_by_key(behind).unwrap_or(0);
        given[next] += 1;
        // `SIZES` ends far below 65,535.
        order.push(parts[next].0 as u16);
    }
    order
}

impl FromStr for Mix {
    type Err = String;

    /// `1400`, `imix`, or `64:7,570:4,1518:1`: bytes, and how many of them.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("imix") {
            return Self::new(IMIX.to_vec());
        }
        let number = |text: &str| {
            let parsed: Result<usize, _> = text.trim().parse();
            parsed.map_err(|_| {
                format!("{text:?} is no number; sizes are `1400`, `imix` or `64:7,1400:3`")
            })
        };
        let part = |text: &str| match text.split_once(':') {
            Some((bytes, count)) => Ok((number(bytes)?, number(count)?)),
            None => Ok((number(text)?, 1)),
        };
        let parts: Result<Vec<_>, String> = text.split(',').map(part).collect();
        Self::new(parts?)
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(bytes, _)] = self.parts[..] {
            return write!(f, "{bytes}");
        }
        for (at, (bytes, count)) in self.parts.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{bytes}:{count}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imix_is_7_to_4_to_1_and_spread() {
        let mix: Mix = "imix".parse().unwrap();
        let period: Vec<usize> = (0..12).map(|at| mix.of(at)).collect();
        for (bytes, count) in [(64, 7), (570, 4), (1_518, 1)] {
            assert_eq!(period.iter().filter(|of| **of == bytes).count(), count);
        }
        assert!(
            !period.windows(3).any(|run| run.iter().all(|of| *of == 64)),
            "{period:?}"
        );
        assert_eq!(mix.of(12), mix.of(0));
        assert_eq!((mix.shortest(), mix.longest()), (64, 1_518));
        assert!((mix.mean() - (7.0 * 64.0 + 4.0 * 570.0 + 1_518.0) / 12.0).abs() < 1e-9);
    }

    #[test]
    fn mixes_are_written_as_they_are_read() {
        for text in ["64", "1400", "64:7,570:4,1518:1", "64:1,1400:1"] {
            let mix: Mix = text.parse().unwrap();
            assert_eq!(mix.to_string(), text);
        }
        assert_eq!("64,1400".parse::<Mix>().unwrap().to_string(), "64:1,1400:1");
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for text in ["63", "3845", "64:0", "", "64:", "x", "64:5000", "64:-1"] {
            assert!(text.parse::<Mix>().is_err(), "{text}");
        }
    }
}
