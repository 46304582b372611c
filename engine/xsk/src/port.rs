//! One queue of one interface: an AF_XDP socket and its four rings.

mod bind;

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use arrayvec::ArrayVec;
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue};

use crate::burst::{BURST, Burst};
use crate::error::XskError;
use crate::frame::Frame;
use crate::mode::{BindMode, Mode};
use crate::pool::FramePool;
use crate::region::Handle;
use crate::socket::{is_served, statistics, wake_rx, wake_tx};
use crate::umem::{RingSize, Umem};

/// How a port is bound.
#[derive(Debug, Clone)]
pub struct PortOptions {
    /// What the operator asks for.
    pub mode: BindMode,
    /// Whether the interface's XDP program is, or will be, attached in native mode rather than in
    /// generic mode. Zero-copy is possible only then, and the kernel does not say it by itself:
    /// a zero-copy socket behind a generic program receives nothing.
    pub program_native: bool,
    /// Slots of the RX ring.
    pub rx_ring: RingSize,
    /// Slots of the TX ring.
    pub tx_ring: RingSize,
    /// Whether [`Port::receive`] takes packets in from the device itself, as far as the device's
    /// `napi_defer_hard_irqs` and `gro_flush_timeout` leave them to it: preferred busy polling. The kernel's software interrupt does it otherwise.
    pub busy_poll: bool,
    /// For how long to try again while the queue is busy. The kernel frees a queue a little after
    /// the process that had it is gone.
    pub busy_timeout: Duration,
}

impl Default for PortOptions {
    /// Mode `auto` with a native program, default rings, no busy polling, and 2 seconds for a busy queue.
    fn default() -> Self {
        PortOptions {
            mode: BindMode::Auto,
            program_native: true,
            rx_ring: RingSize::DEFAULT,
            tx_ring: RingSize::DEFAULT,
            busy_poll: false,
            busy_timeout: Duration::from_secs(2),
        }
    }
}

/// What the port itself counts, since it was bound. Frames and calls, not bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Frames received.
    pub received: u64,
    /// Frames handed to the kernel for sending.
    pub sent: u64,
    /// Sent frames that came back.
    pub completed: u64,
    /// Frames `send` gave back, because the TX ring was full or the frame could not be sent.
    pub send_refused: u64,
    /// System calls made to send.
    pub tx_wakeups: u64,
    /// Sends the kernel broke off (EAGAIN, EBUSY, ENOBUFS); the next flush goes on. With EBUSY the
    /// device has dropped one frame, which is completed all the same.
    pub tx_retries: u64,
    /// Sends the kernel refused because the interface was down.
    pub tx_link_down: u64,
    /// System calls made to take packets in ([`PortOptions::busy_poll`]).
    pub rx_polls: u64,
    /// System calls made to have the fill ring looked at.
    pub rx_wakeups: u64,
    /// Descriptors from the kernel that are not inside a chunk of the UMEM. Always zero, unless
    /// the kernel is broken; their chunks are given up.
    pub bad_descriptors: u64,
}

/// What the kernel counts for the socket (`XDP_STATISTICS`), in frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Dropped on receipt: too long for a frame, or for a reason not counted below.
    pub rx_dropped: u64,
    /// Bad descriptors in the fill ring, skipped: their chunks are out of use from then on.
    pub rx_invalid_descs: u64,
    /// Not sent because of a bad descriptor in the TX ring.
    pub tx_invalid_descs: u64,
    /// Dropped because the RX ring was full: the worker is too slow.
    pub rx_ring_full: u64,
    /// Attempts to receive without a free frame in the fill ring: the worker is too slow, or the
    /// pool too small. In copy mode the frame is among `rx_dropped` too, in zero-copy mode the
    /// device has it or counts it as lost.
    pub rx_fill_ring_empty_descs: u64,
    /// Attempts to send that found the TX ring empty.
    pub tx_ring_empty_descs: u64,
}

impl Statistics {
    /// Frames that the kernel is known to have lost at the socket, each once.
    pub fn lost(&self) -> u64 {
        self.rx_dropped + self.rx_ring_full + self.tx_invalid_descs
    }
}

