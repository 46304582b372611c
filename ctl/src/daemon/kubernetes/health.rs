//! Answers on the `healthCheckNodePort`s of Services with `externalTrafficPolicy: Local`: whether
//! this node has backends of them, as kube-proxy says it.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use lockstep_kubernetes::facts::Name;
use serde_json::json;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// Ports that are answered on. Those of more Services are not.
pub const PORTS: usize = 1_024;
/// Connections at once, of all ports.
const CONNECTIONS: usize = 64;
/// How long a connection may take altogether.
const CONNECTION: Duration = Duration::from_secs(5);
/// From one attempt to listen to the next.
const RETRY: Duration = Duration::from_secs(5);

/// What is answered on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// The Service.
    pub service: Name,
    /// Its backends on this node.
    pub endpoints: usize,
}

/// What is answered, by port.
pub type Locals = Arc<BTreeMap<u16, Local>>;

/// Answers at an address until it is dropped. `forwards` is whether there is an engine.
pub async fn run(
    address: IpAddr,
    mut locals: watch::Receiver<Locals>,
    forwards: impl Fn() -> bool + Clone + Send + Sync + 'static,
) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let mut listening: BTreeMap<u16, Listening> = BTreeMap::new();
    let mut said: BTreeMap<u16, String> = BTreeMap::new();
    loop {
        let wanted = locals.borrow_and_update().clone();
        listening.retain(|port, _| wanted.contains_key(port));
        said.retain(|port, _| wanted.contains_key(port));
        for port in wanted.keys().take(PORTS) {
            if listening.contains_key(port) {
                continue;
            }
            match TcpListener::bind(SocketAddr::new(address, *port)).await {
                Ok(listener) => {
                    said.remove(port);
                    let server = Server {
                        port: *port,
                        locals: locals.clone(),
                        connections: Arc::clone(&connections),
                        forwards: forwards.clone(),
                    };
                    let task = tokio::spawn(server.serve(listener));
                    listening.insert(*port, Listening(task));
                }
                Err(error) => {
                    let text = error.to_string();
                    // Once a reason, not once a try.
                    if said.insert(*port, text.clone()).as_ref() != Some(&text) {
                        let name = &wanted[port].service;
                        tracing::warn!(
                            "kubernetes: health checks of {name} are not answered at \
                             {address}:{port}: {text}; where kube-proxy answers them, leave out \
                             `health_checks` in [kubernetes] of lockstepd.toml"
                        );
                    }
                }
            }
        }
        tokio::select! {
            changed = locals.changed() => if changed.is_err() {
                return;
            },
            () = sleep(RETRY), if !said.is_empty() => {}
        }
    }
}

/// A port that is listened at. Dropped, it is not any more.
struct Listening(JoinHandle<()>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Server<F> {
    port: u16,
    locals: watch::Receiver<Locals>,
    connections: Arc<Semaphore>,
    forwards: F,
}

impl<F: Fn() -> bool + Clone + Send + Sync + 'static> Server<F> {
    async fn serve(self, listener: TcpListener) {
        let mut open = JoinSet::new();
        loop {
            while open.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, _)) => {
                    // Too many visitors: this one comes again.
                    let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() else {
                        continue;
                    };
                    let (port, locals) = (self.port, self.locals.clone());
                    let forwards = self.forwards.clone();
                    open.spawn(async move {
                        let _ = timeout(CONNECTION, converse(stream, port, locals, forwards)).await;
                        drop(permit);
                    });
                }
                // No file left, mostly: it passes, and must not become a loop of errors.
                Err(_) => sleep(Duration::from_secs(1)).await,
            }
        }
    }
}

async fn converse(
    stream: TcpStream,
    port: u16,
    locals: watch::Receiver<Locals>,
    forwards: impl Fn() -> bool,
) {
    let answer = service_fn(|_: Request<Incoming>| async {
        let local = locals.borrow().get(&port).cloned();
        Ok::<_, Infallible>(answer(local, forwards()))
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

/// As kube-proxy answers: 200 where there is a backend on this node, else 503.
fn answer(local: Option<Local>, forwards: bool) -> Response<Full<Bytes>> {
    let Some(local) = local else {
        let mut response = Response::new(Full::new(Bytes::from_static(b"no such Service\n")));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    let body = json!({
        "service": {
            "namespace": &*local.service.namespace,
            "name": &*local.service.name,
        },
        "localEndpoints": local.endpoints,
        "serviceProxyHealthy": forwards,
    });
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = match local.endpoints > 0 && forwards {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // What balancers that ask share out traffic by.
    let weight = "x-load-balancing-endpoint-weight";
    headers.insert(weight, HeaderValue::from(local.endpoints));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_with_backends_is_healthy_while_there_is_an_engine() {
        let local = |endpoints| {
            Some(Local {
                service: Name::new("shop", "web"),
                endpoints,
            })
        };
        for (local, forwards, status) in [
            (local(2), true, 200),
            (local(0), true, 503),
            (local(2), false, 503),
            (None, true, 404),
        ] {
            assert_eq!(answer(local, forwards).status().as_u16(), status);
        }
        let answer = answer(local(2), true);
        assert_eq!(answer.headers()["x-load-balancing-endpoint-weight"], "2");
    }
}
