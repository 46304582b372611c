//! What the tested host's CPU does while a load is sent: neither while connections are set up before, nor
//! while what is on the way is waited for in the end.

use super::clock::now;
use crate::cpu;
use anyhow::Result;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

/// What the threads of a trial say of themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// One begins to send at this time.
    Begins(u64),
    /// One has sent all.
    Over,
    /// The trial has come to its end, or failed.
    Ended,
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

/// Looks at the CPU when the first of `threads` threads begins to send, and when the last one has sent
/// all; none if it never came to that.
///
/// It has a thread of its own: a look at the kernel's statistics takes longer than a packet may wait.
pub fn observe(cpu: usize, threads: usize, marks: &Receiver<Mark>) -> Result<Option<Observed>> {
    between(threads, marks, |at| {
        let before = at.saturating_sub(now());
        thread::sleep(Duration::from_nanos(before));
        Ok((now() as f64 / 1e9, cpu::idle(cpu)?))
    })
}

/// `look` waits for a time and says when it looked, and for how long the CPU had been idle by then.
fn between(
    threads: usize,
    marks: &Receiver<Mark>,
    mut look: impl FnMut(u64) -> Result<(f64, f64)>,
) -> Result<Option<Observed>> {
    let mut first = None;
    let mut over = 0;
    // Whoever is gone has nothing more to say, either.
    while let Ok(mark) = marks.recv() {
        match mark {
            Mark::Begins(at) if first.is_none() => first = Some(look(at)?),
            Mark::Begins(_) => {}
            Mark::Over => over += 1,
            Mark::Ended => break,
        }
        if over == threads {
            let Some((began, idle)) = first else { break };
            let (end, idle_then) = look(0)?;
            let window = end - began;
            let busy = (window - (idle_then - idle)).clamp(0.0, window.max(0.0));
            return Ok(Some(Observed { busy, window }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    /// What is seen by an observer of two threads, and the times that it waited for.
    fn seen(marks: &[Mark]) -> (Option<Observed>, Vec<u64>) {
        let (sender, receiver) = channel();
        marks.iter().for_each(|mark| sender.send(*mark).unwrap());
        drop(sender);
        let mut waited = Vec::new();
        let mut looks = [(10.0, 100.0), (14.0, 103.0)].into_iter();
        let observed = between(2, &receiver, |at| {
            waited.push(at);
            Ok(looks.next().unwrap())
        });
        (observed.unwrap(), waited)
    }

    #[test]
    fn a_cpu_is_looked_at_from_the_first_that_sends_to_the_last_that_has_sent_all() {
        use Mark::{Begins, Ended, Over};
        let all = [Begins(7), Begins(8), Over, Over, Ended];
        let (observed, waited) = seen(&all);
        // Three of four seconds it was idle.
        let observed = observed.unwrap();
        assert_eq!(
            observed,
            Observed {
                busy: 1.0,
                window: 4.0
            }
        );
        assert_eq!(waited, [7, 0]);
        assert_eq!(observed.of(5.0), Some(1.25));
        assert_eq!(observed.of(9.0), None);
        for marks in [&all[..3], &[Begins(7), Over, Ended], &[Ended], &[]] {
            assert_eq!(seen(marks).0, None, "{marks:?}");
        }
    }
}
