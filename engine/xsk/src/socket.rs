//! The system calls xsk-rs has no function for, each behind a safe one.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use crate::burst::BURST;
use crate::port::Statistics;

/// `XDP_MAX_TX_SKB_BUDGET` of `linux/if_xdp.h`, which libc does not have yet.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// How many packets the kernel takes from the device in one busy poll at a time, of which there are two: no more
/// altogether than a burst, or the ring would fill with what the worker cannot take from it.
const BUSY_POLL_BUDGET: libc::c_int = BURST as libc::c_int / 2;

/// Microseconds for which a blocking call would busy poll. Ours never block, and poll once; but zero
/// would switch it off.
const BUSY_POLL_TIME: libc::c_int = 20;

/// `SIOCETHTOOL` and its command `ETHTOOL_GCHANNELS` of `linux/sockios.h` and `linux/ethtool.h`.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// `struct ethtool_channels` of `linux/ethtool.h`.
#[repr(C)]
#[derive(Default)]
struct EthtoolChannels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx_count: u32,
    tx_count: u32,
    other_count: u32,
    combined_count: u32,
}

/// Tells the kernel that there is something on the TX ring.
#[inline]
pub(crate) fn wake_tx(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = libc::MSG_DONTWAIT;
    // SAFETY: a null buffer of no bytes and no address; the descriptor is open.
    let sent = unsafe { libc::sendto(fd.as_raw_fd(), ptr::null(), 0, flags, ptr::null(), 0) };
    check(sent as libc::c_long)
}

/// Tells the kernel that there is something on the fill ring.
#[inline]
pub(crate) fn wake_rx(fd: BorrowedFd<'_>) -> io::Result<()> {
    let (none, flags) = (ptr::null_mut(), libc::MSG_DONTWAIT);
    // SAFETY: a null buffer of no bytes and no address; the descriptor is open. Unlike `poll`,
    // this call does not drive transmission as well.
    let received = unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            none,
            0,
            flags,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    };
    check(received as libc::c_long)
}

/// Whether a bound socket is zero-copy.
pub(crate) fn is_zero_copy(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut flags: u32 = 0;
    let mut len = mem::size_of::<u32>() as libc::socklen_t;
    let value = ptr::from_mut(&mut flags).cast();
    // SAFETY: `value` points to `len` writable bytes, the size of `struct xdp_options` (one u32).
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            libc::XDP_OPTIONS,
            value,
            &mut len,
        )
    };
    check(result.into())?;
    Ok(flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
}

/// The kernel's counters of a socket. What it does not know (before 5.9) stays zero.
pub(crate) fn statistics(fd: BorrowedFd<'_>) -> io::Result<Statistics> {
    let mut kernel = libc::xdp_statistics {
        rx_dropped: 0,
        rx_invalid_descs: 0,
        tx_invalid_descs: 0,
        rx_ring_full: 0,
        rx_fill_ring_empty_descs: 0,
        tx_ring_empty_descs: 0,
    };
    let mut len = mem::size_of_val(&kernel) as libc::socklen_t;
    let value = ptr::from_mut(&mut kernel).cast();
    // SAFETY: `value` points to `len` writable bytes, plain integers for which any bytes will do.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            libc::XDP_STATISTICS,
            value,
            &mut len,
        )
    };
    check(result.into())?;
    Ok(Statistics {
        rx_dropped: kernel.rx_dropped,
        rx_invalid_descs: kernel.rx_invalid_descs,
        tx_invalid_descs: kernel.tx_invalid_descs,
        rx_ring_full: kernel.rx_ring_full,
        rx_fill_ring_empty_descs: kernel.rx_fill_ring_empty_descs,
        tx_ring_empty_descs: kernel.tx_ring_empty_descs,
    })
}

/// Lets one wake-up send `frames` in copy mode rather than 32. `Ok(false)` where the kernel does
/// not know the option (before 6.18).
pub(crate) fn set_tx_budget(fd: BorrowedFd<'_>, frames: u32) -> io::Result<bool> {
    let value = ptr::from_ref(&frames).cast();
    let len = mem::size_of::<u32>() as libc::socklen_t;
    // SAFETY: `value` points to `len` readable bytes.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            XDP_MAX_TX_SKB_BUDGET,
            value,
            len,
        )
    };
    match check(result.into()) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Has system calls on the socket take packets in from its device, and the device leave them to these
