//! A running ingest, an archiver that remembers what it was asked, and a broadcaster.

use aircheck_core::spool::Manifest;
use aircheck_ingest::Config;
use aircheck_proto::{
    Fault,
    archiver::{
        AdvanceRecordingRequest, AdvanceRecordingResponse, BeginRecordingRequest,
        BeginRecordingResponse, DeleteRecordingRequest, DeleteRecordingResponse, FinalizeRequest,
        FinalizeResponse, GetRecordingRequest, GetRecordingResponse, GetShowRequest,
        GetShowResponse, ListRecordingsRequest, ListRecordingsResponse, ListShowsRequest,
        ListShowsResponse, PresignRecordingRequest, PresignRecordingResponse, PutShowRequest,
        PutShowResponse, Recording, RecordingStatus, RepairRecordingRequest,
        RepairRecordingResponse,
        archiver_service_server::{ArchiverService, ArchiverServiceServer},
    },
    ingest::{
        Chunk, Dialect, ListSessionsRequest, Open, PublishRequest, PublishResponse, Ready,
        SessionStatus, Stop, Take, ingest_service_client::IngestServiceClient,
        publish_request::Request, publish_response::Response,
    },
};
use aircheck_runtime::{health::Health, shutdown::Shutdown};
use clap::Parser;
use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Status, Streaming, transport::Channel};

pub(crate) const CAPTURE: &[u8] = include_bytes!("../../../core/tests/media/opus250.bin");

/// What a test waits for at most before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    config: Config,
}

#[derive(Debug, Default)]
struct Asked {
    finalized: Vec<Manifest>,
    failures: u32,
}

/// Answers Finalize at once, and remembers.
#[derive(Clone, Debug)]
pub(crate) struct FakeArchiver {
    asked: Arc<Mutex<Asked>>,
    count: watch::Sender<usize>,
    handed: Arc<Mutex<usize>>,
}

impl FakeArchiver {
    fn new() -> Self {
        let (count, handed) = (watch::Sender::new(0), Arc::default());
        Self {
            asked: Arc::default(),
            count,
            handed,
        }
    }

    /// The next `n` calls of Finalize break.
    pub(crate) fn fail_next(&self, n: u32) {
        self.asked.lock().expect("lock").failures = n;
    }

    pub(crate) fn finalized(&self) -> Vec<Manifest> {
        self.asked.lock().expect("lock").finalized.clone()
    }

    /// The next manifest that was finalized and not asked for yet.
    pub(crate) async fn next_finalized(&self) -> Manifest {
        let next = *self.handed.lock().expect("lock");
        let mut count = self.count.subscribe();
        patient(count.wait_for(|count| *count > next))
            .await
            .expect("the archiver lives");
        *self.handed.lock().expect("lock") += 1;
        self.finalized()[next].clone()
    }
}

async fn patient<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}

#[tonic::async_trait]
impl ArchiverService for FakeArchiver {
    type FinalizeStream = ReceiverStream<Result<FinalizeResponse, Status>>;

    async fn finalize(
        &self,
        request: tonic::Request<FinalizeRequest>,
    ) -> Result<tonic::Response<Self::FinalizeStream>, Status> {
        let manifest = request.into_inner().manifest.expect("a manifest");
        let manifest = Manifest::from_json(manifest.json.as_bytes()).expect("valid");
        let recording = {
            let mut asked = self.asked.lock().expect("lock");
            if asked.failures > 0 {
                asked.failures -= 1;
                return Err(Status::unavailable("scripted"));
            }
            let id = manifest.session.to_string();
            asked.finalized.push(manifest);
            self.count.send_replace(asked.finalized.len());
            let status = RecordingStatus::Archived.into();
            Recording {
                id,
                status,
                ..Default::default()
            }
        };
        let (answers, receiver) = mpsc::channel(2);
        let last = FinalizeResponse {
            recording: Some(recording),
            ..Default::default()
        };
        answers
            .send(Ok(FinalizeResponse::default()))
            .await
            .expect("room");
        answers.send(Ok(last)).await.expect("room");
        Ok(tonic::Response::new(ReceiverStream::new(receiver)))
    }

    async fn begin_recording(
        &self,
        _: tonic::Request<BeginRecordingRequest>,
    ) -> Result<tonic::Response<BeginRecordingResponse>, Status> {
        Ok(tonic::Response::new(BeginRecordingResponse::default()))
    }

    async fn advance_recording(
        &self,
        _: tonic::Request<AdvanceRecordingRequest>,
    ) -> Result<tonic::Response<AdvanceRecordingResponse>, Status> {
        Ok(tonic::Response::new(AdvanceRecordingResponse::default()))
    }

    async fn get_recording(
        &self,
        _: tonic::Request<GetRecordingRequest>,
    ) -> Result<tonic::Response<GetRecordingResponse>, Status> {
        Err(Status::not_found("none"))
    }

