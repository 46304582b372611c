//! Rounds in which a case could not be measured.
//!
//! One case that fails does not keep the others from being measured, and a median of the two rounds that
//! are left is not one of three: what has failed stands in the results, and beside each figure that lacks it.

use super::case::Case;
use super::part::Part;
use super::results::{Latency, Packets, Requests};
use crate::written::grouped;
use serde::{Deserialize, Serialize};

/// A row of figures: of a case, and of one part of what is measured.
pub trait Row {
    /// The name of its case.
    fn case(&self) -> &str;
    /// What it is measured with.
    fn part(&self) -> Part;

    /// The size of its frames, where each is measured for itself.
    fn bytes(&self) -> Option<usize> {
        None
    }
}

impl Row for Packets {
    fn case(&self) -> &str {
        &self.case
    }

    fn part(&self) -> Part {
        self.load.into()
    }

    fn bytes(&self) -> Option<usize> {
        Some(self.bytes)
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
    /// Which size of frames; none where all of the part failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<usize>,
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
            bytes: None,
            round,
            error,
        }
    }

    /// Of frames of one size only.
    pub fn of_size(self, bytes: usize) -> Self {
        Failed {
            bytes: Some(bytes),
            ..self
        }
    }

    /// What failed, in words.
    pub fn what(&self) -> String {
        let part = self.part.name();
        match self.bytes {
            None => part.to_owned(),
            Some(bytes) => format!("{part} in frames of {} bytes", grouped(bytes as u64)),
        }
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (case, what, round) = (&self.case, self.what(), self.round);
        write!(f, "{case}, {what}, round {round}: {}", self.error)
    }
}

/// How many of the rounds a row is made of, where some have failed: `2 of 3 rounds`.
pub fn rounds_left(failed: &[Failed], rounds: usize, row: &impl Row) -> Option<String> {
    let of_it = |one: &&Failed| {
        let of_size = one.bytes.is_none() || one.bytes == row.bytes();
        one.case == row.case() && one.part == row.part() && of_size
    };
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

    /// Of nginx's stream module: what a row is measured with, and its size.
    struct Of(Part, Option<usize>);

    impl Row for Of {
        fn case(&self) -> &str {
            Case::NginxStream.name()
        }

        fn part(&self) -> Part {
            self.0
        }

        fn bytes(&self) -> Option<usize> {
            self.1
        }
    }

    #[test]
    fn rounds_are_counted_of_the_case_the_part_and_the_size_that_failed() {
        let of = |case, round| Failed::new(case, Part::Packets, round, &anyhow!("no answer"));
        let mut failed = vec![
            of(Case::NginxStream, 1),
            of(Case::NginxStream, 3).of_size(64),
            of(Case::Haproxy, 2),
        ];
        let left = |failed: &[Failed], row| rounds_left(failed, 3, &row);
        let row = |bytes| Of(Part::Packets, Some(bytes));
        assert_eq!(left(&failed, row(64)).as_deref(), Some("1 of 3 rounds"));
        assert_eq!(left(&failed, row(1_400)).as_deref(), Some("2 of 3 rounds"));
        assert_eq!(left(&failed, Of(Part::Requests, None)), None);
        failed.remove(0);
        assert_eq!(left(&failed, row(1_400)), None);
    }

    #[test]
    fn a_size_that_failed_is_named() {
        let failed = Failed::new(Case::Haproxy, Part::Streams, 1, &anyhow!("no answer"));
        let told = failed.clone().of_size(1_400).to_string();
        let wanted = "haproxy, packets of TCP in frames of 1,400 bytes, round 1: no answer";
        assert_eq!(told, wanted);
        // As of a run of some time ago.
        let mut json = serde_json::to_value(&failed).expect("JSON");
        assert_eq!(json.get("bytes"), None);
        json["bytes"] = 1_400.into();
        let read: Failed = serde_json::from_value(json).expect("a failure");
        assert_eq!(read, failed.of_size(1_400));
    }
}
