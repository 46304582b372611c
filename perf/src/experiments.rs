//! The evaluations of the systems that Lockstep follows, repeated with it: each figure of theirs
//! beside ours.

mod dire;
mod engine;
mod machine;
mod mirroring;
mod portable;

use crate::figure::Figure;
use crate::measure::{KernelAhead, Results, needs_root, run_ahead_of_others};
use crate::output;
use crate::programs;
use crate::turn::Turn;
use anyhow::{Context, Result, bail, ensure};
use lockstep_tests::lab::interrupted;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

/// As usual: figures of fewer rounds do not take the place of whole ones.
const ROUNDS: usize = 3;

/// What `lockstep-perf experiments` is told.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where the figures go; those of fewer rounds than usual go into its directory `partial`.
    #[command(flatten)]
    results: Results,
    /// Rounds of each point; the median is reported.
    #[arg(long, default_value_t = ROUNDS)]
    rounds: usize,
    /// The experiments to run: all, unless said otherwise.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Lists the experiments.
    #[arg(long)]
    list: bool,
}

/// How all of them are run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Few points, one round, short times.
    pub quick: bool,
    /// Rounds of each point.
    pub rounds: usize,
}

/// One experiment, which may give several figures.
#[derive(Debug)]
pub struct Experiment {
    /// Its name, after the figure: `003-4.2`.
    pub id: &'static str,
    /// One line.
    pub about: &'static str,
    /// Measures.
    pub run: fn(&Settings) -> Result<Vec<Figure>>,
}

/// All of them, in the order in which they are run.
fn all() -> impl Iterator<Item = &'static Experiment> {
    portable::ALL.iter().chain(dire::ALL).chain(mirroring::ALL)
}

/// Figures that an experiment gives besides the one that it is named after.
const BESIDES: &[(&str, &str)] = &[
    ("003-4.3", "003-4.2"),
    ("003-5.3", "003-5.2"),
    ("003-5.4", "003-5.2"),
    ("003-5.5", "003-5.2"),
    ("003-5.8", "003-5.7"),
];

/// The experiment that gives a figure: they begin with the same name, or it gives both.
pub fn of_figure(figure: &str) -> Option<&'static Experiment> {
    let besides = BESIDES.iter().find(|(name, _)| *name == figure);
    let figure = besides.map_or(figure, |(_, experiment)| experiment);
    let gives = |experiment: &&Experiment| {
        let rest = figure.strip_prefix(experiment.id);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit() || c == '.'))
    };
    all()
        .filter(gives)
        .max_by_key(|experiment| experiment.id.len())
}

/// Runs what was asked for; an experiment that fails does not keep the others from theirs.
pub fn run(arguments: &Arguments) -> Result<()> {
    let chosen = chosen(&arguments.only)?;
    if arguments.list {
        print!("{}", list(&chosen));
        return Ok(());
    }
    needs_root()?;
    programs::must_be_there(&needed(&chosen))?;
    let mut results = arguments.results.directory();
    if arguments.rounds < ROUNDS && !arguments.results.quick {
        results = output::partial(&results);
        output::say_where("fewer rounds than usual", &results);
    }
    output::must_be_writable(&results.join("figures"))?;
    let _turn = Turn::take("experiments")?;
    interrupted::take_down_labs()?;
    let cpus = core_affinity::get_core_ids().map_or(0, |cores| cores.len());
    ensure!(
        cpus >= 2,
        "The experiments need two CPUs, one of them for the balancer alone: this process has {cpus}."
    );
    run_ahead_of_others()?;
    let _kernel = KernelAhead::on(&[0, 1])?;
    let quick = arguments.results.quick;
    let settings = Settings {
        quick,
        rounds: if quick { 1 } else { arguments.rounds.max(1) },
    };
    let mut failed = Vec::new();
    let count = chosen.len();
    if quick {
        eprintln!("A short run of each, to try them out: no result.");
    }
    for (index, experiment) in chosen.into_iter().enumerate() {
        eprintln!(
            "{} of {count}: {}, {}",
            index + 1,
            experiment.id,
            experiment.about
        );
        let start = Instant::now();
        let outcome = (experiment.run)(&settings);
        // What has failed of that is not to be told, and no other one to be begun.
        interrupted::end_if_begun();
        let saved = outcome.and_then(|figures| save(figures, &settings, &results));
        match saved {
            Ok(()) => eprintln!("  {:.0} s", start.elapsed().as_secs_f64()),
            Err(error) => {
                eprintln!("  failed: {error:#}");
                failed.push(format!("{}: {error:#}", experiment.id));
            }
        }
    }
    if !failed.is_empty() {
        bail!(
            "{} of {count} experiments failed; the others' figures are in {}:\n  {}",
            failed.len(),
            results.display(),
            failed.join("\n  ")
        );
    }
    Ok(())
}

