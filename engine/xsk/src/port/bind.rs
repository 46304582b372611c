//! Binding a port: the mode, a queue that is still busy, and what each refusal means.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use xsk_rs::config::{BindFlags, Interface, LibxdpFlags, SocketConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue};

use super::{Port, PortCounters, PortOptions};
use crate::burst::BURST;
use crate::error::XskError;
use crate::mode::{BindMode, Mode};
use crate::pool::FramePool;
use crate::socket::{is_served, is_zero_copy, prefer_busy_poll, rx_queues, set_tx_budget};
use crate::umem::os_error;

/// How often a busy queue is tried. The kernel announces nothing when it frees one.
const BUSY_INTERVAL: Duration = Duration::from_millis(10);

type Rings = (TxQueue, RxQueue, FillQueue, CompQueue);

/// The queue being bound, for the errors.
struct Target<'a> {
    interface: &'a str,
    queue: u32,
    options: &'a PortOptions,
}

pub(super) fn bind(
    pool: &mut FramePool,
    interface: &str,
    queue: u32,
    options: &PortOptions,
) -> Result<Port, XskError> {
    let target = Target {
        interface,
        queue,
        options,
    };
    let config = target.config()?;
    let handle = pool.handle().clone();
    if handle.region().is_spent() {
        return Err(XskError::UmemSpent {
            interface: interface.into(),
            queue,
        });
    }
    pool.reclaim();
    let (free, needed) = (pool.len(), handle.region().fill_ring());
    if free < needed {
        // Frames are counted in a u32.
        let (free, needed) = (free as u32, needed as u32);
        return Err(XskError::NoFrames {
            interface: interface.into(),
            queue,
            free,
            needed,
        });
    }
    let shared = handle.region().has_ports();
    let (tx, rx, fill, completion) = target.open(handle.region().umem(), config, shared)?;
    let first = handle.region().bound();
    let mut port = Port {
        rx,
        tx,
        fill,
        completion,
        staged: ArrayVec::new(),
        scratch: [FrameDesc::default(); BURST],
        tx_room: 0,
        tx_ring: options.tx_ring.get() as usize,
        fill_ring: needed,
        unsent: false,
        busy_poll: options.busy_poll,
        polls: false,
        filled: 0,
        counters: PortCounters::default(),
        mode: Mode::Generic,
        interface: interface.into(),
        queue,
        first,
        handle,
    };
    port.mode = target.mode_in_use(&port)?;
    set_tx_budget(port.fd(), options.tx_ring.get())
        .map_err(|source| port.failed("set its TX budget", source))?;
    if options.busy_poll {
        prefer_busy_poll(port.fd())
            .map_err(|source| port.failed("prefer busy polling (Linux 5.11 has it)", source))?;
        port.polls = is_served(port.fd());
    }
    port.refill(pool);
    Ok(port)
}

