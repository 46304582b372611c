//! TCP: a connection, and where it is asked for, an answer on it.

use super::ask::{Question, Trouble};
use super::socket::connect;
use lockstep_ctl_core::checks::{Exchange, MAX_BODY};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Passes when the connection is there, and the answer as it should be.
pub async fn ask(question: &Question<'_>, exchange: &Exchange) -> Result<(), Trouble> {
    let (mut stream, _pass) = connect(question).await?;
    if !exchange.send.is_empty() {
        let sending = async {
            let sent = stream.write_all(&exchange.send).await;
            sent.map_err(|e| Trouble::of_socket("sending", &e))
        };
        question.within("not taken what was sent", sending).await?;
    }
    if exchange.expect.is_empty() {
        return Ok(());
    }
    let mut answer = Vec::new();
    let reading = async {
        let mut piece = [0; 4_096];
        loop {
            let read = stream.read(&mut piece).await;
            let read = read.map_err(|e| Trouble::of_socket("reading", &e))?;
            // What was searched already matters as the beginning of a match only.
            let new = answer.len().saturating_sub(exchange.expect.len() - 1);
            answer.extend_from_slice(&piece[..read]);
            if contains(&answer[new..], &exchange.expect) {
                return Ok(());
            }
            if read == 0 || answer.len() > MAX_BODY {
                let shown = shown(&answer);
                return Err(Trouble::Backend(format!(
                    "answered {shown}, without what is expected"
                )));
            }
        }
    };
    let missing = "no expected answer";
    question.within(missing, reading).await
}

/// Whether one has the other in it.
pub fn contains(answer: &[u8], expected: &[u8]) -> bool {
    expected.is_empty() || answer.windows(expected.len()).any(|w| w == expected)
}

/// The beginning of an answer, for a person.
pub fn shown(answer: &[u8]) -> String {
    const MOST: usize = 40;
    match answer.len() {
        0 => "nothing".to_owned(),
        length if length > MOST => format!("\"{}...\"", answer[..MOST].escape_ascii()),
        _ => format!("\"{}\"", answer.escape_ascii()),
    }
}
