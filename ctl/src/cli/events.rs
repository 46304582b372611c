//! `lockstep events`.

use super::flows::endpoint;
use super::output::Out;
use super::{Answer, Failure, Global, ask, units};
use crate::transport::Peer;
use clap::Args;
use lockstep_api as api;
use serde::Serialize;

/// Arguments of `lockstep events`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Go on with what happens from now on, until interrupted.
    #[arg(long)]
    follow: bool,
}

/// The events that are kept, as JSON.
#[derive(Debug, Serialize)]
struct Events {
    events: Vec<Event>,
}

/// An event as JSON.
#[derive(Debug, Serialize)]
struct Event {
    time: f64,
    session: String,
    service: String,
    client: String,
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    replica: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// Events before this one that found no place in a queue.
    #[serde(skip_serializing_if = "is_zero")]
    lost: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn named(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl From<api::SessionEvent> for Event {
    fn from(event: api::SessionEvent) -> Self {
        Event {
            time: event.time,
            session: event.session,
            service: event.service,
            client: endpoint(&event.client, event.client_port),
            kind: event.kind,
            replica: named(event.replica),
            from: named(event.from),
            to: named(event.to),
            cause: named(event.cause),
            gap_us: event.gap_microseconds,
            offset: event.offset,
            lost: event.lost,
        }
    }
}

impl Event {
    /// A line, time in UTC.
    fn line(&self) -> String {
        let mut line = String::new();
        if self.lost > 0 {
            line = format!("({} events were lost here)\n", units::count(self.lost));
        }
        line += &format!(
            "{}  {:<8} {:<10} {:<21} {}",
            units::clock(self.time),
            self.session,
            self.service,
            self.client,
            self.kind
        );
        if let (Some(from), Some(to)) = (&self.from, &self.to) {
            line += &format!(" {from} -> {to}");
        } else if let Some(replica) = &self.replica {
            line += &format!(" {replica}");
        }
        if let Some(cause) = &self.cause {
            line += &format!(": {cause}");
        }
        if let Some(gap) = self.gap_us {
            line += &format!(" after {} µs", units::count(gap));
        }
        if let Some(offset) = self.offset {
            line += &format!(" at byte {}", units::count(offset));
        }
        line
    }
}

/// Prints the events.
pub async fn run(global: &Global, arguments: Arguments, out: &mut Out) -> Result<Answer, Failure> {
    let request = api::EventsRequest {
        follow: arguments.follow,
    };
    let mut engine = ask::engine(global).await?;
    let mut stream = ask::answer(Peer::Engine, engine.events(request)).await?;
    if arguments.follow {
        // Nothing may happen for hours: no answer is no fault here.
        while let Some(event) = stream.message().await? {
            let event = Event::from(event);
            match out.is_json() {
                true => out.json_line(&event)?,
                false => out.text(&event.line())?,
            }
            out.flush()?;
        }
        return Ok(Answer::Yes);
    }
    let mut events = Vec::new();
    while let Some(event) = ask::next(Peer::Engine, &mut stream).await? {
        events.push(Event::from(event));
    }
    let answer = Events { events };
    out.answer(&answer, || match answer.events.as_slice() {
        [] => "no events".to_owned(),
        events => events.iter().map(|e| e.line() + "\n").collect(),
    })?;
    Ok(Answer::Yes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let event = api::SessionEvent {
            time: 1_763_717_474.25,
            session: "0-17".to_owned(),
            service: "web".to_owned(),
            client: "2001:db8::7".to_owned(),
            client_port: 40_000,
            kind: "switched".to_owned(),
            replica: "s2".to_owned(),
            from: "s1".to_owned(),
            to: "s2".to_owned(),
            cause: "reset".to_owned(),
            lost: 2,
            ..api::SessionEvent::default()
        };
        assert_eq!(
            Event::from(event.clone()).line(),
            "(2 events were lost here)\n\
             09:31:14.250  0-17     web        [2001:db8::7]:40000   switched s1 -> s2: reset"
        );
        let resumed = api::SessionEvent {
            kind: "resumed".to_owned(),
            gap_microseconds: Some(1_234),
            ..api::SessionEvent::default()
        };
        let line = Event::from(resumed).line();
        assert!(line.ends_with("resumed after 1,234 µs"), "{line}");
    }
}
