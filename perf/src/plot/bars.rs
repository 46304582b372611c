//! Bars: upright where their names fit below them, lying where they do not.
//!
//! On a logarithmic axis each value is a sign at its place: there is no zero, so a bar would begin anywhere, and
//! one twice as long as another would say nothing.

use super::frame::{Frame, Pen, TICK, name_of, wrapped};
use super::scale::{Scale, short};
use super::shape::{Anchor, Colour, width_of};
use crate::figure::{Figure, Point, Series};
use anyhow::{Result, ensure};

const HEIGHT: f64 = 560.0;
/// The height of a bar that lies.
const BAR: f64 = 34.0;
/// Of peers, beside Lockstep's in the first colour.
const OTHERS: Colour = Colour(150, 150, 150);
/// More groups than this stand upright with their axis' values only: a histogram.
const MANY: usize = 24;

/// A group of bars: one value of x.
struct Group {
    x: f64,
    name: String,
}

/// Draws all bars of a figure.
pub fn draw(figure: &Figure, frame: &mut Frame) -> Result<()> {
    let groups = groups(figure);
    ensure!(!groups.is_empty(), "it has no bars");
    let all = figure.ours.iter().chain(&figure.theirs);
    let values = all.flat_map(|s| s.points.iter().flat_map(|p| [p.y, p.low, p.high]));
    let mut scale = Scale::over(values, figure.y.logarithmic, true).rounded();
    if scale.logarithmic {
        // The least value is to be told from the axis.
        scale.low = 10_f64.powf((scale.low.log10() - 0.3).floor());
    }
    let slot = (frame.right - frame.left - 100.0) / groups.len() as f64;
    let fits = |group: &Group| {
        let longest = group.name.split_whitespace();
        let longest = longest.map(|word| width_of(word, TICK, false));
        longest.fold(0.0, f64::max) < slot - 12.0
            && wrapped(&group.name, TICK, false, slot - 12.0).len() <= 2
    };
    if groups.len() <= MANY && !groups.iter().all(fits) {
        lying(figure, frame, &groups, scale);
    } else {
        upright(figure, frame, &groups, scale);
    }
    Ok(())
}

/// The values of x, in order, with their names.
fn groups(figure: &Figure) -> Vec<Group> {
    let all = figure.ours.iter().chain(&figure.theirs);
    let points = all.flat_map(|series| &series.points);
    let mut values: Vec<f64> = points.filter(|p| p.x.is_finite()).map(|p| p.x).collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    let name = |x: f64| {
        let label = (x >= 0.0 && x.fract() == 0.0).then(|| figure.labels.get(x as usize));
        label.flatten().cloned().unwrap_or_else(|| short(x))
    };
    values
        .into_iter()
        .map(|x| Group { x, name: name(x) })
        .collect()
}

/// In the order of the legend: ours, then theirs.
fn series<'a>(frame: &Frame<'a>, figure: &Figure) -> Vec<(&'a Series, Pen)> {
    let mut all = frame.series();
    all.rotate_left(figure.theirs.len());
    all
}

fn of_group(series: &Series, group: &Group) -> Option<Point> {
    let mut points = series.points.iter();
    points.find(|p| p.x == group.x && p.y.is_finite()).copied()
}

/// The bars of a group that has a value: none leaves no gap.
fn of_series(all: &[(&Series, Pen)], group: &Group) -> Vec<(Point, Pen)> {
    let points = all
        .iter()
        .filter_map(|(series, pen)| Some((of_group(series, group)?, *pen)));
    points.collect()
}

/// Whether a group is of Lockstep, among its peers.
fn is_ours(group: &Group) -> bool {
    group.name.starts_with("lockstep")
}