impl Target<'_> {
    fn config(&self) -> Result<SocketConfig, XskError> {
        let native = self.options.program_native;
        let copy = match (self.options.mode, native) {
            // Without either flag the kernel tries zero-copy and falls back to copy.
            (BindMode::Auto, true) => BindFlags::empty(),
            (BindMode::ZeroCopy, true) => BindFlags::XDP_ZEROCOPY,
            (BindMode::Copy, true) | (BindMode::Auto | BindMode::Generic, false) => {
                BindFlags::XDP_COPY
            }
            (BindMode::Generic, true) | (BindMode::ZeroCopy | BindMode::Copy, false) => {
                return Err(XskError::ProgramMode {
                    interface: self.interface.into(),
                    queue: self.queue,
                    asked: self.options.mode,
                    program_native: native,
                });
            }
        };
        Ok(SocketConfig::builder()
            .rx_queue_size(self.options.rx_ring.queue_size())
            .tx_queue_size(self.options.tx_ring.queue_size())
            .bind_flags(copy | BindFlags::XDP_USE_NEED_WAKEUP)
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .build())
    }

    fn open(
        &self,
        umem: &xsk_rs::Umem,
        config: SocketConfig,
        shared: bool,
    ) -> Result<Rings, XskError> {
        // A name with a zero byte in it is no interface's.
        let name: Interface = self
            .interface
            .parse()
            .map_err(|_| self.no_such_interface())?;
        let start = Instant::now();
        loop {
            // SAFETY: no program is loaded (the flag in `config`), which is all that is asked of
            // two sockets of a UMEM on one queue.
            match unsafe { Socket::new(config, umem, &name, self.queue) } {
                Ok((tx, rx, Some((fill, completion)))) => return Ok((tx, rx, fill, completion)),
                // libxdp gives no rings for a queue this UMEM is bound on already.
                Ok((_, _, None)) => return Err(self.busy(Duration::ZERO)),
                Err(error) => {
                    let error = os_error(&error);
                    if error.raw_os_error() != Some(libc::EBUSY) {
                        return Err(self.refused(error, shared));
                    }
                }
            }
            let waited = start.elapsed();
            if waited >= self.options.busy_timeout {
                return Err(self.busy(waited));
            }
            std::thread::sleep(BUSY_INTERVAL.min(self.options.busy_timeout - waited));
        }
    }

    fn mode_in_use(&self, port: &Port) -> Result<Mode, XskError> {
        let zero_copy =
            is_zero_copy(port.fd()).map_err(|source| port.failed("read its mode", source))?;
        // A port after the first has the first one's mode, whatever was asked for.
        match (self.options.mode, zero_copy, self.options.program_native) {
            (BindMode::ZeroCopy, false, _) => Err(self.shared_mode("copy")),
            (BindMode::Copy | BindMode::Generic, true, _) | (_, true, false) => {
                Err(self.shared_mode("zero-copy"))
            }
            (BindMode::Auto | BindMode::ZeroCopy, true, true) => Ok(Mode::ZeroCopy),
            (BindMode::Auto | BindMode::Copy | BindMode::Generic, false, true) => {
                Ok(Mode::NativeCopy)
            }
            (BindMode::Auto | BindMode::Copy | BindMode::Generic, false, false) => {
                Ok(Mode::Generic)
            }
        }
    }

    /// What an errno of libxdp's socket set-up means. `shared` says that another port of the UMEM
    /// came first.
    fn refused(&self, source: io::Error, shared: bool) -> XskError {
        let (interface, queue) = (self.interface.to_string(), self.queue);
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => XskError::NotPermitted,
            Some(libc::EAFNOSUPPORT) => XskError::NotSupported,
            Some(libc::ENODEV | libc::ENXIO) => self.no_such_interface(),
            Some(libc::EOPNOTSUPP) if shared => self.shared_mode("zero-copy"),
            Some(libc::EOPNOTSUPP) => XskError::NoZeroCopy { interface, queue },
            Some(libc::ENOMEM | libc::ENOBUFS) => XskError::RingMemory {
                interface,
                queue,
                source,
            },
            Some(libc::EINVAL) => match self.queues() {
                Some(queues) if queue >= queues => XskError::NoSuchQueue {
                    interface,
                    queue,
                    queues,
                },
                _ => XskError::Socket {
                    interface,
                    queue,
                    operation: "bind",
                    source,
                },
            },
            _ => XskError::Socket {
                interface,
                queue,
                operation: "bind",
                source,
            },
        }
    }

    /// How many queues the interface has, if its driver says so.
    fn queues(&self) -> Option<u32> {
        // Any socket does for the ioctl, and one of this family needs no address.
        let socket = std::os::unix::net::UnixDatagram::unbound().ok()?;
        rx_queues(socket.as_fd(), self.interface)
    }

    fn no_such_interface(&self) -> XskError {
        XskError::NoSuchInterface {
            interface: self.interface.into(),
            queue: self.queue,
        }
    }

    fn busy(&self, waited: Duration) -> XskError {
        XskError::Busy {
            interface: self.interface.into(),
            queue: self.queue,
            waited,
        }
    }

    fn shared_mode(&self, first: &'static str) -> XskError {
        XskError::SharedMode {
            interface: self.interface.into(),
            queue: self.queue,
            first,
        }
    }
}
