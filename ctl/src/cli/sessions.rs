//! `lockstep sessions`, `lockstep session` and `lockstep switchover`.

use super::flows::{endpoint, prefix};
use super::output::{Out, table};
use super::{Answer, Failure, Global, ask, units};
use crate::transport::Peer;
use clap::Args;
use lockstep_api as api;
use serde::Serialize;

/// Arguments of `lockstep sessions`.
#[derive(Debug, Args)]
pub struct ListArguments {
    /// Of this service only.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Of clients in this prefix only, such as 198.51.100.0/24.
    #[arg(long, value_name = "PREFIX", value_parser = prefix)]
    client: Option<String>,
    /// At most this many; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: u64,
}

/// Arguments of `lockstep session`.
#[derive(Debug, Args)]
pub struct ShowArguments {
    /// The session, as `lockstep sessions` names it.
    #[arg(value_parser = session_id)]
    id: String,
}

/// Arguments of `lockstep switchover`.
#[derive(Debug, Args)]
pub struct SwitchoverArguments {
    /// The session, as `lockstep sessions` names it.
    #[arg(value_parser = session_id)]
    id: String,
    /// The replica that is to be primary, by name or address.
    #[arg(long, value_name = "REPLICA")]
    to: String,
}

/// A session's name, which is its worker's number and its own.
fn session_id(text: &str) -> Result<String, String> {
    let parts = text.split_once('-');
    let is_id = |(worker, number): (&str, &str)| {
        worker.parse::<u8>().is_ok() && number.parse::<u64>().is_ok()
    };
    match parts.is_some_and(is_id) {
        true => Ok(text.to_owned()),
        false => Err("sessions are named as in `lockstep sessions`, such as 0-17".to_owned()),
    }
}

/// A list of sessions as JSON.
#[derive(Debug, Serialize)]
struct Sessions {
    sessions: Vec<Session>,
}

/// A session as JSON.
#[derive(Debug, Serialize)]
struct Session {
    id: String,
    service: String,
    client: String,
    vip: String,
    state: String,
    primary: Option<String>,
    age_seconds: f64,
    received: u64,
    sent: u64,
    kept_from: u64,
    rejoinable: bool,
    memory: u64,
    switchovers: u32,
    replicas: Vec<Replica>,
}

/// A replica of a session as JSON.
#[derive(Debug, Serialize)]
struct Replica {
    name: String,
    address: String,
    state: String,
    cause: Option<String>,
    since_seconds: f64,
    primary: bool,
    diverged: bool,
    ended: bool,
    input: u64,
    output: u64,
    rtt_microseconds: Option<u64>,
}

