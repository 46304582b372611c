//! What every picture has: a title, a legend, axes, a line of where theirs is from.

use super::lines::has_signs;
use super::scale::{Scale, short};
use super::shape::{Anchor, Colour, PALETTE, Picture, Place, Shape, width_of};
use crate::figure::{Axis, Figure, Kind, SHORT_RUN, Series};

/// Twice the pixels that a page shows: sharp on screens that have them.
const WIDTH: f64 = 1760.0;
const MARGIN: f64 = 36.0;
const TITLE: f64 = 36.0;
/// Letters of the legend and the axes' names.
pub const LABEL: f64 = 28.0;
/// Letters of values on the axes.
pub const TICK: f64 = 26.0;
const NOTE: f64 = 22.0;

/// How a series is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Pen {
    /// Its colour; a lighter one where it is theirs.
    pub colour: Colour,
    /// Dashed or hatched.
    pub theirs: bool,
    /// Which sign its points have.
    pub sign: usize,
}

/// A picture under way.
pub struct Frame<'a> {
    figure: &'a Figure,
    shapes: Vec<Shape>,
    /// The first pixel below what is there already.
    pub top: f64,
    /// The axes' box.
    pub left: f64,
    pub right: f64,
    pub bottom: f64,
    /// Below the box: values and the name of the horizontal axis.
    pub height: f64,
}

impl<'a> Frame<'a> {
    /// The title and the legend.
    pub fn new(figure: &'a Figure) -> Self {
        let mut frame = Frame {
            figure,
            shapes: Vec::new(),
            top: MARGIN,
            left: MARGIN,
            right: WIDTH - MARGIN,
            bottom: 0.0,
            height: 0.0,
        };
        for line in wrapped(&figure.title, TITLE, true, WIDTH - 2.0 * MARGIN) {
            frame.words(
                (MARGIN, frame.top + TITLE / 2.0),
                &line,
                TITLE,
                true,
                Colour::INK,
                Anchor::Left,
            );
            frame.top += TITLE * 1.3;
        }
        frame.top += 8.0;
        if figure.ours.len() + figure.theirs.len() > 1 {
            frame.legend();
        }
        frame
    }

    /// All series with their pens, theirs first: ours are drawn above.
    pub fn series(&self) -> Vec<(&'a Series, Pen)> {
        let figure = self.figure;
        let ours = figure.ours.iter().enumerate();
        let of_ours = ours.map(|(index, series)| (series, pen(index, false)));
        let theirs = figure.theirs.iter().enumerate().map(|(index, series)| {
            // What is ours by the same name has the same colour.
            let same = figure.ours.iter().position(|of| of.name == series.name);
            let index = same.unwrap_or(match figure.ours.len() {
                1 if figure.theirs.len() == 1 => 0,
                ours => ours + index,
            });
            (series, pen(index, true))
        });
        theirs.chain(of_ours).collect()
    }

    fn legend(&mut self) {
        const KEY: f64 = 56.0;
        let source = source(&self.figure.theirs_from);
        let (mut x, start) = (MARGIN, MARGIN);
        let mut entries = self.series();
        entries.rotate_left(self.figure.theirs.len());
        for (series, pen) in entries {
            let text = match pen.theirs && !source.is_empty() {
                true => format!("{} ({source})", series.name),
                false => series.name.clone(),
            };
            let width = KEY + 14.0 + width_of(&text, LABEL, false);
            if x + width > WIDTH - MARGIN && x > start {
                x = start;
                self.top += LABEL * 1.45;
            }
            let y = self.top + LABEL / 2.0;
            match self.figure.kind {
                Kind::Bars if self.figure.y.logarithmic => self.sign((x + KEY / 2.0, y), pen),
                Kind::Bars => self.block((x + 10.0, y - 14.0, x + 46.0, y + 14.0), pen),
                kind => {
                    self.stroke(&[(x, y), (x + KEY, y)], pen);
                    if has_signs(kind, series) {
                        self.sign((x + KEY / 2.0, y), pen);
                    }
                }
            }
            self.words(
                (x + KEY + 14.0, y),
                &text,
                LABEL,
                false,
                Colour::INK,
                Anchor::Left,
            );
            x += width + 40.0;
        }
        self.top += LABEL * 1.45 + 8.0;
    }

    /// The vertical axis' name, above its end, and then the box of the axes.
    pub fn open_box(&mut self, labels_width: f64, height: f64, name: &str) {
        self.left = MARGIN + labels_width + 16.0;
        if !name.is_empty() {
            let y = self.top + LABEL / 2.0;
            let at = (MARGIN, y);
            self.words(at, name, LABEL, false, Colour::GREY, Anchor::Left);
            self.top += LABEL * 1.4;
        }
        self.top += TICK / 2.0;
        self.bottom = self.top + height;
        self.height = self.bottom;
    }

