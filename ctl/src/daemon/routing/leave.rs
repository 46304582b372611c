//! Whether the daemon before this one took leave of its routers. One that did not (killed, or
//! told to restart) has left them with routes that they keep for a while (RFC 4724); the restart
//! bit tells them that it is back.

use std::fs;
use std::path::{Path, PathBuf};

/// Names the start of the system: what was forwarded before that is not forwarded now.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// The file that is there from the first session to the last leave.
#[derive(Debug)]
pub struct Leave(PathBuf);

impl Leave {
    /// Looks for the file, and makes it. Returns whether another daemon left it.
    pub fn pending(state_dir: &Path) -> (Self, bool) {
        let path = state_dir.join("bgp-sessions");
        let boot = fs::read_to_string(BOOT).unwrap_or_default();
        let before = fs::read_to_string(&path).ok();
        if let Err(error) = fs::write(&path, &boot) {
            tracing::warn!(
                "cannot write {}: {error}; after a restart routers are not told of it",
                path.display()
            );
        }
        (Leave(path), before.is_some_and(|before| before == boot))
    }

    /// Leave was taken.
    pub fn taken(self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!("cannot remove {}: {error}", self.0.display());
        }
    }
}
