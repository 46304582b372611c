//! The link to the engine: made as soon as there is an engine, and again whenever it restarts.

use super::actor::Event;
use crate::transport::{MAX_MESSAGE, Peer, connect_and_watch};
use lockstep_api::CurrentRequest;
use lockstep_api::engine_client::EngineClient;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::transport::Channel;

/// The first wait after a refusal.
const FIRST_WAIT: Duration = Duration::from_millis(10);
/// How long a new engine's first answer may take.
const ANSWER: Duration = Duration::from_secs(2);
/// The longest one. An engine that starts has its snapshot this much later; connecting to a Unix
/// socket that nobody listens on costs a few microseconds.
const LONGEST_WAIT: Duration = Duration::from_millis(40);

/// Connects to the engine for ever, and tells the actor when there is one and when it is gone.
/// Ends with the actor.
pub async fn keep(socket: PathBuf, events: mpsc::Sender<Event>) {
    let mut wait = FIRST_WAIT;
    let mut said = String::new();
    loop {
        match connect_and_watch(Peer::Engine, &socket).await {
            Ok(connection) => {
                let client = EngineClient::new(connection.channel)
                    .max_decoding_message_size(MAX_MESSAGE)
                    .max_encoding_message_size(MAX_MESSAGE);
                // The kernel takes connections for a process that hangs, too.
                if answers(client.clone()).await {
                    wait = FIRST_WAIT;
                    said.clear();
                    if events.send(Event::EngineUp(client)).await.is_err() {
                        return;
                    }
                    connection.closed.wait().await;
                    if events.send(Event::EngineDown).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => {
                // Once a reason, not once a try.
                let error = error.to_string();
                if error != said {
                    tracing::warn!("{error}; waiting for it");
                    said = error;
                }
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Whether the process at the other end answers.
async fn answers(mut engine: EngineClient<Channel>) -> bool {
    let asked = timeout(ANSWER, engine.current(CurrentRequest {})).await;
    asked.is_ok_and(|answer| answer.is_ok())
}
