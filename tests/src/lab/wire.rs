//! A wire that the scenario holds in its hands: what comes in at one device of a namespace goes out
//! at another, as the scenario decides.

use super::injector::Injector;
use super::netns::Netns;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

/// How long a direction waits for a frame before it looks at what it holds.
const GLANCE_MS: i64 = 2;
/// Room for what comes while a busy machine does something else.
const BUFFER: usize = 16 << 20;
const LONGEST: usize = 4_096;

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Pass,
    /// It is lost.
    Drop,
    /// It goes on, and once more.
    Twice,
    /// It goes on behind so many that come after it.
    Behind(u64),
    /// It goes on at this time, and all that comes before then with it, in order.
    At(Instant),
}

/// A direction: frames in at one device, out at the other.
struct Direction {
    from: OwnedFd,
    to: Injector,
}

/// Both directions.
pub struct Wire {
    there: Direction,
    back: Direction,
}

impl Wire {
    /// Between two devices of a namespace, which forwards nothing by itself.
    pub fn open(netns: &Netns, near: &str, far: &str) -> Result<Self> {
        Ok(Wire {
            there: Direction::open(netns, near, far)?,
            back: Direction::open(netns, far, near)?,
        })
    }

    /// Carries frames for as long as `task` runs. `fate` decides about those that go from the near
    /// device to the far one, in their order; the others go on.
    pub fn while_carrying<T>(
        &self,
        fate: impl FnMut(&[u8]) -> Fate + Send,
        task: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let there = scope.spawn(|| self.there.carry(fate, &over));
            let back = scope.spawn(|| self.back.carry(|_| Fate::Pass, &over));
            let result = task();
            over.store(true, Ordering::SeqCst);
            for direction in [there, back] {
                match direction.join() {
                    Ok(carried) => carried?,
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            result
        })
    }
}

impl Direction {
    fn open(netns: &Netns, from: &str, to: &str) -> Result<Self> {
        let device = Injector::open(netns, from)?.device();
        let from = netns.within(|| {
            let flags = SockFlag::SOCK_CLOEXEC;
            let protocol = SockProtocol::EthAll;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, protocol)
                .context("cannot open a packet socket")?;
            setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
            let glance = TimeVal::milliseconds(GLANCE_MS);
            setsockopt(&socket, sockopt::ReceiveTimeout, &glance)?;
            bind(socket.as_raw_fd(), &device).context("cannot listen on a device")?;
            Ok(socket)
        })?;
        let to = Injector::open(netns, to)?;
        Ok(Direction { from, to })
    }

    fn carry(&self, mut fate: impl FnMut(&[u8]) -> Fate, over: &AtomicBool) -> Result<()> {
        let mut buffer = [0; LONGEST];
        let mut late: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut stalled: Option<(Instant, Vec<Vec<u8>>)> = None;
        while !over.load(Ordering::SeqCst) {
            let ended = stalled.take_if(|(until, _)| *until <= Instant::now());
            if let Some((_, frames)) = ended {
                frames.iter().try_for_each(|frame| self.to.send(frame))?;
            }
            let frame = match recvfrom::<LinkAddr>(self.from.as_raw_fd(), &mut buffer) {
                // What the other direction sends there is seen, too.
                Ok((_, Some(way))) if way.pkttype() == libc::PACKET_OUTGOING => continue,
                Ok((length, _)) => &buffer[..length],
                Err(Errno::EAGAIN | Errno::EINTR) => continue,
                Err(error) => return Err(error).context("cannot receive from a device"),
            };
            let fate = fate(frame);
            if let Some((_, frames)) = &mut stalled {
                frames.push(frame.to_vec());
                continue;
            }
            match fate {
                Fate::Drop => continue,
                Fate::Behind(count) => {
                    late.push((count, frame.to_vec()));
                    continue;
                }
                Fate::At(until) => {
                    stalled = Some((until, vec![frame.to_vec()]));
                    continue;
                }
                Fate::Twice => self.to.send(frame)?,
                Fate::Pass => {}
            }
            self.to.send(frame)?;
            for (count, _) in &mut late {
                *count -= 1;
            }
            for (_, frame) in late.extract_if(.., |(count, _)| *count == 0) {
                self.to.send(&frame)?;
            }
        }
        Ok(())
    }
}
