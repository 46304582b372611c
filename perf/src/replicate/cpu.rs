//! CPU time, by the scheduler's own count in nanoseconds.
//!
//! A kernel without `IRQ_TIME_ACCOUNTING` counts what it does in software interrupts as time of the
//! program that was interrupted. So the time of the balancer's processes and of the `ksoftirqd` of
//! their CPU contains what the kernel does there for packets: all but what interrupts an idle CPU.

use anyhow::{Context, Result, bail};
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

/// CPU seconds of the kernel's thread for software interrupts of a CPU.
pub fn of_ksoftirqd(cpu: usize) -> Result<f64> {
    let wanted = format!("ksoftirqd/{cpu}");
    // They are among the first that a kernel starts, some for each CPU.
    for pid in 1..=LAST_KSOFTIRQD {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if name.trim_end() == wanted {
            return of_process(Pid::from_raw(pid));
        }
    }
    bail!("there is no {wanted}")
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
