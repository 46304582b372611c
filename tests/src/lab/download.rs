//! curl with a large file: what arrives is hashed and looked at as it comes, and kept nowhere.

use super::content::{Content, hex};
use super::netns::Netns;
use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const PIECE: usize = 64 << 10;
/// Longer than any download of a scenario should take, on a slow machine too.
const LIMIT: &str = "200";

/// What arrived of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// Bytes.
    pub bytes: u64,
    /// Their SHA-256, in hexadecimal.
    pub sha256: String,
    /// The offset of the first byte that is not the file's.
    pub wrong: Option<u64>,
    /// The longest time that curl waited for, without what `progress` took.
    pub pause: Duration,
    /// From curl's start to its end.
    pub took: Duration,
    /// curl's exit code, and what it complained about.
    pub exit: (Option<i32>, String),
}

impl Arrived {
    /// Whether it is the file, all of it.
    pub fn must_be(&self, content: &Content) -> Result<()> {
        ensure!(
            self.exit.0 == Some(0)
                && self.wrong.is_none()
                && self.bytes == content.size()
                && self.sha256 == content.sha256(),
            "what arrived is not {} with {} bytes and {}: {self:?}",
            content.path(),
            content.size(),
            content.sha256()
        );
        Ok(())
    }
}

/// Ends curl when a scenario has failed.
struct Curl(Child);

impl Drop for Curl {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Downloads `content` from `http://<from>/`. `progress` is told how many bytes have arrived so far,
/// and nothing more is read before it returns: what it does, it does at that byte, give or take what
/// is under way.
pub(super) fn download(
    netns: &Netns,
    from: SocketAddr,
    content: &Content,
    mut progress: impl FnMut(u64) -> Result<()>,
) -> Result<Arrived> {
    let url = format!("http://{from}/{}", content.path());
    let start = Instant::now();
    let mut command = netns.command("curl");
    command.args(["-sSfgN", "--max-time", LIMIT, &url]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut curl = Curl(command.spawn().context("cannot start curl")?);
    let mut output = curl.0.stdout.take().context("curl has no output")?;
    let (mut hash, mut piece) = (Sha256::new(), vec![0; PIECE]);
    let (mut bytes, mut wrong) = (0, None);
    let (mut last, mut pause) = (None::<Instant>, Duration::ZERO);
    loop {
        let count = output
            .read(&mut piece)
            .context("cannot read what curl writes")?;
        if count == 0 {
            break;
        }
        pause = pause.max(last.map_or(Duration::ZERO, |last| last.elapsed()));
        hash.update(&piece[..count]);
        wrong = wrong.or_else(|| content.pattern().first_difference(bytes, &piece[..count]));
        bytes += count as u64;
        progress(bytes)?;
        last = Some(Instant::now());
    }
    let status = curl.0.wait()?;
    let mut says = String::new();
    if let Some(errors) = &mut curl.0.stderr {
        errors.read_to_string(&mut says)?;
    }
    Ok(Arrived {
        bytes,
        sha256: hex(&hash.finalize()),
        wrong,
        pause,
        took: start.elapsed(),
        exit: (status.code(), says.trim().to_owned()),
    })
}
