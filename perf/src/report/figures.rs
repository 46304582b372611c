//! The figures among the results, and their drawings.

use crate::compare;
use crate::figure::Figure;
use crate::origin::{Origin, Saved};
use crate::output;
use crate::plot;
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The chapters' order: by how ids begin.
pub const GROUPS: [&str; 5] = ["compare-", "003-", "000-", "002-", "model-"];

/// The order within and over the chapters: by how ids begin, the first that fits.
const ORDER: [&str; 11] = [
    "compare-packets",
    "compare-requests",
    "compare-latency",
    "compare-",
    "003-",
    "000-",
    "002-",
    "model-hosts-100G",
    "model-hosts-1T",
    "model-hosts",
    "model-",
];

/// A figure as a picture.
pub struct Drawing<'a> {
    pub figure: &'a Figure,
    pub svg: String,
}

impl Drawing<'_> {
    /// What its PNG says it was made from: another SVG, another word.
    pub fn source(&self) -> String {
        // FNV-1a: enough to see that two files are not of the same figure.
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        let hash = self.svg.bytes().fold(0xcbf2_9ce4_8422_2325, step);
        match self.figure.id.as_str() {
            id if id.starts_with(OF_COMPARISON) => {
                format!("perf/results/compare.json, {hash:016x}")
            }
            id => format!("perf/results/figures/{id}.json, {hash:016x}"),
        }
    }
}

/// What the comparison's figures begin with: they are of its rows, and lie in no files of their own.
const OF_COMPARISON: &str = "compare-";

/// All figures of a directory of results, in the order of the chapters.
pub fn load(results: &Path) -> Result<Vec<Figure>> {
    let files = files(&results.join("figures"))?.into_iter();
    let mut figures: Vec<Figure> = files.map(|saved| saved.what).collect();
    if results.join(super::COMPARISON).exists() {
        figures.extend(compare::figures(&super::read(results, super::COMPARISON)?));
    }
    figures.sort_by_cached_key(|figure| order(&figure.id));
    Ok(figures)
}

/// Where the figures come from, by their ids: those of the comparison all from the same run.
pub type Origins = BTreeMap<String, Origin>;

/// Of those that say it.
pub fn origins(results: &Path) -> Result<Origins> {
    let files = files(&results.join("figures"))?.into_iter();
    let mut origins: Origins = files
        .filter_map(|saved| Some((saved.what.id, saved.origin?)))
        .collect();
    if results.join(super::COMPARISON).exists() {
        let comparison: compare::Results = super::read(results, super::COMPARISON)?;
        let origin = comparison.machine.origin();
        let figures = compare::figures(&comparison).into_iter();
        origins.extend(figures.map(|figure| (figure.id, origin.clone())));
    }
    Ok(origins)
}

/// Those that have files.
fn files(directory: &Path) -> Result<Vec<Saved<Figure>>> {
    let mut figures = Vec::new();
    if !directory.exists() {
        return Ok(figures);
    }
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let saved: Saved<Figure> = serde_json::from_str(&text)
            .with_context(|| {
            format!(
                "{} has no figure that could be read: put back the committed file, or measure again",
                path.display()
            )
        })?;
        let figure = &saved.what;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        ensure!(
            figure.id == name && is_plain(&name),
            "{}: the figure's id is {:?}; files are named after it, in letters, digits, dots and hyphens",
            path.display(),
            figure.id
        );
        // Runs of some time ago have left such.
        if !name.starts_with(OF_COMPARISON) {
            figures.push(saved);
        }
    }
    Ok(figures)
}

fn is_plain(id: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-' || c == '_';
    !id.is_empty() && !id.starts_with('.') && id.chars().all(plain)
}

/// The place of a figure's chapter.
pub fn group(id: &str) -> usize {
    let known = GROUPS.iter().position(|group| id.starts_with(group));
    known.unwrap_or(GROUPS.len())
}

fn order(id: &str) -> (usize, Vec<(String, u64)>) {
    let place = ORDER.iter().position(|begin| id.starts_with(begin));
    (place.unwrap_or(ORDER.len()), natural(id))
}

/// Sorts 4.2 before 4.13.
fn natural(id: &str) -> Vec<(String, u64)> {
    let mut parts: Vec<(String, u64)> = vec![(String::new(), 0)];
    let mut in_number = false;
    for c in id.chars() {
        match c.to_digit(10) {
            Some(digit) => {
                if let Some((_, number)) = parts.last_mut() {
                    *number = number.saturating_mul(10).saturating_add(u64::from(digit));
                }
            }
            None => {
                if in_number {
                    parts.push((String::new(), 0));
                }
                if let Some((text, _)) = parts.last_mut() {
                    text.push(c);
                }
            }
        }
        in_number = c.is_ascii_digit();
    }
    parts
}

