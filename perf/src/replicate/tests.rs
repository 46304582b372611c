//! What is read from other programs, and what is a whole run.

use super::Arguments;
use super::balancer::sum_of;
use clap::Parser;

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    arguments: Arguments,
}

#[test]
fn only_a_run_of_everything_is_whole() {
    let lacks = |words: &str| {
        let words = ["replicate"].into_iter().chain(words.split_whitespace());
        Command::parse_from(words).arguments.lacks()
    };
    assert_eq!(lacks("--rounds 4 --verbose"), None);
    assert_eq!(lacks("--parts bulk"), Some("not all parts"));
    assert_eq!(lacks("--cases haproxy"), Some("not all cases"));
    assert_eq!(lacks("--replicas 3"), Some("not all numbers of replicas"));
    assert!(lacks("--rounds 1").is_some() && lacks("--sessions 10").is_some());
}

#[test]
fn a_metric_is_summed_over_its_labels_and_over_nothing_else() {
    let page = "# TYPE packets counter\npackets{worker=\"0\"} 3\npackets{worker=\"1\"} 4\n\
                packets_lost{worker=\"0\"} 100\nbytes 7\n";
    assert_eq!(sum_of(page, "packets"), Some(7.0));
    assert_eq!(sum_of(page, "bytes"), Some(7.0));
    assert_eq!(sum_of(page, "pack"), None);
}
