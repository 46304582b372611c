//! CPU time, by the scheduler's own count in nanoseconds.
//!
//! A kernel without `IRQ_TIME_ACCOUNTING` counts what it does in software interrupts as time of the
//! program that was interrupted. So the time of the balancer's processes and of the `ksoftirqd` of
//! their CPU contains what the kernel does there for packets: all but what interrupts an idle CPU.
//! What a CPU did altogether is what it was not idle ([`idle`]).

use crate::reading::Reading;
use anyhow::{Context, Result, bail, ensure};
use nix::unistd::Pid;
use std::fs;

/// No `ksoftirqd` has a process id above this.
const LAST_KSOFTIRQD: i32 = 4096;

/// CPU seconds of all threads of a process.
pub fn of_process(pid: Pid) -> Result<f64> {
    of_tasks(&format!("/proc/{pid}/task"))
}

/// CPU seconds of a thread of this process.
pub fn of_thread(thread: Pid) -> Result<f64> {
    nanoseconds(&format!("/proc/self/task/{thread}/schedstat")).map(|time| time as f64 / 1e9)
}

/// The kernel's thread for software interrupts of a CPU.
pub fn ksoftirqd(cpu: usize) -> Result<Pid> {
    let wanted = format!("ksoftirqd/{cpu}");
    // They are among the first that a kernel starts, some for each CPU.
    for pid in 1..=LAST_KSOFTIRQD {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if name.trim_end() == wanted {
            return Ok(Pid::from_raw(pid));
        }
    }
    bail!("there is no {wanted}")
}

/// Seconds for which a CPU had nothing to do, or was taken away from this machine, since it was
/// started; in steps of 10 ms.
///
/// The kernel notes when it begins and ends to be idle, so this is no estimate, and what interrupts
/// an idle CPU does not count as idle. The times that it keeps of programs, system calls and
/// interrupts are samples, and miss what is shorter than a tick.
pub fn idle(cpu: usize) -> Result<f64> {
    let unused = unused(cpu)?;
    Ok(unused.idle + unused.stolen)
}

/// Seconds for which nothing here ran on a CPU, since it was started; in steps of 10 ms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unused {
    /// There was nothing to do.
    pub idle: f64,
    /// There was, and a host had it. A CPU that a host keeps from waking up is counted as idle meanwhile, too.
    pub stolen: f64,
}

/// What a CPU was not used for.
pub fn unused(cpu: usize) -> Result<Unused> {
    let [idle, iowait, stolen] = not_used(&stat()?, cpu)?;
    Ok(Unused {
        idle: idle + iowait,
        stolen,
    })
}

/// Seconds for which a host took a CPU away from this machine while there was something to do, since it
/// was started; in steps of 10 ms.
pub fn stolen(cpu: usize) -> Result<f64> {
    Ok(unused(cpu)?.stolen)
}

fn stat() -> Result<String> {
    fs::read_to_string("/proc/stat").context("cannot read /proc/stat")
}

/// [`unused`], with its time.
pub fn unused_now(cpu: usize) -> Result<Reading<Unused>> {
    Reading::make(|| unused(cpu))
}

/// What a CPU did between two readings of [`unused`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Busy {
    /// Seconds from one to the other.
    pub of: f64,
    /// Seconds for which it was not idle.
    pub seconds: f64,
}

/// What a difference of idle times may be wrong by: a step at either end of both times that it is the sum of, and what two readings take.
const STEPS: f64 = 0.03;

impl Busy {
    /// Between two readings.
    ///
    /// # Errors
    ///
    /// When the CPU was idle for longer than that, or for less than nothing: then these are not readings
    /// of the same times, and nothing can be said.
    pub fn between(before: Reading<Unused>, after: Reading<Unused>) -> Result<Self> {
        let of = after.seconds_since(&before);
        let idle = after.value.idle - before.value.idle;
        let stolen = after.value.stolen - before.value.stolen;
        ensure!(of > 0.0, "no time has passed between two readings of a CPU");
        ensure!(
            (-STEPS..=of + STEPS).contains(&idle),
            "a CPU was idle for {idle:.3} s of {of:.3} s, which cannot be"
        );
        // What is less than nothing is of the size of the steps, or was both idle and stolen.
        let seconds = (of - idle - stolen).clamp(0.0, of);
        Ok(Busy { of, seconds })
    }

