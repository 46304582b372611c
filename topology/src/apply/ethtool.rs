//! What `ethtool` prints, and the words it takes.

use std::collections::BTreeSet;

/// Queues, in the ways a device can have them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Set {
    rx: Option<u32>,
    tx: Option<u32>,
    combined: Option<u32>,
}

/// What `ethtool -l` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Channels {
    most: Set,
    now: Set,
}

/// How a device gets a number of queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    Already,
    /// It can have so many at most.
    TooMany(u32),
    /// Each queue receives and sends.
    Combined,
    /// Queues that receive and queues that send are counted apart.
    Separate,
}

impl Channels {
    pub(super) fn parse(text: &str) -> Self {
        let mut channels = Channels::default();
        let mut now = false;
        for line in text.lines() {
            if line.starts_with("Current") {
                now = true;
            }
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let set = if now {
                &mut channels.now
            } else {
                &mut channels.most
            };
            // "n/a" where the device has none of the kind.
            let value = value.trim().parse().ok();
            match key.trim() {
                "RX" => set.rx = value,
                "TX" => set.tx = value,
                "Combined" => set.combined = value,
                _ => {}
            }
        }
        channels
    }

    pub(super) fn plan(&self, wanted: u32) -> Plan {
        let Channels { most, now } = self;
        match most.combined.filter(|&most| most > 0) {
            Some(_) if now.combined == Some(wanted) => Plan::Already,
            Some(most) if most < wanted => Plan::TooMany(most),
            Some(_) => Plan::Combined,
            None if now.rx == Some(wanted) && now.tx == Some(wanted) => Plan::Already,
            None => match most.rx.unwrap_or(0).min(most.tx.unwrap_or(0)) {
                most if most < wanted => Plan::TooMany(most),
                _ => Plan::Separate,
            },
        }
    }
}

/// What `ethtool -x` says; in place of what it cannot say, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rss {
    /// The queue of each value of the hash.
    pub(super) table: Result<Vec<u32>, String>,
    pub(super) key: Result<Vec<u8>, String>,
}

impl Rss {
    pub(super) fn parse(text: &str) -> Self {
        let mut table = Vec::new();
        let mut key = None;
        let mut refused = None;
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line.starts_with("RSS hash key") {
                key = lines.next().map(|line| read_key(line.trim()));
                continue;
            }
            // "    8:      0     1     2     3"
            let Some((at, queues)) = line.split_once(':') else {
                // In place of a table: "Operation not supported".
                refused =
                    refused.or((table.is_empty() && key.is_none()).then(|| line.trim().to_owned()));
                continue;
            };
            if at.trim().parse::<u32>().is_ok() {
                table.extend(
                    queues
                        .split_whitespace()
                        .filter_map(|q| q.parse::<u32>().ok()),
                );
            }
        }
        let silent = || "the device does not say how it spreads packets".to_owned();
        Rss {
            table: match table.is_empty() {
                true => Err(refused.filter(|why| !why.is_empty()).unwrap_or_else(silent)),
                false => Ok(table),
            },
            key: key.unwrap_or_else(|| Err(silent())),
        }
    }
}

/// `6d:5a:...`, or why there is none.
fn read_key(line: &str) -> Result<Vec<u8>, String> {
    let bytes = line
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok());
    let bytes: Option<Vec<u8>> = bytes.collect();
    bytes.ok_or_else(|| line.to_owned())
}

/// Whether each of these queues has its share of the table, to within one entry, and no other has
/// any.
pub(super) fn is_equal(table: &[u32], queues: &[u32]) -> bool {
    let of = |queue: &u32| table.iter().filter(|entry| *entry == queue).count();
    let counts: Vec<usize> = queues.iter().map(of).collect();
    let (least, most) = (counts.iter().min(), counts.iter().max());
    counts.iter().sum::<usize>() == table.len()
        && matches!((least, most), (Some(least), Some(most)) if most - least <= 1)
}

/// The words of `ethtool -X` for equal shares.
pub(super) fn shares(queues: &[u32]) -> Vec<String> {
    let set: BTreeSet<u32> = queues.iter().copied().collect();
    let last = set.last().copied().unwrap_or(0);
    if set.len() == last as usize + 1 {
        return vec!["equal".to_owned(), set.len().to_string()];
    }
    let weight = |queue| u32::from(set.contains(&queue)).to_string();
    std::iter::once("weight".to_owned())
        .chain((0..=last).map(weight))
        .collect()
}

/// The key with which Toeplitz hashes both directions of a connection to the same value: sixteen bits
/// repeated (Woo and Park, Scalable TCP Session Monitoring with Symmetric Receive-side Scaling, 2012).
pub(super) fn symmetric(length: usize) -> Vec<u8> {
    [0x6d, 0x5a].into_iter().cycle().take(length).collect()
}

pub(super) fn hexadecimal(key: &[u8]) -> String {
    let bytes: Vec<String> = key.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

/// `0-3, 8`.
pub(super) fn list(queues: &[u32]) -> String {
    crate::check::list(&queues.iter().copied().collect())
}