/// Asks the kernel for the counters of an AF_XDP socket, as [`Port::statistics`] does: for whoever
/// has a second descriptor of the socket and not the port, which belongs to the worker's thread.
///
/// # Errors
///
/// [`XskError::Statistics`] when `getsockopt(2)` fails: the descriptor is of another kind.
pub fn statistics_of(fd: BorrowedFd<'_>) -> Result<Statistics, XskError> {
    statistics(fd).map_err(|source| XskError::Statistics { source })
}

/// One queue of an interface. See the [crate's page](crate) for how its methods follow each
/// other; none of them blocks, allocates or locks, and only [`Port::flush`], [`Port::refill`] and, with
/// busy polling, [`Port::receive`] make a system call, at most one each.
///
/// A port can be moved to the thread that uses it. When it is dropped, the frames in its rings
/// are out of reach until the UMEM goes: the kernel may use them for a little while yet. So a
/// worker drops all of its ports together with their UMEM.
pub struct Port {
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    /// Frames to be put on the TX ring by the next flush, with their lengths set. The port owns
    /// their chunks.
    staged: ArrayVec<FrameDesc, BURST>,
    /// Where the completion ring writes to.
    scratch: [FrameDesc; BURST],
    /// Slots of the TX ring known to be free, without those that the staged frames will take.
    tx_room: usize,
    tx_ring: usize,
    fill_ring: usize,
    /// Whether the last flush left frames on the TX ring.
    unsent: bool,
    /// See [`PortOptions::busy_poll`].
    busy_poll: bool,
    /// Whether it does: see [`Port::polls`].
    polls: bool,
    /// Frames given to the fill ring since the port was bound.
    filled: u64,
    counters: PortCounters,
    mode: Mode,
    interface: Box<str>,
    queue: u32,
    /// Whether this port is bound on the UMEM's own socket.
    first: bool,
    /// Stays last: the rings, which reach into the UMEM's memory, are dropped before it.
    handle: Handle,
}

impl Port {
    /// Binds a queue of an interface and gives its fill ring frames from the pool.
    ///
    /// All ports of a UMEM are zero-copy or none is, as the first one decides. Where queues of
    /// both kinds are needed on one worker, ask for [`BindMode::Copy`].
    ///
    /// # Errors
    ///
    /// See [`XskError`]: no privileges, no such interface or queue, a queue that stays busy for
    /// [`PortOptions::busy_timeout`], no zero-copy, no memory, or too few frames in the pool.
    ///
    /// # Panics
    ///
    /// When `pool` is not the pool of `umem`.
    pub fn bind(
        umem: &Umem,
        pool: &mut FramePool,
        interface: &str,
        queue: u32,
        options: &PortOptions,
    ) -> Result<Port, XskError> {
        assert!(
            umem.handle().home() == pool.handle().home(),
            "the pool is of another UMEM"
        );
        bind::bind(pool, interface, queue, options)
    }