    /// The share of the time, 0 to 1.
    pub fn share(self) -> f64 {
        self.seconds / self.of
    }
}

/// The unit of `/proc/stat`: the kernel's interface has hundredths of a second on every platform
/// that Lockstep runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of idle, iowait and steal, by proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal.
fn not_used(stat: &str, cpu: usize) -> Result<[f64; 3]> {
    let wanted = format!("cpu{cpu}");
    let mut lines = stat.lines().map(|line| line.split_whitespace());
    let line = lines.find_map(|mut words| (words.next()? == wanted).then_some(words));
    let ticks: Vec<u64> = (line.into_iter().flatten())
        .map_while(|word| word.parse().ok())
        .collect();
    let &[_, _, _, idle, iowait, _, _, steal, ..] = &ticks[..] else {
        bail!("/proc/stat has no CPU {cpu}");
    };
    Ok([idle, iowait, steal].map(|ticks| ticks as f64 / TICKS_PER_SECOND))
}

fn of_tasks(tasks: &str) -> Result<f64> {
    let entries = fs::read_dir(tasks).with_context(|| format!("no {tasks}: it has ended"))?;
    let mut total = 0;
    for task in entries {
        let path = task?.path().join("schedstat");
        // A thread may end meanwhile.
        total += nanoseconds(&path.display().to_string()).unwrap_or(0);
    }
    Ok(total as f64 / 1e9)
}

fn nanoseconds(path: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let on_cpu = text.split_whitespace().next().context("no schedstat")?;
    Ok(on_cpu.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_is_busy_for_no_longer_than_the_time_and_nonsense_is_an_error() {
        let begin = std::time::Instant::now();
        let reading = |ms: u64, value| Reading {
            at: begin + std::time::Duration::from_millis(ms),
            value,
        };
        let unused = |idle, stolen| Unused { idle, stolen };
        let before = reading(0, unused(5.0, 1.0));
        let of =
            |ms, idle, stolen| Busy::between(before, reading(ms, unused(5.0 + idle, 1.0 + stolen)));
        let busy = |ms, idle| of(ms, idle, 0.0);
        let share = |ms, idle| busy(ms, idle).map(Busy::share).expect("it can be");
        assert!((share(2_000, 0.5) - 0.75).abs() < 1e-9);
        assert_eq!(share(2_000, 2.02), 0.0, "a step of the clock");
        assert_eq!(share(2_000, 0.0), 1.0);
        assert!(busy(2_000, 2.3).is_err(), "other times than these");
        assert!(busy(2_000, -0.1).is_err());
        assert!(busy(0, 0.0).is_err());
        let beside_a_host = |idle, stolen| of(2_000, idle, stolen).map(Busy::share).ok();
        assert_eq!(beside_a_host(0.5, 0.5), Some(0.5));
        assert_eq!(
            beside_a_host(2.0, 0.5),
            Some(0.0),
            "idle and stolen at once"
        );
    }

    #[test]
    fn idle_is_what_nobody_used_and_what_the_host_took() {
        let stat = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 400 50 6 7 100 0 0\n\
                    cpu10 1 1 1 200 0 0 0 0 0 0\nintr 1 2 3\n";
        assert_eq!(not_used(stat, 0).ok(), Some([4.0, 0.5, 1.0]));
        assert_eq!(not_used(stat, 10).ok(), Some([2.0, 0.0, 0.0]));
        assert!(not_used(stat, 1).is_err());
        let (idle, stolen) = (idle(0), stolen(0));
        assert!(idle.is_ok_and(|idle| stolen.is_ok_and(|stolen| idle >= stolen)));
    }
}
