//! UDP: an answer, or at least no refusal.

use super::ask::{Question, Trouble};
use super::socket::datagrams;
use super::tcp::{contains, shown};
use lockstep_ctl_core::checks::Exchange;
use std::io;
use tokio::time::timeout_at;

/// Passes when the answer is as it should be; where none is expected, when no ICMP message says
/// that nobody listens there.
pub async fn ask(question: &Question<'_>, exchange: &Exchange) -> Result<(), Trouble> {
    let (socket, _pass) = datagrams(question).await?;
    let sent = socket.send(&exchange.send).await;
    sent.map_err(|e| failed("sending", &e))?;
    let mut answer = [0; 2_048];
    let reading = async {
        loop {
            let read = socket.recv(&mut answer).await;
            let read = read.map_err(|e| failed("reading", &e))?;
            if contains(&answer[..read], &exchange.expect) {
                return Ok(());
            }
            // Another datagram may be what is expected; this one is what is told if none is.
            tracing::debug!(to = %question.to, "answered {}", shown(&answer[..read]));
        }
    };
    if exchange.expect.is_empty() {
        // Silence is fine.
        return timeout_at(question.deadline, reading)
            .await
            .unwrap_or(Ok(()));
    }
    question.within("no expected answer", reading).await
}

fn failed(doing: &str, error: &io::Error) -> Trouble {
    match error.kind() {
        // ICMP's port unreachable (RFC 1122, section 4.1.3.3).
        io::ErrorKind::ConnectionRefused => Trouble::Backend("port unreachable".to_owned()),
        _ => Trouble::of_socket(doing, error),
    }
}
