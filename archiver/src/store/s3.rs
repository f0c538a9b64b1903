//! The object store over S3, through aws-sdk-s3.
//!
//! Owns how each call looks on the wire: checksums, preconditions, deadlines, errors. Must never
//! retry: the SDK's own retries are off, so that every failure is seen and decided by the caller.

use super::{
    Call, Crc64, Extent, Head, ObjectMeta, ObjectStore, PartTag, Precondition, StoreError,
    UploadRef,
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
    primitives::ByteStream,
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

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A call that carries no media.
const QUICK_TIMEOUT: Duration = Duration::from_secs(15);
/// A call that carries media, or makes the store move some, beside the time the bytes may take.
const BULK_TIMEOUT: Duration = Duration::from_secs(60);
/// Slowest uplink that is still waited for, bytes per second.
const BULK_RATE: u64 = 64 << 10;
/// Between two pieces of an object that is read back.
const PIECE_TIMEOUT: Duration = Duration::from_secs(30);

const META_SESSION: &str = "aircheck-session";
const META_EPOCH: &str = "aircheck-epoch";
const META_CRC: &str = "aircheck-crc64nvme";

/// One bucket.
#[derive(Debug)]
pub(crate) struct S3Store {
    /// For calls without media.
    quick: Client,
    /// For calls with media.
    bulk: Client,
    /// Signs URLs for the endpoint that listeners reach, which may be another than ours.
    public: Client,
    bucket: String,
    /// Cleared for good when the store refuses whole-object checksums of multipart uploads.
    whole_checksums: AtomicBool,
}

impl S3Store {
    /// Opens nothing yet: a store that is away is no error.
    ///
    /// # Errors
    /// If there are no credentials.
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        let keys = config.credentials()?;
        let credentials = Credentials::new(keys.id, keys.secret, keys.token, None, "aircheck");
        let http = HttpBuilder::new()
            .tls_provider(tls::Provider::Rustls(
                tls::rustls_provider::CryptoMode::Ring,
            ))
            .build_https();
        let build = |endpoint: Option<&String>, timeout: Duration| {
            let timeouts = TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                // The SDK counts sending the body as waiting for the answer.
                .read_timeout(timeout)
                .operation_timeout(timeout)
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
        let bulk_timeout = BULK_TIMEOUT + Duration::from_secs(config.part_size / BULK_RATE);
        Ok(Self {
            quick: build(endpoint, QUICK_TIMEOUT),
            bulk: build(endpoint, bulk_timeout),
            public: build(
                config.s3_public_endpoint.as_ref().or(endpoint),
                QUICK_TIMEOUT,
            ),
            bucket: config.s3_bucket.clone(),
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
            .quick
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
        let output = call
            .send()
            .await
            .map_err(|e| fault(Call::CreateUpload, e))?;
        let id = output.upload_id.ok_or_else(|| silent(Call::CreateUpload))?;
        Ok(UploadRef {
            key: key.to_owned(),
            id,
        })
    }
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        let sent = self
            .quick
            .head_object()
            .bucket(&self.bucket)
            .key(key)
            .checksum_mode(ChecksumMode::Enabled)
            .send()
            .await;
        let output = match sent {
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
        self.bulk
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .content_type(&meta.content_type)
            .content_disposition(&meta.disposition)
            .set_metadata(Some(metadata(meta)))
            .set_checksum_crc64_nvme(meta.crc.map(Crc64::to_base64))
            .set_if_none_match(absent)
            .set_if_match(tag)
            .body(ByteStream::from(body))
            .send()
            .await
            .map_err(|e| fault(Call::Put, e))?;
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
        let output = self
            .bulk
            .upload_part()
            .bucket(&self.bucket)
            .key(&upload.key)
            .upload_id(&upload.id)
            .part_number(number)
            .set_checksum_crc64_nvme(checksum)
            .body(ByteStream::from(body))
            .send()
            .await
            .map_err(|e| fault(Call::UploadPart, e))?;
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
        let mut call = self
            .bulk
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
        call.send().await.map_err(|e| fault(Call::Complete, e))?;
        Ok(())
    }

    async fn abort(&self, upload: &UploadRef) -> Result<(), StoreError> {
        let sent = self
            .quick
            .abort_multipart_upload()
            .bucket(&self.bucket)
            .key(&upload.key)
            .upload_id(&upload.id)
            .send()
            .await;
        match sent.map_err(|e| fault(Call::Abort, e)) {
            Ok(_) | Err(StoreError::NoSuchUpload { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn read_back(&self, key: &str) -> Result<Option<Extent>, StoreError> {
        let sent = self
            .bulk
            .get_object()
            .bucket(&self.bucket)
            .key(key)
            .send()
            .await;
        let mut body = match sent {
            Ok(output) => output.body,
            Err(error) if status(&error) == Some(404) => return Ok(None),
            Err(error) => return Err(fault(Call::Get, error)),
        };
        let unknown = |source| StoreError::Unknown {
            call: Call::Get,
            source,
        };
        let mut read = Extent {
            bytes: 0,
            crc: Crc64::EMPTY,
        };
        loop {
            let piece = tokio::time::timeout(PIECE_TIMEOUT, body.try_next()).await;
            let piece = piece
                .map_err(|e| unknown(e.into()))?
                .map_err(|e| unknown(e.into()))?;
            let Some(piece) = piece else {
                return Ok(Some(read));
            };
            read.crc = read.crc.then(Crc64::of(&piece), piece.len() as u64);
            read.bytes += piece.len() as u64;
        }
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let sent = self
            .quick
            .delete_object()
            .bucket(&self.bucket)
            .key(key)
            .send()
            .await;
        match sent {
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
        let unknown = |source| StoreError::Unknown {
            call: Call::Presign,
            source,
        };
        let expiry = PresigningConfig::expires_in(ttl).map_err(|e| unknown(e.into()))?;
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
    StoreError::Unknown {
        call,
        source: "the answer is incomplete".into(),
    }
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
        // Throttling and expired clocks pass; they say nothing about the call.
        (Some(408 | 429), _) => StoreError::Unknown {
            call,
            source: error.into(),
        },
        (Some(status @ 400..=499), code) => StoreError::Refused {
            call,
            status,
            code: code.to_owned(),
        },
        _ => StoreError::Unknown {
            call,
            source: error.into(),
        },
    }
}