fn lying(figure: &Figure, frame: &mut Frame, groups: &[Group], scale: Scale) {
    let all = series(frame, figure);
    let told_apart = groups.iter().any(is_ours) && !groups.iter().all(is_ours);
    let names = groups
        .iter()
        .map(|g| width_of(&g.name, TICK, told_apart && is_ours(g)));
    let names = names.fold(0.0, f64::max);
    let bars: usize = groups.iter().map(|g| of_series(&all, g).len()).sum();
    let between = 18.0;
    let height = bars as f64 * BAR + groups.len() as f64 * between + between;
    frame.open_box(names, height, "");
    // Room for the longest bar's value.
    let x = scale.between(frame.left, frame.right - 120.0);
    let ticks = x.ticks(7);
    frame.along(&x, &ticks, true);
    let mut top = frame.top + between;
    for group in groups {
        let bars = of_series(&all, group);
        let middle = top + bars.len() as f64 * BAR / 2.0;
        let at = (frame.left - 16.0, middle);
        let bold = told_apart && is_ours(group);
        frame.words(at, &group.name, TICK, bold, Colour::INK, Anchor::Right);
        for (point, mut pen) in bars {
            if told_apart && all.len() == 1 && !is_ours(group) {
                pen.colour = OTHERS;
            }
            let end = x.at(point.y).unwrap_or(frame.left);
            let middle = top + BAR / 2.0;
            match scale.logarithmic {
                // From the name to the sign, for the eye.
                true => frame.line(&[(frame.left, middle), (end, middle)], Colour::GRID, 2),
                false => frame.block((frame.left, top + 2.0, end, top + BAR - 2.0), pen),
            }
            let mut most = end;
            if point.low < point.high
                && let (Some(low), Some(high)) = (x.at(point.low), x.at(point.high))
            {
                frame.whisker((low, middle), (high, middle));
                most = most.max(high);
            }
            if scale.logarithmic {
                frame.sign((end, middle), pen);
            }
            let at = (most + 16.0, middle);
            frame.words(at, &short(point.y), TICK, false, Colour::INK, Anchor::Left);
            top += BAR;
        }
        top += between;
    }
    frame.axes();
    frame.name_along(&name_of(&figure.y));
}

fn upright(figure: &Figure, frame: &mut Frame, groups: &[Group], scale: Scale) {
    let all = series(frame, figure);
    let ticks = scale.ticks(6);
    let widest = ticks
        .iter()
        .map(|tick| width_of(&short(*tick), TICK, false));
    let widest = widest.fold(0.0, f64::max);
    frame.open_box(widest, HEIGHT, &name_of(&figure.y));
    let y = scale.between(frame.bottom, frame.top);
    frame.across(&y, &ticks);
    let slot = (frame.right - frame.left) / groups.len() as f64;
    let most = groups.iter().map(|g| of_series(&all, g).len()).max();
    let bar = (slot * 0.8 / most.unwrap_or(1).max(1) as f64).min(140.0);
    let mut lines = 1;
    let mut named = f64::NEG_INFINITY;
    for (index, group) in groups.iter().enumerate() {
        let bars = of_series(&all, group);
        let middle = frame.left + (index as f64 + 0.5) * slot;
        let mut left = middle - bar * bars.len() as f64 / 2.0;
        for (point, pen) in bars {
            let top = y.at(point.y).unwrap_or(frame.bottom);
            let gap = (bar * 0.06).min(4.0);
            if !scale.logarithmic {
                frame.block((left + gap, top, left + bar - gap, frame.bottom), pen);
            }
            if point.low < point.high
                && let (Some(low), Some(high)) = (y.at(point.low), y.at(point.high))
            {
                let x = left + bar / 2.0;
                frame.whisker((x, low), (x, high));
            }
            if scale.logarithmic {
                frame.sign((left + bar / 2.0, top), pen);
            }
            left += bar;
        }
        let text = wrapped(&group.name, TICK, false, slot - 12.0);
        let width = text.iter().map(|line| width_of(line, TICK, false));
        let width = width.fold(0.0, f64::max);
        if middle - width / 2.0 < named + 8.0 {
            continue;
        }
        named = middle + width / 2.0;
        lines = lines.max(text.len());
        for (line, text) in text.iter().enumerate() {
            let below = frame.bottom + 14.0 + TICK / 2.0 + line as f64 * TICK * 1.2;
            frame.words(
                (middle, below),
                text,
                TICK,
                false,
                Colour::INK,
                Anchor::Middle,
            );
        }
    }
    frame.height = frame.bottom + 14.0 + TICK / 2.0 + TICK * 1.2 * lines as f64;
    frame.axes();
    frame.name_along(&name_of(&figure.x));
}
