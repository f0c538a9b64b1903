//! An archiver with scripted rows.

use aircheck_core::code::Code;
use aircheck_proto::{
    Fault,
    archiver::{
        archiver_service_server::{ArchiverService, ArchiverServiceServer},
        *,
    },
};
use serde_json::Value;
use std::{
    pin::Pin,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::{Stream, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status};

/// Rows, and what the fake was asked.
#[derive(Default)]
pub struct Rows {
    pub recordings: Vec<Recording>,
    pub shows: Vec<Show>,
    pub next: Option<String>,
    pub listed: Vec<ListRecordingsRequest>,
    pub deleted: Vec<String>,
    /// Answered to delete and presign.
    pub refusal: Option<Fault>,
    /// Answered to repair.
    pub repair: RepairOutcome,
    /// Never answers about a show.
    pub is_slow: bool,
}

#[derive(Clone, Default)]
pub struct FakeArchiver {
    rows: Arc<Mutex<Rows>>,
    /// Manifests of the sessions that ended.
    pub finalized: watch::Sender<Vec<Value>>,
}

impl FakeArchiver {
    pub fn rows<T>(&self, change: impl FnOnce(&mut Rows) -> T) -> T {
        change(&mut self.rows.lock().expect("rows"))
    }

    fn refusal(&self) -> Result<(), Status> {
        self.rows(|rows| rows.refusal.clone())
            .map_or(Ok(()), |fault| Err(fault.into()))
    }
}

pub fn recording(id: &str, show: &str, status: RecordingStatus) -> Recording {
    Recording {
        id: id.into(),
        show_id: show.into(),
        version: "2026-11-23T20-15-00Z".into(),
        status: status.into(),
        started_at_unix_ms: 1_795_464_900_000,
        mime: "audio/webm".into(),
        bytes: 77,
        ..Default::default()
    }
}

pub async fn start() -> (FakeArchiver, String) {
    let fake = FakeArchiver::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    let service = ArchiverServiceServer::new(fake.clone());
    let serving = aircheck_runtime::grpc::server()
        .add_service(service)
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(async move { serving.await.expect("serve") });
    (fake, url)
}

fn missing() -> Status {
    Fault::new(Code::NotFound, "There is no such thing.").into()
}

#[tonic::async_trait]
impl ArchiverService for FakeArchiver {
    type FinalizeStream = Pin<Box<dyn Stream<Item = Result<FinalizeResponse, Status>> + Send>>;

    async fn begin_recording(
        &self,
        _: Request<BeginRecordingRequest>,
    ) -> Result<Response<BeginRecordingResponse>, Status> {
        Ok(Response::new(BeginRecordingResponse::default()))
    }

    async fn advance_recording(
        &self,
        _: Request<AdvanceRecordingRequest>,
    ) -> Result<Response<AdvanceRecordingResponse>, Status> {
        Ok(Response::new(AdvanceRecordingResponse::default()))
    }

    async fn finalize(
        &self,
        request: Request<FinalizeRequest>,
    ) -> Result<Response<Self::FinalizeStream>, Status> {
        let json = request.into_inner().manifest.unwrap_or_default().json;
        let manifest: Value = serde_json::from_str(&json).expect("a manifest is JSON");
        let id = manifest["session"].as_str().expect("an id");
        let show = manifest["show_id"].as_str().expect("an id");
        let last = FinalizeResponse {
            recording: Some(recording(id, show, RecordingStatus::Archived)),
            ..Default::default()
        };
        self.finalized.send_modify(|all| all.push(manifest));
        Ok(Response::new(Box::pin(tokio_stream::iter([Ok(last)]))))
    }

    async fn get_recording(
        &self,
        request: Request<GetRecordingRequest>,
    ) -> Result<Response<GetRecordingResponse>, Status> {
        let id = request.into_inner().id;
        let found = self.rows(|rows| rows.recordings.iter().find(|r| r.id == id).cloned());
        let recording = Some(found.ok_or_else(missing)?);
        Ok(Response::new(GetRecordingResponse { recording }))
    }

    async fn list_recordings(
        &self,
        request: Request<ListRecordingsRequest>,
    ) -> Result<Response<ListRecordingsResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.rows(|rows| {
            let mut items = rows.recordings.clone();
            items.retain(|r| {
                request
                    .show_id
                    .as_ref()
                    .is_none_or(|show| *show == r.show_id)
            });
            rows.listed.push(request);
            ListRecordingsResponse {
                items,
                next: rows.next.clone(),
            }
        })))
    }

    async fn delete_recording(
        &self,
        request: Request<DeleteRecordingRequest>,
    ) -> Result<Response<DeleteRecordingResponse>, Status> {
        self.refusal()?;
        self.rows(|rows| rows.deleted.push(request.into_inner().id));
        Ok(Response::new(DeleteRecordingResponse {}))
    }

    async fn repair_recording(
        &self,
        request: Request<RepairRecordingRequest>,
    ) -> Result<Response<RepairRecordingResponse>, Status> {
        self.refusal()?;
        let id = request.into_inner().id;
        let found = self.rows(|rows| rows.recordings.iter().find(|r| r.id == id).cloned());
        let outcome = self.rows(|rows| rows.repair).into();
        let recording = Some(found.ok_or_else(missing)?);
        Ok(Response::new(RepairRecordingResponse {
            outcome,
            recording,
        }))
    }

    async fn presign_recording(
        &self,
        request: Request<PresignRecordingRequest>,
    ) -> Result<Response<PresignRecordingResponse>, Status> {
        self.refusal()?;
        let url = format!(
            "https://store.example/{}?signature=abc",
            request.into_inner().id
        );
        Ok(Response::new(PresignRecordingResponse {
            url,
            expires_in_s: 60,
        }))
    }

    async fn get_show(
        &self,
        request: Request<GetShowRequest>,
    ) -> Result<Response<GetShowResponse>, Status> {
        if self.rows(|rows| rows.is_slow) {
            std::future::pending::<()>().await;
        }
        let id = request.into_inner().id;
        let show = self.rows(|rows| rows.shows.iter().find(|show| show.id == id).cloned());
        Ok(Response::new(GetShowResponse {
            show: Some(show.ok_or_else(missing)?),
        }))
    }

    async fn list_shows(
        &self,
        _: Request<ListShowsRequest>,
    ) -> Result<Response<ListShowsResponse>, Status> {
        Ok(Response::new(ListShowsResponse {
            shows: self.rows(|rows| rows.shows.clone()),
        }))
    }

    async fn put_show(
        &self,
        request: Request<PutShowRequest>,
    ) -> Result<Response<PutShowResponse>, Status> {
        let show = request.into_inner().show.unwrap_or_default();
        self.rows(|rows| {
            rows.shows.retain(|known| known.id != show.id);
            rows.shows.push(show.clone());
        });
        Ok(Response::new(PutShowResponse { show: Some(show) }))
    }
}
