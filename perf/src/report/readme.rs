//! What the front page shows of the figures, and the page that leads to all of them.

use super::figures::file;
use crate::figure::Figure;
use std::fmt::Write;

/// The front page.
pub const PAGE: &str = "README.md";
/// Where its pictures begin.
pub const BEGIN: &str = "<!-- plots: written by `lockstep-perf report` -->";
/// And where they end.
pub const END: &str = "<!-- end of plots -->";
/// The page that leads to all results.
pub const INDEX: &str = "docs/performance.md";

/// The three that are shown: of each row the first one that there is.
const SHOWN: [&[&str]; 3] = [
    &[
        "compare-packets-64",
        "compare-packets-1400",
        "compare-requests",
    ],
    &["003-4.13", "003-4.14", "000-4", "model-churn"],
    &[
        "003-4.15",
        "003-4.7",
        "002-failover",
        "compare-latency-50",
        "model-hosts-1T",
    ],
];

/// The pictures of the front page, each with the first of what differs from theirs: rates that were made small to fit a
/// machine would be taken for the most that it carries.
pub fn plots(figures: &[Figure]) -> String {
    let find = |id: &&str| {
        figures
            .iter()
            .find(|figure| figure.id == *id && !figure.quick)
    };
    let shown = SHOWN.iter().filter_map(|row| row.iter().find_map(find));
    let mut text = String::new();
    for figure in shown {
        let (title, file) = (&figure.title, file(figure, "svg"));
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "[![{title}](docs/src/figures/{file})](docs/src/experiments.md)\n"
        );
        // Cases of the comparison differ from one another, not from somebody's hardware.
        if let Some(sentence) = (figure.differs.first()).filter(|_| !is_of_comparison(figure)) {
            let _ = writeln!(text, "{}\n", sentence.trim());
        }
    }
    if text.is_empty() {
        text.push_str("Nothing is measured yet: `make compare` and `make experiments` do it.\n\n");
    }
    text
}

fn is_of_comparison(figure: &Figure) -> bool {
    figure.id.starts_with("compare-")
}

/// The page that leads to all of them.
pub fn index(figures: &[Figure]) -> String {
    let mut text = "\
# Performance

<!-- All of this page is written by `lockstep-perf report`. -->

The results are two chapters of the book, whose sources `mdbook` wants in one folder:

- [Performance](src/performance.md): the dataplane in memory, packets and requests beside the peers, replicated sessions: how it is
  measured, the tables, and what bounds them.
- [Experiments](src/experiments.md): every figure, as picture and table, ours beside theirs.
"
    .to_owned();
    for figure in figures {
        let (title, file) = (&figure.title, file(figure, "svg"));
        let _ = writeln!(text, "  - [{}](src/figures/{file}): {title}", figure.id);
    }
    text.push_str(
        "\nTables and pictures are written by `lockstep-perf report` from `perf/results`; no figure is typed, and a test writes all of \
         it again and compares.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Kind;
    use crate::plot::tests::sample;

    #[test]
    fn the_front_page_shows_three_that_there_are_and_none_of_a_short_run() {
        let figure = |id: &str, quick| Figure {
            id: id.to_owned(),
            quick,
            ..sample(Kind::Bars)
        };
        let ids = ["compare-packets-64", "000-4", "003-4.7", "model-churn"];
        let mut figures: Vec<Figure> = ids.map(|id| figure(id, false)).into();
        figures.push(figure("003-4.13", true));
        let text = plots(&figures);
        let shown: Vec<&str> = text.lines().filter(|line| line.contains("![")).collect();
        assert_eq!(shown.len(), 3, "{text}");
        for (line, id) in shown.iter().zip(ids) {
            assert!(
                line.contains(&format!("docs/src/figures/{id}.svg")),
                "{line}"
            );
        }
        assert!(plots(&[]).contains("make compare"));
    }

    #[test]
    fn what_differs_most_stands_under_the_picture_but_for_those_of_the_comparison() {
        let figure = |id: &str| Figure {
            id: id.to_owned(),
            differs: vec!["Each is sent little.".to_owned(), "More.".to_owned()],
            ..sample(Kind::Bars)
        };
        let text = plots(&[figure("003-4.13")]);
        assert!(text.ends_with(")\n\nEach is sent little.\n\n"), "{text}");
        let text = plots(&[figure("compare-packets-64")]);
        assert!(!text.contains("Each is sent"), "{text}");
    }
}
