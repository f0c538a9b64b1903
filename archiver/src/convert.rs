//! From rows to messages, and manifests on their way in.
//!
//! Owns field-by-field translation; must never decide anything about a recording.

use crate::{
    db::{RecordingRow, ShowRow, unsigned},
    error::internal,
};
use aircheck_core::{
    code::Code,
    recording::Status,
    spool::{Manifest, ManifestError},
};
use aircheck_proto::{Fault, archiver as pb};
use serde_json::Value;

/// A row as clients see it.
pub(crate) fn recording(row: RecordingRow) -> pb::Recording {
    let status = Status::parse(&row.status)
        .map(pb::RecordingStatus::from)
        .unwrap_or_default();
    let is_final = Status::parse(&row.status).is_some_and(Status::is_final);
    let objects = if is_final { row.objects.0 } else { Vec::new() };
    let renditions = row.renditions.unwrap_or_default().0;
    pb::Recording {
        id: row.id,
        show_id: row.show_id,
        version: row.version,
        status: status.into(),
        error: row.error,
        started_at_unix_ms: unsigned(row.started_at),
        ended_at_unix_ms: row.ended_at.map(unsigned),
        archived_at_unix_ms: row.archived_at.map(unsigned),
        end_reason: row.end_reason,
        mime: row.mime,
        bytes: unsigned(row.bytes),
        duration_ms: row.duration_ms.map(unsigned),
        takes: row.takes.unsigned_abs(),
        reconnects: row.reconnects.unsigned_abs(),
        gaps: row.gaps.0.into_iter().map(Into::into).collect(),
        object_key: row.object_key,
        sha256: row.sha256,
        crc64nvme: row.crc64nvme,
        markers: row.markers.0.into_iter().map(Into::into).collect(),
        rehearsal: row.rehearsal,
        sheet: row.sheet.map(|sheet| sheet.to_string()),
        objects: objects.into_iter().map(|object| object.key).collect(),
        renditions: renditions.into_iter().map(|r| r.shown().into()).collect(),
    }
}

/// A show as clients see it.
pub(crate) fn show(row: ShowRow) -> pb::Show {
    pb::Show {
        id: row.id,
        title: row.title,
        grace_s: row.grace_s.map(unsigned),
        gap_policy: row.gap_policy,
    }
}

/// Reads a manifest. NUL characters, which PostgreSQL can't keep in text, become U+FFFD: a broken
/// label must never keep a show from being archived.
///
/// # Errors
/// `AC_BAD_MESSAGE`, if it is none.
pub(crate) fn manifest(message: Option<&pb::SessionManifest>) -> Result<Manifest, Fault> {
    let Some(message) = message else {
        return Err(Fault::new(Code::BadMessage, "the manifest is missing"));
    };
    let unreadable = |error: &ManifestError| Fault::new(Code::BadMessage, error.to_string());
    let manifest = Manifest::from_json(message.json.as_bytes()).map_err(|e| unreadable(&e))?;
    if !message.json.contains("\\u0000") {
        return Ok(manifest);
    }
    let mut value = serde_json::to_value(&manifest).map_err(|e| internal(&e))?;
    replace_nul(&mut value);
    serde_json::from_value(value).map_err(|e| unreadable(&e.into()))
}

fn replace_nul(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('\0') => *text = text.replace('\0', "\u{FFFD}"),
        Value::Array(items) => items.iter_mut().for_each(replace_nul),
        Value::Object(fields) => fields.values_mut().for_each(replace_nul),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aircheck_core::{id::SessionId, recording::Marker};

    fn message(manifest: &Manifest) -> pb::SessionManifest {
        let json = manifest.to_json().expect("json");
        pb::SessionManifest {
            json,
            ingest_url: String::new(),
        }
    }

    #[test]
    fn a_nul_in_a_label_does_not_reach_the_database() {
        let show = "7".parse().expect("a show id");
        let mut sent = Manifest::new(SessionId(ulid::Ulid::from(7_u128)), show, 1000, 30_000);
        sent.markers.push(Marker {
            at_ms: 1,
            label: "a\0b".into(),
            kind: "note".into(),
        });
        let read = manifest(Some(&message(&sent))).expect("a manifest");
        assert_eq!(read.markers[0].label, "a\u{FFFD}b");
        assert_eq!(read.session, sent.session);
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        let garbage = pb::SessionManifest {
            json: "{}".into(),
            ingest_url: String::new(),
        };
        for bad in [None, Some(&garbage)] {
            assert_eq!(
                manifest(bad).map_err(|fault| fault.code),
                Err(Code::BadMessage)
            );
        }
    }
}
