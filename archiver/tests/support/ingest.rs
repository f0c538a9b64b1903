//! An ingest that holds spools in memory and can break.

use aircheck_proto::ingest::{
    self as pb, ReadSpoolRequest, ReadSpoolResponse,
    ingest_service_server::{IngestService, IngestServiceServer},
};
use futures::stream::{self, BoxStream, StreamExt as _};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

const MESSAGE_BYTES: usize = 64 << 10;

/// Runs of bytes of one take: offset and bytes.
pub type Runs = Vec<(u64, Vec<u8>)>;

#[derive(Debug, Default)]
struct State {
    spools: HashMap<(String, u32), Runs>,
    /// Each strikes the next stream: it breaks after so many bytes.
    breaks: Vec<u64>,
    /// Streams opened so far, with the offset asked for.
    opened: Vec<u64>,
    /// Connections accepted so far.
    connections: usize,
}

/// The service.
#[derive(Clone, Debug, Default)]
pub struct FakeIngest {
    state: Arc<Mutex<State>>,
    /// Changes with every spool.
    grown: watch::Sender<()>,
}

/// The server. It ends with this value.
#[derive(Debug)]
pub struct IngestServer {
    pub url: String,
    ingest: FakeIngest,
    task: JoinHandle<()>,
}

impl IngestServer {
    pub async fn start() -> Self {
        let ingest = FakeIngest::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let service = IngestServiceServer::new(ingest.clone());
        let state = Arc::clone(&ingest.state);
        let accepted = TcpListenerStream::new(listener).inspect(move |_| {
            state.lock().expect("no panic while locked").connections += 1;
        });
        let task = tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(accepted)
                .await
                .expect("serve");
        });
        Self { url, ingest, task }
    }

    /// Gives it the bytes of one take.
    pub fn spool(&self, session: &str, take: u32, runs: Runs) {
        let mut state = self.ingest.state.lock().expect("no panic while locked");
        state.spools.insert((session.to_owned(), take), runs);
        drop(state);
        self.ingest.grown.send_replace(());
    }

    /// Adds bytes to a take at this offset, which may leave a hole.
    pub fn grow(&self, session: &str, take: u32, at: u64, bytes: &[u8]) {
        let mut state = self.ingest.state.lock().expect("no panic while locked");
        let runs = state.spools.entry((session.to_owned(), take)).or_default();
        runs.push((at, bytes.to_vec()));
        drop(state);
        self.ingest.grown.send_replace(());
    }

    /// Takes all spools away.
    pub fn forget(&self) {
        self.ingest
            .state
            .lock()
            .expect("no panic while locked")
            .spools
            .clear();
    }

    /// Lets the next stream break after so many bytes.
    pub fn break_after(&self, bytes: u64) {
        self.ingest
            .state
            .lock()
            .expect("no panic while locked")
            .breaks
            .push(bytes);
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> usize {
        let state = self.ingest.state.lock().expect("no panic while locked");
        state.connections
    }

    /// Offsets at which streams were opened.
    pub fn opened(&self) -> Vec<u64> {
        self.ingest
            .state
            .lock()
            .expect("no panic while locked")
            .opened
            .clone()
    }
}

impl Drop for IngestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeIngest {
    fn read(&self, request: &ReadSpoolRequest) -> Result<Vec<Message>, Status> {
        let mut state = self.state.lock().expect("no panic while locked");
        state.opened.push(request.offset);
        let strike = (!state.breaks.is_empty()).then(|| state.breaks.remove(0));
        let runs = state.spools.get(&(request.session.clone(), request.take));
        let runs = runs.ok_or_else(|| Status::not_found("no such spool"))?;
        let mut messages = Vec::new();
        let mut sent = 0;
        for (at, bytes) in runs {
            let skip = usize::try_from(request.offset.saturating_sub(*at)).expect("fits");
            let mut offset = at + skip as u64;
            for piece in bytes.get(skip..).unwrap_or_default().chunks(MESSAGE_BYTES) {
                if strike.is_some_and(|limit| sent >= limit) {
                    messages.push(Err(Status::unavailable("scripted break")));
                    return Ok(messages);
                }
                messages.push(Ok(ReadSpoolResponse {
                    offset,
                    data: piece.to_vec().into(),
                }));
                offset += piece.len() as u64;
                sent += piece.len() as u64;
            }
        }
        Ok(messages)
    }
}

type Message = Result<ReadSpoolResponse, Status>;
type Answers<T> = BoxStream<'static, Result<T, Status>>;

fn elsewhere<T>() -> Result<T, Status> {
    Err(Status::unimplemented("only ReadSpool is here"))
}

#[tonic::async_trait]
impl IngestService for FakeIngest {
    type PublishStream = Answers<pb::PublishResponse>;
    type WatchSessionsStream = Answers<pb::WatchSessionsResponse>;
    type ListenStream = Answers<pb::ListenResponse>;
    type ReadSpoolStream = Answers<ReadSpoolResponse>;

    async fn read_spool(
        &self,
        request: Request<ReadSpoolRequest>,
    ) -> Result<Response<Self::ReadSpoolStream>, Status> {
        let request = request.into_inner();
        let grown = self.grown.subscribe();
        let messages = self.read(&request)?;
        if !request.follow {
            return Ok(Response::new(stream::iter(messages).boxed()));
        }
        let offset = request.offset;
        let ingest = self.clone();
        let more = stream::unfold(
            (messages, offset, false),
            move |(mut messages, mut offset, over)| {
                let (ingest, mut request) = (ingest.clone(), request.clone());
                let mut grown = grown.clone();
                async move {
                    if over {
                        return None;
                    }
                    while messages.is_empty() {
                        grown.borrow_and_update();
                        request.offset = offset;
                        messages = ingest.read(&request).ok()?;
                        if messages.is_empty() {
                            grown.changed().await.ok()?;
                        }
                    }
                    let next = messages.remove(0);
                    if let Ok(message) = &next {
                        offset = message.offset + message.data.len() as u64;
                    }
                    let over = next.is_err();
                    Some((next, (messages, offset, over)))
                }
            },
        );
        Ok(Response::new(more.boxed()))
    }

    async fn publish(
        &self,
        _: Request<Streaming<pb::PublishRequest>>,
    ) -> Result<Response<Self::PublishStream>, Status> {
        elsewhere()
    }

    async fn stop_session(
        &self,
        _: Request<pb::StopSessionRequest>,
    ) -> Result<Response<pb::StopSessionResponse>, Status> {
        elsewhere()
    }

    async fn list_sessions(
        &self,
        _: Request<pb::ListSessionsRequest>,
    ) -> Result<Response<pb::ListSessionsResponse>, Status> {
        elsewhere()
    }

    async fn watch_sessions(
        &self,
        _: Request<pb::WatchSessionsRequest>,
    ) -> Result<Response<Self::WatchSessionsStream>, Status> {
        elsewhere()
    }

    async fn add_marker(
        &self,
        _: Request<pb::AddMarkerRequest>,
    ) -> Result<Response<pb::AddMarkerResponse>, Status> {
        elsewhere()
    }

    async fn listen(
        &self,
        _: Request<pb::ListenRequest>,
    ) -> Result<Response<Self::ListenStream>, Status> {
        elsewhere()
    }
}
