//! Readings of the kernel's counters with the time at which they were made.
//!
//! A rate is a difference of counts by a difference of times. Both are only of the same moments where
//! nothing has its turn between them: on a CPU that is full, what runs next may run for a tenth of a
//! second. So counters are those that the kernel gives out at once, and a reading that was interrupted is
//! made again.

use anyhow::{Context, Result, bail};
use lockstep_tests::lab::Netns;
use std::fs::File;
use std::io::{Read, Seek};
use std::time::{Duration, Instant};

/// A reading that took longer has no time that could be told.
const LONGEST: Duration = Duration::from_millis(4);
/// As often as it is tried. The kernel takes a full CPU away for 50 ms at most, and each try after
/// that finds it free.
const TRIES: usize = 50;

/// What was read, and when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading<T> {
    /// Within two milliseconds.
    pub at: Instant,
    /// What was read.
    pub value: T,
}

impl<T> Reading<T> {
    /// Reads something that takes no time to speak of: it may not wait for another program.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or took too long each time.
    pub fn make(mut read: impl FnMut() -> Result<T>) -> Result<Self> {
        for _ in 0..TRIES {
            let begin = Instant::now();
            let value = read()?;
            let took = begin.elapsed();
            if took <= LONGEST {
                let at = begin + took / 2;
                return Ok(Reading { at, value });
            }
        }
        bail!(
            "the kernel's counters could not be read within {LONGEST:?}, {TRIES} times: something \
             else runs on this CPU"
        )
    }

    /// Seconds from an earlier one to this one.
    pub fn seconds_since<U>(&self, before: &Reading<U>) -> f64 {
        self.at.saturating_duration_since(before.at).as_secs_f64()
    }
}

/// A file of `/proc/net` of one network namespace, wherever it is read.
#[derive(Debug)]
pub struct NetFile(File);

impl NetFile {
    /// Opens it, by its name below `/proc/net`.
    ///
    /// # Errors
    ///
    /// When it is not there.
    pub fn open(netns: &Netns, name: &str) -> Result<Self> {
        let path = format!("/proc/thread-self/net/{name}");
        let open = || File::open(&path).with_context(|| format!("cannot open {path}"));
        netns.within(open).map(NetFile)
    }

    /// What stands in it now.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn read(&self) -> Result<String> {
        let mut text = String::new();
        let mut file = &self.0;
        file.rewind()?;
        file.read_to_string(&mut text)?;
        Ok(text)
    }
}

/// Segments of TCP with something in them that a namespace has sent, each counted once however often
/// it was sent: `TCPOrigDataSent` of `/proc/net/netstat`.
pub fn data_segments(netstat: &str) -> Option<u64> {
    let mut lines = netstat
        .lines()
        .filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    let (_, value) = pairs.find(|(name, _)| *name == "TCPOrigDataSent")?;
    value.parse().ok()
}

/// Bytes and packets that a device has received, of `/proc/net/dev`.
pub fn received(dev: &str, device: &str) -> Option<(u64, u64)> {
    let mut lines = dev.lines().filter_map(|line| line.split_once(':'));
    let (_, counts) = lines.find(|(name, _)| name.trim() == device)?;
    let mut counts = counts.split_whitespace().map(str::parse);
    Some((counts.next()?.ok()?, counts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_that_was_interrupted_is_made_again() {
        let mut tries = 0;
        let begin = Instant::now();
        let reading = Reading::make(|| {
            tries += 1;
            let slow = Instant::now();
            while tries < 3 && slow.elapsed() < 2 * LONGEST {
                std::hint::spin_loop();
            }
            Ok(tries)
        });
        let reading = reading.expect("the third is quick");
        assert!(reading.value >= 3);
        assert!(reading.at - begin >= 4 * LONGEST, "the time of the last");
    }

    #[test]
    fn a_reading_that_is_never_quick_is_an_error() {
        let slow = || {
            let begin = Instant::now();
            while begin.elapsed() <= LONGEST {
                std::hint::spin_loop();
            }
            Ok(())
        };
        let error = Reading::make(slow).expect_err("too slow each time");
        assert!(error.to_string().contains("50 times"), "{error}");
    }

    #[test]
    fn the_kernel_tells_segments_with_data_and_what_a_device_received() {
        let netstat = "TcpExt: SyncookiesSent TCPOrigDataSent TCPKeepAlive\nTcpExt: 1 4211 3\n\
                       IpExt: InNoRoutes\nIpExt: 7\n";
        assert_eq!(data_segments(netstat), Some(4211));
        assert_eq!(data_segments("TcpExt: A\nTcpExt: 1\n"), None);
        let dev = "Inter-|   Receive\n face |bytes packets\n    lo: 5 6 0 0\n  eth0: 700 8 0 0\n";
        assert_eq!(received(dev, "eth0"), Some((700, 8)));
        assert_eq!(received(dev, "eth1"), None);
        let own = std::fs::read_to_string("/proc/net/netstat").expect("Linux has it");
        assert!(data_segments(&own).is_some());
    }
}
