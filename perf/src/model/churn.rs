//! The simulation: backends and balancers that come and go, and whose connections move.

use super::ecmp::Way;
use super::rack::{Rack, Random, Round};
use super::service::{Pool, disruption, ring_balance};
use anyhow::Result;
use lockstep_core::Seconds;

/// How large the simulation is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub backends: u32,
    pub balancers: u16,
    pub flows: usize,
    /// Entries of the ring.
    pub entries: u32,
    /// Half minutes that are simulated.
    pub steps: u32,
    pub seed: u64,
}

/// Seconds between two changes.
pub const STEP: u32 = 30;
/// Of so many connections one ends in a step, and another one begins: they last 25 minutes on average.
const RENEWED: usize = 50;
/// Steps from the loss of a balancer to the next one.
const LOSS: u32 = 10;
/// Steps for which the ring before a change is kept: a minute (ADR 9).
const KEPT: u32 = 60 / STEP;

/// What a loss of a balancer does, after so many backends were replaced.
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    /// Backends replaced since the connections began.
    pub replaced: usize,
    /// As simulated, more than a minute after that.
    pub moved: Round,
    /// By the model.
    pub expected: f64,
    /// As simulated, in the minute after it.
    pub at_once: Round,
}

/// For each number of replaced backends: connections are opened, the backends replaced, and a balancer
/// lost.
pub fn losses(size: &Size, way: Way, replaced: &[usize]) -> Result<Vec<Loss>> {
    let each = |&count: &usize| loss(size, way, count);
    replaced.iter().map(each).collect()
}

fn loss(size: &Size, way: Way, replaced: usize) -> Result<Loss> {
    let place = usize::from(size.balancers / 2);
    let elsewhere = way.share_moved_by_loss(usize::from(size.balancers), place);
    let mut rounds = [Round::default(); 2];
    let mut expected = 0.0;
    for (settled, result) in [true, false].into_iter().zip(&mut rounds) {
        let mut random = Random(size.seed);
        let mut pool = Pool::new(size.backends, size.entries)?;
        let mut rack = Rack::new(
            way,
            size.balancers,
            size.flows,
            random.next(),
            pool.in_force(),
        )?;
        let old = pool.in_force().clone();
        if replaced > 0 {
            pool.replace(replaced, |count| random.below(count))?;
        }
        if settled {
            // Every connection has a packet in that minute: only their balancers change nothing.
            rack.round(Seconds::new(30), pool.in_force(), false)?;
            pool.settle();
            expected = elsewhere * disruption(&old, pool.in_force());
        }
        rack.lose(place);
        *result = rack.round(Seconds::new(90), pool.in_force(), false)?;
    }
    Ok(Loss {
        replaced,
        moved: rounds[0],
        expected,
        at_once: rounds[1],
    })
}

/// A moment of the course.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub seconds: u32,
    pub round: Round,
    /// The most connections of a balancer, to the mean.
    pub balancers: f64,
    /// The most connections of a backend, to the mean.
    pub backends: f64,
    /// The most entries of a backend in the ring, to the mean.
    pub ring: f64,
    /// Entries of flow tables for each connection.
    pub entries: f64,
}

/// Backends that are exchanged one after the other, while every five minutes a balancer is lost and
/// half as long after that another one comes.
pub fn course(size: &Size, way: Way) -> Result<Vec<Moment>> {
    let mut random = Random(size.seed ^ 0xc0a5);
    let mut pool = Pool::new(size.backends, size.entries)?;
    let mut rack = Rack::new(
        way,
        size.balancers,
        size.flows,
        random.next(),
        pool.in_force(),
    )?;
    let mut moments = Vec::new();
    let mut kept_since = None;
    for step in 1..=size.steps {
        let seconds = step * STEP;
        let now = Seconds::new(u64::from(seconds));
        if kept_since.is_some_and(|since| step - since >= KEPT) {
            pool.settle();
            kept_since = None;
        }
        pool.replace(1, |count| random.below(count))?;
        kept_since.get_or_insert(step);
        match step % LOSS {
            0 => {
                let place = random.below(rack.hops().len());
                rack.lose(place);
            }
            left if left == LOSS / 2 && step > LOSS => rack.gain(),
            _ => {}
        }
        rack.renew(size.flows / RENEWED, now, pool.in_force())?;
        let round = rack.round(now, pool.in_force(), true)?;
        rack.sweep(now, pool.in_force());
        moments.push(Moment {
            seconds,
            round,
            balancers: rack.balance_of_balancers(),
            backends: rack.balance_of_backends(size.backends as usize),
            ring: ring_balance(pool.in_force()),
            entries: rack.entries(),
        });
    }
    Ok(moments)
}

/// The most that one of `parts` has of `things` thrown at them by chance, to the mean, to be expected
/// (Raab and Steger, "Balls into Bins", 1998, for many things in each).
pub fn chance(things: f64, parts: f64) -> f64 {
    1.0 + (2.0 * parts.ln() * parts / things).sqrt()
}

/// The most connections that a backend has in a [`course`], to the mean, to be expected: by chance, and
/// since backends that have just come have few yet: one comes in each step, while connections are renewed
/// at their own rate.
pub fn fullest_backend(size: &Size) -> f64 {
    let backends = f64::from(size.backends);
    let young = RENEWED as f64 / backends;
    (1.0 + young) * chance(size.flows as f64, backends)
}
