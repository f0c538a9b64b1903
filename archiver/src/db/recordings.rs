//! Rows of recordings, but for the claims of finalize jobs.
//!
//! Owns how a manifest becomes a row and which statuses a write may find. Statuses never go back:
//! every statement names those it may change.

use super::{
    Db, DbError, Gaps, Markers, Objects, RecordingRow, Renditions, StoredObject, Work, deadline,
    entity::recording::{ActiveModel, Column, Entity},
    signed,
};
use aircheck_core::{
    id::{ShowId, version_at},
    recording::Status,
    spool::{Manifest, Stage},
};
use aircheck_runtime::clock::unix_ms;
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect, UpdateMany,
    sea_query::{Expr, OnConflict},
};

/// Sessions of one show that may begin within one second; more is a fault of whoever asks.
const SUFFIX_MAX: u32 = 1000;

/// Which recordings to list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    pub(crate) show_id: Option<ShowId>,
    pub(crate) status: Option<Status>,
    /// With rehearsals.
    pub(crate) rehearsals: bool,
    /// `started_at` and id of the last recording of the page before.
    pub(crate) after: Option<(i64, String)>,
    pub(crate) limit: u64,
}

/// A final recording whose row is gone.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    pub(crate) version: String,
    pub(crate) status: Status,
    pub(crate) error: Option<String>,
    pub(crate) ended_unix_ms: u64,
    pub(crate) archived_unix_ms: u64,
    /// Proved.
    pub(crate) objects: Vec<StoredObject>,
    pub(crate) manifest_key: String,
    pub(crate) duration_ms: Option<u64>,
    /// Those that are there.
    pub(crate) renditions: Option<Renditions>,
}

impl Db {
    /// The row of a session that is live or was, made if it is not there yet. Whatever is known anew
    /// is written as long as the session has not been sealed.
    pub(crate) async fn advance(&self, manifest: &Manifest) -> Result<RecordingRow, DbError> {
        self.ensure(manifest).await?;
        // Calls overtake one another: one that knows fewer bytes is older.
        let update = as_known(manifest)
            .filter(Column::Status.eq(Status::Recording.as_str()))
            .filter(Column::Bytes.lte(signed(manifest.bytes())));
        deadline(update.exec(&self.connection)).await?;
        self.existing(manifest).await
    }

    /// The row of a sealed session: finalizing from now on, or final already. `None`: there is none.
    pub(crate) async fn seal(&self, manifest: &Manifest) -> Result<Option<RecordingRow>, DbError> {
        let mut update = as_known(manifest)
            .col_expr(Column::Status, Expr::value(Status::Finalizing.as_str()))
            // A live job's claim ends here; a finalize job's does not.
            .col_expr(
                Column::ClaimUntil,
                Expr::case(Column::Status.eq(Status::Recording.as_str()), 0_i64)
                    .finally(Expr::col(Column::ClaimUntil))
                    .into(),
            )
            .filter(
                Column::Status.is_in([Status::Recording.as_str(), Status::Finalizing.as_str()]),
            );
        if let Stage::Sealed {
            reason,
            ended_unix_ms,
        }
        | Stage::Done {
            reason,
            ended_unix_ms,
        } = manifest.stage
        {
            update = update
                .col_expr(Column::EndedAt, Expr::value(signed(ended_unix_ms)))
                .col_expr(Column::EndReason, Expr::value(reason.as_str()));
        }
        let id = manifest.session.to_string();
        loop {
            let sealing = update.clone().exec_with_returning(&self.connection);
            if let Some(row) = deadline(sealing).await?.into_iter().next() {
                return Ok(Some(row));
            }
            match self.recording(&id).await? {
                // A call of the live session made it between the two statements.
                Some(row) if row.status == Status::Recording.as_str() => {}
                found => return Ok(found),
            }
        }
    }

    /// As [`Self::seal`]; the row is made if it is not there.
    pub(crate) async fn seal_new(&self, manifest: &Manifest) -> Result<RecordingRow, DbError> {
        self.ensure(manifest).await?;
        let row = self.seal(manifest).await?;
        row.ok_or_else(|| DbError::NoRow(manifest.session.to_string()))
    }

    /// A recording, deleted ones included.
    pub(crate) async fn recording(&self, id: &str) -> Result<Option<RecordingRow>, DbError> {
        deadline(Entity::find_by_id(id).one(&self.connection)).await
    }

