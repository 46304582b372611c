//! The manager of services that started this process, where it wants to hear of it: systemd's
//! datagrams (sd_notify(3)), which are lines of `NAME=VALUE`.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// See the module. Without a manager nothing is told to anybody.
#[derive(Debug, Default)]
pub struct Manager {
    socket: Option<UnixDatagram>,
    patience: Option<Duration>,
}

impl Manager {
    /// The manager that the environment names.
    pub fn of_this_process() -> Self {
        let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
            return Manager::default();
        };
        let socket = connect(&path).inspect_err(|error| {
            tracing::warn!("cannot tell systemd at {}: {error}", path.display())
        });
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        // A child that has our environment is not the one that is watched.
        let is_watched =
            number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        Manager {
            socket: socket.ok(),
            patience: number("WATCHDOG_USEC")
                .filter(|_| is_watched)
                .map(Duration::from_micros),
        }
    }

    /// How long it may hear nothing of [`Manager::alive`]; `None` where it does not watch.
    pub fn patience(&self) -> Option<Duration> {
        self.patience.filter(|_| self.socket.is_some())
    }

    /// This process does what it is there for.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// It is the service's main process from now on: it has the place of another one.
    pub fn main_process(&self) {
        self.tell(&format!("MAINPID={}", std::process::id()));
    }

    /// It still does.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// It is about to end.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// What it does, in a sentence, for `systemctl status`.
    pub fn status(&self, sentence: &str) {
        self.tell(&format!("STATUS={}", sentence.replace('\n', " ")));
    }

    /// A manager that does not listen loses what it would have heard, which nobody here can mend.
    fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(state.as_bytes());
        }
    }
}

/// `@NAME` is a name in the abstract namespace, anything else a path.
fn connect(path: &OsStr) -> io::Result<UnixDatagram> {
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // A full queue must not hold this process up.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    fn manager(path: &OsStr) -> Manager {
        Manager {
            socket: Some(connect(path).unwrap()),
            patience: None,
        }
    }

    #[test]
    fn a_manager_at_a_path_hears_each_word() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = manager(path.as_os_str());
        manager.ready();
        assert_eq!(heard(&socket), "READY=1");
        manager.main_process();
        assert_eq!(heard(&socket), format!("MAINPID={}", std::process::id()));
        manager.alive();
        assert_eq!(heard(&socket), "WATCHDOG=1");
        manager.status("two\nlines");
        assert_eq!(heard(&socket), "STATUS=two lines");
        manager.stopping();
        assert_eq!(heard(&socket), "STOPPING=1");
    }

    #[test]
    fn a_manager_may_have_an_abstract_name() {
        let name = format!("lockstep-manager-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        manager(OsStr::new(&format!("@{name}"))).alive();
        assert_eq!(heard(&socket), "WATCHDOG=1");
    }

    #[test]
    fn a_manager_that_does_not_listen_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = manager(path.as_os_str());
        // Far more than a socket's queue holds.
        (0..10_000).for_each(|_| manager.alive());
        drop(socket);
        manager.alive();
        assert!(connect(OsStr::new("/nowhere/notify")).is_err());
    }
}
