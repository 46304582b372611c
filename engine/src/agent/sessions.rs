//! The replicated sessions of all workers: lists, one of them, and switchovers that are asked for.

pub mod names;

use super::Agent;
use super::flows::{Prefix, Silent, known_service, named, service};
use super::former::Names;
use crate::mailbox::{Command, Reply, SessionPage, Wanted};
use futures::Stream;
use lockstep_api as api;
use lockstep_core::replicate::event::SessionId;
use lockstep_core::replicate::replicator::{SessionDetails, SwitchoverError};
use lockstep_core::replicate::session::ReplicaReport;
use lockstep_core::tables::{BackendRef, Ring, VipRef};
use lockstep_core::{Micros, Tables};
use lockstep_plan::ServiceName;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Sessions that wait for a slow reader before the walk waits for it too.
const AHEAD: usize = 1_024;

/// Which sessions are wanted.
#[derive(Debug, Clone)]
pub struct Filter {
    service: Option<ServiceName>,
    client: Option<Prefix>,
    limit: u64,
}

impl Filter {
    /// The filter of a request, or what is wrong with it.
    pub fn parse(request: &api::SessionsRequest) -> Result<Self, String> {
        Ok(Filter {
            service: named(&request.service, service)?,
            client: named(&request.client, Prefix::parse)?,
            limit: match request.limit {
                0 => u64::MAX,
                limit => limit,
            },
        })
    }

    /// Whether the service that it names is in force.
    pub fn known(&self, tables: &Tables) -> Result<(), String> {
        match &self.service {
            Some(name) => known_service(name, tables).map(|_| ()),
            None => Ok(()),
        }
    }

    fn wants(&self, ring: Option<&Ring>, session: &SessionDetails) -> bool {
        let service = |name: &ServiceName| ring.is_some_and(|r| r.name == *name);
        self.service.as_ref().is_none_or(service)
            && self
                .client
                .is_none_or(|prefix| prefix.contains(session.client.ip()))
    }
}

/// A session's name from its text: `0-17`.
pub fn parse_id(text: &str) -> Result<SessionId, Status> {
    let parts = text.split_once('-');
    let id = parts.and_then(|(worker, number)| {
        Some(SessionId {
            worker: worker.parse().ok()?,
            number: number.parse().ok()?,
        })
    });
    id.ok_or_else(|| {
        Status::invalid_argument(format!(
            "`{text}` is no session: they are named as in `lockstep sessions`, such as 0-17"
        ))
    })
}

/// The sessions that a filter wants, as they are found. An error is the last item.
pub fn stream(
    agent: Arc<Agent>,
    filter: Filter,
) -> impl Stream<Item = Result<api::Session, Status>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let known = agent.names().await;
        let mut sent = 0;
        for worker in 0..agent.workers.len() {
            let mut page = SessionPage::of(Wanted::From(0));
            while page.wanted != Wanted::Nothing {
                page = match agent.page(worker, page).await {
                    Ok(page) => page,
                    Err(silent) => {
                        // A reader that went away need not know.
                        let _ = sender.send(Err(silent.into())).await;
                        return;
                    }
                };
                for session in &page.sessions {
                    let ring = known.tables.ring(session.vip);
                    if !filter.wants(ring, session) {
                        continue;
                    }
                    // A reader that went away wants no more.
                    let message = message(session, &known, page.now);
                    if sent >= filter.limit || sender.send(Ok(message)).await.is_err() {
                        return;
                    }
                    sent += 1;
                }
            }
        }
    });
    ReceiverStream::new(receiver)
}

impl Agent {
    /// One session.
    pub(super) async fn session(&self, id: SessionId) -> Result<api::Session, Status> {
        let known = self.names().await;
        let (session, now) = self.details(id).await?;
        Ok(message(&session, &known, now))
    }