    /// The recording of a show's version, deleted ones included.
    pub(crate) async fn recording_at(
        &self,
        show: &ShowId,
        version: &str,
    ) -> Result<Option<RecordingRow>, DbError> {
        let select = Entity::find()
            .filter(Column::ShowId.eq(show.as_str()))
            .filter(Column::Version.eq(version));
        deadline(select.one(&self.connection)).await
    }

    /// Newest first, without deleted ones.
    pub(crate) async fn recordings(&self, page: &Page) -> Result<Vec<RecordingRow>, DbError> {
        let mut select = Entity::find().filter(Column::DeletedAt.is_null());
        if !page.rehearsals {
            select = select.filter(Column::Rehearsal.eq(false));
        }
        if let Some(show_id) = &page.show_id {
            select = select.filter(Column::ShowId.eq(show_id.as_str()));
        }
        if let Some(status) = page.status {
            select = select.filter(Column::Status.eq(status.as_str()));
        }
        if let Some((started_at, id)) = &page.after {
            let same = Condition::all()
                .add(Column::StartedAt.eq(*started_at))
                .add(Column::Id.lt(id.as_str()));
            select = select.filter(
                Condition::any()
                    .add(Column::StartedAt.lt(*started_at))
                    .add(same),
            );
        }
        let select = select
            .order_by_desc(Column::StartedAt)
            .order_by_desc(Column::Id)
            .limit(page.limit);
        deadline(select.all(&self.connection)).await
    }

    /// Rehearsals that are over since before `ended_before`, in Unix milliseconds, and not deleted yet.
    pub(crate) async fn old_rehearsals(
        &self,
        ended_before: u64,
        limit: u64,
    ) -> Result<Vec<RecordingRow>, DbError> {
        let select = Entity::find()
            .filter(Column::Rehearsal.eq(true))
            .filter(Column::DeletedAt.is_null())
            .filter(Column::Status.is_in([Status::Archived.as_str(), Status::Failed.as_str()]))
            .filter(Column::EndedAt.lt(signed(ended_before)))
            .limit(limit);
        deadline(select.all(&self.connection)).await
    }

    /// Marks a final recording as deleted and forgets what was in it. What remains keeps its version
    /// from being given away and a late finalize from bringing it back.
    pub(crate) async fn bury(&self, id: &str) -> Result<(), DbError> {
        let now = signed(unix_ms());
        let update = Entity::update_many()
            .col_expr(Column::DeletedAt, Expr::value(now))
            .col_expr(Column::UpdatedAt, Expr::value(now))
            .col_expr(Column::Error, Expr::value(None::<String>))
            .col_expr(Column::ObjectKey, Expr::value(None::<String>))
            .col_expr(Column::ManifestKey, Expr::value(None::<String>))
            .col_expr(Column::Crc64nvme, Expr::value(None::<String>))
            .col_expr(Column::Objects, Expr::value(Objects::default()))
            .col_expr(Column::Markers, Expr::value(Markers::default()))
            .col_expr(Column::Manifest, Expr::value(serde_json::Value::Null))
            .col_expr(Column::Work, Expr::value(None::<Work>))
            .col_expr(Column::Sheet, Expr::value(None::<serde_json::Value>))
            .col_expr(Column::Renditions, Expr::value(None::<Renditions>))
            .col_expr(Column::RenditionAt, Expr::value(None::<i64>))
            .filter(Column::Id.eq(id))
            .filter(Column::Status.is_in([Status::Archived.as_str(), Status::Failed.as_str()]));
        deadline(update.exec(&self.connection)).await?;
        Ok(())
    }

    /// Inserts the row of a final recording; `false`: it is there, or its version is another's.
    pub(crate) async fn restore(&self, manifest: &Manifest, lost: &Lost) -> Result<bool, DbError> {
        let show_id = manifest.show_id.as_str();
        self.ensure_show(show_id, manifest.title.as_deref().unwrap_or(show_id))
            .await?;
        let reason = match manifest.stage {
            Stage::Sealed { reason, .. } | Stage::Done { reason, .. } => Some(reason),
            Stage::Live | Stage::Grace { .. } => None,
        };
        let first = lost.objects.first();
        let bytes = Objects(lost.objects.clone()).archive_bytes();
        let row = ActiveModel {
            status: Set(lost.status.as_str().to_owned()),
            error: Set(lost.error.clone()),
            ended_at: Set(Some(signed(lost.ended_unix_ms))),
            end_reason: Set(reason.map(|reason| reason.as_str().to_owned())),
            archived_at: Set(Some(signed(lost.archived_unix_ms))),
            bytes: Set(signed(bytes)),
            duration_ms: Set(lost.duration_ms.map(signed)),
            object_key: Set(first.map(|object| object.key.clone())),
            crc64nvme: Set(first.and_then(|object| object.crc64nvme.clone())),
            objects: Set(Objects(lost.objects.clone())),
            manifest_key: Set(Some(lost.manifest_key.clone())),
            renditions: Set(lost.renditions.clone()),
            ..fresh(manifest, lost.version.clone())
        };
        let insert = Entity::insert(row).on_conflict(OnConflict::new().do_nothing().to_owned());
        let inserted = deadline(insert.exec_without_returning(&self.connection)).await?;
        Ok(inserted > 0)
    }