fn named(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl From<api::Session> for Session {
    fn from(session: api::Session) -> Self {
        Session {
            id: session.id,
            service: session.service,
            client: endpoint(&session.client, session.client_port),
            vip: endpoint(&session.vip, session.vip_port),
            state: session.state,
            primary: named(session.primary),
            age_seconds: session.age_seconds,
            received: session.received,
            sent: session.sent,
            kept_from: session.kept_from,
            rejoinable: session.kept_from == 0,
            memory: session.memory,
            switchovers: session.switchovers,
            replicas: session.replicas.into_iter().map(Replica::from).collect(),
        }
    }
}

impl From<api::Replica> for Replica {
    fn from(replica: api::Replica) -> Self {
        Replica {
            name: replica.name,
            address: replica.address,
            state: replica.state,
            cause: named(replica.cause),
            since_seconds: replica.since_seconds,
            primary: replica.primary,
            diverged: replica.diverged,
            ended: replica.ended,
            input: replica.input,
            output: replica.output,
            rtt_microseconds: replica.rtt_microseconds,
        }
    }
}

impl Session {
    fn row(&self) -> Vec<String> {
        let in_sync = self.replicas.iter().filter(|r| r.state == "in-sync");
        vec![
            self.id.clone(),
            self.service.clone(),
            self.client.clone(),
            self.state.clone(),
            self.primary.clone().unwrap_or_else(|| "-".to_owned()),
            format!("{} of {}", in_sync.count(), self.replicas.len()),
            units::bytes(self.received),
            units::bytes(self.sent),
            self.switchovers.to_string(),
            units::time(self.age_seconds),
        ]
    }

    /// Everything there is to know, for a person.
    fn text(&self) -> String {
        let join = match self.rejoinable {
            true => "replicas can join".to_owned(),
            false => format!(
                "no replica can join: input is kept from byte {} on",
                units::count(self.kept_from)
            ),
        };
        let rows = self.replicas.iter().map(|replica| replica.row(self));
        let columns = [
            "REPLICA", "ADDRESS", "STATE", "FOR", ">INPUT", ">BEHIND", ">OUTPUT", ">AHEAD", ">RTT",
            "REMARKS",
        ];
        format!(
            "session {}: service {}, {} to {}, {}, {} old\n\
             {} bytes received, {} sent, switchovers: {}\n\
             log: {} in memory; {join}\n\n{}",
            self.id,
            self.service,
            self.client,
            self.vip,
            self.state,
            units::time(self.age_seconds),
            units::count(self.received),
            units::count(self.sent),
            self.switchovers,
            units::bytes(self.memory),
            table(&columns, rows),
        )
    }
}

impl Replica {
    fn row(&self, session: &Session) -> Vec<String> {
        let mut remarks = Vec::new();
        let all = [
            (self.primary, "primary"),
            (self.diverged, "differs"),
            (self.ended, "has ended"),
        ];
        remarks.extend(all.iter().filter(|(is, _)| *is).map(|(_, what)| *what));
        remarks.extend(self.cause.as_deref());
        let rtt = self.rtt_microseconds;
        vec![
            self.name.clone(),
            self.address.clone(),
            self.state.clone(),
            units::time(self.since_seconds),
            units::count(self.input),
            units::count(session.received.saturating_sub(self.input)),
            units::count(self.output),
            // Behind what the client was sent, it is behind.
            difference(self.output, session.sent),
            rtt.map_or_else(|| "-".to_owned(), |us| format!("{} µs", units::count(us))),
            remarks.join(", "),
        ]
    }
}

fn difference(output: u64, sent: u64) -> String {
    match output.checked_sub(sent) {
        Some(ahead) => units::count(ahead),
        None => format!("-{}", units::count(sent - output)),
    }
}

/// Lists the sessions.
pub async fn list(
    global: &Global,
    arguments: ListArguments,
    out: &mut Out,
) -> Result<Answer, Failure> {
    let limit = arguments.limit;
    let request = api::SessionsRequest {
        service: arguments.service.unwrap_or_default(),
        client: arguments.client.unwrap_or_default(),
        limit,
    };
    let mut engine = ask::engine(global).await?;
    let mut stream = ask::answer(Peer::Engine, engine.sessions(request)).await?;
    let mut sessions = Vec::new();
    while let Some(session) = ask::next(Peer::Engine, &mut stream).await? {
        sessions.push(Session::from(session));
    }
    let answer = Sessions { sessions };
    out.answer(&answer, || {
        let columns = [
            "SESSION",
            "SERVICE",
            "CLIENT",
            "STATE",
            "PRIMARY",
            "IN SYNC",
            ">RECEIVED",
            ">SENT",
            ">SWITCHOVERS",
            ">AGE",
        ];
        let rows = table(&columns, answer.sessions.iter().map(Session::row));
        match answer.sessions.len() {
            0 => "no sessions".to_owned(),
            1 => format!("{rows}\n1 session"),
            n if n as u64 == limit => format!("{rows}\n{n} sessions shown; --limit 0 shows all"),
            n => format!("{rows}\n{n} sessions"),
        }
    })?;
    Ok(Answer::Yes)
}

/// Shows one session.
pub async fn show(
    global: &Global,
    arguments: ShowArguments,
    out: &mut Out,
) -> Result<Answer, Failure> {
    let request = api::SessionRequest { id: arguments.id };
    let mut engine = ask::engine(global).await?;
    let session = ask::answer(Peer::Engine, engine.session(request)).await?;
    let session = Session::from(session);
    out.answer(&session, || session.text())?;
    Ok(Answer::Yes)
}

/// What a switchover has done, as JSON.
#[derive(Debug, Serialize)]
struct Switched {
    session: String,
    primary: String,
}

/// Switches a session over.
pub async fn switchover(
    global: &Global,
    arguments: SwitchoverArguments,
    out: &mut Out,
) -> Result<Answer, Failure> {
    let request = api::SwitchoverRequest {
        session: arguments.id.clone(),
        replica: arguments.to,
    };
    let mut engine = ask::engine(global).await?;
    let reply = ask::answer(Peer::Engine, engine.switchover(request)).await?;
    let switched = Switched {
        session: arguments.id,
        primary: reply.primary,
    };
    out.answer(&switched, || {
        format!(
            "session {}: {} is primary",
            switched.session, switched.primary
        )
    })?;
    Ok(Answer::Yes)
}
