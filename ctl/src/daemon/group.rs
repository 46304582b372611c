//! Shares with the other balancers of the group, by a store: what the checks have found, drains,
//! and what random numbers were handed out.
//!
//! The daemon lives with and without the store: what the store said last stays until it is back
//! ([`lockstep_ctl_core::group`] has the rules), and connecting is tried again for as long as the
//! daemon runs.

use super::parts::{Ending, Wires};
use lockstep_ctl_core::config::{Config, store};
use rand::RngExt;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

mod desk;
mod link;
mod session;
mod shared;

use desk::Desk;
pub use link::{Lifetime, Link, Unanswered};
use session::End;
pub use shared::{Shared, Standing};

/// The first wait before the store is asked again.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// The longest one. A store that is back is found within this.
const LAST_RETRY: Duration = Duration::from_secs(3);

/// The part, and how others use it.
pub fn new(wires: Wires) -> (impl Future<Output = ()> + Send, Shared) {
    let standing = match wires.config.borrow().store {
        Some(_) => Standing::Away("the store was not asked yet".to_owned()),
        None => Standing::Alone,
    };
    let (sender, receiver) = watch::channel(standing);
    (run(wires, sender), Shared::new(receiver))
}

async fn run(mut wires: Wires, standing: watch::Sender<Standing>) {
    loop {
        let config = wires.config.borrow_and_update().clone();
        let end = match &config.store {
            None => alone(&mut wires, &standing).await,
            Some(store) => together(&mut wires, &standing, &config, store).await,
        };
        if end == End::Ending {
            return;
        }
    }
}

/// Until there is a store.
async fn alone(wires: &mut Wires, standing: &watch::Sender<Standing>) -> End {
    standing.send_replace(Standing::Alone);
    desk::forget(wires).await;
    loop {
        tokio::select! {
            end = ending(wires.ending.clone()) => return end,
            changed = wires.config.changed() => match changed {
                Ok(()) if wires.config.borrow().store.is_some() => return End::Config,
                Ok(()) => {}
                Err(_) => return End::Ending,
            }
        }
    }
}

/// With one store, until the configuration has another one.
async fn together(
    wires: &mut Wires,
    standing: &watch::Sender<Standing>,
    config: &Config,
    store: &store::Store,
) -> End {
    let mut desk = match Desk::new(wires, config, store) {
        Ok(desk) => desk,
        Err(error) => {
            tracing::error!("{error}");
            standing.send_replace(Standing::Away(error.clone()));
            desk::refuse(wires, store, error);
            return until_changed(wires, config).await;
        }
    };
    let mut wait = FIRST_RETRY;
    loop {
        standing.send_replace(Standing::Away(desk.error().to_owned()));
        let end = session::run(&mut desk, wires, standing).await;
        let error = match end {
            End::Lost { error, was_there } => {
                if was_there {
                    wait = FIRST_RETRY;
                }
                error
            }
            End::Config | End::Ending => return end,
        };
        desk.lost(wires, error).await;
        standing.send_replace(Standing::Away(desk.error().to_owned()));
        // Balancers that lost it together do not come back together.
        let pause = wait.mul_f64(rand::rng().random_range(0.5..1.0));
        let at = Instant::now() + pause;
        wait = (wait * 2).min(LAST_RETRY);
        tokio::select! {
            () = sleep_until(at) => {}
            end = until_changed(wires, config) => return end,
        }
    }
}

/// Until the configuration has another store, or this balancer another name.
async fn until_changed(wires: &mut Wires, before: &Config) -> End {
    loop {
        tokio::select! {
            end = ending(wires.ending.clone()) => return end,
            changed = wires.config.changed() => match changed {
                Ok(()) if has_changed(before, &wires.config.borrow()) => return End::Config,
                Ok(()) => {}
                Err(_) => return End::Ending,
            }
        }
    }
}

fn has_changed(before: &Config, now: &Config) -> bool {
    before.store != now.store || before.operation.name != now.operation.name
}

async fn ending(mut ending: watch::Receiver<Ending>) -> End {
    // A sender that is gone means the end too.
    let _ = ending.wait_for(|e| *e != Ending::Running).await;
    End::Ending
}
