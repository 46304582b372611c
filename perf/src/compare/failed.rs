//! Rounds in which a case could not be measured.
//!
//! One case that fails does not keep the others from being measured, and a median of the two rounds that
//! are left is not one of three: what has failed stands in the results, and beside each figure that lacks it.

use super::case::Case;
use super::results::{Latency, LatencyLoad, PacketLoad, Packets, Requests};
use serde::{Deserialize, Serialize};

/// What is measured of a case in a network of its own: what fails, fails as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Datagrams a second.
    Packets,
    /// Packets of TCP a second.
    Streams,
    /// HTTP requests a second.
    Requests,
    /// Latency of datagrams.
    LatencyOfDatagrams,
    /// Latency of requests.
    LatencyOfRequests,
}

impl Part {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Part::Packets => "packets",
            Part::Streams => "packets of TCP",
            Part::Requests => "requests",
            Part::LatencyOfDatagrams => "latency of datagrams",
            Part::LatencyOfRequests => "latency of requests",
        }
    }
}

impl From<PacketLoad> for Part {
    fn from(load: PacketLoad) -> Self {
        match load {
            PacketLoad::Udp => Part::Packets,
            PacketLoad::TcpRequests | PacketLoad::TcpStream => Part::Streams,
        }
    }
}

impl From<LatencyLoad> for Part {
    fn from(load: LatencyLoad) -> Self {
        match load {
            LatencyLoad::Udp => Part::LatencyOfDatagrams,
            LatencyLoad::Rr => Part::LatencyOfRequests,
        }
    }
}

/// A row of figures: of a case, and of one part of what is measured.
pub trait Row {
    /// The name of its case.
    fn case(&self) -> &str;
    /// What it is measured with.
    fn part(&self) -> Part;
}

impl Row for Packets {
    fn case(&self) -> &str {
        &self.case
    }

    fn part(&self) -> Part {
        self.load.into()
    }
}

impl Row for Requests {
    fn case(&self) -> &str {
        &self.case
    }

    fn part(&self) -> Part {
        Part::Requests
    }
}

impl Row for Latency {
    fn case(&self) -> &str {
        &self.case
    }

    fn part(&self) -> Part {
        self.load.into()
    }
}

/// A round that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The case.
    pub case: String,
    /// What of it.
    pub part: Part,
    /// Which round, from 1 on.
    pub round: usize,
    /// Why, in one line.
    pub error: String,
}

/// Letters of an error that are kept: what a program that failed has written may be long.
const LONGEST: usize = 400;

impl Failed {
    /// With all of an error's causes.
    pub fn new(case: Case, part: Part, round: usize, error: &anyhow::Error) -> Self {
        let text = format!("{error:#}");
        let words: Vec<&str> = text.split_whitespace().collect();
        let line = words.join(" ");
        let error = match line.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line,
        };
        Failed {
            case: case.name().to_owned(),
            part,
            round,
            error,
        }
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Failed {
            case,
            part,
            round,
            error,
        } = self;
        write!(f, "{case}, {}, round {round}: {error}", part.name())
    }
}

/// How many of the rounds a figure is made of, where some have failed: `2 of 3 rounds`.
pub fn rounds_left(failed: &[Failed], rounds: usize, case: &str, part: Part) -> Option<String> {
    let of_it = |one: &&Failed| one.case == case && one.part == part;
    match failed.iter().filter(of_it).count() {
        0 => None,
        missing => Some(format!(
            "{} of {rounds} rounds",
            rounds.saturating_sub(missing)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn an_error_is_kept_in_one_line_of_some_length() {
        let error = anyhow!("exit status 1:\n  no such\tdevice\n").context("HAProxy");
        let failed = Failed::new(Case::Haproxy, Part::Requests, 2, &error);
        assert_eq!(failed.error, "HAProxy: exit status 1: no such device");
        assert_eq!(
            failed.to_string(),
            "haproxy, requests, round 2: HAProxy: exit status 1: no such device"
        );
        let long = Failed::new(Case::Haproxy, Part::Requests, 2, &anyhow!("µ".repeat(900)));
        assert_eq!(long.error.chars().count(), LONGEST + 1);
        assert!(long.error.ends_with("µ…"));
    }

    #[test]
    fn rounds_are_counted_of_the_case_and_the_part_that_failed() {
        let failed = [1, 3].map(|round| {
            Failed::new(
                Case::NginxStream,
                Part::Packets,
                round,
                &anyhow!("no answer"),
            )
        });
        let left = |case, part| rounds_left(&failed, 3, case, part);
        assert_eq!(
            left("nginx-stream", Part::Packets).as_deref(),
            Some("1 of 3 rounds")
        );
        assert_eq!(left("nginx-stream", Part::Requests), None);
        assert_eq!(left("haproxy", Part::Packets), None);
    }
}
