//! Scripts: programs of the operator's that say whether a backend is well.

use super::ask::{Asker, Question, Trouble};
use lockstep_topology::duration;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::{Instant, timeout, timeout_at};

/// What is kept of what a script writes, in bytes.
const OUTPUT: usize = 1_024;
/// How long the rest of its output is waited for when it has ended.
const REST: Duration = Duration::from_millis(20);

/// Passes when the script ends with 0, after the time that is returned.
pub async fn ask(
    question: &Question<'_>,
    command: &[String],
    asker: &Asker,
) -> Result<Duration, Trouble> {
    let Some(directory) = &asker.scripts else {
        let text = "scripts are not allowed: name their directory as `scripts` in [health] of \
                    lockstepd.toml";
        return Err(Trouble::Here(text.to_owned()));
    };
    let begun = Instant::now();
    let limit = question.subject.pace.timeout;
    run(question, directory, command, begun + limit)
        .await
        .map(|()| begun.elapsed())
}

async fn run(
    question: &Question<'_>,
    directory: &Path,
    command: &[String],
    deadline: Instant,
) -> Result<(), Trouble> {
    let (program, arguments) = command.split_first().ok_or_else(|| {
        let text = "the check names no script";
        Trouble::Here(text.to_owned())
    })?;
    let path = directory.join(program);
    let mut child = prepared(question, &path, arguments)
        .spawn()
        .map_err(|error| {
            let path = path.display();
            Trouble::Here(format!("cannot run {path}: {error}"))
        })?;
    // Of its own: what it starts is killed with it.
    let group = Group(child.id().and_then(|id| i32::try_from(id).ok()));
    let (out, error) = (child.stdout.take(), child.stderr.take());
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let ended = {
        let mut reading = std::pin::pin!(async {
            tokio::join!(keep(out, &mut said), keep(error, &mut complained));
        });
        let ending = async {
            tokio::select! {
                status = child.wait() => (status, false),
                // It may go on without its output.
                () = &mut reading => (child.wait().await, true),
            }
        };
        let ended = timeout_at(deadline, ending).await;
        // What it wrote last may not have been read yet.
        if let Ok((_, false)) = ended {
            let _ = timeout(REST, &mut reading).await;
        }
        drop(group);
        ended
    };
    let Ok((status, _)) = ended else {
        let limit = duration::format(question.subject.pace.timeout);
        return Err(Trouble::Backend(format!("still running after {limit}")));
    };
    let status = status.map_err(|e| Trouble::Here(format!("cannot wait for a script: {e}")))?;
    if status.success() {
        return Ok(());
    }
    let line = [complained, said].iter().find_map(|text| first_line(text));
    let line = line.map_or_else(String::new, |line| format!(": {line}"));
    Err(Trouble::Backend(format!("{status}{line}")))
}

fn prepared(question: &Question<'_>, path: &Path, arguments: &[String]) -> Command {
    let (target, subject) = (question.target, question.subject);
    let mut command = Command::new(path);
    command
        .args(arguments)
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("LOCKSTEP_SERVICE", target.service.as_str())
        .env("LOCKSTEP_BACKEND", &subject.name)
        .env("LOCKSTEP_ADDRESS", target.backend.0.to_string())
        .env("LOCKSTEP_PORT", subject.asked_port().to_string())
        .env("LOCKSTEP_VIP", subject.vip.address().to_string())
        .env("LOCKSTEP_VIP_PORT", subject.vip.port().to_string())
        .current_dir("/")
        .process_group(0)
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A process group, killed when this is dropped.
struct Group(Option<i32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            // It may have ended already, with all that it had started.
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

/// Reads to the end, and keeps the beginning.
async fn keep(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut piece = [0; 1_024];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        let room = OUTPUT.saturating_sub(kept.len()).min(read);
        kept.extend_from_slice(&piece[..room]);
    }
}

fn first_line(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.chars().filter(|c| !c.is_control()).collect())
}