/// Draws all of them.
pub fn draw(figures: &[Figure]) -> Result<Vec<Drawing<'_>>> {
    let drawn = figures.iter().map(|figure| {
        let svg = plot::svg(figure)?;
        Ok(Drawing { figure, svg })
    });
    drawn.collect()
}

/// Writes them into a directory that holds nothing else; what is of no figure any more goes.
pub fn write(drawings: &[Drawing], directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let wanted = names(drawings);
    for name in present(directory)?.difference(&wanted) {
        fs::remove_file(directory.join(name))?;
    }
    for drawing in drawings {
        let (svg, png) = (file(drawing.figure, "svg"), file(drawing.figure, "png"));
        output::write_bytes(&directory.join(svg), drawing.svg.as_bytes())?;
        let bytes = plot::png(drawing.figure, &drawing.source())?;
        output::write_bytes(&directory.join(png), &bytes)?;
    }
    Ok(())
}

/// The name of a figure's file.
pub fn file(figure: &Figure, extension: &str) -> String {
    format!("{}.{extension}", figure.id)
}

/// The files that there are to be.
pub fn names(drawings: &[Drawing]) -> BTreeSet<String> {
    let both = |drawing: &Drawing| ["svg", "png"].map(|extension| file(drawing.figure, extension));
    drawings.iter().flat_map(both).collect()
}

/// The pictures that there are.
pub fn present(directory: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    if !directory.exists() {
        return Ok(names);
    }
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".svg") || name.ends_with(".png") {
            names.insert(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stand_in_the_order_of_their_numbers() {
        let wanted = [
            "compare-packets-64",
            "compare-packets-1400",
            "compare-requests",
            "compare-latency-10",
            "003-4.2",
            "003-4.13",
            "003-5.2",
            "000-4",
            "model-hosts-100G",
            "model-hosts-1T",
            "model-churn",
            "other",
        ];
        let mut ids = wanted;
        ids.sort_unstable();
        assert_ne!(ids, wanted);
        ids.sort_by_cached_key(|id| order(id));
        assert_eq!(ids, wanted);
    }

    #[test]
    fn the_comparison_s_figures_are_of_its_rows_not_of_files() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
        let directory = tempfile::tempdir().unwrap();
        let results = directory.path();
        let old = Figure {
            id: "compare-packets-64".to_owned(),
            title: "of before".to_owned(),
            ..crate::plot::tests::sample(crate::figure::Kind::Bars)
        };
        old.save(results).unwrap();
        assert_eq!(load(results).unwrap(), []);
        fs::copy(root.join("compare.json"), results.join("compare.json")).unwrap();
        let figures = load(results).unwrap();
        assert!(figures.iter().any(|figure| figure.id == old.id));
        assert!(figures.iter().all(|figure| figure.title != old.title));
    }

    #[test]
    fn a_file_that_is_not_named_after_its_figure_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let figure = crate::plot::tests::sample(crate::figure::Kind::Bars);
        figure.save(directory.path()).unwrap();
        assert_eq!(load(directory.path()).unwrap(), [figure]);
        let origins = origins(directory.path()).unwrap();
        assert!(origins["sample"].date.starts_with("20"), "{origins:?}");
        let folder = directory.path().join("figures");
        fs::rename(folder.join("sample.json"), folder.join("other.json")).unwrap();
        assert!(
            load(directory.path())
                .unwrap_err()
                .to_string()
                .contains("other.json")
        );
    }

    #[test]
    fn pictures_of_figures_that_are_gone_go() {
        let directory = tempfile::tempdir().unwrap();
        let figures = [crate::plot::tests::sample(crate::figure::Kind::Lines)];
        fs::write(directory.path().join("old.svg"), "").unwrap();
        fs::write(directory.path().join("note.txt"), "").unwrap();
        let drawings = draw(&figures).unwrap();
        write(&drawings, directory.path()).unwrap();
        let left = present(directory.path()).unwrap();
        assert_eq!(left, names(&drawings));
        assert!(directory.path().join("note.txt").exists());
        let png = fs::read(directory.path().join("sample.png")).unwrap();
        assert_eq!(crate::plot::source_of_png(&png), Some(drawings[0].source()));
    }
}
