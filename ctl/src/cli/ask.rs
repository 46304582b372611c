//! Clients of the engine and of the daemon.

use super::{Failure, Global};
use crate::transport::{MAX_MESSAGE, Peer, connect};
use lockstep_api::control_client::ControlClient;
use lockstep_api::engine_client::EngineClient;
use std::time::Duration;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

/// How long an answer may take. The daemon itself waits 10 s for each of the engine's, and asks up
/// to four times where it has to take back what the engine refused.
const TIMEOUT: Duration = Duration::from_secs(45);

/// How long the answer to a question about the present may take: who asks is looking for what is
/// wrong, and that somebody does not answer is what is wrong.
const PRESENT: Duration = Duration::from_secs(3);

/// The engine.
pub async fn engine(global: &Global) -> Result<EngineClient<Channel>, Failure> {
    let connection = connect(Peer::Engine, &global.engine_socket).await?;
    Ok(EngineClient::new(connection.channel)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE))
}

/// The daemon.
pub async fn daemon(global: &Global) -> Result<ControlClient<Channel>, Failure> {
    let connection = connect(Peer::Daemon, &global.daemon_socket).await?;
    Ok(ControlClient::new(connection.channel)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE))
}

/// An answer, when it comes in time.
pub async fn answer<T>(
    peer: Peer,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Failure> {
    within(TIMEOUT, peer, call).await
}

/// An answer about the present, when it comes at once.
pub async fn present<T>(
    peer: Peer,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Failure> {
    within(PRESENT, peer, call).await
}

async fn within<T>(
    patience: Duration,
    peer: Peer,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Failure> {
    match timeout(patience, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(silent(peer, patience)),
    }
}

/// The next message of a stream, when it comes in time; `None` at the end.
pub async fn next<T>(peer: Peer, stream: &mut Streaming<T>) -> Result<Option<T>, Failure> {
    match timeout(TIMEOUT, stream.message()).await {
        Ok(message) => Ok(message?),
        Err(_) => Err(silent(peer, TIMEOUT)),
    }
}

fn silent(peer: Peer, patience: Duration) -> Failure {
    let (program, seconds) = (peer.program(), patience.as_secs());
    Failure::Unreachable(format!(
        "{program} has not answered for {seconds} s; look at its log and at `ps`, and restart it \
         where it hangs: a hung engine's packets go to the kernel, a hung daemon's absence stops \
         none"
    ))
}
