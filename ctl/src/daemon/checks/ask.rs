//! One question to one backend, and what came of it.

use super::icmp::Pings;
use super::socket::Way;
use super::tls::Configs;
use super::tunnel::{End, Tunnels};
use super::{grpc, http, icmp, script, tcp, udp};
use lockstep_ctl_core::checks::{Outcome, Probe, Subject, Via};
use lockstep_ctl_core::config::Config;
use lockstep_ctl_core::drains::Target;
use lockstep_topology::duration;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// What questions are asked with; shared by all of them.
#[derive(Debug)]
pub struct Asker {
    pub(super) scripts: Option<PathBuf>,
    pub(super) pings: Arc<Pings>,
    pub(super) tls: Arc<Configs>,
    tunnels: Arc<Tunnels>,
}

/// Why a check did not pass.
#[derive(Debug)]
pub enum Trouble {
    /// It is the backend's.
    Backend(String),
    /// It is ours: the backend was not asked.
    Here(String),
}

/// Whom a question is for, and by when it has to be answered.
#[derive(Debug)]
pub struct Question<'a> {
    pub target: &'a Target,
    pub subject: &'a Subject,
    /// The address and port that are asked.
    pub to: SocketAddr,
    pub way: Way,
    pub deadline: Instant,
}

impl Asker {
    /// By this configuration.
    pub fn new(config: &Config) -> Self {
        Asker {
            scripts: config.health.scripts.clone(),
            pings: Arc::default(),
            tls: Arc::default(),
            tunnels: Arc::default(),
        }
    }

    /// The same under another configuration.
    pub fn under(&self, config: &Config) -> Self {
        Asker {
            scripts: config.health.scripts.clone(),
            pings: Arc::clone(&self.pings),
            tls: Arc::clone(&self.tls),
            tunnels: Arc::clone(&self.tunnels),
        }
    }

    /// Asks, and waits for the answer; for no longer than the timeout.
    pub async fn ask(&self, target: &Target, subject: &Subject) -> Outcome {
        let begun = Instant::now();
        match self.answer(target, subject).await {
            Ok(took) => Outcome::Passed(took.unwrap_or_else(|| begun.elapsed())),
            Err(Trouble::Backend(why)) => Outcome::Failed(why),
            Err(Trouble::Here(why)) => Outcome::Unasked(why),
        }
    }

    /// How long the answer took, where that is not the time that asking took.
    async fn answer(
        &self,
        target: &Target,
        subject: &Subject,
    ) -> Result<Option<Duration>, Trouble> {
        let (address, way) = match subject.check.via {
            Via::Address => (target.backend.0, Way::Direct),
            Via::Tunnel => {
                let end = End {
                    backend: target.backend.0,
                    encapsulation: subject.encapsulation,
                };
                let tunnel = self.tunnels.get().await?;
                (subject.vip.address(), Way::Tunnel(tunnel, end))
            }
        };
        let question = Question {
            target,
            subject,
            to: SocketAddr::new(address, subject.asked_port()),
            way,
            deadline: Instant::now() + subject.pace.timeout,
        };
        match &subject.check.probe {
            Probe::Tcp(exchange) => tcp::ask(&question, exchange).await.map(|()| None),
            Probe::Udp(exchange) => udp::ask(&question, exchange).await.map(|()| None),
            Probe::Http(http) => http::ask(&question, http, &self.tls).await.map(|()| None),
            Probe::Grpc { service, tls } => {
                let tls = tls.as_ref().map(|tls| (tls, &*self.tls));
                grpc::ask(&question, service, tls).await.map(|()| None)
            }
            Probe::Icmp => icmp::ask(&question, &self.pings).await.map(Some),
            Probe::Script { command } => script::ask(&question, command, self).await.map(Some),
        }
    }
}

impl Question<'_> {
    /// Waits for a step of the check; `missing` is what there was not in time.
    pub async fn within<T>(
        &self,
        missing: &str,
        step: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Trouble> {
        match timeout_at(self.deadline, step).await {
            Ok(answer) => answer,
            Err(_) => {
                let limit = duration::format(self.subject.pace.timeout);
                Err(Trouble::Backend(format!("{missing} within {limit}")))
            }
        }
    }
}

impl Trouble {
    /// An error of a socket: most are the backend's, some say that this host lacks something.
    pub fn of_socket(doing: &str, error: &io::Error) -> Self {
        let text = || format!("{doing}: {error}");
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Trouble::Backend("connection refused".to_owned()),
            io::ErrorKind::ConnectionReset => Trouble::Backend(format!("{doing}: reset")),
            // A packet filter of this host, all ports in use, no address of the IP version.
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::AddrInUse
            | io::ErrorKind::OutOfMemory => Trouble::Here(text()),
            _ => match error.raw_os_error().map(nix::errno::Errno::from_raw) {
                Some(
                    nix::errno::Errno::EMFILE
                    | nix::errno::Errno::ENFILE
                    | nix::errno::Errno::ENOBUFS
                    | nix::errno::Errno::EAFNOSUPPORT,
                ) => Trouble::Here(text()),
                _ => Trouble::Backend(text()),
            },
        }
    }
}
