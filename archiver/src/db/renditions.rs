//! Renditions that are due, and how far they have come.
//!
//! Owns when a row is looked at again. Must never change what makes a recording final: status, error,
//! objects.

use super::{
    Claim, Db, DbError, RecordingRow, Renditions,
    claims::held,
    deadline,
    entity::recording::{Column, Entity},
};
use aircheck_core::recording::Status;
use sea_orm::{
    ColumnTrait, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect, sea_query::Expr,
};
use std::time::Duration;

/// Who holds the claim of a recording that is being removed.
pub(crate) const REMOVAL: &str = "removal";

impl Db {
    /// Recordings of which something is to be made now and nobody makes it, the longest due first.
    pub(crate) async fn due_renditions(&self, limit: u64) -> Result<Vec<String>, DbError> {
        let select = Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(Expr::col(Column::RenditionAt).lte(self.now()))
            .filter(Expr::col(Column::ClaimUntil).lt(self.now()))
            .filter(Column::DeletedAt.is_null())
            .order_by_asc(Column::RenditionAt)
            .limit(limit);
        deadline(select.into_tuple().all(&self.connection)).await
    }

    /// Notes how far the renditions have come; `false`: claim lost.
    pub(crate) async fn note_renditions(
        &self,
        claim: &Claim,
        renditions: &Renditions,
    ) -> Result<bool, DbError> {
        let renditions = Some(renditions.clone());
        let update = held(claim).col_expr(Column::Renditions, Expr::value(renditions));
        self.guarded(claim, update).await
    }

    /// Notes how far the renditions have come, and lets go of the row for so long; `None`: for ever.
    /// `false`: claim lost.
    pub(crate) async fn put_down_renditions(
        &self,
        claim: &Claim,
        renditions: &Renditions,
        again_in: Option<Duration>,
    ) -> Result<bool, DbError> {
        let at = match again_in {
            Some(wait) => self.until(wait),
            None => Expr::value(None::<i64>),
        };
        let update = held(claim)
            .col_expr(Column::Renditions, Expr::value(Some(renditions.clone())))
            .col_expr(Column::RenditionAt, at)
            .col_expr(Column::ClaimUntil, Expr::value(0_i64));
        self.guarded(claim, update).await
    }

    /// Keeps everybody from making more of a final recording, which is about to be removed; answers
    /// its row as it stays from then on. `None`: it is gone, or not final.
    pub(crate) async fn withdraw_renditions(
        &self,
        id: &str,
    ) -> Result<Option<RecordingRow>, DbError> {
        let update = Entity::update_many()
            .col_expr(Column::RenditionAt, Expr::value(None::<i64>))
            .col_expr(Column::ClaimOwner, Expr::value(REMOVAL))
            .col_expr(Column::ClaimEpoch, Expr::col(Column::ClaimEpoch).add(1))
            .col_expr(Column::ClaimUntil, Expr::value(0_i64))
            .filter(Column::Id.eq(id))
            .filter(Column::DeletedAt.is_null())
            .filter(Column::Status.is_in([Status::Archived.as_str(), Status::Failed.as_str()]));
        let rows = deadline(update.exec_with_returning(&self.connection)).await?;
        Ok(rows.into_iter().next())
    }
}
