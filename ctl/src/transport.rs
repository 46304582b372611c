//! Unix sockets: the daemon's own, and the connections to the engine's and the daemon's.

use hyper_util::rt::TokioIo;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use nix::sys::stat::{Mode, fchmod};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};

/// The largest message taken, in bytes. A snapshot at every limit of the plan is about 10 MiB.
pub const MAX_MESSAGE: usize = 64 << 20;

/// How long a connection may take to be answered.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A URI for the sake of having one: connections are made by a connector of their own.
const NOWHERE: &str = "http://lockstep.invalid";
/// From one question whether the other end is alive to the next.
const ASK: Duration = Duration::from_secs(1);
/// How long its answer may take.
const SILENCE: Duration = Duration::from_secs(2);

/// The process at the other end of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// `lockstep-engine`.
    Engine,
    /// `lockstepd`.
    Daemon,
}

impl Peer {
    /// The name of its program.
    pub const fn program(self) -> &'static str {
        match self {
            Peer::Engine => "lockstep-engine",
            Peer::Daemon => "lockstepd",
        }
    }
}

/// Why there is no connection, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens.
    #[error("{} is not running ({how} at {}); start it with `{}`", .peer.program(), .path.display(), .peer.program())]
    NotRunning {
        /// Whom the socket belongs to.
        peer: Peer,
        /// Where it should be.
        path: PathBuf,
        /// What is found there.
        how: &'static str,
    },
    /// The socket is for root only.
    #[error("no permission for the socket of {} at {}; run this as root", .peer.program(), .path.display())]
    Permission {
        /// Whom the socket belongs to.
        peer: Peer,
        /// Where it is.
        path: PathBuf,
    },
    /// Anything else.
    #[error("cannot talk to {} at {}: {reason}", .peer.program(), .path.display())]
    Failed {
        /// Whom the socket belongs to.
        peer: Peer,
        /// Where it is.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
}

/// A connection that is not made again when it ends: whoever holds it sees the end, and what the
/// other process has forgotten in between can be told again.
#[derive(Debug)]
pub struct Connection {
    /// To make a client of.
    pub channel: Channel,
    /// Resolves when the other end has gone, also while nothing is being asked.
    pub closed: Closed,
}

/// The end of a [`Connection`].
#[derive(Debug)]
pub struct Closed(oneshot::Receiver<()>);

impl Closed {
    /// Waits for it.
    pub async fn wait(self) {
        // Nothing is ever sent: the sender goes with the stream.
        let _ = self.0.await;
    }
}

/// Connects to a process of Lockstep on this host.
///
/// # Errors
/// When nobody answers there.
pub async fn connect(peer: Peer, path: &Path) -> Result<Connection, ConnectError> {
    connect_by(Endpoint::from_static(NOWHERE), peer, path).await
}

/// Connects likewise, and takes a process that does not answer for three seconds, hung or stopped,
/// for one that is gone.
///
/// # Errors
/// When nobody answers there.
pub async fn connect_and_watch(peer: Peer, path: &Path) -> Result<Connection, ConnectError> {
    let endpoint = Endpoint::from_static(NOWHERE)
        .http2_keep_alive_interval(ASK)
        .keep_alive_timeout(SILENCE)
        .keep_alive_while_idle(true);
    connect_by(endpoint, peer, path).await
}

