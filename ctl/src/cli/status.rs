//! `lockstep status`: the engine and the daemon, each also when the other is gone.

use super::drain::{Entry as Drain, drains_table};
use super::output::Out;
use super::{Answer, Failure, Global, ask, bgp, group, health, kubernetes, layer2, units};
use crate::transport::Peer;
use lockstep_api::{
    BgpRequest, DaemonStatusReply, DaemonStatusRequest, GroupRequest, HealthRequest,
    KubernetesRequest, Layer2Request, StatusRequest,
};
use serde::Serialize;

mod back;
mod engine;
mod spread;

use engine::Engine;

/// The answer as JSON. What cannot be reached is null, with the reason beside it.
#[derive(Debug, Serialize)]
struct Report {
    engine: Option<Engine>,
    engine_error: Option<String>,
    daemon: Option<Daemon>,
    daemon_error: Option<String>,
}

/// The daemon as JSON.
#[derive(Debug, Serialize)]
struct Daemon {
    version: String,
    uptime_seconds: f64,
    services_file: String,
    /// Why the file is not in force; null when it is.
    file_error: Option<String>,
    config_file: String,
    /// Why the configuration is not in force; null when it is.
    config_error: Option<String>,
    /// Whether the whole balancer is drained.
    drained: bool,
    engine_connected: bool,
    /// Why the engine does not have what it should; null when it has.
    engine_error: Option<String>,
    /// Why metrics are not served where they should be; null when they are.
    metrics_error: Option<String>,
    epoch: u64,
    drains: Vec<Drain>,
    /// The backends that are down, a sentence each.
    down: Vec<String>,
    /// What stands in the way of announcing VIPs, of the group, of random numbers and of the
    /// cluster's Services, likewise.
    hindered: Vec<String>,
}

impl Daemon {
    fn new(reply: DaemonStatusReply, down: Vec<String>, hindered: Vec<String>) -> Self {
        let some = |text: String| Some(text).filter(|t| !t.is_empty());
        Daemon {
            version: reply.version,
            uptime_seconds: reply.uptime_seconds,
            services_file: reply.services_file,
            file_error: some(reply.file_error),
            config_file: reply.config_file,
            config_error: some(reply.config_error),
            drained: reply.drained,
            engine_connected: reply.engine_connected,
            engine_error: some(reply.engine_error),
            metrics_error: some(reply.metrics_error),
            epoch: reply.epoch,
            drains: reply.drains.into_iter().map(Drain::new).collect(),
            down,
            hindered,
        }
    }

    fn line(&self) -> String {
        let (version, file) = (&self.version, &self.services_file);
        let up = units::time(self.uptime_seconds);
        let state = match (&self.file_error, &self.engine_error, self.engine_connected) {
            (None, None, true) => "in force",
            (None, _, false) => "waits for the engine",
            (Some(_), _, _) | (None, Some(_), true) => "NOT in force",
        };
        format!("lockstepd        running  version {version}, up {up}, {file} {state}\n")
    }

    fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        if let Some(error) = &self.file_error {
            troubles.push("the services file is not in force:".to_owned());
            troubles.extend(error.lines().map(|line| format!("  {line}")));
        }
        if let Some(error) = &self.config_error {
            troubles.push(format!("{} is not in force:", self.config_file));
            troubles.extend(error.lines().map(|line| format!("  {line}")));
        }
        if self.drained {
            troubles.push(
                "the balancer is drained, its VIPs are not announced; `lockstep undrain --balancer` ends it"
                    .to_owned(),
            );
        }
        if let Some(error) = &self.engine_error {
            troubles.push(format!("the engine does not have what it should: {error}"));
        }
        troubles.extend(self.metrics_error.clone());
        troubles.extend(self.down.iter().chain(&self.hindered).cloned());
        troubles
    }
}

impl Report {
    fn text(&self) -> String {
        let mut text = String::new();
        match (&self.engine, &self.engine_error) {
            (Some(engine), _) => text.push_str(&engine.line()),
            (None, error) => text.push_str(&missing(Peer::Engine, error.as_deref())),
        }
        match (&self.daemon, &self.daemon_error) {
            (Some(daemon), _) => text.push_str(&daemon.line()),
            (None, error) => text.push_str(&missing(Peer::Daemon, error.as_deref())),
        }
        let drains = self
            .daemon
            .as_ref()
            .map_or(String::new(), |d| drains_table(&d.drains));
        let parts = self.engine.as_ref().map_or(Vec::new(), Engine::tables);
        for part in parts
            .into_iter()
            .chain([drains])
            .filter(|part| !part.is_empty())
        {
            text.push('\n');
            text.push_str(&part);
        }
        let troubles = self.troubles();
        if !troubles.is_empty() {
            text.push_str(&format!(
                "\nNeeds attention:\n  {}\n",
                troubles.join("\n  ")
            ));
        }
        text
    }

