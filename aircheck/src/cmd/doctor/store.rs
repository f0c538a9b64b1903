//! What the object store does.
//!
//! Owns its trial objects and removes them. Calls go out as the archiver's do: without retries, each
//! with a deadline.

mod multipart;

use super::{Findings, Weight};
use aircheck_archiver::Config;
use anyhow::Context as _;
use aws_sdk_s3::{
    Client,
    config::{
        BehaviorVersion, Credentials, Region, RequestChecksumCalculation,
        ResponseChecksumValidation, http::HttpResponse, retry::RetryConfig, timeout::TimeoutConfig,
    },
    error::{ProvideErrorMetadata, SdkError},
    operation::head_object::HeadObjectOutput,
    presigning::PresigningConfig,
    primitives::ByteStream,
    types::ChecksumMode,
};
use aws_smithy_http_client::{Builder, tls};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use crc_fast::CrcAlgorithm::Crc64Nvme;
use http::StatusCode;
use std::{fs, path::PathBuf, time::Duration};
use ulid::Ulid;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
const META: &str = "aircheck-doctor";

/// The store under examination.
#[derive(Debug)]
pub(super) struct Patient {
    client: Client,
    bucket: String,
    prefix: String,
    /// In every trial object's metadata.
    token: String,
}

/// What a call said: the error's code, for people.
type Said<T> = Result<T, String>;

fn said<T, E>(done: Result<T, SdkError<E, HttpResponse>>) -> Said<T>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    done.map_err(|error| match (&error, error.code()) {
        (_, Some(code)) => code.to_owned(),
        // The answer to HEAD has no body that could say more.
        (SdkError::ServiceError(answer), None) => {
            format!("refused with {}", answer.raw().status().as_u16())
        }
        (_, None) => {
            let mut cause: &dyn std::error::Error = &error;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            cause.to_string()
        }
    })
}

fn crc(data: &[u8]) -> String {
    STANDARD.encode(crc_fast::checksum(Crc64Nvme, data).to_be_bytes())
}

