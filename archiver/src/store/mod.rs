//! What the archiver needs of an object store, and the errors it can meet there.
//!
//! Owns the words in which S3 is spoken of elsewhere. Must never retry and never decide: whoever
//! calls knows what an unknown outcome means.

mod checksum;
#[cfg(test)]
mod contract;
#[cfg(test)]
pub(crate) mod memory;
mod s3;

pub(crate) use checksum::Crc64;
pub(crate) use s3::S3Store;

use async_trait::async_trait;
use bytes::Bytes;
use std::{fmt, time::Duration};
use thiserror::Error;
use tokio::io::AsyncWrite;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// What is kept beside an object's bytes.
#[derive(Clone, Debug)]
pub(crate) struct ObjectMeta {
    pub(crate) content_type: String,
    /// Value of Content-Disposition, with the name a download should get.
    pub(crate) disposition: String,
    /// The token: the session's id. Says whose object it is.
    pub(crate) session: String,
    /// Epoch of the claim that wrote it; for people who have to find out what happened.
    pub(crate) epoch: i64,
    /// Of all bytes, where known before they are sent.
    pub(crate) crc: Option<Crc64>,
}

/// What a store says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) bytes: u64,
    /// `None`: written by somebody else, or by a store that forgot.
    pub(crate) session: Option<String>,
    /// As the store keeps it, not as we once claimed it.
    pub(crate) crc: Option<Crc64>,
    pub(crate) etag: Option<String>,
}

/// What must hold for a write to take place. Stores that ignore it exist, so nothing may rest on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Precondition {
    /// Nothing is there yet.
    Absent,
    /// What is there is what was seen.
    Unchanged { etag: String },
    /// None: what is there is known to be ours and broken, and has no tag.
    Unconditional,
}

/// A multipart upload under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UploadRef {
    pub(crate) key: String,
    pub(crate) id: String,
}

/// An upload that the store says is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenUpload {
    pub(crate) upload: UploadRef,
    /// By the store's clock; not every store tells.
    pub(crate) begun_unix_ms: Option<u64>,
}

/// An object that the store says is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) key: String,
    /// By the store's clock; not every store tells.
    pub(crate) written_unix_ms: Option<u64>,
}

/// A part that the store has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartTag {
    /// From 1.
    pub(crate) number: i32,
    pub(crate) etag: String,
    pub(crate) crc: Crc64,
}

/// Length and checksum of a whole object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) bytes: u64,
    pub(crate) crc: Crc64,
}

impl Extent {
    /// No bytes at all.
    pub(crate) const NOTHING: Self = Self {
        bytes: 0,
        crc: Crc64::EMPTY,
    };

    /// With `bytes` more, whose own checksum is `crc`.
    pub(crate) fn then(self, crc: Crc64, bytes: u64) -> Self {
        Self {
            bytes: self.bytes + bytes,
            crc: self.crc.then(crc, bytes),
        }
    }
}

/// A call of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Head,
    Put,
    CreateUpload,
    UploadPart,
    Complete,
    Abort,
    Get,
    List,
    ListUploads,
    Delete,
    Presign,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Head => "head object",
            Self::Put => "put object",
            Self::CreateUpload => "create multipart upload",
            Self::UploadPart => "upload part",
            Self::Complete => "complete multipart upload",
            Self::Abort => "abort multipart upload",
            Self::Get => "get object",
            Self::List => "list objects",
            Self::ListUploads => "list multipart uploads",
            Self::Delete => "delete object",
            Self::Presign => "presign",
        })
    }
}

/// Why a call of the store did not succeed, as far as can be told.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    /// No answer, or none that says what happened: the call may have taken effect.
    #[error("{call}: outcome unknown")]
    Unknown {
        call: Call,
        #[source]
        source: Source,
    },
    /// The precondition did not hold (412), or raced with another writer (409).
    #[error("{call}: precondition failed")]
    Precondition { call: Call },
    /// The upload does not exist (any more): completed, aborted or expired.
    #[error("{call}: no such upload")]
    NoSuchUpload { call: Call },
    /// A definite no.
    #[error("{call}: refused with {status} {code}")]
    Refused {
        call: Call,
        status: u16,
        code: String,
    },
}

impl StoreError {
    /// What was read could not be kept.
    pub(crate) fn reading(source: impl Into<Source>) -> Self {
        Self::Unknown {
            call: Call::Get,
            source: source.into(),
        }
    }
}

/// An object store, as S3 speaks. Every call has a deadline of its own.
#[async_trait]
pub(crate) trait ObjectStore: fmt::Debug + Send + Sync {
    /// `None`: there is no such object.
    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError>;

    /// Writes a small object at once.
    async fn put(
        &self,
        key: &str,
        meta: &ObjectMeta,
        body: Bytes,
        precondition: &Precondition,
    ) -> Result<(), StoreError>;

    /// Begins a large one.
    async fn create_upload(&self, key: &str, meta: &ObjectMeta) -> Result<UploadRef, StoreError>;

    /// Sends one part; the same number again replaces it.
    async fn upload_part(
        &self,
        upload: &UploadRef,
        number: i32,
        body: Bytes,
        crc: Crc64,
    ) -> Result<PartTag, StoreError>;

    /// Makes the object of its parts.
    async fn complete(
        &self,
        upload: &UploadRef,
        parts: &[PartTag],
        whole: Extent,
        precondition: &Precondition,
    ) -> Result<(), StoreError>;

    /// Drops an upload and its parts. An upload that is not there is no error.
    async fn abort(&self, upload: &UploadRef) -> Result<(), StoreError>;

    /// Reads an object to its end into `sink` and says what it holds; `None`: there is no such object.
    async fn fetch(
        &self,
        key: &str,
        sink: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<Option<Extent>, StoreError>;

    /// Reads an object to its end and says what it holds; `None`: there is no such object.
    async fn read_back(&self, key: &str) -> Result<Option<Extent>, StoreError> {
        self.fetch(key, &mut tokio::io::sink()).await
    }

    /// Reads a small object; `None`: there is no such object, or it has more than `max_bytes`.
    async fn read(&self, key: &str, max_bytes: u64) -> Result<Option<Bytes>, StoreError>;

    /// Objects whose key begins with `prefix` and comes after `after`, sorted. One page; an empty one
    /// is the end.
    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<Listed>, StoreError>;

    /// Uploads under way whose key begins with `prefix`, about 10,000 at most.
    async fn list_uploads(&self, prefix: &str) -> Result<Vec<OpenUpload>, StoreError>;

    /// At most `limit` bytes from byte `from` on, fewer where the object ends before; `None`: there
    /// is no such object.
    async fn read_range(
        &self,
        key: &str,
        from: u64,
        limit: u64,
    ) -> Result<Option<Bytes>, StoreError>;

    /// Removes an object. One that is not there is no error.
    async fn delete(&self, key: &str) -> Result<(), StoreError>;

    /// A URL that downloads an object for `ttl`, named as `disposition` says. Needs no connection.
    async fn presign(
        &self,
        key: &str,
        disposition: &str,
        content_type: &str,
        ttl: Duration,
    ) -> Result<String, StoreError>;
}
