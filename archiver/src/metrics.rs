//! Metrics of the archiver.
//!
//! Owns their names; none has a label that grows with the number of sessions.

use aircheck_core::recording::Status;
use metrics::{counter, histogram};
use std::time::Duration;

/// A recording became final.
pub(crate) fn archived(status: Status, took: Duration) {
    counter!("aircheck_archives_total", "status" => status.as_str()).increment(1);
    histogram!("aircheck_finalize_seconds").record(took);
}

/// A rendition was made, or an attempt to make it failed.
pub(crate) fn rendered(made: bool) {
    let result = if made { "ok" } else { "error" };
    counter!("aircheck_renditions_total", "result" => result).increment(1);
}

/// A part, or a small object as a whole, was sent.
pub(crate) fn part_sent(bytes: u64) {
    counter!("aircheck_upload_parts_total", "result" => "ok").increment(1);
    counter!("aircheck_uploaded_bytes_total").increment(bytes);
}

/// A part, or a small object as a whole, was not taken.
pub(crate) fn part_failed() {
    counter!("aircheck_upload_parts_total", "result" => "error").increment(1);
}

/// An upload that nobody owned was dropped.
pub(crate) fn upload_swept() {
    counter!("aircheck_uploads_swept_total").increment(1);
}
