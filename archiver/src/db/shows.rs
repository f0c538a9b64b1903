//! Rows of shows.
//!
//! Owns reading and writing them; a show is created by going live as well as by being described.

use super::{
    Db, DbError, ShowRow, deadline,
    entity::show::{ActiveModel, Column, Entity},
    signed,
};
use aircheck_core::spool::GapPolicy;
use aircheck_runtime::clock::unix_ms;
use sea_orm::{ActiveValue::Set, EntityTrait, QueryOrder, QuerySelect, sea_query::OnConflict};

/// More shows than any station has; a list stays bounded all the same.
const SHOWS_MAX: u64 = 10_000;

impl Db {
    /// Makes sure that a show exists.
    pub(super) async fn ensure_show(&self, id: &str, title: &str) -> Result<(), DbError> {
        let row = fresh(id, title, None, GapPolicy::default());
        let insert =
            Entity::insert(row).on_conflict(OnConflict::column(Column::Id).do_nothing().to_owned());
        deadline(insert.exec_without_returning(&self.connection)).await?;
        Ok(())
    }

    pub(crate) async fn show(&self, id: &str) -> Result<Option<ShowRow>, DbError> {
        deadline(Entity::find_by_id(id).one(&self.connection)).await
    }

    /// All shows, by id.
    pub(crate) async fn shows(&self) -> Result<Vec<ShowRow>, DbError> {
        let select = Entity::find().order_by_asc(Column::Id).limit(SHOWS_MAX);
        deadline(select.all(&self.connection)).await
    }

    /// Creates a show, or describes it anew.
    pub(crate) async fn put_show(
        &self,
        id: &str,
        title: &str,
        grace_s: Option<u64>,
        gap_policy: GapPolicy,
    ) -> Result<ShowRow, DbError> {
        let changed = [
            Column::Title,
            Column::GraceS,
            Column::GapPolicy,
            Column::UpdatedAt,
        ];
        let insert = Entity::insert(fresh(id, title, grace_s, gap_policy)).on_conflict(
            OnConflict::column(Column::Id)
                .update_columns(changed)
                .to_owned(),
        );
        deadline(insert.exec_with_returning(&self.connection)).await
    }
}

fn fresh(id: &str, title: &str, grace_s: Option<u64>, gap_policy: GapPolicy) -> ActiveModel {
    let now = signed(unix_ms());
    ActiveModel {
        id: Set(id.to_owned()),
        title: Set(title.to_owned()),
        grace_s: Set(grace_s.map(signed)),
        gap_policy: Set(gap_policy.as_str().to_owned()),
        created_at: Set(now),
        updated_at: Set(now),
    }
}
