//! The gRPC face of the archiver.
//!
//! Owns checking what callers send and answering them; must never write SQL or talk to S3 itself
//! beyond deleting and presigning what a row names.

mod cursor;
mod ingests;
mod repair;
mod updates;

use crate::{
    convert,
    db::{Db, Page, RecordingRow},
    finalize::{Jobs, MANIFEST_TYPE},
    keys::{self, Folder, Label},
    removal::{self, RemovalError},
    store::ObjectStore,
};
use aircheck_core::{
    code::Code,
    id::{Seat, ShowId},
    recording::Status as RecordingStatus,
    rendition::Status as RenditionStatus,
    spool::{GapPolicy, Stage},
    wire::{GRACE_MAX_S, TITLE_MAX},
};
use aircheck_proto::{
    Fault,
    archiver::{self as pb, archiver_service_server::ArchiverService},
};
use aircheck_runtime::failpoint::Failpoint;
use futures::stream::BoxStream;
pub(crate) use ingests::Ingests;
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use tonic::{Request, Response, Status};

const PAGE_DEFAULT: u32 = 50;
const PAGE_MAX: u32 = 200;

/// What there is once the database answers.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) db: Db,
    pub(crate) jobs: Jobs,
}

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) ready: Arc<OnceLock<Ready>>,
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) ingests: Ingests,
    pub(crate) prefix: String,
    pub(crate) presign_ttl: Duration,
}

impl Service {
    fn ready(&self) -> Result<&Ready, Fault> {
        let away = || Fault::retry(Code::Unavailable, "the database can't be reached yet", 1000);
        self.ready.get().ok_or_else(away)
    }

    /// A recording that exists and was not deleted.
    async fn existing(&self, id: &str) -> Result<RecordingRow, Fault> {
        let row = self.ready()?.db.recording(id).await?;
        row.filter(|row| row.deleted_at.is_none())
            .ok_or_else(|| Fault::new(Code::NotFound, "there is no such recording"))
    }

    /// A recording that has come to its end.
    async fn ended(&self, id: &str) -> Result<RecordingRow, Fault> {
        let row = self.existing(id).await?;
        if is_final(&row) {
            return Ok(row);
        }
        Err(Fault::new(
            Code::NotEnded,
            "the recording has not ended yet",
        ))
    }

    async fn delete(&self, id: &str) -> Result<(), Fault> {
        let row = self.ended(id).await?;
        match removal::remove(&self.ready()?.db, &*self.store, &row).await {
            Ok(()) => Ok(()),
            Err(RemovalError::Store(error)) => Err(error.into()),
            Err(RemovalError::Db(error)) => Err(error.into()),
        }
    }

    /// `name`: what follows the last slash of a key, or `manifest.json`; `None`: the archive.
    async fn presign(&self, id: &str, name: Option<&str>) -> Result<String, Fault> {
        let row = self.existing(id).await?;
        let nothing = || Fault::new(Code::NoArchive, "the recording has no such object");
        let (Ok(show), Ok(session)) = (row.show_id.parse::<ShowId>(), row.id.parse()) else {
            return Err(nothing());
        };
        if !is_final(&row) {
            return Err(nothing());
        }
        let seat = Seat {
            show,
            rehearsal: row.rehearsal,
        };
        let folder = Folder::new(&self.prefix, &seat, &row.version, session);
        let (key, disposition, content_type) = if name == Some(keys::MANIFEST) {
            let key = row.manifest_key.as_deref().ok_or_else(nothing)?;
            (key, folder.manifest_disposition(), MANIFEST_TYPE)
        } else {
            let wanted = name.or_else(|| row.object_key.as_deref().map(keys::name));
            let (key, label, content_type) = named(&row, wanted).ok_or_else(nothing)?;
            let disposition = folder.disposition(label, keys::extension(key));
            (key, disposition, content_type)
        };
        Ok(self
            .store
            .presign(key, &disposition, content_type, self.presign_ttl)
            .await?)
    }

