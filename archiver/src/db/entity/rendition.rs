//! Column `renditions` of table `recording`.
//!
//! Owns how renditions are kept. Must never say when one is made: that is `rendition_at`.

use super::recording::StoredObject;
use crate::{
    keys,
    store::{Crc64, Extent, UploadRef},
};
use aircheck_core::rendition::{Format, Rendition, Status, Wish};
use sea_orm::FromJsonQueryResult;
use serde::{Deserialize, Serialize};

/// All of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, FromJsonQueryResult)]
pub struct Renditions(pub Vec<StoredRendition>);

/// One rendition of one media object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRendition {
    pub format: Format,
    pub bitrate: u32,
    pub status: Status,
    /// Key of the object that it is made of.
    pub source: String,
    pub key: String,
    /// Noted before the first byte is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Base64, as S3 writes it; noted with the length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc64nvme: Option<String>,
    /// The multipart upload that makes it; absent for small objects and once proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_id: Option<String>,
    /// Attempts that were begun.
    pub attempts: u32,
    /// What went wrong the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One as a manifest names it: wanted, whether or not it was ever made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlannedRendition {
    format: Format,
    bitrate: u32,
    source: String,
    pub(crate) key: String,
}

impl From<&StoredRendition> for PlannedRendition {
    fn from(stored: &StoredRendition) -> Self {
        Self {
            format: stored.format,
            bitrate: stored.bitrate,
            source: stored.source.clone(),
            key: stored.key.clone(),
        }
    }
}

impl PlannedRendition {
    /// Whether its key is that of a rendition of one of these objects.
    pub(crate) fn is_of(&self, objects: &[StoredObject]) -> bool {
        let is_source = |object: &StoredObject| object.key == self.source;
        objects.iter().any(is_source)
            && self.key == keys::beside(&self.source, self.format.extension())
    }

    /// One that is there.
    pub(crate) fn found(self, whole: Extent) -> StoredRendition {
        StoredRendition {
            format: self.format,
            bitrate: self.bitrate,
            status: Status::Done,
            source: self.source,
            key: self.key,
            bytes: Some(whole.bytes),
            crc64nvme: Some(whole.crc.to_base64()),
            upload_id: None,
            attempts: 1,
            error: None,
        }
    }
}

impl Renditions {
    /// What is to be made of these objects; `None`: nothing.
    pub(crate) fn due(wishes: &[Wish], objects: &[StoredObject]) -> Option<Self> {
        let due = objects.iter().flat_map(|object| {
            wishes.iter().map(|wish| StoredRendition {
                format: wish.format,
                bitrate: wish.bitrate,
                status: Status::Due,
                source: object.key.clone(),
                key: keys::beside(&object.key, wish.format.extension()),
                bytes: None,
                crc64nvme: None,
                upload_id: None,
                attempts: 0,
                error: None,
            })
        });
        let due: Vec<_> = due.collect();
        (!due.is_empty()).then_some(Self(due))
    }
}

impl StoredRendition {
    /// As clients see it.
    pub(crate) fn shown(self) -> Rendition {
        let is_done = self.status == Status::Done;
        Rendition {
            format: self.format,
            bitrate: self.bitrate,
            status: self.status,
            key: is_done.then_some(self.key),
            bytes: self.bytes.filter(|_| is_done),
            crc64nvme: self.crc64nvme.filter(|_| is_done),
            error: self.error,
        }
    }

    /// What its object should hold, once that is known.
    pub(crate) fn extent(&self) -> Option<Extent> {
        let crc = self.crc64nvme.as_deref().and_then(Crc64::from_base64)?;
        Some(Extent {
            bytes: self.bytes?,
            crc,
        })
    }

    /// The upload that it left under way.
    pub(crate) fn upload(&self) -> Option<UploadRef> {
        self.upload_id.as_ref().map(|id| UploadRef {
            key: self.key.clone(),
            id: id.clone(),
        })
    }
}
