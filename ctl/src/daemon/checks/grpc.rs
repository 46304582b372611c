//! gRPC: the health protocol (grpc.health.v1).

use super::ask::{Question, Trouble};
use super::socket::connect;
use super::tls::{self, Configs};
use hyper_util::rt::TokioIo;
use lockstep_ctl_core::checks::Tls;
use std::io;
use std::sync::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::Status;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::service_fn;

/// Passes when the answer is SERVING.
pub async fn ask(
    question: &Question<'_>,
    service: &str,
    tls: Option<(&Tls, &Configs)>,
) -> Result<(), Trouble> {
    let (stream, _pass) = connect(question).await?;
    match tls {
        None => talk(question, service, stream).await,
        Some((tls, configs)) => {
            let stream = tls::handshake(question, tls, "h2", configs, stream).await?;
            talk(question, service, stream).await
        }
    }
}

async fn talk<S>(question: &Question<'_>, service: &str, stream: S) -> Result<(), Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let talking = async {
        let broken = |e: tonic::transport::Error| Trouble::Backend(format!("no gRPC: {e}"));
        let uri = format!("http://{}", question.to);
        let endpoint = Endpoint::from_shared(uri).map_err(broken)?;
        // One connection, made already: a second one is another check.
        let stream = Mutex::new(Some(TokioIo::new(stream)));
        let connector = service_fn(move |_| {
            let stream = stream.lock().ok().and_then(|mut s| s.take());
            let gone = || io::Error::from(io::ErrorKind::NotConnected);
            async move { stream.ok_or_else(gone) }
        });
        let channel = endpoint.connect_with_connector(connector).await;
        let mut client = HealthClient::new(channel.map_err(broken)?);
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = client.check(request).await;
        let answer = answer.map_err(|status| refused(&status))?.into_inner();
        match answer.status() {
            ServingStatus::Serving => Ok(()),
            other => Err(Trouble::Backend(format!(
                "gRPC health {}, wanted SERVING",
                other.as_str_name()
            ))),
        }
    };
    question.within("no answer", talking).await
}

fn refused(status: &Status) -> Trouble {
    let (code, text) = (status.code(), status.message());
    Trouble::Backend(format!("gRPC status {code:?}: {text}"))
}