    /// Values on the vertical axis, with lines across.
    pub fn across(&mut self, scale: &Scale, ticks: &[f64]) {
        for &tick in ticks {
            let Some(y) = scale.at(tick) else { continue };
            self.line(&[(self.left, y), (self.right, y)], Colour::GRID, 2);
            let at = (self.left - 14.0, y);
            self.words(at, &short(tick), TICK, false, Colour::INK, Anchor::Right);
        }
    }

    /// Values below the horizontal axis, with lines upwards where asked for.
    pub fn along(&mut self, scale: &Scale, ticks: &[f64], lines: bool) {
        let y = self.bottom + 14.0 + TICK / 2.0;
        let mut taken = f64::NEG_INFINITY;
        for &tick in ticks {
            let Some(x) = scale.at(tick) else { continue };
            if lines {
                self.line(&[(x, self.top), (x, self.bottom)], Colour::GRID, 2);
            }
            let text = short(tick);
            let half = width_of(&text, TICK, false) / 2.0;
            // Where two would touch the first one stands.
            if x - half < taken + 10.0 {
                continue;
            }
            taken = x + half;
            self.words((x, y), &text, TICK, false, Colour::INK, Anchor::Middle);
            self.line(&[(x, self.bottom), (x, self.bottom + 8.0)], Colour::AXIS, 2);
        }
        self.height = y + TICK;
    }

    /// The name of the horizontal axis, below what is there.
    pub fn name_along(&mut self, name: &str) {
        if name.is_empty() {
            return;
        }
        let at = (
            f64::midpoint(self.left, self.right),
            self.height + LABEL / 2.0,
        );
        self.words(at, name, LABEL, false, Colour::GREY, Anchor::Middle);
        self.height += LABEL * 1.3;
    }

    /// The two axes.
    pub fn axes(&mut self) {
        let corners = [
            (self.left, self.top),
            (self.left, self.bottom),
            (self.right, self.bottom),
        ];
        self.line(&corners, Colour::AXIS, 2);
    }

    /// What stands at the foot, and the picture.
    pub fn finish(mut self) -> Picture {
        let figure = self.figure;
        let mut notes = Vec::new();
        if !figure.theirs.is_empty() && !figure.theirs_from.is_empty() {
            let how = match figure.kind {
                Kind::Bars if figure.y.logarithmic => "Open signs",
                Kind::Bars => "Light and hatched",
                _ => "Light and dashed",
            };
            notes.push(format!(
                "{how}: {}.",
                figure.theirs_from.trim_end_matches('.')
            ));
        }
        if has_spread(figure) {
            let over = figure.spread_over();
            notes.push(format!("Whiskers: the least and the most of {over}."));
        }
        if figure.kind == Kind::Bars && figure.y.logarithmic {
            notes.push("The axis is logarithmic.".to_owned());
        }
        if figure.quick {
            notes.push(SHORT_RUN.to_owned());
        }
        let lines = notes.join(" ");
        self.height += 14.0;
        for line in wrapped(&lines, NOTE, false, WIDTH - 2.0 * MARGIN) {
            let at = (MARGIN, self.height + NOTE / 2.0);
            self.words(at, &line, NOTE, false, Colour::GREY, Anchor::Left);
            self.height += NOTE * 1.4;
        }
        Picture {
            shapes: self.shapes,
            width: WIDTH,
            height: self.height + MARGIN / 2.0,
        }
    }

    /// Words, in the middle of their height.
    pub fn words(
        &mut self,
        at: Place,
        text: &str,
        size: f64,
        bold: bool,
        colour: Colour,
        anchor: Anchor,
    ) {
        self.shapes.push(Shape::Words {
            at,
            text: text.to_owned(),
            size,
            bold,
            colour,
            anchor,
        });
    }

    /// A plain line.
    pub fn line(&mut self, points: &[Place], colour: Colour, width: u32) {
        let points = points.to_vec();
        self.shapes.push(Shape::Line {
            points,
            colour,
            width,
        });
    }

    /// A line of a series.
    pub fn stroke(&mut self, points: &[Place], pen: Pen) {
        if !pen.theirs {
            return self.line(points, pen.colour, 5);
        }
        for dash in dashes(points, 18.0, 12.0) {
            self.line(&dash, pen.colour, 4);
        }
    }

    /// The sign of a point: filled where it is ours, open where it is theirs.
    pub fn sign(&mut self, (x, y): Place, pen: Pen) {
        let corners = sign(pen.sign);
        let around = |size: f64| -> Vec<Place> {
            let place = |(dx, dy): &Place| (x + dx * size, y + dy * size);
            corners.iter().map(place).collect()
        };
        // Theirs is larger: where both are the same it is a ring around ours.
        let size = if pen.theirs { 15.0 } else { 10.0 };
        let (points, colour) = (around(size), pen.colour);
        self.shapes.push(Shape::Area { points, colour });
        if pen.theirs {
            let (points, colour) = (around(size - 4.0), Colour::WHITE);
            self.shapes.push(Shape::Area { points, colour });
        }
    }

