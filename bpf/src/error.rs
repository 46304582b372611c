//! What can go wrong, and what the operator can do about it.

use crate::interface::AttachMode;
use crate::{DECAP_ADDRESSES, QUEUES};
use std::io;
use std::path::PathBuf;

/// Why a program could not be loaded, attached or talked to.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// No interface of this name.
    #[error("interface {interface}: not there; `ip link` lists the interfaces of this host")]
    NoInterface {
        /// The name.
        interface: String,
    },
    /// The kernel wants privileges.
    #[error(
        "not permitted to {doing}; run as root or with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN"
    )]
    NotPermitted {
        /// What was tried.
        doing: String,
    },
    /// Somebody else's XDP program is there.
    #[error(
        "interface {interface}: XDP program {id} ({program}) is attached already; stop what \
         attached it, or remove it with `ip link set dev {interface} {keyword} off`"
    )]
    Busy {
        /// The interface.
        interface: String,
        /// The program's number, as `bpftool prog show id` takes it.
        id: u32,
        /// The program's name; empty where it has none.
        program: String,
        /// The mode as `ip link` spells it.
        keyword: &'static str,
    },
    /// A live process has the interface.
    #[error("interface {interface}: another engine runs on it (it holds {path}); stop that first")]
    InUse {
        /// The interface.
        interface: String,
        /// The directory it has locked.
        path: PathBuf,
    },
    /// Another process takes packets from it.
    #[error(
        "interface {interface}: another lockstep-perf takes its packets{}; wait until it has ended, give \
         this one an interface of its own, or, where both are for UDP, let one have all queues: --queue 0,1",
        process(*.pid)
    )]
    Taken {
        /// The interface.
        interface: String,
        /// The process; none where it is not to be seen from here.
        pid: Option<i32>,
    },
    /// The interface takes no XDP program in this mode.
    #[error("interface {interface}: takes no {mode} XDP program: {reason}; {}", advice(*.mode))]
    NoXdp {
        /// The interface.
        interface: String,
        /// The mode that was tried last.
        mode: AttachMode,
        /// What the kernel said.
        reason: String,
    },
    /// None of our programs is attached.
    #[error("interface {interface}: {program} is not attached")]
    NotAttached {
        /// The interface.
        interface: String,
        /// The program's name.
        program: &'static str,
    },
    /// Another netlink or BPF request about the interface failed.
    #[error("interface {interface}: cannot {doing}: {reason}")]
    Interface {
        /// The interface.
        interface: String,
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// Nothing can be pinned.
    #[error(
        "{path}: no BPF file system there, and none can be mounted ({reason}); {}",
        MOUNT
    )]
    NoBpffs {
        /// Where one is needed.
        path: PathBuf,
        /// Why it could not be mounted.
        reason: String,
    },
    /// A pin could not be made or removed.
    #[error("{path}: cannot {doing}")]
    Pin {
        /// The pin or its directory.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The kernel's verifier refused the program.
    #[error(
        "the kernel's verifier rejects {program}; it is made for Linux 6.1 and later, please \
         report this with `uname -r` and what the verifier said:\n{log}"
    )]
    Rejected {
        /// The program's name.
        program: &'static str,
        /// The end of the verifier's log.
        log: String,
    },
    /// The program could not be loaded for another reason.
    #[error("{program} cannot be loaded; libbpf says:\n{log}")]
    Load {
        /// The program's name.
        program: &'static str,
        /// The end of libbpf's messages.
        log: String,
        /// The error code.
        source: libbpf_rs::Error,
    },
    /// A map could not be read or written.
    #[error("map {map}: cannot {doing}")]
    Map {
        /// The map.
        map: &'static str,
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: libbpf_rs::Error,
    },
    /// A queue without a place in the socket map.
    #[error("queue {queue}: sockets are for queues 0 to {}", QUEUES - 1)]
    NoSuchQueue {
        /// The queue.
        queue: u32,
    },
    /// More than a map holds.
    #[error("{count} {map} are more than the {limit} that the XDP program holds")]
    TooMany {
        /// The map.
        map: &'static str,
        /// How many were given.
        count: usize,
        /// How many there can be.
        limit: usize,
    },
    /// More tunnel end points than the map holds.
    #[error("{count} tunnel addresses are more than the {DECAP_ADDRESSES} of one interface")]
    TooManyAddresses {
        /// How many were given.
        count: usize,
    },
    /// A heartbeat deadline that no heartbeat can keep.
    #[error("a heartbeat deadline of 0 would pass every packet to the kernel")]
    NoDeadline,
    /// The kernel cannot run the program on a frame.
    #[error("cannot run {program} on a frame of {length} bytes")]
    TestRun {
        /// The program's name.
        program: &'static str,
        /// The frame's length.
        length: usize,
        /// Why not.
        source: libbpf_rs::Error,
    },
}

const MOUNT: &str = "mount it with `mount -t bpf bpf /sys/fs/bpf`, or name another directory";

fn process(pid: Option<i32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

fn advice(mode: AttachMode) -> &'static str {
    match mode {
        AttachMode::Native => {
            "ask for mode \"auto\" or \"generic\", lower the MTU, or use as many RX queues as the \
             driver wants for XDP"
        }
        AttachMode::Generic => "turn off LRO (`ethtool -K DEV lro off`)",
    }
}