    /// Makes a replica, by name or address, the primary of a session; returns its name.
    pub(super) async fn switch_over(&self, id: SessionId, to: &str) -> Result<String, Status> {
        let tables = Arc::clone(&self.state.lock().await.tables);
        let (session, _) = self.details(id).await?;
        let ring = tables.ring(session.vip);
        let members = ring.map(|r| r.members.as_slice()).unwrap_or_default();
        let is_it = |backend: &lockstep_plan::Backend| {
            backend.name == to || backend.address.to_string() == to
        };
        let Some(member) = members.iter().find(|m| is_it(&m.backend)) else {
            let known: Vec<&str> = members.iter().map(|m| m.backend.name.as_str()).collect();
            return Err(Status::not_found(format!(
                "session {id} has no replica {to}; it has {}",
                known.join(", ")
            )));
        };
        let command = Command::Switch {
            session: id,
            backend: member.backend.address,
        };
        match self.workers[usize::from(id.worker)].ask(command).await {
            Some(Reply::Switched(Ok(()))) => Ok(member.backend.name.clone()),
            Some(Reply::Switched(Err(error))) => Err(refused(id, &member.backend.name, error)),
            Some(_) | None => Err(Silent(usize::from(id.worker)).into()),
        }
    }

    async fn details(&self, id: SessionId) -> Result<(SessionDetails, Micros), Status> {
        let gone = || {
            Status::not_found(format!(
                "there is no session {id} (any more); `lockstep sessions` lists those there are"
            ))
        };
        let worker = usize::from(id.worker);
        if worker >= self.workers.len() {
            return Err(gone());
        }
        let mut page = self.page(worker, SessionPage::of(Wanted::One(id))).await?;
        let session = page.sessions.pop().ok_or_else(gone)?;
        Ok((session, page.now))
    }

    async fn page(
        &self,
        worker: usize,
        page: Box<SessionPage>,
    ) -> Result<Box<SessionPage>, Silent> {
        match self.workers[worker].ask(Command::Sessions(page)).await {
            Some(Reply::Sessions(page)) => Ok(page),
            Some(_) | None => Err(Silent(worker)),
        }
    }
}

fn refused(id: SessionId, replica: &str, error: SwitchoverError) -> Status {
    match error {
        SwitchoverError::NoSuchSession(_) | SwitchoverError::NoSuchReplica { .. } => {
            Status::not_found(error.to_string())
        }
        SwitchoverError::Refused(why) => Status::failed_precondition(format!(
            "session {id} is not switched over to {replica}: {why}; see `lockstep session {id}`"
        )),
    }
}

/// A replica's name. One that left its service too long ago has none any more.
pub fn replica_name(known: &Names, vip: VipRef, backend: BackendRef) -> String {
    let backend = known.backend(vip, backend);
    backend.map_or_else(|| "(removed)".to_owned(), |b| b.name.clone())
}

fn message(session: &SessionDetails, known: &Names, now: Micros) -> api::Session {
    let report = &session.report;
    let ring = known.tables.ring(session.vip);
    let primary = report
        .primary
        .and_then(|at| report.replicas.get(usize::from(at)))
        .map(|replica| replica_name(known, session.vip, replica.backend));
    api::Session {
        id: report.id.to_string(),
        service: ring.map(|r| r.name.to_string()).unwrap_or_default(),
        client: session.client.ip().to_string(),
        client_port: session.client.port().into(),
        vip: session.destination.ip().to_string(),
        vip_port: session.destination.port().into(),
        state: names::session(report.state).to_owned(),
        primary: primary.unwrap_or_default(),
        age_seconds: now.since(report.began_at).as_secs_f64(),
        received: report.input,
        sent: report.output,
        kept_from: report.kept_from,
        memory: report.memory as u64,
        switchovers: report.switchovers,
        replicas: report
            .replicas
            .iter()
            .map(|r| replica(r, session.vip, known, now))
            .collect(),
    }
}

fn replica(report: &ReplicaReport, vip: VipRef, known: &Names, now: Micros) -> api::Replica {
    let backend = known.backend(vip, report.backend);
    let (state, cause) = names::replica(report.state);
    api::Replica {
        name: replica_name(known, vip, report.backend),
        address: backend.map(|b| b.address.to_string()).unwrap_or_default(),
        state: state.to_owned(),
        cause: cause.to_owned(),
        since_seconds: now.since(report.since).as_secs_f64(),
        primary: report.primary,
        diverged: report.diverged,
        ended: report.ended,
        input: report.fed,
        output: report.produced,
        rtt_microseconds: report
            .rtt
            .map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_session_is_found_by_its_name() {
        let id = parse_id("3-17").unwrap();
        assert_eq!((id.worker, id.number), (3, 17));
        assert_eq!(id.to_string(), "3-17");
        for text in ["", "3", "3-", "-17", "256-1", "3-17-1", "x-1"] {
            let error = parse_id(text).unwrap_err();
            assert!(error.message().contains("such as 0-17"), "{text}");
        }
    }
}