    async fn list(
        &self,
        request: pb::ListRecordingsRequest,
    ) -> Result<pb::ListRecordingsResponse, Fault> {
        let status = request.status();
        let limit = match request.limit {
            0 => PAGE_DEFAULT,
            limit if limit <= PAGE_MAX => limit,
            _ => return Err(Fault::new(Code::BadMessage, "limit is 1 to 200")),
        };
        let page = Page {
            show_id: request.show_id.as_deref().map(show_id).transpose()?,
            status: status.to_core(),
            rehearsals: request.rehearsals,
            after: request.after.as_deref().map(cursor::read).transpose()?,
            // One more than asked for tells whether there is another page.
            limit: u64::from(limit) + 1,
        };
        let mut rows = self.ready()?.db.recordings(&page).await?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next = rows.last().filter(|_| more).map(cursor::write);
        Ok(pb::ListRecordingsResponse {
            items: rows.into_iter().map(convert::recording).collect(),
            next,
        })
    }

    async fn put_show(&self, show: pb::Show) -> Result<pb::Show, Fault> {
        let bad = |message: &str| Err(Fault::new(Code::BadMessage, message));
        let id = show_id(&show.id)?;
        if show.title.chars().count() > TITLE_MAX || show.title.contains('\0') {
            return bad(&format!("title is at most {TITLE_MAX} characters"));
        }
        if show.grace_s.is_some_and(|grace| grace > GRACE_MAX_S) {
            return bad("grace_s is 0 to 1800");
        }
        let policy = match show.gap_policy.as_str() {
            "" => GapPolicy::default(),
            name => match GapPolicy::parse(name) {
                Some(policy) => policy,
                None => return bad("gap_policy is silence or close"),
            },
        };
        let title = if show.title.is_empty() {
            id.as_str()
        } else {
            &show.title
        };
        let row = self
            .ready()?
            .db
            .put_show(id.as_str(), title, show.grace_s, policy)
            .await?;
        Ok(convert::show(row))
    }

    /// The row of a session that is live, and for each take the offset below which everything is
    /// uploaded.
    async fn advance(
        &self,
        message: Option<&pb::SessionManifest>,
    ) -> Result<(pb::Recording, Vec<u64>), Fault> {
        let manifest = convert::manifest(message)?;
        let Ready { db, jobs } = self.ready()?;
        let row = db.advance(&manifest).await?;
        Failpoint::RowBegun.pass();
        let url = message.map_or("", |message| &message.ingest_url);
        let is_live = row.status == RecordingStatus::Recording.as_str();
        let archived = match self.ingests.at(url) {
            Ok(ingest) if is_live && row.deleted_at.is_none() => {
                jobs.advance(manifest, url, ingest)
            }
            Ok(_) | Err(_) => vec![0; manifest.takes.len()],
        };
        Ok((convert::recording(row), archived))
    }
}

#[tonic::async_trait]
impl ArchiverService for Service {
    async fn begin_recording(
        &self,
        request: Request<pb::BeginRecordingRequest>,
    ) -> Result<Response<pb::BeginRecordingResponse>, Status> {
        let (recording, _) = self.advance(request.into_inner().manifest.as_ref()).await?;
        Ok(Response::new(pb::BeginRecordingResponse {
            recording: Some(recording),
        }))
    }

    async fn advance_recording(
        &self,
        request: Request<pb::AdvanceRecordingRequest>,
    ) -> Result<Response<pb::AdvanceRecordingResponse>, Status> {
        let (_, archived) = self.advance(request.into_inner().manifest.as_ref()).await?;
        Ok(Response::new(pb::AdvanceRecordingResponse { archived }))
    }

    type FinalizeStream = BoxStream<'static, Result<pb::FinalizeResponse, Status>>;

    async fn finalize(
        &self,
        request: Request<pb::FinalizeRequest>,
    ) -> Result<Response<Self::FinalizeStream>, Status> {
        let message = request.into_inner().manifest;
        let manifest = convert::manifest(message.as_ref())?;
        if !matches!(manifest.stage, Stage::Sealed { .. } | Stage::Done { .. }) {
            return Err(Fault::new(Code::NotEnded, "the session has not been sealed").into());
        }
        let url = message
            .map(|message| message.ingest_url)
            .unwrap_or_default();
        let ingest = self.ingests.at(&url)?;
        let states = self.ready()?.jobs.join(manifest, ingest)?;
        Ok(Response::new(updates::of(states)))
    }

