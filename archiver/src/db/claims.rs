//! Claims: which archiver works on which recording.
//!
//! Owns the lease and its epoch. Whoever claims gets a higher epoch, and every later write of a job
//! names its own: a job that was overtaken changes nothing any more.

use super::{
    Db, DbError, Objects, RecordingRow, Renditions, StoredObject, Work, deadline,
    entity::recording::{Column, Entity},
    signed,
};
use aircheck_core::recording::Status;
use aircheck_runtime::clock::unix_ms;
use sea_orm::{
    ColumnTrait, Condition, EntityTrait, ExprTrait, QueryFilter, UpdateMany,
    sea_query::{Expr, SimpleExpr},
};
use std::time::Duration;

/// The right to work on one recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) id: String,
    pub(crate) owner: String,
    pub(crate) epoch: i64,
}

/// What came of trying to claim.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// Ours, with the row as it is now.
    Ours(Claim, Box<RecordingRow>),
    /// Somebody else's, for as long as they renew it.
    Theirs,
    /// There is nothing left to do.
    Final(Box<RecordingRow>),
}

/// What a recording is claimed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// Uploading ahead, as long as the session is not sealed. Sealing lets go of such a claim.
    Live,
    /// Making the archive.
    Finalize,
    /// Making it again: it is final, but objects are gone. Its status stays.
    Repair,
    /// Making renditions of it, where some are due: it is final, and nothing of that changes.
    Render,
}

/// How a job ends.
#[derive(Clone, Debug)]
pub(crate) struct Finish {
    pub(crate) status: Status,
    pub(crate) error: Option<String>,
    pub(crate) objects: Vec<StoredObject>,
    pub(crate) manifest_key: String,
    /// Right to a packet; `None` where the takes could not be muxed.
    pub(crate) duration_ms: Option<u64>,
    /// What is worth keeping of the work.
    pub(crate) work: Option<Work>,
    /// Of a rehearsal.
    pub(crate) sheet: Option<serde_json::Value>,
    /// What is to be made of the objects; of a recording that is final already `None` changes nothing.
    pub(crate) renditions: Option<Renditions>,
}

impl Db {
    /// Takes a recording that nobody works on.
    pub(crate) async fn claim(
        &self,
        id: &str,
        owner: &str,
        lease: Duration,
        aim: Aim,
    ) -> Result<Claimed, DbError> {
        let status = match aim {
            Aim::Live => Column::Status.eq(Status::Recording.as_str()),
            Aim::Finalize => Column::Status.eq(Status::Finalizing.as_str()),
            Aim::Repair => Column::DeletedAt.is_null(),
            Aim::Render => Column::RenditionAt
                .is_not_null()
                .and(Column::DeletedAt.is_null()),
        };
        let update = Entity::update_many()
            .col_expr(Column::ClaimOwner, Expr::value(owner))
            .col_expr(Column::ClaimEpoch, Expr::col(Column::ClaimEpoch).add(1))
            .col_expr(Column::ClaimUntil, self.until(lease))
            .filter(Column::Id.eq(id))
            .filter(status)
            .filter(
                Condition::any()
                    .add(Expr::col(Column::ClaimUntil).lt(self.now()))
                    .add(Column::ClaimOwner.eq(owner)),
            );
        let rows = deadline(update.exec_with_returning(&self.connection)).await?;
        if let Some(row) = rows.into_iter().next() {
            let claim = Claim {
                id: row.id.clone(),
                owner: owner.to_owned(),
                epoch: row.claim_epoch,
            };
            return Ok(Claimed::Ours(claim, Box::new(row)));
        }
        let row = self
            .recording(id)
            .await?
            .ok_or_else(|| DbError::NoRow(id.to_owned()))?;
        let is_over = match (aim, Status::parse(&row.status)) {
            (Aim::Live, status) => status != Some(Status::Recording),
            (Aim::Finalize, status) => status.is_some_and(Status::is_final),
            (Aim::Repair, _) => false,
            (Aim::Render, _) => row.rendition_at.is_none(),
        };
        Ok(if is_over || row.deleted_at.is_some() {
            Claimed::Final(Box::new(row))
        } else {
            Claimed::Theirs
        })
    }

