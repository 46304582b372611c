//! From trials to figures, and what programs say.

#![allow(clippy::unwrap_used)]

use super::balanced::polling;
use super::farm::of_status;
use super::paced::whole;
use super::sweep::{Curve, Trial, cpu_figure, throughput_figure};

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
fn nginx_tells_its_requests_below_their_name() {
    let text = "HTTP/1.1 200 OK\r\n\r\nActive connections: 3 \n\
                server accepts handled requests\n 7 7 4211 \nReading: 0 Writing: 1 Waiting: 2 \n";
    assert_eq!(of_status(text), Some(4211));
    assert_eq!(of_status("HTTP/1.1 404 Not Found\r\n\r\n"), None);
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
