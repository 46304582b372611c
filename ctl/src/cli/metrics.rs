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

/// Prints the metrics of daemon and engine, of those that are there.
pub async fn run(global: &Global, out: &mut Out) -> Result<Answer, Failure> {
    let text = match (of_daemon(global).await, of_engine(global).await) {
        (Err(_), Err(failure)) => return Err(failure),
        (daemon, engine) => daemon.unwrap_or_default() + &engine.unwrap_or_default(),
    };
    let metrics = Metrics { text };
    out.answer(&metrics, || metrics.text.clone())?;
    Ok(Answer::Yes)
}

async fn of_engine(global: &Global) -> Result<String, Failure> {
    let mut engine = ask::engine(global).await?;
    let reply = ask::present(Peer::Engine, engine.metrics(MetricsRequest {})).await?;
    Ok(reply.text)
}

async fn of_daemon(global: &Global) -> Result<String, Failure> {
    let mut daemon = ask::daemon(global).await?;
    let reply = ask::present(Peer::Daemon, daemon.metrics(MetricsRequest {})).await?;
    Ok(reply.text)
}