    /// Makes all claims void. Only for a process that is known to be alone on this database: whoever
    /// held them is dead.
    pub(crate) async fn void_claims(&self) -> Result<(), DbError> {
        let update = Entity::update_many()
            .col_expr(Column::ClaimUntil, Expr::value(0_i64))
            .col_expr(Column::ClaimEpoch, Expr::col(Column::ClaimEpoch).add(1))
            .filter(Column::ClaimUntil.gt(0_i64));
        deadline(update.exec(&self.connection)).await?;
        Ok(())
    }

    /// Extends a lease; `false`: it is somebody else's by now.
    pub(crate) async fn renew(&self, claim: &Claim, lease: Duration) -> Result<bool, DbError> {
        self.guarded(
            claim,
            held(claim).col_expr(Column::ClaimUntil, self.until(lease)),
        )
        .await
    }

    /// Extends the lease of a live job; `false`: somebody else's by now, or the session was sealed.
    pub(crate) async fn renew_live(&self, claim: &Claim, lease: Duration) -> Result<bool, DbError> {
        let update = held(claim)
            .col_expr(Column::ClaimUntil, self.until(lease))
            .filter(Column::Status.eq(Status::Recording.as_str()));
        self.guarded(claim, update).await
    }

    /// Lets go, so that the next one need not wait for the lease to run out.
    pub(crate) async fn release(&self, claim: &Claim) -> Result<(), DbError> {
        let update = held(claim).col_expr(Column::ClaimUntil, Expr::value(0_i64));
        self.guarded(claim, update).await?;
        Ok(())
    }

    /// Notes which objects are being made, before they come into being; `false`: claim lost.
    pub(crate) async fn plan(
        &self,
        claim: &Claim,
        objects: &[StoredObject],
    ) -> Result<bool, DbError> {
        let objects = Objects(objects.to_vec());
        self.guarded(
            claim,
            held(claim).col_expr(Column::Objects, Expr::value(objects)),
        )
        .await
    }

    /// Notes which files of a stitched archive are being made; `false`: claim lost.
    pub(crate) async fn plan_files(
        &self,
        claim: &Claim,
        files: &[StoredObject],
        work: &Work,
    ) -> Result<bool, DbError> {
        let update = held(claim)
            .col_expr(Column::Objects, Expr::value(Objects(files.to_vec())))
            .col_expr(Column::Work, Expr::value(Some(work.clone())));
        self.guarded(claim, update).await
    }

    /// Notes how far the making of a stitched archive has come; `false`: claim lost.
    pub(crate) async fn note(&self, claim: &Claim, work: &Work) -> Result<bool, DbError> {
        let work = Some(work.clone());
        self.guarded(claim, held(claim).col_expr(Column::Work, Expr::value(work)))
            .await
    }

    /// Notes what keeps a recording from being archived; `false`: claim lost.
    pub(crate) async fn complain(&self, claim: &Claim, error: &str) -> Result<bool, DbError> {
        let update = held(claim)
            .col_expr(Column::Error, Expr::value(error))
            .filter(Column::Status.eq(Status::Finalizing.as_str()));
        self.guarded(claim, update).await
    }

