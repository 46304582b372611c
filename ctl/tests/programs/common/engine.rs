//! The engine's gRPC with the engine's rules for snapshots, and canned answers for the rest.

mod canned;

use canned::{explanation, sessions, status_of};
use futures::Stream;
use lockstep_api::capture_event::Event;
use lockstep_api::engine_server::{Engine, EngineServer};
use lockstep_api::explain_request::Packet;
use lockstep_api::{
    ApplyReply, BackendPreview, BackendState, BackendStatus, CaptureEnd, CaptureEvent,
    CaptureRequest, CaptureStart, CapturedPacket, CurrentRequest, DropCount, EngineStatus,
    EventsRequest, ExplainRequest, Explanation, Flow, FlowsRequest, HandOverReply, HandOverRequest,
    InterfaceStatus, MetricsReply, MetricsRequest, PreviewReply, Protocol, Replica, ServicePreview,
    ServiceStatus, Session, SessionEvent, SessionRequest, SessionsRequest, Snapshot, StatusRequest,
    SwitchoverReply, SwitchoverRequest, VipStatus, WorkerStatus,
};
use std::fs;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// The largest message, in bytes, as the engine takes it.
const MESSAGE: usize = 64 << 20;

/// An engine on a runtime of its own, so that it can be killed with all its connections.
pub struct FakeEngine {
    state: Arc<Mutex<State>>,
    /// Whether it hangs over what it is to apply.
    stuck: watch::Sender<bool>,
    /// How many snapshots it hangs over.
    over: Arc<AtomicUsize>,
    runtime: Option<Runtime>,
}

#[derive(Default)]
struct State {
    current: Snapshot,
    history: Vec<Snapshot>,
    refusal: Option<String>,
    /// Whether what it refuses can never be.
    never: bool,
    /// Why the workers' flows cannot be told.
    silence: Option<String>,
    /// Flows in the worker's table, and those that found no place in it.
    fill: (u64, u64),
    /// Sessions that are unprotected, and orphaned.
    sessions: (u64, u64),
    /// Whether previews and questions for metrics are never answered.
    hangs: bool,
    /// Connections that every backend has reset.
    resets: u64,
    /// Service and name of a replica that was just evicted, as every list of events says.
    evicted: Option<(String, String)>,
    /// Packets that each VIP gets in a second, and the seconds that have passed: one with each
    /// status.
    traffic: Option<(u64, u64)>,
}

impl FakeEngine {
    /// Listens on a socket; what a killed engine left there is replaced.
    pub fn start(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let runtime = runtime.unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let _ = fs::remove_file(socket);
        let listener = runtime
            .block_on(async { UnixListener::bind(socket) })
            .unwrap();
        let (stuck, over) = (watch::Sender::new(false), Arc::default());
        let service = EngineServer::new(Service {
            state: Arc::clone(&state),
            stuck: stuck.subscribe(),
            over: Arc::clone(&over),
        });
        let service = service
            .max_decoding_message_size(MESSAGE)
            .max_encoding_message_size(MESSAGE);
        let server = Server::builder()
            .add_service(service)
            .serve_with_incoming(UnixListenerStream::new(listener));
        runtime.spawn(server);
        FakeEngine {
            state,
            stuck,
            over,
            runtime: Some(runtime),
        }
    }

