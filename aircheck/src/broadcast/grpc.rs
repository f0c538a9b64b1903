//! Broadcasting to an ingest over gRPC, as internal clients do.
//!
//! Owns how words become messages of the contract; must never hold bytes of a show longer than it
//! takes to send them.

use super::{
    line::{
        CONNECT_TIMEOUT, Credentials, Heard, Hello, IN, Line, Loss, OUT, Reach, Ready, Say,
        Settled, TargetError,
    },
    route::Route,
};
use aircheck_core::wire::{Previous, Take};
use aircheck_proto::{
    Fault,
    ingest::{
        self, ListSessionsRequest, PublishRequest, PublishResponse, SessionState,
        ingest_service_client::IngestServiceClient, publish_request::Request,
        publish_response::Response,
    },
};
use futures::{StreamExt as _, stream};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint, Uri},
};

/// Longest wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// An ingest and who we are to it.
#[derive(Debug)]
pub(crate) struct Dialer {
    endpoint: Endpoint,
    route: Route,
    show: String,
    user: String,
}

impl Dialer {
    pub(super) fn new(
        target: &str,
        credentials: Credentials,
        reach: &Reach,
    ) -> Result<Self, TargetError> {
        let malformed = |_| TargetError::Malformed(target.to_owned());
        let endpoint = Endpoint::from_shared(target.to_owned()).map_err(malformed)?;
        let route = Route::new(endpoint.uri(), &reach.trust, "h2")?;
        let endpoint = endpoint
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        Ok(Self {
            endpoint,
            route,
            show: credentials.show,
            user: credentials.user,
        })
    }

    async fn connect(&self, cut: CancellationToken) -> Result<IngestServiceClient<Channel>, Loss> {
        let route = self.route.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let (route, cut) = (route.clone(), cut.clone());
            async move { route.open(cut).await.map(TokioIo::new) }
        });
        let connecting = timeout(
            CONNECT_TIMEOUT,
            self.endpoint.connect_with_connector(connector),
        );
        let channel = connecting
            .await
            .map_err(|_| Loss::retry("no connection in time"))?;
        channel
            .map(IngestServiceClient::new)
            .map_err(|error| Loss::retry(root(&error)))
    }

    pub(super) async fn dial(&self, hello: Hello) -> Result<Line, Loss> {
        let cut = CancellationToken::new();
        let mut client = self.connect(cut.clone()).await?;
        let open = ingest::Open {
            show_id: self.show.clone(),
            user: self.user.clone(),
            force: hello.force,
            rehearsal: hello.rehearse,
            dialect: ingest::Dialect::Resumable.into(),
            session: hello.session,
            take: Some(take(hello.take)),
            ..ingest::Open::default()
        };
        let (say, queue) = mpsc::channel(OUT);
        let first = stream::once(async { request(Request::Open(open)) });
        let requests = first.chain(ReceiverStream::new(queue).map(said));
        let answer = timeout(ANSWER_TIMEOUT, client.publish(requests)).await;
        let answers = answer
            .map_err(|_| Loss::retry("no answer in time"))?
            .map_err(lost)?;
        let (ear, heard) = mpsc::channel(IN);
        let pump = AbortOnDropHandle::new(tokio::spawn(async move {
            // The connection lives as long as its client.
            let _client = client;
            pump(answers.into_inner(), &ear).await;
        }));
        Ok(Line {
            say,
            heard,
            cut,
            pump,
        })
    }

    /// Asks the ingest.
    pub(super) async fn settle(&self, session: &str) -> Result<Settled, Loss> {
        let mut client = self.connect(CancellationToken::new()).await?;
        let request = ListSessionsRequest {
            show_id: Some(self.show.clone()),
            rehearsals: true,
        };
        let answer = timeout(ANSWER_TIMEOUT, client.list_sessions(request)).await;
        let answer = answer
            .map_err(|_| Loss::retry("no answer in time"))?
            .map_err(lost)?;
        let sessions = answer.into_inner().sessions;
        let state = sessions
            .iter()
            .find(|known| known.session == session)
            .map(|known| known.state());
        Ok(match state {
            Some(SessionState::Live | SessionState::Grace) => Settled::Live,
            Some(SessionState::Finalizing | SessionState::Unspecified) => Settled::Pending,
            Some(SessionState::Failed) => Settled::Known("failed"),
            // An ingest lets go of what is archived.
            Some(SessionState::Archived) | None => Settled::Known("archived"),
        })
    }
}

