//! What results were measured on.

use crate::cpu;
use crate::measure::rounded;
use crate::origin::Origin;
use lockstep_tests::lab::wait_until;
use serde::{Deserialize, Serialize};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// A machine, its programs, and what it did besides when a measurement began.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The day, as ISO 8601 has it.
    pub date: String,
    /// The commit of the checkout that the programs were built in, `-dirty` where what programs are made of differs from it; empty
    /// where there is none.
    pub commit: String,
    /// The kernel's release.
    pub kernel: String,
    /// The processor's name.
    pub processor: String,
    /// CPUs that are on line.
    pub cpus: usize,
    /// How many CPUs other programs kept busy, in the moment before.
    pub busy: f64,
    /// The versions of what is compared with.
    pub programs: Vec<String>,
}

/// So much of its CPUs may be busy before CPU times are those of other programs too.
const BUSY: f64 = 0.1;
/// For how long that is looked at.
const MOMENT: Duration = Duration::from_secs(1);

impl Machine {
    /// This one, now. What it does not tell stays empty.
    pub fn look() -> Self {
        let cpus = names(&processors()).count();
        let programs: [&[&str]; 3] = [&["haproxy", "-v"], &["nginx", "-v"], &["nft", "--version"]];
        Machine {
            date: date(),
            commit: commit(),
            kernel: kernel(),
            processor: processor(),
            cpus,
            busy: busy(cpus),
            programs: programs
                .map(said)
                .into_iter()
                .filter(|said| !said.is_empty())
                .collect(),
        }
    }

    /// What has to be known before CPU times are believed.
    pub fn warning(&self) -> Option<String> {
        (self.busy > BUSY * self.cpus as f64).then(|| {
            format!(
                "the machine was busy when this began (other programs had {:.1} of {} CPUs): CPU times and latencies are also \
                 those of other programs",
                self.busy, self.cpus
            )
        })
    }

    /// What every file of results has.
    pub fn origin(&self) -> Origin {
        Origin {
            date: self.date.clone(),
            commit: self.commit.clone(),
            kernel: self.kernel.clone(),
            processor: self.processor.clone(),
        }
    }

    /// In a line.
    pub fn line(&self) -> String {
        let Machine {
            date,
            commit,
            kernel,
            processor,
            cpus,
            busy,
            programs,
        } = self;
        let programs = programs.join(", ");
        format!(
            "{date}, commit {commit}, Linux {kernel}, {cpus} CPUs ({processor}), {busy:.1} of them busy before; {programs}"
        )
    }
}

/// The day in UTC, as ISO 8601 has it.
pub fn date() -> String {
    said(&["date", "--utc", "+%F"])
}

/// That of the checkout in which this program was built, wherever it is started; the others are built in the same.
pub fn commit() -> String {
    // Who measures is root, the checkout mostly somebody else's.
    let git = |arguments: &[&str]| {
        let here = [
            "git",
            "-c",
            "safe.directory=*",
            "-C",
            env!("CARGO_MANIFEST_DIR"),
        ];
        said(&[&here, arguments].concat())
    };
    let commit = git(&["describe", "--always", "--exclude", "*"]);
    // Results and pages are of no program, and a run writes one after the other.
    let programs = [
        ":/",
        ":(top,exclude)perf/results",
        ":(top,exclude)docs",
        ":(top,exclude)README.md",
    ];
    let status = ["status", "--porcelain", "--untracked-files=no", "--"];
    match git(&[&status[..], &programs].concat()).is_empty() {
        true => commit,
        false => format!("{commit}-dirty"),
    }
}

/// The kernel's release.
pub fn kernel() -> String {
    file("/proc/sys/kernel/osrelease").trim().to_owned()
}

/// The processor's name.
pub fn processor() -> String {
    let processors = processors();
    let name = names(&processors).next();
    let name = name.and_then(|line| line.split_once(':'));
    name.map_or(String::new(), |(_, name)| name.trim().to_owned())
}

fn processors() -> String {
    file("/proc/cpuinfo")
}

fn names(processors: &str) -> impl Iterator<Item = &str> {
    (processors.lines()).filter(|line| line.starts_with("model name"))
}

fn file(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// How many of the CPUs were busy in a moment that is waited for.
fn busy(cpus: usize) -> f64 {
    let idle = || (0..cpus).filter_map(|cpu| cpu::idle(cpu).ok()).sum::<f64>();
    let (before, begin) = (idle(), Instant::now());
    // It sleeps most of the time.
    let over = || Ok((begin.elapsed() >= MOMENT).then_some(()));
    if wait_until("a moment is over", 2 * MOMENT, over).is_err() {
        return 0.0;
    }
    let idle = idle() - before;
    rounded(
        (cpus as f64 * begin.elapsed().as_secs_f64() - idle).max(0.0),
        2,
    )
}

/// The first line that a program writes, wherever it writes it.
fn said(command: &[&str]) -> String {
    let [program, arguments @ ..] = command else {
        return String::new();
    };
    let Ok(output) = Command::new(program).args(arguments).output() else {
        return String::new();
    };
    if !output.status.success() {
        return String::new();
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_says_what_it_is() {
        let machine = Machine::look();
        assert_eq!(machine.date.len(), "2026-01-31".len(), "{machine:?}");
        assert!(
            machine.cpus > 0 && !machine.kernel.is_empty(),
            "{machine:?}"
        );
        // Tests run in the package's directory, measurements anywhere.
        let here = said(&["git", "describe", "--always", "--exclude", "*"]);
        let built = commit();
        assert_eq!(built.strip_suffix("-dirty").unwrap_or(&built), here);
        assert_eq!(said(&["no-such-program"]), "");
        assert_eq!(said(&["false"]), "");
    }

    #[test]
    fn a_busy_machine_is_told() {
        let machine = |busy| Machine {
            cpus: 4,
            busy,
            ..Machine::default()
        };
        assert_eq!(machine(0.4).warning(), None);
        let warning = machine(1.5).warning().unwrap_or_default();
        assert!(warning.contains("1.5 of 4 CPUs"), "{warning}");
    }
}
