//! The Unix socket of the gRPC interface.

use super::Agent;
use super::api::Api;
use anyhow::{Context, bail};
use lockstep_api::engine_server::EngineServer;
use nix::sys::stat::{Mode, umask};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;

/// The longest message: a snapshot at the limits of the plan takes less.
const MESSAGE: usize = 64 << 20;

/// Serves the API until it fails.
pub async fn serve(agent: Arc<Agent>) -> anyhow::Result<()> {
    let listener = listen(&agent.socket()).await?;
    tracing::info!(socket = %agent.socket().display(), "ready");
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
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", socket.display()));
        }
        Ok(()) | Err(_) => {}
    }
    // Set before the socket is there: afterwards would leave it open to all for a moment.
    let before = umask(Mode::S_IRWXG | Mode::S_IRWXO | Mode::S_IXUSR);
    let listener = UnixListener::bind(socket);
    umask(before);
    listener.with_context(|| format!("cannot listen on {}", socket.display()))
}
