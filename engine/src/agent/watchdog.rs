//! The watchdog: a worker that shows no life loses its sockets, so that its packets go to the
//! kernel instead of nowhere.
//!
//! It also gives the heartbeat that the XDP programs look for. Were this whole process to hang,
//! the programs would miss it and pass everything to the kernel by themselves.

use super::{Agent, WorkerLink, WorkerState};
use crate::mailbox::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// What was seen of a worker.
struct Watched {
    turns: u64,
    since: Instant,
}

/// Watches all workers for ever.
pub async fn watch(agent: &Arc<Agent>) {
    let patience = agent.topology.engine().watchdog.get();
    let mut watched: Vec<Watched> = agent
        .workers
        .iter()
        .map(|_| Watched {
            turns: 0,
            since: Instant::now(),
        })
        .collect();
    let mut interval = tokio::time::interval((patience / 8).max(Duration::from_millis(2)));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        agent.steering.beat();
        for (worker, seen) in agent.workers.iter().zip(&mut watched) {
            let vitals = &worker.handle().vitals;
            if vitals.stopped.load(Ordering::Relaxed) {
                stopped(agent, worker);
                continue;
            }
            let turns = vitals.turns.load(Ordering::Relaxed);
            let alive = turns != seen.turns;
            if alive {
                *seen = Watched {
                    turns,
                    since: Instant::now(),
                };
            }
            match (worker.state(), alive) {
                (WorkerState::Running, false) if seen.since.elapsed() >= patience => {
                    agent.steering.close(worker.handle());
                    worker.set_state(WorkerState::Hung);
                    tracing::error!(
                        core = worker.handle().core,
                        "a worker shows no life; its queues go to the kernel until it does"
                    );
                }
                (WorkerState::Hung, true) => revive(agent, worker).await,
                (WorkerState::Running | WorkerState::Hung | WorkerState::Stopped, _) => {}
            }
        }
    }
}

/// Brings a worker that came back up to date before it gets packets again.
async fn revive(agent: &Arc<Agent>, worker: &WorkerLink) {
    let state = agent.state.lock().await;
    let adopt = Command::Adopt(Arc::clone(&state.tables));
    if worker.ask_anyhow(adopt).await.is_none() {
        return;
    }
    match agent.steering.open(worker.handle()) {
        Ok(()) => {
            worker.set_state(WorkerState::Running);
            tracing::info!(core = worker.handle().core, "the worker is back");
        }
        Err(error) => tracing::error!(%error, "the worker is back, its sockets are not"),
    }
}

fn stopped(agent: &Agent, worker: &WorkerLink) {
    if worker.state() != WorkerState::Stopped {
        agent.steering.close(worker.handle());
        worker.set_state(WorkerState::Stopped);
        agent.failed.notify_one();
    }
}
