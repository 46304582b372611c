//! Serves the metrics of daemon and engine to Prometheus, over HTTP.
//!
//! Who asks may be slow, hostile or many: connections are few and short, each answers one
//! question, and the engine is asked once a second at most.

use super::parts::{Ending, Wires};
use super::privileges;
use super::view::View;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use lockstep_api::engine_client::EngineClient;
use lockstep_api::{KubernetesReply, MetricsRequest};
use lockstep_process::metrics;
use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;

mod page;

pub use page::write as own_page;

/// Connections at once. Others wait until one of these ends.
const CONNECTIONS: usize = 32;
/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(2);
/// How long a connection may take altogether: who reads slowly gets a part.
const CONNECTION: Duration = Duration::from_secs(20);
/// How long the engine may take to answer.
const ENGINE: Duration = Duration::from_secs(2);
/// For how long the engine's answer is good for others who ask.
const FRESH: Duration = Duration::from_secs(1);
/// From one attempt to listen at an address to the next.
const RETRY: Duration = Duration::from_secs(5);

/// Listens where the configuration says, until the daemon ends.
pub async fn run(mut wires: Wires, view: watch::Receiver<View>) {
    let exporter = Arc::new(Exporter {
        view,
        wires: wires.clone(),
        engine: Mutex::new(None),
        connections: Arc::new(Semaphore::new(CONNECTIONS)),
    });
    let mut listening: Option<Listening> = None;
    loop {
        let wanted = wires.config.borrow_and_update().operation.metrics;
        let result = follow(&mut listening, wanted, &exporter).await;
        let retry = result.is_err().then(|| Instant::now() + RETRY);
        exporter.report(result.err());
        tokio::select! {
            changed = wires.config.changed() => if changed.is_err() { return },
            () = super::actor::until(retry) => {}
            _ = wires.ending.wait_for(|ending| *ending != Ending::Running) => return,
        }
    }
}

/// An address that is listened at. Dropped, it is not any more.
struct Listening {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Listening {
    fn start(address: SocketAddr, exporter: &Arc<Exporter>) -> io::Result<Self> {
        let listener = privileges::listen(address)?;
        tracing::info!("metrics are served at http://{address}/metrics");
        let task = tokio::spawn(serve(listener, Arc::clone(exporter)));
        Ok(Listening { address, task })
    }

    /// Returns when its address is free.
    async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Listens at another address before the one that was is left. Where one is part of the other, as
/// `0.0.0.0` is of every address, that cannot be.
async fn follow(
    listening: &mut Option<Listening>,
    wanted: Option<SocketAddr>,
    exporter: &Arc<Exporter>,
) -> Result<(), String> {
    let Some(address) = wanted else {
        *listening = None;
        return Ok(());
    };
    let known = listening.as_ref().map(|known| known.address);
    if known == Some(address) {
        return Ok(());
    }
    let mut started = Listening::start(address, exporter);
    let is_in_the_way = known.is_some_and(|known| known.port() == address.port());
    if matches!(&started, Err(error) if error.kind() == ErrorKind::AddrInUse) && is_in_the_way {
        if let Some(known) = listening.take() {
            known.stop().await;
        }
        started = Listening::start(address, exporter);
    }
    *listening = Some(started.map_err(|error| {
        format!("metrics are not served: cannot listen at {address} ([metrics] listen): {error}")
    })?);
    Ok(())
}

async fn serve(listener: TcpListener, exporter: Arc<Exporter>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&exporter.connections).acquire_owned().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let exporter = Arc::clone(&exporter);
                connections.spawn(async move {
                    let _ = timeout(CONNECTION, exporter.converse(stream)).await;
                    drop(permit);
                });
            }
            // No file left, mostly: it passes, and must not become a loop of errors.
            Err(_) => sleep(FRESH).await,
        }
    }
}

/// Who answers.
struct Exporter {
    view: watch::Receiver<View>,
    wires: Wires,
    /// The engine's last answer, and when it was given.
    engine: Mutex<Option<(Instant, Option<String>)>>,
    connections: Arc<Semaphore>,
}

impl Exporter {
    /// Says once what is wrong, and keeps it for the status.
    fn report(&self, error: Option<String>) {
        let error = error.unwrap_or_default();
        self.wires.reports.metrics_error.send_if_modified(|known| {
            let is_new = *known != error;
            if is_new && !error.is_empty() {
                tracing::error!("{error}");
            }
            *known = error;
            is_new
        });
    }

    /// Answers one request. Whoever asks wrongly is told, or left.
    async fn converse(&self, stream: TcpStream) {
        let answer =
            service_fn(|request| async move { Ok::<_, Infallible>(self.answer(&request).await) });
        let _ = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), answer)
            .await;
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            let allowed = hyper::header::HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(ALLOW, allowed);
            return response;
        }
        match request.uri().path() {
            "/metrics" => response(StatusCode::OK, metrics::CONTENT_TYPE, self.page().await),
            "/healthz" => plain(StatusCode::OK, "alive\n"),
            "/readyz" => {
                match unready(&self.view.borrow(), &self.wires.reports.kubernetes.borrow()) {
                    None => plain(StatusCode::OK, "ready\n"),
                    Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
                }
            }
            _ => plain(
                StatusCode::NOT_FOUND,
                "there are /metrics, /healthz and /readyz\n",
            ),
        }
    }

    /// The daemon's metrics, and the engine's where it answers.
    async fn page(&self) -> String {
        let of_engine = self.of_engine().await;
        let view = self.view.borrow().clone();
        let mut text = own_page(&view, &self.wires.reports, of_engine.is_some());
        text.push_str(of_engine.as_deref().unwrap_or_default());
        text
    }

    /// What the engine says; whoever comes while it is asked, or soon after, gets the same.
    async fn of_engine(&self) -> Option<String> {
        let mut known = self.engine.lock().await;
        if let Some((at, text)) = &*known
            && at.elapsed() < FRESH
        {
            return text.clone();
        }
        let engine = self.wires.engine.borrow().clone();
        let text = match engine {
            Some(engine) => ask(engine).await,
            None => None,
        };
        *known = Some((Instant::now(), text.clone()));
        text
    }
}

async fn ask(mut engine: EngineClient<Channel>) -> Option<String> {
    let answer = timeout(ENGINE, engine.metrics(MetricsRequest {})).await;
    Some(answer.ok()?.ok()?.into_inner().text)
}

/// Why the balancer does not do what its files say; `None` where it does.
fn unready(view: &View, cluster: &KubernetesReply) -> Option<String> {
    // A daemon that only leads others has no engine, and never had one.
    let leads_only = view.epoch == 0 && cluster.may_lead && cluster.connected;
    if !view.engine_connected && !leads_only {
        return Some("there is no engine".to_owned());
    }
    let errors = [&view.file_error, &view.config_error, &view.engine_error];
    let error = errors.into_iter().find(|e| !e.is_empty()).cloned();
    let waits = view.engine_connected && !view.engine_settled;
    error.or_else(|| waits.then(|| "the engine has not got its services yet".to_owned()))
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", text)
}

fn response(
    status: StatusCode,
    content: &'static str,
    text: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let content = hyper::header::HeaderValue::from_static(content);
    response.headers_mut().insert(CONTENT_TYPE, content);
    response
}
