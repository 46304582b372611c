//! The chapter of figures: each as a picture and a table, with what differs and the command that
//! measures it again.

use super::figures::{GROUPS, Origins, group};
use super::{cell, table};
use crate::experiments;
use crate::figure::{Fact, Figure, Kind, Point, SHORT_RUN, Series};
use crate::origin::{Origin, in_words};
use crate::plot::short;
use std::fmt::Write;

/// The page; pictures lie in the folder `figures` beside it.
pub const PAGE: &str = "docs/src/experiments.md";

/// More rows than these are seen in the picture better.
const MOST_ROWS: usize = 16;

const HEAD: &str = "\
# Experiments

<!-- All of this page is written by `lockstep-perf report`, from perf/results: compare.json and figures/*.json. -->

What Lockstep follows was evaluated by its authors, and what it competes with is on everybody's machine. This page has both:
the evaluations of three works repeated with Lockstep, each figure of theirs beside ours; Lockstep beside nftables, HAProxy, nginx
and the kernel in the same run; and what the measured costs come to on many hosts.

Ours were measured in network namespaces of one virtual machine with 2 CPUs, whose links are veths; theirs on the hardware that each
work names. So the *shapes* can be compared (does it grow with the servers, is it linear in the replicas, how long is the gap), and
absolute figures cannot; under each figure stands what else was not the same. Values are medians of the rounds, latencies beside nftables and
the others of all trials; in parentheses the least and the most of them. How packets and requests are measured stands in
[Performance](performance.md). A *seed* is one of these three works, by the project's number for it.
";

/// A chapter for each group, in the order of [`GROUPS`]; one more for the rest.
const CHAPTERS: [(&str, &str); GROUPS.len() + 1] = [
    (
        "Beside nftables, HAProxy, nginx and the kernel",
        "`make compare` measures all of them in the same lab and the same run, in alternating order.",
    ),
    (
        "Seed 003: a portable load balancer for container clusters",
        "Kimitoshi Takahashi, *A Study on Portable Load Balancer for Container Clusters*: IPVS and XDP in containers, behind \
         routers that spread by ECMP, on 1 and 10 Gbit/s.",
    ),
    (
        "Seed 000: DIRE, replicated sessions",
        "Balint Bombitz, *Reliable Session Handling in Distributed Environments*, 2025: iperf3 through a distributor to replicas.",
    ),
    (
        "Seed 002: mirrored requests and disconnected operation",
        "Tim Farnham, *Supporting Disconnected Operation of Stateful Services Using an Envoy Enabled Dynamic Microservices \
         Approach*: requests mirrored from cloud to edge.",
    ),
    (
        "On many hosts: model and simulation",
        "`make model` reckons from the measured costs how many hosts a load takes, and simulates balancers and backends that \
         come and go, with the engine's own tables.",
    ),
    ("Others", ""),
];

/// The whole page.
pub fn page(figures: &[Figure], origins: &Origins) -> String {
    let mut text = HEAD.to_owned();
    for (index, (title, about)) in CHAPTERS.iter().enumerate() {
        let mut of_group = figures.iter().filter(|f| group(&f.id) == index).peekable();
        if of_group.peek().is_none() {
            continue;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n## {title}");
        if !about.is_empty() {
            let _ = writeln!(text, "\n{about}");
        }
        of_group.for_each(|figure| section(&mut text, figure, origins.get(&figure.id)));
    }
    if figures.is_empty() {
        text.push_str("\nNothing is measured yet: `make compare` and `make experiments` do it.\n");
    }
    text
}

fn section(text: &mut String, figure: &Figure, origin: Option<&Origin>) {
    let title = cell(&figure.title);
    let _ = writeln!(text, "\n### {}: {title}\n", figure.id);
    let _ = writeln!(text, "![{title}](figures/{}.svg)\n", figure.id);
    if figure.quick {
        let _ = writeln!(text, "**{SHORT_RUN}**\n");
    }
    facts(text, figure);
    values(text, figure);
    let is_model = figure.is_model();
    if !figure.theirs_from.is_empty() && !is_model {
        let _ = writeln!(
            text,
            "Theirs: {}.\n",
            figure.theirs_from.trim_end_matches('.')
        );
    }
    if !figure.differs.is_empty() {
        text.push_str(match is_model {
            true => "What it takes for granted:\n\n",
            false => "What differs:\n\n",
        });
        for sentence in &figure.differs {
            let _ = writeln!(text, "- {}", sentence.trim());
        }
        text.push('\n');
    }
    let made = if is_model { "Reckoned" } else { "Measured" };
    let origin = in_words(origin);
    let _ = writeln!(text, "{made} {origin}. Again: `{}`", command(&figure.id));
}

/// What measures a figure again.
fn command(id: &str) -> String {
    if id.starts_with("compare-") {
        return "make compare".to_owned();
    }
    if id.starts_with("model-") {
        return "make model".to_owned();
    }
    match experiments::of_figure(id) {
        Some(experiment) => format!(
            "sudo target/release/lockstep-perf experiments --only {}",
            experiment.id
        ),
        None => "make experiments".to_owned(),
    }
}

fn facts(text: &mut String, figure: &Figure) {
    if figure.facts.is_empty() {
        return;
    }
    let row = |fact: &Fact| {
        let unit = match fact.unit.as_str() {
            "" => String::new(),
            unit => format!(" {unit}"),
        };
        let ours = format!("{}{unit}", short(fact.ours));
        let mut cells = vec![cell(&fact.name), ours];
        if figure.facts.iter().any(|fact| fact.theirs.is_some()) {
            let theirs = fact.theirs;
            cells.push(theirs.map_or("-".to_owned(), |value| format!("{}{unit}", short(value))));
            cells.push(theirs.map_or("-".to_owned(), |value| ratio(fact.ours, value)));
        }
        cells
    };
    let with_theirs = figure.facts.iter().any(|fact| fact.theirs.is_some());
    let beside = beside(figure);
    let head: &[&str] = match with_theirs {
        true => &[
            "what it comes to",
            "ours",
            beside,
            &format!("ours / {beside}"),
        ],
        false => &["what it comes to", "ours"],
    };
    table(text, head, figure.facts.iter().map(row));
    text.push('\n');
}

fn ratio(ours: f64, theirs: f64) -> String {
    if theirs == 0.0 || !(ours / theirs).is_finite() {
        return "-".to_owned();
    }
    format!("{}×", short(ours / theirs))
}

fn values(text: &mut String, figure: &Figure) {
    match figure.kind {
        Kind::Lines | Kind::Bars => points(text, figure),
        Kind::Distribution => distributions(text, figure),
        Kind::Time if is_added_up(figure) => added_up(text, figure),
        Kind::Time => over_time(text, figure),
    }
}

/// All series, with whether they are ours.
fn all(figure: &Figure) -> impl Iterator<Item = (&Series, bool)> {
    let ours = figure.ours.iter().map(|series| (series, true));
    ours.chain(figure.theirs.iter().map(|series| (series, false)))
}

/// Who stands beside ours: `seed 003`.
fn beside(figure: &Figure) -> &str {
    match crate::plot::source(&figure.theirs_from) {
        "" => "theirs",
        source => source,
    }
}

/// The names of series as columns: theirs are marked.
fn names(figure: &Figure) -> Vec<String> {
    let beside = beside(figure);
    let name = |(series, ours): (&Series, bool)| match ours {
        true => cell(&series.name),
        false => format!("{} ({beside})", cell(&series.name)),
    };
    all(figure).map(name).collect()
}

/// A row for each x, a column for each series, and the ratio where both have one of the same name.
fn points(text: &mut String, figure: &Figure) {
    let points = all(figure).flat_map(|(series, _)| &series.points);
    let mut xs: Vec<f64> = points.map(|p| p.x).filter(|x| x.is_finite()).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    if xs.len() > MOST_ROWS || xs.is_empty() {
        return;
    }
    let pairs: Vec<(&Series, &Series)> = figure
        .ours
        .iter()
        .filter_map(|ours| {
            let theirs = figure.theirs.iter().find(|theirs| theirs.name == ours.name);
            Some((ours, theirs?))
        })
        .collect();
    let mut head = vec![cell(&crate::plot::name_of(&figure.x))];
    head.extend(names(figure));
    head.extend(pairs.iter().map(|(ours, _)| match pairs.len() {
        1 => format!("ours / {}", beside(figure)),
        _ => format!("{}: ours / {}", cell(&ours.name), beside(figure)),
    }));
    let row = |x: &f64| {
        let mut cells = vec![label(figure, *x)];
        let at = |series: &Series| series.points.iter().find(|p| p.x == *x).copied();
        cells.extend(all(figure).map(|(series, _)| at(series).map_or("-".into(), value)));
        cells.extend(pairs.iter().map(|(ours, theirs)| {
            let both = at(ours).zip(at(theirs));
            both.map_or("-".to_owned(), |(ours, theirs)| ratio(ours.y, theirs.y))
        }));
        cells
    };
    unit(text, figure);
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    table(text, &head, xs.iter().map(row));
    text.push('\n');
}

fn unit(text: &mut String, figure: &Figure) {
    let name = cell(&crate::plot::name_of(&figure.y));
    // The chapter says it of measured figures.
    let spread = match figure.is_model() && crate::plot::has_spread(figure) {
        true => format!(
            "; in parentheses the least and the most of {}",
            figure.spread_over()
        ),
        false => String::new(),
    };
    let _ = writeln!(text, "{name}{spread}:\n");
}

fn label(figure: &Figure, x: f64) -> String {
    let whole = x >= 0.0 && x.fract() == 0.0;
    let label = whole.then(|| figure.labels.get(x as usize)).flatten();
    label.map_or_else(|| short(x), |label| cell(label))
}

fn value(point: Point) -> String {
    let (low, high) = (short(point.low), short(point.high));
    match low == high {
        true => short(point.y),
        false => format!("{} ({low}–{high})", short(point.y)),
    }
}

/// The values that so many samples do not exceed.
fn distributions(text: &mut String, figure: &Figure) {
    let most = all(figure).flat_map(|(series, _)| series.points.iter().map(|p| p.y));
    // Shares may be given in percent.
    let whole = if most.fold(0.0, f64::max) > 1.5 {
        100.0
    } else {
        1.0
    };
    let row = |((series, _), name): ((&Series, bool), String)| {
        let at = |share: f64| {
            let mut points = series.points.iter();
            let point = points.find(|p| p.y >= share * whole * 0.999_999);
            point.map_or("-".to_owned(), |p| short(p.x))
        };
        vec![name, at(0.5), at(0.9), at(0.99), at(1.0)]
    };
    let _ = writeln!(text, "{}:\n", cell(&crate::plot::name_of(&figure.x)));
    let head = ["", "50 % of them", "90 %", "99 %", "all"];
    table(text, &head, all(figure).zip(names(figure)).map(row));
    text.push('\n');
}

/// Whether it is added up: of what only grows, the least is the beginning and the median says nothing.
fn is_added_up(figure: &Figure) -> bool {
    let pairs = |series: &Series| -> Vec<(f64, f64)> {
        let ys = series.points.iter().map(|point| point.y);
        ys.clone().zip(ys.skip(1)).collect()
    };
    let pairs: Vec<(f64, f64)> = all(figure).flat_map(|(series, _)| pairs(series)).collect();
    pairs.iter().all(|(a, b)| a <= b) && pairs.iter().any(|(a, b)| a < b)
}

/// What it came to by half of the time, and in the end.
fn added_up(text: &mut String, figure: &Figure) {
    let row = |((series, _), name): ((&Series, bool), String)| {
        let last = series.points.last();
        let begin = series.points.first().map_or(0.0, |point| point.x);
        let half = last.map_or(0.0, |last| f64::midpoint(begin, last.x));
        let middle = series.points.iter().rfind(|point| point.x <= half);
        let [middle, last] =
            [middle, last].map(|point| point.map_or("-".to_owned(), |point| short(point.y)));
        vec![name, middle, last]
    };
    unit(text, figure);
    let head = ["", "after half the time", "in the end"];
    table(text, &head, all(figure).zip(names(figure)).map(row));
    text.push('\n');
}

fn over_time(text: &mut String, figure: &Figure) {
    let row = |((series, _), name): ((&Series, bool), String)| {
        let ys: Vec<f64> = series.points.iter().map(|p| p.y).collect();
        let least = ys.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ys.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let median = crate::measure::median(ys);
        vec![name, short(median), short(least), short(most)]
    };
    unit(text, figure);
    let head = ["", "median over time", "least", "most"];
    table(text, &head, all(figure).zip(names(figure)).map(row));
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::tests::sample;

    #[test]
    fn a_figure_says_when_it_was_measured_or_that_nobody_knows() {
        let figure = sample(Kind::Bars);
        let text = page(std::slice::from_ref(&figure), &Origins::new());
        assert!(
            text.contains("Measured on an unknown date. Again: `"),
            "{text}"
        );
        let origin = Origin {
            date: "2026-01-31".to_owned(),
            commit: "abc".to_owned(),
            kernel: "6.1".to_owned(),
            processor: "a processor".to_owned(),
        };
        let origins = Origins::from([(figure.id.clone(), origin)]);
        let text = page(&[figure], &origins);
        let wanted = "Measured 2026-01-31, commit abc, Linux 6.1, a processor. Again: `";
        assert!(text.contains(wanted), "{text}");
    }

    #[test]
    fn a_figure_has_picture_table_ratio_and_the_command_that_measures_it_again() {
        let mut figure = sample(Kind::Lines);
        figure.id = "003-4.2".to_owned();
        figure
            .facts
            .push(Fact::new("most", 4.1e6, Some(2.05e6), "packets/s"));
        let page = page(&[figure], &Origins::new());
        for wanted in [
            "## Seed 003",
            "](figures/003-4.2.svg)",
            "| CPUs | tunnel | NAT | tunnel (seed 003) | ours / seed 003 |",
            "| 2 | 2.3M (2.07M–2.53M) | 1.7M (1.53M–1.87M) | 1.4M (1.26M–1.54M) | 1.64× |",
            "| most | 4.1M packets/s | 2.05M packets/s | 2× |",
            "- Another machine.",
            "Again: `",
        ] {
            assert!(page.contains(wanted), "no {wanted} in\n{page}");
        }
        assert!(!page.contains("short run"));
    }

    #[test]
    fn a_distribution_is_told_by_its_percentiles_and_a_course_by_its_extremes() {
        let mut course = sample(Kind::Time);
        course.ours[0].points[199].y = 0.5;
        let page = page(&[sample(Kind::Distribution), course], &Origins::new());
        assert!(
            page.contains("| half load | 990 | 1.79k | 1.97k | 1.99k |"),
            "{page}"
        );
        assert!(
            page.contains("| nginx (seed 003) | 990 | - | - | - |"),
            "{page}"
        );
        assert!(
            page.contains("| half load | 0.5 | 0.005 | 0.995 |"),
            "{page}"
        );
    }

    #[test]
    fn what_is_added_up_is_told_by_what_it_comes_to() {
        let page = page(&[sample(Kind::Time)], &Origins::new());
        assert!(
            page.contains("|  | after half the time | in the end |"),
            "{page}"
        );
        assert!(page.contains("| half load | 0.5 | 1 |"), "{page}");
        assert!(page.contains("| nginx (seed 003) | 0.25 | 0.5 |"), "{page}");
    }

    #[test]
    fn a_short_run_is_told_from_a_result() {
        let figure = Figure {
            quick: true,
            ..sample(Kind::Bars)
        };
        assert!(page(&[figure], &Origins::new()).contains("no result"));
    }

    #[test]
    fn what_parentheses_are_of_is_said_where_it_is_not_rounds() {
        let mut figure = sample(Kind::Bars);
        assert!(
            page(std::slice::from_ref(&figure), &Origins::new())
                .contains("\nthroughput (packets/s):\n")
        );
        figure.id = "model-balance".to_owned();
        let page = page(&[figure], &Origins::new());
        let wanted = "\nthroughput (packets/s); in parentheses the least and the most of the simulated course:\n";
        assert!(page.contains(wanted), "{page}");
    }

    #[test]
    fn the_command_knows_the_experiment() {
        assert_eq!(command("compare-requests"), "make compare");
        assert_eq!(command("model-churn"), "make model");
        assert_eq!(command("999-1"), "make experiments");
    }
}
