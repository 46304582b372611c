//! What systemd is told where it started the daemon, and how the log is written: both follow what is
//! in force.

use super::actor::Event;
use super::parts::{Ending, Wires};
use super::view::View;
use lockstep_ctl_core::config::operation::{LogFormat, LogLevel};
use lockstep_process::log::{Format, Log};
use lockstep_process::manager::Manager;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};

/// How often the actor is asked for a sign of life, in the time that systemd waits for one.
const SIGNS: u32 = 4;
/// The time between questions where nobody waits for their answers.
const UNWATCHED: Duration = Duration::from_secs(3_600);

/// Runs until the daemon ends, and says that it does.
pub async fn run(mut wires: Wires, mut view: watch::Receiver<View>, log: Log) {
    let manager = Manager::of_this_process();
    let mut signs = interval(
        manager
            .patience()
            .map_or(UNWATCHED, |patience| patience / SIGNS),
    );
    signs.set_missed_tick_behavior(MissedTickBehavior::Delay);
    manager.ready();
    let mut said = String::new();
    loop {
        let operation = wires.config.borrow_and_update().operation.clone();
        log.set(
            operation.log.map(format),
            operation.level.map(LogLevel::name),
        );
        let sentence = sentence(&view.borrow_and_update());
        if sentence != said {
            manager.status(&sentence);
            said = sentence;
        }
        let ended = wires.ending.wait_for(|ending| *ending != Ending::Running);
        let mut is_asked = false;
        // Whoever is gone takes the daemon with it.
        let is_over = tokio::select! {
            _ = ended => true,
            changed = wires.config.changed() => changed.is_err(),
            changed = view.changed() => changed.is_err(),
            _ = signs.tick() => {
                is_asked = manager.patience().is_some();
                false
            }
        };
        if is_over {
            break;
        }
        if is_asked && is_alive(&wires.events).await {
            manager.alive();
        }
    }
    manager.stopping();
}

const fn format(format: LogFormat) -> Format {
    match format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    }
}

/// Whether the actor still handles events. One that waits for the engine answers later: the time
/// that systemd waits has to be longer than that.
async fn is_alive(events: &mpsc::Sender<Event>) -> bool {
    let (reply, answer) = oneshot::channel();
    events.send(Event::Alive(reply)).await.is_ok() && answer.await.is_ok()
}

/// What `systemctl status` shows.
fn sentence(view: &View) -> String {
    if !view.engine_connected {
        "Waiting for the engine".to_owned()
    } else if !view.file_error.is_empty() || !view.config_error.is_empty() {
        "A file has errors, what was in force stays: see lockstep status".to_owned()
    } else if !view.engine_error.is_empty() {
        "The engine does not have what it should: see lockstep status".to_owned()
    } else if view.drained {
        format!("Drained; epoch {} is in force", view.epoch)
    } else {
        format!("Epoch {} is in force", view.epoch)
    }
}
