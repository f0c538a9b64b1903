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
        number: i32,
        data: Bytes,
    ) -> Said<CompletedPart> {
        let call = self
            .client
            .upload_part()
            .bucket(&self.bucket)
            .key(self.key(name));
        let call = call
            .upload_id(upload)
            .part_number(number)
            .body(ByteStream::from(data));
        let etag = said(call.send().await)?
            .e_tag
            .ok_or_else(|| "no ETag".to_owned())?;
        Ok(CompletedPart::builder()
            .part_number(number)
            .e_tag(etag)
            .build())
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

    pub(super) async fn multipart(&self, findings: &mut Findings) {
        let whole = self.begin("multi", true).await;
        let detail = whole.as_ref().err().cloned().unwrap_or_default();
        findings.add(
            Weight::Useful,
            "store: multipart with a checksum of the whole",
            whole.is_ok(),
            detail,
        );
        let checks = whole.is_ok();
        let upload = match whole {
            Ok(upload) => Ok(upload),
            Err(_) => self.begin("multi", false).await,
        };
        let what = "store: multipart upload";
        let Some(upload) = findings.tried(Weight::Needed, what, upload) else {
            return;
        };
        let (first, last) = (Bytes::from(vec![1; PART]), Bytes::from_static(b"last"));
        let bytes = [first.clone(), last.clone()].concat();
        let parts = async {
            // As the archiver does: the first part again at the end, with its header complete.
            self.part("multi", &upload, 1, Bytes::from(vec![0; PART]))
                .await?;
            let last = self.part("multi", &upload, 2, last).await?;
            Ok([self.part("multi", &upload, 1, first).await?, last])
        };
        let parts: Said<[CompletedPart; 2]> = parts.await;
        let what = "store: a part can be replaced";
        let Some(parts) = findings.tried(Weight::Needed, what, parts) else {
            return;
        };
        let crc = crc(&bytes);
        let completed = self
            .complete(&upload, &parts, checks.then_some(crc.as_str()))
            .await;
        if findings
            .tried(Weight::Needed, "store: Complete", completed)
            .is_none()
        {
            return;
        }
        let head = self.head("multi").await;
        self.compare(findings, MULTI_HEADS, &head, bytes.len(), &crc);
        let found = self.get("multi", None).await;
        let same = found.as_deref().is_ok_and(|found| found == bytes);
        findings.add(
            Weight::Needed,
            "store: its bytes are the parts'",
            same,
            found.err().unwrap_or_default(),
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

    pub(super) async fn aborted(&self, findings: &mut Findings) {
        let begun = self.begin("aborted", false).await;
        let Ok(upload) = begun else { return };
        let call = self
            .client
            .abort_multipart_upload()
            .bucket(&self.bucket)
            .key(self.key("aborted"));
        let aborted = said(call.upload_id(&upload).send().await).map(drop);
        findings.tried(Weight::Useful, "store: Abort", aborted);
        let late = self
            .part("aborted", &upload, 1, Bytes::from_static(b"late"))
            .await;
        let told = late.as_ref().err().cloned().unwrap_or_default();
        findings.add(
            Weight::Known,
            "store: a part after Abort is refused",
            late.is_err(),
            told,
        );
    }
}
