//! Calls to the archiver.
//!
//! Owns their deadlines; must never cache, so that a recording is what the database says.

use super::{CALL_DEADLINE, Peer};
use crate::error::Error;
use aircheck_core::recording::Recording;
use aircheck_proto::{
    Fault,
    archiver::{self, archiver_service_client::ArchiverServiceClient},
};
use aircheck_runtime::grpc;
use std::time::Duration;
use tonic::transport::Channel;

/// A recording after stop is nice to have; the stop itself has happened.
const GLANCE_DEADLINE: Duration = Duration::from_secs(1);

/// A cheap handle on the archiver.
#[derive(Clone, Debug)]
pub(crate) struct Archive(ArchiverServiceClient<Channel>);

impl Archive {
    pub(crate) fn new(url: &str) -> Result<Self, Error> {
        Ok(Self(ArchiverServiceClient::new(grpc::channel(url)?)))
    }

    /// The generated client, cloned for one call.
    fn client(&self) -> ArchiverServiceClient<Channel> {
        self.0.clone()
    }

    pub(crate) async fn recording(&self, id: String) -> Result<Recording, Fault> {
        self.recording_within(id, CALL_DEADLINE).await
    }

    async fn recording_within(&self, id: String, deadline: Duration) -> Result<Recording, Fault> {
        let request = archiver::GetRecordingRequest { id };
        let response = Peer::Archiver
            .call(deadline, self.client().get_recording(request))
            .await?;
        response
            .recording
            .map(Into::into)
            .ok_or_else(|| Peer::Archiver.away())
    }

    /// The recording of a session, or `None` if the archiver does not say so quickly.
    pub(crate) async fn glance(&self, session: String) -> Option<Recording> {
        self.recording_within(session, GLANCE_DEADLINE)
            .await
            .inspect_err(|fault| tracing::debug!(%fault, "answer without the recording"))
            .ok()
    }

    /// The newest recording of a show, or `None` if the archiver does not say so quickly.
    pub(crate) async fn latest(&self, show_id: String) -> Option<Recording> {
        let request = archiver::ListRecordingsRequest {
            show_id: Some(show_id),
            limit: 1,
            ..Default::default()
        };
        Peer::Archiver
            .call(GLANCE_DEADLINE, self.client().list_recordings(request))
            .await
            .inspect_err(|fault| tracing::debug!(%fault, "answer without the last recording"))
            .ok()?
            .items
            .into_iter()
            .next()
            .map(Into::into)
    }

    pub(crate) async fn list(
        &self,
        request: archiver::ListRecordingsRequest,
    ) -> Result<archiver::ListRecordingsResponse, Fault> {
        Peer::Archiver
            .call(CALL_DEADLINE, self.client().list_recordings(request))
            .await
    }

    pub(crate) async fn delete(&self, id: String) -> Result<(), Fault> {
        let request = archiver::DeleteRecordingRequest { id };
        Peer::Archiver
            .call(CALL_DEADLINE, self.client().delete_recording(request))
            .await?;
        Ok(())
    }

    pub(crate) async fn repair(
        &self,
        id: String,
    ) -> Result<archiver::RepairRecordingResponse, Fault> {
        let request = archiver::RepairRecordingRequest { id };
        Peer::Archiver
            .call(CALL_DEADLINE, self.client().repair_recording(request))
            .await
    }

    /// `object`: what follows the last slash of its key; `None`: the archive.
    pub(crate) async fn presign(
        &self,
        id: String,
        object: Option<String>,
    ) -> Result<String, Fault> {
        let request = archiver::PresignRecordingRequest { id, object };
        let response = Peer::Archiver
            .call(CALL_DEADLINE, self.client().presign_recording(request))
            .await?;
        Ok(response.url)
    }

    pub(crate) async fn show(
        &self,
        id: String,
        deadline: Duration,
    ) -> Result<Option<archiver::Show>, Fault> {
        let request = archiver::GetShowRequest { id };
        Ok(Peer::Archiver
            .call(deadline, self.client().get_show(request))
            .await?
            .show)
    }

    pub(crate) async fn shows(&self) -> Result<Vec<archiver::Show>, Fault> {
        let request = archiver::ListShowsRequest {};
        Ok(Peer::Archiver
            .call(CALL_DEADLINE, self.client().list_shows(request))
            .await?
            .shows)
    }

    pub(crate) async fn put_show(&self, show: archiver::Show) -> Result<archiver::Show, Fault> {
        let request = archiver::PutShowRequest { show: Some(show) };
        let response = Peer::Archiver
            .call(CALL_DEADLINE, self.client().put_show(request))
            .await?;
        response.show.ok_or_else(|| Peer::Archiver.away())
    }
}
