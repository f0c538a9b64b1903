//! The gRPC face of the ingest.
//!
//! Owns the translation between messages and sessions. Must never decide about a session.

mod publish;
mod spool;

use crate::{
    registry::Registry,
    session::{Command, Handle},
};
use aircheck_core::{
    code::Code,
    id::{Seat, ShowId},
    wire::check_marker,
};
use aircheck_proto::{
    Fault,
    ingest::{
        AddMarkerRequest, AddMarkerResponse, ListSessionsRequest, ListSessionsResponse,
        ListenRequest, ListenResponse, PublishRequest, PublishResponse, ReadSpoolRequest,
        ReadSpoolResponse, SessionStatus, StopSessionRequest, StopSessionResponse,
        WatchSessionsRequest, WatchSessionsResponse, ingest_service_server::IngestService,
    },
};
use aircheck_runtime::{health::Health, shutdown::Shutdown};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, future::join_all};
use std::{pin::Pin, sync::Arc};
use tokio_stream::wrappers::{BroadcastStream, ReceiverStream};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) registry: Arc<Registry>,
    pub(crate) health: Health,
    pub(crate) shutdown: Shutdown,
    pub(crate) connections: TaskTracker,
}

/// Ends an endless answer when the process drains.
fn until_drained<T: Send + 'static>(
    answers: impl Stream<Item = Result<T, Status>> + Send + 'static,
    shutdown: Shutdown,
) -> Answers<T> {
    Box::pin(answers.take_until(async move { shutdown.triggered().await }))
}

fn show_id(text: &str) -> Result<ShowId, Fault> {
    text.parse()
        .map_err(|error: aircheck_core::id::ShowIdError| {
            Fault::new(Code::BadShowId, error.to_string())
        })
}

fn not_live() -> Fault {
    Fault::new(Code::NotLive, "the show is not live")
}

impl Service {
    fn open(&self, show: &str) -> Result<Handle, Fault> {
        self.registry
            .open_session(&show_id(show)?)
            .ok_or_else(not_live)
    }

    /// What the newest session of a show has to say.
    async fn last(&self, show: &ShowId) -> Option<SessionStatus> {
        let on_air = |seat: &Seat| seat.show == *show && !seat.rehearsal;
        let handle = self.registry.handles(on_air).into_iter().next();
        match handle {
            Some(handle) => handle.ask(|reply| Command::Status { reply }).await,
            None => self.registry.last_over(show),
        }
    }

    async fn statuses(&self, show: Option<&ShowId>, rehearsals: bool) -> Vec<SessionStatus> {
        let wanted = |seat: &Seat| {
            show.is_none_or(|show| seat.show == *show) && (rehearsals || !seat.rehearsal)
        };
        let handles = self.registry.handles(wanted);
        let asked = handles
            .iter()
            .map(|handle| handle.ask(|reply| Command::Status { reply }));
        join_all(asked).await.into_iter().flatten().collect()
    }
}

#[tonic::async_trait]
impl IngestService for Service {
    type PublishStream = ReceiverStream<Result<PublishResponse, Status>>;
    type WatchSessionsStream = Answers<WatchSessionsResponse>;
    type ListenStream = Answers<ListenResponse>;
    type ReadSpoolStream = Answers<ReadSpoolResponse>;

    async fn publish(
        &self,
        request: Request<Streaming<PublishRequest>>,
    ) -> Result<Response<Self::PublishStream>, Status> {
        if !self.health.is_ready() {
            let fault = Fault::retry(Code::Draining, "the ingest is not ready", 1000);
            return Err(fault.into());
        }
        Ok(Response::new(
            publish::start(self, request.into_inner()).await?,
        ))
    }

    async fn stop_session(
        &self,
        request: Request<StopSessionRequest>,
    ) -> Result<Response<StopSessionResponse>, Status> {
        let show = show_id(&request.into_inner().show_id)?;
        let stopped = match self.registry.open_session(&show) {
            Some(handle) => handle
                .ask(|reply| Command::Stop { reply })
                .await
                .unwrap_or(false),
            None => false,
        };
        let session = self.last(&show).await;
        Ok(Response::new(StopSessionResponse { stopped, session }))
    }

    async fn list_sessions(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        let request = request.into_inner();
        let show = request.show_id.map(|show| show_id(&show)).transpose()?;
        let sessions = self.statuses(show.as_ref(), request.rehearsals).await;
        Ok(Response::new(ListSessionsResponse { sessions }))
    }

    async fn watch_sessions(
        &self,
        request: Request<WatchSessionsRequest>,
    ) -> Result<Response<Self::WatchSessionsStream>, Status> {
        let show = request
            .into_inner()
            .show_id
            .map(|show| show_id(&show))
            .transpose()?;
        // Subscribed before the present state is read, so that no change falls between.
        let changes = BroadcastStream::new(self.registry.watch());
        let present = futures::stream::iter(self.statuses(show.as_ref(), false).await);
        let changes = changes.filter_map(|change| async move { change.ok() });
        let wanted = move |status: &SessionStatus| {
            let same = |show: &ShowId| status.show_id == show.as_str();
            !status.rehearsal && show.as_ref().is_none_or(same)
        };
        let answers = present
            .chain(changes)
            .filter(move |status| std::future::ready(wanted(status)))
            .map(|session| {
                Ok(WatchSessionsResponse {
                    session: Some(session),
                })
            });
        Ok(Response::new(until_drained(answers, self.shutdown.clone())))
    }

    async fn add_marker(
        &self,
        request: Request<AddMarkerRequest>,
    ) -> Result<Response<AddMarkerResponse>, Status> {
        let request = request.into_inner();
        let marker = request.marker.unwrap_or_default();
        check_marker(&marker.label, &marker.kind)
            .map_err(|error| Fault::new(Code::BadMessage, error.to_string()))?;
        let handle = self.open(&request.show_id)?;
        let (label, kind) = (marker.label, marker.kind);
        let marked = handle
            .ask(|reply| Command::Mark {
                label,
                kind,
                reply: Some(reply),
            })
            .await;
        let at_ms = marked.ok_or_else(not_live)??;
        Ok(Response::new(AddMarkerResponse { at_ms }))
    }

    async fn listen(
        &self,
        request: Request<ListenRequest>,
    ) -> Result<Response<Self::ListenStream>, Status> {
        let show = show_id(&request.into_inner().show_id)?;
        let idle = || Fault::new(Code::NotFound, "the show is not live");
        let handle = self.registry.open_session(&show).ok_or_else(idle)?;
        let listening = handle.ask(|reply| Command::Listen { reply }).await;
        let mut subscription = listening.ok_or_else(idle)??;
        // An empty first message says what comes, so that a listener of a show in grace has an answer.
        let first = ListenResponse {
            data: Bytes::new(),
            content_type: std::mem::take(&mut subscription.content_type),
        };
        let media = subscription.map(|data| ListenResponse {
            data,
            content_type: String::new(),
        });
        let answers = futures::stream::iter([first]).chain(media).map(Ok);
        Ok(Response::new(until_drained(answers, self.shutdown.clone())))
    }

    async fn read_spool(
        &self,
        request: Request<ReadSpoolRequest>,
    ) -> Result<Response<Self::ReadSpoolStream>, Status> {
        let answers = spool::start(&self.registry, &self.connections, &request.into_inner())?;
        Ok(Response::new(until_drained(answers, self.shutdown.clone())))
    }
}
