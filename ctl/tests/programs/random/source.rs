//! Numbers of another service, which is asked once for each.

use super::{REPLICAS, SIX, Server, curl};
use crate::common::etcd::Certificates;
use crate::common::wait_for;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU16, Ordering};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// A service like random.org: it counts, so that every answer is another one.
pub(super) struct Upstream {
    at: SocketAddr,
    state: Arc<Counter>,
    runtime: Runtime,
}

#[derive(Default)]
struct Counter {
    next: AtomicI64,
    asked: AtomicI64,
    /// 0 answers; other statuses are what it says instead.
    status: AtomicU16,
    held: watch::Sender<bool>,
}

impl Upstream {
    pub(super) fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let state = Arc::new(Counter::default());
        let router = Router::new()
            .route("/integers/", get(numbers))
            .with_state(Arc::clone(&state));
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let at = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, router).await });
        Upstream { at, state, runtime }
    }

    pub(super) fn keys(&self) -> String {
        format!(
            "source = \"http://{}/integers/\"\nsource_timeout = \"2s\"",
            self.at
        )
    }

    fn fail(&self, status: u16) {
        self.state.status.store(status, Ordering::SeqCst);
    }

    /// Lets questions wait, or no longer.
    fn hold(&self, hold: bool) {
        self.state.held.send_replace(hold);
    }

    /// The same behind TLS, at the port that is returned.
    fn behind_tls(&self, certificates: &Certificates) -> u16 {
        let chain = CertificateDer::pem_file_iter(certificates.file("certificate.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(certificates.file("key.pem")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = self
            .runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let (port, at) = (listener.local_addr().unwrap().port(), self.at);
        self.runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A client that does not like the certificate is none.
                if let Ok(mut client) = acceptor.accept(client).await {
                    let mut server = tokio::net::TcpStream::connect(at).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
            }
        });
        port
    }

    fn asked(&self) -> i64 {
        self.state.asked.load(Ordering::SeqCst)
    }
}

async fn numbers(
    State(counter): State<Arc<Counter>>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> (StatusCode, String) {
    counter.asked.fetch_add(1, Ordering::SeqCst);
    let mut held = counter.held.subscribe();
    held.wait_for(|held| !held).await.unwrap();
    let value = |name: &str| pairs.iter().find(|(n, _)| n == name).unwrap().1.clone();
    assert_eq!(
        (value("base"), value("format"), value("col")),
        ("10".into(), "plain".into(), "1".into())
    );
    match counter.status.load(Ordering::SeqCst) {
        0 => {
            let num: i64 = value("num").parse().unwrap();
            let first = counter.next.fetch_add(num, Ordering::SeqCst);
            let text: String = (first..first + num)
                .map(|n| format!("{}\n", n + 1))
                .collect();
            (StatusCode::OK, text)
        }
        503 => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Error: You have used your quota\n".into(),
        ),
        status => (StatusCode::from_u16(status).unwrap(), "1\n2\n".into()),
    }
}

#[test]
fn another_service_may_be_the_source_and_never_silently_is_not() {
    let upstream = Upstream::start();
    let mut server = Server::with(&upstream.keys());
    let call = |n: u32| format!("num=2&min=1&max=1000&session=s&call={n}");
    let first = server.get(REPLICAS[0], &call(1));
    let second = server.get(REPLICAS[0], &call(2));
    assert_ne!(first, second);
    upstream.fail(503);
    server.crash();
    for replica in REPLICAS {
        assert_eq!(server.get(replica, &call(1)), first);
        assert_eq!(server.get(replica, &call(2)), second);
    }
    let asked = upstream.asked();
    let (status, text) = server.ask(REPLICAS[0], &call(3));
    assert_eq!(status, 503);
    assert!(
        text.contains("does not give any: Error: You have used your quota"),
        "{text}"
    );
    assert_eq!(
        upstream.asked(),
        asked + 1,
        "a quota is not asked for again"
    );
    upstream.fail(500);
    let asked = upstream.asked();
    assert_eq!(server.ask(REPLICAS[0], &call(3)).0, 503);
    assert_eq!(upstream.asked(), asked + 3, "a bounded number of tries");
    let report = server.report();
    assert!(
        report["error"].to_string().contains("status 500"),
        "{report}"
    );
    upstream.fail(0);
    let third = server.get(REPLICAS[0], &call(3));
    assert_eq!(server.get(REPLICAS[1], &call(3)), third);
    assert_eq!(server.report()["error"], serde_json::Value::Null);
}

#[test]
fn a_source_over_tls_is_who_it_says_it_is() {
    let (known, unknown) = (Certificates::new(), Certificates::new());
    let upstream = Upstream::start();
    let port = upstream.behind_tls(&known);
    let keys = |ca: &Certificates| {
        let ca = ca.file("ca.pem");
        format!("source = \"https://127.0.0.1:{port}/integers/\"\nsource_ca = \"{ca}\"")
    };
    let server = Server::with(&keys(&known));
    server.get(REPLICAS[0], SIX);
    assert_eq!(upstream.asked(), 1);
    let server = Server::with(&keys(&unknown));
    let (status, text) = server.ask(REPLICAS[0], SIX);
    assert_eq!((status, upstream.asked()), (503, 1));
    assert!(text.contains("invalid peer certificate"), "{text}");
}

#[test]
fn a_daemon_that_is_killed_before_it_answers_gives_all_the_same_later() {
    let upstream = Upstream::start();
    let mut server = Server::with(&upstream.keys());
    let query = format!("{SIX}&session=s&call=1");
    upstream.hold(true);
    let port = server.port;
    let asking = std::thread::spawn({
        let query = query.clone();
        move || curl(port, REPLICAS[0], &query)
    });
    wait_for("the question at the source", || upstream.asked() == 1);
    server.daemon.take().unwrap().kill();
    assert_eq!(asking.join().unwrap().0, 0, "nobody got an answer");
    upstream.hold(false);
    server.start();
    let answers: BTreeSet<String> = REPLICAS.map(|r| server.get(r, &query)).into();
    assert_eq!(answers.len(), 1);
}
