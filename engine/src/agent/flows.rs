//! The live flows of all workers, page by page.

use super::Agent;
use crate::mailbox::{Command, Cursor, FlowPage, Reply};
use futures::Stream;
use lockstep_api as api;
use lockstep_core::flows::Entry;
use lockstep_core::tables::Ring;
use lockstep_core::{Seconds, Tables};
use lockstep_plan::{Backend, Protocol, ServiceName};
use lockstep_topology::diagnostics::nearest;
use lockstep_wire::{FlowKey4, FlowKey6};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Flows that wait for a slow reader before the walk over the tables waits for it too.
const AHEAD: usize = 4096;

/// Which flows are wanted.
#[derive(Debug, Clone)]
pub struct Filter {
    service: Option<ServiceName>,
    backend: Option<String>,
    client: Option<Prefix>,
    limit: u64,
}

/// Addresses that begin alike.
#[derive(Debug, Clone, Copy)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Filter {
    /// The filter of a request, or what is wrong with it.
    pub fn parse(request: &api::FlowsRequest) -> Result<Self, String> {
        Ok(Filter {
            service: named(&request.service, service)?,
            backend: named(&request.backend, |name| Ok(name.to_owned()))?,
            client: named(&request.client, Prefix::parse)?,
            limit: request.limit,
        })
    }

    /// Whether what it names is in force: a misspelt name would look as if there was nothing.
    pub fn known(&self, tables: &Tables) -> Result<(), String> {
        let ring = match &self.service {
            Some(name) => Some(known_service(name, tables)?),
            None => None,
        };
        let rings = || tables.rings().iter();
        let rings = rings().filter(|r| ring.is_none_or(|only| r.name == only.name));
        let backends = rings.flat_map(|r| r.members.iter().map(|m| &m.backend));
        let Some(wanted) = &self.backend else {
            return Ok(());
        };
        let is_it = |b: &&Backend| b.name == *wanted || b.address.to_string() == *wanted;
        if backends.clone().any(|b| is_it(&b)) {
            return Ok(());
        }
        let near = nearest(wanted, backends.map(|b| b.name.as_str()));
        Err(unknown("backend", wanted, near))
    }

    fn wants(&self, service: &ServiceName, backend: &Backend, client: IpAddr) -> bool {
        let named = |name: &String| backend.name == *name || backend.address.to_string() == *name;
        self.service.as_ref().is_none_or(|s| s == service)
            && self.backend.as_ref().is_none_or(named)
            && self.client.is_none_or(|prefix| prefix.contains(client))
    }
}

impl Prefix {
    /// From its text; an address alone stands for itself.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text} is no address and no prefix such as 198.51.100.0/24");
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = length.unwrap_or(longest);
        if length > longest {
            Err(wrong())
        } else {
            Ok(Prefix { address, length })
        }
    }

    /// Whether an address is one of them.
    pub fn contains(self, address: IpAddr) -> bool {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
            IpAddr::V6(v6) => u128::from(v6),
        };
        let differ = bits(self.address) ^ bits(address);
        let inside = self.length == 0 || differ >> (128 - u32::from(self.length)) == 0;
        self.address.is_ipv4() == address.is_ipv4() && inside
    }
}

/// What a text of a request is, as `parse` says; an empty one is nothing that is asked for.
pub fn named<T>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    (!text.is_empty()).then(|| parse(text)).transpose()
}

/// A service's name from its text.
pub fn service(name: &str) -> Result<ServiceName, String> {
    ServiceName::new(name).ok_or_else(|| format!("{name} is no name of a service"))
}

/// The service of this name, or an error that proposes another name.
pub fn known_service<'a>(name: &ServiceName, tables: &'a Tables) -> Result<&'a Ring, String> {
    let rings = tables.rings();
    let found = rings.iter().find(|r| r.name == *name);
    found.ok_or_else(|| {
        let near = nearest(name.as_str(), rings.iter().map(|r| r.name.as_str()));
        unknown("service", name.as_str(), near)
    })
}

fn unknown(what: &str, name: &str, near: Option<&str>) -> String {
    match near {
        Some(near) => format!("there is no {what} {name}; did you mean {near}?"),
        None => format!("there is no {what} {name}; `lockstep status` shows those there are"),
    }
}

/// A worker whose flows cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "worker {0} did not answer; what it has is not known. `lockstep status` shows its state, the \
     engine's log why"
)]
pub struct Silent(pub usize);

impl From<Silent> for Status {
    fn from(silent: Silent) -> Self {
        Status::unavailable(silent.to_string())
    }
}

