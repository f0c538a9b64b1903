//! Table `recording`: one row a session, from going live on for ever.

use super::{rendition::Renditions, work::Work};
use crate::keys::Label;
use aircheck_core::recording::{Gap, Marker};
use sea_orm::{FromJsonQueryResult, entity::prelude::*};
use serde::{Deserialize, Serialize};

/// Column of gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, FromJsonQueryResult)]
pub struct Gaps(pub Vec<Gap>);

/// Column of markers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, FromJsonQueryResult)]
pub struct Markers(pub Vec<Marker>);

/// Column of objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, FromJsonQueryResult)]
pub struct Objects(pub Vec<StoredObject>);

impl Objects {
    /// Bytes of the archive: of the stitched files, where there are any beside raw takes.
    pub(crate) fn archive_bytes(&self) -> u64 {
        let of = |stitched: bool| {
            let objects = self.0.iter();
            objects.filter(move |object| object.take.is_none() == stitched)
        };
        match of(true).next() {
            Some(_) => of(true).map(|object| object.bytes).sum(),
            None => of(false).map(|object| object.bytes).sum(),
        }
    }

    /// What the object of this key is called among the others.
    pub(crate) fn label(&self, key: &str) -> Option<Label> {
        let index = self.0.iter().position(|object| object.key == key)?;
        Some(Label::of(index, self.0.get(index)?.take))
    }
}

/// A media object: planned while the row is finalizing, proved once it is final.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredObject {
    pub key: String,
    /// Index of the take, from 0, where the object is one take exactly as it came; absent for the
    /// files of a stitched archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub take: Option<u32>,
    pub bytes: u64,
    /// Base64, as S3 writes it. Absent until all bytes have been seen.
    pub crc64nvme: Option<String>,
    pub content_type: String,
    /// The multipart upload that makes it; absent for small objects and once proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_id: Option<String>,
}

/// One recording. Times are Unix milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "recording")]
pub(crate) struct Model {
    /// The session's id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    pub show_id: String,
    /// Unique within the show.
    pub version: String,
    pub status: String,
    pub error: Option<String>,
    pub started_at: i64,
    pub ended_at: Option<i64>,
    pub archived_at: Option<i64>,
    pub end_reason: Option<String>,
    pub mime: String,
    pub bytes: i64,
    pub duration_ms: Option<i64>,
    pub takes: i32,
    pub reconnects: i32,
    #[sea_orm(column_type = "JsonBinary")]
    pub gaps: Gaps,
    #[sea_orm(column_type = "JsonBinary")]
    pub markers: Markers,
    #[sea_orm(column_type = "JsonBinary")]
    pub objects: Objects,
    /// As last known.
    #[sea_orm(column_type = "JsonBinary")]
    pub manifest: Json,
    pub object_key: Option<String>,
    pub manifest_key: Option<String>,
    /// Lower-case hex.
    pub sha256: Option<String>,
    /// Base64.
    pub crc64nvme: Option<String>,
    /// The archiver that works on it, while `claim_until` lies ahead by the database's clock.
    pub claim_owner: Option<String>,
    /// Rises with each claim; a writer with a lower one changes nothing.
    pub claim_epoch: i64,
    pub claim_until: i64,
    pub created_at: i64,
    pub updated_at: i64,
    /// How far the making of its stitched archive has come.
    #[sea_orm(column_type = "JsonBinary", nullable)]
    pub work: Option<Work>,
    /// Not for listeners: deleted by itself after a while.
    pub rehearsal: bool,
    /// What a rehearsal was worth, once it is over.
    #[sea_orm(column_type = "JsonBinary", nullable)]
    pub sheet: Option<Json>,
    /// Set: the archive is gone on purpose. The row stays so that nothing brings it back.
    pub deleted_at: Option<i64>,
    /// What is made of its objects, once it is final.
    #[sea_orm(column_type = "JsonBinary", nullable)]
    pub renditions: Option<Renditions>,
    /// When something of that is to be done, by the database's clock; absent: nothing is.
    pub rendition_at: Option<i64>,
}

/// Relations of a recording.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {
    #[sea_orm(
        belongs_to = "super::show::Entity",
        from = "Column::ShowId",
        to = "super::show::Column::Id"
    )]
    Show,
}

impl Related<super::show::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Show.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}
