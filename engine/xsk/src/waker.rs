//! Waking a worker that sleeps: for other workers, which have something for it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crate::error::XskError;
use crate::socket::eventfd;

/// What [`wait`](crate::wait) waits for beside the sockets. A worker says before it sleeps that it
/// will, and looks for work once more; whoever has work for it wakes it only then. So a worker that
/// polls is never woken, and costs the others one load.
#[derive(Debug)]
pub struct Waker {
    asleep: AtomicBool,
    /// Whether a wake-up is on its way that no sleep has taken yet. The worker's own.
    owed: AtomicBool,
    event: File,
}

impl Waker {
    /// A waker of a worker that is awake.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> Result<Self, XskError> {
        let event = eventfd().map_err(|source| XskError::Wait { source })?;
        Ok(Waker {
            asleep: AtomicBool::new(false),
            owed: AtomicBool::new(false),
            event: File::from(event),
        })
    }

    /// Says that its worker is about to sleep. Work that was put down before this call is to be
    /// looked for after it; work put down later wakes the worker.
    pub fn doze(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        // Against the one in `wake`: one of both sees what the other wrote.
        fence(Ordering::SeqCst);
    }

    /// Wakes the worker, if it sleeps: after work was put down for it.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            // Fails only when 2^64 wake-ups are pending: it will not sleep then either.
            let _ = (&self.event).write(&1_u64.to_ne_bytes());
        }
    }

    /// Ends what [`Waker::doze`] began.
    pub fn rise(&self) {
        let woken = !self.asleep.swap(false, Ordering::Relaxed);
        if woken || self.owed.load(Ordering::Relaxed) {
            // Somebody was faster and has written, or is about to. In that case one more sleep
            // ends for nothing, and the wake-up is taken then: left there, it would end all.
            let taken = (&self.event).read(&mut [0; 8]).is_ok();
            self.owed.store(!taken, Ordering::Relaxed);
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use crate::wait;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;
    use std::time::{Duration, Instant};

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_worker_that_is_awake_is_not_woken_and_one_that_sleeps_is() {
        let waker = Waker::new().unwrap();
        waker.wake();
        waker.doze();
        assert!(!wait([], Some(&waker), Duration::from_micros(100)).unwrap());
        waker.wake();
        let began = Instant::now();
        assert!(wait([], Some(&waker), LONG).unwrap());
        assert!(began.elapsed() < LONG);
        waker.rise();
        waker.doze();
        assert!(!wait([], Some(&waker), Duration::from_micros(100)).unwrap());
        waker.rise();
    }

    /// A thread that sleeps until there is work, and one that puts down a piece each time the
    /// last one was taken: were a wake-up lost, a piece would wait for the sleep's end.
    #[test]
    fn no_wake_up_is_lost() {
        const PIECES: u64 = 2_000;
        let waker = Arc::new(Waker::new().unwrap());
        let (put, taken) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let worker = {
            let (waker, put, taken) = (Arc::clone(&waker), Arc::clone(&put), Arc::clone(&taken));
            std::thread::spawn(move || {
                let mut slept_out = 0;
                while taken.load(Ordering::Acquire) < PIECES {
                    waker.doze();
                    let has_work = || put.load(Ordering::Acquire) > taken.load(Ordering::Acquire);
                    if !has_work() {
                        let woken = wait([], Some(&waker), Duration::from_secs(2)).unwrap();
                        slept_out += u64::from(!woken);
                    }
                    waker.rise();
                    taken.store(put.load(Ordering::Acquire), Ordering::Release);
                }
                slept_out
            })
        };
        for piece in 1..=PIECES {
            put.store(piece, Ordering::Release);
            waker.wake();
            while taken.load(Ordering::Acquire) < piece {
                std::thread::yield_now();
            }
        }
        assert_eq!(worker.join().unwrap(), 0);
    }
}
