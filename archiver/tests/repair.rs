//! Recordings that an older program could not stitch and this one can: their raw takes become one
//! file, and stay.

mod support;

use aircheck_core::{code::Code, spool::Manifest};
use aircheck_proto::archiver::{DeleteRecordingRequest, Recording, RepairOutcome};
use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Credentials, Region},
    primitives::ByteStream,
    types::ChecksumAlgorithm,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use crc_fast::{CrcAlgorithm, checksum};
use sea_orm::{ConnectionTrait as _, Database};
use std::time::Duration;
use support::{
    archiver::Archiver,
    bench::{Bench, FOLDER},
    s3::{BUCKET, Gate, KEY_ID, Op, S3Server, SECRET},
    session::{capture, gap, show, stitched_with, webm},
};

/// Where the first file of a repaired recording is.
const STITCHED: &str = "recordings/7/2026-11-23T20-15-00Z/recording.stitched.webm";

fn database(bench: &Bench) -> String {
    let path = bench.folder.path().join("aircheck.db");
    format!("sqlite://{}?mode=rwc", path.display())
}

fn client(s3: &S3Server) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(KEY_ID, SECRET, None, None, "test"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(&s3.endpoint)
        .force_path_style(true)
        .build();
    Client::from_conf(config)
}

/// A recording as a program left it that could not stitch these takes: row, objects and manifest are
/// those of takes of the same lengths in which there is no packet, but for the bytes.
async fn archived_raw(bench: &Bench, manifest: &Manifest, takes: &[&[u8]]) -> Recording {
    let id = manifest.session.to_string();
    for (index, take) in (0..).zip(takes) {
        let seed = 9 + u64::from(index);
        let hole = manifest.gaps.iter().find(|gap| gap.take == index);
        let runs = match hole {
            None => vec![(0, webm(seed, take.len()))],
            Some(hole) => {
                let rest = take.len() - usize::try_from(hole.from).expect("small");
                vec![
                    (0, webm(seed, take.len() - rest)),
                    (hole.to, webm(seed, rest)),
                ]
            }
        };
        bench.ingest.spool(&id, index, runs);
    }
    let recording = bench.archive(manifest).await;
    assert_eq!(bench.manifest()["layout"], "raw");
    let (client, written) = (client(&bench.s3), bench.manifest());
    let db = Database::connect(database(bench)).await.expect("connect");
    for (nth, (key, take)) in recording.objects.iter().zip(takes).enumerate() {
        let put = client
            .put_object()
            .bucket(BUCKET)
            .key(key)
            .metadata("aircheck-session", &id)
            .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
            .body(ByteStream::from(take.to_vec()));
        put.send().await.expect("put the take");
        let is = checksum(CrcAlgorithm::Crc64Nvme, take).to_be_bytes();
        let is = STANDARD.encode(is);
        let was = written["objects"][nth]["crc64nvme"].as_str();
        let was = was.expect("a checksum");
        let sql = format!(
            "UPDATE recording SET objects = replace(objects, '{was}', '{is}'), \
             crc64nvme = replace(crc64nvme, '{was}', '{is}')"
        );
        db.execute_unprepared(&sql).await.expect("change the row");
    }
    db.close().await.expect("close");
    // Nobody but the store has the bytes.
    bench.ingest.forget();
    recording
}

/// What must hold of a repaired recording, however it came about.
fn check(bench: &Bench, manifest: &Manifest, takes: &[&[u8]], raw: &Recording, now: &Recording) {
    let (expected, end) = stitched_with(manifest, takes);
    assert!(bench.s3.object(STITCHED) == expected, "another file");
    let keys: Vec<_> = [STITCHED.to_owned()]
        .into_iter()
        .chain(raw.objects.clone())
        .collect();
    assert_eq!(now.objects, keys);
    assert_eq!(now.object_key.as_deref(), Some(STITCHED));
    assert_eq!(now.bytes, expected.len() as u64);
    assert_eq!(now.duration_ms, Some(end.duration_ms));
    assert_eq!((now.status, &now.error), (raw.status, &raw.error));
    assert_eq!(now.archived_at_unix_ms, raw.archived_at_unix_ms);
    check_raw(bench, takes, raw);
    let written = bench.manifest();
    assert_eq!(written["layout"], "stitched");
    assert_eq!(written["mux_error"], serde_json::Value::Null);
    assert_eq!(written["mux"]["packets"], end.stats.packets);
    assert_eq!(written["duration_ms"], end.duration_ms);
    assert_eq!(written["objects"][0]["take"], serde_json::Value::Null);
    for (take, key) in raw.objects.iter().enumerate() {
        let object = &written["objects"][take + 1];
        assert_eq!(object["key"], *key);
        assert_eq!(object["take"], take);
        assert_eq!(object["crc64nvme"], written["takes"][take]["crc64nvme"]);
    }
    assert_eq!(bench.s3.open_uploads(), Vec::<String>::new());
}

