//! When, where and with which programs something was measured: in every file of results.

use crate::machine;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// That, in short: [`Machine`](machine::Machine) has more, of comparisons.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The day, as ISO 8601 has it.
    pub date: String,
    /// The commit of the checkout that the programs were built in, `-dirty` where what programs are made of differs from it; empty
    /// where there is none.
    pub commit: String,
    /// The kernel's release.
    pub kernel: String,
    /// The processor's name.
    pub processor: String,
}

/// What is saved, with its origin beside it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Saved<T> {
    /// None in files of some time ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// What it is of.
    #[serde(flatten)]
    pub what: T,
}

/// Rows, as what is [`Saved`].
#[derive(Debug, Serialize)]
struct Rows<T> {
    rows: T,
}

impl Origin {
    /// Of what is measured here and now.
    pub fn look() -> Self {
        Origin {
            date: machine::date(),
            commit: machine::commit(),
            kernel: machine::kernel(),
            processor: machine::processor(),
        }
    }
}

/// In words, to stand behind "measured".
pub fn in_words(origin: Option<&Origin>) -> String {
    let Some(Origin {
        date,
        commit,
        kernel,
        processor,
    }) = origin.filter(|origin| !origin.date.is_empty())
    else {
        return "on an unknown date".to_owned();
    };
    let commit = match commit.as_str() {
        "" => "an unknown commit".to_owned(),
        commit => format!("commit {commit}"),
    };
    format!("{date}, {commit}, Linux {kernel}, {processor}")
}

/// Writes rows and where they come from.
pub fn write(output: &Path, rows: &impl Serialize) -> Result<()> {
    let saved = Saved {
        origin: Some(Origin::look()),
        what: Rows { rows },
    };
    crate::output::write(output, &saved)
}

/// The rows of a file, which is nothing but them where it is of some time ago.
pub fn rows(file: Value) -> (Option<Origin>, Vec<Value>) {
    match file {
        Value::Array(rows) => (None, rows),
        mut file => {
            let origin = serde_json::from_value(file["origin"].take()).ok();
            let rows = file["rows"].take();
            (origin, rows.as_array().cloned().unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use serde_json::json;

    #[test]
    fn rows_are_read_as_they_were_written_with_their_origin() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("core.json");
        let all = vec![json!({"path": "tunnel-v4"})];
        write(&file, &all).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let (origin, read) = rows(serde_json::from_str(&text).unwrap());
        assert_eq!(read, all);
        let words = in_words(origin.as_ref());
        assert!(
            words.starts_with("20") && words.contains("commit "),
            "{words}"
        );
        // One of some time ago.
        let (origin, read) = rows(Value::Array(all.clone()));
        assert_eq!(read, all);
        assert_eq!(in_words(origin.as_ref()), "on an unknown date");
    }
}
