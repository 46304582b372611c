//! Lines, distributions and values over time.

use super::frame::{Frame, Pen, TICK, name_of};
use super::scale::{Scale, short};
use super::shape::{Place, width_of};
use crate::figure::{Figure, Kind, Point, Series};
use anyhow::Result;

const HEIGHT: f64 = 560.0;
/// More points than these are a line only, without signs and whiskers.
const FEW: usize = 40;

/// Draws all series of a figure.
pub fn draw(figure: &Figure, frame: &mut Frame) -> Result<()> {
    let all = || figure.ours.iter().chain(&figure.theirs);
    let points = || all().flat_map(|series| &series.points);
    let few = all().all(|series| series.points.len() <= FEW);
    let whiskers = few && figure.kind != Kind::Distribution;
    let heights = points().flat_map(|p| match whiskers {
        true => [p.y, p.low, p.high],
        false => [p.y; 3],
    });
    let y = Scale::over(heights, figure.y.logarithmic, false).rounded();
    let y_ticks = y.ticks(6);
    let widest = y_ticks
        .iter()
        .map(|tick| width_of(&short(*tick), TICK, false));
    let widest = widest.fold(0.0, f64::max);
    frame.open_box(widest, HEIGHT, &name_of(&figure.y));
    let y = y.between(frame.bottom, frame.top);

    let x = Scale::over(points().map(|p| p.x), figure.x.logarithmic, false);
    let at_points = ticks_at_points(figure);
    let x = match at_points {
        Some(_) => x.padded(0.04),
        None => x,
    }
    .between(frame.left, frame.right - 20.0);
    frame.across(&y, &y_ticks);
    let x_ticks = at_points.unwrap_or_else(|| x.ticks(9));
    frame.along(&x, &x_ticks, false);
    frame.axes();
    frame.name_along(&name_of(&figure.x));
    for (series, pen) in frame.series() {
        line(frame, series, pen, (&x, &y), (figure.kind, whiskers));
        if few && has_signs(figure.kind, series) {
            for point in &series.points {
                if let Some(place) = place(point, (&x, &y)) {
                    frame.sign(place, pen);
                }
            }
        }
    }
    Ok(())
}

/// Whether a series' points have signs: those of lines, and where a line would hardly be seen.
pub fn has_signs(kind: Kind, series: &Series) -> bool {
    kind == Kind::Lines || series.points.len() <= 3
}

/// Few values along the axis are named themselves: 1, 10, 100 replicas.
fn ticks_at_points(figure: &Figure) -> Option<Vec<f64>> {
    if figure.kind != Kind::Lines {
        return None;
    }
    let all = figure.ours.iter().chain(&figure.theirs);
    let mut values: Vec<f64> = all.flat_map(|s| s.points.iter().map(|p| p.x)).collect();
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    values.dedup();
    (values.len() <= 10).then_some(values)
}

fn place(point: &Point, (x, y): (&Scale, &Scale)) -> Option<Place> {
    let finite = point.x.is_finite() && point.y.is_finite();
    finite.then_some((x.at(point.x)?, y.at(point.y)?))
}

fn line(
    frame: &mut Frame,
    series: &Series,
    pen: Pen,
    (x, y): (&Scale, &Scale),
    (kind, whiskers): (Kind, bool),
) {
    let places = series.points.iter().filter_map(|p| place(p, (x, y)));
    let mut places: Vec<Place> = places.collect();
    // Thousands of samples fall on the same pixels.
    places.dedup_by_key(|(x, y)| (x.round() as i64, y.round() as i64));
    if kind == Kind::Distribution {
        places = steps(&places, y.from);
    }
    frame.stroke(&places, pen);
    if !whiskers {
        return;
    }
    for point in series.points.iter().filter(|p| p.low < p.high) {
        let ends = (x.at(point.x), y.at(point.low), y.at(point.high));
        if let (Some(x), Some(low), Some(high)) = ends {
            frame.whisker((x, low), (x, high));
        }
    }
}

/// A distribution goes up at each of its values, from the axis on; one that is a single point is none.
fn steps(places: &[Place], axis: f64) -> Vec<Place> {
    if places.len() < 2 {
        return places.to_vec();
    }
    let mut height = axis;
    let mut steps = Vec::new();
    for &(x, y) in places {
        steps.extend([(x, height), (x, y)]);
        height = y;
    }
    steps
}
