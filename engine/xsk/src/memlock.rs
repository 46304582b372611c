//! The limit on memory that the kernel locks for a process.

use crate::error::XskError;
use crate::socket::{get_memlock, set_memlock};

/// Sees to it that the process may lock `needed` bytes: raises `RLIMIT_MEMLOCK` to no limit, or
/// where that is not allowed as far as the hard limit goes. [`Umem::new`](crate::Umem::new) calls
/// it; somebody who loads BPF programs on a kernel before 5.11 may need it as well.
///
/// The kernel counts the locked memory of all of a user's processes against the limit, which is
/// why it is raised as far as possible rather than to `needed`. A process with CAP_IPC_LOCK is
/// not counted at all and can ignore the error.
///
/// # Errors
///
/// [`XskError::Memlock`] when the limit stays below `needed`.
pub fn raise_memlock(needed: u64) -> Result<(), XskError> {
    let limit = get_memlock();
    if limit.rlim_cur == libc::RLIM_INFINITY {
        return Ok(());
    }
    let none = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    if set_memlock(&none).is_ok() {
        return Ok(());
    }
    // Without CAP_SYS_RESOURCE the hard limit is the most there is. If even that is refused, the
    // soft limit that is read back below says so.
    let hard = libc::rlimit {
        rlim_cur: limit.rlim_max,
        rlim_max: limit.rlim_max,
    };
    let allowed = if set_memlock(&hard).is_ok() {
        hard.rlim_cur
    } else {
        limit.rlim_cur
    };
    if allowed >= needed {
        Ok(())
    } else {
        Err(XskError::Memlock {
            needed,
            limit: allowed,
        })
    }
}

/// The limit in force, in bytes.
pub(crate) fn memlock_limit() -> u64 {
    get_memlock().rlim_cur
}