impl Patient {
    /// Opens nothing yet.
    ///
    /// # Errors
    /// If there are no keys.
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        let id = key(
            config.s3_access_key_id.as_deref(),
            config.s3_access_key_id_file.as_ref(),
            "AWS_ACCESS_KEY_ID",
        )
        .context("--s3-access-key-id")?;
        let secret = config
            .s3_secret_access_key
            .as_ref()
            .map(|secret| secret.expose());
        let secret = key(
            secret,
            config.s3_secret_access_key_file.as_ref(),
            "AWS_SECRET_ACCESS_KEY",
        )
        .context("--s3-secret-access-key")?;
        let session = std::env::var("AWS_SESSION_TOKEN")
            .ok()
            .filter(|token| !token.is_empty());
        let http = Builder::new()
            .tls_provider(tls::Provider::Rustls(
                tls::rustls_provider::CryptoMode::Ring,
            ))
            .build_https();
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_timeout(CALL_TIMEOUT)
            .build();
        let path_style = config
            .s3_path_style
            .unwrap_or_else(|| config.s3_endpoint.is_some());
        let mut builder = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(config.s3_region.clone()))
            .credentials_provider(Credentials::new(id, secret, session, None, "aircheck"))
            .http_client(http)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::disabled())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .force_path_style(path_style);
        builder.set_endpoint_url(config.s3_endpoint.clone());
        let token = Ulid::new().to_string();
        Ok(Self {
            client: Client::from_conf(builder.build()),
            bucket: config.s3_bucket.clone(),
            prefix: format!("{}doctor/{token}/", config.s3_prefix),
            token,
        })
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Asks everything, and cleans up.
    pub(super) async fn examine(&self, findings: &mut Findings) {
        let bucket = said(self.client.head_bucket().bucket(&self.bucket).send().await);
        if findings
            .tried(Weight::Needed, "store: bucket is there", bucket)
            .is_none()
        {
            return;
        }
        self.single(findings).await;
        let listed = self.keys().await;
        let found = listed.map(|keys| keys.contains(&self.key("single")));
        findings.add(
            Weight::Useful,
            "store: objects are listed",
            found == Ok(true),
            found.err().unwrap_or_default(),
        );
        self.conditions(findings).await;
        Box::pin(self.multipart(findings)).await;
        self.aborted(findings).await;
        for name in ["single", "multi"] {
            if let Err(error) = self.delete(name).await {
                findings.add(Weight::Needed, "store: DELETE", false, error);
                return;
            }
        }
        let gone = self.head("single").await.is_err();
        findings.add(Weight::Needed, "store: DELETE", gone, "");
    }

    /// Keys of our objects.
    async fn keys(&self) -> Said<Vec<String>> {
        let call = self.client.list_objects_v2().bucket(&self.bucket);
        let listed = said(call.prefix(&self.prefix).send().await)?;
        let objects = listed.contents.unwrap_or_default().into_iter();
        Ok(objects.filter_map(|object| object.key).collect())
    }

    async fn put(&self, name: &str, data: &'static [u8], checksum: &str, absent: bool) -> Said<()> {
        let call = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(self.key(name));
        let call = call
            .metadata(META, &self.token)
            .content_type("audio/webm")
            .checksum_crc64_nvme(checksum)
            .set_if_none_match(absent.then(|| "*".to_owned()))
            .body(ByteStream::from_static(data));
        said(call.send().await).map(drop)
    }

    async fn head(&self, name: &str) -> Said<HeadObjectOutput> {
        let call = self
            .client
            .head_object()
            .bucket(&self.bucket)
            .key(self.key(name));
        said(call.checksum_mode(ChecksumMode::Enabled).send().await)
    }

    async fn get(&self, name: &str, range: Option<&str>) -> Said<Bytes> {
        let call = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(self.key(name));
        let output = said(call.set_range(range.map(str::to_owned)).send().await)?;
        let body = output
            .body
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        Ok(body.into_bytes())
    }

    async fn delete(&self, name: &str) -> Said<()> {
        let call = self
            .client
            .delete_object()
            .bucket(&self.bucket)
            .key(self.key(name));
        said(call.send().await).map(drop)
    }

    async fn single(&self, findings: &mut Findings) {
        const DATA: &[u8] = b"a live show is never lost";
        let put = self.put("single", DATA, &crc(DATA), false).await;
        if findings.tried(Weight::Needed, "store: PUT", put).is_none() {
            return;
        }
        let head = self.head("single").await;
        self.compare(findings, HEADS, &head, DATA.len(), &crc(DATA));
        let whole = self.get("single", None).await;
        let same = whole.as_deref().is_ok_and(|found| found == DATA);
        findings.add(
            Weight::Needed,
            "store: GET",
            same,
            whole.err().unwrap_or_default(),
        );
        let part = self.get("single", Some("bytes=2-5")).await;
        let same = part.as_deref().is_ok_and(|found| found == &DATA[2..6]);
        findings.add(
            Weight::Useful,
            "store: GET of a range",
            same,
            part.err().unwrap_or_default(),
        );
        let signed = self.presigned("single").await;
        let same = signed.as_deref().is_ok_and(|found| found == DATA);
        findings.add(
            Weight::Needed,
            "store: presigned GET",
            same,
            signed.err().unwrap_or_default(),
        );
    }

    /// What HEAD says of an object, against what it should.
    fn compare(
        &self,
        findings: &mut Findings,
        [length, token, checksum]: [&'static str; 3],
        head: &Said<HeadObjectOutput>,
        bytes: usize,
        crc: &str,
    ) {
        let head = match head {
            Ok(head) => head,
            Err(error) => return findings.add(Weight::Needed, length, false, error),
        };
        let found = head.content_length().and_then(|n| usize::try_from(n).ok());
        findings.add(Weight::Needed, length, found == Some(bytes), "");
        let found = head.metadata().and_then(|meta| meta.get(META));
        findings.add(Weight::Needed, token, found == Some(&self.token), "");
        let found = head.checksum_crc64_nvme();
        let detail = match found {
            Some(found) if found == crc => "",
            Some(_) => "it tells another one",
            None => "not told; archives are read back as proof",
        };
        findings.add(Weight::Useful, checksum, found == Some(crc), detail);
    }

    async fn presigned(&self, name: &str) -> Said<Bytes> {
        let minute = PresigningConfig::expires_in(Duration::from_secs(60));
        let call = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(self.key(name));
        let signed = call
            .presigned(minute.map_err(|error| error.to_string())?)
            .await;
        let url = said(signed)?
            .uri()
            .parse()
            .map_err(|_| "the URL is none".to_owned())?;
        let answer = crate::http::Http::new().open(&url, None).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status() != StatusCode::OK {
            return Err(answer.status().to_string());
        }
        let body = http_body_util::BodyExt::collect(answer.into_body()).await;
        body.map(http_body_util::Collected::to_bytes)
            .map_err(|error| error.to_string())
    }

    /// `single` exists by now.
    async fn conditions(&self, findings: &mut Findings) {
        let other = b"another writer";
        let put = self.put("single", other, &crc(other), true).await;
        let refused = put.is_err();
        let detail = if refused {
            ""
        } else {
            "ignored; the database's claims decide alone"
        };
        findings.add(
            Weight::Useful,
            "store: If-None-Match on PUT",
            refused,
            detail,
        );
        let put = self.put("damaged", b"damaged", &crc(b"whole"), false).await;
        let refused = put.is_err();
        let detail = put.err().unwrap_or_default();
        findings.add(
            Weight::Useful,
            "store: PUT with a wrong checksum is refused",
            refused,
            detail,
        );
        let left = self.head("damaged").await.is_ok();
        if left && let Err(error) = self.delete("damaged").await {
            findings.add(Weight::Known, "store: trial object is left", true, error);
        }
        if refused {
            findings.add(Weight::Known, "store: and leaves nothing behind", !left, "");
        }
    }
}