    async fn existing(&self, manifest: &Manifest) -> Result<RecordingRow, DbError> {
        let id = manifest.session.to_string();
        self.recording(&id).await?.ok_or(DbError::NoRow(id))
    }

    /// Inserts the row unless it is there, under the first version that is free.
    async fn ensure(&self, manifest: &Manifest) -> Result<(), DbError> {
        let id = manifest.session.to_string();
        if self.recording(&id).await?.is_some() {
            return Ok(());
        }
        let show_id = manifest.show_id.as_str();
        self.ensure_show(show_id, manifest.title.as_deref().unwrap_or(show_id))
            .await?;
        let version = version_at(manifest.started_unix_ms);
        for nth in 1..=SUFFIX_MAX {
            let version = if nth == 1 {
                version.clone()
            } else {
                format!("{version}-{nth}")
            };
            // Either key may be taken: the id by a call beside this one, the version by another
            // session that began within the same second.
            let insert = Entity::insert(fresh(manifest, version))
                .on_conflict(OnConflict::new().do_nothing().to_owned());
            let inserted = deadline(insert.exec_without_returning(&self.connection)).await?;
            if inserted > 0 || self.recording(&id).await?.is_some() {
                return Ok(());
            }
        }
        Err(DbError::NoRow(id))
    }
}

fn known_json(manifest: &Manifest) -> serde_json::Value {
    serde_json::to_value(manifest).unwrap_or_default()
}

fn count(number: impl TryInto<i32>) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}

fn as_known(manifest: &Manifest) -> UpdateMany<Entity> {
    Entity::update_many()
        .col_expr(Column::Mime, Expr::value(manifest.mime()))
        .col_expr(Column::Bytes, Expr::value(signed(manifest.bytes())))
        .col_expr(Column::Takes, Expr::value(count(manifest.takes.len())))
        .col_expr(
            Column::Reconnects,
            Expr::value(count(manifest.reconnects())),
        )
        .col_expr(Column::Gaps, Expr::value(Gaps(manifest.gaps.clone())))
        .col_expr(
            Column::Markers,
            Expr::value(Markers(manifest.markers.clone())),
        )
        .col_expr(Column::Manifest, Expr::value(known_json(manifest)))
        .col_expr(Column::UpdatedAt, Expr::value(signed(unix_ms())))
        .filter(Column::Id.eq(manifest.session.to_string()))
}

fn fresh(manifest: &Manifest, version: String) -> ActiveModel {
    let now = signed(unix_ms());
    ActiveModel {
        id: Set(manifest.session.to_string()),
        show_id: Set(manifest.show_id.to_string()),
        version: Set(version),
        status: Set(Status::Recording.as_str().to_owned()),
        error: Set(None),
        started_at: Set(signed(manifest.started_unix_ms)),
        ended_at: Set(None),
        archived_at: Set(None),
        end_reason: Set(None),
        mime: Set(manifest.mime().to_owned()),
        bytes: Set(signed(manifest.bytes())),
        duration_ms: Set(None),
        takes: Set(count(manifest.takes.len())),
        reconnects: Set(count(manifest.reconnects())),
        gaps: Set(Gaps(manifest.gaps.clone())),
        markers: Set(Markers(manifest.markers.clone())),
        objects: Set(Objects::default()),
        manifest: Set(known_json(manifest)),
        object_key: Set(None),
        manifest_key: Set(None),
        sha256: Set(None),
        crc64nvme: Set(None),
        claim_owner: Set(None),
        claim_epoch: Set(0),
        claim_until: Set(0),
        created_at: Set(now),
        updated_at: Set(now),
        work: Set(None),
        rehearsal: Set(manifest.rehearsal),
        sheet: Set(None),
        deleted_at: Set(None),
        renditions: Set(None),
        rendition_at: Set(None),
    }
}
