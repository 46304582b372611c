//! PNG files of few colours: a palette takes a third of what three bytes a pixel would.

use super::shape::{Anchor, Colour, Picture, Shape, letters};
use ab_glyph::{Font, FontRef, Glyph, PxScale, ScaleFont, point};
use anyhow::{Context, Result};
use plotters::prelude::BitMapBackend;
use std::collections::BTreeMap;

/// The key of the word that is left in a file.
const SOURCE: &str = "Source";
/// Half the height of small letters, of the words' size: how far below their middle they stand.
const HALF_EX: f64 = 0.27;
/// A palette's entries.
const COLOURS: usize = 256;

/// Draws a picture.
pub fn png(picture: &Picture, source: &str) -> Result<Vec<u8>> {
    let (width, height) = picture.size();
    let mut pixels = vec![255; 3 * width as usize * height as usize];
    picture.draw(
        BitMapBackend::with_buffer(&mut pixels, (width, height)),
        false,
    )?;
    let letters = letters()?;
    for shape in &picture.shapes {
        if let Shape::Words { bold, .. } = shape {
            let font = if *bold { &letters.bold } else { &letters.plain };
            words(&mut pixels, width as usize, font, shape);
        }
    }
    let (palette, indices) = with_palette(&pixels);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(palette);
    encoder.set_compression(png::Compression::High);
    // Indices of colours next to each other say nothing of each other.
    encoder.set_filter(png::Filter::NoFilter);
    encoder.add_text_chunk(SOURCE.to_owned(), source.to_owned())?;
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&indices)?;
    writer.finish().context("cannot write a PNG")?;
    Ok(bytes)
}

/// Draws words. Not by plotters, whose bitmaps leave out how far a letter stands from its place.
fn words(pixels: &mut [u8], width: usize, font: &FontRef<'static>, shape: &Shape) {
    let Shape::Words {
        at,
        text,
        size,
        colour,
        anchor,
        ..
    } = shape
    else {
        return;
    };
    let em = font.units_per_em().unwrap_or(1_000.0);
    let scale = PxScale::from(*size as f32 * font.height_unscaled() / em);
    let (glyphs, length) = set(font, scale, text);
    let left = match anchor {
        Anchor::Left => at.0 as f32,
        Anchor::Middle => at.0 as f32 - length / 2.0,
        Anchor::Right => at.0 as f32 - length,
    };
    let baseline = (at.1 + HALF_EX * size).round() as f32;
    for mut glyph in glyphs {
        glyph.position = point(left + glyph.position.x, baseline);
        let Some(outline) = font.outline_glyph(glyph) else {
            continue;
        };
        let corner = outline.px_bounds().min;
        outline.draw(|x, y, share| {
            let (x, y) = (
                corner.x as i64 + i64::from(x),
                corner.y as i64 + i64::from(y),
            );
            if x >= 0 && y >= 0 && (x as usize) < width {
                let at = 3 * (y as usize * width + x as usize);
                if let Some(pixel) = pixels.get_mut(at..at + 3) {
                    blend(pixel, *colour, share.clamp(0.0, 1.0));
                }
            }
        });
    }
}

/// Letters side by side from zero on, and how long that is.
fn set(font: &FontRef<'static>, scale: PxScale, text: &str) -> (Vec<Glyph>, f32) {
    let scaled = font.as_scaled(scale);
    let mut glyphs: Vec<Glyph> = Vec::new();
    let mut x = 0.0;
    for letter in text.chars() {
        let id = font.glyph_id(letter);
        if let Some(last) = glyphs.last() {
            x += scaled.kern(last.id, id);
        }
        glyphs.push(id.with_scale_and_position(scale, point(x, 0.0)));
        x += scaled.h_advance(id);
    }
    (glyphs, x)
}

fn blend(pixel: &mut [u8], Colour(red, green, blue): Colour, share: f32) {
    for (part, wanted) in pixel.iter_mut().zip([red, green, blue]) {
        let (is, wanted) = (f32::from(*part), f32::from(wanted));
        *part = (is + (wanted - is) * share).round() as u8;
    }
}

/// The word that is left in a file.
#[cfg(test)]
pub fn source(bytes: &[u8]) -> Option<String> {
    let reader = png::Decoder::new(std::io::Cursor::new(bytes))
        .read_info()
        .ok()?;
    let texts = &reader.info().uncompressed_latin1_text;
    let text = texts.iter().find(|text| text.keyword == SOURCE)?;
    Some(text.text.clone())
}

/// The colours in use, the most frequent first, and each pixel's. Edges of letters have hundreds, so
/// they are rounded to as many steps as it takes for them to fit.
fn with_palette(pixels: &[u8]) -> (Vec<u8>, Vec<u8>) {
    // Each colour has a number; most pixels have that of the one before.
    let mut numbers: BTreeMap<[u8; 3], usize> = BTreeMap::new();
    let mut counts: Vec<usize> = Vec::new();
    let mut last = ([0; 3], None);
    let numbered = pixels.chunks_exact(3).map(|pixel| {
        let colour = [pixel[0], pixel[1], pixel[2]];
        if last.0 != colour || last.1.is_none() {
            let next = numbers.len();
            last = (colour, Some(*numbers.entry(colour).or_insert(next)));
            counts.resize(numbers.len(), 0);
        }
        let number = last.1.unwrap_or_default();
        counts[number] += 1;
        number
    });
    let numbered: Vec<usize> = numbered.collect();
    for bits in 0..8 {
        let mut rough: BTreeMap<[u8; 3], usize> = BTreeMap::new();
        for (colour, number) in &numbers {
            *rough.entry(colour.map(|p| rounded(p, bits))).or_default() += counts[*number];
        }
        if rough.len() > COLOURS {
            continue;
        }
        let mut palette: Vec<_> = rough.into_iter().collect();
        palette.sort_by_key(|(colour, count)| (std::cmp::Reverse(*count), *colour));
        let places = palette.iter().zip(0..=u8::MAX);
        let places: BTreeMap<[u8; 3], u8> = places.map(|((c, _), n)| (*c, n)).collect();
        let mut index_of = vec![0; numbers.len()];
        for (colour, number) in &numbers {
            index_of[*number] = places[&colour.map(|p| rounded(p, bits))];
        }
        let indices = numbered.iter().map(|number| index_of[*number]).collect();
        let palette = palette.iter().flat_map(|(colour, _)| *colour).collect();
        return (palette, indices);
    }
    // One bit for each part is eight colours: it never comes to this.
    (vec![255; 3], vec![0; numbered.len()])
}

/// To the nearest of the values that this many bits less can say, black and white kept.
fn rounded(part: u8, bits: u32) -> u8 {
    let steps = f64::from(0xff_u8 >> bits);
    ((f64::from(part) / 255.0 * steps).round() * 255.0 / steps) as u8
}
