//! What `lockstep sessions` and `lockstep events` say of an engine's sessions.

use super::balancer::Balancer;
use super::wait::wait_until;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: String,
    /// Its service.
    pub service: String,
    /// `protected`, `degraded`, ...
    pub state: String,
    /// The primary's name.
    pub primary: Option<String>,
    /// Bytes that the client was sent.
    pub sent: u64,
    /// Bytes that came from the client.
    pub received: u64,
    /// Whether a replica can still join.
    pub rejoinable: bool,
    /// Its replicas.
    pub replicas: Vec<Replica>,
}

/// A replica of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Its name.
    pub name: String,
    /// `in-sync`, `lagging`, ...
    pub state: String,
    /// Bytes of input that it was given.
    pub input: u64,
    /// Bytes of output that it has given.
    pub output: u64,
    /// Whether its output has differed.
    pub diverged: bool,
}

impl Session {
    fn parse(value: &Value) -> Result<Self> {
        let replicas = value["replicas"].as_array().context("no replicas");
        Ok(Session {
            id: text(value, "id")?,
            service: text(value, "service")?,
            state: text(value, "state")?,
            primary: value["primary"].as_str().map(str::to_owned),
            sent: number(value, "sent")?,
            received: number(value, "received")?,
            rejoinable: flag(value, "rejoinable")?,
            replicas: replicas?
                .iter()
                .map(Replica::parse)
                .collect::<Result<_>>()?,
        })
    }

    /// The replicas in a state.
    pub fn in_state(&self, state: &str) -> Vec<&str> {
        let in_state = self
            .replicas
            .iter()
            .filter(|replica| replica.state == state);
        in_state.map(|replica| replica.name.as_str()).collect()
    }

    /// The replica of this name.
    pub fn replica(&self, name: &str) -> Result<&Replica> {
        let mut replicas = self.replicas.iter();
        replicas
            .find(|replica| replica.name == name)
            .with_context(|| format!("no replica {name}: {self:?}"))
    }

    /// The primary, as an index of the lab's servers.
    pub fn primary(&self) -> Result<usize> {
        let name = self.primary.as_deref();
        server_index(name.with_context(|| format!("no primary: {self:?}"))?)
    }
}

impl Replica {
    fn parse(value: &Value) -> Result<Self> {
        Ok(Replica {
            name: text(value, "name")?,
            state: text(value, "state")?,
            input: number(value, "input")?,
            output: number(value, "output")?,
            diverged: flag(value, "diverged")?,
        })
    }
}

/// The index in the lab of the server with this name: `s1` is 0.
pub fn server_index(name: &str) -> Result<usize> {
    let number = name.strip_prefix('s').and_then(|n| n.parse::<usize>().ok());
    number
        .and_then(|number| number.checked_sub(1))
        .with_context(|| format!("no server of the lab: {name}"))
}

/// Something that happened to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event(Value);

impl Event {
    /// `switched`, `evicted`, ...
    pub fn kind(&self) -> &str {
        self.text("kind")
    }

    /// A text of the event, empty when it has no such: `session`, `replica`, `from`, `to`, `cause`.
    pub fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_default()
    }

    /// After a switchover: the time that the client got nothing.
    pub fn gap(&self) -> Option<Duration> {
        self.0["gap_us"].as_u64().map(Duration::from_micros)
    }

    /// Whether it has this kind and these texts.
    pub fn is(&self, kind: &str, texts: &[(&str, &str)]) -> bool {
        let same = |(key, value): &(&str, &str)| self.text(key) == *value;
        self.kind() == kind && texts.iter().all(same)
    }
}

impl Balancer {
    /// Every session of the engine.
    pub fn sessions(&self) -> Result<Vec<Session>> {
        let json = self.cli(&["sessions", "--limit", "0"])?;
        let list = json["sessions"].as_array();
        let list = list.with_context(|| format!("no sessions: {json}"))?;
        let parse = |value| Session::parse(value).with_context(|| format!("{value}"));
        list.iter().map(parse).collect()
    }

    /// The only session that there is.
    pub fn session(&self) -> Result<Session> {
        let mut sessions = self.sessions()?;
        ensure!(sessions.len() == 1, "not one session: {sessions:?}");
        sessions.pop().context("no session")
    }

    /// What has happened to sessions, the oldest first.
    pub fn events(&self) -> Result<Vec<Event>> {
        let mut json = self.cli(&["events"])?;
        let list = json["events"].take();
        match list {
            Value::Array(list) => Ok(list.into_iter().map(Event).collect()),
            _ => Err(anyhow::anyhow!("no events: {json}")),
        }
    }

    /// Waits for an event of this kind with these texts.
    pub fn wait_for_event(&self, kind: &str, texts: &[(&str, &str)]) -> Result<Event> {
        wait_until(&format!("there is an event {kind} {texts:?}"), SOON, || {
            let found = self
                .events()?
                .into_iter()
                .find(|event| event.is(kind, texts));
            Ok(found)
        })
    }

    /// Waits until the only session is as wanted.
    pub fn wait_for_session(
        &self,
        what: &str,
        mut wanted: impl FnMut(&Session) -> bool,
    ) -> Result<Session> {
        let mut last = None;
        let found = wait_until(&format!("the session {what}"), SOON, || {
            let session = self.session()?;
            let found = wanted(&session).then(|| session.clone());
            last = Some(session);
            Ok(found)
        });
        found.with_context(|| format!("{last:?}"))
    }

    /// Waits until there are so many sessions.
    pub fn wait_for_sessions(&self, count: usize) -> Result<()> {
        wait_until(&format!("there are {count} sessions"), SOON, || {
            Ok((self.sessions()?.len() == count).then_some(()))
        })
    }

    /// The sum of a metric over all its labels.
    pub fn metric(&self, name: &str) -> Result<u64> {
        let text = self.cli_text(&["metrics"])?;
        let mut found = None;
        for line in text.lines().filter(|line| line.starts_with(name)) {
            let rest = &line[name.len()..];
            if rest.starts_with(['{', ' ']) {
                let value = rest.rsplit(' ').next().unwrap_or_default();
                let value: f64 = value.parse().with_context(|| line.to_owned())?;
                found = Some(found.unwrap_or_default() + value as u64);
            }
        }
        found.with_context(|| format!("the engine has no metric {name}"))
    }
}

fn text(value: &Value, key: &str) -> Result<String> {
    let text = value[key].as_str();
    text.map(str::to_owned)
        .with_context(|| format!("no text {key}"))
}

fn number(value: &Value, key: &str) -> Result<u64> {
    value[key]
        .as_u64()
        .with_context(|| format!("no number {key}"))
}

fn flag(value: &Value, key: &str) -> Result<bool> {
    value[key]
        .as_bool()
        .with_context(|| format!("no flag {key}"))
}
