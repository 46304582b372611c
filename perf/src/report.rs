//! The results' pages, written from `perf/results`: the tables of `docs/src/performance.md`, the chapter
//! of figures, the pictures themselves, and what the front page shows of them.
//!
//! No figure on any of them is typed: a test renders all of it again and compares.

mod chapter;
mod compare;
mod figures;
mod readme;
mod replicate;

use crate::{origin, output};
use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;

const BEGIN: &str = "<!-- results: written by `lockstep-perf report` -->";
const END: &str = "<!-- end of results -->";
const PAGE: &str = "docs/src/performance.md";
const RESULTS: &str = "perf/results";
const COMPARISON: &str = "compare.json";
const PICTURES: &str = "docs/src/figures";

/// What `lockstep-perf report` is told.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The checkout.
    #[arg(long, default_value = ".")]
    root: std::path::PathBuf,
    /// Report the short runs instead, as pages in perf/results/quick/report.
    #[arg(long)]
    quick: bool,
}

/// Writes the pages of the checkout.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let root = &arguments.root;
    if arguments.quick {
        return quick(&root.join(RESULTS).join("quick"));
    }
    let figures = figures::load(&root.join(RESULTS))?;
    for (page, text) in pages(root, &figures)? {
        let path = root.join(page);
        output::write_bytes(&path, text.as_bytes())?;
        println!("written to {}", path.display());
    }
    let pictures = root.join(PICTURES);
    figures::write(&figures::draw(&figures)?, &pictures)?;
    println!(
        "{} figures drawn into {}",
        figures.len(),
        pictures.display()
    );
    Ok(())
}

/// The pages of short runs, beside their results: nothing that is committed changes.
fn quick(results: &Path) -> anyhow::Result<()> {
    let figures = figures::load(results)?;
    if figures.is_empty() {
        bail!(
            "there are no short runs in {}: QUICK=1 make experiments and QUICK=1 make compare make some",
            results.display()
        );
    }
    let directory = results.join("report");
    figures::write(&figures::draw(&figures)?, &directory.join("figures"))?;
    let page = directory.join("experiments.md");
    let mut text = chapter::page(&figures, &figures::origins(results)?);
    if results.join(COMPARISON).exists() {
        compare::tables(&mut text, &read(results, COMPARISON)?, Vec::new());
    }
    output::write_bytes(&page, text.as_bytes())?;
    println!("written to {}", page.display());
    Ok(())
}

/// The pages by their paths, as they are to be.
fn pages(
    root: &Path,
    figures: &[crate::figure::Figure],
) -> anyhow::Result<Vec<(&'static str, String)>> {
    let read = |page: &str| {
        let path = root.join(page);
        std::fs::read_to_string(&path).with_context(|| {
            format!(
                "cannot read {}: run it in the checkout, or name that with --root",
                path.display()
            )
        })
    };
    let origins = figures::origins(&root.join(RESULTS))?;
    let marks = (readme::BEGIN, readme::END);
    let performance = between(PAGE, &read(PAGE)?, (BEGIN, END), &tables(root)?)?;
    let front = between(
        readme::PAGE,
        &read(readme::PAGE)?,
        marks,
        &readme::plots(figures),
    )?;
    Ok(vec![
        (PAGE, performance),
        (chapter::PAGE, chapter::page(figures, &origins)),
        (readme::INDEX, readme::index(figures)),
        (readme::PAGE, front),
    ])
}

/// A page with this between its marks.
fn between(
    page: &str,
    text: &str,
    (begin, end): (&str, &str),
    written: &str,
) -> anyhow::Result<String> {
    let (Some((before, _)), Some((_, after))) = (text.split_once(begin), text.split_once(end))
    else {
        bail!("{page} has lost its marks `{begin}` and `{end}`");
    };
    Ok(format!("{before}{begin}\n\n{written}{end}{after}"))
}

fn tables(root: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let (file, core) = rows(root, "core.json")?;
    text.push_str(&format!("The dataplane alone ({file}):\n\n"));
    table(
        &mut text,
        &[
            "path",
            "live flows",
            "ns a packet",
            "goal",
            "instructions a packet",
        ],
        core.iter().map(|row| {
            vec![
                name(row, "path"),
                thousands(&row["flows"]),
                number(&row["ns_per_packet"], 1),
                goal(row, &core).map_or("-".to_owned(), |ns| {
                    let missed = row["ns_per_packet"].as_f64() > Some(ns);
                    format!("≤ {ns:.0}{}", if missed { ", missed" } else { "" })
                }),
                number(&row["instructions_per_packet"], 0),
            ]
        }),
    );
    let (lab, replicated) = rows(root, "replicate.json")?;
    let goals = vec![replicate::download(&replicated)];
    compare::tables(&mut text, &read(&root.join(RESULTS), COMPARISON)?, goals);
    let (file, session) = rows(root, "session.json")?;
    replicate::alone(&mut text, &file, &session);
    replicate::tables(&mut text, &lab, &replicated);
    text.push('\n');
    Ok(text)
}

