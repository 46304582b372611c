//! The gate: no path may need over 5 % more instructions than the baseline says, nor less.
//!
//! Times differ from machine to machine and from run to run; instructions do not, so a slower path is
//! found by them in the commit that made it. The baseline is part of the repository: a commit that makes a
//! path longer for a reason changes it too, and so says so; one that makes a path shorter has to, or the
//! path could grow back unseen.

mod baseline;
mod compare;

use crate::callgrind;
use crate::frames::{Traffic, Which};
use crate::packets::{self, Bench};
use crate::session::{self, Direction};
use anyhow::{Context, Result, bail};
use baseline::{Baseline, Origin};
use compare::{Comparison, compare};
use lockstep_core::BURST;
use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;

/// Instructions by path: for a packet, or for a session's megabyte.
pub type Counts = BTreeMap<String, f64>;

/// Flows that are alive, of a table's [`CAPACITY`]: their number hardly changes what is counted, and
/// opening them under callgrind takes fifty times as long as without.
const FLOWS: u32 = 10_000;
const CAPACITY: usize = 65_536;

/// Packets that are counted: every instruction of them, so few suffice.
const PACKETS: usize = 64 * 500;

/// Bytes of a session.
const MEGABYTE: u64 = 1_000_000;

/// Sessions that are counted.
const SESSIONS: [(&str, Direction, usize); 4] = [
    ("session-download-1", Direction::Download, 1),
    ("session-download-3", Direction::Download, 3),
    ("session-upload-1", Direction::Upload, 1),
    ("session-upload-3", Direction::Upload, 3),
];

/// What a path does.
enum Work {
    Packets(Traffic),
    Session(Direction, usize),
}

fn names() -> impl Iterator<Item = &'static str> {
    let packets = packets::PATHS.iter().map(|case| case.name);
    packets.chain(SESSIONS.iter().map(|&(name, ..)| name))
}

fn work(path: &str) -> Option<Work> {
    let packets = packets::PATHS.iter().find(|case| case.name == path);
    let session = SESSIONS.iter().find(|(name, ..)| *name == path);
    packets
        .map(|case| Work::Packets(case.traffic))
        .or_else(|| session.map(|&(_, direction, replicas)| Work::Session(direction, replicas)))
}

/// Runs one path, for callgrind.
pub fn run(path: &str) -> Result<()> {
    match work(path) {
        Some(Work::Packets(traffic)) => {
            // New flows come to a full table.
            let flows = match traffic.which {
                Which::New => CAPACITY as u32,
                Which::Known | Which::Answers => FLOWS,
            };
            Bench::new(traffic, flows, CAPACITY).round(PACKETS);
        }
        Some(Work::Session(direction, replicas)) => {
            session::Bench::new(replicas, direction)?.run(MEGABYTE)?;
        }
        None => bail!(
            "no path {path}: there are {}",
            names().collect::<Vec<_>>().join(", ")
        ),
    }
    Ok(())
}

/// Counts a path.
fn count(path: &str) -> Result<f64> {
    let work = work(path).with_context(|| format!("no path {path}"))?;
    let (inside, units) = match work {
        Work::Packets(_) => (packets::MEASURED, PACKETS.next_multiple_of(BURST) as f64),
        Work::Session(..) => (session::MEASURED, 1.0),
    };
    let counted = callgrind::count(&["run", path], &[inside]);
    let counted = counted.with_context(|| format!("cannot count {path}"))?;
    Ok((counted as f64 / units * 10.0).round() / 10.0)
}

/// Counts them all, as many at once as there are CPUs.
fn count_all() -> Result<Counts> {
    let waiting = Mutex::new(names());
    let counted = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let next = || waiting.lock().expect("no thread panics with it").next();
                while let Some(path) = next() {
                    let result = count(path).map(|count| (path.to_owned(), count));
                    counted
                        .lock()
                        .expect("no thread panics with it")
                        .push(result);
                }
            });
        }
    });
    let counted = counted.into_inner().expect("no thread panics with it");
    counted.into_iter().collect()
}

/// What the gate does where the baseline is of another architecture, whose counts have nothing to do with these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elsewhere {
    /// It fails: nothing was counted.
    Fail,
    /// It says so, and passes.
    Skip,
}

/// Counts, compares with the file, says what has changed: a failure where that is more than a little.
pub fn check(file: &Path, elsewhere: Elsewhere) -> Result<ExitCode> {
    let baseline = Baseline::read(file)?;
    let origin = Origin::here()?;
    if let Some((said, code)) = not_comparable(&origin, &baseline.origin, elsewhere) {
        eprintln!("{said}");
        return Ok(code);
    }
    let comparison = compare(&baseline.counts, &count_all()?);
    print!("{comparison}");
    let differences = origin.differences(&baseline.origin);
    if !differences.is_empty() {
        println!("\nThe baseline was counted with other tools: {differences}.");
    }
    if comparison.is_passed() {
        return Ok(ExitCode::SUCCESS);
    }
    eprint!("{}", refusal(&comparison, !differences.is_empty(), file));
    Ok(ExitCode::FAILURE)
}

/// What is said, and how it ends, where the counts of here cannot be held against those of there.
fn not_comparable(
    here: &Origin,
    there: &Origin,
    elsewhere: Elsewhere,
) -> Option<(String, ExitCode)> {
    if here.host == there.host {
        return None;
    }
    let what = format!(
        "Nothing was counted: the baseline is of {}, this is {}, and counts of the two have nothing to do with each other.",
        there.host, here.host
    );
    Some(match elsewhere {
        Elsewhere::Skip => (what, ExitCode::SUCCESS),
        Elsewhere::Fail => (
            format!(
                "{what}\nTo go on without the gate: make gate SKIP_OTHER_ARCHITECTURES=1 (also make test)."
            ),
            ExitCode::FAILURE,
        ),
    })
}

/// What is wrong, and what can be done.
fn refusal(comparison: &Comparison, other_tools: bool, file: &Path) -> String {
    let mut text = format!("\n{}\n", comparison.what_is_wrong().join("\n"));
    if other_tools {
        text += "This may be the other tools' doing: count the commit before yours with them (git stash or git \
                 worktree, make gate).\nIf it shows the same, take the counts of that commit as the baseline, \
                 in a commit of its own.\n";
    }
    if comparison.has_grown() {
        text += "To find what grew: valgrind --tool=callgrind target/gate/lockstep-counts run PATH, then \
                 callgrind_annotate.\n";
    }
    text += &format!(
        "To accept it: make gate UPDATE=1, and commit {} with the change and its reason.\n",
        file.display()
    );
    text
}

/// Counts, and writes the file.
pub fn update(file: &Path) -> Result<ExitCode> {
    let counts = count_all()?;
    if let Ok(before) = Baseline::read(file) {
        print!("{}", compare(&before.counts, &counts));
    }
    let origin = Origin::here()?;
    Baseline { origin, counts }.write(file)?;
    println!("written to {}", file.display());
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests;
