//! The object store over S3, through aws-sdk-s3.
//!
//! Owns how each call looks on the wire: checksums, preconditions, deadlines, errors. Must never
//! retry: the SDK's own retries are off, so that every failure is seen and decided by the caller.

use super::{
    Call, Crc64, Extent, Head, Listed, ObjectMeta, ObjectStore, OpenUpload, PartTag, Precondition,
    Source, StoreError, UploadRef,
};
use crate::config::{Config, ConfigError};
use async_trait::async_trait;
use aws_sdk_s3::{
    Client,
    config::{
        BehaviorVersion, Credentials, Region, RequestChecksumCalculation,
        ResponseChecksumValidation, http::HttpResponse, retry::RetryConfig, timeout::TimeoutConfig,
    },
    error::{ProvideErrorMetadata, SdkError},
    presigning::PresigningConfig,
    primitives::{ByteStream, DateTime},
    types::{
        ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart,
    },
};
use aws_smithy_http_client::{Builder as HttpBuilder, tls};
use bytes::Bytes;
use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a call may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// A call that carries no media.
    pub(super) quick: Duration,
    /// A call that carries media, or makes the store move some, beside the time the bytes may take.
    pub(super) bulk: Duration,
    /// Slowest link that is still waited for, bytes per second.
    pub(super) rate: u64,
}

impl Patience {
    const USUAL: Self = Self {
        quick: Duration::from_secs(15),
        bulk: Duration::from_secs(60),
        rate: 64 << 10,
    };

    /// For a call that carries so many bytes.
    fn carrying(&self, bytes: u64) -> Duration {
        self.bulk + Duration::from_secs(bytes / self.rate)
    }
}

/// Most uploads under way that one list holds; the rest is for the next one.
const UPLOADS_MAX: usize = 10_000;

const META_SESSION: &str = "aircheck-session";
const META_EPOCH: &str = "aircheck-epoch";
const META_CRC: &str = "aircheck-crc64nvme";

/// One bucket.
#[derive(Debug)]
pub(crate) struct S3Store {
    client: Client,
    /// Signs URLs for the endpoint that listeners reach, which may be another than ours.
    public: Client,
    bucket: String,
    patience: Patience,
    /// Cleared for good when the store refuses whole-object checksums of multipart uploads.
    whole_checksums: AtomicBool,
}

impl S3Store {
    /// Opens nothing yet: a store that is away is no error.
    ///
    /// # Errors
    /// If there are no credentials.
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        Self::with(config, Patience::USUAL)
    }

    pub(super) fn with(config: &Config, patience: Patience) -> Result<Self, ConfigError> {
        let keys = config.credentials()?;
        let credentials = Credentials::new(keys.id, keys.secret, keys.token, None, "aircheck");
        let http = HttpBuilder::new()
            .tls_provider(tls::Provider::Rustls(
                tls::rustls_provider::CryptoMode::Ring,
            ))
            .build_https();
        let build = |endpoint: Option<&String>| {
            // The deadline of a call depends on what it carries: see `within`. That of the SDK counts
            // sending the body as waiting for the answer.
            let timeouts = TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .disable_read_timeout()
                .build();
            let mut builder = aws_sdk_s3::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(Region::new(config.s3_region.clone()))
                .credentials_provider(credentials.clone())
                .http_client(http.clone())
                .timeout_config(timeouts)
                .retry_config(RetryConfig::disabled())
                .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
                .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
                .force_path_style(config.path_style());
            builder.set_endpoint_url(endpoint.cloned());
            Client::from_conf(builder.build())
        };
        let endpoint = config.s3_endpoint.as_ref();
        Ok(Self {
            client: build(endpoint),
            public: build(config.s3_public_endpoint.as_ref().or(endpoint)),
            bucket: config.s3_bucket.clone(),
            patience,
            whole_checksums: AtomicBool::new(true),
        })
    }

    async fn create(
        &self,
        key: &str,
        meta: &ObjectMeta,
        whole_checksum: bool,
    ) -> Result<UploadRef, StoreError> {
        let mut call = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(key)
            .content_type(&meta.content_type)
            .content_disposition(&meta.disposition)
            .set_metadata(Some(metadata(meta)));
        if whole_checksum {
            call = call
                .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
                .checksum_type(ChecksumType::FullObject);
        }
        let output = self
            .quick(Call::CreateUpload, Box::pin(call.send()))
            .await?;
        let output = output.map_err(|e| fault(Call::CreateUpload, e))?;
        let id = output.upload_id.ok_or_else(|| silent(Call::CreateUpload))?;
        Ok(UploadRef {
            key: key.to_owned(),
            id,
        })
    }
}

