//! The store, for other parts of the daemon.

use super::link::Link;
use tokio::sync::watch;

/// Lets other parts of the daemon keep values with the group.
#[derive(Debug, Clone)]
pub struct Shared {
    standing: watch::Receiver<Standing>,
}

/// Whether there is a store.
#[derive(Debug, Clone)]
pub enum Standing {
    /// None is configured: this balancer is alone.
    Alone,
    /// It does not answer, for this reason.
    Away(String),
    /// It does.
    There(Box<Link>),
}

impl Shared {
    /// That follows what the part says.
    pub const fn new(standing: watch::Receiver<Standing>) -> Self {
        Shared { standing }
    }

    /// How it is now.
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }
}
