//! An ingest whose broadcasts are played by the test, message by message.

use super::soon;
use aircheck_proto::{
    Fault,
    ingest::{
        ingest_service_server::{IngestService, IngestServiceServer},
        publish_request::Request as Publish,
        publish_response::Response as Answer,
        *,
    },
};
use bytes::Bytes;
use std::{
    pin::Pin,
    sync::{Arc, Mutex},
};
use tokio::{
    net::TcpListener,
    runtime::Builder,
    sync::{mpsc, oneshot},
};
use tokio_stream::{
    Stream, StreamExt as _,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{Request, Response, Status, Streaming};

/// What the fake answers to unary calls, and what it was asked.
#[derive(Default)]
pub struct Script {
    pub sessions: Vec<SessionStatus>,
    pub stop: StopSessionResponse,
    pub stopped: Vec<String>,
    pub marker: Option<Fault>,
    pub markers: Vec<AddMarkerRequest>,
    /// Content type and messages of the live branch.
    pub live: Option<(String, Vec<Bytes>)>,
    /// Whether the live branch goes on after these.
    pub is_endless: bool,
}

#[derive(Clone)]
pub struct FakeIngest {
    pub script: Arc<Mutex<Script>>,
    broadcasts: mpsc::UnboundedSender<Broadcast>,
    life: Arc<Mutex<Option<oneshot::Sender<()>>>>,
}

impl FakeIngest {
    pub fn script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().expect("script"));
    }

    /// Ends the server and every connection of it.
    pub fn die(&self) {
        drop(self.life.lock().expect("life").take());
    }
}

/// Broadcasters that reached the ingest.
pub struct Broadcasts(mpsc::UnboundedReceiver<Broadcast>);

