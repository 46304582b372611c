//! Interfaces and their queues by name: `eth0`, `eth0:3`, `eth0:0-3`.

use std::fmt;
use std::str::FromStr;

/// The name of a network interface: 1 to 15 bytes, no `/`, `:` or white space, as the kernel
/// allows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// What is allowed, for messages.
    pub const ALLOWED: &'static str = "1 to 15 characters without `/`, `:` and spaces";

    /// A name, or `None` when the kernel would not take it.
    pub fn new(name: &str) -> Option<Self> {
        let plain = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
        let fits = (1..=15).contains(&name.len()) && name != "." && name != "..";
        (fits && name.chars().all(plain)).then(|| InterfaceName(name.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One RX queue of an interface, written `eth0:3`. A worker sends on the TX queue of the same
/// number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Queue {
    /// The interface.
    pub interface: InterfaceName,
    /// The queue's number, from 0.
    pub number: u32,
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.interface, self.number)
    }
}

/// Queues of one interface with successive numbers, written `eth0:3` or `eth0:0-3`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QueueRange {
    interface: InterfaceName,
    first: u32,
    last: u32,
}

impl QueueRange {
    /// The largest queue number: more queues than any device has, few enough to list.
    pub const MAX: u32 = 4_095;
    /// What is allowed, for messages.
    pub const ALLOWED: &'static str = "INTERFACE:QUEUE or INTERFACE:FIRST-LAST, queues 0 to 4095";

    /// Each queue, in ascending order.
    pub fn queues(&self) -> impl Iterator<Item = Queue> {
        (self.first..=self.last).map(|number| Queue {
            interface: self.interface.clone(),
            number,
        })
    }

    /// The shortest list of ranges for these queues that keeps their order.
    pub fn cover(queues: &[Queue]) -> Vec<QueueRange> {
        let mut ranges: Vec<QueueRange> = Vec::new();
        for Queue { interface, number } in queues {
            match ranges.last_mut() {
                Some(range) if range.interface == *interface && range.last + 1 == *number => {
                    range.last = *number;
                }
                _ => ranges.push(QueueRange {
                    interface: interface.clone(),
                    first: *number,
                    last: *number,
                }),
            }
        }
        ranges
    }
}

/// Not queues of an interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("queues are written {}", QueueRange::ALLOWED)]
pub struct ParseQueuesError;

impl FromStr for QueueRange {
    type Err = ParseQueuesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| -> Result<u32, ParseQueuesError> {
            // `parse` alone would take "+1".
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            let number = text.parse().map_err(|_| ParseQueuesError)?;
            (digits && number <= Self::MAX)
                .then_some(number)
                .ok_or(ParseQueuesError)
        };
        let (interface, numbers) = text.split_once(':').ok_or(ParseQueuesError)?;
        let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
        let range = QueueRange {
            interface: InterfaceName::new(interface).ok_or(ParseQueuesError)?,
            first: number(first)?,
            last: number(last)?,
        };
        (range.first <= range.last)
            .then_some(range)
            .ok_or(ParseQueuesError)
    }
}

impl fmt::Display for QueueRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.interface, self.first)?;
        if self.last > self.first {
            write!(f, "-{}", self.last)?;
        }
        Ok(())
    }
}
