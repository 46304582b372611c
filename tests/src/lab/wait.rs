//! Waiting for conditions: the only place of the lab that sleeps.

use anyhow::{Result, bail};
use std::thread::sleep;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(10);

/// Asks `condition` until it has a value.
///
/// # Errors
/// The condition's own error at once; after `timeout` one that says `what` was waited for.
pub fn wait_until<T>(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if start.elapsed() >= timeout {
            bail!("waited {timeout:?} in vain until {what}");
        }
        sleep(POLL);
    }
}
