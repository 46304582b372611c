//! The policy of a `Dire`'s sessions.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whose bytes the client gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Commit {
    /// The primary's, as they come.
    #[default]
    Primary,
    /// Those that `quorum` replicas have produced alike.
    Quorum,
}

/// What follows when a replica's bytes differ from those sent to the client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Divergence {
    /// They are not compared.
    Ignore,
    /// It is counted.
    #[default]
    Count,
    /// The minority leaves the session.
    Evict,
    /// The session ends.
    Reset,
}

/// Which connections are one session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Group {
    /// Each is its own.
    #[default]
    Connection,
    /// All of one client address, whichever port they are to.
    Client,
}

/// What is left out of comparisons: bytes of the answer's stream, or what a pattern matches.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new(
    "has(self.pattern) ? !has(self.offset) && !has(self.length) : has(self.offset) && has(self.length)"
).message("a mask is an offset with a length, or a pattern"))]
#[serde(rename_all = "camelCase")]
pub struct Mask {
    /// Where the bytes begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub offset: Option<i64>,
    /// How many they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4294967295i64))]
    pub length: Option<i64>,
    /// A regular expression over bytes, in the syntax of Rust's `regex`; it begins with three
    /// literal bytes at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 1024))]
    pub pattern: Option<String>,
}

/// Times (`500ms`, `3s`, `1m`, `1h`) and sizes (`64Ki`, `1Mi`, `1Gi`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// How long a client's SYN waits for `minSync` replicas before it is refused; 3s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]+(ms|s|m|h)$"))]
    pub open_timeout: Option<String>,
    /// How long another replica may be ahead of a primary that gives nothing, before it becomes
    /// the primary; 20ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]+(ms|s|m|h)$"))]
    pub stall_timeout: Option<String>,
    /// How long a replica may leave what was sent to it unacknowledged; 3s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]+(ms|s|m|h)$"))]
    pub dead_after: Option<String>,
    /// How long replicas may disagree about the end of the stream; 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]+(ms|s|m|h)$"))]
    pub fin_timeout: Option<String>,
    /// How long a session with too few replicas waits for one, before it is reset; 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]+(ms|s|m|h)$"))]
    pub orphan_timeout: Option<String>,
    /// Bytes of the client's that a replica in sync may be behind; 1Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]+(Ki|Mi|Gi)?$"))]
    pub max_lag: Option<String>,
    /// How long the client is slowed down for a replica past `maxLag`; 200ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]+(ms|s|m|h)$"))]
    pub grace: Option<String>,
    /// How long a replica may be lagging before it is evicted; 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]+(ms|s|m|h)$"))]
    pub lag_timeout: Option<String>,
    /// Bytes of the client's that are kept in memory for each session; 1Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]+(Ki|Mi|Gi)?$"))]
    pub log_memory: Option<String>,
    /// Bytes kept in files for each session, where the engine has a place for them; 64Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]+(Ki|Mi|Gi|Ti)?$"))]
    pub log_disk: Option<String>,
    /// Silence after which client and replicas are probed; 15s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]+(ms|s|m|h)$"))]
    pub keepalive: Option<String>,
    /// Silence, probes unanswered, after which the client counts as gone; 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]+(ms|s|m|h)$"))]
    pub client_timeout: Option<String>,
}

impl Limits {
    /// Whether nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Limits::default()
    }
}
