//! The gRPC interface: each call, and how its errors are told.

use super::{Agent, ApplyError, capture, convert, explain, flows, sessions};
use futures::{Stream, StreamExt};
use lockstep_api as api;
use lockstep_api::engine_server::Engine;
use std::pin::Pin;
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

/// The service, over an agent.
pub struct Api(pub Arc<Agent>);

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Engine for Api {
    async fn apply(&self, request: Request<api::Snapshot>) -> Answer<api::ApplyReply> {
        let snapshot = snapshot(request.into_inner())?;
        let (epoch, workers) = self.0.apply_whole(snapshot).await?;
        Ok(Response::new(api::ApplyReply {
            epoch,
            workers: workers as u32,
        }))
    }

    async fn preview(&self, request: Request<api::Snapshot>) -> Answer<api::PreviewReply> {
        let snapshot = snapshot(request.into_inner())?;
        Ok(Response::new(self.0.preview(snapshot).await?))
    }

    async fn current(&self, _: Request<api::CurrentRequest>) -> Answer<api::Snapshot> {
        let state = self.0.state.lock().await;
        Ok(Response::new(convert::snapshot_to_proto(&state.snapshot)))
    }

    async fn status(&self, _: Request<api::StatusRequest>) -> Answer<api::EngineStatus> {
        Ok(Response::new(self.0.status().await))
    }

    type FlowsStream = Answers<api::Flow>;

    async fn flows(&self, request: Request<api::FlowsRequest>) -> Answer<Self::FlowsStream> {
        let filter =
            flows::Filter::parse(&request.into_inner()).map_err(Status::invalid_argument)?;
        let known = self.0.names().await;
        filter.known(&known.tables).map_err(Status::not_found)?;
        let stream = flows::stream(Arc::clone(&self.0), filter);
        Ok(Response::new(stream.boxed()))
    }

    type ExplainStream = Answers<api::Explanation>;

    async fn explain(
        &self,
        request: Request<Streaming<api::ExplainRequest>>,
    ) -> Answer<Self::ExplainStream> {
        let agent = Arc::clone(&self.0);
        let answers = request.into_inner().then(move |request| {
            let agent = Arc::clone(&agent);
            async move {
                explain::one(&agent, request?)
                    .await
                    .map_err(Status::invalid_argument)
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    type SessionsStream = Answers<api::Session>;

    async fn sessions(
        &self,
        request: Request<api::SessionsRequest>,
    ) -> Answer<Self::SessionsStream> {
        let filter =
            sessions::Filter::parse(&request.into_inner()).map_err(Status::invalid_argument)?;
        let known = self.0.names().await;
        filter.known(&known.tables).map_err(Status::not_found)?;
        let stream = sessions::stream(Arc::clone(&self.0), filter);
        Ok(Response::new(stream.boxed()))
    }

    async fn session(&self, request: Request<api::SessionRequest>) -> Answer<api::Session> {
        let id = sessions::parse_id(&request.into_inner().id)?;
        Ok(Response::new(self.0.session(id).await?))
    }

    async fn switchover(
        &self,
        request: Request<api::SwitchoverRequest>,
    ) -> Answer<api::SwitchoverReply> {
        let request = request.into_inner();
        let id = sessions::parse_id(&request.session)?;
        let primary = self.0.switch_over(id, &request.replica).await?;
        Ok(Response::new(api::SwitchoverReply { primary }))
    }

    type EventsStream = Answers<api::SessionEvent>;

    async fn events(&self, request: Request<api::EventsRequest>) -> Answer<Self::EventsStream> {
        let follow = request.into_inner().follow;
        let events = self.0.events.read(follow).map(Ok);
        Ok(Response::new(events.boxed()))
    }

    type CaptureStream = Answers<api::CaptureEvent>;

    async fn capture(&self, request: Request<api::CaptureRequest>) -> Answer<Self::CaptureStream> {
        let wanted =
            capture::Wanted::parse(&request.into_inner()).map_err(Status::invalid_argument)?;
        let stream = capture::stream(Arc::clone(&self.0), wanted).await?;
        Ok(Response::new(stream.map(Ok).boxed()))
    }

    async fn hand_over(
        &self,
        request: Request<api::HandOverRequest>,
    ) -> Answer<api::HandOverReply> {
        if request.into_inner().leave {
            self.0.left.notify_one();
        } else {
            self.0.let_go().await?;
        }
        Ok(Response::new(api::HandOverReply {}))
    }

    async fn metrics(&self, _: Request<api::MetricsRequest>) -> Answer<api::MetricsReply> {
        let status = self.0.status().await;
        Ok(Response::new(api::MetricsReply {
            text: self.0.metrics(&status),
        }))
    }
}

fn snapshot(message: api::Snapshot) -> Result<lockstep_plan::Snapshot, Status> {
    convert::snapshot_from_proto(&message).map_err(|errors| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Status::invalid_argument(errors.join("\n"))
    })
}

impl From<ApplyError> for Status {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Stale { .. } => Status::failed_precondition(error.to_string()),
            ApplyError::Compile(_) => Status::invalid_argument(error.to_string()),
            ApplyError::Equip(_) => Status::resource_exhausted(error.to_string()),
            ApplyError::Steer(_) | ApplyError::Ended => Status::internal(error.to_string()),
        }
    }
}
