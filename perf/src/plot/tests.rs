use super::*;
use crate::figure::{Axis, Point, Series};
use shape::Shape;

fn series(name: &str, points: &[(f64, f64)]) -> Series {
    let point = |&(x, y): &(f64, f64)| Point {
        low: crate::measure::rounded(y * 0.9, 3),
        high: crate::measure::rounded(y * 1.1, 3),
        ..Point::new(x, y)
    };
    Series {
        name: name.to_owned(),
        points: points.iter().map(point).collect(),
    }
}

/// A figure of each kind.
pub fn sample(kind: Kind) -> Figure {
    let curve: Vec<(f64, f64)> = (0..200)
        .map(|n| (f64::from(n) * 10.0, f64::from(n + 1) / 200.0))
        .collect();
    let (ours, theirs, labels) = match kind {
        Kind::Lines => (
            vec![
                series("tunnel", &[(1.0, 1.2e6), (2.0, 2.3e6), (4.0, 4.1e6)]),
                series("NAT", &[(1.0, 0.9e6), (2.0, 1.7e6), (4.0, 2.9e6)]),
            ],
            vec![series(
                "tunnel",
                &[(1.0, 0.7e6), (2.0, 1.4e6), (4.0, 2.8e6)],
            )],
            vec![],
        ),
        Kind::Bars => (
            vec![series(
                "64 bytes",
                &[(0.0, 1.3e6), (1.0, 0.9e6), (2.0, 1e5)],
            )],
            vec![series("64 bytes", &[(0.0, 0.7e6), (1.0, 0.8e6)])],
            vec![
                "lockstep-tunnel-one-cpu with a long name".to_owned(),
                "nftables-dnat with connection tracking".to_owned(),
                "nginx-stream of Debian, one worker, sockets".to_owned(),
            ],
        ),
        Kind::Distribution | Kind::Time => (
            vec![series("half load", &curve)],
            vec![series("nginx", &curve[..100])],
            vec![],
        ),
    };
    Figure {
        id: "sample".to_owned(),
        title: "Packets a second through one balancer, by the number of its CPUs".to_owned(),
        kind,
        x: Axis::new("CPUs", ""),
        y: Axis::new("throughput", "packets/s"),
        labels,
        ours,
        theirs,
        theirs_from: "seed 003 (Takahashi), table 5.2, p. 61".to_owned(),
        differs: vec!["Another machine.".to_owned()],
        facts: vec![],
        quick: false,
    }
}

const KINDS: [Kind; 4] = [Kind::Lines, Kind::Bars, Kind::Distribution, Kind::Time];

#[test]
fn the_same_figure_gives_the_same_bytes() {
    for kind in KINDS {
        let figure = sample(kind);
        assert_eq!(svg(&figure).unwrap(), svg(&figure).unwrap());
    }
    let figure = sample(Kind::Lines);
    let bytes = png(&figure, "a word").unwrap();
    assert_eq!(bytes, png(&figure, "a word").unwrap());
    assert_eq!(source_of_png(&bytes).unwrap(), "a word");
    assert!(bytes.len() < 60_000, "{} bytes", bytes.len());
}

fn words(figure: &Figure) -> Vec<String> {
    let shapes = picture(figure).unwrap().shapes.into_iter();
    let words = shapes.filter_map(|shape| match shape {
        Shape::Words { text, .. } => Some(text),
        Shape::Line { .. } | Shape::Area { .. } => None,
    });
    words.collect()
}

#[test]
fn a_picture_says_what_it_shows_in_which_unit_and_who_measured_it() {
    for kind in KINDS {
        let words = words(&sample(kind)).join("\n");
        for wanted in ["throughput (packets/s)", "(seed 003)", "table 5.2, p. 61"] {
            assert!(words.contains(wanted), "{kind:?}: no {wanted} in\n{words}");
        }
        assert!(!words.contains("short run"));
    }
    let quick = Figure {
        quick: true,
        ..sample(Kind::Time)
    };
    assert!(words(&quick).join("\n").contains("short run"));
}

#[test]
fn everything_is_within_the_picture() {
    for kind in KINDS {
        let picture = picture(&sample(kind)).unwrap();
        let outside = |(x, y): &(f64, f64)| {
            !(0.0..=picture.width).contains(x) || !(0.0..=picture.height).contains(y)
        };
        for shape in &picture.shapes {
            let (points, width, anchor) = match shape {
                Shape::Line { points, .. } | Shape::Area { points, .. } => {
                    (points.clone(), 0.0, shape::Anchor::Left)
                }
                Shape::Words {
                    at,
                    text,
                    size,
                    bold,
                    anchor,
                    ..
                } => (vec![*at], shape::width_of(text, *size, *bold), *anchor),
            };
            let ends = points.iter().flat_map(|&(x, y)| match anchor {
                shape::Anchor::Left => [(x, y), (x + width, y)],
                shape::Anchor::Middle => [(x - width / 2.0, y), (x + width / 2.0, y)],
                shape::Anchor::Right => [(x - width, y), (x, y)],
            });
            let found: Vec<_> = ends.filter(outside).collect();
            assert!(found.is_empty(), "{kind:?}: {shape:?}");
        }
    }
}