/// The flows that a filter wants, as they are found. An error is the last item.
pub fn stream(agent: Arc<Agent>, filter: Filter) -> impl Stream<Item = Result<api::Flow, Status>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let tables = Arc::clone(&agent.state.lock().await.tables);
        let limit = if filter.limit == 0 {
            u64::MAX
        } else {
            filter.limit
        };
        let mut sent = 0;
        for (worker, _) in agent.workers.iter().enumerate() {
            let mut walk = agent.walk(worker);
            loop {
                let page = match walk.next().await {
                    Ok(Some(page)) => page,
                    Ok(None) => break,
                    Err(silent) => {
                        // A reader that went away need not know.
                        let _ = sender.send(Err(silent.into())).await;
                        return;
                    }
                };
                for flow in page_flows(page, &tables, &filter, worker) {
                    // A reader that went away wants no more.
                    if sent >= limit || sender.send(Ok(flow)).await.is_err() {
                        return;
                    }
                    sent += 1;
                }
            }
        }
    });
    ReceiverStream::new(receiver)
}

fn page_flows(page: &FlowPage, tables: &Tables, filter: &Filter, worker: usize) -> Vec<api::Flow> {
    let context = Context {
        tables,
        filter,
        worker,
        now: page.now,
    };
    let v4 = page
        .v4
        .iter()
        .filter_map(|e| context.flow(&v4_parts(&e.key), e));
    let v6 = page
        .v6
        .iter()
        .filter_map(|e| context.flow(&v6_parts(&e.key), e));
    v4.chain(v6).collect()
}

type Parts = (u8, IpAddr, u16, IpAddr, u16);

fn v4_parts(key: &FlowKey4) -> Parts {
    let (from, to) = (key.source_address(), key.destination_address());
    (
        key.protocol,
        from,
        key.source_port(),
        to,
        key.destination_port(),
    )
}

fn v6_parts(key: &FlowKey6) -> Parts {
    let (from, to) = (key.source_address(), key.destination_address());
    (
        key.protocol,
        from,
        key.source_port(),
        to,
        key.destination_port(),
    )
}

/// What an entry's numbers stand for.
struct Context<'a> {
    tables: &'a Tables,
    filter: &'a Filter,
    worker: usize,
    now: Seconds,
}

impl Context<'_> {
    fn flow<K>(&self, parts: &Parts, entry: &Entry<K>) -> Option<api::Flow> {
        // An entry whose VIP or backend went away meanwhile is nobody's any more.
        let ring = self.tables.ring(entry.vip)?;
        let backend = &ring.member(entry.backend)?.backend;
        let &(protocol, client, client_port, vip, vip_port) = parts;
        self.filter
            .wants(&ring.name, backend, client)
            .then(|| api::Flow {
                protocol: match Protocol::from_number(protocol) {
                    Some(Protocol::Tcp) => api::Protocol::Tcp.into(),
                    Some(Protocol::Udp) => api::Protocol::Udp.into(),
                    None => api::Protocol::Unspecified.into(),
                },
                client: client.to_string(),
                client_port: client_port.into(),
                vip: vip.to_string(),
                vip_port: vip_port.into(),
                service: ring.name.to_string(),
                backend_name: backend.name.clone(),
                backend: backend.address.to_string(),
                state: entry.state.name().to_owned(),
                idle_seconds: self.now.since(entry.seen),
                worker: self.worker as u32,
            })
    }
}

/// A walk over one worker's flows. One page's memory goes back and forth.
pub struct Walk<'a> {
    agent: &'a Agent,
    worker: usize,
    page: Option<Box<FlowPage>>,
}

impl Agent {
    /// A walk over a worker's flows from the start.
    pub(super) fn walk(&self, worker: usize) -> Walk<'_> {
        Walk {
            agent: self,
            worker,
            page: Some(FlowPage::first()),
        }
    }
}

impl Walk<'_> {
    /// The next page; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<&FlowPage>, Silent> {
        let Some(page) = self.page.take().filter(|page| page.cursor != Cursor::End) else {
            return Ok(None);
        };
        match self.agent.workers[self.worker]
            .ask(Command::Page(page))
            .await
        {
            Some(Reply::Page(page)) => Ok(Some(self.page.insert(page))),
            Some(_) | None => Err(Silent(self.worker)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::agent::fixtures::compile;

    fn known(service: &str, backend: &str) -> Result<(), String> {
        let tables = compile(&Tables::default(), 1, &["10.0.0.1".to_owned()]);
        let request = api::FlowsRequest {
            service: service.to_owned(),
            backend: backend.to_owned(),
            ..api::FlowsRequest::default()
        };
        Filter::parse(&request).unwrap().known(&tables)
    }

    #[test]
    fn a_name_that_nobody_has_is_an_error_which_proposes_another() {
        for (service, backend) in [("", ""), ("web", ""), ("web", "10.0.0.1"), ("", "web-1")] {
            assert_eq!(known(service, backend), Ok(()), "{service} {backend}");
        }
        let text = known("wbe", "").unwrap_err();
        assert_eq!(text, "there is no service wbe; did you mean web?");
        let text = known("web", "web-2").unwrap_err();
        assert_eq!(text, "there is no backend web-2; did you mean web-1?");
        let text = known("", "10.0.0.2").unwrap_err();
        let list = "there is no backend 10.0.0.2; `lockstep status` shows those there are";
        assert_eq!(text, list);
    }
}