impl S3Store {
    /// A call that carries no media.
    async fn quick<T>(&self, call: Call, sent: impl Future<Output = T>) -> Result<T, StoreError> {
        within(self.patience.quick, call, sent).await
    }

    /// Length and bytes of an object; `None`: there is no such object.
    async fn open(&self, key: &str) -> Result<Option<(u64, ByteStream)>, StoreError> {
        let call = self.client.get_object().bucket(&self.bucket).key(key);
        match self.quick(Call::Get, Box::pin(call.send())).await? {
            Ok(output) => {
                let length = output.content_length.and_then(|n| n.try_into().ok());
                Ok(Some((length.unwrap_or(0), output.body)))
            }
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(fault(Call::Get, error)),
        }
    }
}

/// Gives up a call that takes longer; then it may still have taken effect.
async fn within<T>(
    limit: Duration,
    call: Call,
    sent: impl Future<Output = T>,
) -> Result<T, StoreError> {
    let answered = tokio::time::timeout(limit, sent).await;
    answered.map_err(|late| lost(call, late))
}

fn lost(call: Call, source: impl Into<Source>) -> StoreError {
    StoreError::Unknown {
        call,
        source: source.into(),
    }
}

fn millis(time: DateTime) -> Option<u64> {
    time.to_millis().ok()?.try_into().ok()
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        let call = self
            .client
            .head_object()
            .bucket(&self.bucket)
            .key(key)
            .checksum_mode(ChecksumMode::Enabled);
        let output = match self.quick(Call::Head, Box::pin(call.send())).await? {
            Ok(output) => output,
            Err(error) if status(&error) == Some(404) => return Ok(None),
            Err(error) => return Err(fault(Call::Head, error)),
        };
        Ok(Some(Head {
            bytes: output
                .content_length
                .and_then(|n| n.try_into().ok())
                .unwrap_or(0),
            session: output
                .metadata
                .and_then(|mut meta| meta.remove(META_SESSION)),
            crc: output
                .checksum_crc64_nvme
                .as_deref()
                .and_then(Crc64::from_base64),
            etag: output.e_tag,
        }))
    }

    async fn put(
        &self,
        key: &str,
        meta: &ObjectMeta,
        body: Bytes,
        precondition: &Precondition,
    ) -> Result<(), StoreError> {
        let (absent, tag) = conditions(precondition);
        let limit = self.patience.carrying(body.len() as u64);
        let call = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .content_type(&meta.content_type)
            .content_disposition(&meta.disposition)
            .set_metadata(Some(metadata(meta)))
            .set_checksum_crc64_nvme(meta.crc.map(Crc64::to_base64))
            .set_if_none_match(absent)
            .set_if_match(tag)
            .body(ByteStream::from(body));
        let sent = within(limit, Call::Put, Box::pin(call.send())).await?;
        sent.map_err(|e| fault(Call::Put, e))?;
        Ok(())
    }

    async fn create_upload(&self, key: &str, meta: &ObjectMeta) -> Result<UploadRef, StoreError> {
        if !self.whole_checksums.load(Ordering::Relaxed) {
            return self.create(key, meta, false).await;
        }
        match self.create(key, meta, true).await {
            Err(StoreError::Refused {
                status: 400 | 501,
                code,
                ..
            }) => {
                let upload = self.create(key, meta, false).await?;
                tracing::warn!(
                    code,
                    "store refuses whole-object checksums; archives are read back"
                );
                self.whole_checksums.store(false, Ordering::Relaxed);
                Ok(upload)
            }
            done => done,
        }
    }

    async fn upload_part(
        &self,
        upload: &UploadRef,
        number: i32,
        body: Bytes,
        crc: Crc64,
    ) -> Result<PartTag, StoreError> {
        let checksum = self
            .whole_checksums
            .load(Ordering::Relaxed)
            .then(|| crc.to_base64());
        let limit = self.patience.carrying(body.len() as u64);
        let call = self
            .client
            .upload_part()
            .bucket(&self.bucket)
            .key(&upload.key)
            .upload_id(&upload.id)
            .part_number(number)
            .set_checksum_crc64_nvme(checksum)
            .body(ByteStream::from(body));
        let sent = within(limit, Call::UploadPart, Box::pin(call.send())).await?;
        let output = sent.map_err(|e| fault(Call::UploadPart, e))?;
        let etag = output.e_tag.ok_or_else(|| silent(Call::UploadPart))?;
        Ok(PartTag { number, etag, crc })
    }

    async fn complete(
        &self,
        upload: &UploadRef,
        parts: &[PartTag],
        whole: Extent,
        precondition: &Precondition,
    ) -> Result<(), StoreError> {
        let checksums = self.whole_checksums.load(Ordering::Relaxed);
        let listed = parts.iter().map(|part| {
            CompletedPart::builder()
                .part_number(part.number)
                .e_tag(&part.etag)
                .set_checksum_crc64_nvme(checksums.then(|| part.crc.to_base64()))
                .build()
        });
        let (absent, tag) = conditions(precondition);
        // A store may copy the parts together, at a far better rate than that of a link.
        let limit = self.patience.carrying(whole.bytes >> 6);
        let mut call = self
            .client
            .complete_multipart_upload()
            .bucket(&self.bucket)
            .key(&upload.key)
            .upload_id(&upload.id)
            .multipart_upload(
                CompletedMultipartUpload::builder()
                    .set_parts(Some(listed.collect()))
                    .build(),
            )
            .set_mpu_object_size(whole.bytes.try_into().ok())
            .set_if_none_match(absent)
            .set_if_match(tag);
        if checksums {
            call = call
                .checksum_crc64_nvme(whole.crc.to_base64())
                .checksum_type(ChecksumType::FullObject);
        }
        let sent = within(limit, Call::Complete, Box::pin(call.send())).await?;
        sent.map_err(|e| fault(Call::Complete, e))?;
        Ok(())
    }

    async fn abort(&self, upload: &UploadRef) -> Result<(), StoreError> {
        let call = self
            .client
            .abort_multipart_upload()
            .bucket(&self.bucket)
            .key(&upload.key)
            .upload_id(&upload.id);
        let sent = self.quick(Call::Abort, Box::pin(call.send())).await?;
        match sent.map_err(|e| fault(Call::Abort, e)) {
            Ok(_) | Err(StoreError::NoSuchUpload { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn fetch(
        &self,
        key: &str,
        sink: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<Option<Extent>, StoreError> {
        let Some((bytes, mut body)) = self.open(key).await? else {
            return Ok(None);
        };
        let read = async move {
            let mut read = Extent::NOTHING;
            while let Some(piece) = body.try_next().await.map_err(StoreError::reading)? {
                sink.write_all(&piece).await.map_err(StoreError::reading)?;
                read = read.then(Crc64::of(&piece), piece.len() as u64);
            }
            sink.flush().await.map_err(StoreError::reading)?;
            Ok(read)
        };
        let read = within(self.patience.carrying(bytes), Call::Get, read).await?;
        read.map(Some)
    }

    async fn read(&self, key: &str, max_bytes: u64) -> Result<Option<Bytes>, StoreError> {
        let Some((bytes, body)) = self.open(key).await? else {
            return Ok(None);
        };
        if bytes > max_bytes {
            return Ok(None);
        }
        let limit = self.patience.carrying(bytes);
        let read = within(limit, Call::Get, body.collect()).await?;
        let read = read.map_err(|e| lost(Call::Get, e))?;
        Ok(Some(read.into_bytes()))
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<Listed>, StoreError> {
        let call = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(prefix)
            .set_start_after(after.map(str::to_owned));
        let sent = self.quick(Call::List, Box::pin(call.send())).await?;
        let output = sent.map_err(|e| fault(Call::List, e))?;
        let listed = output.contents.unwrap_or_default().into_iter();
        Ok(listed
            .filter_map(|object| {
                Some(Listed {
                    key: object.key?,
                    written_unix_ms: object.last_modified.and_then(millis),
                })
            })
            .collect())
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<OpenUpload>, StoreError> {
        let mut found = Vec::new();
        let (mut key, mut id) = (None, None);
        while found.len() < UPLOADS_MAX {
            let call = self
                .client
                .list_multipart_uploads()
                .bucket(&self.bucket)
                .prefix(prefix)
                .set_key_marker(key)
                .set_upload_id_marker(id);
            let sent = self.quick(Call::ListUploads, Box::pin(call.send())).await?;
            let page = sent.map_err(|e| fault(Call::ListUploads, e))?;
            let uploads = page.uploads.unwrap_or_default().into_iter();
            found.extend(uploads.filter_map(|upload| {
                Some(OpenUpload {
                    begun_unix_ms: upload.initiated.and_then(millis),
                    upload: UploadRef {
                        key: upload.key?,
                        id: upload.upload_id?,
                    },
                })
            }));
            (key, id) = (page.next_key_marker, page.next_upload_id_marker);
            if page.is_truncated != Some(true) || key.is_none() {
                break;
            }
        }
        Ok(found)
    }

    async fn read_range(
        &self,
        key: &str,
        from: u64,
        limit: u64,
    ) -> Result<Option<Bytes>, StoreError> {
        let last = from.saturating_add(limit).saturating_sub(1);
        let call = self.client.get_object().bucket(&self.bucket).key(key);
        let call = call.range(format!("bytes={from}-{last}"));
        let body = match self.quick(Call::Get, Box::pin(call.send())).await? {
            Ok(output) => output.body,
            Err(error) if status(&error) == Some(404) => return Ok(None),
            Err(error) => return Err(fault(Call::Get, error)),
        };
        let limit = self.patience.carrying(limit);
        let read = within(limit, Call::Get, body.collect()).await?;
        let read = read.map_err(|e| lost(Call::Get, e))?;
        Ok(Some(read.into_bytes()))
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let call = self.client.delete_object().bucket(&self.bucket).key(key);
        match self.quick(Call::Delete, Box::pin(call.send())).await? {
            Ok(_) => Ok(()),
            Err(error) if status(&error) == Some(404) => Ok(()),
            Err(error) => Err(fault(Call::Delete, error)),
        }
    }

    async fn presign(
        &self,
        key: &str,
        disposition: &str,
        content_type: &str,
        ttl: Duration,
    ) -> Result<String, StoreError> {
        let expiry = PresigningConfig::expires_in(ttl).map_err(|e| lost(Call::Presign, e))?;
        let request = self
            .public
            .get_object()
            .bucket(&self.bucket)
            .key(key)
            .response_content_disposition(disposition)
            .response_content_type(content_type)
            .presigned(expiry)
            .await
            .map_err(|e| fault(Call::Presign, e))?;
        Ok(request.uri().to_owned())
    }
}

fn metadata(meta: &ObjectMeta) -> HashMap<String, String> {
    let mut named = HashMap::from([
        (META_SESSION.to_owned(), meta.session.clone()),
        (META_EPOCH.to_owned(), meta.epoch.to_string()),
    ]);
    named.extend(meta.crc.map(|crc| (META_CRC.to_owned(), crc.to_base64())));
    named
}

/// `If-None-Match` and `If-Match`.
fn conditions(precondition: &Precondition) -> (Option<String>, Option<String>) {
    match precondition {
        Precondition::Absent => (Some("*".to_owned()), None),
        Precondition::Unchanged { etag } => (None, Some(etag.clone())),
        Precondition::Unconditional => (None, None),
    }
}

fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error
        .raw_response()
        .map(|response| response.status().as_u16())
}

/// An answer that lacks what it must hold.
fn silent(call: Call) -> StoreError {
    lost(call, "the answer is incomplete")
}

fn fault<E>(call: Call, error: SdkError<E, HttpResponse>) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let code = error
        .as_service_error()
        .and_then(|e| e.meta().code())
        .unwrap_or_default();
    match (status(&error), code) {
        (_, "NoSuchUpload") => StoreError::NoSuchUpload { call },
        (Some(412 | 409), _) => StoreError::Precondition { call },
        // Throttling, clocks that differ, keys that ran out and buckets that are away pass; they say
        // nothing about the call.
        (Some(401 | 403 | 408 | 429), _) | (_, "NoSuchBucket") => lost(call, error),
        (Some(status @ 400..=499), code) => StoreError::Refused {
            call,
            status,
            code: code.to_owned(),
        },
        _ => lost(call, error),
    }
}
