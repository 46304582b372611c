//! The API server: how it is reached, who we are to it, and what it means when it refuses.

use crate::daemon::{disk, host};
use futures::future::BoxFuture;
use hyper::{Request, Response};
use kube::client::{Body, ClientBuilder};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::{Client, Error};
use lockstep_ctl_core::config::kubernetes::{Kubernetes, NAMESPACE};
use lockstep_ctl_core::drains::Timestamp;
use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{Instant, sleep};
use tower::{BoxError, Layer, Service};

/// How long the API server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// How long it may be silent within an answer. Watches say something more often than that.
const SILENCE: Duration = Duration::from_secs(45);

/// From one look at whether the API server knows us to the next.
const LOOK: Duration = Duration::from_secs(1);

/// A cluster, and who this daemon is in it.
#[derive(Clone)]
pub struct Cluster {
    /// The API server's client.
    pub client: Client,
    /// Its address.
    pub server: String,
    /// The namespace of the Lease.
    pub namespace: String,
    /// This balancer, also after a restart.
    pub name: String,
    /// This process, by a name that no other one ever has.
    pub me: String,
    /// The node it is on.
    pub node: Option<String>,
    /// Whether that is the host's name and no more: there may be no such node, since balancers can
    /// be outside of the cluster.
    pub guessed: bool,
    /// What becomes of requests.
    pub meter: Meter,
}

/// Gets ready to ask the API server; it is not asked yet. `name` is the balancer's own.
///
/// # Errors
/// A sentence that says what is missing.
pub async fn connect(wanted: &Kubernetes, name: Option<&str>) -> Result<Cluster, String> {
    let mut config = match &wanted.kubeconfig {
        Some(path) => of_file(path, wanted.context.clone()).await?,
        None => Config::incluster().map_err(|error| {
            format!(
                "this is no pod with a service account ({error}): set `kubeconfig` in \
                 [kubernetes] of lockstepd.toml"
            )
        })?,
    };
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    // Whoever asks tries again, and knows when.
    config.default_retry = false;
    let pods = (wanted.kubeconfig.is_none()).then(|| config.default_namespace.clone());
    let namespace = wanted.namespace.clone().or(pods);
    let server = config.cluster_url.to_string();
    let meter = Meter::default();
    let node = node(wanted);
    let name = name.map_or_else(host::name, |name| Ok(name.to_owned()))?;
    let builder = ClientBuilder::try_from(config)
        .map_err(|error| format!("cannot speak with {server}: {}", chain(&error)))?;
    Ok(Cluster {
        client: builder.with_layer(&meter).build(),
        server,
        namespace: namespace.unwrap_or_else(|| NAMESPACE.to_owned()),
        me: identity(&name)?,
        name,
        guessed: node.is_none(),
        node: node.or_else(|| host::name().ok()),
        meter,
    })
}

async fn of_file(path: &Path, context: Option<String>) -> Result<Config, String> {
    let wrong = |error: String| {
        let file = path.display();
        format!("cannot use {file} (`kubeconfig` in [kubernetes] of lockstepd.toml): {error}")
    };
    let file: PathBuf = path.to_owned();
    let read = move || {
        // So that a pipe is not waited for.
        disk::read_named(&file).map_err(|error| error.to_string())?;
        Kubeconfig::read_from(&file).map_err(|error| chain(&error))
    };
    let read = tokio::task::spawn_blocking(read).await;
    let read = read.unwrap_or_else(|error| Err(error.to_string()));
    let options = KubeConfigOptions {
        context,
        ..KubeConfigOptions::default()
    };
    let config = Config::from_custom_kubeconfig(read.map_err(wrong)?, &options).await;
    config.map_err(|error| wrong(chain(&error)))
}

/// The pod's name or the balancer's, and something that no other process has.
fn identity(name: &str) -> Result<String, String> {
    let pod = std::env::var("POD_NAME").ok().filter(|pod| !pod.is_empty());
    let name = pod.as_deref().unwrap_or(name);
    let random = getrandom::u64().map_err(|error| format!("no random numbers: {error}"))?;
    Ok(format!("{name}_{random:016x}"))
}

/// The node that somebody says this is.
fn node(wanted: &Kubernetes) -> Option<String> {
    let environment = || std::env::var("NODE_NAME").ok().filter(|n| !n.is_empty());
    wanted.node.clone().or_else(environment)
}