/// The experiments with these names, or that give figures with these names; all, where there are none.
fn chosen(only: &[String]) -> Result<Vec<&'static Experiment>> {
    let named = only.iter().map(|name| {
        of_figure(name).with_context(|| format!("there is no experiment {name}; see --list"))
    });
    let named = named.collect::<Result<Vec<_>>>()?;
    let wanted = |e: &&Experiment| only.is_empty() || named.iter().any(|named| named.id == e.id);
    Ok(all().filter(wanted).collect())
}

/// The programs that experiments start.
fn needed(experiments: &[&Experiment]) -> BTreeSet<&'static str> {
    let of_lab = programs::LAB.iter().chain(programs::OURS).copied();
    let of = |experiment: &&Experiment| -> &'static [&'static str] {
        match experiment.id {
            "003-4.6" => &["nginx", "wrk", programs::STREAM_MODULE],
            "003-4.13" | "003-4.14" | "003-4.15" => &["nginx", "wrk", "bird", "gobgp", "gobgpd"],
            id if id.starts_with("003-") => &["nginx", "wrk"],
            id if id.starts_with("000-") => &["iperf3"],
            _ => &[],
        }
    };
    of_lab
        .chain(experiments.iter().flat_map(of).copied())
        .collect()
}

/// Writes the figures of an experiment, as many of them as can be.
fn save(figures: Vec<Figure>, settings: &Settings, results: &Path) -> Result<()> {
    let mut saved = Ok(());
    for mut figure in figures {
        figure.quick = settings.quick;
        saved = saved.and(figure.save(results));
    }
    saved
}

fn list(experiments: &[&Experiment]) -> String {
    let line = |e: &&Experiment| format!("{:<10} {}\n", e.id, e.about);
    experiments.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Kind;
    use crate::plot::tests::sample;

    #[test]
    fn a_figure_that_cannot_be_saved_is_an_error_and_the_others_are_saved() {
        let figure = |id: &str| Figure {
            id: id.to_owned(),
            ..sample(Kind::Lines)
        };
        let results = tempfile::tempdir().expect("a directory");
        let figures = results.path().join("figures");
        // A directory is where the first one's file should be.
        std::fs::create_dir_all(figures.join("1.json/in-the-way")).expect("a directory");
        let settings = Settings {
            quick: true,
            rounds: 1,
        };
        let saved = save(vec![figure("1"), figure("2")], &settings, results.path());
        let error = saved.expect_err("the first cannot be saved");
        assert!(format!("{error:#}").contains("1.json"), "{error:#}");
        let text = std::fs::read_to_string(figures.join("2.json")).expect("the second is there");
        assert!(text.contains("\"quick\": true"));
    }

    #[test]
    fn what_experiments_start_is_known_before_they_do() {
        let of = |id: &str| needed(&chosen(&[id.to_owned()]).expect("it is there"));
        assert!(of("003-4.13").contains("gobgpd") && !of("003-4.2").contains("gobgpd"));
        assert!(of("000-4").contains("iperf3") && !of("000-4").contains("wrk"));
        assert!(of("002-7").contains("lockstep-engine"));
        let all: Vec<&Experiment> = all().collect();
        assert!(needed(&all).is_superset(&of("003-4.6")));
    }

    #[test]
    fn an_experiment_is_chosen_by_each_of_its_figures() {
        let ids = |only: &[&str]| -> Vec<&str> {
            let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
            let chosen = chosen(&only).expect("they are there");
            chosen.iter().map(|experiment| experiment.id).collect()
        };
        assert_eq!(ids(&["003-4.3"]), ["003-4.2"]);
        assert_eq!(
            ids(&["003-5.8", "003-5.3", "003-5.2"]),
            ["003-5.2", "003-5.7"]
        );
        assert_eq!(ids(&[]).len(), all().count());
        for name in ["003-4", "003-4.33", "", "nothing"] {
            assert!(chosen(&[name.to_owned()]).is_err(), "{name}");
        }
        for (figure, experiment) in BESIDES {
            assert!(all().any(|e| e.id == *experiment), "{experiment}");
            assert!(!all().any(|e| e.id == *figure), "{figure}");
        }
    }

    #[test]
    fn every_figure_that_is_there_is_of_an_experiment() {
        let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("results/figures");
        let figures = std::fs::read_dir(results).expect("they are in the repository");
        let mut count = 0;
        for figure in figures {
            let path = figure.expect("an entry").path();
            let id = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .expect("a name");
            if id.starts_with("00") {
                count += 1;
                assert!(of_figure(id).is_some(), "{id}");
            }
        }
        assert!(count > 20, "{count}");
    }

    #[test]
    fn every_experiment_has_an_id_of_its_own_and_is_listed() {
        let experiments: Vec<&Experiment> = all().collect();
        let ids: BTreeSet<_> = experiments.iter().map(|e| e.id).collect();
        assert_eq!(ids.len(), experiments.len());
        let text = list(&experiments);
        let listed: Vec<_> = text.lines().map(|line| line.split(' ').next()).collect();
        let expected: Vec<_> = experiments.iter().map(|e| Some(e.id)).collect();
        assert_eq!(listed, expected);
    }
}
