//! What must be true when a show is over, whatever happened to it.
//!
//! Every byte that was sent is in the archive, once and in order; there is one object, with its manifest,
//! and one row; no upload is open, no session held, and the spool is empty. (That no offset went back on the
//! way is seen by [`Broadcaster`](crate::broadcaster::Broadcaster).) Owns the judgement; every test of an
//! archive ends here. Must never wait without a deadline, nor help what should heal by itself.

use crate::{
    capture::Capture,
    cluster::Cluster,
    http,
    probe::packets,
    wait::{HEALED, SOON, eventually},
};
use serde_json::{Value, json};

/// An Opus packet of silence has 8 bytes, however long it lasts.
const SILENCE_BYTES_MAX: usize = 8;

/// Waits until the newest recording of a show has that status, and answers it.
pub async fn recording_becomes(cluster: &Cluster, show: &str, status: &str) -> Value {
    let path = format!("/api/shows/{show}/recordings");
    eventually(
        HEALED,
        &format!("the recording of {show} is {status}"),
        || async {
            let answer = http::get(cluster.web, &path)
                .await
                .map_err(|error| error.to_string())?;
            let newest = if answer.status == 200 {
                answer.json()["items"][0].clone()
            } else {
                Value::Null
            };
            if newest["status"] == status {
                Ok(newest)
            } else {
                Err(format!("{answer:?}"))
            }
        },
    )
    .await
}

/// Waits until a show is in that state, and answers its status.
pub async fn state_becomes(cluster: &Cluster, show: &str, state: &str) -> Value {
    eventually(SOON, &format!("{show} is {state}"), || async {
        let status = cluster.status(show).await;
        if status["state"] == state {
            Ok(status)
        } else {
            Err(status)
        }
    })
    .await
}

/// The show has one recording, archived, whose one object holds exactly the packets of `capture`; nothing is
/// left over.
/// Answers the recording.
///
/// # Panics
/// If anything of that is not so.
pub async fn archived_exactly(cluster: &Cluster, show: &str, capture: &Capture) -> Value {
    archived_takes(cluster, show, &[capture], &[]).await
}

/// As [`archived_exactly`], for a show of several takes, or with gaps: each is `(take, from, to)`.
///
/// # Panics
/// If anything of that is not so.
pub async fn archived_takes(
    cluster: &Cluster,
    show: &str,
    takes: &[&Capture],
    gaps: &[(u32, usize, usize)],
) -> Value {
    let recording = recording_becomes(cluster, show, "archived").await;
    is_only_recording(cluster, show, &recording).await;
    is_archive_of(cluster, &recording, takes, gaps).await;
    nothing_is_left(cluster, show).await;
    recording
}

/// The archived `recording` holds exactly `takes`, and admits exactly `gaps`.
///
/// # Panics
/// If it does not.
pub async fn is_archive_of(
    cluster: &Cluster,
    recording: &Value,
    takes: &[&Capture],
    gaps: &[(u32, usize, usize)],
) {
    is_whole(recording);
    assert_eq!(recording["takes"], json!(takes.len()), "{recording}");
    let admitted = recording["gaps"]
        .as_array()
        .unwrap_or_else(|| panic!("gaps in {recording}"));
    let admitted = admitted
        .iter()
        .map(|gap| json!([gap["take"], gap["from"], gap["to"]]));
    assert_eq!(
        json!(admitted.collect::<Vec<_>>()),
        json!(gaps),
        "{recording}"
    );
    holds(cluster, recording, takes).await;
}

/// All fields of an ended recording are there and of the right kind.
fn is_whole(recording: &Value) {
    for field in [
        "id",
        "show_id",
        "version",
        "started_at",
        "ended_at",
        "archived_at",
        "end_reason",
        "mime",
        "object_key",
    ] {
        assert!(recording[field].is_string(), "{field} in {recording}");
    }
    assert!(recording["error"].is_null(), "{recording}");
    assert!(
        recording["reconnects"].is_u64() && recording["markers"].is_array(),
        "{recording}"
    );
    assert!(
        recording["crc64nvme"].is_string() || recording["sha256"].is_string(),
        "{recording}"
    );
}

