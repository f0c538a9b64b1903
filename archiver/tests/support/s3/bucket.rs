//! One bucket in memory that is as strict, as lax and as forgetful as the store it stands for.
//!
//! Owns what each kind of store does where they differ; what all of them do is done strictly. That
//! all parts but the last are of one length is watched over whatever the store would say.

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use crc_fast::CrcAlgorithm::Crc64Nvme;
use futures::TryStreamExt as _;
use s3s::{
    S3, S3Request, S3Response, S3Result,
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumType,
        CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CompletedPart,
        CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteObjectInput,
        DeleteObjectOutput, ETag, ETagCondition, GetObjectInput, GetObjectOutput, HeadObjectInput,
        HeadObjectOutput, ListMultipartUploadsInput, ListMultipartUploadsOutput,
        ListObjectsV2Input, ListObjectsV2Output, Metadata, MultipartUpload, Object as Listed,
        PutObjectInput, PutObjectOutput, StreamingBlob, Timestamp, UploadPartInput,
        UploadPartOutput,
    },
    s3_error,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

type Answer<T> = S3Result<S3Response<T>>;

/// Smallest part but for the last one, where a store cares.
const PART_MIN: u64 = 5 << 20;

/// A kind of store, by the rows in which they differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    pub name: &'static str,
    /// `If-None-Match` and `If-Match` of writes.
    pub honours_conditions: bool,
    /// A Complete that is repeated succeeds again; else the upload is gone.
    pub replays_complete: bool,
    /// All parts but the last must be of one length.
    pub wants_equal_parts: bool,
    /// All parts but the last have 5 MiB.
    pub wants_large_parts: bool,
    /// Keeps and tells checksums of whole objects, also of those made of parts.
    pub whole_checksums: bool,
    /// Entries of a list's page.
    pub page: usize,
}

pub const AWS: Profile = Profile {
    name: "aws",
    honours_conditions: true,
    replays_complete: true,
    wants_equal_parts: false,
    wants_large_parts: true,
    whole_checksums: true,
    page: 1000,
};
pub const R2: Profile = Profile {
    name: "r2",
    replays_complete: false,
    wants_equal_parts: true,
    ..AWS
};
pub const MINIO: Profile = Profile {
    name: "minio",
    replays_complete: false,
    page: 2,
    ..AWS
};
pub const GARAGE: Profile = Profile {
    name: "garage",
    honours_conditions: false,
    replays_complete: false,
    wants_large_parts: false,
    ..AWS
};
/// An older one, such as Ceph's: it refuses checksums of whole objects.
pub const PLAIN: Profile = Profile {
    name: "plain",
    replays_complete: false,
    whole_checksums: false,
    page: 2,
    ..AWS
};
pub const PROFILES: [Profile; 5] = [AWS, R2, MINIO, GARAGE, PLAIN];

/// An object.
#[derive(Clone, Debug)]
struct Stored {
    body: Bytes,
    meta: Option<Metadata>,
    content_type: Option<String>,
    etag: String,
    modified: SystemTime,
}

#[derive(Clone, Debug)]
struct Part {
    etag: String,
    body: Bytes,
}

/// An upload under way.
#[derive(Clone, Debug)]
struct Upload {
    key: String,
    meta: Option<Metadata>,
    content_type: Option<String>,
    whole_checksum: bool,
    parts: BTreeMap<i32, Part>,
    initiated: SystemTime,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Stored>,
    uploads: BTreeMap<String, Upload>,
    /// Uploads that were completed, with the parts that were named, and the object's tag.
    completed: BTreeMap<String, (Vec<(i32, String)>, String)>,
    /// Writes so far that made an object, by key.
    made: BTreeMap<String, u32>,
    serial: u64,
    /// So many writes to come have a bit flipped.
    flips: u32,
    /// Whether an object's metadata is lost, as some gateways do.
    loses_metadata: bool,
    broken_rules: Vec<String>,
}

