//! The packet memory that a worker shares with the kernel.

use std::error::Error;
use std::fmt;
use std::io;
use std::num::NonZeroU32;

use xsk_rs::config as xsk;

use crate::error::XskError;
use crate::memlock::{memlock_limit, raise_memlock};
use crate::pool::FramePool;
use crate::region::{Handle, Region};

/// The size of a huge page. A huge-page UMEM is a whole number of them, or `munmap` refuses it.
const HUGE_PAGE: u64 = 2 << 20;

/// The size of a UMEM chunk. One chunk holds one packet.
///
/// In copy mode the kernel writes a packet, with the room the XDP program made in front of it, 256
/// bytes (`XDP_PACKET_HEADROOM`) into the chunk, wherever `bpf_xdp_adjust_head` moved the start:
/// the copy is made after the program ran. So the longest packet, room included, is the chunk's
/// size less 256 bytes, and a longer one is dropped by the kernel (`rx_dropped` in
/// [`Statistics`](crate::Statistics)). In zero-copy the NIC writes there before the program runs:
/// the same limit holds for the packet as it arrives, and the program's room comes out of the 256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FrameSize {
    /// 2,048 bytes: packets to 1,792 bytes, enough for an MTU of 1,500 and a tunnel header.
    #[default]
    Bytes2048,
    /// 4,096 bytes: packets to 3,840 bytes.
    Bytes4096,
}

impl FrameSize {
    /// The size in bytes.
    pub const fn bytes(self) -> u32 {
        match self {
            FrameSize::Bytes2048 => 2048,
            FrameSize::Bytes4096 => 4096,
        }
    }

    /// The longest packet that is received into a frame of this size, in bytes.
    pub const fn longest_packet(self) -> u32 {
        self.bytes() - 256
    }
}

/// The number of slots of a ring: a power of two from [`RingSize::MIN`] to [`RingSize::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RingSize(u32);

impl RingSize {
    /// The smallest ring: one burst.
    pub const MIN: u32 = 64;
    /// The largest ring.
    pub const MAX: u32 = 32_768;
    /// What a port has when nothing is said.
    pub const DEFAULT: RingSize = RingSize(2048);

    /// A ring of `slots`; `None` when it is no power of two or out of bounds.
    pub const fn new(slots: u32) -> Option<Self> {
        if slots.is_power_of_two() && slots >= Self::MIN && slots <= Self::MAX {
            Some(RingSize(slots))
        } else {
            None
        }
    }

    /// The number of slots.
    pub const fn get(self) -> u32 {
        self.0
    }

    pub(crate) fn queue_size(self) -> xsk::QueueSize {
        xsk::QueueSize::new(self.0).expect("a ring size is a power of two")
    }
}

impl Default for RingSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for RingSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a worker's packet memory is laid out.
#[derive(Debug, Clone)]
pub struct UmemConfig {
    /// How many frames. A port can hold its fill ring, RX ring, TX ring and completion ring full
    /// of them, and takes a fill ring of them at once when it is bound; what is in the worker's
    /// own hands (bursts, stacks that retransmit) comes on top.
    pub frames: u32,
    /// The size of each.
    pub frame_size: FrameSize,
    /// Tries 2 MiB pages first and goes on without where there are none. The number of frames is
    /// then rounded up to fill the last page. They come from `/proc/sys/vm/nr_hugepages`.
    pub huge_pages: bool,
    /// Slots of each port's fill ring: how many packets the kernel may receive before the worker
    /// is back.
    pub fill_ring: RingSize,
    /// Slots of each port's completion ring: how many sent frames wait for the worker. Not below
    /// the TX ring, or the kernel stops sending until the worker reaps.
    pub completion_ring: RingSize,
}

impl Default for UmemConfig {
    /// 16,384 frames of 2,048 bytes (32 MiB): two ports with rings of the default size.
    fn default() -> Self {
        UmemConfig {
            frames: 16_384,
            frame_size: FrameSize::default(),
            huge_pages: true,
            fill_ring: RingSize::DEFAULT,
            completion_ring: RingSize::DEFAULT,
        }
    }
}

impl UmemConfig {
    /// The most memory one UMEM may take, in bytes.
    pub const MAX_BYTES: u64 = 16 << 30;

    /// The size of the memory, in bytes, without rounding to huge pages.
    pub fn bytes(&self) -> u64 {
        u64::from(self.frames) * u64::from(self.frame_size.bytes())
    }

    fn frames_for(&self, huge_pages: bool) -> Result<NonZeroU32, XskError> {
        let bytes = if huge_pages {
            self.bytes().next_multiple_of(HUGE_PAGE)
        } else {
            self.bytes()
        };
        if bytes > Self::MAX_BYTES {
            let reason = format!("{bytes} bytes, the most is {} bytes", Self::MAX_BYTES);
            return Err(XskError::UmemConfig { reason });
        }
        let frames = bytes / u64::from(self.frame_size.bytes());
        u32::try_from(frames)
            .ok()
            .and_then(NonZeroU32::new)
            .ok_or_else(|| XskError::UmemConfig {
                reason: "it has no frames, at least one fill ring of them is needed".into(),
            })
    }
}

