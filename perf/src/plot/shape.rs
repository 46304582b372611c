//! What a picture is made of, and how it gets to paper.

use ab_glyph::FontRef;
use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::{
    DrawingArea, DrawingBackend, FontDesc, FontFamily, FontStyle, IntoDrawingArea, PathElement,
    Polygon, RGBColor, Text, TextStyle,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, register_font};
use std::sync::OnceLock;

/// The family, as an SVG's reader looks for it: letters are measured by the first one.
const FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";
const FONTS: &str = "/usr/share/fonts/truetype/dejavu";
/// Plotters takes a font's size for its line's height.
const LINE_HEIGHT: f64 = 1.24;

/// A place: pixels from the left, and from the top.
pub type Place = (f64, f64);

/// A colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour(pub u8, pub u8, pub u8);

impl Colour {
    /// Behind everything, also on dark pages.
    pub const WHITE: Colour = Colour(255, 255, 255);
    /// Words.
    pub const INK: Colour = Colour(34, 34, 34);
    /// Words that matter less.
    pub const GREY: Colour = Colour(105, 105, 105);
    /// Axes.
    pub const AXIS: Colour = Colour(120, 120, 120);
    /// Lines that help to read a value.
    pub const GRID: Colour = Colour(224, 224, 224);

    /// Halfway to white.
    pub fn lighter(self) -> Self {
        let half = |part: u8| ((u16::from(part) + 255) / 2) as u8;
        Colour(half(self.0), half(self.1), half(self.2))
    }

    fn of_plotters(self) -> RGBColor {
        RGBColor(self.0, self.1, self.2)
    }
}

/// Colours that also those can tell apart who see red and green alike (Okabe and Ito, "Color Universal
/// Design", 2008), without the yellow, which is lost on white.
pub const PALETTE: [Colour; 8] = [
    Colour(0, 114, 178),
    Colour(213, 94, 0),
    Colour(0, 158, 115),
    Colour(204, 121, 167),
    Colour(230, 159, 0),
    Colour(86, 180, 233),
    Colour(70, 70, 70),
    Colour(136, 84, 24),
];

/// Where words stand in relation to their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// They begin there.
    Left,
    /// Their middle is there.
    Middle,
    /// They end there.
    Right,
}

/// A part of a picture.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// A line through points.
    Line {
        points: Vec<Place>,
        colour: Colour,
        width: u32,
    },
    /// An area within points.
    Area { points: Vec<Place>, colour: Colour },
    /// Words, in the middle of their height.
    Words {
        at: Place,
        text: String,
        size: f64,
        bold: bool,
        colour: Colour,
        anchor: Anchor,
    },
}

/// Shapes, the later ones above the earlier.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    pub shapes: Vec<Shape>,
    pub width: f64,
    pub height: f64,
}

impl Picture {
    /// Its width and height in pixels.
    pub fn size(&self) -> (u32, u32) {
        (self.width.ceil() as u32, self.height.ceil() as u32)
    }

    /// Draws all of it, with or without the words.
    pub fn draw<B: DrawingBackend>(&self, backend: B, words: bool) -> Result<()> {
        let area = backend.into_drawing_area();
        let failed = |error| anyhow!("cannot draw: {error}");
        area.fill(&Colour::WHITE.of_plotters())
            .map_err(|e| failed(e.to_string()))?;
        for shape in &self.shapes {
            if words || !matches!(shape, Shape::Words { .. }) {
                draw(&area, shape).map_err(failed)?;
            }
        }
        area.present().map_err(|e| failed(e.to_string()))
    }
}

fn draw<B: DrawingBackend>(area: &DrawingArea<B, Shift>, shape: &Shape) -> Result<(), String> {
    let pixels = |points: &[Place]| -> Vec<(i32, i32)> { points.iter().map(pixel).collect() };
    let drawn = match shape {
        Shape::Line {
            points,
            colour,
            width,
        } => {
            let style = colour.of_plotters().stroke_width(*width);
            area.draw(&PathElement::new(pixels(points), style))
        }
        Shape::Area { points, colour } => {
            let style = colour.of_plotters().filled();
            area.draw(&Polygon::new(pixels(points), style))
        }
        Shape::Words {
            at,
            text,
            size,
            bold,
            colour,
            anchor,
        } => {
            let across = match anchor {
                Anchor::Left => HPos::Left,
                Anchor::Middle => HPos::Center,
                Anchor::Right => HPos::Right,
            };
            let colour = colour.of_plotters();
            let style = TextStyle::from(font(*size, *bold))
                .color(&colour)
                .pos(Pos::new(across, VPos::Center));
            area.draw(&Text::new(text.as_str(), pixel(at), style))
        }
    };
    drawn.map_err(|error| error.to_string())
}

fn pixel(&(x, y): &Place) -> (i32, i32) {
    (x.round() as i32, y.round() as i32)
}

fn font(size: f64, bold: bool) -> FontDesc<'static> {
    let style = if bold {
        FontStyle::Bold
    } else {
        FontStyle::Normal
    };
    FontDesc::new(FontFamily::Name(FAMILY), size * LINE_HEIGHT, style)
}

/// How wide words are.
pub fn width_of(text: &str, size: f64, bold: bool) -> f64 {
    let layout = font(size, bold).box_size(text);
    layout.map_or(0.0, |(width, _)| f64::from(width))
}

/// The letters, plain and bold.
pub struct Letters {
    /// Of most words.
    pub plain: FontRef<'static>,
    /// Of titles.
    pub bold: FontRef<'static>,
}

/// Reads the letters: once, for this process.
pub fn letters() -> Result<&'static Letters> {
    static LOADED: OnceLock<Result<Letters, String>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| {
        let plain = load("DejaVuSans.ttf", FontStyle::Normal)?;
        let bold = load("DejaVuSans-Bold.ttf", FontStyle::Bold)?;
        Ok(Letters { plain, bold })
    });
    loaded
        .as_ref()
        .map_err(|error| anyhow!("{error}"))
        .context("plots need letters: install Debian's package fonts-dejavu-core (make deps does)")
}

fn load(file: &str, style: FontStyle) -> Result<FontRef<'static>, String> {
    let path = format!("{FONTS}/{file}");
    let bytes = std::fs::read(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
    // Kept as long as the process: plotters borrows it.
    let bytes: &'static [u8] = bytes.leak();
    register_font(FAMILY, style, bytes).map_err(|_| format!("{path} is no font"))?;
    FontRef::try_from_slice(bytes).map_err(|_| format!("{path} is no font"))
}