fn request(request: Request) -> PublishRequest {
    PublishRequest {
        request: Some(request),
    }
}

fn said(say: Say) -> PublishRequest {
    request(match say {
        Say::Take(next) => Request::Take(take(next)),
        Say::Chunk { offset, data } => Request::Chunk(ingest::Chunk { offset, data }),
        Say::Stop => Request::Stop(ingest::Stop {}),
    })
}

fn take(take: Take) -> ingest::Take {
    ingest::Take {
        id: take.id,
        mime: take.mime,
        first: take.first,
        next: take.next,
    }
}

async fn pump(mut answers: Streaming<PublishResponse>, ear: &mpsc::Sender<Result<Heard, Loss>>) {
    loop {
        let heard = match answers.message().await {
            Ok(Some(PublishResponse { response: None })) => continue,
            Ok(Some(PublishResponse {
                response: Some(response),
            })) => Ok(heard(response)),
            Ok(None) => Err(Loss::retry("closed without a word")),
            Err(status) => Err(lost(status)),
        };
        let ended = heard.is_err();
        if ear.send(heard).await.is_err() || ended {
            return;
        }
    }
}

fn heard(response: Response) -> Heard {
    match response {
        Response::Ready(ready) => Heard::Ready(Ready {
            session: ready.session,
            take: ready.take,
            offset: ready.offset,
            max_frame: usize::try_from(ready.max_frame).unwrap_or(usize::MAX),
            previous: ready.previous.map(|p| Previous {
                session: p.session,
                status: p.status,
            }),
        }),
        Response::Ack(ack) => Heard::Ack {
            take: ack.take,
            durable: ack.offset,
            archived: ack.archived,
        },
        Response::State(state) => Heard::State {
            error: state.recording_error,
        },
        Response::Progress(progress) => Heard::Finalizing {
            archived: progress.archived,
        },
        Response::End(end) => Heard::End(Box::new(end.recording.unwrap_or_default().into())),
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is what `map_err` hands over"
)]
fn lost(status: Status) -> Loss {
    match status.code() {
        // What a torn connection looks like from here.
        tonic::Code::Unknown | tonic::Code::Cancelled => Loss::retry(root(&status)),
        _ => Fault::from_status(&status).into(),
    }
}

/// The first cause says what happened; what lies above repeats that something did.
fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aircheck_core::code::Code;

    #[test]
    fn words_keep_their_offsets() {
        let chunk = Say::Chunk {
            offset: 7,
            data: bytes::Bytes::from_static(b"x"),
        };
        let expected = ingest::Chunk {
            offset: 7,
            data: bytes::Bytes::from_static(b"x"),
        };
        assert_eq!(said(chunk).request, Some(Request::Chunk(expected)));
        let ack = ingest::Ack {
            take: "t".into(),
            offset: 5,
            archived: 2,
        };
        let heard = heard(Response::Ack(ack));
        assert!(matches!(
            heard,
            Heard::Ack {
                durable: 5,
                archived: 2,
                ..
            }
        ));
    }

    #[test]
    fn a_torn_connection_is_retried_and_a_refusal_is_not() {
        assert!(matches!(
            lost(Status::unknown("h2 protocol error")),
            Loss::Retry { .. }
        ));
        assert!(matches!(
            lost(Status::unavailable("refused")),
            Loss::Retry { .. }
        ));
        let conflict = Status::from(Fault::new(Code::Conflict, "why"));
        assert!(matches!(lost(conflict), Loss::Refused(fault) if fault.code == Code::Conflict));
    }
}
