//! Numbers of another service with random.org's schema, over HTTP.

use crate::daemon::disk;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header;
use hyper_util::rt::TokioIo;
use lockstep_ctl_core::config::random::{Random, Url};
use lockstep_ctl_core::random::request::Range;
use lockstep_ctl_core::random::text;
use rand::RngExt;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;

/// How often it is asked for one answer.
const TRIES: u32 = 3;
/// The pause after the first try; it doubles.
const PAUSE: Duration = Duration::from_millis(100);
/// The most questions at a time: random.org asks its clients for few.
const MAX_QUESTIONS: usize = 8;
/// The largest answer, in bytes: 10,000 numbers of at most eleven characters and a line end.
const MAX_ANSWER: usize = 256 << 10;

/// See the module.
#[derive(Debug)]
pub struct Source {
    url: Url,
    settings: Random,
    places: Semaphore,
}

/// What went wrong with one try.
enum Failure {
    /// It may go right the next time.
    Passing(String),
    /// It will not.
    Lasting(String),
}

impl Source {
    /// The one that the configuration has.
    pub fn new(settings: &Random) -> Option<Self> {
        settings.source.clone().map(|url| Source {
            url,
            settings: settings.clone(),
            places: Semaphore::new(MAX_QUESTIONS),
        })
    }

    /// The numbers of a range. `fixed` is random.org's `rnd` where it is not `new`.
    ///
    /// # Errors
    /// What the service said, or that it said nothing.
    pub async fn draw(&self, range: Range, fixed: Option<&str>) -> Result<Vec<i32>, String> {
        let _place = self.places.acquire().await;
        let mut pause = PAUSE;
        for attempt in 1.. {
            let once = timeout(self.settings.source_timeout, self.ask(range, fixed)).await;
            let failure = match once {
                Ok(Ok(numbers)) => return Ok(numbers),
                Ok(Err(failure)) => failure,
                Err(_) => {
                    Failure::Passing(format!("no answer for {:?}", self.settings.source_timeout))
                }
            };
            match failure {
                Failure::Passing(text) if attempt >= TRIES => return Err(text),
                Failure::Lasting(text) => return Err(text),
                Failure::Passing(_) => {}
            }
            let wait = pause.mul_f64(rand::rng().random_range(0.5..1.0));
            sleep_until(Instant::now() + wait).await;
            pause *= 2;
        }
        unreachable!("the last try returns")
    }

    async fn ask(&self, range: Range, fixed: Option<&str>) -> Result<Vec<i32>, Failure> {
        let passing = |error: std::io::Error| Failure::Passing(error.to_string());
        let at = (self.url.host.as_str(), self.url.port);
        let stream = TcpStream::connect(at).await.map_err(passing)?;
        if !self.url.tls {
            return self.talk(stream, range, fixed).await;
        }
        let connector = connector(&self.settings.source_ca).map_err(Failure::Lasting)?;
        let name = ServerName::try_from(self.url.host.clone());
        let name = name.map_err(|error| Failure::Lasting(error.to_string()))?;
        let stream = connector.connect(name, stream).await.map_err(passing)?;
        self.talk(stream, range, fixed).await
    }

    async fn talk(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        range: Range,
        fixed: Option<&str>,
    ) -> Result<Vec<i32>, Failure> {
        let passing = |error: hyper::Error| Failure::Passing(error.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(passing)?;
        let talk = async {
            let rnd = fixed.unwrap_or("new");
            let path = &self.url.path;
            let request = hyper::Request::get(format!(
                "{path}?{range}&col=1&base=10&format=plain&rnd={rnd}"
            ))
            .header(header::HOST, self.url.authority())
            .header(header::USER_AGENT, "lockstepd")
            .body(Empty::<Bytes>::new())
            .map_err(|error| Failure::Lasting(error.to_string()))?;
            let reply = sender.send_request(request).await.map_err(passing)?;
            let status = reply.status();
            let body = Limited::new(reply.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| Failure::Passing(error.to_string()))?;
            let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
            let numbers = text::read(&body, range);
            match (status.is_success(), numbers) {
                (true, numbers) => numbers.map_err(Failure::Lasting),
                // An error in random.org's words is about the question or a quota.
                (false, Err(error)) if error.starts_with("Error:") => Err(Failure::Lasting(error)),
                (false, _) => Err(Failure::Passing(format!("status {status}"))),
            }
        };
        // The connection is driven for as long as the talk lasts, and dropped with it.
        let mut connection = std::pin::pin!(connection);
        let mut talk = std::pin::pin!(talk);
        tokio::select! {
            done = &mut talk => done,
            _ = &mut connection => talk.await,
        }
    }
}

fn connector(ca: &Path) -> Result<TlsConnector, String> {
    let wrong = |error: &dyn std::fmt::Display| {
        let ca = ca.display();
        format!("cannot read the certificates in {ca}: {error}; set `source_ca` in [random]")
    };
    let mut roots = RootCertStore::empty();
    let bytes = disk::read_named(ca).map_err(|e| wrong(&e))?;
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        // A bundle may have one that this library does not take.
        let _ = roots.add(certificate.map_err(|e| wrong(&e))?);
    }
    if roots.is_empty() {
        return Err(wrong(&"there are none"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