    async fn list_recordings(
        &self,
        _: tonic::Request<ListRecordingsRequest>,
    ) -> Result<tonic::Response<ListRecordingsResponse>, Status> {
        Err(Status::unimplemented("not asked by the ingest"))
    }

    async fn delete_recording(
        &self,
        _: tonic::Request<DeleteRecordingRequest>,
    ) -> Result<tonic::Response<DeleteRecordingResponse>, Status> {
        Err(Status::unimplemented("not asked by the ingest"))
    }

    async fn presign_recording(
        &self,
        _: tonic::Request<PresignRecordingRequest>,
    ) -> Result<tonic::Response<PresignRecordingResponse>, Status> {
        Err(Status::unimplemented("not asked by the ingest"))
    }

    async fn repair_recording(
        &self,
        _: tonic::Request<RepairRecordingRequest>,
    ) -> Result<tonic::Response<RepairRecordingResponse>, Status> {
        Err(Status::unimplemented("not asked by the ingest"))
    }

    async fn get_show(
        &self,
        _: tonic::Request<GetShowRequest>,
    ) -> Result<tonic::Response<GetShowResponse>, Status> {
        Err(Status::unimplemented("not asked by the ingest"))
    }

    async fn list_shows(
        &self,
        _: tonic::Request<ListShowsRequest>,
    ) -> Result<tonic::Response<ListShowsResponse>, Status> {
        Err(Status::unimplemented("not asked by the ingest"))
    }

    async fn put_show(
        &self,
        _: tonic::Request<PutShowRequest>,
    ) -> Result<tonic::Response<PutShowResponse>, Status> {
        Err(Status::unimplemented("not asked by the ingest"))
    }
}

/// A running ingest with three sessions at most.
pub(crate) struct Ingest {
    pub(crate) archiver: FakeArchiver,
    url: String,
    spool: TempDir,
    shutdown: Shutdown,
    serving: JoinHandle<()>,
}

impl Ingest {
    pub(crate) async fn start() -> Self {
        Self::with_grace("30s").await
    }

    pub(crate) async fn with_grace(grace: &str) -> Self {
        Self::on(tempfile::tempdir().expect("tempdir"), grace).await
    }

    pub(crate) async fn on(spool: TempDir, grace: &str) -> Self {
        Self::with_flags(spool, &["--grace", grace]).await
    }