    fn troubles(&self) -> Vec<String> {
        let engine = self.engine.iter().flat_map(Engine::troubles);
        engine
            .chain(self.daemon.iter().flat_map(Daemon::troubles))
            .chain(self.others())
            .collect()
    }

    /// An engine that was told something after the daemon told it has another master. One that
    /// was started again has an earlier epoch, until the daemon finds it.
    fn others(&self) -> Option<String> {
        let (engine, daemon) = (self.engine.as_ref()?, self.daemon.as_ref()?);
        let (has, sent) = (engine.epoch(), daemon.epoch);
        // One that failed to tell it says so itself.
        let knows = daemon.engine_connected && daemon.engine_error.is_none() && sent > 0;
        (knows && has > sent).then(|| {
            format!(
                "the engine has epoch {has}, and lockstepd sent or found {sent} last: something \
                 else tells the engine what to do; stop other daemons on its socket"
            )
        })
    }

    fn answer(&self) -> Answer {
        match (&self.engine, &self.daemon) {
            (None, _) | (_, None) => Answer::Partly,
            (Some(_), Some(_)) if self.troubles().is_empty() => Answer::Yes,
            (Some(_), Some(_)) => Answer::No,
        }
    }
}

fn missing(peer: Peer, error: Option<&str>) -> String {
    format!(
        "{:<16} DOWN     {}\n",
        peer.program(),
        error.unwrap_or("no answer")
    )
}

/// How long a daemon may take to hear that the engine has what it was told.
const HEARS: std::time::Duration = std::time::Duration::from_millis(500);

/// Shows everything that answers.
pub async fn run(global: &Global, out: &mut Out) -> Result<Answer, Failure> {
    let engine = async {
        let mut engine = ask::engine(global).await?;
        ask::present(Peer::Engine, engine.status(StatusRequest {}))
            .await
            .map(Engine::new)
    };
    let ask_daemon = async || {
        let mut daemon = ask::daemon(global).await?;
        let call = daemon.daemon_status(DaemonStatusRequest {});
        let reply = ask::present(Peer::Daemon, call).await?;
        let spreads = reply.spreads.clone();
        let health = ask::present(Peer::Daemon, daemon.health(HealthRequest {})).await?;
        let down = health::troubles(&health);
        let routers = ask::present(Peer::Daemon, daemon.bgp(BgpRequest {})).await?;
        let link = ask::present(Peer::Daemon, daemon.layer2(Layer2Request {})).await?;
        let others = ask::present(Peer::Daemon, daemon.group(GroupRequest {})).await?;
        let cluster = daemon.kubernetes(KubernetesRequest {});
        let cluster = ask::present(Peer::Daemon, cluster).await?;
        let hindered = [
            bgp::troubles(&routers),
            layer2::troubles(&link),
            group::troubles(others),
            kubernetes::troubles(&cluster),
        ];
        let daemon = Daemon::new(reply, down, hindered.concat());
        Ok((daemon, spreads, health.backends))
    };
    // The daemon after the engine: what it tells the engine in between is no other's.
    let (engine, mut daemon) = (engine.await, ask_daemon().await);
    // And what the engine has already, the daemon may still be about to hear.
    if let (Ok(engine), Ok((told, ..))) = (&engine, &daemon)
        && engine.epoch() > told.epoch
    {
        tokio::time::sleep(HEARS).await;
        daemon = ask_daemon().await;
    }
    let (mut engine, engine_error) = split(engine);
    let (daemon, daemon_error) = split(daemon);
    if let (Some(engine), Some((_, spreads, checked))) = (&mut engine, &daemon) {
        engine.add_left_out(checked);
        engine.tell(spreads);
    }
    let daemon = daemon.map(|(daemon, ..)| daemon);
    let report = Report {
        engine,
        engine_error,
        daemon,
        daemon_error,
    };
    out.answer(&report, || report.text())?;
    Ok(report.answer())
}

fn split<T>(answer: Result<T, Failure>) -> (Option<T>, Option<String>) {
    match answer {
        Ok(answer) => (Some(answer), None),
        Err(failure) => (None, Some(failure.to_string())),
    }
}
