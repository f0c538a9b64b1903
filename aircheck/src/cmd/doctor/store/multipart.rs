//! What the object store does with uploads in parts.
//!
//! Owns the order in which the archiver would do it; must never leave an upload open.

use super::{META, Patient, Said, Weight, crc, said};
use crate::cmd::doctor::Findings;
use aws_sdk_s3::{
    primitives::ByteStream,
    types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart},
};
use bytes::Bytes;

/// Smallest part but for the last one.
const PART: usize = 5 << 20;
const MULTI_HEADS: [&str; 3] = [
    "store: HEAD tells the length of a multipart object",
    "store: HEAD tells the metadata of a multipart object",
    "store: HEAD tells CRC64NVME of a multipart object",
];

impl Patient {
    async fn begin(&self, name: &str, whole: bool) -> Said<String> {
        let call = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(self.key(name));
        let call = call
            .metadata(META, &self.token)
            .set_checksum_algorithm(whole.then_some(ChecksumAlgorithm::Crc64Nvme))
            .set_checksum_type(whole.then_some(ChecksumType::FullObject));
        said(call.send().await)?
            .upload_id
            .ok_or_else(|| "no upload id".to_owned())
    }

    async fn part(
        &self,
        name: &str,
        upload: &str,
        (number, checks): (i32, bool),
        data: Bytes,
    ) -> Said<CompletedPart> {
        let checksum = checks.then(|| crc(&data));
        let call = self
            .client
            .upload_part()
            .bucket(&self.bucket)
            .key(self.key(name));
        let call = call
            .upload_id(upload)
            .part_number(number)
            .set_checksum_crc64_nvme(checksum.clone())
            .body(ByteStream::from(data));
        let etag = said(call.send().await)?
            .e_tag
            .ok_or_else(|| "no ETag".to_owned())?;
        let part = CompletedPart::builder().part_number(number).e_tag(etag);
        Ok(part.set_checksum_crc64_nvme(checksum).build())
    }

    async fn complete(&self, upload: &str, parts: &[CompletedPart], crc: Option<&str>) -> Said<()> {
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(parts.to_vec()))
            .build();
        let call = self.client.complete_multipart_upload().bucket(&self.bucket);
        let call = call
            .key(self.key("multi"))
            .upload_id(upload)
            .multipart_upload(parts)
            .set_checksum_crc64_nvme(crc.map(str::to_owned))
            .set_checksum_type(crc.map(|_| ChecksumType::FullObject));
        said(call.send().await).map(drop)
    }

    /// An upload from begin to end.
    pub(super) async fn multipart(&self, findings: &mut Findings) {
        let checked = self.begin("multi", true).await;
        let (what, checks) = (
            "store: multipart with a checksum of the whole",
            checked.is_ok(),
        );
        let upload = match findings.tried(Weight::Useful, what, checked) {
            Some(upload) => Ok(upload),
            None => self.begin("multi", false).await,
        };
        let what = "store: multipart upload";
        let Some(upload) = findings.tried(Weight::Needed, what, upload) else {
            return;
        };
        let Some((parts, bytes)) = self.filled(findings, &upload, checks).await else {
            // Whether the store has it still is asked elsewhere.
            return drop(self.abort("multi", &upload).await);
        };
        let head = self.head("multi").await;
        self.compare(findings, MULTI_HEADS, &head, bytes.len(), &crc(&bytes));
        let found = self.get("multi", None).await;
        let same = found.as_deref().is_ok_and(|found| found == bytes);
        let told = found.err().unwrap_or_default();
        findings.add(
            Weight::Needed,
            "store: its bytes are the parts'",
            same,
            told,
        );
        let again = self.complete(&upload, &parts, None).await;
        let told = again.as_ref().err().cloned().unwrap_or_default();
        findings.add(
            Weight::Known,
            "store: Complete again succeeds",
            again.is_ok(),
            told,
        );
    }

    /// Sends and completes the parts; gives them and their bytes.
    async fn filled(
        &self,
        findings: &mut Findings,
        upload: &str,
        checks: bool,
    ) -> Option<([CompletedPart; 2], Vec<u8>)> {
        let (first, last) = (Bytes::from(vec![1; PART]), Bytes::from_static(b"last"));
        let bytes = [first.clone(), last.clone()].concat();
        let parts = async {
            // As the archiver does: the first part again at the end, with its header complete.
            self.part("multi", upload, (1, checks), Bytes::from(vec![0; PART]))
                .await?;
            let last = self.part("multi", upload, (2, checks), last).await?;
            Ok([self.part("multi", upload, (1, checks), first).await?, last])
        };
        let parts: Said<[CompletedPart; 2]> = parts.await;
        let parts = findings.tried(Weight::Needed, "store: a part can be replaced", parts)?;
        let whole = checks.then(|| crc(&bytes));
        let completed = self.complete(upload, &parts, whole.as_deref()).await;
        findings.tried(Weight::Needed, "store: Complete", completed)?;
        Some((parts, bytes))
    }

    async fn abort(&self, name: &str, upload: &str) -> Said<()> {
        let call = self
            .client
            .abort_multipart_upload()
            .bucket(&self.bucket)
            .key(self.key(name));
        said(call.upload_id(upload).send().await).map(drop)
    }

    /// Ids of the uploads below our keys.
    async fn uploads_begun(&self) -> Said<Vec<String>> {
        let call = self
            .client
            .list_multipart_uploads()
            .bucket(&self.bucket)
            .prefix(&self.prefix);
        let listed = said(call.send().await)?.uploads.unwrap_or_default();
        Ok(listed
            .into_iter()
            .filter_map(|open| open.upload_id)
            .collect())
    }

    /// An upload that is given up.
    pub(super) async fn aborted(&self, findings: &mut Findings) {
        let Ok(upload) = self.begin("aborted", false).await else {
            return;
        };
        let listed = self.uploads_begun().await;
        let found = listed.map(|ids| ids.contains(&upload));
        findings.add(
            Weight::Useful,
            "store: uploads under way are listed",
            found == Ok(true),
            found.err().unwrap_or_default(),
        );
        let aborted = self.abort("aborted", &upload).await;
        findings.tried(Weight::Useful, "store: Abort", aborted);
        let late = Bytes::from_static(b"late");
        let late = self.part("aborted", &upload, (1, false), late).await;
        let told = late.as_ref().err().cloned().unwrap_or_default();
        findings.add(
            Weight::Known,
            "store: a part after Abort is refused",
            late.is_err(),
            told,
        );
    }
}