/// calls (`Documentation/networking/napi.rst`, "Busy polling").
pub(crate) fn prefer_busy_poll(fd: BorrowedFd<'_>) -> io::Result<()> {
    for (option, value) in [
        (libc::SO_PREFER_BUSY_POLL, 1),
        (libc::SO_BUSY_POLL, BUSY_POLL_TIME),
        (libc::SO_BUSY_POLL_BUDGET, BUSY_POLL_BUDGET),
    ] {
        let len = mem::size_of::<libc::c_int>() as libc::socklen_t;
        let value = ptr::from_ref::<libc::c_int>(&value).cast();
        // SAFETY: `value` points to `len` readable bytes.
        let result =
            unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, option, value, len) };
        check(result.into())?;
    }
    Ok(())
}

/// Whether the kernel knows which of a device's NAPI instances serves the socket: without it, nothing is polled.
///
/// In zero-copy mode, and since Linux 6.16 in copy mode, it knows when the socket is bound, if the
/// driver links its queues to their instances, which a veth's does not. Before Linux 6.13 it learned it in copy mode
/// from the first packet, of every driver.
pub(crate) fn is_served(fd: BorrowedFd<'_>) -> bool {
    let mut id: libc::c_uint = 0;
    let mut len = mem::size_of::<libc::c_uint>() as libc::socklen_t;
    let value = ptr::from_mut(&mut id).cast();
    // SAFETY: `value` points to `len` writable bytes, the size of the option (one u32).
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_INCOMING_NAPI_ID,
            value,
            &mut len,
        )
    };
    // A kernel without busy polling has no such option.
    result == 0 && id != 0
}

/// How many queues an interface can receive on; `None` where its driver does not say.
///
/// Asked by ioctl, because `/sys/class/net` shows the namespace it was mounted in.
pub(crate) fn rx_queues(fd: BorrowedFd<'_>, interface: &str) -> Option<u32> {
    let mut channels = EthtoolChannels {
        cmd: ETHTOOL_GCHANNELS,
        ..Default::default()
    };
    // SAFETY: all zeros is a valid `ifreq`: plain integers, and a union of them and pointers.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // One byte stays zero, as the end of the name.
    if interface.len() >= request.ifr_name.len() {
        return None;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = ptr::from_mut(&mut channels).cast();
    // SAFETY: `SIOCETHTOOL` takes an `ifreq` whose data points to the structure of its command,
    // here `ethtool_channels`, which outlives the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), SIOCETHTOOL, &mut request) };
    check(result.into()).ok()?;
    Some(channels.combined_count + channels.rx_count)
}

/// A counter that is readable while it is not zero; neither reading nor writing blocks.
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    check(fd.into())?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Waits until one of `fds` has events or `timeout` is over. Being interrupted by a signal
/// counts as nothing having happened.
pub(crate) fn ppoll(fds: &mut [libc::pollfd], timeout: Duration) -> io::Result<usize> {
    let limit = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(timeout.subsec_nanos()),
    };
    let count = fds.len() as libc::nfds_t;
    // SAFETY: `fds` points to `count` structures, `limit` lives through the call, and a null
    // signal mask is allowed.
    let ready = unsafe { libc::ppoll(fds.as_mut_ptr(), count, &limit, ptr::null()) };
    match check(ready.into()) {
        // Not negative after `check`.
        Ok(()) => Ok(ready as usize),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(error) => Err(error),
    }
}

/// The process's limit on locked memory.
pub(crate) fn get_memlock() -> libc::rlimit {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is writable. The call fails only for a bad pointer or resource, and would
    // leave a limit of zero, on the safe side.
    unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) };
    limit
}

/// Sets the process's limit on locked memory.
pub(crate) fn set_memlock(limit: &libc::rlimit) -> io::Result<()> {
    // SAFETY: `limit` is readable.
    check(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, limit) }.into())
}

#[inline]
fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