impl Broadcasts {
    pub async fn next(&mut self) -> Broadcast {
        soon(self.0.recv()).await.expect("a broadcast")
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One Publish stream, seen from the ingest.
pub struct Broadcast {
    pub open: Open,
    requests: Streaming<PublishRequest>,
    answers: mpsc::Sender<Result<PublishResponse, Status>>,
}

impl Broadcast {
    pub async fn answer(&self, answer: Answer) {
        let answer = PublishResponse {
            response: Some(answer),
        };
        soon(self.answers.send(Ok(answer)))
            .await
            .expect("the gateway listens");
    }

    pub async fn ready(&self, offset: u64) {
        let take = self.open.take.clone().unwrap_or_default().id;
        self.answer(Answer::Ready(ready(&self.open.show_id, &take, offset)))
            .await;
    }

    pub async fn refuse(self, fault: Fault) {
        soon(self.answers.send(Err(fault.into())))
            .await
            .expect("the gateway listens");
    }

    /// What the client asked next; `None` when its stream ended or was reset.
    pub async fn next(&mut self) -> Option<Publish> {
        let message = soon(self.requests.message()).await;
        message.ok().flatten().and_then(|message| message.request)
    }

    /// As `next`, but tells an orderly end from a reset.
    pub async fn ended_in_order(&mut self) -> bool {
        matches!(soon(self.requests.message()).await, Ok(None))
    }

    pub async fn chunk(&mut self) -> Chunk {
        match self.next().await {
            Some(Publish::Chunk(chunk)) => chunk,
            other => panic!("expected a chunk, not {other:?}"),
        }
    }
}

pub fn ready(show: &str, take: &str, offset: u64) -> Ready {
    Ready {
        session: "01JSESSION".into(),
        epoch: 1,
        show_id: show.into(),
        take: take.into(),
        offset,
        grace_ms: 30_000,
        max_frame: 1 << 20,
        ..Default::default()
    }
}

pub fn session(show: &str, state: SessionState) -> SessionStatus {
    SessionStatus {
        session: "01JSESSION".into(),
        show_id: show.into(),
        epoch: 2,
        user: "anonymous".into(),
        state: state.into(),
        received: 30,
        durable: 20,
        archived: 10,
        listeners: 3,
        started_at_unix_ms: 1_795_464_900_000,
        ..Default::default()
    }
}

/// Serves on a runtime of its own, so that dying takes every connection along.
pub async fn start() -> (FakeIngest, Broadcasts, String) {
    let (broadcasts, seen) = mpsc::unbounded_channel();
    let (life, death) = oneshot::channel::<()>();
    let fake = FakeIngest {
        script: Arc::default(),
        broadcasts,
        life: Arc::new(Mutex::new(Some(life))),
    };
    let service = IngestServiceServer::new(fake.clone());
    let (bound, address) = oneshot::channel();
    std::thread::spawn(move || {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
            bound
                .send(listener.local_addr().expect("address"))
                .expect("the test waits");
            let serving = aircheck_runtime::grpc::server()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener));
            tokio::select! {
                served = serving => served.expect("serve"),
                _ = death => {}
            }
        });
    });
    let url = format!("http://{}", soon(address).await.expect("bound"));
    (fake, Broadcasts(seen), url)
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl IngestService for FakeIngest {
    type PublishStream = ReceiverStream<Result<PublishResponse, Status>>;
    type WatchSessionsStream = Answers<WatchSessionsResponse>;
    type ListenStream = Answers<ListenResponse>;
    type ReadSpoolStream = Answers<ReadSpoolResponse>;

    async fn publish(
        &self,
        request: Request<Streaming<PublishRequest>>,
    ) -> Result<Response<Self::PublishStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests
            .message()
            .await?
            .and_then(|message| message.request);
        let Some(Publish::Open(open)) = first else {
            return Err(Status::invalid_argument("open comes first"));
        };
        let (answers, stream) = mpsc::channel(4);
        let broadcast = Broadcast {
            open,
            requests,
            answers,
        };
        self.broadcasts
            .send(broadcast)
            .map_err(|_| Status::aborted("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn stop_session(
        &self,
        request: Request<StopSessionRequest>,
    ) -> Result<Response<StopSessionResponse>, Status> {
        let mut script = self.script.lock().expect("script");
        script.stopped.push(request.into_inner().show_id);
        Ok(Response::new(script.stop.clone()))
    }

    async fn list_sessions(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        let show = request.into_inner().show_id;
        let mut sessions = self.script.lock().expect("script").sessions.clone();
        sessions.retain(|session| show.as_ref().is_none_or(|show| *show == session.show_id));
        Ok(Response::new(ListSessionsResponse { sessions }))
    }

    async fn watch_sessions(
        &self,
        _: Request<WatchSessionsRequest>,
    ) -> Result<Response<Self::WatchSessionsStream>, Status> {
        Err(Status::unimplemented("not in this scene"))
    }

    async fn add_marker(
        &self,
        request: Request<AddMarkerRequest>,
    ) -> Result<Response<AddMarkerResponse>, Status> {
        let mut script = self.script.lock().expect("script");
        script.markers.push(request.into_inner());
        match script.marker.clone() {
            Some(fault) => Err(fault.into()),
            None => Ok(Response::new(AddMarkerResponse { at_ms: 1234 })),
        }
    }

    async fn listen(
        &self,
        _: Request<ListenRequest>,
    ) -> Result<Response<Self::ListenStream>, Status> {
        let live = self.script.lock().expect("script").live.clone();
        let Some((content_type, data)) = live else {
            let code = aircheck_core::code::Code::NotLive;
            return Err(Fault::new(code, "The show is not live.").into());
        };
        let mut kind = Some(content_type);
        let messages: Vec<_> = data
            .into_iter()
            .map(|data| {
                Ok(ListenResponse {
                    data,
                    content_type: kind.take().unwrap_or_default(),
                })
            })
            .collect();
        let messages = tokio_stream::iter(messages);
        if self.script.lock().expect("script").is_endless {
            return Ok(Response::new(Box::pin(
                messages.chain(tokio_stream::pending()),
            )));
        }
        Ok(Response::new(Box::pin(messages)))
    }

    async fn read_spool(
        &self,
        _: Request<ReadSpoolRequest>,
    ) -> Result<Response<Self::ReadSpoolStream>, Status> {
        Err(Status::unimplemented("not in this scene"))
    }
}