    /// Makes a recording final; `None`: claim lost. A recording that is final already keeps its
    /// status and error.
    pub(crate) async fn finish(
        &self,
        claim: &Claim,
        finish: &Finish,
    ) -> Result<Option<RecordingRow>, DbError> {
        let now = signed(unix_ms());
        let first = finish.objects.first();
        let objects = Objects(finish.objects.clone());
        let bytes = objects.archive_bytes();
        let made = |update: UpdateMany<Entity>| {
            update
                .col_expr(Column::Bytes, Expr::value(signed(bytes)))
                .col_expr(Column::Objects, Expr::value(objects.clone()))
                .col_expr(Column::ObjectKey, Expr::value(first.map(|o| o.key.clone())))
                .col_expr(
                    Column::ManifestKey,
                    Expr::value(finish.manifest_key.as_str()),
                )
                .col_expr(
                    Column::Crc64nvme,
                    Expr::value(first.and_then(|o| o.crc64nvme.clone())),
                )
                .col_expr(
                    Column::DurationMs,
                    Expr::value(finish.duration_ms.map(signed)),
                )
                .col_expr(Column::Work, Expr::value(finish.work.clone()))
                .col_expr(Column::Sheet, Expr::value(finish.sheet.clone()))
                .col_expr(Column::ClaimUntil, Expr::value(0_i64))
                .col_expr(Column::UpdatedAt, Expr::value(now))
        };
        // A row that is not final yet has none.
        let made = |update| match &finish.renditions {
            Some(renditions) => made(update)
                .col_expr(Column::Renditions, Expr::value(Some(renditions.clone())))
                .col_expr(Column::RenditionAt, self.now()),
            None => made(update),
        };
        let closing = made(held(claim))
            .col_expr(Column::Status, Expr::value(finish.status.as_str()))
            .col_expr(Column::Error, Expr::value(finish.error.clone()))
            .col_expr(Column::ArchivedAt, Expr::value(now))
            .filter(Column::Status.eq(Status::Finalizing.as_str()));
        let rows = deadline(closing.exec_with_returning(&self.connection)).await?;
        if let Some(row) = rows.into_iter().next() {
            return Ok(Some(row));
        }
        let repairing = made(held(claim)).filter(Column::Status.ne(Status::Recording.as_str()));
        Ok(deadline(repairing.exec_with_returning(&self.connection))
            .await?
            .into_iter()
            .next())
    }

    pub(super) fn until(&self, lease: Duration) -> SimpleExpr {
        self.now()
            .add(u64::try_from(lease.as_millis()).map_or(i64::MAX, signed))
    }

    pub(super) async fn guarded(
        &self,
        claim: &Claim,
        update: UpdateMany<Entity>,
    ) -> Result<bool, DbError> {
        let done = deadline(update.exec(&self.connection)).await?;
        if done.rows_affected == 0 {
            tracing::info!(
                session_id = claim.id,
                claim_epoch = claim.epoch,
                "claim was lost"
            );
        }
        Ok(done.rows_affected > 0)
    }
}

