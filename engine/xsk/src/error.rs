//! What can go wrong, with what the operator can do about it.

use std::io;
use std::time::Duration;

use crate::mode::BindMode;

/// Why a UMEM or a port could not be set up, or stopped working.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XskError {
    /// The process may not open AF_XDP sockets.
    #[error(
        "no permission to open an AF_XDP socket: run as root, or grant CAP_NET_RAW (sockets), \
         CAP_NET_ADMIN and CAP_BPF (the XDP program)"
    )]
    NotPermitted,

    /// The kernel was built without `CONFIG_XDP_SOCKETS`.
    #[error(
        "this kernel has no AF_XDP: use one built with CONFIG_XDP_SOCKETS (Linux 5.11 or newer)"
    )]
    NotSupported,

    /// The kernel may not lock this much memory for the process.
    #[error(
        "cannot lock {needed} bytes of packet memory, the limit is {limit} bytes: grant \
         CAP_IPC_LOCK, or raise the limit (`ulimit -l unlimited`, or LimitMEMLOCK=infinity in the \
         systemd unit)"
    )]
    Memlock {
        /// Bytes to be locked.
        needed: u64,
        /// The hard `RLIMIT_MEMLOCK`, in bytes.
        limit: u64,
    },

    /// There is not enough memory for the UMEM.
    #[error(
        "no memory for a UMEM of {bytes} bytes: configure fewer frames, or free memory ({source})"
    )]
    UmemMemory {
        /// The size that was asked for.
        bytes: u64,
        /// What the kernel said.
        source: io::Error,
    },

    /// The UMEM's numbers do not fit together.
    #[error("impossible UMEM: {reason}")]
    UmemConfig {
        /// What is wrong, and what is allowed.
        reason: String,
    },

    /// The UMEM could not be registered for a reason this crate has no advice for.
    #[error("cannot create a UMEM of {bytes} bytes: {source}")]
    Umem {
        /// The size that was asked for.
        bytes: u64,
        /// What the kernel said.
        source: io::Error,
    },

    /// The first port of this UMEM was closed. libxdp binds the first port on the UMEM's own
    /// socket, which cannot be bound twice.
    #[error(
        "{interface} queue {queue}: the first port of this UMEM was closed, so it takes no new \
         one: make a new UMEM"
    )]
    UmemSpent {
        /// The interface that was to be bound.
        interface: String,
        /// Its queue.
        queue: u32,
    },

    /// No interface has this name in the process's network namespace.
    #[error(
        "{interface} queue {queue}: no such interface in this network namespace: see `ip link`"
    )]
    NoSuchInterface {
        /// The name that was given.
        interface: String,
        /// The queue that was given.
        queue: u32,
    },

    /// The interface has fewer queues.
    #[error(
        "{interface} queue {queue}: no such queue, the interface has {queues} (numbered from 0): \
         choose another, or add channels with `ethtool -L {interface}`"
    )]
    NoSuchQueue {
        /// The interface.
        interface: String,
        /// The queue that was given.
        queue: u32,
        /// How many queues there are.
        queues: u32,
    },

    /// Another AF_XDP socket has the queue.
    #[error(
        "{interface} queue {queue}: still in use by another AF_XDP socket after {waited:?}: stop \
         the process that has it (`ss --xdp --processes` names it)"
    )]
    Busy {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// For how long binding was tried.
        waited: Duration,
    },

    /// Zero-copy was asked for and cannot be had.
    #[error(
        "{interface} queue {queue}: no zero-copy here: the driver lacks it, the MTU exceeds a \
         frame, or the UMEM's first port is in copy mode; ask for mode `auto` or `copy`"
    )]
    NoZeroCopy {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
    },

    /// All ports of one UMEM are zero-copy, or none.
    #[error(
        "{interface} queue {queue}: the ports of one worker share one UMEM and are all zero-copy \
         or all copy: the first one bound is {first}; ask for mode `copy` on all of them"
    )]
    SharedMode {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// "zero-copy" or "copy".
        first: &'static str,
    },

    /// The XDP program is attached in a way that rules out the mode asked for.
    #[error(
        "{interface} queue {queue}: mode `{asked}` does not go with an XDP program attached in \
         {} mode: attach it in {} mode, or ask for `auto`",
        attach_mode(*.program_native),
        attach_mode(!*.program_native)
    )]
    ProgramMode {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// What the operator asked for.
        asked: BindMode,
        /// Whether the program is attached in native mode.
        program_native: bool,
    },

    /// The kernel has no memory for the rings.
    #[error(
        "{interface} queue {queue}: no memory for its rings: configure smaller rings, or free \
         memory ({source})"
    )]
    RingMemory {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// What the kernel said.
        source: io::Error,
    },

    /// The pool cannot fill another fill ring.
    #[error(
        "{interface} queue {queue}: {free} frames are left and the fill ring takes {needed}: \
         configure more UMEM frames or smaller rings"
    )]
    NoFrames {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// Frames in the pool.
        free: u32,
        /// Frames a new port needs.
        needed: u32,
    },

    /// The interface was removed under the port.
    #[error("{interface} queue {queue}: the interface was removed: bind it again when it is back")]
    Gone {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
    },

    /// An operation failed for a reason this crate has no advice for.
    #[error("{interface} queue {queue}: cannot {operation}: {source}")]
    Socket {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// What was tried, as a verb.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },

    /// A descriptor does not tell an AF_XDP socket's statistics.
    #[error("cannot read the statistics of an AF_XDP socket: {source}")]
    Statistics {
        /// What the kernel said.
        source: io::Error,
    },

    /// More ports than one [`wait`](crate::wait) takes.
    #[error("cannot wait for more than {max} ports at once")]
    TooManyPorts {
        /// The most that can be waited for.
        max: usize,
    },

    /// Waiting failed.
    #[error("cannot wait for packets: {source}")]
    Wait {
        /// What the kernel said.
        source: io::Error,
    },
}

fn attach_mode(native: bool) -> &'static str {
    if native { "native" } else { "generic" }
}