#[test]
fn theirs_is_dashed_and_ours_is_drawn_above_it() {
    let picture = picture(&sample(Kind::Lines)).unwrap();
    let light = shape::PALETTE[0].lighter();
    let lines_in = |wanted| {
        let shapes = picture.shapes.iter().enumerate();
        let lines = shapes.filter_map(move |(index, shape)| match shape {
            Shape::Line { colour, .. } if *colour == wanted => Some(index),
            _ => None,
        });
        lines.collect::<Vec<_>>()
    };
    let (theirs, ours) = (lines_in(light), lines_in(shape::PALETTE[0]));
    assert!(theirs.len() > 10, "not dashed: {theirs:?}");
    // The legend's, and the series'.
    assert_eq!(ours.len(), 2);
    assert!(ours.last() > theirs.last());
}

/// The sizes of the areas that are drawn.
fn areas(figure: &Figure) -> Vec<(f64, f64)> {
    let shapes = picture(figure).unwrap().shapes.into_iter();
    let size = |points: &[shape::Place]| {
        let over = |of: fn(&shape::Place) -> f64| {
            let least = points.iter().map(of).fold(f64::INFINITY, f64::min);
            points.iter().map(of).fold(f64::NEG_INFINITY, f64::max) - least
        };
        (over(|p| p.0), over(|p| p.1))
    };
    let areas = shapes.filter_map(|shape| match shape {
        Shape::Area { points, .. } => Some(size(&points)),
        Shape::Line { .. } | Shape::Words { .. } => None,
    });
    areas.collect()
}

#[test]
fn no_length_is_to_be_compared_on_a_logarithmic_axis() {
    let lying = sample(Kind::Bars);
    let mut upright = sample(Kind::Bars);
    upright.labels = ["a", "b", "c"].map(str::to_owned).to_vec();
    for mut figure in [lying, upright] {
        let small = |(width, height): &(f64, f64)| *width < 40.0 && *height < 40.0;
        assert!(!areas(&figure).iter().all(small));
        assert!(!words(&figure).join("\n").contains("logarithmic"));
        figure.y.logarithmic = true;
        let signs = areas(&figure);
        // Each of ours, each of theirs with its inside, and as much in the legend.
        assert_eq!(signs.len(), 3 + 2 * 2 + 3);
        assert!(signs.iter().all(small), "{signs:?}");
        assert!(words(&figure).join("\n").contains("logarithmic"));
    }
}

#[test]
fn whiskers_are_of_rounds_only_where_something_was_measured() {
    let mut figure = sample(Kind::Bars);
    assert!(words(&figure).join(" ").contains("most of the rounds."));
    figure.id = "compare-latency-50".to_owned();
    assert!(words(&figure).join(" ").contains("most of the trials."));
    figure.id = "model-balance".to_owned();
    let words = words(&figure).join(" ");
    assert!(words.contains("most of the simulated course."), "{words}");
    assert!(!words.contains("rounds"), "{words}");
}

#[test]
fn values_are_written_in_three_digits() {
    let rows = [
        (0.0, "0"),
        (0.05, "0.05"),
        (0.123_456, "0.123"),
        (12.0, "12"),
        (999.4, "999"),
        (999.9, "1k"),
        (1_400.0, "1.4k"),
        (1_350_992.0, "1.35M"),
        (-2_500.0, "-2.5k"),
        (1e9, "1G"),
        (f64::NAN, "-"),
    ];
    for (value, wanted) in rows {
        assert_eq!(short(value), wanted);
    }
}

#[test]
fn axes_have_round_values_and_begin_at_zero_where_it_is_near() {
    let scale = scale::Scale::over([130.0, 970.0].into_iter(), false, false).rounded();
    assert_eq!((scale.low, scale.high), (0.0, 1000.0));
    assert_eq!(scale.ticks(6).len(), 6);
    let far = scale::Scale::over([990.0, 1000.0].into_iter(), false, false).rounded();
    assert_eq!((far.low, far.high), (990.0, 1000.0));
    let decades = scale::Scale::over([0.0, 3.0, 700.0].into_iter(), true, false).rounded();
    assert_eq!((decades.low, decades.high), (2.0, 1000.0));
    assert_eq!(decades.at(0.0), None);
    assert!(decades.ticks(6).contains(&100.0));
}

#[test]
fn a_figure_without_points_is_refused() {
    let mut figure = sample(Kind::Bars);
    figure.ours.clear();
    figure.theirs.clear();
    assert!(svg(&figure).unwrap_err().to_string().contains("sample"));
}
