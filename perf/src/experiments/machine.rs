//! What a machine and a program on it do meanwhile: CPU and context switches, as vmstat has them.

use crate::cpu::{self, Busy, Unused};
use crate::reading::Reading;
use anyhow::{Context, Result};
use lockstep_tests::lab::wait_until;
use nix::unistd::Pid;
use std::fs;
use std::time::{Duration, Instant};

/// A wait for the next sample that takes longer than this has failed.
const LATE: Duration = Duration::from_secs(10);

/// What was counted up to one time.
#[derive(Debug, Clone, Copy)]
struct Counts {
    /// Seconds for which each of the two CPUs was idle.
    unused: [Unused; 2],
    switches: u64,
    program: Option<Program>,
}

/// What a program was counted.
#[derive(Debug, Clone, Copy)]
struct Program {
    cpu_seconds: f64,
    switches: u64,
}

/// The time between two counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Seconds from the beginning to its middle.
    pub at: f64,
    /// How long it was, in seconds.
    pub seconds: f64,
    /// The share of both CPUs that was not idle, in percent.
    pub cpu: f64,
    /// That of the balancer's alone.
    pub balancer_cpu: f64,
    /// Context switches of the machine, a second.
    pub switches: f64,
    /// CPU of the balancer's program, in percent of one; none where the kernel balances.
    pub program_cpu: Option<f64>,
    /// Its context switches, a second.
    pub program_switches: Option<f64>,
}

/// Counts in equal steps.
#[derive(Debug)]
pub struct Sampler {
    cpus: crate::replicate::Cpus,
    program: Option<Pid>,
    begin: Instant,
    last: Reading<Counts>,
    samples: Vec<Sample>,
}

impl Sampler {
    /// Begins now; `program` is the balancer's, if there is one.
    pub fn start(cpus: crate::replicate::Cpus, program: Option<Pid>) -> Result<Self> {
        let last = count(cpus, program)?;
        Ok(Sampler {
            cpus,
            program,
            begin: last.at,
            last,
            samples: Vec::new(),
        })
    }

    /// Waits until a step of `length` is over and takes a sample, or until `ended`, which may fail.
    /// Whether a sample was taken.
    pub fn step(
        &mut self,
        length: Duration,
        mut ended: impl FnMut() -> Result<bool>,
    ) -> Result<bool> {
        let begin = self.last.at;
        let over = wait_until("a sample is due", length + LATE, || {
            if ended()? {
                return Ok(Some(false));
            }
            Ok((begin.elapsed() >= length).then_some(true))
        })?;
        if over {
            let now = count(self.cpus, self.program)?;
            self.samples.push(sample(self.begin, self.last, now)?);
            self.last = now;
        }
        Ok(over)
    }

    /// All samples.
    pub fn finish(self) -> Vec<Sample> {
        self.samples
    }
}

fn count(cpus: crate::replicate::Cpus, program: Option<Pid>) -> Result<Reading<Counts>> {
    Reading::make(|| {
        let program = program.map(|pid| -> Result<Program> {
            Ok(Program {
                cpu_seconds: cpu::of_process(pid)?,
                switches: switches_of_process(pid)?,
            })
        });
        let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        Ok(Counts {
            unused: [cpu::unused(cpus.endpoints)?, cpu::unused(cpus.balancer)?],
            switches: switches_in(&stat).context("/proc/stat has no context switches")?,
            program: program.transpose()?,
        })
    })
}

fn sample(begin: Instant, before: Reading<Counts>, now: Reading<Counts>) -> Result<Sample> {
    let seconds = now.seconds_since(&before);
    let busy = |cpu: usize| -> Result<f64> {
        let unused = |counts: Reading<Counts>| Reading {
            at: counts.at,
            value: counts.value.unused[cpu],
        };
        Ok(100.0 * Busy::between(unused(before), unused(now))?.share())
    };
    let at = (before.at - begin).as_secs_f64() + seconds / 2.0;
    let busy = [busy(0)?, busy(1)?];
    let (before, now) = (before.value, now.value);
    let program = now.program.zip(before.program);
    let cpu = |(now, before): (Program, Program)| now.cpu_seconds - before.cpu_seconds;
    // A thread that has ended takes its count along.
    let switches = |(now, before): (Program, Program)| now.switches.saturating_sub(before.switches);
    Ok(Sample {
        at,
        seconds,
        cpu: (busy[0] + busy[1]) / 2.0,
        balancer_cpu: busy[1],
        switches: (now.switches - before.switches) as f64 / seconds,
        program_cpu: program.map(|pair| 100.0 * cpu(pair) / seconds),
        program_switches: program.map(|pair| switches(pair) as f64 / seconds),
    })
}

/// proc_stat(5): `ctxt`, of the whole machine since it was started.
fn switches_in(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("ctxt "));
    line?.trim().parse().ok()
}

/// Of all its threads.
fn switches_of_process(pid: Pid) -> Result<u64> {
    let tasks = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&tasks).with_context(|| format!("no {tasks}: it has ended"))?;
    let mut total = 0;
    for task in entries {
        // A thread may end meanwhile.
        let text = fs::read_to_string(task?.path().join("status")).unwrap_or_default();
        total += switches_of_thread(&text).unwrap_or(0);
    }
    Ok(total)
}

/// proc_pid_status(5): those it asked for by waiting, and those it did not.
fn switches_of_thread(status: &str) -> Option<u64> {
    let value = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line?.trim().parse::<u64>().ok()
    };
    Some(value("voluntary_ctxt_switches:")? + value("nonvoluntary_ctxt_switches:")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_switches_of_the_machine_and_of_a_thread_are_read() {
        let stat = "cpu0 1 2 3\nintr 5 0\nctxt 1990473\nbtime 1062191376\n";
        assert_eq!(switches_in(stat), Some(1_990_473));
        assert_eq!(switches_in("cpu0 1 2 3\n"), None);
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t5\n";
        assert_eq!(switches_of_thread(status), Some(155));
        assert_eq!(switches_of_thread("Name:\tx\n"), None);
    }

    #[test]
    fn a_sample_is_what_was_counted_between_two_times() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let counts = |seconds, idle: [f64; 2], switches, program| Reading {
            at: at(seconds),
            value: Counts {
                unused: idle.map(|idle| Unused { idle, stolen: 0.0 }),
                switches,
                program,
            },
        };
        let program = |cpu_seconds, switches| {
            Some(Program {
                cpu_seconds,
                switches,
            })
        };
        let found = sample(
            begin,
            counts(1, [5.0, 7.0], 1_000, program(3.0, 10)),
            counts(3, [5.0, 8.0], 1_500, program(4.0, 30)),
        )
        .expect("it can be");
        let expected = Sample {
            at: 2.0,
            seconds: 2.0,
            cpu: 75.0,
            balancer_cpu: 50.0,
            switches: 250.0,
            program_cpu: Some(50.0),
            program_switches: Some(10.0),
        };
        assert_eq!(found, expected);
        let kernel = sample(
            begin,
            counts(0, [0.0; 2], 0, None),
            counts(1, [1.01; 2], 1, None),
        )
        .expect("a step of the clock more than all of it");
        assert_eq!((kernel.cpu, kernel.program_cpu), (0.0, None));
        let never = sample(
            begin,
            counts(0, [0.0; 2], 0, None),
            counts(1, [2.0; 2], 1, None),
        );
        assert!(never.is_err(), "idle for two seconds of one");
    }
}
