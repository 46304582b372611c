//! Draws figures, as SVG and as PNG.
//!
//! A figure is laid out once, into lines, areas and words ([`shape`]); both files are made of these.
//! The same figure always gives the same bytes, so that a test can say whether what is committed is
//! what the results give.

mod bars;
mod frame;
mod lines;
mod raster;
mod scale;
mod shape;

pub use frame::{has_spread, name_of, source};
pub use scale::short;

use crate::figure::{Figure, Kind};
use anyhow::{Context, Result, ensure};
use frame::Frame;
use plotters::prelude::SVGBackend;
use shape::Picture;

/// A figure as an SVG file.
///
/// # Errors
///
/// When there is no font, or nothing to draw.
pub fn svg(figure: &Figure) -> Result<String> {
    let picture = picture(figure)?;
    let mut text = String::new();
    picture.draw(SVGBackend::with_string(&mut text, picture.size()), true)?;
    // Pages show it at half its size, as they do the PNG: lines stay sharp on any screen.
    let (width, height) = picture.size();
    let size = format!("width=\"{width}\" height=\"{height}\"");
    let half = format!("width=\"{}\" height=\"{}\"", width / 2, height / 2);
    Ok(text.replacen(&size, &half, 1))
}

/// A figure as a PNG file, with a word of where it comes from in it.
///
/// # Errors
///
/// As [`svg`].
pub fn png(figure: &Figure, source: &str) -> Result<Vec<u8>> {
    raster::png(&picture(figure)?, source)
}

/// The word that [`png`] left in a file.
#[cfg(test)]
pub fn source_of_png(bytes: &[u8]) -> Option<String> {
    raster::source(bytes)
}

/// A figure, laid out.
fn picture(figure: &Figure) -> Result<Picture> {
    shape::letters()?;
    let values = figure.ours.iter().chain(&figure.theirs);
    let mut points = values.flat_map(|series| &series.points);
    ensure!(
        points.any(|point| point.x.is_finite() && point.y.is_finite()),
        "figure {} has no points",
        figure.id
    );
    let mut frame = Frame::new(figure);
    match figure.kind {
        Kind::Bars => bars::draw(figure, &mut frame),
        Kind::Lines | Kind::Distribution | Kind::Time => lines::draw(figure, &mut frame),
    }
    .with_context(|| format!("figure {}", figure.id))?;
    Ok(frame.finish())
}

#[cfg(test)]
pub mod tests;
