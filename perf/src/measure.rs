//! What every measurement needs: figures of figures, and the CPU before other programs.

use crate::cpu;
use crate::whole_cpus::{self, WholeCpus};
use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::interrupted;
use nix::unistd::Pid;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, Once, PoisonError};

/// Where what is measured goes: the options of all that write more than one file.
#[derive(Debug, Clone, clap::Args)]
pub struct Results {
    /// Where the results are, and go; those of a quick run go into its directory `quick`.
    #[arg(long, default_value = "perf/results")]
    pub results: PathBuf,
    /// A short run with less of everything, to try it out: no result.
    #[arg(long)]
    pub quick: bool,
}

impl Results {
    /// Where they go: a quick run never takes the place of a whole one.
    pub fn directory(&self) -> PathBuf {
        match self.quick {
            true => self.results.join("quick"),
            false => self.results.clone(),
        }
    }
}

/// Refuses to go on without root.
pub fn needs_root() -> Result<()> {
    needs_root_for("The lab makes network namespaces and loads XDP programs, which needs root")
}

/// Refuses to go on without root, and says why it is needed.
pub fn needs_root_for(why: &str) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "{why}: run it with sudo.");
    Ok(())
}

/// A real-time priority for this process and all that it starts: what else runs on this machine
/// gets what they leave. By `chrt`, which is in every Debian.
pub fn run_ahead_of_others() -> Result<()> {
    let own = std::process::id().to_string();
    let status = Command::new("chrt")
        .args(["--all-tasks", "--rr", "--pid", "1", &own])
        .status()
        .context("cannot run chrt")?;
    ensure!(status.success(), "chrt failed: {status}");
    Ok(())
}

/// What the kernel puts off to its threads for software interrupts has the same priority as what
/// [`run_ahead_of_others`] gives, until this is dropped: else other programs on the machine cost what
/// the kernel forwards more than what programs do. And these have their CPUs for all of the time.
#[derive(Debug)]
pub struct KernelAhead {
    _whole: WholeCpus,
}

/// The threads that have it.
static AHEAD: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

impl KernelAhead {
    /// On these CPUs.
    pub fn on(cpus: &[usize]) -> Result<Self> {
        interrupted::undo_too(fall_back);
        // A panic ends an optimized program at once, and drops nothing.
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let tell = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                tell(info);
                fall_back();
                whole_cpus::put_back();
            }));
        });
        let ahead = KernelAhead {
            _whole: WholeCpus::on(cpus),
        };
        for &cpu in cpus {
            let thread = cpu::ksoftirqd(cpu)?;
            (AHEAD.lock().unwrap_or_else(PoisonError::into_inner)).push(thread);
            chrt("--rr", 1, thread)?;
        }
        Ok(ahead)
    }
}

impl Drop for KernelAhead {
    fn drop(&mut self) {
        fall_back();
    }
}

fn fall_back() {
    for thread in (AHEAD.lock().unwrap_or_else(PoisonError::into_inner)).drain(..) {
        if let Err(error) = chrt("--other", 0, thread) {
            eprintln!("cannot give thread {thread} its priority back: {error:#}");
        }
    }
}

fn chrt(policy: &str, priority: u32, thread: Pid) -> Result<()> {
    let status = Command::new("chrt")
        .args([policy, "--pid", &priority.to_string(), &thread.to_string()])
        .status()
        .context("cannot run chrt")?;
    ensure!(status.success(), "chrt failed: {status}");
    Ok(())
}

/// The value in the middle; where two are there, their mean, which need not be a value that was measured. Not a
/// number of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let Some(upper) = values.get(values.len() / 2) else {
        return f64::NAN;
    };
    let lower = values[(values.len() - 1) / 2];
    (lower + upper) / 2.0
}

/// The mean, to two digits; none of nothing.
pub fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.fold((0_u32, 0.0), |(count, sum), value| (count + 1, sum + value));
    (count > 0).then(|| rounded(sum / f64::from(count), 2))
}

/// Of sorted values, by the nearest rank.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    let at = rank.clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// To so many digits behind the point.
pub fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&values, 0.5), 50.0);
        assert_eq!(percentile(&values, 0.99), 99.0);
        assert_eq!(percentile(&values, 1.0), 100.0);
        assert_eq!(percentile(&values[..1], 0.99), 1.0);
        assert_eq!(percentile(&values[..60], 0.99), 60.0);
    }

    #[test]
    fn a_quick_run_does_not_take_the_place_of_a_whole_one() {
        let mut results = Results {
            results: "perf/results".into(),
            quick: false,
        };
        assert_eq!(results.directory(), Path::new("perf/results"));
        results.quick = true;
        assert_eq!(results.directory(), Path::new("perf/results/quick"));
    }

    #[test]
    fn the_mean_of_steps_is_between_them() {
        assert_eq!(mean([0.0, 6.0, 0.0].into_iter()), Some(2.0));
        assert_eq!(mean([].into_iter()), None);
    }

    #[test]
    fn the_median_of_an_even_count_is_the_mean_of_the_two_in_the_middle() {
        for (values, middle) in [
            (vec![7.5], 7.5),
            (vec![3.0, 1.0], 2.0),
            (vec![0.1, 0.1], 0.1),
            (vec![3.0, 1.0, 2.0], 2.0),
            (vec![9.0, 1.0, 2.0, 4.0], 3.0),
            (vec![9.0, 1.0, 2.0, 4.0, -5.0], 2.0),
        ] {
            assert_eq!(median(values.clone()), middle, "{values:?}");
            let backwards = values.iter().rev().copied().collect();
            assert_eq!(median(backwards), middle, "{values:?}, backwards");
        }
        assert!(median(Vec::new()).is_nan());
    }
}