    /// As `kill -9`: connections break, the socket's file stays.
    pub fn kill(self) {
        drop(self);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The snapshot in force.
    pub fn current(&self) -> Snapshot {
        self.state().current.clone()
    }

    pub fn epoch(&self) -> u64 {
        self.state().current.epoch
    }

    /// How many snapshots were applied.
    pub fn applied(&self) -> u64 {
        self.state().history.len() as u64
    }

    /// Refuses what it is told from now on, or no longer.
    pub fn refuse(&self, why: Option<&str>) {
        let mut state = self.state();
        state.refusal = why.map(str::to_owned);
        state.never = false;
    }

    /// Refuses every snapshot as one that can never be.
    pub fn refuse_for_ever(&self, why: &str) {
        let mut state = self.state();
        state.refusal = Some(why.to_owned());
        state.never = true;
    }

    /// Ends lists of flows and previews with this error from now on.
    pub fn silence(&self, why: &str) {
        self.state().silence = Some(why.to_owned());
    }

    /// Has so many flows of 1,000,000, and so many that found no place.
    pub fn fill(&self, flows: u64, stateless: u64) {
        self.state().fill = (flows, stateless);
    }

    /// Has so many sessions that are unprotected, and orphaned.
    pub fn endanger(&self, unprotected: u64, orphaned: u64) {
        self.state().sessions = (unprotected, orphaned);
    }

    /// Has another snapshot than the one it was told, as from another daemon.
    pub fn replace(&self, snapshot: Snapshot) {
        self.state().current = snapshot;
    }

    /// Every backend has reset so many connections.
    pub fn reset(&self, resets: u64) {
        self.state().resets = resets;
    }

    /// A replica of a service was evicted.
    pub fn evict(&self, service: &str, replica: &str) {
        self.state().evicted = Some((service.to_owned(), replica.to_owned()));
    }

    /// Stops answering previews and questions for metrics, as one that hangs.
    pub fn hang(&self) {
        self.state().hangs = true;
    }

    /// Hangs over what it is to apply, or goes on with it.
    pub fn stick(&self, stuck: bool) {
        self.stuck.send_replace(stuck);
    }

    /// Whether it hangs over something.
    pub fn is_stuck(&self) -> bool {
        self.over.load(Ordering::SeqCst) > 0
    }

    /// Forwards so many packets a second for each VIP; from one status to the next it is a second.
    pub fn forward(&self, packets: u64) {
        self.state().traffic = Some((packets, 0));
    }

    /// The backends of the first service: address, and whether it drains.
    pub fn backends(&self) -> Backends {
        backends_of(&self.state().current)
    }

    /// The weights in the first service of every snapshot that was applied; 0 for what drains.
    pub fn weights(&self) -> Vec<Vec<u32>> {
        let weight = |b: &lockstep_api::Backend| match b.state() {
            BackendState::Draining => 0,
            BackendState::Active | BackendState::Unspecified => b.weight,
        };
        let history = &self.state().history;
        let first = history.iter().filter_map(|s| s.services.first());
        first
            .map(|s| s.backends.iter().map(weight).collect())
            .collect()
    }

    /// The same of every snapshot that was applied.
    pub fn history(&self) -> Vec<Backends> {
        self.state().history.iter().map(backends_of).collect()
    }

    /// Whether the first service has exactly these active backends, and none that drain.
    pub fn has(&self, addresses: &[&str]) -> bool {
        let expected: Vec<(String, bool)> =
            addresses.iter().map(|&a| (a.to_owned(), false)).collect();
        self.backends() == expected
    }
}

impl Drop for FakeEngine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Address, and whether it drains.
type Backends = Vec<(String, bool)>;

fn backends_of(snapshot: &Snapshot) -> Backends {
    let backends = snapshot
        .services
        .first()
        .into_iter()
        .flat_map(|s| &s.backends);
    backends
        .map(|b| (b.address.clone(), b.state() == BackendState::Draining))
        .collect()
}

struct Service {
    state: Arc<Mutex<State>>,
    stuck: watch::Receiver<bool>,
    over: Arc<AtomicUsize>,
}

/// Counts a snapshot that the engine hangs over, also when nobody waits for it any more.
struct Over<'a>(&'a AtomicUsize);

