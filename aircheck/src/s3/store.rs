//! The directory behind the development S3 server.
//!
//! Owns what s3s-fs leaves out and an archive depends on: objects are on disk before they are
//! confirmed, checksums are checked and told, conditional writers take turns, and an upload that is
//! gone is said to be gone. Must never change bytes.

use super::{
    assembly::{Assemblies, Whole},
    files::{self, Object},
};
use async_trait::async_trait;
use s3s::{
    S3, S3ErrorCode, S3Request, S3Response, S3Result,
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumType,
        CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CreateBucketInput,
        CreateBucketOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput,
        DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, ETag,
        GetBucketLocationInput, GetBucketLocationOutput, GetObjectInput, GetObjectOutput,
        HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListBucketsInput,
        ListBucketsOutput, ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsInput,
        ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output, ListPartsInput,
        ListPartsOutput, MultipartUpload, PutObjectInput, PutObjectOutput, Timestamp,
        UploadPartInput, UploadPartOutput,
    },
    s3_error,
};
use s3s_fs::FileSystem;
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::{Mutex, MutexGuard};

/// Least bytes of a part that is not the last, as in S3.
const PART_MIN: u64 = 5 << 20;

type Answer<T> = S3Result<S3Response<T>>;

/// One directory, with a sub-directory a bucket.
#[derive(Debug)]
pub(super) struct Store {
    inner: FileSystem,
    root: PathBuf,
    /// Held by conditional writers, so that of two that race only one finds its condition true.
    turn: Mutex<()>,
    assemblies: Arc<Assemblies>,
}

impl Store {
    /// `root` is absolute and exists.
    ///
    /// # Errors
    /// If it can't be read.
    pub(super) fn open(root: &Path) -> Result<Self, s3s_fs::Error> {
        let inner = FileSystem::new(root)?;
        Ok(Self {
            inner,
            root: root.to_owned(),
            turn: Mutex::new(()),
            assemblies: Arc::new(Assemblies::new(PART_MIN)),
        })
    }

    async fn turn(&self, conditional: bool) -> Option<MutexGuard<'_, ()>> {
        if conditional {
            Some(self.turn.lock().await)
        } else {
            None
        }
    }

    fn object(&self, bucket: &str, key: &str) -> Object {
        Object::new(&self.root, bucket, key)
    }

    /// Completes an upload whose parts were put together as they came; `None`: they were not.
    async fn assembled(
        &self,
        input: &CompleteMultipartUploadInput,
        numbers: &[i32],
    ) -> S3Result<Option<CompleteMultipartUploadOutput>> {
        if input.if_match.is_some() {
            return Ok(None);
        }
        let (assemblies, root) = (Arc::clone(&self.assemblies), self.root.clone());
        let (id, listed) = (input.upload_id.clone(), numbers.to_vec());
        let whole = blocking(move || assemblies.whole(&root, &id, &listed)).await?;
        let Some(whole) = whole else { return Ok(None) };
        let claimed = input.checksum_crc64nvme.as_ref();
        if claimed.is_some_and(|claimed| *claimed != whole.crc64nvme) {
            return Err(s3_error!(
                BadDigest,
                "The object's checksum is another one."
            ));
        }
        let object = self.object(&input.bucket, &input.key);
        let _turn = self.turn(input.if_none_match.is_some()).await;
        if input.if_none_match.is_some() && object.exists() {
            return Err(s3_error!(PreconditionFailed, "Object already exists"));
        }
        let output = completed(input, &whole);
        let (root, id) = (self.root.clone(), input.upload_id.clone());
        blocking(move || {
            object.place(&id, &whole)?;
            files::end_upload(&root, &id)
        })
        .await?;
        self.assemblies.forget(&input.upload_id);
        Ok(Some(output))
    }

    /// S3 says `NoSuchUpload` where s3s-fs says `AccessDenied`.
    fn known(&self, upload_id: &str) -> S3Result<()> {
        if files::upload_exists(&self.root, upload_id) {
            return Ok(());
        }
        Err(s3_error!(
            NoSuchUpload,
            "The specified upload does not exist."
        ))
    }
}

fn completed(input: &CompleteMultipartUploadInput, whole: &Whole) -> CompleteMultipartUploadOutput {
    CompleteMultipartUploadOutput {
        bucket: Some(input.bucket.clone()),
        key: Some(input.key.clone()),
        e_tag: Some(ETag::Strong(whole.e_tag.clone())),
        checksum_crc64nvme: Some(whole.crc64nvme.clone()),
        ..Default::default()
    }
}

/// Runs file work where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> S3Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(s3s::S3Error::internal_error),
        Err(panic) => Err(s3s::S3Error::internal_error(panic)),
    }
}