/// A worker's packet memory, registered with the kernel.
///
/// It lives as long as anything that came from it: the pool, the ports, the bursts, and every
/// [`Frame`](crate::Frame). A frame that is kept somewhere therefore keeps the memory mapped, and
/// the queue of the first port busy (libxdp binds that port on the UMEM's own socket): a queue is
/// free again only after *all* of a worker's values are dropped.
pub struct Umem {
    handle: Handle,
    frames: u32,
    frame_size: FrameSize,
    huge_pages: bool,
}

impl Umem {
    /// Maps the memory, registers it, and gives out all of its frames.
    ///
    /// # Errors
    ///
    /// Without privileges, without memory, or where the kernel may not lock that much. Before
    /// the last is an error, it tries to raise `RLIMIT_MEMLOCK` (see
    /// [`raise_memlock`]).
    pub fn new(config: &UmemConfig) -> Result<(Umem, FramePool), XskError> {
        // A process with CAP_IPC_LOCK needs no limit, so failing to raise it is no error yet: the
        // kernel says so below if it matters.
        let raised = raise_memlock(config.bytes());
        if config.huge_pages {
            match Self::register(config, true) {
                Err(error) if is_out_of_huge_pages(&error) => {}
                other => return other,
            }
        }
        Self::register(config, false).map_err(|error| match (error, raised) {
            (XskError::Memlock { .. }, Err(cause)) => cause,
            (error, _) => error,
        })
    }

    /// How many frames it has.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// The size of each.
    pub fn frame_size(&self) -> FrameSize {
        self.frame_size
    }

    /// Whether it is on huge pages.
    pub fn huge_pages(&self) -> bool {
        self.huge_pages
    }

    /// A pool of another worker, which this UMEM's worker lends frames to: each comes by
    /// [`FramePool::put`], and goes home as the [`Frame`](crate::Frame) that [`FramePool::take`]
    /// gives, to be sent there. It is empty at first, and dropped frames do not come to it. What is
    /// in it when it goes is lost to the UMEM.
    pub fn guest_pool(&self) -> FramePool {
        FramePool::guest(self.frames, self.handle.clone())
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    fn register(config: &UmemConfig, huge_pages: bool) -> Result<(Umem, FramePool), XskError> {
        let frames = config.frames_for(huge_pages)?;
        let bytes = u64::from(frames.get()) * u64::from(config.frame_size.bytes());
        let frame_size = xsk::FrameSize::new(config.frame_size.bytes());
        let settings = xsk::UmemConfig::builder()
            .frame_size(frame_size.expect("both frame sizes are allowed"))
            .fill_queue_size(config.fill_ring.queue_size())
            .comp_queue_size(config.completion_ring.queue_size())
            .frame_headroom(0)
            .build()
            .map_err(|error| XskError::UmemConfig {
                reason: error.to_string(),
            })?;
        let (umem, descs) = xsk_rs::Umem::new(settings, frames, huge_pages)
            .map_err(|error| umem_error(&error, bytes))?;
        let chunk = config.frame_size.bytes() as usize;
        let fill_ring = config.fill_ring.get() as usize;
        let handle = Region::over(umem, &descs[0], frames.get(), chunk, fill_ring);
        let pool = FramePool::new(descs, handle.clone());
        let frame_size = config.frame_size;
        Ok((
            Umem {
                handle,
                frames: frames.get(),
                frame_size,
                huge_pages,
            },
            pool,
        ))
    }
}

impl fmt::Debug for Umem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Umem")
            .field("frames", &self.frames)
            .field("frame_size", &self.frame_size)
            .field("huge_pages", &self.huge_pages)
            .finish()
    }
}

/// The errno inside one of xsk-rs's errors.
pub(crate) fn os_error(error: &dyn Error) -> io::Error {
    let source = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>());
    match source.and_then(io::Error::raw_os_error) {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::other(error.to_string()),
    }
}

fn is_out_of_huge_pages(error: &XskError) -> bool {
    // `mmap` says ENOMEM without free huge pages, EINVAL in a kernel without hugetlb.
    matches!(error, XskError::UmemMemory { .. })
        || matches!(error, XskError::Umem { source, .. }
            if source.raw_os_error() == Some(libc::EINVAL))
}

fn umem_error(error: &xsk_rs::umem::UmemCreateError, bytes: u64) -> XskError {
    let source = os_error(error);
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => XskError::NotPermitted,
        Some(libc::EAFNOSUPPORT) => XskError::NotSupported,
        // `xdp_umem_account_pages` answers ENOBUFS beyond RLIMIT_MEMLOCK.
        Some(libc::ENOBUFS) => XskError::Memlock {
            needed: bytes,
            limit: memlock_limit(),
        },
        Some(libc::ENOMEM) => XskError::UmemMemory { bytes, source },
        _ => XskError::Umem { bytes, source },
    }
}
