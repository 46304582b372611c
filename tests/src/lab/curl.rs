//! curl: one request, one answer.

use super::netns::Netns;
use anyhow::{Context, Result, bail};

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body. The lab's nginx answers `/` with its own name and a line feed.
    pub body: String,
}

pub(super) fn get(netns: &Netns, url: &str) -> Result<Answer> {
    let args = ["-sS", "-g", "--max-time", "5", "-w", "\n%{http_code}", url];
    let text = netns.output("curl", &args)?;
    let (body, status) = text.rsplit_once('\n').context("curl wrote no status")?;
    let status = status
        .parse()
        .with_context(|| format!("curl's status is {status:?}"))?;
    if status == 0 {
        bail!("{url} did not answer");
    }
    Ok(Answer {
        status,
        body: body.to_owned(),
    })
}