    async fn get_recording(
        &self,
        request: Request<pb::GetRecordingRequest>,
    ) -> Result<Response<pb::GetRecordingResponse>, Status> {
        let row = self.existing(&request.into_inner().id).await?;
        let recording = Some(convert::recording(row));
        Ok(Response::new(pb::GetRecordingResponse { recording }))
    }

    async fn list_recordings(
        &self,
        request: Request<pb::ListRecordingsRequest>,
    ) -> Result<Response<pb::ListRecordingsResponse>, Status> {
        Ok(Response::new(self.list(request.into_inner()).await?))
    }

    async fn delete_recording(
        &self,
        request: Request<pb::DeleteRecordingRequest>,
    ) -> Result<Response<pb::DeleteRecordingResponse>, Status> {
        self.delete(&request.into_inner().id).await?;
        Ok(Response::new(pb::DeleteRecordingResponse {}))
    }

    async fn repair_recording(
        &self,
        request: Request<pb::RepairRecordingRequest>,
    ) -> Result<Response<pb::RepairRecordingResponse>, Status> {
        let row = self.ended(&request.into_inner().id).await?;
        Ok(Response::new(repair::run(self.ready()?, row).await?))
    }

    async fn presign_recording(
        &self,
        request: Request<pb::PresignRecordingRequest>,
    ) -> Result<Response<pb::PresignRecordingResponse>, Status> {
        let pb::PresignRecordingRequest { id, object } = request.into_inner();
        let url = self.presign(&id, object.as_deref()).await?;
        let expires_in_s = self.presign_ttl.as_secs();
        Ok(Response::new(pb::PresignRecordingResponse {
            url,
            expires_in_s,
        }))
    }

    async fn get_show(
        &self,
        request: Request<pb::GetShowRequest>,
    ) -> Result<Response<pb::GetShowResponse>, Status> {
        let row = self
            .ready()?
            .db
            .show(&request.into_inner().id)
            .await
            .map_err(Fault::from)?;
        let row = row.ok_or_else(|| Fault::new(Code::NotFound, "there is no such show"))?;
        Ok(Response::new(pb::GetShowResponse {
            show: Some(convert::show(row)),
        }))
    }

    async fn list_shows(
        &self,
        _: Request<pb::ListShowsRequest>,
    ) -> Result<Response<pb::ListShowsResponse>, Status> {
        let rows = self.ready()?.db.shows().await.map_err(Fault::from)?;
        let shows = rows.into_iter().map(convert::show).collect();
        Ok(Response::new(pb::ListShowsResponse { shows }))
    }

    async fn put_show(
        &self,
        request: Request<pb::PutShowRequest>,
    ) -> Result<Response<pb::PutShowResponse>, Status> {
        let show = request.into_inner().show;
        let show = show.ok_or_else(|| Fault::new(Code::BadMessage, "the show is missing"))?;
        let show = Some(Self::put_show(self, show).await?);
        Ok(Response::new(pb::PutShowResponse { show }))
    }
}

/// Key, label and Content-Type of the media object or rendition of this name.
fn named<'a>(row: &'a RecordingRow, name: Option<&str>) -> Option<(&'a str, Label, &'a str)> {
    let is_it = |key: &str| Some(keys::name(key)) == name;
    let mut objects = row.objects.0.iter().enumerate();
    if let Some((index, object)) = objects.find(|(_, object)| is_it(&object.key)) {
        let label = Label::of(index, object.take);
        return Some((&object.key, label, &object.content_type));
    }
    let mut renditions = row.renditions.iter().flat_map(|all| &all.0);
    let made = renditions.find(|made| made.status == RenditionStatus::Done && is_it(&made.key))?;
    let label = row.objects.label(&made.source)?;
    Some((&made.key, label, made.format.content_type()))
}

fn is_final(row: &RecordingRow) -> bool {
    RecordingStatus::parse(&row.status).is_some_and(RecordingStatus::is_final)
}

fn show_id(text: &str) -> Result<ShowId, Fault> {
    text.parse()
        .map_err(|error| Fault::new(Code::BadShowId, format!("{error}")))
}
