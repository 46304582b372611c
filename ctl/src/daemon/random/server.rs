//! Connections: how many, how long, how large. Replicas are few; everybody else is a stranger.

use super::numbers::Service;
use axum::Router;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use lockstep_ctl_core::random::book::client_of;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tower::ServiceExt;

/// The most connections at a time; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 512;
/// The most of one client: the others find a place.
const MAX_PER_CLIENT: u32 = 64;
/// How long the head of a request may take, also the first one of a connection.
const HEAD: Duration = Duration::from_secs(5);
/// The largest head, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// A connection is ended after this, when its request under way is answered.
const CONNECTION: Duration = Duration::from_secs(60);
/// What a client has left then to read the rest.
const GRACE: Duration = Duration::from_secs(10);
/// The pause after the system refused a connection, for want of files mostly.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until the listener fails for good.
pub async fn run(listener: TcpListener, service: Arc<Service>) {
    let router = Router::new()
        .route("/integers", get(integers))
        .route("/integers/", get(integers))
        .with_state(service);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let clients = Clients::default();
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Some(guest) = clients.enter(peer.ip()) {
                    connections.spawn(serve(stream, peer, router.clone(), place, guest));
                }
            }
            Err(error) => {
                tracing::debug!("a client could not be taken: {error}");
                sleep_until(Instant::now() + PAUSE).await;
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    _place: OwnedSemaphorePermit,
    _guest: Guest,
) {
    let answer = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD)
        // A client that says that it has no more to ask (`nc -N`) waits for its answer all the same.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = pin!(connection);
    // Whatever ends a connection is the client's own matter.
    if timeout(CONNECTION, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(GRACE, connection).await;
    }
}

async fn integers(
    State(service): State<Arc<Service>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let query = Query::<Vec<(String, String)>>::try_from_uri(request.uri());
    let pairs = query.map(|Query(pairs)| pairs).unwrap_or_default();
    match service.answer(&pairs, peer.ip().to_canonical()).await {
        Ok(document) => {
            let headers = [
                (header::CONTENT_TYPE, document.mime),
                // What a cache kept would be another replica's call.
                (header::CACHE_CONTROL, "no-store"),
            ];
            (headers, document.text).into_response()
        }
        // As random.org: every error is 503 with a text that begins with "Error:".
        Err(error) => {
            let headers = [
                (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
                (header::CACHE_CONTROL, "no-store"),
            ];
            (
                StatusCode::SERVICE_UNAVAILABLE,
                headers,
                format!("{error}\n"),
            )
                .into_response()
        }
    }
}

/// How many connections each client has.
#[derive(Debug, Clone, Default)]
struct Clients(Arc<Mutex<BTreeMap<IpAddr, u32>>>);

/// A connection that counts until this is dropped.
struct Guest {
    of: Clients,
    client: IpAddr,
}

impl Clients {
    fn enter(&self, address: IpAddr) -> Option<Guest> {
        let client = client_of(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(client).or_insert(0);
        if *count >= MAX_PER_CLIENT {
            return None;
        }
        *count += 1;
        Some(Guest {
            of: self.clone(),
            client,
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_with_many_addresses_is_one_client() {
        let clients = Clients::default();
        let address = |text: &str| -> IpAddr { text.parse().unwrap() };
        let many = (0..MAX_PER_CLIENT).map(|n| format!("2001:db8::{n:x}"));
        let mut guests: Vec<Guest> = many.filter_map(|a| clients.enter(address(&a))).collect();
        assert_eq!(guests.len(), MAX_PER_CLIENT as usize);
        assert!(clients.enter(address("2001:db8::ffff:1")).is_none());
        for another in ["2001:db8:0:1::1", "192.0.2.1", "192.0.2.2"] {
            assert!(clients.enter(address(another)).is_some());
        }
        guests.pop();
        assert!(clients.enter(address("2001:db8::ffff:1")).is_some());
    }
}
