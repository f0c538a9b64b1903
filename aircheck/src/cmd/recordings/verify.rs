//! A recording compared with its manifest and with every object: proof, not trust.
//!
//! Owns the checks and their verdict; must never write anything.

use super::objects::{Manifest, Object, Source, next_piece};
use crate::http::{Http, refusal};
use aircheck_core::{
    media::{archive::MUX_VERSION, survey::Contents, survey::Survey},
    recording::Recording,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use crc_fast::{CrcAlgorithm::Crc64Nvme, Digest};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

/// The longest packet, ms: a duration is right to a packet.
const PACKET_MS: u64 = 120;

/// One thing that was compared.
#[derive(Debug, Serialize)]
struct Check {
    /// An object's name, or `recording`.
    of: String,
    what: &'static str,
    expected: Value,
    found: Value,
    ok: bool,
}

/// What was found of a recording.
#[derive(Debug, Serialize)]
pub(in crate::cmd) struct Verdict {
    id: String,
    /// Whether all checks are.
    pub(in crate::cmd) ok: bool,
    checks: Vec<Check>,
}

/// What an object really holds.
#[derive(Debug)]
struct Seen {
    bytes: u64,
    crc64nvme: String,
    contents: Contents,
}

/// Reads everything from the store, by the gateway `to`, and compares it.
///
/// # Errors
/// If the gateway or the store does not answer; what is missing or damaged is part of the verdict.
pub(in crate::cmd) async fn run(
    http: &Http,
    to: &str,
    recording: &Recording,
) -> anyhow::Result<Verdict> {
    let id = &recording.id;
    let source = Source { http, to, id };
    let mut checks = Checks::default();
    checks.add("recording", "final", &true, &recording.status.is_final());
    match source.manifest().await {
        Ok(manifest) => {
            checks.row(recording, &manifest);
            let mut seen = Vec::new();
            for object in &manifest.objects {
                seen.push(read(source, object).await?);
            }
            for (object, seen) in manifest.objects.iter().zip(&seen) {
                checks.object(&manifest, object, seen.as_ref());
            }
            let pairs = manifest.objects.iter().zip(seen);
            // Raw takes stay beside the files of a recording that was repaired.
            let files = pairs.filter(|(object, _)| object.take.is_none());
            let whole: Option<Vec<_>> = files.map(|(_, seen)| seen).collect();
            if let Some(whole) = whole.filter(|_| manifest.layout == "stitched") {
                checks.media(&manifest, &whole);
            }
        }
        Err(error) => checks.add("manifest.json", "readable", &"yes", &format!("{error:#}")),
    }
    Ok(Verdict {
        id: recording.id.clone(),
        ok: checks.0.iter().all(|check| check.ok),
        checks: checks.0,
    })
}

/// Reads one object to its end; `None`: there is none.
async fn read(source: Source<'_>, object: &Object) -> anyhow::Result<Option<Seen>> {
    let answer = source.open(object.name(), 0).await?;
    if answer.status() == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    if answer.status() != StatusCode::OK {
        return Err(refusal(answer).await.into());
    }
    let (mut body, mut bytes) = (answer.into_body(), 0);
    let (mut digest, mut survey) = (Digest::new(Crc64Nvme), Survey::default());
    while let Some(piece) = next_piece(&mut body).await? {
        bytes += piece.len() as u64;
        digest.update(&piece);
        survey.push(&piece);
    }
    Ok(Some(Seen {
        bytes,
        // As S3 writes it.
        crc64nvme: STANDARD.encode(digest.finalize().to_be_bytes()),
        contents: survey.finish(),
    }))
}

#[derive(Debug, Default)]
struct Checks(Vec<Check>);

impl Checks {
    fn add(
        &mut self,
        of: &str,
        what: &'static str,
        expected: &impl Serialize,
        found: &impl Serialize,
    ) {
        let (expected, found) = (json!(expected), json!(found));
        let ok = expected == found;
        self.push(of, what, expected, found, ok);
    }

    fn push(&mut self, of: &str, what: &'static str, expected: Value, found: Value, ok: bool) {
        self.0.push(Check {
            of: of.to_owned(),
            what,
            expected,
            found,
            ok,
        });
    }

    /// The row beside the manifest.
    fn row(&mut self, recording: &Recording, manifest: &Manifest) {
        let keys: Vec<_> = manifest.objects.iter().map(|object| &object.key).collect();
        let bytes: u64 = manifest.archive().map(|object| object.bytes).sum();
        let first = manifest.objects.first();
        let known = |value: &Value| {
            if value.is_null() {
                json!([])
            } else {
                value.clone()
            }
        };
        let of = "recording";
        self.add(of, "session", &manifest.session, &recording.id);
        self.add(of, "objects", &keys, &recording.objects);
        self.add(of, "bytes", &bytes, &recording.bytes);
        self.add(
            of,
            "crc64nvme",
            &first.and_then(|o| o.crc64nvme.as_ref()),
            &recording.crc64nvme,
        );
        self.add(
            of,
            "duration_ms",
            &manifest.duration_ms,
            &recording.duration_ms,
        );
        self.add(of, "takes", &manifest.takes.len(), &recording.takes);
        self.add(of, "gaps", &known(&manifest.gaps), &recording.gaps);
        self.add(of, "markers", &known(&manifest.markers), &recording.markers);
    }

    /// An object beside what the manifest says of it.
    fn object(&mut self, manifest: &Manifest, object: &Object, seen: Option<&Seen>) {
        let of = object.name();
        let Some(seen) = seen else {
            return self.add(of, "exists", &true, &false);
        };
        self.add(of, "bytes", &object.bytes, &seen.bytes);
        self.add(of, "crc64nvme", &object.crc64nvme, &Some(&seen.crc64nvme));
        let take = object.take.and_then(|take| manifest.takes.get(take));
        if let Some(crc) = take.and_then(|take| take.crc64nvme.as_ref()) {
            self.add(of, "take's crc64nvme", crc, &seen.crc64nvme);
        }
        if object.take.is_none() {
            self.add(of, "damage", &None::<String>, &seen.contents.failure);
            self.add(of, "lost bytes", &0, &seen.contents.lost_bytes);
        }
    }

    /// What is in the files of a stitched archive.
    fn media(&mut self, manifest: &Manifest, files: &[Seen]) {
        let of = "recording";
        let mux = &manifest.mux;
        let is_known = mux.version.is_some_and(|version| version <= MUX_VERSION);
        let upto = json!(format!("up to {MUX_VERSION}"));
        self.push(of, "mux version", upto, json!(mux.version), is_known);
        let packets: u64 = files.iter().map(|file| file.contents.packets).sum();
        match (mux.packets, mux.silence_packets) {
            (Some(own), Some(silence)) => self.add(of, "packets", &(own + silence), &packets),
            (own, _) => {
                let own = own.unwrap_or_default();
                let least = json!(format!("at least {own}"));
                self.push(of, "packets", least, json!(packets), packets >= own);
            }
        }
        let found: u64 = files.iter().map(|file| file.contents.end_ms).sum();
        let told = manifest.duration_ms.unwrap_or_default();
        let ok = found.abs_diff(told) <= PACKET_MS * files.len() as u64;
        self.push(of, "playing time, ms", json!(told), json!(found), ok);
    }
}

impl Verdict {
    /// As a table; long lists are cut.
    pub(super) fn table(&self) -> String {
        const CELL_MAX: usize = 48;
        let cell = |value: &Value| {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Null => "-".to_owned(),
                other => other.to_string(),
            };
            if text.chars().count() <= CELL_MAX {
                return text;
            }
            let head: String = text.chars().take(CELL_MAX - 3).collect();
            format!("{head}...")
        };
        let head = ["", "OF", "CHECK", "EXPECTED", "FOUND"].map(str::to_owned);
        let rows = self.checks.iter().map(|check| {
            let mark = if check.ok { "ok" } else { "WRONG" };
            let (expected, found) = (cell(&check.expected), cell(&check.found));
            [
                mark.to_owned(),
                check.of.clone(),
                check.what.to_owned(),
                expected,
                found,
            ]
        });
        let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
        let wrong = self.checks.iter().filter(|check| !check.ok).count();
        let last = match wrong {
            0 => format!(
                "recording {} is proved by {} checks",
                self.id,
                self.checks.len()
            ),
            _ => format!(
                "recording {}: {wrong} of {} checks failed",
                self.id,
                self.checks.len()
            ),
        };
        super::aligned(&rows) + &last
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::recording, *};

    fn manifest() -> Manifest {
        let json = json!({
            "session": "01JD", "layout": "stitched", "duration_ms": 3_723_000,
            "takes": [{"crc64nvme": "take"}],
            "objects": [{
                "key": "recordings/7/2026-11-23T20-15-00Z/recording.webm",
                "bytes": 9, "crc64nvme": "rosUhgp5mIg=",
            }],
            "mux": {"version": 1, "packets": 5, "silence_packets": 2},
        });
        serde_json::from_value(json).expect("a manifest")
    }

    fn seen() -> Seen {
        Seen {
            bytes: 9,
            crc64nvme: "rosUhgp5mIg=".to_owned(),
            contents: Contents {
                packets: 7,
                end_ms: 3_723_040,
                lost_bytes: 0,
                failure: None,
            },
        }
    }

    /// Names of the checks that fail.
    fn wrong(recording: &Recording, manifest: &Manifest, seen: Seen) -> Vec<&'static str> {
        let mut checks = Checks::default();
        checks.row(recording, manifest);
        checks.object(manifest, &manifest.objects[0], Some(&seen));
        checks.media(manifest, &[seen]);
        let wrong = checks.0.into_iter().filter(|check| !check.ok);
        wrong.map(|check| check.what).collect()
    }

    fn whole() -> Recording {
        let objects = manifest().objects.into_iter().map(|object| object.key);
        Recording {
            objects: objects.collect(),
            ..recording()
        }
    }

    #[test]
    fn a_recording_that_is_what_it_says_has_nothing_wrong() {
        assert_eq!(wrong(&whole(), &manifest(), seen()), Vec::<&str>::new());
    }

    #[test]
    fn raw_takes_beside_the_files_of_a_repaired_recording_are_not_the_archive() {
        let mut repaired = manifest();
        repaired.objects.push(Object {
            key: "recordings/7/2026-11-23T20-15-00Z/recording.take2.webm".to_owned(),
            bytes: 70,
            crc64nvme: Some("take".to_owned()),
            take: Some(0),
        });
        let keys = repaired.objects.iter().map(|object| object.key.clone());
        let row = Recording {
            objects: keys.collect(),
            ..recording()
        };
        assert_eq!(wrong(&row, &repaired, seen()), Vec::<&str>::new());
        let lost = Recording {
            objects: whole().objects,
            ..row
        };
        assert_eq!(wrong(&lost, &repaired, seen()), ["objects"]);
    }

    #[test]
    fn each_lie_is_found() {
        let short = Recording {
            bytes: 8,
            ..whole()
        };
        assert_eq!(wrong(&short, &manifest(), seen()), ["bytes"]);
        let other = Seen {
            crc64nvme: "x".to_owned(),
            ..seen()
        };
        assert_eq!(wrong(&whole(), &manifest(), other), ["crc64nvme"]);
        let mut lacking = seen();
        lacking.contents.packets = 6;
        assert_eq!(wrong(&whole(), &manifest(), lacking), ["packets"]);
        let mut longer = seen();
        longer.contents.end_ms += 1000;
        assert_eq!(wrong(&whole(), &manifest(), longer), ["playing time, ms"]);
        let mut newer = manifest();
        newer.mux.version = Some(MUX_VERSION + 1);
        assert_eq!(wrong(&whole(), &newer, seen()), ["mux version"]);
    }

    #[test]
    fn a_table_says_what_is_wrong_and_how_much() {
        let mut checks = Checks::default();
        checks.add("recording.webm", "exists", &true, &false);
        let verdict = Verdict {
            id: "01JD".into(),
            ok: false,
            checks: checks.0,
        };
        let table = verdict.table();
        assert!(table.contains("WRONG  recording.webm  exists"), "{table}");
        assert!(table.ends_with("1 of 1 checks failed"), "{table}");
    }
}