    /// A bar: solid where it is ours, light and hatched where it is theirs.
    pub fn block(&mut self, (left, top, right, bottom): (f64, f64, f64, f64), pen: Pen) {
        let fill = if pen.theirs {
            pen.colour.lighter()
        } else {
            pen.colour
        };
        let points = vec![(left, top), (right, top), (right, bottom), (left, bottom)];
        self.shapes.push(Shape::Area {
            points,
            colour: fill,
        });
        if pen.theirs {
            for stripe in stripes(left, top, right, bottom) {
                self.line(&stripe, pen.colour, 2);
            }
        }
    }

    /// From the least to the most, with caps.
    pub fn whisker(&mut self, from: Place, to: Place) {
        let colour = Colour::INK;
        self.line(&[from, to], colour, 2);
        let (cap_x, cap_y) = if from.0 == to.0 {
            (8.0, 0.0)
        } else {
            (0.0, 8.0)
        };
        for (x, y) in [from, to] {
            self.line(&[(x - cap_x, y - cap_y), (x + cap_x, y + cap_y)], colour, 2);
        }
    }
}

fn pen(index: usize, theirs: bool) -> Pen {
    let colour = PALETTE[index % PALETTE.len()];
    let colour = if theirs { colour.lighter() } else { colour };
    Pen {
        colour,
        theirs,
        sign: index,
    }
}

/// Whether any point has whiskers.
pub fn has_spread(figure: &Figure) -> bool {
    let drawn = !matches!(figure.kind, Kind::Distribution);
    let mut all = figure.ours.iter().chain(&figure.theirs);
    drawn && all.any(|series| series.points.iter().any(|p| p.low < p.high))
}

/// An axis' name with its unit.
pub fn name_of(axis: &Axis) -> String {
    match (axis.label.as_str(), axis.unit.as_str()) {
        (label, "") => label.to_owned(),
        ("", unit) => unit.to_owned(),
        (label, unit) if label == unit => label.to_owned(),
        (label, unit) => format!("{label} ({unit})"),
    }
}

/// The first words of where theirs is from: `seed 003`.
pub fn source(from: &str) -> &str {
    let end = from.find(['(', ',', ':', ';']).unwrap_or(from.len());
    from[..end].trim()
}

/// Words in lines no wider than this.
pub fn wrapped(text: &str, size: f64, bold: bool, width: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width_of(&format!("{line} {word}"), size, bold) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A line in dashes.
fn dashes(points: &[Place], dash: f64, gap: f64) -> Vec<Vec<Place>> {
    let mut all = Vec::new();
    let mut current = points.first().map_or_else(Vec::new, |first| vec![*first]);
    let (mut drawing, mut left) = (true, dash);
    for pair in points.windows(2) {
        let (mut from, to) = (pair[0], pair[1]);
        loop {
            let length = (to.0 - from.0).hypot(to.1 - from.1);
            if length < left {
                left -= length;
                if drawing {
                    current.push(to);
                }
                break;
            }
            let share = left / length;
            from = (
                from.0 + (to.0 - from.0) * share,
                from.1 + (to.1 - from.1) * share,
            );
            if drawing {
                current.push(from);
                all.push(std::mem::take(&mut current));
            } else {
                current = vec![from];
            }
            drawing = !drawing;
            left = if drawing { dash } else { gap };
        }
    }
    if drawing && current.len() > 1 {
        all.push(current);
    }
    all
}

/// Lines from lower left to upper right within a box.
fn stripes(left: f64, top: f64, right: f64, bottom: f64) -> Vec<[Place; 2]> {
    const APART: f64 = 14.0;
    let (width, height) = (right - left, bottom - top);
    let count = ((width + height) / APART) as usize;
    let stripe = |n: usize| {
        let at = n as f64 * APART;
        let from = (left + (at - height).max(0.0), top + at.min(height));
        let to = (left + at.min(width), top + (at - width).max(0.0));
        [from, to]
    };
    (1..=count.min(1_000)).map(stripe).collect()
}

/// The corners of a sign, around its middle.
fn sign(which: usize) -> Vec<Place> {
    match which % 4 {
        0 => (0..12)
            .map(|n| (f64::from(n) * std::f64::consts::PI / 6.0).sin_cos())
            .collect(),
        1 => vec![(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        2 => vec![(0.0, -1.2), (1.1, 0.8), (-1.1, 0.8)],
        _ => vec![(0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)],
    }
}
