//! Whether a run may take the place of the results that are there: those of everything, as it is usually
//! measured.

use super::case::Case;
use super::failed::Failed;
use super::{Arguments, Asked, BYTES, CONNECTIONS, FLOWS, ROUNDS};
use clap::ValueEnum;

/// What keeps a run with these arguments from being a whole one.
pub fn lacks(arguments: &Arguments) -> Option<&'static str> {
    let parts = &arguments.parts;
    let has_part = |part: &Asked| parts.is_empty() || parts.contains(part);
    let cases = &arguments.only;
    let has_case = |case: &Case| cases.is_empty() || cases.contains(case);
    let usual = BYTES.iter().all(|bytes| arguments.bytes.contains(bytes))
        && arguments.flows == FLOWS
        && arguments.connections == CONNECTIONS
        && arguments.milliseconds.is_none();
    if !Asked::value_variants().iter().all(has_part) {
        Some("not all parts")
    } else if !Case::USUAL.iter().all(has_case) {
        Some("not all cases")
    } else if arguments.rounds < ROUNDS {
        Some("fewer rounds than usual")
    } else if !usual {
        Some("other loads than the usual ones")
    } else {
        None
    }
}

/// The same of what has become of it: a part of a case, or a size of one, that failed in each round.
pub fn lost(failed: &[Failed], rounds: usize) -> Option<String> {
    let of = |one: &Failed| {
        let whole = |other: &Failed| other.bytes.is_none() || other.bytes == one.bytes;
        let same =
            |other: &&Failed| other.case == one.case && other.part == one.part && whole(other);
        failed.iter().filter(same).count()
    };
    let lost = failed.iter().find(|one| of(one) >= rounds)?;
    Some(format!("no {} of {}", lost.what(), lost.case))
}

#[cfg(test)]
mod tests {
    use super::super::part::Part;
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn lacks(words: &str) -> Option<&'static str> {
        let words = ["compare"].into_iter().chain(words.split_whitespace());
        super::lacks(&Command::parse_from(words).arguments)
    }

    #[test]
    fn only_a_run_of_everything_takes_the_place_of_the_results() {
        assert_eq!(lacks(""), None);
        assert_eq!(lacks("--rounds 5 --verbose"), None);
        assert_eq!(
            lacks("--parts packets,streams,requests,latency --bytes 64,128,1400,3396"),
            None
        );
        assert_eq!(lacks("--parts latency"), Some("not all parts"));
        assert_eq!(lacks("--only haproxy"), Some("not all cases"));
        assert_eq!(lacks("--rounds 1"), Some("fewer rounds than usual"));
        for loads in ["--bytes 64", "--flows 1", "--connections 1"] {
            assert_eq!(lacks(loads), Some("other loads than the usual ones"));
        }
    }

    #[test]
    fn a_part_that_failed_in_each_round_is_no_result() {
        let error = anyhow::anyhow!("no nginx");
        let failed = |round| Failed::new(Case::Haproxy, Part::Requests, round, &error);
        assert_eq!(lost(&[failed(1), failed(3)], 3), None);
        let all = [failed(1), failed(2), failed(3)];
        assert_eq!(lost(&all, 3), Some("no requests of haproxy".into()));
        let of_size =
            |round, bytes| Failed::new(Case::Haproxy, Part::Streams, round, &error).of_size(bytes);
        let each_another = [of_size(1, 64), of_size(2, 1_400), of_size(3, 3_396)];
        assert_eq!(lost(&each_another, 3), None);
        let one_size = [1, 2, 3].map(|round| of_size(round, 1_400));
        let told = "no packets of TCP in frames of 1,400 bytes of haproxy";
        assert_eq!(lost(&one_size, 3).as_deref(), Some(told));
    }
}