const HEADS: [&str; 3] = [
    "store: HEAD tells the length",
    "store: HEAD tells the metadata",
    "store: HEAD tells CRC64NVME",
];
/// From the flag, its file, or the environment as AWS names it.
fn key(flag: Option<&str>, file: Option<&PathBuf>, variable: &str) -> anyhow::Result<String> {
    if let Some(text) = flag {
        return Ok(text.to_owned());
    }
    if let Some(path) = file {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        return Ok(text.trim().to_owned());
    }
    std::env::var(variable).with_context(|| format!("or {variable}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::{DEV_ACCESS_KEY_ID, DEV_SECRET_ACCESS_KEY, DevS3};
    use aircheck_runtime::shutdown::Shutdown;
    use clap::Parser;
    use tokio::net::TcpListener;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        config: Config,
    }

    fn patient(endpoint: &str, secret: &str) -> Patient {
        let flags = [
            "doctor",
            "--database-url=sqlite:x",
            "--s3-bucket=shows",
            "--s3-access-key-id",
            DEV_ACCESS_KEY_ID,
            "--s3-endpoint",
            endpoint,
            "--s3-secret-access-key",
            secret,
        ];
        Patient::new(&Cli::parse_from(flags).config).expect("keys")
    }

    #[tokio::test]
    async fn the_development_store_does_all_that_is_useful_and_keeps_nothing() {
        let dir = tempfile::tempdir().expect("tempdir");
        let store = DevS3::open(
            dir.path(),
            "shows",
            DEV_ACCESS_KEY_ID,
            DEV_SECRET_ACCESS_KEY,
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        let stop = Shutdown::new();
        let serving = tokio::spawn(store.expect("opens").serve(listener, stop.clone()));
        let mut findings = Findings::default();
        Box::pin(patient(&endpoint, DEV_SECRET_ACCESS_KEY).examine(&mut findings)).await;
        assert!(findings.0.len() > 20, "{findings:#?}");
        for row in findings.0.iter().filter(|row| row.weight != Weight::Known) {
            assert!(row.holds, "{row:?}");
        }
        let left = fs::read_dir(dir.path()).expect("dir").count();
        assert_eq!(left, 1, "nothing but the bucket");
        let mut findings = Findings::default();
        Box::pin(patient(&endpoint, "wrong").examine(&mut findings)).await;
        assert_eq!(findings.lacking(), 1, "{findings:?}");
        assert_eq!(findings.0[0].detail, "refused with 403");
        stop.trigger();
        serving.await.expect("serves");
    }
}