/// What an error means to an operator: what was tried (`list`, `services`) and what to do.
pub fn explain(error: &Error, verb: &str, resource: &str) -> String {
    let Error::Api(status) = error else {
        return format!("cannot {verb} {resource}: {}", chain(error));
    };
    let message = &status.message;
    match status.code {
        401 => "the API server does not know us (401): renew the token or certificate of the \
                kubeconfig, or the pod's service account"
            .to_owned(),
        403 => format!(
            "we may not {verb} {resource} (403): add the verb to the balancer's ClusterRole: {message}"
        ),
        404 if matches!(verb, "list" | "watch") => {
            format!("this cluster has no {resource} (404): apply their CustomResourceDefinitions")
        }
        code => format!("cannot {verb} {resource}: {message} ({code})"),
    }
}

/// The status code of an answer that was one.
pub fn code(error: &Error) -> Option<u16> {
    match error {
        Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// An error with what is behind it, each thing said once.
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

/// Counts what becomes of requests, and knows by that whether the API server answers.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Mutex<Metered>>);

/// See [`Meter`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metered {
    /// Whether the last request was answered; `None` before the first one.
    pub answers: Option<bool>,
    /// Since when, in milliseconds since 1970.
    pub since: Timestamp,
    /// Answers.
    pub answered: u64,
    /// Answers that refuse, but for those that are usual: there is none, it is another one now.
    pub refused: u64,
    /// Requests without an answer.
    pub failed: u64,
    /// Why the last one of those had none; empty while the API server answers.
    pub error: String,
    /// Whether it did not know us, by its last answer.
    pub unknown: bool,
}

impl Meter {
    fn lock(&self) -> MutexGuard<'_, Metered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy.
    pub fn read(&self) -> Metered {
        self.lock().clone()
    }

    /// Waits until the API server has not known us for so long.
    pub async fn is_unknown(&self, long: Duration) {
        let mut since: Option<Instant> = None;
        loop {
            sleep(LOOK).await;
            match self.lock().unknown {
                true => since.get_or_insert_with(Instant::now),
                false => {
                    since = None;
                    continue;
                }
            };
            if since.is_some_and(|since| since.elapsed() >= long) {
                return;
            }
        }
    }

    fn count(&self, answer: Result<u16, String>) {
        let mut metered = self.lock();
        let answers = answer.is_ok();
        match answer {
            Ok(code) => {
                metered.answered += 1;
                let usual = code < 400 || matches!(code, 404 | 409 | 410);
                metered.refused += u64::from(!usual);
                metered.error.clear();
                metered.unknown = code == 401;
            }
            Err(error) => {
                metered.failed += 1;
                metered.error = error;
            }
        }
        if metered.answers != Some(answers) {
            metered.answers = Some(answers);
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            metered.since = Timestamp(0).after(since.unwrap_or_default());
        }
    }
}

impl<S> Layer<S> for Meter {
    type Service = Measured<S>;

    fn layer(&self, inner: S) -> Measured<S> {
        Measured {
            inner,
            meter: self.clone(),
        }
    }
}

/// A service whose requests are counted.
pub struct Measured<S> {
    inner: S,
    meter: Meter,
}

impl<S, B> Service<Request<Body>> for Measured<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (meter, answer) = (self.meter.clone(), self.inner.call(request));
        Box::pin(async move {
            let answer = answer.await.map_err(Into::into);
            meter.count(match &answer {
                Ok(response) => Ok(response.status().as_u16()),
                Err(error) => Err(chain(error.as_ref())),
            });
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn errors_say_what_to_do() {
        let api = |code: u16, message: &str| {
            Error::Api(Box::new(Status::failure(message, "").with_code(code)))
        };
        let text = explain(&api(403, "services is forbidden"), "watch", "services");
        assert!(text.contains("may not watch services") && text.contains("ClusterRole"));
        let text = explain(&api(404, "page not found"), "list", "dires.lockstep.dev");
        assert!(text.contains("no dires.lockstep.dev") && text.contains("CustomResource"));
        let text = explain(&api(401, ""), "list", "services");
        assert!(text.contains("renew the token"));
        let text = explain(&api(422, "no such field"), "patch", "services/status");
        assert_eq!(text, "cannot patch services/status: no such field (422)");
    }

    #[test]
    fn whether_the_api_server_answers_follows_from_the_last_request() {
        let meter = Meter::default();
        assert_eq!(meter.read().answers, None);
        meter.count(Ok(200));
        meter.count(Ok(404));
        meter.count(Ok(403));
        meter.count(Err("refused".to_owned()));
        let metered = meter.read();
        assert_eq!(
            (metered.answers, metered.error.as_str()),
            (Some(false), "refused")
        );
        assert_eq!(
            (metered.answered, metered.refused, metered.failed),
            (3, 1, 1)
        );
        meter.count(Ok(200));
        assert_eq!(
            (meter.read().answers, meter.read().error.as_str()),
            (Some(true), "")
        );
    }
}
