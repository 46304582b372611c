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
    match timeout(TIMEOUT, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(silent(peer)),
    }
}

/// The next message of a stream, when it comes in time; `None` at the end.
pub async fn next<T>(peer: Peer, stream: &mut Streaming<T>) -> Result<Option<T>, Failure> {
    match timeout(TIMEOUT, stream.message()).await {
        Ok(message) => Ok(message?),
        Err(_) => Err(silent(peer)),
    }
}

fn silent(peer: Peer) -> Failure {
    let (program, seconds) = (peer.program(), TIMEOUT.as_secs());
    Failure::Unreachable(format!(
        "{program} has not answered for {seconds} s; look at its log"
    ))
}
