//! The loop between the state, the kernel and the rest of the agent.

use super::state::{Answer, Event, Query, State};
use super::{NextHopError, Table};
use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

/// Queries in one datagram: their answers fit into a socket's default buffer several times.
const BATCH: usize = 64;
/// The first wait before the sockets are opened anew, doubled up to [`RESTART_MAX`].
const RESTART_FIRST: Duration = Duration::from_millis(10);
/// The longest wait. It is also how long all has to go well for the next wait to be short.
const RESTART_MAX: Duration = Duration::from_secs(5);
/// The least time between two warnings about neighbors that the kernel refuses.
const WARN_GAP: Duration = Duration::from_secs(60);

/// The kernel, as far as next hops need it.
pub(super) trait Kernel: Send {
    /// Asks queries, at most [`BATCH`], and waits for all their answers.
    fn ask(
        &mut self,
        queries: &[Query],
    ) -> impl Future<Output = Result<Vec<Answer>, NextHopError>> + Send;

    /// Waits for changes and adds them. May be dropped at any time without a loss.
    fn events(
        &mut self,
        events: &mut Vec<Event>,
    ) -> impl Future<Output = Result<(), NextHopError>> + Send;
}

/// See [`super::Usage`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) queries: AtomicU64,
    pub(super) events: AtomicU64,
    pub(super) resyncs: AtomicU64,
    pub(super) restarts: AtomicU64,
    pub(super) refusals: AtomicU64,
}

fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

/// Opens the sockets and has the links listed, so that what fails always fails at the start.
pub(super) async fn connect<K: Kernel>(
    state: &mut State,
    open: impl Fn() -> Result<K, NextHopError>,
) -> Result<K, NextHopError> {
    let mut kernel = open()?;
    let now = Instant::now().into_std();
    let queries = state.queries(now, BATCH);
    for answer in kernel.ask(&queries).await? {
        state.answer(now, answer);
    }
    Ok(kernel)
}

/// What the task owns.
pub(super) struct Driver {
    state: State,
    follow: watch::Receiver<Arc<BTreeSet<IpAddr>>>,
    table: watch::Sender<Arc<Table>>,
    counters: Arc<Counters>,
    warned: Option<Instant>,
}

impl Driver {
    pub(super) fn new(
        state: State,
        follow: watch::Receiver<Arc<BTreeSet<IpAddr>>>,
        table: watch::Sender<Arc<Table>>,
        counters: Arc<Counters>,
    ) -> Self {
        Driver {
            state,
            follow,
            table,
            counters,
            warned: None,
        }
    }

    /// Runs until nobody can change the set of addresses any more.
    pub(super) async fn run<K: Kernel>(
        mut self,
        kernel: K,
        open: impl Fn() -> Result<K, NextHopError> + Send,
    ) {
        let mut kernel = Ok(kernel);
        let mut wait = RESTART_FIRST;
        loop {
            let began = Instant::now();
            let error = match kernel {
                Ok(kernel) => match self.session(kernel).await {
                    Ok(()) => return,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if began.elapsed() >= RESTART_MAX {
                wait = RESTART_FIRST;
            }
            if matches!(error, NextHopError::Overrun) {
                tracing::warn!(%error, "next hops: asking for everything anew");
                count(&self.counters.resyncs, 1);
            } else {
                tracing::error!(%error, ?wait, "next hops: the last table stays in force");
                count(&self.counters.restarts, 1);
            }
            sleep(wait).await;
            if self.follow.has_changed().is_err() {
                return;
            }
            wait = (wait * 2).min(RESTART_MAX);
            // Sockets first: what changes after the answers is heard of.
            kernel = open();
            self.state.resync(Instant::now().into_std());
        }
    }

    /// Works with one pair of sockets until it fails; `Ok` at the end of everything.
    async fn session<K: Kernel>(&mut self, mut kernel: K) -> Result<(), NextHopError> {
        let mut events = Vec::new();
        loop {
            self.ask(&mut kernel).await?;
            if let Some(table) = self.state.publish(Instant::now().into_std()) {
                self.table.send_replace(table);
            }
            let deadline = self.state.next_deadline().map(Instant::from_std);
            let due = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                followed = self.follow.changed() => match followed {
                    Ok(()) => self.take_followed(),
                    Err(_) => return Ok(()),
                },
                heard = kernel.events(&mut events) => {
                    heard?;
                    self.take_events(&mut events);
                }
                () = due => {}
            }
        }
    }

    /// One batch of queries. Not all that are due: events and tables come between.
    async fn ask<K: Kernel>(&mut self, kernel: &mut K) -> Result<(), NextHopError> {
        let queries = self.state.queries(Instant::now().into_std(), BATCH);
        if queries.is_empty() {
            return Ok(());
        }
        count(&self.counters.queries, queries.len());
        let answers = kernel.ask(&queries).await?;
        let now = Instant::now();
        for answer in answers {
            if let Answer::Use(hop, Err(errno)) = answer {
                self.refused(now, hop.address, errno);
            }
            self.state.answer(now.into_std(), answer);
        }
        Ok(())
    }

    fn take_followed(&mut self) {
        let addresses = Arc::clone(&self.follow.borrow_and_update());
        self.state.follow(Instant::now().into_std(), &addresses);
    }

    fn take_events(&mut self, events: &mut Vec<Event>) {
        let now = Instant::now().into_std();
        let mut of_concern = 0;
        for event in events.drain(..) {
            of_concern += usize::from(self.state.event(now, event));
        }
        count(&self.counters.events, of_concern);
    }

    /// The kernel does not take up a neighbor: say so, now and then.
    fn refused(&mut self, now: Instant, neighbour: IpAddr, errno: i32) {
        count(&self.counters.refusals, 1);
        if self.warned.is_some_and(|at| now - at < WARN_GAP) {
            return;
        }
        self.warned = Some(now);
        let error = std::io::Error::from_raw_os_error(errno);
        let help = match errno {
            libc::ENOBUFS => {
                "the kernel's neighbor table is full: raise net.ipv4.neigh.default.gc_thresh3 (or \
                 net.ipv6), and gc_thresh2 with it, above the number of hosts on the links"
            }
            libc::EPERM => "resolving needs CAP_NET_ADMIN",
            _ => "see `ip neigh` and `ip link`",
        };
        tracing::warn!(%neighbour, %error, help, "the kernel does not resolve a next hop");
    }
}

#[cfg(test)]
mod tests;