impl State {
    /// An object comes into being; its tag.
    fn make(&mut self, key: &str, mut stored: Stored) -> String {
        if self.flips > 0 {
            self.flips -= 1;
            let mut body = stored.body.to_vec();
            if let Some(first) = body.first_mut() {
                *first ^= 1;
            }
            stored.body = body.into();
        }
        if self.loses_metadata {
            stored.meta = None;
        }
        let etag = stored.etag.clone();
        *self.made.entry(key.to_owned()).or_default() += 1;
        self.objects.insert(key.to_owned(), stored);
        etag
    }
}

/// The bucket. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Bucket {
    profile: Profile,
    state: Arc<Mutex<State>>,
}

impl Bucket {
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            state: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while locked")
    }

    pub fn keys(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    pub fn object(&self, key: &str) -> Option<Vec<u8>> {
        Some(self.state().objects.get(key)?.body.to_vec())
    }

    /// Session that an object's metadata names.
    pub fn token(&self, key: &str) -> Option<String> {
        let state = self.state();
        let meta = state.objects.get(key)?.meta.as_ref()?;
        meta.get("aircheck-session").cloned()
    }

    pub fn plant(&self, key: &str, body: &[u8]) {
        let stored = Stored {
            body: Bytes::copy_from_slice(body),
            meta: None,
            content_type: None,
            etag: "planted".to_owned(),
            modified: SystemTime::now(),
        };
        self.state().objects.insert(key.to_owned(), stored);
    }

    pub fn lose(&self, key: &str) {
        let lost = self.state().objects.remove(key);
        assert!(lost.is_some(), "there is no {key} to lose");
    }

    /// How often an object was made at a key.
    pub fn made(&self, key: &str) -> u32 {
        self.state().made.get(key).copied().unwrap_or(0)
    }

    /// Ids and keys of uploads that were neither completed nor aborted.
    pub fn uploads(&self) -> Vec<(String, String)> {
        let state = self.state();
        let open = state.uploads.iter();
        open.map(|(id, upload)| (id.clone(), upload.key.clone()))
            .collect()
    }

    /// Begins an upload behind everybody's back, so long ago.
    pub fn begin(&self, key: &str, ago: Duration) -> String {
        let mut state = self.state();
        state.serial += 1;
        let id = format!("upload-{}", state.serial);
        let upload = Upload {
            key: key.to_owned(),
            meta: None,
            content_type: None,
            whole_checksum: false,
            parts: BTreeMap::new(),
            initiated: SystemTime::now() - ago,
        };
        state.uploads.insert(id.clone(), upload);
        id
    }

    /// All uploads under way seem to have begun so much earlier.
    pub fn age(&self, by: Duration) {
        for upload in self.state().uploads.values_mut() {
            upload.initiated -= by;
        }
    }

    /// All uploads are gone, as when a rule of the bucket has removed them.
    pub fn expire(&self) {
        self.state().uploads.clear();
    }

    /// Flips a bit in the next writes.
    pub fn flip(&self, writes: u32) {
        self.state().flips = writes;
    }

    pub fn lose_metadata(&self) {
        self.state().loses_metadata = true;
    }

    /// Rules of the part plan that were broken, whether or not this store minds.
    pub fn broken_rules(&self) -> Vec<String> {
        self.state().broken_rules.clone()
    }

    fn allowed(
        &self,
        state: &State,
        key: &str,
        absent: Option<&ETagCondition>,
        tag: Option<&ETagCondition>,
    ) -> S3Result<()> {
        if !self.profile.honours_conditions {
            return Ok(());
        }
        let there = state.objects.get(key);
        if absent.is_some() && there.is_some() {
            return Err(s3_error!(PreconditionFailed));
        }
        if let Some(ETagCondition::ETag(tag)) = tag
            && there.is_none_or(|there| there.etag != tag.value())
        {
            return Err(s3_error!(PreconditionFailed));
        }
        Ok(())
    }

    /// The part plan that every store takes: all but the last of one length, that one no longer.
    fn check_plan(&self, state: &mut State, parts: &[Part]) -> S3Result<()> {
        let lengths: Vec<_> = parts.iter().map(|part| part.body.len() as u64).collect();
        let (last, others) = lengths.split_last().expect("there are parts");
        let first = others.first().copied().unwrap_or(*last);
        if others.iter().any(|&len| len != first) || *last > first {
            state
                .broken_rules
                .push(format!("unequal parts: {lengths:?}"));
            if self.profile.wants_equal_parts {
                return Err(s3_error!(
                    InvalidPart,
                    "All non-trailing parts must have the same length."
                ));
            }
        }
        if others.iter().any(|&len| len < PART_MIN) && self.profile.wants_large_parts {
            return Err(s3_error!(EntityTooSmall));
        }
        Ok(())
    }

    fn head(&self, key: &str) -> S3Result<Stored> {
        let state = self.state();
        let stored = state.objects.get(key);
        stored.cloned().ok_or_else(|| s3_error!(NoSuchKey))
    }

    /// Begins at the entry after `marker`, and says whether there are more.
    fn page<'a, T: 'a>(
        &self,
        all: impl Iterator<Item = (&'a String, &'a T)>,
        prefix: &str,
        marker: Option<&str>,
        key: impl Fn(&str, &T) -> String,
    ) -> (Vec<(String, &'a T)>, bool) {
        let mut sorted: Vec<_> = all
            .map(|(id, entry)| (key(id, entry), entry))
            .filter(|(key, _)| key.starts_with(prefix))
            .filter(|(key, _)| marker.is_none_or(|marker| key.as_str() > marker))
            .collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        let more = sorted.len() > self.profile.page;
        sorted.truncate(self.profile.page);
        (sorted, more)
    }
}

/// The parts that a Complete names, in order, if they are what was sent and as they must be.
fn parts_named(upload: &Upload, named: &[CompletedPart]) -> S3Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut last = 0;
    for part in named {
        let number = part.part_number.unwrap_or_default();
        if number <= last {
            return Err(s3_error!(InvalidPartOrder));
        }
        last = number;
        let sent = upload.parts.get(&number);
        let tag = part.e_tag.as_ref().map(ETag::value);
        match sent.filter(|sent| Some(sent.etag.as_str()) == tag) {
            Some(sent) => parts.push(sent.clone()),
            None => return Err(s3_error!(InvalidPart)),
        }
    }
    if parts.is_empty() {
        return Err(s3_error!(InvalidRequest));
    }
    Ok(parts)
}

