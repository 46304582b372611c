//! The Unix socket of the gRPC interface.

use super::Agent;
use super::api::Api;
use anyhow::{Context, bail};
use lockstep_api::engine_server::EngineServer;
use nix::sys::stat::{Mode, umask};
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;

/// The longest message: a snapshot at the limits of the plan takes less.
pub(super) const MESSAGE: usize = 64 << 20;

/// Serves the API until it fails. `ready` is called once it is there.
pub async fn serve(agent: Arc<Agent>, ready: impl FnOnce()) -> anyhow::Result<()> {
    let listener = listen(&agent.socket()).await?;
    tracing::info!(socket = %agent.socket().display(), "ready");
    ready();
    tonic::transport::Server::builder()
        .add_service(
            EngineServer::new(Api(agent))
                .max_decoding_message_size(MESSAGE)
                .max_encoding_message_size(MESSAGE),
        )
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await
        .context("the API ended")
}

/// Whether an engine answers on a socket.
pub async fn is_served(socket: &Path) -> bool {
    UnixStream::connect(socket).await.is_ok()
}

/// Listens on a socket that only its owner can open, in place of one that a killed engine left.
async fn listen(socket: &Path) -> anyhow::Result<UnixListener> {
    if is_served(socket).await {
        bail!(
            "another engine serves {}; stop it, or give this one a [engine] socket of its own",
            socket.display()
        );
    }
    if let Some(directory) = socket.parent() {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    remove_left(socket)?;
    // Set before the socket is there: afterwards would leave it open to all for a moment.
    let before = umask(Mode::S_IRWXG | Mode::S_IRWXO | Mode::S_IXUSR);
    let listener = UnixListener::bind(socket);
    umask(before);
    listener.with_context(|| format!("cannot listen on {}", socket.display()))
}

/// Removes the socket that a killed engine left, and nothing else that has its name.
fn remove_left(socket: &Path) -> anyhow::Result<()> {
    // Of a link itself, not of what it leads to: the link is what would be removed.
    let left = match std::fs::symlink_metadata(socket) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        left => left.with_context(|| format!("cannot look at {}", socket.display()))?,
    };
    if !left.file_type().is_socket() {
        bail!(
            "{} is there and is not a socket: it is left alone; name another [engine] socket, or \
             remove it",
            socket.display()
        );
    }
    std::fs::remove_file(socket).with_context(|| format!("cannot replace {}", socket.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn what_is_not_a_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("precious");
        std::fs::write(&file, "data").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for path in [&file, &link, &dir.path().to_owned()] {
            let error = listen(path).await.unwrap_err().to_string();
            let expected = format!("{} is there and is not a socket", path.display());
            assert!(error.starts_with(&expected), "{error}");
        }
        assert_eq!(std::fs::read_to_string(&link).unwrap(), "data");
    }

    #[tokio::test]
    async fn the_socket_of_a_killed_engine_is_replaced_and_a_served_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/engine.sock");
        // Its file stays when it is closed.
        drop(listen(&path).await.unwrap());
        assert!(path.exists());
        let _served = listen(&path).await.unwrap();
        let error = listen(&path).await.unwrap_err().to_string();
        assert!(error.starts_with("another engine serves"), "{error}");
    }
}
