//! Chance with a seed that can be given again.

use crate::pattern::splitmix;
use anyhow::{Context, Result};
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

const VARIABLE: &str = "SCENARIO_SEED";

/// A die.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// With the seed of the environment's `SCENARIO_SEED`, or else one of this moment; it is printed, so
    /// that what failed can be had again.
    pub fn new() -> Result<Self> {
        let seed = match std::env::var(VARIABLE) {
            Ok(text) => text.parse().with_context(|| format!("{VARIABLE}={text}"))?,
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as u64,
        };
        println!("{VARIABLE}={seed}");
        Ok(Dice(seed))
    }

    /// A number of this range.
    ///
    /// # Panics
    /// When there is none.
    pub fn of(&mut self, range: Range<u64>) -> u64 {
        range.start + splitmix(&mut self.0) % (range.end - range.start)
    }
}
