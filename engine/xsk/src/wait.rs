//! Waiting for packets, for workers that do not poll all the time.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use arrayvec::ArrayVec;

use crate::error::XskError;
use crate::port::Port;
use crate::socket::ppoll;
use crate::waker::Waker;

/// The most ports of one [`wait`].
pub const MAX_WAIT_PORTS: usize = 64;

/// How long to sleep at most while a port could not send all it has: nothing wakes the process
/// when the device takes packets again, so the worker has to come back and flush.
const UNSENT_TIMEOUT: Duration = Duration::from_millis(1);

/// Sleeps until a port has received something, or `waker` is woken, for at most `timeout`. Returns
/// whether one of that has happened.
///
/// Flush before waiting: staged frames are not sent by it. While a port has frames the kernel did
/// not take at the last flush ([`Port::has_unsent`]), it returns after a millisecond at the latest.
///
/// # Errors
///
/// When there are more than [`MAX_WAIT_PORTS`] ports, when nothing came and an interface was
/// removed ([`Port::check`]), or when `ppoll(2)` fails. A signal is no error.
pub fn wait<'a>(
    ports: impl IntoIterator<Item = &'a Port>,
    waker: Option<&Waker>,
    timeout: Duration,
) -> Result<bool, XskError> {
    let mut polled = ArrayVec::<&Port, MAX_WAIT_PORTS>::new();
    let mut fds = ArrayVec::<libc::pollfd, { MAX_WAIT_PORTS + 1 }>::new();
    let mut timeout = timeout;
    for port in ports {
        if fds.try_push(readable(port.fd())).is_err() || polled.try_push(port).is_err() {
            return Err(XskError::TooManyPorts {
                max: MAX_WAIT_PORTS,
            });
        }
        if port.has_unsent() {
            timeout = timeout.min(UNSENT_TIMEOUT);
        }
    }
    // There is a place for one more than there are ports.
    fds.extend(waker.map(|waker| readable(waker.fd())));
    if ppoll(&mut fds, timeout).map_err(|source| XskError::Wait { source })? > 0 {
        return Ok(true);
    }
    // The kernel does not say by `ppoll` that an interface is gone, and there is time now.
    polled.iter().try_for_each(|port| port.check())?;
    Ok(false)
}

fn readable(fd: BorrowedFd<'_>) -> libc::pollfd {
    libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    }
}