/// The row, for as long as the claim holds.
pub(super) fn held(claim: &Claim) -> UpdateMany<Entity> {
    Entity::update_many()
        .filter(Column::Id.eq(claim.id.as_str()))
        .filter(Column::ClaimEpoch.eq(claim.epoch))
        .filter(Column::ClaimOwner.eq(claim.owner.as_str()))
        .filter(Column::DeletedAt.is_null())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aircheck_core::{
        id::SessionId,
        recording::EndReason,
        spool::{Manifest, Stage},
    };
    use ulid::Ulid;

    const LEASE: Duration = Duration::from_secs(60);
    const EXPIRED: Duration = Duration::ZERO;

    struct Bench {
        db: Db,
        id: String,
        manifest: Manifest,
        _folder: tempfile::TempDir,
    }

    impl Bench {
        /// A database with one sealed session.
        async fn new() -> Self {
            let folder = tempfile::tempdir().expect("make a folder");
            let path = folder.path().join("aircheck.db");
            let url = format!("sqlite://{}?mode=rwc", path.display());
            let db = Db::open(&url).await.expect("open");
            let show = "7".parse().expect("a show id");
            let mut manifest = Manifest::new(SessionId(Ulid::from(7_u128)), show, 1000, 30_000);
            manifest.stage = Stage::Sealed {
                reason: EndReason::Stop,
                ended_unix_ms: 2000,
            };
            db.seal_new(&manifest).await.expect("seal");
            let id = manifest.session.to_string();
            Self {
                db,
                id,
                manifest,
                _folder: folder,
            }
        }

        async fn claim(&self, owner: &str, lease: Duration) -> Option<Claim> {
            match self
                .db
                .claim(&self.id, owner, lease, Aim::Finalize)
                .await
                .expect("an answer")
            {
                Claimed::Ours(claim, _) => Some(claim),
                Claimed::Theirs | Claimed::Final(_) => None,
            }
        }

        async fn row(&self) -> RecordingRow {
            self.db
                .recording(&self.id)
                .await
                .expect("an answer")
                .expect("a row")
        }
    }

    fn archived() -> Finish {
        let manifest_key = "manifest.json".to_owned();
        Finish {
            status: Status::Archived,
            error: None,
            objects: Vec::new(),
            manifest_key,
            duration_ms: None,
            work: None,
            sheet: None,
            renditions: None,
        }
    }

    #[tokio::test]
    async fn a_lease_that_lives_keeps_others_out_and_one_that_ran_out_does_not() {
        let bench = Bench::new().await;
        let first = bench.claim("one", LEASE).await.expect("free");
        assert_eq!(bench.claim("two", LEASE).await, None);
        assert_eq!(first.epoch, 1);
        bench.db.release(&first).await.expect("release");
        assert_eq!(
            bench.claim("two", LEASE).await.map(|claim| claim.epoch),
            Some(2)
        );
    }

    #[tokio::test]
    async fn a_stale_epoch_changes_nothing() {
        let bench = Bench::new().await;
        let stale = bench.claim("one", EXPIRED).await.expect("free");
        // The same process again: even its own older job is fenced.
        let fresh = bench.claim("one", LEASE).await.expect("expired");
        let before = bench.row().await;
        let Bench { db, .. } = &bench;
        assert!(!db.renew(&stale, LEASE).await.expect("an answer"));
        assert!(!db.plan(&stale, &[]).await.expect("an answer"));
        assert!(!db.complain(&stale, "late").await.expect("an answer"));
        assert_eq!(
            db.finish(&stale, &archived()).await.expect("an answer"),
            None
        );
        db.release(&stale).await.expect("an answer");
        assert_eq!(bench.row().await, before);
        assert!(db.renew(&fresh, LEASE).await.expect("an answer"));
    }

    #[tokio::test]
    async fn claims_that_were_voided_are_free_and_their_old_holder_is_fenced() {
        let bench = Bench::new().await;
        let dead = bench.claim("one", LEASE).await.expect("free");
        bench.db.void_claims().await.expect("an answer");
        assert!(!bench.db.renew(&dead, LEASE).await.expect("an answer"));
        assert!(bench.claim("two", LEASE).await.is_some());
    }

    #[tokio::test]
    async fn a_finish_whose_reply_was_lost_may_be_repeated() {
        let bench = Bench::new().await;
        let claim = bench.claim("one", LEASE).await.expect("free");
        let first = bench
            .db
            .finish(&claim, &archived())
            .await
            .expect("an answer");
        let second = bench
            .db
            .finish(&claim, &archived())
            .await
            .expect("an answer");
        let (first, second) = (first.expect("final"), second.expect("still final"));
        assert_eq!(first.archived_at, second.archived_at);
        assert_eq!(second.status, Status::Archived.as_str());
    }

    #[tokio::test]
    async fn statuses_never_go_back() {
        let bench = Bench::new().await;
        let claim = bench.claim("one", LEASE).await.expect("free");
        let last = bench
            .db
            .finish(&claim, &archived())
            .await
            .expect("an answer");
        let last = last.expect("final");
        let live = Manifest {
            stage: Stage::Live,
            ..bench.manifest.clone()
        };
        assert_eq!(bench.db.advance(&live).await.expect("a row"), last);
        let sealed = bench.db.seal(&bench.manifest).await;
        assert_eq!(sealed.expect("an answer"), Some(last.clone()));
        assert_eq!(bench.claim("two", LEASE).await, None);
        let failed = Finish {
            status: Status::Failed,
            error: Some("x".into()),
            ..archived()
        };
        let repaired = bench.db.finish(&claim, &failed).await.expect("an answer");
        let repaired = repaired.expect("the claim holds");
        assert_eq!((repaired.status, repaired.error), (last.status, None));
    }
}
