//! From trials to figures, and what programs say.

#![allow(clippy::unwrap_used)]

use super::balanced::polling;
use super::paced::whole;
use super::sweep::{Curve, Trial, agree, cpu_figure, rate, throughput_figure};
use crate::reading::Reading;
use std::time::{Duration, Instant};

fn trial(requests_per_second: f64, balancer_cpu: f64) -> Trial {
    Trial {
        requests_per_second,
        balancer_cpu,
    }
}

fn curve() -> Curve {
    let mut curve = Curve::new("nat", &[1, 4]);
    curve.trials[0].1 = vec![trial(10.0, 0.1), trial(30.0, 0.3), trial(20.0, 0.2)];
    curve.trials[1].1 = vec![trial(80.0, 0.4), trial(100.0, 0.5), trial(90.0, 0.6)];
    curve
}

#[test]
fn a_curve_has_the_median_of_the_rounds_at_each_number_of_servers() {
    let figure = throughput_figure("id", "title", &[curve()], &["differs"]);
    let points: Vec<_> = (figure.ours[0].points.iter())
        .map(|point| (point.x, point.y, point.low, point.high))
        .collect();
    assert_eq!(points, [(1.0, 20.0, 10.0, 30.0), (4.0, 90.0, 80.0, 100.0)]);
    assert_eq!(figure.differs, ["differs"]);
    assert_eq!(curve().most(), 90.0);
}

#[test]
fn cpu_is_in_percent_and_its_cost_is_where_most_is_answered() {
    let figure = cpu_figure("id", "title", &[curve()], &[]);
    let points: Vec<_> = figure.ours[0].points.iter().map(|p| p.y).collect();
    assert_eq!(points, [20.0, 50.0]);
    assert!((curve().cpu_per_million() - 0.5 / 90.0 * 1e6).abs() < 1e-6);
}

#[test]
fn a_rate_is_of_the_times_at_which_requests_were_counted() {
    let begin = Instant::now();
    let look = |ms, value| Reading {
        at: begin + Duration::from_millis(ms),
        value,
    };
    assert_eq!(rate(look(500, 1_000), look(1_000, 3_500)), 5_000.0);
    // Whenever the second count was due.
    assert_eq!(rate(look(500, 1_000), look(1_500, 6_000)), 5_000.0);
    assert_eq!(rate(look(500, 1_000), look(1_000, 1_000)), 0.0);
}

#[test]
fn a_count_that_is_not_of_the_requests_is_no_result() {
    agree(100_800, 100_000).unwrap();
    let error = agree(200_000, 100_000).unwrap_err().to_string();
    assert!(error.contains("200000 requests"), "{error}");
    assert!(agree(0, 100_000).is_err());
}

#[test]
fn an_answer_is_whole_when_its_body_is_there() {
    let text = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n10.0.1.11";
    assert!(whole(text).unwrap().ends_with("close\r\n\r\n"));
    assert_eq!(whole(&text[..text.len() - 1]), None);
    assert_eq!(whole(&text[..20]), None);
    assert_eq!(whole(b"HTTP/1.1 200 OK\r\n\r\n"), None);
}

#[test]
fn a_topology_is_told_once_how_to_wait() {
    let text = "[engine]\nsocket = \"s\"\n\n[[worker]]\ncore = 1\n";
    let once = polling(text, "interrupt");
    assert!(once.starts_with("[engine]\npoll = \"interrupt\"\nsocket"));
    assert_eq!(polling(&once, "adaptive"), polling(text, "adaptive"));
}