impl<'a> Over<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Over(count)
    }
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Engine for Service {
    type FlowsStream = Replies<Flow>;
    type ExplainStream = Replies<Explanation>;
    type SessionsStream = Replies<Session>;
    type CaptureStream = Replies<CaptureEvent>;
    type EventsStream = Replies<SessionEvent>;

    async fn sessions(
        &self,
        request: Request<SessionsRequest>,
    ) -> Result<Response<Self::SessionsStream>, Status> {
        let wanted = request.into_inner().service;
        let all = sessions().into_iter();
        let all = all.filter(move |s| wanted.is_empty() || s.service == wanted);
        Ok(Response::new(Box::pin(tokio_stream::iter(all.map(Ok)))))
    }

    async fn session(&self, request: Request<SessionRequest>) -> Result<Response<Session>, Status> {
        let id = request.into_inner().id;
        let found = sessions().into_iter().find(|s| s.id == id);
        let found = found.ok_or_else(|| Status::not_found(format!("there is no session {id}")))?;
        Ok(Response::new(found))
    }

    async fn switchover(
        &self,
        request: Request<SwitchoverRequest>,
    ) -> Result<Response<SwitchoverReply>, Status> {
        let SwitchoverRequest { session, replica } = request.into_inner();
        match (session.as_str(), replica.as_str()) {
            ("0-1", "s2" | "10.0.0.2") => Ok(Response::new(SwitchoverReply {
                primary: "s2".to_owned(),
            })),
            _ => Err(Status::failed_precondition("s1 is primary already")),
        }
    }

    async fn events(
        &self,
        _: Request<EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        let event = |kind: &str| SessionEvent {
            time: 1_763_717_474.25,
            session: "0-1".to_owned(),
            service: "web".to_owned(),
            client: "198.51.100.7".to_owned(),
            client_port: 40_000,
            kind: kind.to_owned(),
            ..SessionEvent::default()
        };
        let mut switched = event("switched");
        switched.from = "s1".to_owned();
        switched.to = "s2".to_owned();
        switched.cause = "asked for".to_owned();
        let mut resumed = event("resumed");
        resumed.gap_microseconds = Some(900);
        let evicted = self.state.lock().unwrap().evicted.clone();
        let evicted = evicted.map(|(service, replica)| SessionEvent {
            time: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap()
                .as_secs_f64(),
            service,
            replica,
            ..event("evicted")
        });
        let all = [switched, resumed].into_iter().chain(evicted);
        Ok(Response::new(Box::pin(tokio_stream::iter(all.map(Ok)))))
    }

    /// Three packets for one that asks for any, and five that were missed.
    async fn capture(
        &self,
        request: Request<CaptureRequest>,
    ) -> Result<Response<Self::CaptureStream>, Status> {
        let request = request.into_inner();
        if request.vip == "web" {
            return Err(Status::invalid_argument("`web` is no VIP"));
        }
        let event = |event| Ok(CaptureEvent { event: Some(event) });
        let start = event(Event::Start(CaptureStart {
            interfaces: vec!["eth0".to_owned(), "eth1".to_owned()],
            snap_length: request.snap_length,
        }));
        // Of IPv4, as far as the Ethernet header goes.
        let mut head = vec![0; request.snap_length as usize];
        head[12] = 8;
        let packet = |n: u64| {
            let verdict = if n == 1 { "drop" } else { "forward" };
            let forwarded = |text: &str| {
                if n == 1 {
                    String::new()
                } else {
                    text.to_owned()
                }
            };
            event(Event::Packet(CapturedPacket {
                time: 1_763_717_474_250_000_000 + n,
                interface: (n % 2) as u32,
                length: 1_000,
                head: head.clone(),
                explanation: Some(Explanation {
                    verdict: verdict.to_owned(),
                    reason: if n == 1 {
                        "no_vip".to_owned()
                    } else {
                        String::new()
                    },
                    service: forwarded("web"),
                    backend_name: forwarded("web-1"),
                    backend: forwarded("10.0.0.1"),
                    steps: vec!["parsed".to_owned()],
                    packet: format!("tcp 198.51.100.7:{n} > 203.0.113.10:80"),
                    ..Explanation::default()
                }),
                ..CapturedPacket::default()
            }))
        };
        let packets = (0..request.packets.min(3)).map(packet);
        let end = event(Event::End(CaptureEnd { missed: 5 }));
        let events: Vec<_> = std::iter::once(start).chain(packets).chain([end]).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(events))))
    }

    async fn apply(&self, request: Request<Snapshot>) -> Result<Response<ApplyReply>, Status> {
        let snapshot = request.into_inner();
        let mut stuck = self.stuck.clone();
        if *stuck.borrow() {
            let _over = Over::new(&self.over);
            stuck.wait_for(|stuck| !stuck).await.unwrap();
        }
        let mut state = self.state.lock().unwrap();
        if let Some(why) = &state.refusal {
            return Err(match state.never {
                true => Status::invalid_argument(why),
                false => Status::resource_exhausted(why),
            });
        }
        if snapshot.epoch <= state.current.epoch {
            return Err(Status::failed_precondition(
                "the epoch is older than the one in force",
            ));
        }
        let epoch = snapshot.epoch;
        state.current = snapshot.clone();
        state.history.push(snapshot);
        Ok(Response::new(ApplyReply { epoch, workers: 2 }))
    }

    async fn preview(&self, request: Request<Snapshot>) -> Result<Response<PreviewReply>, Status> {
        if self.state.lock().unwrap().hangs {
            return std::future::pending().await;
        }
        if let Some(why) = &self.state.lock().unwrap().silence {
            return Err(Status::unavailable(why));
        }
        let proposed = request.into_inner();
        let service = |name: &str| ServicePreview {
            name: name.to_owned(),
            in_current: true,
            in_proposed: true,
            ring_share_moved: 0.25,
            flows: 1_234,
            flows_moved: 56,
            backends: vec![BackendPreview {
                name: "10.0.0.1".to_owned(),
                address: "10.0.0.1".to_owned(),
                share_before: 0.5,
                share_after: 1.0 / 3.0,
            }],
        };
        let services = proposed.services.iter().map(|s| service(&s.name)).collect();
        Ok(Response::new(PreviewReply { services }))
    }

    async fn current(&self, _: Request<CurrentRequest>) -> Result<Response<Snapshot>, Status> {
        Ok(Response::new(self.state.lock().unwrap().current.clone()))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<EngineStatus>, Status> {
        let mut state = self.state.lock().unwrap();
        let mut status = status_of(&state.current);
        if let Some((packets, seconds)) = &mut state.traffic {
            *seconds += 1;
            status.uptime_seconds += *seconds as f64;
            for vip in status.services.iter_mut().flat_map(|s| &mut s.vips) {
                vip.packets += *packets * *seconds;
            }
        }
        for backend in status.services.iter_mut().flat_map(|s| &mut s.backends) {
            backend.resets = state.resets;
        }
        (status.workers[0].flows, status.workers[0].stateless) = state.fill;
        (status.sessions_unprotected, status.sessions_orphaned) = state.sessions;
        Ok(Response::new(status))
    }

    async fn flows(
        &self,
        request: Request<FlowsRequest>,
    ) -> Result<Response<Self::FlowsStream>, Status> {
        let request = request.into_inner();
        let flow = |client: &str, service: &str| Flow {
            protocol: Protocol::Tcp.into(),
            client: client.to_owned(),
            client_port: 40_000,
            vip: "203.0.113.10".to_owned(),
            vip_port: 80,
            service: service.to_owned(),
            backend_name: "web-1".to_owned(),
            backend: "10.0.0.1".to_owned(),
            state: "established".to_owned(),
            idle_seconds: 61,
            worker: 1,
        };
        let all = [flow("198.51.100.7", "web"), flow("2001:db8::7", "dns")];
        if !["", "web", "dns"].contains(&request.service.as_str()) {
            let text = format!("there is no service {}", request.service);
            return Err(Status::not_found(text));
        }
        let limit = if request.limit == 0 {
            usize::MAX
        } else {
            request.limit as usize
        };
        let wanted = move |f: &Flow| request.service.is_empty() || f.service == request.service;
        let silence = self.state.lock().unwrap().silence.clone();
        let flows = all.into_iter().filter(wanted).take(limit).map(Ok);
        let end = silence.map(|why| Err(Status::unavailable(why)));
        Ok(Response::new(Box::pin(tokio_stream::iter(
            flows.chain(end).collect::<Vec<_>>(),
        ))))
    }

    async fn explain(
        &self,
        request: Request<Streaming<ExplainRequest>>,
    ) -> Result<Response<Self::ExplainStream>, Status> {
        let current = self.state.lock().unwrap().current.clone();
        let replies = request
            .into_inner()
            .map(move |r| r.map(|r| explanation(&current, r)));
        Ok(Response::new(Box::pin(replies)))
    }

    async fn hand_over(
        &self,
        _: Request<HandOverRequest>,
    ) -> Result<Response<HandOverReply>, Status> {
        Err(Status::unimplemented("it stays"))
    }

    async fn metrics(&self, _: Request<MetricsRequest>) -> Result<Response<MetricsReply>, Status> {
        if self.state.lock().unwrap().hangs {
            return std::future::pending().await;
        }
        let text = "# TYPE lockstep_epoch gauge\nlockstep_epoch 1\n".to_owned();
        Ok(Response::new(MetricsReply { text }))
    }
}
