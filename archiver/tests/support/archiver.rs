//! The archiver under test, served in this process.

use super::{
    ingest::IngestServer,
    s3::{BUCKET, KEY_ID, S3Server, SECRET},
    session,
};
use aircheck_archiver::Config;
use aircheck_core::spool::Manifest;
use aircheck_proto::{
    Fault,
    archiver::{
        AdvanceRecordingRequest, FinalizeRequest, FinalizeResponse, GetRecordingRequest,
        ListRecordingsRequest, Recording, RepairOutcome, RepairRecordingRequest,
        archiver_service_client::ArchiverServiceClient,
    },
};
use aircheck_runtime::{health::Health, shutdown::Shutdown};
use clap::Parser;
use std::time::Duration;
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tonic::transport::Channel;

/// Beyond this a test has hung.
const HANG: Duration = Duration::from_secs(240);

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    config: Config,
}

/// One archiver process, so to speak.
#[derive(Debug)]
pub struct Archiver {
    pub client: ArchiverServiceClient<Channel>,
    pub health: Health,
    shutdown: Shutdown,
    task: JoinHandle<()>,
}

impl Archiver {
    /// Starts it and waits until it is ready.
    pub async fn start(database_url: &str, s3: &S3Server) -> Self {
        Self::start_with(database_url, s3, &[]).await
    }

    /// [`Self::start`], with further flags.
    pub async fn start_with(database_url: &str, s3: &S3Server, flags: &[&str]) -> Self {
        let archiver = Self::serve(config_with(database_url, s3, flags)).await;
        let mut phases = archiver.health.watch();
        let ready = phases.wait_for(|_| archiver.health.is_ready());
        timeout(HANG, ready)
            .await
            .expect("ready in time")
            .expect("a phase");
        archiver
    }

    pub async fn start_unready(database_url: &str, s3: &S3Server) -> Self {
        Self::serve(config_with(database_url, s3, &[])).await
    }

    async fn serve(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (shutdown, health) = (Shutdown::new(), Health::new());
        let serve = aircheck_archiver::serve(config, listener, shutdown.clone(), health.clone());
        let task = tokio::spawn(async move { serve.await.expect("serve") });
        let channel = aircheck_runtime::grpc::channel(&url).expect("an address");
        Self {
            client: ArchiverServiceClient::new(channel),
            health,
            shutdown,
            task,
        }
    }

    /// Tells of a live session and answers how much of each take is uploaded.
    pub async fn advance(&self, manifest: &Manifest, ingest: &IngestServer) -> Vec<u64> {
        let manifest = Some(session::message(manifest, &ingest.url));
        let mut client = self.client.clone();
        let answer = client.advance_recording(AdvanceRecordingRequest { manifest });
        let answer = timeout(HANG, answer).await.expect("advance hangs");
        answer.expect("an answer").into_inner().archived
    }

    /// Everything that the list of recordings holds.
    pub async fn recordings(&self) -> Vec<Recording> {
        let mut client = self.client.clone();
        let request = ListRecordingsRequest {
            limit: 200,
            ..ListRecordingsRequest::default()
        };
        let answer = client.list_recordings(request).await.expect("a list");
        answer.into_inner().items
    }

    /// One recording.
    pub async fn recording(&self, id: &str) -> Recording {
        let mut client = self.client.clone();
        let found = client.get_recording(GetRecordingRequest { id: id.to_owned() });
        let found = found.await.expect("an answer").into_inner();
        found.recording.expect("a recording")
    }

    /// The recording, once none of its renditions is due any more.
    pub async fn rendered(&self, id: &str) -> Recording {
        let settle = async {
            loop {
                let recording = self.recording(id).await;
                if recording.renditions.iter().all(|r| r.status != "due") {
                    return recording;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(HANG, settle).await.expect("they are made")
    }

    /// Asks to finalize and collects all responses.
    pub async fn responses(
        &self,
        manifest: &Manifest,
        ingest: &IngestServer,
    ) -> Result<Vec<FinalizeResponse>, Fault> {
        let manifest = Some(session::message(manifest, &ingest.url));
        let mut client = self.client.clone();
        let all = async {
            let answer = client.finalize(FinalizeRequest { manifest }).await;
            let mut stream = answer.map_err(|s| Fault::from_status(&s))?.into_inner();
            let mut responses = Vec::new();
            while let Some(response) = stream.message().await.map_err(|s| Fault::from_status(&s))? {
                responses.push(response);
            }
            Ok(responses)
        };
        timeout(HANG, all).await.expect("finalize hangs")
    }

    /// Asks to finalize until there is a recording.
    pub async fn finalize(
        &self,
        manifest: &Manifest,
        ingest: &IngestServer,
    ) -> Result<Recording, Fault> {
        let last = self.responses(manifest, ingest).await?.pop();
        Ok(last
            .expect("a response")
            .recording
            .expect("the last one has the recording"))
    }

    /// Asks once to repair a recording, and what came of it.
    pub async fn repair(&self, id: &str) -> Result<(RepairOutcome, Recording), Fault> {
        let mut client = self.client.clone();
        let answer = client.repair_recording(RepairRecordingRequest { id: id.to_owned() });
        let answer = timeout(HANG, answer).await.expect("repair hangs");
        let answer = answer.map_err(|s| Fault::from_status(&s))?.into_inner();
        let outcome = answer.outcome();
        Ok((outcome, answer.recording.expect("a recording")))
    }

    /// Shuts it down and waits for its end.
    pub async fn stop(mut self) {
        self.shutdown.trigger();
        let task = &mut self.task;
        timeout(HANG, task)
            .await
            .expect("it drains in time")
            .expect("it drains");
    }
}

/// What every archiver of a test is told.
pub fn config_with(database_url: &str, s3: &S3Server, flags: &[&str]) -> Config {
    let usual = [
        "archiver",
        "--database-url",
        database_url,
        "--s3-endpoint",
        &s3.endpoint,
        "--s3-bucket",
        BUCKET,
        "--s3-access-key-id",
        KEY_ID,
        "--s3-secret-access-key",
        SECRET,
        "--claim-lease",
        "3s",
    ];
    let config = Cli::try_parse_from(usual.iter().chain(flags));
    config.expect("valid flags").config
}

impl Drop for Archiver {
    fn drop(&mut self) {
        // As a crash: nothing is released or tidied up.
        self.task.abort();
    }
}