    /// The socket, to be put in the XDP program's `XSKMAP` under [`Port::queue`].
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the queues keep the socket open for as long as the port lives.
        unsafe { BorrowedFd::borrow_raw(self.tx.fd().as_raw_fd()) }
    }

    /// What is in use.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The interface's name.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The interface's queue.
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// Whether the port takes packets in from the device itself, as [`PortOptions::busy_poll`] asked for: not
    /// while the kernel does not know what of the device to poll. Some drivers (veth, since Linux 6.13)
    /// never tell it, and before 6.13 the first packet did. Until then the software interrupt takes packets in,
    /// after the device's deferral.
    pub fn polls(&self) -> bool {
        self.polls
    }

    /// What the port has counted.
    pub fn counters(&self) -> PortCounters {
        self.counters
    }

    /// How many frames the port holds: staged, in its rings, or in the device. Together with the
    /// other ports', this is [`FramePool::outstanding`] when no frame is in the caller's hands.
    pub fn held(&self) -> usize {
        let counters = &self.counters;
        let receiving = self.filled - counters.received;
        let sending = counters.sent - counters.completed;
        // Both are bounded by the number of frames.
        (receiving + sending) as usize + self.staged.len()
    }

    /// Whether the last flush left frames on the TX ring, because the device did not take them.
    #[inline]
    pub fn has_unsent(&self) -> bool {
        self.unsent
    }

    /// Moves received frames into the burst until it is full or nothing is left. Returns how many.
    ///
    /// With busy polling, the device is asked for more first: that makes the kernel run the XDP program here and
    /// now, for a burst at most. It is asked also while there are packets: who does not ask for longer
    /// than the device's deferral has it served by interrupts again, on the CPU that they come to, and under
    /// a load beyond the worker's there are always packets. What does not fit is then lost in the device, where it
    /// costs the worker nothing.
    ///
    /// # Panics
    ///
    /// When the burst is of another UMEM.
    #[inline]
    pub fn receive(&mut self, burst: &mut Burst) -> usize {
        assert!(
            burst.handle().home() == self.handle.home(),
            "the burst is of another UMEM"
        );
        if self.polls {
            self.counters.rx_polls += 1;
            // As in `refill`: `flush` or `check` find out what is wrong.
            let _ = wake_rx(self.fd());
        }
        // SAFETY: the socket is bound on the burst's UMEM.
        let received = unsafe { self.rx.consume(burst.spare()) };
        if self.busy_poll && self.counters.received == 0 && received > 0 {
            self.polls = is_served(self.fd());
        }
        // SAFETY: the kernel gives up the chunks whose descriptors it puts on the RX ring, and
        // what is not inside a chunk is refused. They are counted as lent below.
        let accepted = unsafe { burst.accept(received) };
        self.handle.lend(accepted);
        self.counters.received += received as u64;
        self.counters.bad_descriptors += (received - accepted) as u64;
        accepted
    }

    /// Stages a frame for sending; [`Port::flush`] sends it.
    ///
    /// # Errors
    ///
    /// Gives the frame back when the TX ring is full, or when it has no bytes: the kernel skips
    /// such a descriptor without completing it, and the chunk would be lost.
    ///
    /// # Panics
    ///
    /// When the frame is of another UMEM.
    #[inline]
    pub fn send(&mut self, frame: Frame) -> Result<(), Frame> {
        assert!(
            frame.home() == self.handle.home(),
            "the frame is of another UMEM"
        );
        if frame.is_empty() || !self.has_room() {
            self.counters.send_refused += 1;
            return Err(frame);
        }
        if self.staged.is_full() {
            self.publish();
        }
        self.tx_room -= 1;
        self.handle.take_back(1);
        self.staged.push(frame.into_tx_desc());
        Ok(())
    }

    /// Puts the staged frames on the TX ring and, where the kernel needs it, wakes it with one
    /// system call. In copy mode that call does the sending, so it is made whenever the ring is not
    /// empty, also for what an earlier flush left there.
    ///
    /// That the device is busy or the link down is no error: it is counted, and the next flush
    /// tries again.
    ///
    /// # Errors
    ///
    /// [`XskError::Gone`] when the interface was removed.
    #[inline]
    pub fn flush(&mut self) -> Result<(), XskError> {
        self.publish();
        if !self.tx.needs_wakeup() || self.tx_ring_is_empty() {
            self.unsent = false;
            return Ok(());
        }
        self.counters.tx_wakeups += 1;
        match wake_tx(self.fd()) {
            Ok(()) => {
                self.unsent = false;
                Ok(())
            }
            Err(error) => self.not_sent(error),
        }
    }

    /// Moves frames that were sent to the pool.
    ///
    /// # Panics
    ///
    /// When the pool is of another UMEM.
    #[inline]
    pub fn reap(&mut self, pool: &mut FramePool) {
        assert!(
            pool.handle().home() == self.handle.home(),
            "the pool is of another UMEM"
        );
        // The kernel may add to the ring while it is emptied, hence the bound.
        for _ in 0..self.tx_ring.div_ceil(BURST) {
            // SAFETY: the socket is bound on the UMEM of the pool, which gets the frames.
            let completed = unsafe { self.completion.consume(&mut self.scratch) };
            for desc in &self.scratch[..completed] {
                if self.handle.region().contains(desc) {
                    pool.restore(*desc);
                } else {
                    self.counters.bad_descriptors += 1;
                }
            }
            self.counters.completed += completed as u64;
            if completed < BURST {
                break;
            }
        }
    }

    /// Moves free frames from the pool to the fill ring, once a burst of slots is free. Without
    /// them the kernel drops what arrives.
    ///
    /// # Panics
    ///
    /// When the pool is of another UMEM.
    #[inline]
    pub fn refill(&mut self, pool: &mut FramePool) {
        assert!(
            pool.handle().home() == self.handle.home(),
            "the pool is of another UMEM"
        );
        pool.reclaim();
        // Bounded by the ring's size.
        let room = self.fill.nb_free(BURST as u32) as usize;
        if room >= BURST {
            let frames = pool.top(room);
            // SAFETY: the pool owns these chunks, which are of this socket's UMEM, and forgets
            // them. A ring with `room` free slots takes all of them or, never, none.
            let filled = unsafe { self.fill.produce(frames) };
            pool.forget_top(filled);
            self.filled += filled as u64;
        }
        if self.fill.needs_wakeup() && !self.fill_ring_is_empty() {
            self.counters.rx_wakeups += 1;
            // What is wrong here is found by `flush` or `check`, and there is nothing to retry: the
            // flag asks for another wake-up until one has worked.
            let _ = wake_rx(self.fd());
        }
    }

    /// Asks the kernel for its counters. A system call, so for the agent's pace, not the burst's.
    ///
    /// # Errors
    ///
    /// When `getsockopt(2)` fails.
    pub fn statistics(&self) -> Result<Statistics, XskError> {
        statistics(self.fd()).map_err(|source| self.failed("read its statistics", source))
    }

    /// Whether the interface is still there, even if it is down. `flush` finds out only while
    /// there is something to send, so this is for ports that only receive. A system call.
    ///
    /// # Errors
    ///
    /// [`XskError::Gone`] when the interface was removed.
    pub fn check(&self) -> Result<(), XskError> {
        match wake_rx(self.fd()) {
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Err(self.gone()),
            _ => Ok(()),
        }
    }

    fn gone(&self) -> XskError {
        XskError::Gone {
            interface: self.interface.to_string(),
            queue: self.queue,
        }
    }

    fn failed(&self, operation: &'static str, source: io::Error) -> XskError {
        let interface = self.interface.to_string();
        XskError::Socket {
            interface,
            queue: self.queue,
            operation,
            source,
        }
    }

    /// Whether [`Port::send`] would take a frame.
    #[inline]
    pub fn has_room(&mut self) -> bool {
        if self.tx_room == 0 {
            self.tx_room = self.tx.nb_free_exact() as usize - self.staged.len();
        }
        self.tx_room > 0
    }

    /// Puts the staged frames on the TX ring, in one ring operation and without a system call.
    #[inline]
    fn publish(&mut self) {
        if self.staged.is_empty() {
            return;
        }
        // SAFETY: the port owns the staged chunks, which are of its UMEM, and forgets them. They
        // lie inside their chunks with a length above zero, so the kernel completes each.
        let sent = unsafe { self.tx.produce(&self.staged) };
        // `tx_room` kept a slot for every one of them, and only this port fills the ring.
        debug_assert_eq!(sent, self.staged.len());
        self.counters.sent += sent as u64;
        self.staged.drain(..sent);
    }

    #[inline]
    fn tx_ring_is_empty(&mut self) -> bool {
        self.tx_room = self.tx.nb_free_exact() as usize;
        self.tx_room == self.tx_ring
    }

    #[inline]
    fn fill_ring_is_empty(&mut self) -> bool {
        self.fill.nb_free_exact() as usize == self.fill_ring
    }

    #[cold]
    fn not_sent(&mut self, error: io::Error) -> Result<(), XskError> {
        self.unsent = true;
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS) => self.counters.tx_retries += 1,
            Some(libc::ENETDOWN) => self.counters.tx_link_down += 1,
            // The kernel unbinds the socket when its interface goes.
            Some(libc::ENXIO) => return Err(self.gone()),
            _ => return Err(self.failed("send", error)),
        }
        Ok(())
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        if self.first {
            self.handle.region().first_port_closed();
        }
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port")
            .field("interface", &self.interface)
            .field("queue", &self.queue)
            .field("mode", &self.mode)
            .field("held", &self.held())
            .field("counters", &self.counters)
            .finish()
    }
}