    pub(crate) async fn with_flags(spool: TempDir, flags: &[&str]) -> Self {
        let archiver = FakeArchiver::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let archiver_url = format!("http://{}", listener.local_addr().expect("address"));
        let service = ArchiverServiceServer::new(archiver.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let config = config(spool.path(), &url, &archiver_url, flags);
        let (shutdown, health) = (Shutdown::new(), Health::new());
        let mut phases = health.watch();
        let serving = aircheck_ingest::serve(config, listener, shutdown.clone(), health);
        let serving = tokio::spawn(async { serving.await.expect("served") });
        let ready = aircheck_runtime::health::Phase::Ready;
        patient(phases.wait_for(|phase| *phase == ready))
            .await
            .expect("ready");
        Self {
            archiver,
            url,
            spool,
            shutdown,
            serving,
        }
    }

    /// Drains it and gives back its spool.
    pub(crate) async fn stop(self) -> TempDir {
        self.shutdown.trigger();
        patient(self.serving).await.expect("drained");
        self.spool
    }

    pub(crate) fn client(&self) -> IngestServiceClient<Channel> {
        let channel = aircheck_runtime::grpc::channel(&self.url).expect("url");
        IngestServiceClient::new(channel)
    }

    pub(crate) async fn status(&self, show: &str) -> SessionStatus {
        let request = ListSessionsRequest {
            show_id: Some(show.to_owned()),
            rehearsals: false,
        };
        let listed = self
            .client()
            .list_sessions(request)
            .await
            .expect("list")
            .into_inner();
        listed.sessions.into_iter().next().expect("a session")
    }

    /// Asks until the status is as wanted.
    pub(crate) async fn until(&self, show: &str, wanted: impl Fn(&SessionStatus) -> bool) {
        let asked = async {
            while !wanted(&self.status(show).await) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        patient(asked).await;
    }

    /// Waits until no segment is left.
    pub(crate) async fn spool_empties(&self) {
        let journal = self.spool.path().join("journal");
        let emptied = async {
            while std::fs::read_dir(&journal).expect("list").count() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        patient(emptied).await;
    }
}

fn config(spool: &Path, url: &str, archiver: &str, flags: &[&str]) -> Config {
    let spool = spool.to_str().expect("utf-8");
    let usual = [
        "ingest",
        "--spool-dir",
        spool,
        "--advertise",
        url,
        "--archiver",
        archiver,
        "--sessions-max",
        "3",
        "--segment-size",
        "1MiB",
    ];
    Flags::parse_from(usual.iter().chain(flags)).config
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Broadcaster {
    requests: mpsc::Sender<PublishRequest>,
    responses: Streaming<PublishResponse>,
}

impl Broadcaster {
    pub(crate) async fn connect(
        ingest: &Ingest,
        show: &str,
        user: &str,
        take: &str,
        first: u64,
    ) -> Result<Self, Fault> {
        let open = resumable(show, user, take, first);
        Self::start(ingest, open).await
    }

    pub(crate) async fn force(
        ingest: &Ingest,
        show: &str,
        user: &str,
        take: &str,
    ) -> Result<Self, Fault> {
        let open = Open {
            force: true,
            ..resumable(show, user, take, 0)
        };
        Self::start(ingest, open).await
    }

    pub(crate) async fn rehearse(ingest: &Ingest, show: &str, take: &str) -> Result<Self, Fault> {
        let open = Open {
            rehearsal: true,
            ..resumable(show, "ann", take, 0)
        };
        Self::start(ingest, open).await
    }

    pub(crate) async fn naming(
        ingest: &Ingest,
        show: &str,
        user: &str,
        take: &str,
        first: u64,
        session: &str,
    ) -> Result<Self, Fault> {
        let session = Some(session.to_owned());
        let open = Open {
            session,
            ..resumable(show, user, take, first)
        };
        Self::start(ingest, open).await
    }

    pub(crate) async fn plain(ingest: &Ingest, show: &str) -> Result<Self, Fault> {
        Self::open(ingest, show, Dialect::Plain).await
    }

    pub(crate) async fn open(ingest: &Ingest, show: &str, dialect: Dialect) -> Result<Self, Fault> {
        let (show_id, user) = (show.to_owned(), "ann".to_owned());
        let open = Open {
            show_id,
            user,
            dialect: dialect.into(),
            ..Default::default()
        };
        Self::start(ingest, open).await
    }

    async fn start(ingest: &Ingest, open: Open) -> Result<Self, Fault> {
        let (requests, receiver) = mpsc::channel(16);
        requests
            .send(request(Request::Open(open)))
            .await
            .expect("room");
        let started = ingest.client().publish(ReceiverStream::new(receiver)).await;
        let responses = started
            .map_err(|status| Fault::from_status(&status))?
            .into_inner();
        Ok(Self {
            requests,
            responses,
        })
    }

    pub(crate) async fn send(&self, mut offset: u64, bytes: &[u8]) {
        for data in bytes.chunks(4999) {
            let chunk = Chunk {
                offset,
                data: bytes::Bytes::copy_from_slice(data),
            };
            offset = offset.saturating_add(data.len() as u64);
            if self
                .requests
                .send(request(Request::Chunk(chunk)))
                .await
                .is_err()
            {
                return;
            }
        }
    }

    pub(crate) async fn stop(&self) {
        self.say(Request::Stop(Stop {})).await;
    }

    pub(crate) async fn say(&self, said: Request) {
        self.requests.send(request(said)).await.expect("open");
    }

    async fn next(&mut self) -> Result<Response, Fault> {
        let next = patient(self.responses.message()).await;
        let message = next
            .map_err(|status| Fault::from_status(&status))?
            .expect("more to come");
        Ok(message.response.expect("not empty"))
    }

    pub(crate) async fn next_matching(&mut self, wanted: impl Fn(&Response) -> bool) -> Response {
        loop {
            let response = self.next().await.expect("no fault");
            if wanted(&response) {
                return response;
            }
        }
    }

    pub(crate) async fn ready(&mut self) -> Ready {
        match self
            .next_matching(|response| matches!(response, Response::Ready(_)))
            .await
        {
            Response::Ready(ready) => ready,
            _ => unreachable!("matched"),
        }
    }

    pub(crate) async fn acked(&mut self, end: u64) {
        let acked =
            |response: &Response| matches!(response, Response::Ack(ack) if ack.offset >= end);
        self.next_matching(acked).await;
    }

    pub(crate) async fn end(&mut self) -> Recording {
        match self
            .next_matching(|response| matches!(response, Response::End(_)))
            .await
        {
            Response::End(end) => end.recording.expect("a recording"),
            _ => unreachable!("matched"),
        }
    }

    pub(crate) async fn fault(&mut self) -> Fault {
        loop {
            if let Err(fault) = self.next().await {
                return fault;
            }
        }
    }
}

fn resumable(show: &str, user: &str, take: &str, first: u64) -> Open {
    let mime = "audio/webm;codecs=opus".to_owned();
    Open {
        show_id: show.to_owned(),
        user: user.to_owned(),
        dialect: Dialect::Resumable.into(),
        take: Some(Take {
            id: take.to_owned(),
            mime,
            first,
            next: CAPTURE.len() as u64,
        }),
        ..Default::default()
    }
}

fn request(request: Request) -> PublishRequest {
    PublishRequest {
        request: Some(request),
    }
}
