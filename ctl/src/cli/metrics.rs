//! `lockstep metrics`.

use super::output::Out;
use super::{Answer, Failure, Global, ask};
use crate::transport::Peer;
use lockstep_api::MetricsRequest;
use serde::Serialize;

/// The answer as JSON: the text in a string, since Prometheus has no other form.
#[derive(Debug, Serialize)]
struct Metrics {
    text: String,
}

/// Prints the engine's metrics.
pub async fn run(global: &Global, out: &mut Out) -> Result<Answer, Failure> {
    let mut engine = ask::engine(global).await?;
    let reply = ask::answer(Peer::Engine, engine.metrics(MetricsRequest {})).await?;
    let metrics = Metrics { text: reply.text };
    out.answer(&metrics, || metrics.text.clone())?;
    Ok(Answer::Yes)
}
