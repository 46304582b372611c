//! The watchdog: a worker that shows no life loses its sockets, so that its packets go to the
//! kernel instead of nowhere.
//!
//! It also gives the heartbeat that the XDP programs look for. Were this whole process to hang,
//! the programs would miss it and pass everything to the kernel by themselves.

use super::{Agent, WorkerLink, WorkerState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// What was seen of a worker.
struct Watched {
    turns: u64,
    since: Instant,
}

/// Gives the heartbeat and watches all workers, for ever. Waits for nobody: a late beat sends
/// every packet to the kernel.
pub async fn watch(agent: &Agent) {
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
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
            let silent = !alive && seen.since.elapsed() >= patience;
            match worker.state() {
                WorkerState::Running | WorkerState::Returning if silent => {
                    agent.steering.close(worker.handle());
                    worker.set_state(WorkerState::Hung);
                    tracing::error!(
                        core = worker.handle().core,
                        "a worker shows no life; its queues go to the kernel until it does"
                    );
                }
                WorkerState::Hung if alive => worker.set_state(WorkerState::Returning),
                WorkerState::Running
                | WorkerState::Returning
                | WorkerState::Hung
                | WorkerState::Stopped => {}
            }
        }
    }
}

/// Brings workers up to date that missed tables, because they were hung or late, for ever.
pub async fn keep_up(agent: &Arc<Agent>) {
    let patience = agent.topology.engine().watchdog.get();
    let mut interval = tokio::time::interval((patience / 4).max(Duration::from_millis(5)));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        agent.steering.keep_locals();
        let behind = |worker: &&WorkerLink, tables| match worker.state() {
            WorkerState::Running => !worker.has(tables),
            WorkerState::Returning => true,
            WorkerState::Hung | WorkerState::Stopped => false,
        };
        let state = agent.state.lock().await;
        if let Err(error) = agent.equip(&state.tables).await {
            tracing::error!(%error, "a worker holds no sessions");
        }
        for worker in agent.workers.iter().filter(|w| behind(w, &state.tables)) {
            if worker.adopt(&state.tables).await && worker.state() == WorkerState::Returning {
                returned(agent, worker);
            }
        }
    }
}

/// Gives a worker that is up to date its packets again.
fn returned(agent: &Agent, worker: &WorkerLink) {
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
