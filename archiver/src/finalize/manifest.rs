//! The manifest beside the archive: enough to rebuild the row, and to tell how the archive was made.
//!
//! Owns the fields that it has beyond the session's own manifest.

use super::{
    halt::{self, Halt},
    job::Job,
    raw::step_aside,
    ship::Shipper,
    stitch::Recipe,
    upload::Made,
};
use crate::{
    db::{Facts, PlannedRendition, Renditions, StoredObject, Work},
    keys::Place,
    store::{Crc64, ObjectMeta, Precondition},
};
use bytes::Bytes;
use serde_json::{Map, Value, json};

/// Who wrote a manifest.
const SOFTWARE: &str = concat!("aircheck/", env!("CARGO_PKG_VERSION"));
/// Content-Type of a manifest.
pub(crate) const MANIFEST_TYPE: &str = "application/json";

/// How the objects came out of the takes.
#[derive(Debug)]
pub(super) enum Layout {
    /// Stitched into as few files as possible.
    Stitched(Facts, Work),
    /// One object a take. With the reason, where the takes could not be stitched.
    Raw(Option<String>),
}

/// Writes the manifest beside the objects and answers its key.
pub(super) async fn write(
    job: &Job,
    shipper: Shipper<'_>,
    version: &str,
    objects: &[StoredObject],
    renditions: Option<&Renditions>,
    layout: &Layout,
) -> Result<String, Halt> {
    let mut fields = own(job, version, objects, renditions);
    match layout {
        Layout::Stitched(facts, work) => stitched(&mut fields, facts, work),
        Layout::Raw(error) => raw(&mut fields, objects, error.as_deref()),
    }
    let body = Bytes::from(format!("{:#}\n", Value::Object(fields)));
    let meta = ObjectMeta {
        content_type: MANIFEST_TYPE.to_owned(),
        disposition: "inline".to_owned(),
        session: shipper.claim.id.clone(),
        epoch: shipper.claim.epoch,
        crc: Some(Crc64::of(&body)),
    };
    let mut precondition = Precondition::Absent;
    let mut place = Place::Regular;
    let mut backoff = halt::backoff();
    loop {
        let key = shipper.folder.manifest(place);
        let upload = shipper.upload(&key, &meta);
        // The manifest of the raw takes is there already.
        let is_first = precondition == Precondition::Absent;
        let made = if is_first && shipper.place == Place::Repaired {
            upload.instead(body.clone()).await?
        } else {
            upload.small(body.clone(), &precondition).await?
        };
        match made {
            Made::Proved(_) => return Ok(key),
            Made::StartOver(seen) => {
                precondition = seen;
                shipper.stop.sleep(backoff.delay()).await?;
            }
            Made::Foreign => {
                place = step_aside(place, &key)?;
                precondition = Precondition::Absent;
            }
        }
    }
}

/// What is said whatever the layout.
fn own(
    job: &Job,
    version: &str,
    objects: &[StoredObject],
    renditions: Option<&Renditions>,
) -> Map<String, Value> {
    let mut fields = match serde_json::to_value(&*job.manifest) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) | Err(_) => Map::new(),
    };
    let more = [
        ("version", json!(version)),
        ("objects", objects.iter().map(object).collect()),
        ("software", json!(SOFTWARE)),
        ("reconnects", json!(job.manifest.reconnects())),
    ];
    fields.extend(more.map(|(name, value)| (name.to_owned(), value)));
    if let Some(renditions) = renditions {
        let planned: Vec<_> = renditions.0.iter().map(PlannedRendition::from).collect();
        fields.insert("renditions".to_owned(), json!(planned));
    }
    fields
}

fn object(object: &StoredObject) -> Value {
    let mut value = json!({
        "key": object.key,
        "bytes": object.bytes,
        "crc64nvme": object.crc64nvme,
        "content_type": object.content_type,
    });
    if let Some(take) = object.take {
        value["take"] = json!(take);
    }
    value
}

fn stitched(fields: &mut Map<String, Value>, facts: &Facts, work: &Work) {
    let mux = json!({
        "version": work.mux_version,
        "reserved_bytes": work.reserved_bytes,
        "part_bytes": work.part_bytes,
        "packets": facts.packets,
        "dropped_packets": facts.dropped_packets,
        "silence_ms": facts.silence_ms,
        "silence_packets": facts.silence_packets,
        "lost_bytes": facts.lost_bytes,
    });
    fields.insert("layout".to_owned(), json!("stitched"));
    fields.insert("duration_ms".to_owned(), json!(facts.duration_ms));
    fields.insert("mux".to_owned(), mux);
    for (take, crc) in facts.takes_crc64nvme.iter().enumerate() {
        take_checksum(fields, take, crc);
    }
}

fn raw(fields: &mut Map<String, Value>, objects: &[StoredObject], error: Option<&str>) {
    let (mux_version, _) = Recipe::rules();
    fields.insert("layout".to_owned(), json!("raw"));
    fields.insert("mux".to_owned(), json!({ "version": mux_version }));
    fields.insert("mux_error".to_owned(), json!(error));
    for object in objects {
        if let (Some(take), Some(crc)) = (object.take, &object.crc64nvme) {
            take_checksum(fields, take as usize, crc);
        }
    }
}

/// Writes the checksum of a take's bytes beside what else is known of it.
fn take_checksum(fields: &mut Map<String, Value>, take: usize, crc: &str) {
    let takes = fields.get_mut("takes").and_then(Value::as_array_mut);
    let take = takes.and_then(|takes| takes.get_mut(take)?.as_object_mut());
    if let Some(take) = take {
        take.insert("crc64nvme".to_owned(), json!(crc));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_stand_at_their_takes_and_a_missing_take_is_no_fault() {
        let manifest = json!({ "takes": [{ "id": "a" }, { "id": "b" }] });
        let mut fields = manifest.as_object().cloned().expect("an object");
        for (take, crc) in [(1, "two"), (2, "three")] {
            take_checksum(&mut fields, take, crc);
        }
        let expected = json!([{ "id": "a" }, { "id": "b", "crc64nvme": "two" }]);
        assert_eq!(fields["takes"], expected);
    }
}
