//! HTTP: a request, and an answer with the right status and body.

use super::ask::{Question, Trouble};
use super::socket::connect;
use super::tls::{self, Configs};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lockstep_ctl_core::checks::{Http, HttpVersion, MAX_BODY};
use std::pin::pin;
use tokio::io::{AsyncRead, AsyncWrite};

/// The longest body that is searched at once, in bytes: a longer one would hold up other checks.
const AT_ONCE: usize = 4_096;

/// Passes when status and body are as they should be.
pub async fn ask(question: &Question<'_>, http: &Http, configs: &Configs) -> Result<(), Trouble> {
    let (stream, _pass) = connect(question).await?;
    match &http.tls {
        None => talk(question, http, stream).await,
        Some(tls) => {
            let protocol = match http.version {
                HttpVersion::Http1 => "http/1.1",
                HttpVersion::Http2 => "h2",
            };
            let stream = tls::handshake(question, tls, protocol, configs, stream).await?;
            talk(question, http, stream).await
        }
    }
}

async fn talk<S>(question: &Question<'_>, http: &Http, stream: S) -> Result<(), Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = request(question, http)?;
    let io = TokioIo::new(stream);
    let talking = async {
        match http.version {
            HttpVersion::Http1 => {
                let shaken = http1::handshake(io).await.map_err(broken)?;
                let (mut sender, connection) = shaken;
                let asking = async { judge(http, sender.send_request(request).await).await };
                both(asking, connection).await
            }
            HttpVersion::Http2 => {
                let shaken = http2::handshake(TokioExecutor::new(), io).await;
                let (mut sender, connection) = shaken.map_err(broken)?;
                let asking = async { judge(http, sender.send_request(request).await).await };
                both(asking, connection).await
            }
        }
    };
    question.within("no answer", talking).await
}

/// Drives a connection until the answer is judged.
async fn both<T>(
    asking: impl Future<Output = Result<(), Trouble>>,
    connection: impl Future<Output = T>,
) -> Result<(), Trouble> {
    let mut asking = pin!(asking);
    tokio::select! {
        biased;
        judged = &mut asking => judged,
        // What it had read by then is still to be judged.
        _ = connection => asking.await,
    }
}

fn request(question: &Question<'_>, http: &Http) -> Result<Request<Empty<Bytes>>, Trouble> {
    let unfit = |error: &dyn std::fmt::Display| Trouble::Here(format!("no request: {error}"));
    let authority = http.host.clone().unwrap_or_else(|| question.to.to_string());
    let scheme = if http.tls.is_some() { "https" } else { "http" };
    let path = &http.path;
    let mut request = Request::builder();
    request = match http.version {
        HttpVersion::Http1 => request
            .uri(path)
            .header(HOST, &authority)
            .header(CONNECTION, "close"),
        HttpVersion::Http2 => request
            .version(Version::HTTP_2)
            .uri(format!("{scheme}://{authority}{path}")),
    };
    let mut request = request
        .header(USER_AGENT, "lockstep")
        .body(Empty::new())
        .map_err(|e| unfit(&e))?;
    for (name, value) in &http.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| unfit(&e))?;
        let value = HeaderValue::from_str(value).map_err(|e| unfit(&e))?;
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

async fn judge(http: &Http, answer: hyper::Result<Response<Incoming>>) -> Result<(), Trouble> {
    let answer = answer.map_err(broken)?;
    let status = answer.status().as_u16();
    if !http.status.contains(status) {
        let wanted = &http.status;
        let text = format!("HTTP status {status}, wanted {wanted}");
        return Err(Trouble::Backend(text));
    }
    let Some(pattern) = &http.body else {
        return Ok(());
    };
    let mut incoming = answer.into_body();
    let mut body = Vec::new();
    while body.len() < MAX_BODY
        && let Some(frame) = incoming.frame().await
    {
        if let Some(data) = frame.map_err(broken)?.data_ref() {
            let room = (MAX_BODY - body.len()).min(data.len());
            body.extend_from_slice(&data[..room]);
        }
    }
    let length = body.len();
    let found = match length > AT_ONCE {
        true => {
            let pattern = pattern.clone();
            let searched = tokio::task::spawn_blocking(move || pattern.is_in(&body));
            let searched = searched.await;
            searched.map_err(|e| Trouble::Here(format!("cannot search the body: {e}")))?
        }
        false => pattern.is_in(&body),
    };
    match found {
        true => Ok(()),
        false => {
            let text = format!(
                "HTTP status {status}, but its body of {length} bytes does not match '{}'",
                pattern.as_str()
            );
            Err(Trouble::Backend(text))
        }
    }
}

fn broken(error: hyper::Error) -> Trouble {
    let mut innermost: &dyn std::error::Error = &error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let why = match innermost.to_string() {
        inner if inner == error.to_string() => inner,
        inner => format!("{error}: {inner}"),
    };
    Trouble::Backend(format!("no answer of HTTP: {why}"))
}
