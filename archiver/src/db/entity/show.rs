//! Table `show`: what a station broadcasts.

use sea_orm::entity::prelude::*;

/// One show.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "show")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    pub title: String,
    /// Seconds; NULL: the installation's default.
    pub grace_s: Option<i64>,
    /// `silence` or `close`.
    pub gap_policy: String,
    pub created_at: i64,
    pub updated_at: i64,
}

/// Relations of a show.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {
    #[sea_orm(has_many = "super::recording::Entity")]
    Recording,
}

impl Related<super::recording::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Recording.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}
