//! The daemon's own gRPC: each request is a command to the actor, and its answer.

use super::actor::{Command, Event};
use super::exporter::own_page;
use super::parts::Reports;
use super::refusal::Refusal;
use super::view::{View, announcement_to_proto};
use lockstep_api::control_server::Control;
use lockstep_api::{
    AnnouncementsReply, AnnouncementsRequest, ApplyFileReply, ApplyFileRequest, BgpReply,
    BgpRequest, DaemonStatusReply, DaemonStatusRequest, DrainBalancerReply, DrainBalancerRequest,
    DrainReply, DrainRequest, FileKind, GroupReply, GroupRequest, HealthReply, HealthRequest,
    KubernetesReply, KubernetesRequest, Layer2Reply, Layer2Request, MetricsReply, MetricsRequest,
    UndrainRequest,
};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tonic::{Request, Response, Status};

/// The longest text in a status, in bytes: gRPC carries it in an HTTP/2 header, and clients refuse
/// headers over 16 KiB.
const MAX_TEXT: usize = 4_096;

/// How long a command waits for the link to the engine while there is none: it may have come
/// before the daemon's first one, or while the engine restarts.
const LINK: Duration = Duration::from_secs(1);

/// Serves `lockstep.v1.Control`.
#[derive(Debug)]
pub struct ControlService {
    events: mpsc::Sender<Event>,
    view: watch::Receiver<View>,
    reports: Reports,
}

impl ControlService {
    /// Sends commands to the actor at the other end of `events`.
    pub fn new(events: mpsc::Sender<Event>, view: watch::Receiver<View>, reports: Reports) -> Self {
        ControlService {
            events,
            view,
            reports,
        }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> Command,
    ) -> Result<Response<T>, Status> {
        let gone = || Status::unavailable("lockstepd is ending; ask again when it is back");
        let (reply, answer) = oneshot::channel();
        let sent = self.events.send(Event::Command(command(reply))).await;
        sent.map_err(|_| gone())?;
        let answer = answer.await.map_err(|_| gone())?;
        answer
            .map(Response::new)
            .map_err(|refusal| to_status(&refusal))
    }

    /// Waits for a link to the engine, here and not in the actor, which has to hear of it.
    async fn link(&self) {
        let mut view = self.view.clone();
        // Without one in time the actor says who is missing.
        let _ = timeout(LINK, view.wait_for(|view| view.engine_connected)).await;
    }
}

fn to_status(refusal: &Refusal) -> Status {
    let mut text = refusal.to_string();
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.push_str(" ...");
    }
    match refusal {
        Refusal::Request(_) => Status::invalid_argument(text),
        Refusal::NoEngine(_) | Refusal::Silent(_) => Status::unavailable(text),
        Refusal::Engine(_) | Refusal::Impossible(_) => Status::failed_precondition(text),
        Refusal::Store(_) => Status::internal(text),
    }
}

#[tonic::async_trait]
impl Control for ControlService {
    async fn apply_file(
        &self,
        request: Request<ApplyFileRequest>,
    ) -> Result<Response<ApplyFileReply>, Status> {
        let request = request.into_inner();
        if request.kind() == FileKind::Services {
            self.link().await;
        }
        self.ask(|reply| Command::ApplyFile(request, reply)).await
    }

    async fn daemon_status(
        &self,
        _: Request<DaemonStatusRequest>,
    ) -> Result<Response<DaemonStatusReply>, Status> {
        let mut reply = self.view.borrow().to_proto();
        reply
            .metrics_error
            .clone_from(&self.reports.metrics_error.borrow());
        Ok(Response::new(reply))
    }

    async fn metrics(&self, _: Request<MetricsRequest>) -> Result<Response<MetricsReply>, Status> {
        let view = self.view.borrow().clone();
        let text = own_page(&view, &self.reports, view.engine_connected);
        Ok(Response::new(MetricsReply { text }))
    }

    async fn drain(&self, request: Request<DrainRequest>) -> Result<Response<DrainReply>, Status> {
        let request = request.into_inner();
        let seconds = request.deadline_seconds;
        let deadline = match Duration::try_from_secs_f64(seconds) {
            Ok(Duration::ZERO) => None,
            Ok(deadline) => Some(deadline),
            Err(_) => {
                let text = format!("a deadline of {seconds} s cannot be; it is 0 or more");
                return Err(Status::invalid_argument(text));
            }
        };
        self.link().await;
        self.ask(|reply| Command::Drain(request, deadline, reply))
            .await
    }

    async fn undrain(
        &self,
        request: Request<UndrainRequest>,
    ) -> Result<Response<DrainReply>, Status> {
        let request = request.into_inner();
        self.link().await;
        self.ask(|reply| Command::Undrain(request, reply)).await
    }

    async fn drain_balancer(
        &self,
        request: Request<DrainBalancerRequest>,
    ) -> Result<Response<DrainBalancerReply>, Status> {
        let drain = request.into_inner().drain;
        self.ask(|reply| Command::DrainBalancer(drain, reply)).await
    }

    async fn announcements(
        &self,
        _: Request<AnnouncementsRequest>,
    ) -> Result<Response<AnnouncementsReply>, Status> {
        let announced = &self.view.borrow().announcements;
        Ok(Response::new(AnnouncementsReply {
            announcements: announced.iter().map(announcement_to_proto).collect(),
        }))
    }

    async fn health(&self, _: Request<HealthRequest>) -> Result<Response<HealthReply>, Status> {
        Ok(Response::new(self.reports.health.borrow().clone()))
    }

    async fn bgp(&self, _: Request<BgpRequest>) -> Result<Response<BgpReply>, Status> {
        Ok(Response::new(self.reports.bgp.borrow().clone()))
    }

    async fn layer2(&self, _: Request<Layer2Request>) -> Result<Response<Layer2Reply>, Status> {
        Ok(Response::new(self.reports.layer2.borrow().clone()))
    }

    async fn group(&self, _: Request<GroupRequest>) -> Result<Response<GroupReply>, Status> {
        Ok(Response::new(self.reports.group.borrow().clone()))
    }

    async fn kubernetes(
        &self,
        _: Request<KubernetesRequest>,
    ) -> Result<Response<KubernetesReply>, Status> {
        Ok(Response::new(self.reports.kubernetes.borrow().clone()))
    }
}
