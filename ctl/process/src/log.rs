//! The log, to standard error: a line for people, or a JSON object a line.
//!
//! `LOCKSTEP_LOG` says how much (an `EnvFilter`, `info` where it says nothing), `LOCKSTEP_LOG_FORMAT`
//! (`text`, `json`) how, unless a configuration file says so later.

use std::fmt;
use std::io::{IsTerminal, stderr};
use std::os::linux::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{self, Full, Json, Writer};
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// How much is written where nobody says it.
const INFO: &str = "info";

/// What libraries write of failures that we tell ourselves, once and with what to do: the client of
/// Kubernetes writes several lines for each try of each of its streams.
const TOLD_BETTER: &str = "kube_client=off,kube_runtime=off";

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// A JSON object.
    Json,
}

/// The log of this process.
#[derive(Debug, Clone)]
pub struct Log {
    json: Arc<AtomicBool>,
    /// What the environment says.
    first: Format,
    level: Level,
}

/// How much is written.
#[derive(Clone)]
struct Level {
    change: Arc<dyn Fn(EnvFilter) + Send + Sync>,
    /// What the environment says.
    first: String,
    /// What it is now.
    now: Arc<Mutex<String>>,
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Level").finish_non_exhaustive()
    }
}

/// Begins to log. Once a process: a second subscriber would not be heard.
pub fn start() -> Log {
    let said = std::env::var("LOCKSTEP_LOG_FORMAT").ok();
    let format = said.as_deref().map_or(Some(Format::Text), format_of);
    let first = format.unwrap_or(Format::Text);
    let said_level = std::env::var("LOCKSTEP_LOG").ok().filter(|l| !l.is_empty());
    let level = said_level.as_deref().unwrap_or(INFO);
    let level = EnvFilter::try_new(level).map_or(INFO, |_| level).to_owned();
    let refused = said_level.filter(|said| *said != level);
    let lines = Lines::new(first, is_journal());
    let json = lines.json.clone();
    let (subscriber, level) = subscriber(lines, level, stderr, stderr().is_terminal());
    tracing::subscriber::set_global_default(subscriber).expect("a process begins to log once");
    if let (None, Some(said)) = (format, said) {
        tracing::warn!(
            "LOCKSTEP_LOG_FORMAT is {said:?}, which is neither `text` nor `json`; it is `text` now"
        );
    }
    if let Some(said) = refused {
        tracing::warn!("LOCKSTEP_LOG is {said:?}, which is no filter; it is `info` now");
    }
    Log { json, first, level }
}

impl Log {
    /// Writes lines so from now on, and so many; as the environment says where there is no format
    /// and no level (an `EnvFilter`).
    pub fn set(&self, format: Option<Format>, level: Option<&str>) {
        self.level.set(level);
        let json = format.unwrap_or(self.first) == Format::Json;
        self.json.store(json, Ordering::Relaxed);
    }
}

impl Level {
    fn set(&self, level: Option<&str>) {
        let level = level.unwrap_or(&self.first);
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if *now != level {
            now.clear();
            now.push_str(level);
            (self.change)(filter(level));
        }
    }
}

/// What a level lets through. Whoever looks for more than our own lines writes a directive or a finer
/// level, and gets all.
fn filter(level: &str) -> EnvFilter {
    match level {
        "error" | "warn" | "info" => EnvFilter::new(format!("{level},{TOLD_BETTER}")),
        _ => EnvFilter::new(level),
    }
}

fn format_of(text: &str) -> Option<Format> {
    match text {
        "text" | "" => Some(Format::Text),
        "json" => Some(Format::Json),
        _ => None,
    }
}

/// Whether standard error is the journal, which has times of its own: systemd.exec(5),
/// `JOURNAL_STREAM`.
fn is_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    is_file(&stream, Path::new("/proc/self/fd/2"))
}

/// Whether `DEVICE:INODE` is this file: a child that has the variable may write elsewhere.
fn is_file(stream: &str, file: &Path) -> bool {
    let Ok(metadata) = std::fs::metadata(file) else {
        return false;
    };
    stream == format!("{}:{}", metadata.st_dev(), metadata.st_ino())
}

fn subscriber<W>(
    lines: Lines,
    level: String,
    writer: W,
    colours: bool,
) -> (impl Subscriber + Send + Sync, Level)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(&level))
        .with_writer(writer)
        .with_ansi(colours)
        // A log nobody can write to any more must not end the process.
        .log_internal_errors(false)
        .event_format(lines)
        .with_filter_reloading();
    let handle = builder.reload_handle();
    let level = Level {
        // Whoever wrote the log is gone with the process only.
        change: Arc::new(move |filter| drop(handle.reload(filter))),
        now: Arc::new(Mutex::new(level.clone())),
        first: level,
    };
    (builder.finish(), level)
}

