//! Who takes an interface's packets: one living process at a time.

use crate::BpfError;
use crate::interface::Interface;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen,
    socket, sockopt,
};
use std::os::fd::{AsRawFd, OwnedFd};

/// An interface that is this process's own while this lives.
///
/// It is an abstract Unix socket with the interface's number in its name. Those are of a network
/// namespace, as interfaces are, and the kernel frees them with their process, however that ends.
#[derive(Debug)]
pub(crate) struct Owner {
    /// None: another of the same process has it.
    _socket: Option<OwnedFd>,
}

impl Owner {
    /// Of an interface of the calling thread's network namespace; of the same one as often as the
    /// process likes.
    pub(crate) fn of(interface: &Interface) -> Result<Self, BpfError> {
        let failed = |errno: Errno| {
            interface.failed("find out whether it is taken", errno.desc().to_owned())
        };
        let name = format!("lockstep-load-{}", interface.index());
        let address = UnixAddr::new_abstract(name.as_bytes()).map_err(failed)?;
        let socket = stream().map_err(failed)?;
        match bind(socket.as_raw_fd(), &address) {
            Ok(()) => {
                // Whoever connects learns who has it.
                listen(&socket, Backlog::MAXCONN).map_err(failed)?;
                Ok(Owner {
                    _socket: Some(socket),
                })
            }
            Err(Errno::EADDRINUSE) => match holder(&address) {
                Some(pid) if pid.unsigned_abs() == std::process::id() => {
                    Ok(Owner { _socket: None })
                }
                pid => Err(BpfError::Taken {
                    interface: interface.name().to_owned(),
                    pid,
                }),
            },
            Err(errno) => Err(failed(errno)),
        }
    }
}

/// The process that has it; none where that is not to be seen from here.
fn holder(address: &UnixAddr) -> Option<i32> {
    let socket = stream().ok()?;
    connect(socket.as_raw_fd(), address).ok()?;
    let pid = getsockopt(&socket, sockopt::PeerCredentials).ok()?.pid();
    (pid > 0).then_some(pid)
}

/// It does not wait: nobody takes up the other end.
fn stream() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::Stream, flags, None)
}