/// What the project set itself, in nanoseconds a packet.
fn goal(row: &Value, rows: &[Value]) -> Option<f64> {
    let (path, flows) = (row["path"].as_str()?, row["flows"].as_u64()?);
    match (path, flows) {
        ("tunnel-v4", 1) => Some(35.0),
        ("tunnel-v4", 10_000) => Some(40.0),
        // 10 GbE line rate on one core.
        ("tunnel-v4", 1_000_000) => Some(67.0),
        // On top of the processing, where another worker has the flow.
        ("handover", _) => Some(25.0),
        // Three million a second.
        (path, _) if path.starts_with("new-") => Some(1e9 / 3e6),
        (path, 1_000_000) if path.starts_with("nat-") => Some(90.0),
        (path, 1_000_000) if path.starts_with("full-nat-") => Some(110.0),
        // Half as much again as with 100,000.
        (path, 4_000_000) => {
            let mut same = rows.iter().filter(|row| row["path"] == path);
            let few = same.find(|row| row["flows"] == 100_000)?;
            Some(1.5 * few["ns_per_packet"].as_f64()?)
        }
        _ => None,
    }
}

/// The rows of a file, and what it is called with when it was measured.
fn rows(root: &Path, file: &str) -> anyhow::Result<(String, Vec<Value>)> {
    let (origin, rows) = origin::rows(read(&root.join(RESULTS), file)?);
    let measured = origin::in_words(origin.as_ref());
    Ok((format!("`{RESULTS}/{file}`, measured {measured}"), rows))
}

fn read<T: DeserializeOwned>(results: &Path, file: &str) -> anyhow::Result<T> {
    let path = results.join(file);
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "cannot read {}; `make bench` and `make compare` write them",
            path.display()
        )
    })?;
    serde_json::from_str(&text).with_context(|| {
        format!(
            "{} has no results that could be read: put back the committed file, or measure again",
            path.display()
        )
    })
}

fn table(text: &mut String, head: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "| {} |", head.join(" | "));
    let _ = writeln!(text, "|---|{}", "---:|".repeat(head.len() - 1));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
}

fn name(row: &Value, key: &str) -> String {
    row[key].as_str().unwrap_or("?").to_owned()
}

fn number(value: &Value, decimals: usize) -> String {
    value
        .as_f64()
        .map_or("-".to_owned(), |n| crate::written::decimals(n, decimals))
}

fn thousands(value: &Value) -> String {
    value
        .as_f64()
        .map_or("-".to_owned(), crate::written::thousands)
}

/// Text as it may stand in a table and in a link.
fn cell(text: &str) -> String {
    let kept = text.trim().replace(['\n', '\r'], " ");
    kept.replace('|', "/").replace('[', "(").replace(']', ")")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    #[test]
    fn the_pages_have_what_the_results_give() {
        let root = root();
        let figures = figures::load(&root.join(RESULTS)).unwrap();
        for (page, expected) in pages(&root, &figures).unwrap() {
            let text = std::fs::read_to_string(root.join(page)).unwrap();
            assert!(
                text == expected,
                "{page}: run `target/release/lockstep-perf report`"
            );
        }
    }

    #[test]
    fn the_pictures_are_those_of_the_figures() {
        let root = root();
        let figures = figures::load(&root.join(RESULTS)).unwrap();
        let drawings = figures::draw(&figures).unwrap();
        let directory = root.join(PICTURES);
        let present = figures::present(&directory).unwrap();
        assert_eq!(
            present,
            figures::names(&drawings),
            "run `target/release/lockstep-perf report`"
        );
        for drawing in drawings {
            let svg = directory.join(figures::file(drawing.figure, "svg"));
            let png = directory.join(figures::file(drawing.figure, "png"));
            let is_drawn = std::fs::read_to_string(&svg).unwrap() == drawing.svg;
            let source = crate::plot::source_of_png(&std::fs::read(&png).unwrap());
            assert!(
                is_drawn && source == Some(drawing.source()),
                "{} and {}: run `target/release/lockstep-perf report`",
                svg.display(),
                png.display()
            );
        }
    }

    #[test]
    fn many_flows_may_cost_half_as_much_again_as_few() {
        let row = |flows: u64, ns: f64| serde_json::json!({"path": "nat-v4", "flows": flows, "ns_per_packet": ns});
        let rows = [
            row(100_000, 60.0),
            row(1_000_000, 80.0),
            row(4_000_000, 85.0),
        ];
        let goals = rows.each_ref().map(|row| goal(row, &rows));
        assert_eq!(goals, [None, Some(90.0), Some(90.0)]);
    }

    #[test]
    fn figures_are_written_for_people() {
        assert_eq!(thousands(&Value::from(-1234.4)), "-1,234");
        assert_eq!(thousands(&Value::Null), "-");
        assert_eq!(number(&Value::from(66.666), 1), "66.7");
        assert_eq!(number(&Value::Null, 1), "-");
    }
}
