//! Column `work` of a recording: how far the making of its stitched archive has come.
//!
//! Owns what survives the process that makes it. Every part named here was taken by the store; a
//! replay that gives the same bytes need not send it again.

use sea_orm::FromJsonQueryResult;
use serde::{Deserialize, Serialize};

/// The rules an archive is made by, its files, and what came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, FromJsonQueryResult)]
pub struct Work {
    /// Version of the muxing rules. Parts of two versions do not fit together.
    pub mux_version: u32,
    /// Length of the header of each file, bytes.
    pub reserved_bytes: u64,
    /// Length of each part but the last, bytes.
    pub part_bytes: u64,
    /// In order. A file that was not begun yet has no entry or an empty one.
    pub files: Vec<FileWork>,
    /// Known once all takes were muxed, before any file comes into being.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
}

/// One file in the making.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileWork {
    /// Absent until its kind is known.
    pub key: Option<String>,
    /// The multipart upload that makes it, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_id: Option<String>,
    /// Parts of that upload, sorted by number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<SentPart>,
}

/// A part that the store has taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentPart {
    /// From 1.
    pub number: i32,
    pub etag: String,
    /// Base64, as S3 writes it.
    pub crc64nvme: String,
    pub bytes: u64,
}

/// What muxing brought to light.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Of all files together, ms, right to a packet.
    pub duration_ms: u64,
    pub packets: u64,
    pub dropped_packets: u64,
    pub silence_ms: u64,
    /// Packets that the silence is made of.
    #[serde(default)]
    pub silence_packets: u64,
    /// Bytes of the takes that were not understood or never came.
    pub lost_bytes: u64,
    /// CRC-64/NVME of the bytes of each take that were there, base64.
    pub takes_crc64nvme: Vec<String>,
}

impl Work {
    /// The file `index`, made if it is not there.
    pub(crate) fn file(&mut self, index: usize) -> &mut FileWork {
        if self.files.len() <= index {
            self.files.resize_with(index + 1, FileWork::default);
        }
        &mut self.files[index]
    }
}

impl FileWork {
    /// The part of that number.
    pub(crate) fn part(&self, number: i32) -> Option<&SentPart> {
        self.parts.iter().find(|part| part.number == number)
    }

    /// Notes a part, in place of an older one of that number.
    pub(crate) fn record(&mut self, part: SentPart) {
        self.parts.retain(|known| known.number != part.number);
        let at = self
            .parts
            .partition_point(|known| known.number < part.number);
        self.parts.insert(at, part);
    }

    /// The upload is gone, and its parts with it.
    pub(crate) fn forget_upload(&mut self) {
        self.upload_id = None;
        self.parts.clear();
    }
}