fn crc(body: &[u8]) -> String {
    STANDARD.encode(crc_fast::checksum(Crc64Nvme, body).to_be_bytes())
}

fn etag(body: &[u8], serial: u64) -> String {
    format!("{:016x}{serial:x}", crc_fast::checksum(Crc64Nvme, body))
}

async fn read(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let Some(body) = body else {
        return Ok(Bytes::new());
    };
    let pieces: Vec<Bytes> = body
        .try_collect()
        .await
        .map_err(|_| s3_error!(IncompleteBody))?;
    let mut whole = BytesMut::new();
    pieces
        .iter()
        .for_each(|piece| whole.extend_from_slice(piece));
    Ok(whole.freeze())
}

/// Fails where a checksum is claimed that is not the bytes'.
fn check(claimed: Option<&String>, body: &[u8]) -> S3Result<()> {
    if claimed.is_some_and(|claimed| *claimed != crc(body)) {
        return Err(s3_error!(BadDigest));
    }
    Ok(())
}

fn done<T>(output: T) -> Answer<T> {
    Ok(S3Response::new(output))
}

#[async_trait]
impl S3 for Bucket {
    async fn put_object(&self, req: S3Request<PutObjectInput>) -> Answer<PutObjectOutput> {
        let input = req.input;
        let body = read(input.body).await?;
        check(input.checksum_crc64nvme.as_ref(), &body)?;
        let mut state = self.state();
        let (absent, tag) = (input.if_none_match.as_ref(), input.if_match.as_ref());
        self.allowed(&state, &input.key, absent, tag)?;
        state.serial += 1;
        let stored = Stored {
            etag: etag(&body, state.serial),
            body,
            meta: input.metadata,
            content_type: input.content_type,
            modified: SystemTime::now(),
        };
        let etag = state.make(&input.key, stored);
        done(PutObjectOutput {
            e_tag: Some(ETag::Strong(etag)),
            ..PutObjectOutput::default()
        })
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> Answer<CreateMultipartUploadOutput> {
        let input = req.input;
        let whole = input.checksum_type.as_ref();
        let whole_checksum = whole.is_some_and(|kind| kind.as_str() == ChecksumType::FULL_OBJECT);
        if whole_checksum && !self.profile.whole_checksums {
            return Err(s3_error!(InvalidRequest));
        }
        let upload = Upload {
            key: input.key,
            meta: input.metadata,
            content_type: input.content_type,
            whole_checksum,
            parts: BTreeMap::new(),
            initiated: SystemTime::now(),
        };
        let mut state = self.state();
        state.serial += 1;
        let id = format!("upload-{}", state.serial);
        state.uploads.insert(id.clone(), upload);
        done(CreateMultipartUploadOutput {
            upload_id: Some(id),
            ..CreateMultipartUploadOutput::default()
        })
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> Answer<UploadPartOutput> {
        let input = req.input;
        let body = read(input.body).await?;
        check(input.checksum_crc64nvme.as_ref(), &body)?;
        let mut state = self.state();
        state.serial += 1;
        let etag = etag(&body, state.serial);
        let upload = state.uploads.get_mut(&input.upload_id);
        let upload = upload.ok_or_else(|| s3_error!(NoSuchUpload))?;
        let part = Part {
            etag: etag.clone(),
            body,
        };
        upload.parts.insert(input.part_number, part);
        done(UploadPartOutput {
            e_tag: Some(ETag::Strong(etag)),
            ..UploadPartOutput::default()
        })
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> Answer<CompleteMultipartUploadOutput> {
        let input = req.input;
        let named = input.multipart_upload.and_then(|upload| upload.parts);
        let named = named.unwrap_or_default();
        let output = |etag: String| CompleteMultipartUploadOutput {
            e_tag: Some(ETag::Strong(etag)),
            ..CompleteMultipartUploadOutput::default()
        };
        let tags: Vec<_> = named
            .iter()
            .map(|part| {
                let tag = part.e_tag.as_ref().map(|tag| tag.value().to_owned());
                (
                    part.part_number.unwrap_or_default(),
                    tag.unwrap_or_default(),
                )
            })
            .collect();
        let mut state = self.state();
        let Some(upload) = state.uploads.get(&input.upload_id).cloned() else {
            let known = state.completed.get(&input.upload_id);
            let same = known.filter(|(before, _)| *before == tags && self.profile.replays_complete);
            let etag = same.map(|(_, etag)| etag.clone());
            return done(output(etag.ok_or_else(|| s3_error!(NoSuchUpload))?));
        };
        let (absent, tag) = (input.if_none_match.as_ref(), input.if_match.as_ref());
        self.allowed(&state, &input.key, absent, tag)?;
        let parts = parts_named(&upload, &named)?;
        self.check_plan(&mut state, &parts)?;
        let mut body = BytesMut::new();
        parts
            .iter()
            .for_each(|part| body.extend_from_slice(&part.body));
        let body = body.freeze();
        let size = input.mpu_object_size;
        if size.is_some_and(|size| u64::try_from(size).ok() != Some(body.len() as u64)) {
            return Err(s3_error!(InvalidRequest));
        }
        if upload.whole_checksum {
            check(input.checksum_crc64nvme.as_ref(), &body)?;
        }
        let stored = Stored {
            etag: format!("{}-{}", etag(&body, state.serial), parts.len()),
            body,
            meta: upload.meta,
            content_type: upload.content_type,
            modified: SystemTime::now(),
        };
        let etag = state.make(&input.key, stored);
        state.uploads.remove(&input.upload_id);
        let known = (tags, etag.clone());
        state.completed.insert(input.upload_id, known);
        done(output(etag))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> Answer<AbortMultipartUploadOutput> {
        match self.state().uploads.remove(&req.input.upload_id) {
            Some(_) => done(AbortMultipartUploadOutput::default()),
            None => Err(s3_error!(NoSuchUpload)),
        }
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
        let stored = self.head(&req.input.key)?;
        let asked = req.input.checksum_mode.is_some() && self.profile.whole_checksums;
        done(HeadObjectOutput {
            content_length: i64::try_from(stored.body.len()).ok(),
            content_type: stored.content_type,
            checksum_crc64nvme: asked.then(|| crc(&stored.body)),
            checksum_type: asked.then(|| ChecksumType::from_static(ChecksumType::FULL_OBJECT)),
            e_tag: Some(ETag::Strong(stored.etag)),
            last_modified: Some(Timestamp::from(stored.modified)),
            metadata: stored.meta,
            ..HeadObjectOutput::default()
        })
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> Answer<GetObjectOutput> {
        let stored = self.head(&req.input.key)?;
        let total = stored.body.len();
        let mut body = stored.body;
        let mut content_range = None;
        if let Some(range) = req.input.range {
            let range = range
                .check(total as u64)
                .map_err(|_| s3_error!(InvalidRange))?;
            content_range = Some(format!("bytes {}-{}/{total}", range.start, range.end - 1));
            let index = |at: u64| usize::try_from(at).expect("within memory");
            body = body.slice(index(range.start)..index(range.end));
        }
        let pieces: Vec<Result<Bytes, std::io::Error>> = body
            .chunks(256 << 10)
            .map(|piece| Ok(body.slice_ref(piece)))
            .collect();
        done(GetObjectOutput {
            content_length: i64::try_from(body.len()).ok(),
            content_range,
            content_type: stored.content_type,
            e_tag: Some(ETag::Strong(stored.etag)),
            last_modified: Some(Timestamp::from(stored.modified)),
            metadata: stored.meta,
            body: Some(StreamingBlob::wrap(futures::stream::iter(pieces))),
            ..GetObjectOutput::default()
        })
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> Answer<DeleteObjectOutput> {
        self.state().objects.remove(&req.input.key);
        done(DeleteObjectOutput::default())
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> Answer<ListObjectsV2Output> {
        let input = req.input;
        let prefix = input.prefix.unwrap_or_default();
        let marker = input.continuation_token.or(input.start_after);
        let state = self.state();
        let objects = state.objects.iter();
        let (page, more) = self.page(objects, &prefix, marker.as_deref(), |key, _| key.to_owned());
        let next = page.last().map(|(key, _)| key.clone()).filter(|_| more);
        let listed = page.into_iter().map(|(key, stored)| Listed {
            key: Some(key),
            size: i64::try_from(stored.body.len()).ok(),
            last_modified: Some(Timestamp::from(stored.modified)),
            ..Listed::default()
        });
        done(ListObjectsV2Output {
            contents: Some(listed.collect()),
            is_truncated: Some(more),
            next_continuation_token: next,
            ..ListObjectsV2Output::default()
        })
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> Answer<ListMultipartUploadsOutput> {
        let input = req.input;
        let prefix = input.prefix.unwrap_or_default();
        let marker = input.key_marker.zip(input.upload_id_marker);
        let marker = marker.map(|(key, id)| format!("{key}\n{id}"));
        let state = self.state();
        let uploads = state.uploads.iter();
        let (page, more) = self.page(uploads, &prefix, marker.as_deref(), |id, upload| {
            format!("{}\n{id}", upload.key)
        });
        let listed: Vec<_> = page
            .iter()
            .filter_map(|(marker, upload)| {
                Some(MultipartUpload {
                    key: Some(upload.key.clone()),
                    upload_id: Some(marker.split_once('\n')?.1.to_owned()),
                    initiated: Some(Timestamp::from(upload.initiated)),
                    ..MultipartUpload::default()
                })
            })
            .collect();
        let last = listed.last().filter(|_| more);
        done(ListMultipartUploadsOutput {
            is_truncated: Some(more),
            next_key_marker: last.and_then(|last| last.key.clone()),
            next_upload_id_marker: last.and_then(|last| last.upload_id.clone()),
            uploads: Some(listed),
            ..ListMultipartUploadsOutput::default()
        })
    }
}