fn check_raw(bench: &Bench, takes: &[&[u8]], raw: &Recording) {
    for (key, take) in raw.objects.iter().zip(takes) {
        assert!(bench.s3.object(key) == *take, "{key} has changed");
    }
}

/// Repairs, however often one has to ask.
async fn repaired(bench: &Bench, id: &str) -> Recording {
    loop {
        match bench.archiver.repair(id).await {
            Ok((RepairOutcome::Running, _)) => {}
            Ok((_, recording)) => return recording,
            // The claim of an archiver that died has not run out yet.
            Err(fault) if fault.code == Code::Unavailable => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(fault) => panic!("{fault}"),
        }
    }
}

/// Begins to repair, and ends when the repair waits at the gate.
async fn repaired_until(bench: &Bench, id: &str, gate: &Gate) {
    let asking = async {
        loop {
            let answer = bench.archiver.repair(id).await.expect("an answer");
            assert_eq!(answer.0, RepairOutcome::Running);
        }
    };
    tokio::select! {
        () = gate.arrived.notified() => {}
        () = asking => {}
    }
}

#[tokio::test]
async fn raw_takes_become_the_file_that_finalize_would_have_made_and_stay() {
    let bench = Bench::new().await;
    let (chromium, firefox) = (capture("opus250"), capture("ff_webm"));
    let mut manifest = bench.session(&[(300, &chromium), (60_300, &firefox)]);
    manifest.title = Some("Morning show".to_owned());
    let takes: [&[u8]; 2] = [&chromium, &firefox];
    let raw = archived_raw(&bench, &manifest, &takes).await;
    assert_eq!(raw.objects[0], format!("{FOLDER}/recording.webm"));
    let (outcome, now) = bench.archiver.repair(&raw.id).await.expect("repaired");
    assert_eq!(outcome, RepairOutcome::Repaired);
    check(&bench, &manifest, &takes, &raw, &now);

    let writes = bench.s3.seen(Op::Put).len();
    let again = bench.archiver.repair(&raw.id).await.expect("an answer");
    assert_eq!(again, (RepairOutcome::NothingToRepair, now.clone()));
    assert_eq!(bench.archive(&manifest).await, now, "finalized again");
    assert_eq!(bench.s3.seen(Op::Put).len(), writes);
}

#[tokio::test]
async fn a_hole_in_a_raw_take_stays_a_hole() {
    let bench = Bench::new().await;
    let take = capture("opus250");
    let (from, to) = (take.len() / 3 + 17, take.len() / 2 + 5);
    let mut manifest = bench.session(&[(0, &take)]);
    manifest.gaps = vec![gap(0, from as u64, to as u64)];
    let there = [&take[..from], &take[to..]].concat();
    let raw = archived_raw(&bench, &manifest, &[&there]).await;
    let now = repaired(&bench, &raw.id).await;
    let direct = Bench::new().await;
    let runs = vec![(0, take[..from].to_vec()), (to as u64, take[to..].to_vec())];
    direct.ingest.spool(&manifest.session.to_string(), 0, runs);
    let expected = direct.archive(&manifest).await;
    assert_eq!(now.crc64nvme, expected.crc64nvme);
    assert_eq!(now.duration_ms, expected.duration_ms);
    check_raw(&bench, &[&there], &raw);
}