/// Writes a line in the format of the moment.
struct Lines {
    json: Arc<AtomicBool>,
    is_journal: bool,
    text: format::Format<Full, SystemTime>,
    bare: format::Format<Full, ()>,
    object: format::Format<Json, SystemTime>,
}

impl Lines {
    fn new(format: Format, is_journal: bool) -> Self {
        let text = || format::format().with_target(false);
        Lines {
            json: Arc::new(AtomicBool::new(format == Format::Json)),
            is_journal,
            text: text(),
            bare: text().without_time(),
            // Without spans: those that began under the other format cannot be written in this one.
            object: format::json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false),
        }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'l> LookupSpan<'l>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.json.load(Ordering::Relaxed) {
            self.object.format_event(context, writer, event)
        } else if self.is_journal {
            self.bare.format_event(context, writer, event)
        } else {
            self.text.format_event(context, writer, event)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Write};
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(lines: Lines, log: impl FnOnce(&Log)) -> Vec<String> {
        let written = Written::default();
        let writer = written.clone();
        let json = lines.json.clone();
        let (subscriber, level) = subscriber(lines, INFO.to_owned(), move || writer.clone(), false);
        let first = Format::Text;
        let told = Log { json, first, level };
        tracing::subscriber::with_default(subscriber, || log(&told));
        let bytes = written.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_journal_gets_lines_without_their_time() {
        let lines = |is_journal| {
            written(Lines::new(Format::Text, is_journal), |_| {
                tracing::warn!(epoch = 3, "something");
            })
        };
        assert_eq!(lines(true), [" WARN something epoch=3"]);
        let [timed] = &lines(false)[..] else { panic!() };
        assert!(
            timed.starts_with("20") && timed.ends_with("Z  WARN something epoch=3"),
            "{timed}"
        );
    }

    #[test]
    fn the_format_changes_while_spans_are_open() {
        let lines = Lines::new(Format::Text, true);
        let written = written(lines, |log| {
            let _span = tracing::info_span!("outer", a = 1).entered();
            tracing::info!("one");
            log.set(Some(Format::Json), None);
            tracing::info!(epoch = 2, "t\"wo");
            log.set(None, None);
            tracing::info!("three");
        });
        assert_eq!(written[0], " INFO outer{a=1}: one");
        let object: serde_json::Value = serde_json::from_str(&written[1]).unwrap();
        assert_eq!(object["message"], "t\"wo");
        assert_eq!(object["epoch"], 2);
        assert_eq!(object["level"], "INFO");
        assert!(object["timestamp"].is_string());
        assert_eq!(written[2], " INFO outer{a=1}: three");
    }

    #[test]
    fn the_level_changes_and_goes_back_to_what_the_environment_says() {
        let written = written(Lines::new(Format::Text, true), |log| {
            tracing::debug!("one");
            log.set(None, Some("debug"));
            tracing::debug!("two");
            log.set(None, Some("error"));
            tracing::warn!("three");
            log.set(None, None);
            tracing::info!("four");
            tracing::debug!("five");
        });
        assert_eq!(written, ["DEBUG two", " INFO four"]);
    }

    #[test]
    fn what_libraries_write_of_failures_that_are_told_is_left_out_of_plain_levels() {
        let written = written(Lines::new(Format::Text, true), |log| {
            let say = || tracing::error!(target: "kube_client::client", "refused");
            say();
            log.set(None, Some("warn"));
            say();
            tracing::warn!("ours");
            log.set(None, Some("info,kube_client=error"));
            say();
            log.set(None, Some("debug"));
            say();
        });
        assert_eq!(written, [" WARN ours", "ERROR refused", "ERROR refused"]);
    }

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let metadata = file.as_file().metadata().unwrap();
        let stream = format!("{}:{}", metadata.st_dev(), metadata.st_ino());
        assert!(is_file(&stream, file.path()));
        let other = format!("{}:{}", metadata.st_dev(), metadata.st_ino() + 1);
        for stream in [other.as_str(), "", "x"] {
            assert!(!is_file(stream, file.path()), "{stream}");
        }
    }

    #[test]
    fn formats_are_known_by_name() {
        assert_eq!(format_of("json"), Some(Format::Json));
        assert_eq!(format_of("text"), Some(Format::Text));
        assert_eq!(format_of("xml"), None);
    }
}
