//! What the daemon may do that others may not: nothing, except in one thread.
//!
//! Capabilities belong to threads (capabilities(7)). At the start every one is given up, but for
//! those of [`KEPT`] in the *permitted* set of one thread, which talks to nobody. A file that is
//! changed later may need another port or another socket at any time: that thread opens it, and
//! has what it takes in the *effective* set for just as long. Whoever talks to routers, backends
//! and neighbors gets the open socket. Scripts are started by threads without capabilities, and
//! `no_new_privs` sees to it that root's own programs do not get theirs back.

use super::parts::{Ending, Wires};
use lockstep_ctl_core::config::process::Capability;
use rustix::thread::{self, CapabilitySet, CapabilitySets};
use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use tokio::net::TcpListener;
use tokio::runtime::Handle;

/// A port below 1024.
pub const LOW_PORT: CapabilitySet = CapabilitySet::NET_BIND_SERVICE;
/// Pings, and frames of a link.
pub const RAW: CapabilitySet = CapabilitySet::NET_RAW;
/// The device, the route and the mark of checks through tunnels.
pub const NETWORK: CapabilitySet = CapabilitySet::NET_ADMIN;

/// All that is ever needed.
const KEPT: CapabilitySet = LOW_PORT.union(RAW).union(NETWORK);

/// The name of the thread.
const THREAD: &str = "capabilities";
/// Work that waits for it. Who has more waits.
const WAITING: usize = 16;

type Work = Box<dyn FnOnce() + Send>;

/// The way to the thread. What a process may do is one thing of the whole process, as the kernel
/// has it; where there is no such thread (tests of single parts) everybody has what there is.
static KEEPER: OnceLock<SyncSender<Work>> = OnceLock::new();

/// Gives up what is not needed. To be called once, before there is another thread: those begun
/// later have what this one has left.
///
/// # Errors
/// When the system refuses; what there was is left then.
pub fn start() -> io::Result<()> {
    thread::set_no_new_privs(true)?;
    let permitted = thread::capabilities(None)?.permitted;
    forget_bounding();
    let (give, work) = sync_channel(WAITING);
    let (ready, readied) = sync_channel(1);
    std::thread::Builder::new()
        .name(THREAD.to_owned())
        .spawn(move || keep(permitted & KEPT, &work, &ready))?;
    let gone = |_| io::Error::other("its thread has ended");
    readied.recv().map_err(gone)??;
    set(CapabilitySet::empty(), CapabilitySet::empty())?;
    // It is the only one, as this is called once.
    let _ = KEEPER.set(give);
    Ok(())
}

/// Takes the bounding set away, as far as this process may: without `CAP_SETPCAP`, as under the
/// package's unit, that is left to `no_new_privs`.
fn forget_bounding() {
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if thread::remove_capability_from_bounding_set(one).is_err() {
            // Not allowed, or the kernel has no more of them.
            return;
        }
    }
}

/// Also ends what children would inherit, and with it the ambient set.
fn set(permitted: CapabilitySet, effective: CapabilitySet) -> io::Result<()> {
    let sets = CapabilitySets {
        effective,
        permitted,
        inheritable: CapabilitySet::empty(),
    };
    thread::set_capabilities(None, sets).map_err(io::Error::from)
}

fn keep(kept: CapabilitySet, work: &Receiver<Work>, ready: &SyncSender<io::Result<()>>) {
    // Whoever waits for it is there still.
    let _ = ready.send(set(kept, CapabilitySet::empty()));
    while let Ok(work) = work.recv() {
        work();
    }
}

/// Does something that needs these capabilities, which should be short: others wait for their turn.
/// What it opens belongs to the runtime of whoever calls.
///
/// # Errors
/// Those of the work; also when there is nobody to do it.
pub fn with<T: Send + 'static>(
    needed: CapabilitySet,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let Some(keeper) = KEEPER.get() else {
        return work();
    };
    let runtime = Handle::try_current().ok();
    let (done, result) = sync_channel(1);
    let work = move || {
        let _entered = runtime.as_ref().map(Handle::enter);
        let _ = done.send(raised(needed, work));
    };
    let gone = || io::Error::other("the thread with the capabilities has ended");
    keeper.send(Box::new(work)).map_err(|_| gone())?;
    result.recv().map_err(|_| gone())?
}

/// Whether what is not permitted any more was needed is left to the system.
fn raised<T>(needed: CapabilitySet, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let permitted = thread::capabilities(None)?.permitted;
    set(permitted, permitted & needed)?;
    let result = work();
    let permitted = thread::capabilities(None)?.permitted;
    set(permitted, CapabilitySet::empty())?;
    result.map_err(|error| explained(error, needed - permitted))
}

/// A refusal, with what is missing.
fn explained(error: io::Error, missing: CapabilitySet) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied || missing.is_empty() {
        return error;
    }
    let missing: Vec<_> = missing
        .iter_names()
        .map(|(name, _)| format!("CAP_{name}"))
        .collect();
    let missing = missing.join(", ");
    let text = format!("{error}; lockstepd has no {missing}, or gave it up by `drop` in [process]");
    io::Error::new(error.kind(), text)
}

/// Gives capabilities up for as long as the daemon runs.
///
/// # Errors
/// When the system refuses.
fn give_up(dropped: CapabilitySet) -> io::Result<()> {
    with(CapabilitySet::empty(), move || {
        let permitted = thread::capabilities(None)?.permitted;
        set(permitted - dropped, CapabilitySet::empty())
    })
}

/// Listens at an address, with whatever port.
///
/// # Errors
/// When the system refuses.
pub fn listen(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    with(LOW_PORT, move || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    })
}

const fn of(capability: Capability) -> CapabilitySet {
    match capability {
        Capability::NetBindService => LOW_PORT,
        Capability::NetRaw => RAW,
        Capability::NetAdmin => NETWORK,
    }
}

/// Gives up what `[process]` says, whenever it says more.
pub async fn run(mut wires: Wires) {
    let mut dropped = CapabilitySet::empty();
    loop {
        let process = wires.config.borrow_and_update().process.clone();
        let wanted = process.dropped.iter().map(|one| of(*one)).collect();
        if !dropped.contains(wanted) {
            match give_up(wanted) {
                Ok(()) => tracing::info!("gave up {process} until the next start"),
                Err(error) => tracing::error!("cannot give up {process}: {error}"),
            }
        } else if dropped != wanted {
            tracing::warn!("[process] drop: what was given up comes back with a restart");
        }
        dropped |= wanted;
        tokio::select! {
            changed = wires.config.changed() => if changed.is_err() { return },
            _ = wires.ending.wait_for(|ending| *ending != Ending::Running) => return,
        }
    }
}
