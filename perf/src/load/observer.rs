//! What the tested host's CPU does while a load is sent: neither while connections are set up before, nor
//! while what is on the way is waited for in the end.

use super::clock::now;
use crate::cpu;
use anyhow::Result;
use std::sync::mpsc::Receiver;

/// What the threads of a trial say of themselves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mark {
    /// One begins to send, and saw this.
    Begins(Look),
    /// One has sent all.
    Over,
    /// The trial has come to its end, or failed.
    Ended,
}

/// What a look at a CPU says, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    /// When that was.
    at: f64,
    /// For how long it had been idle by then.
    idle: f64,
}

impl Look {
    /// Now.
    pub fn at(cpu: usize) -> Result<Self> {
        let idle = cpu::idle(cpu)?;
        let at = now() as f64 / 1e9;
        Ok(Look { at, idle })
    }
}

/// Seconds of a CPU, and of how many.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observed {
    busy: f64,
    window: f64,
}

impl Observed {
    /// The CPU's seconds in `seconds` of sending; none where less than half of them were seen: an
    /// observer that did not get to run in time saw something else.
    pub fn of(self, seconds: f64) -> Option<f64> {
        (self.window > 0.0 && self.window >= seconds / 2.0)
            .then(|| self.busy * seconds / self.window)
    }
}

/// What the CPU did from when the first of `threads` threads began to send until the last one has sent
/// all; none if it never came to that.
///
/// It has a thread of its own, so that what arrives in the end does not wait for the second look.
pub fn observe(cpu: usize, threads: usize, marks: &Receiver<Mark>) -> Result<Option<Observed>> {
    between(threads, marks, || Look::at(cpu))
}

fn between(
    threads: usize,
    marks: &Receiver<Mark>,
    look: impl FnOnce() -> Result<Look>,
) -> Result<Option<Observed>> {
    let mut first = None;
    let mut over = 0;
    // Whoever is gone has nothing more to say, either.
    while let Ok(mark) = marks.recv() {
        match mark {
            Mark::Begins(look) => first = first.or(Some(look)),
            Mark::Over => over += 1,
            Mark::Ended => break,
        }
        if over == threads {
            let Some(first) = first else { break };
            let last = look()?;
            let window = last.at - first.at;
            let busy = (window - (last.idle - first.idle)).clamp(0.0, window.max(0.0));
            return Ok(Some(Observed { busy, window }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::load::live::{LEAD, Live};
    use std::sync::mpsc::channel;

    const EARLY: Look = Look {
        at: 10.0,
        idle: 100.0,
    };
    const LATER: Look = Look {
        at: 11.0,
        idle: 100.5,
    };

    /// What is seen by an observer of two threads.
    fn seen(marks: &[Mark]) -> Option<Observed> {
        let (sender, receiver) = channel();
        marks.iter().for_each(|mark| sender.send(*mark).unwrap());
        drop(sender);
        let last = Look {
            at: 14.0,
            idle: 103.0,
        };
        between(2, &receiver, || Ok(last)).unwrap()
    }

    #[test]
    fn a_cpu_is_looked_at_from_the_first_that_sends_to_the_last_that_has_sent_all() {
        use Mark::{Begins, Ended, Over};
        let all = [Begins(EARLY), Begins(LATER), Over, Over, Ended];
        // Three of four seconds it was idle.
        let observed = seen(&all).unwrap();
        assert_eq!(
            observed,
            Observed {
                busy: 1.0,
                window: 4.0
            }
        );
        assert_eq!(observed.of(5.0), Some(1.25));
        assert_eq!(observed.of(9.0), None);
        for marks in [&all[..3], &[Begins(EARLY), Over, Ended], &[Ended], &[]] {
            assert_eq!(seen(marks), None, "{marks:?}");
        }
    }

    #[test]
    fn the_first_look_is_a_little_before_the_start_and_waits_for_nothing_once_all_is_over() {
        let (sender, receiver) = channel();
        let live = Live::new(false, Some((0, sender)));
        let start = now() + 2_000_000;
        live.begins_at(start).unwrap();
        let Ok(Mark::Begins(look)) = receiver.try_recv() else {
            panic!("nobody has looked")
        };
        assert!(look.at >= (start - LEAD) as f64 / 1e9, "{look:?} {start}");
        live.stop(false);
        live.begins_at(u64::MAX).unwrap();
        Live::new(false, None).begins_at(u64::MAX).unwrap();
    }
}