/// The recording has one object beside its manifest, which is the download, and holds the packets of
/// `takes`, each once and in order; what is between them is silence.
async fn holds(cluster: &Cluster, recording: &Value, takes: &[&Capture]) {
    let show = recording["show_id"].as_str().expect("a show");
    let bucket = cluster.bucket();
    let folder = folder_of(recording);
    let media: Vec<String> = bucket
        .media_keys(show)
        .into_iter()
        .filter(|key| key.starts_with(&folder))
        .collect();
    assert_eq!(recording["object_key"], json!(media[0]), "{recording}");
    assert_eq!(media.len(), 1, "one object and no more: {media:?}");
    let manifest: Value = serde_json::from_slice(&bucket.object(&format!("{folder}manifest.json")))
        .expect("a manifest is JSON");
    assert_eq!(manifest["objects"][0]["key"], json!(media[0]), "{manifest}");
    let stored = bucket.object(&media[0]);
    assert_eq!(recording["bytes"], json!(stored.len()), "{recording}");
    assert!(recording["duration_ms"].is_u64(), "{recording}");
    assert!(
        download(cluster, recording).await == stored,
        "the download is the archive"
    );
    let mut found = packets(&stored).await;
    for (nth, take) in takes.iter().enumerate() {
        for (stream, sent) in packets(&take.bytes).await {
            let archived = found.entry(stream).or_default();
            for packet in sent {
                let between = archived.iter().position(|found| *found == packet);
                let between = between.unwrap_or_else(|| {
                    panic!("stream {stream} of take {nth} lacks a packet: {packet:?}")
                });
                let silence = archived.drain(..=between).take(between);
                assert!(
                    silence
                        .into_iter()
                        .all(|packet| packet.bytes <= SILENCE_BYTES_MAX),
                    "stream {stream} of take {nth}: only silence lies between packets"
                );
            }
        }
    }
    let left: Vec<_> = found.into_values().flatten().collect();
    assert!(left.is_empty(), "nothing follows the last packet: {left:?}");
}

/// The archive as a user gets it.
///
/// # Panics
/// If it can't be had.
pub async fn download(cluster: &Cluster, recording: &Value) -> Vec<u8> {
    let id = recording["id"].as_str().expect("a recording has an id");
    let redirect = cluster.get(&format!("/api/recordings/{id}/download")).await;
    assert_eq!(redirect.status, 302, "{redirect:?}");
    let answer = http::get_url(redirect.header("location"), &[]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body.to_vec()
}

/// `recordings/SHOW/VERSION/`
#[must_use]
pub fn folder_of(recording: &Value) -> String {
    let text = |name: &str| {
        recording[name]
            .as_str()
            .unwrap_or_else(|| panic!("{name} in {recording}"))
    };
    format!("recordings/{}/{}/", text("show_id"), text("version"))
}

/// The show has this recording and no other: in the answers, in the table, and in the bucket.
///
/// # Panics
/// If it has more, or less.
pub async fn is_only_recording(cluster: &Cluster, show: &str, recording: &Value) {
    let all = cluster.recordings(show).await;
    assert_eq!(all.len(), 1, "one session is one recording: {all:#?}");
    if let Some(postgres) = &cluster.postgres {
        let query = format!("select count(*), min(status) from recording where show_id = '{show}'");
        let rows = postgres.ask(&query).await.expect("PostgreSQL answers");
        let status = recording["status"].as_str().expect("a status");
        assert_eq!(rows, format!("1|{status}"), "one row of {show}");
    }
    let folder = folder_of(recording);
    let mut keys = cluster.bucket().keys(show);
    keys.retain(|key| !key.starts_with(&folder));
    assert!(keys.is_empty(), "objects of no recording: {keys:?}");
}

/// No session is held any more and no upload is open; and where no other show is on, the spool is empty.
pub async fn nothing_is_left(cluster: &Cluster, show: &str) {
    eventually(
        HEALED,
        &format!("{show} is idle and nothing is left of it"),
        || async {
            let status = cluster.status(show).await;
            let uploads = cluster.bucket().open_uploads();
            let sessions = cluster.sessions().await;
            let spooled = cluster.spooled();
            let is_empty = !sessions.is_empty() || spooled.is_empty();
            if status["state"] == "idle" && uploads.is_empty() && is_empty {
                Ok(())
            } else {
                Err((status, uploads, sessions, spooled))
            }
        },
    )
    .await;
}