async fn connect_by(
    endpoint: Endpoint,
    peer: Peer,
    path: &Path,
) -> Result<Connection, ConnectError> {
    let stream = UnixStream::connect(path)
        .await
        .map_err(|error| refused(peer, path, &error))?;
    let (alive, closed) = oneshot::channel();
    let mut stream = Some(Watched {
        stream,
        _alive: alive,
    });
    let connector = tower::service_fn(move |_| {
        let taken = stream
            .take()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        std::future::ready(taken.map(TokioIo::new))
    });
    let channel = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .connect_with_connector(connector)
        .await
        .map_err(|error| ConnectError::Failed {
            peer,
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
    Ok(Connection {
        channel,
        closed: Closed(closed),
    })
}

fn refused(peer: Peer, path: &Path, error: &io::Error) -> ConnectError {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => ConnectError::NotRunning {
            peer,
            path,
            how: "no socket",
        },
        io::ErrorKind::ConnectionRefused => ConnectError::NotRunning {
            peer,
            path,
            how: "nobody listens on the socket left",
        },
        io::ErrorKind::PermissionDenied => ConnectError::Permission { peer, path },
        _ => ConnectError::Failed {
            peer,
            path,
            reason: error.to_string(),
        },
    }
}

/// A stream whose end is noticed: hyper drops it as soon as it reads the end of it.
struct Watched {
    stream: UnixStream,
    _alive: oneshot::Sender<()>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A socket that is being listened on. Its file goes when it is dropped.
#[derive(Debug)]
pub struct Listening {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        // A file that is gone already is what was wanted.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Why a socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A live predecessor.
    #[error("another {} is running (it holds {}); stop it first", .peer.program(), .path.display())]
    Taken {
        /// Whom the socket belongs to.
        peer: Peer,
        /// The socket, or its lock.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot listen on {}: {reason}", .path.display())]
    Failed {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
}

/// Listens on a socket that only its owner may use (mode 0600). What a killed predecessor left is
/// replaced; a live one is an error. Makes the directory when there is none.
///
/// # Errors
/// When another process listens there, or the system refuses.
pub fn listen_on(peer: Peer, path: &Path) -> Result<(UnixListener, Listening), ListenError> {
    let failed = |reason: String| ListenError::Failed {
        path: path.to_owned(),
        reason,
    };
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(parent) = parent {
        std::fs::create_dir_all(parent).map_err(|e| failed(e.to_string()))?;
    }
    // The lock goes with its process, however that ends: a socket file without a locked lock is
    // nobody's. Connecting instead would take a busy predecessor for a dead one.
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(|e| failed(e.to_string()))?;
    let lock =
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| ListenError::Taken {
            peer,
            path: lock_path,
        })?;
    let left = std::fs::symlink_metadata(path);
    if left.is_ok_and(|left| !left.file_type().is_socket()) {
        return Err(failed(
            "something that is not a socket is there, and left alone; name another socket, or \
             remove it"
                .to_owned(),
        ));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed(error.to_string()));
        }
        _ => {}
    }
    let listener = bind_private(path).map_err(|e| failed(e.to_string()))?;
    Ok((
        listener,
        Listening {
            path: path.to_owned(),
            _lock: lock,
        },
    ))
}

/// Binds with mode 0600 from the first moment: Linux gives the file the mode of the descriptor.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&fd, Backlog::new(128)?)?;
    UnixListener::from_std(std::os::unix::net::UnixListener::from(fd))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn a_socket_is_private_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/d.sock");
        let (listener, listening) = listen_on(Peer::Daemon, &path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(UnixStream::connect(&path).await.is_ok());
        drop((listener, listening));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_has_the_name_and_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.sock");
        std::fs::write(&path, "precious").unwrap();
        let error = listen_on(Peer::Daemon, &path).unwrap_err().to_string();
        assert!(error.contains("not a socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_live_predecessor_is_reported_and_a_killed_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.sock");
        let (listener, listening) = listen_on(Peer::Daemon, &path).unwrap();
        let error = listen_on(Peer::Daemon, &path).unwrap_err().to_string();
        assert!(error.starts_with("another lockstepd is running"), "{error}");
        assert!(
            UnixStream::connect(&path).await.is_ok(),
            "the first one goes on"
        );
        drop((listener, listening));

        // What a killed process leaves: a socket file that nobody listens on, an unlocked lock.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _second = listen_on(Peer::Daemon, &path).unwrap();
        assert!(UnixStream::connect(&path).await.is_ok());
    }

    #[tokio::test]
    async fn errors_say_who_is_missing_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine.sock");
        let shown = path.display();
        let error = connect(Peer::Engine, &path).await.unwrap_err().to_string();
        let expected = format!(
            "lockstep-engine is not running (no socket at {shown}); start it with `lockstep-engine`"
        );
        assert_eq!(error, expected);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let error = connect(Peer::Engine, &path).await.unwrap_err().to_string();
        assert!(
            error.contains("nobody listens on the socket left"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn the_end_of_an_idle_connection_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let accept = tokio::spawn(async move { listener.accept().await.unwrap() });
        let connection = connect(Peer::Engine, &path).await.unwrap();
        drop(accept.await.unwrap());
        let closed = tokio::time::timeout(Duration::from_secs(5), connection.closed.wait());
        assert!(closed.await.is_ok());
    }
}