#[tokio::test]
async fn an_archiver_that_dies_while_it_repairs_costs_a_replay_and_no_take() {
    // The first part of the file, its completion, and the manifest after it.
    for op in [Op::UploadPart, Op::Complete, Op::Put] {
        let mut bench = Bench::new().await;
        let (one, two) = (show(1, 6 << 20), capture("opus250"));
        let manifest = bench.session(&[(0, &one), (900_000, &two)]);
        let takes: [&[u8]; 2] = [&one, &two];
        let raw = archived_raw(&bench, &manifest, &takes).await;
        let gate = bench.s3.hold(op);
        let id = raw.id.clone();
        repaired_until(&bench, &id, &gate).await;
        check_raw(&bench, &takes, &raw);
        bench.archiver = Archiver::start(&database(&bench), &bench.s3).await;
        gate.open.notify_one();
        let now = repaired(&bench, &id).await;
        check(&bench, &manifest, &takes, &raw, &now);
    }
}

#[tokio::test]
async fn what_still_cannot_be_stitched_says_why_and_stays_as_it_is() {
    let bench = Bench::new().await;
    let (sound, text) = (capture("opus250"), b"this is no recording at all".to_vec());
    let raw = bench
        .archive(&bench.session(&[(0, &sound), (20_000, &text)]))
        .await;
    let (keys, written) = (bench.s3.keys(), bench.manifest());
    let fault = bench.archiver.repair(&raw.id).await.expect_err("no repair");
    assert_eq!(fault.code, Code::UnsupportedMedia);
    assert!(fault.message.contains("take 1 is of no known"), "{fault}");
    assert_eq!(bench.s3.keys(), keys);
    assert_eq!(bench.manifest(), written);
    let fault = bench.archiver.repair(&raw.id).await.expect_err("no repair");
    assert_eq!(fault.code, Code::UnsupportedMedia);
}

#[tokio::test]
async fn a_recording_whose_take_is_gone_is_not_repaired() {
    let bench = Bench::new().await;
    let take = capture("opus250");
    let manifest = bench.session(&[(0, &take)]);
    let raw = archived_raw(&bench, &manifest, &[&take]).await;
    let cut = client(&bench.s3).delete_object().bucket(BUCKET);
    cut.key(&raw.objects[0]).send().await.expect("delete");
    let fault = bench.archiver.repair(&raw.id).await.expect_err("no repair");
    assert_eq!(fault.code, Code::Corrupt);
    assert!(!bench.s3.keys().contains(&STITCHED.to_owned()));
}

#[tokio::test]
async fn what_a_broken_repair_left_goes_with_the_recording() {
    let mut bench = Bench::new().await;
    let take = show(1, 6 << 20);
    let manifest = bench.session(&[(0, &take)]);
    let raw = archived_raw(&bench, &manifest, &[&take]).await;
    let gate = bench.s3.hold(Op::Put);
    let id = raw.id.clone();
    repaired_until(&bench, &id, &gate).await;
    assert!(bench.s3.keys().contains(&STITCHED.to_owned()));
    bench.archiver = Archiver::start(&database(&bench), &bench.s3).await;
    let request = DeleteRecordingRequest { id };
    let mut client = bench.archiver.client.clone();
    client.delete_recording(request).await.expect("deleted");
    assert_eq!(bench.s3.keys(), Vec::<String>::new());
}

#[tokio::test]
async fn renditions_are_made_of_the_repaired_file_beside_those_of_its_takes() {
    let mut bench = Bench::new().await;
    let take = capture("opus250");
    let manifest = bench.session(&[(0, &take)]);
    let raw = archived_raw(&bench, &manifest, &[&take]).await;
    let wanted = ["--rendition", "mp3:192k"];
    bench.archiver = Archiver::start_with(&database(&bench), &bench.s3, &wanted).await;
    repaired(&bench, &raw.id).await;
    let now = bench.archiver.rendered(&raw.id).await;
    let key = STITCHED.replace("webm", "mp3");
    assert_eq!(now.renditions.len(), 1, "{now:?}");
    assert_eq!(now.renditions[0].status, "done", "{now:?}");
    assert_eq!(now.renditions[0].key.as_deref(), Some(&*key));
    assert_eq!(bench.manifest()["renditions"][0]["key"], *key);
}