#[async_trait]
impl S3 for Store {
    async fn put_object(&self, req: S3Request<PutObjectInput>) -> Answer<PutObjectOutput> {
        let input = &req.input;
        let object = self.object(&input.bucket, &input.key);
        let conditional = input.if_none_match.is_some() || input.if_match.is_some();
        let turn = self.turn(conditional).await;
        let put = self.inner.put_object(req).await;
        drop(turn);
        match put {
            Ok(response) => {
                blocking(move || object.sync()).await?;
                Ok(response)
            }
            // The damaged bytes have taken the object's place by then.
            Err(error) if *error.code() == S3ErrorCode::BadDigest => {
                blocking(move || object.remove()).await?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> Answer<UploadPartOutput> {
        self.known(&req.input.upload_id)?;
        let part = files::part(&self.root, &req.input.upload_id, req.input.part_number);
        let (number, id) = (req.input.part_number, req.input.upload_id.clone());
        let claimed = req.input.checksum_crc64nvme.clone();
        let mut response = self.inner.upload_part(req).await?;
        let (assemblies, root) = (Arc::clone(&self.assemblies), self.root.clone());
        let added = part.clone();
        let crc = blocking(move || assemblies.add(&root, &id, number, &added)).await?;
        if claimed.is_some_and(|claimed| claimed != crc) {
            blocking(move || std::fs::remove_file(part)).await?;
            return Err(s3_error!(BadDigest, "The part's checksum is another one."));
        }
        response.output.checksum_crc64nvme = Some(crc);
        Ok(response)
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> Answer<CompleteMultipartUploadOutput> {
        let input = &req.input;
        self.known(&input.upload_id)?;
        let object = self.object(&input.bucket, &input.key);
        let numbers = input
            .multipart_upload
            .iter()
            .flat_map(|upload| upload.parts.iter().flatten());
        let numbers: Vec<_> = numbers.filter_map(|part| part.part_number).collect();
        if let Some(done) = self.assembled(input, &numbers).await? {
            return Ok(S3Response::new(done));
        }
        let parts: Vec<_> = numbers
            .iter()
            .map(|&number| files::part(&self.root, &input.upload_id, number))
            .collect();
        // s3s-fs consumes the upload as it goes, so whatever is wrong must be found before.
        let Some(crc) = blocking(move || files::checksum(&parts)).await? else {
            return Err(s3_error!(
                InvalidPart,
                "A part that is listed was not uploaded."
            ));
        };
        if input
            .checksum_crc64nvme
            .as_ref()
            .is_some_and(|claimed| *claimed != crc)
        {
            return Err(s3_error!(
                BadDigest,
                "The object's checksum is another one."
            ));
        }
        let conditional = input.if_none_match.is_some() || input.if_match.is_some();
        let turn = self.turn(conditional).await;
        let id = input.upload_id.clone();
        let response = self.inner.complete_multipart_upload(req).await?;
        drop(turn);
        self.assemblies.forget(&id);
        let (root, over) = (self.root.clone(), id);
        blocking(move || files::remove_whole(&root, &over)).await?;
        blocking(move || object.note_checksum(&crc).and_then(|()| object.sync())).await?;
        Ok(response)
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> Answer<AbortMultipartUploadOutput> {
        self.known(&req.input.upload_id)?;
        self.assemblies.forget(&req.input.upload_id);
        self.inner.abort_multipart_upload(req).await
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
        let mut response = self.inner.head_object(req).await?;
        if response.output.checksum_crc64nvme.is_some() {
            response.output.checksum_type =
                Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT));
        }
        Ok(response)
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> Answer<GetObjectOutput> {
        self.inner.get_object(req).await
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> Answer<CreateMultipartUploadOutput> {
        self.inner.create_multipart_upload(req).await
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> Answer<ListPartsOutput> {
        self.known(&req.input.upload_id)?;
        let mut response = self.inner.list_parts(req).await?;
        if let Some(parts) = &mut response.output.parts {
            parts.sort_by_key(|part| part.part_number);
        }
        Ok(response)
    }

    /// All at once: a development store holds few.
    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> Answer<ListMultipartUploadsOutput> {
        let (root, bucket) = (self.root.clone(), req.input.bucket);
        let open = blocking(move || files::open_uploads(&root, &bucket)).await?;
        let prefix = req.input.prefix.unwrap_or_default();
        let wanted = open
            .into_iter()
            .filter(|open| open.key.starts_with(&prefix));
        let uploads = wanted.map(|open| MultipartUpload {
            key: Some(open.key),
            upload_id: Some(open.id),
            initiated: Some(Timestamp::from(open.begun)),
            ..MultipartUpload::default()
        });
        Ok(S3Response::new(ListMultipartUploadsOutput {
            uploads: Some(uploads.collect()),
            is_truncated: Some(false),
            ..ListMultipartUploadsOutput::default()
        }))
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> Answer<DeleteObjectOutput> {
        let object = self.object(&req.input.bucket, &req.input.key);
        let response = self.inner.delete_object(req).await?;
        // s3s-fs leaves its notes behind, and the folders.
        blocking(move || object.remove()).await?;
        Ok(response)
    }

    async fn delete_objects(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> Answer<DeleteObjectsOutput> {
        self.inner.delete_objects(req).await
    }

    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> Answer<CreateBucketOutput> {
        self.inner.create_bucket(req).await
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> Answer<HeadBucketOutput> {
        self.inner.head_bucket(req).await
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> Answer<GetBucketLocationOutput> {
        self.inner.get_bucket_location(req).await
    }

    async fn list_buckets(&self, req: S3Request<ListBucketsInput>) -> Answer<ListBucketsOutput> {
        self.inner.list_buckets(req).await
    }

    async fn list_objects(&self, req: S3Request<ListObjectsInput>) -> Answer<ListObjectsOutput> {
        self.inner.list_objects(req).await
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> Answer<ListObjectsV2Output> {
        self.inner.list_objects_v2(req).await
    }
}
