//! Live sinks against real servers: what is heard there, and what a broken one may not do.

#[expect(dead_code, reason = "other tests use the rest")]
mod support;
#[path = "support/servers.rs"]
mod servers;

use aircheck_proto::ingest::{SessionState, SessionStatus, SinkState, SinkStatus};
use servers::SECRET;
use std::{
    io,
    sync::{Mutex, Once},
    time::Duration,
};
use support::{Broadcaster, CAPTURE, Ingest};

/// 20 s of a tone that rises by 100 Hz a second, from 400 Hz on.
const SWEEP: &[u8] = include_bytes!("../../core/tests/media/sweepA.bin");
const SWEEP_SECONDS: f64 = 20.0;
const VIDEO: &[u8] = include_bytes!("../../core/tests/media/vp8.bin");
const SPEED: f64 = 4.0;

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().expect("lock").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn keep_log() {
    static KEPT: Once = Once::new();
    KEPT.call_once(|| {
        let subscriber = tracing_subscriber::fmt().with_ansi(false);
        subscriber
            .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
            .with_writer(|| Log)
            .init();
    });
}

fn log() -> String {
    String::from_utf8_lossy(&LOG.lock().expect("lock")).into_owned()
}

async fn ingest(sinks: &[String], more: &[&str]) -> Ingest {
    keep_log();
    let sinks = sinks.join(",");
    let flags = [&["--live-sink", sinks.as_str()], more].concat();
    Ingest::with_flags(tempfile::tempdir().expect("tempdir"), "30s", &flags).await
}

async fn host(ingest: &Ingest, show: &str) -> Broadcaster {
    let connected = Broadcaster::connect(ingest, show, "ann", "t1", 0).await;
    let mut host = connected.expect("admitted");
    host.ready().await;
    host
}

/// Sends a part of the sweep like a recorder that runs a few times too fast.
async fn play(host: &Broadcaster, range: std::ops::Range<usize>) {
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let step = (SWEEP.len() as f64 / SWEEP_SECONDS * SPEED * 0.05) as usize;
    let mut offset = range.start;
    for chunk in SWEEP[range].chunks(step) {
        tick.tick().await;
        host.send(offset as u64, chunk).await;
        offset += chunk.len();
    }
}

fn sink<'a>(status: &'a SessionStatus, end: &str) -> &'a SinkStatus {
    let mut named = status.sinks.iter().filter(|sink| sink.name.ends_with(end));
    named.next().expect("a sink of that name")
}

fn is_down(status: &SessionStatus, end: &str, why: &str) -> bool {
    let sink = sink(status, end);
    sink.state() == SinkState::Down && sink.error.as_ref().is_some_and(|error| error.contains(why))
}

/// The tone rises as it should, wherever it begins; holes are counted, and are all at the joints.
fn rises(pitches: &[f64], holes_max: usize) {
    let jumps = pitches.windows(2).filter(|pair| !(5.0..=50.0).contains(&(pair[1] - pair[0])));
    let jumps: Vec<_> = jumps.collect();
    assert!(jumps.len() <= holes_max, "{jumps:?} in {pitches:?}");
}

fn no_secret_in(seen: &str) {
    assert!(!seen.contains(SECRET), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn icecast_is_served_in_three_formats_through_a_drop_and_a_killed_encoder() {
    let server = servers::icecast().await;
    let port = server.port;
    let url = |password: &str, mount: &str| {
        format!("icecast://source:{password}@127.0.0.1:{port}/{mount}")
    };
    let mut sinks: Vec<_> = ["mp3", "ogg", "webm"]
        .iter()
        .map(|format| url(SECRET, &format!("{{show_id}}.{format}")))
        .collect();
    sinks.push(url(&format!("not-{SECRET}"), "closed.mp3"));
    let ingest = ingest(&sinks, &[]).await;
    let mut host = host(&ingest, "ice").await;
    let (drop_at, kill_at) = (SWEEP.len() * 4 / 10, SWEEP.len() * 6 / 10);
    play(&host, 0..drop_at).await;
    let up = |status: &SessionStatus, end: &str| sink(status, end).state() == SinkState::Up;
    let all_up =
        |status: &SessionStatus| [".mp3", ".ogg", ".webm"].iter().all(|end| up(status, &format!("ice{end}")));
    ingest.until("ice", all_up).await;
    let heard = ["mp3", "ogg", "webm"].map(|f| servers::listen(port, &format!("/ice.{f}")));
    ingest.until("ice", |s| is_down(s, "closed.mp3", "401")).await;

    host.acked(drop_at as u64).await;
    drop(host);
    ingest.until("ice", |status| status.state() == SessionState::Grace).await;
    let again = Broadcaster::connect(&ingest, "ice", "ann", "t1", 0).await;
    host = again.expect("resumed");
    let offset = usize::try_from(host.ready().await.offset).expect("small");
    assert_eq!(offset, drop_at);
    play(&host, offset..kill_at).await;
    let status = ingest.status("ice").await;
    assert!(all_up(&status) && sink(&status, "ice.mp3").restarts == 0, "{status:?}");

    let encoders = servers::encoders("ice");
    assert_eq!(encoders.len(), 2, "mp3 and ogg: {encoders:?}");
    encoders.iter().for_each(|(_, seen)| no_secret_in(seen));
    let mp3 = encoders.iter().find(|(_, seen)| seen.contains("libmp3lame"));
    servers::kill_9(mp3.expect("one encodes mp3").0);
    let back = |status: &SessionStatus| sink(status, "ice.mp3").restarts == 1 && up(status, "ice.mp3");
    let rest = async {
        play(&host, kill_at..SWEEP.len()).await;
    };
    let relisten = async {
        ingest.until("ice", back).await;
        servers::listen(port, "/ice.mp3").await.expect("heard")
    };
    let finish = async {
        rest.await;
        ingest.until("ice", back).await;
        host.stop().await;
        host.end().await;
    };
    let ((), after) = tokio::join!(finish, relisten);

    let dir = server.dir.path();
    let [mp3, ogg, webm] = heard;
    let pitches = |name: &str, media: &[u8]| servers::pitches(&servers::saved(dir, name, media));
    let before = pitches("a.mp3", &mp3.await.expect("heard"));
    assert!(before.len() >= 40, "10 of the first 12 s: {}", before.len());
    rises(&before[1..], 1);
    let after = pitches("b.mp3", &after);
    assert!(after.len() >= 8 && after[1] > 1600.0, "the tone goes on: {after:?}");
    rises(&after[1..after.len() - 1], 1);
    for (name, media) in [("a.ogg", ogg), ("a.webm", webm)] {
        let all = pitches(name, &media.await.expect("heard"));
        assert!((76..=81).contains(&all.len()), "20 s of {name}: {}", all.len());
        rises(&all[1..all.len() - 1], 1);
    }
    assert_eq!(ingest.archiver.finalized()[0].takes[0].bytes, SWEEP.len() as u64);
    no_secret_in(&log());
    assert!(log().contains("sink down"), "the log is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn rtmp_gets_sound_and_pictures_through_a_drop_and_the_key_stays_hidden() {
    let server = servers::nginx_rtmp().await;
    let sinks = [format!("rtmp://127.0.0.1:{}/live/{{show_id}}?token={SECRET}", server.port)];
    let ingest = ingest(&sinks, &[]).await;
    let mut sound = host(&ingest, "sound").await;
    let half = SWEEP.len() / 2;
    play(&sound, 0..half).await;
    let up = |status: &SessionStatus| status.sinks[0].state() == SinkState::Up;
    ingest.until("sound", up).await;
    let encoders = servers::encoders("sound");
    assert_eq!(encoders.len(), 1);
    no_secret_in(&encoders[0].1);
    sound.acked(half as u64).await;
    drop(sound);
    ingest.until("sound", |status| status.state() == SessionState::Grace).await;
    let mut pictures = host(&ingest, "pictures").await;
    pictures.send(0, VIDEO).await;
    ingest.until("pictures", up).await;
    pictures.stop().await;
    pictures.end().await;
    let again = Broadcaster::connect(&ingest, "sound", "ann", "t1", 0).await;
    let mut sound = again.expect("resumed");
    sound.ready().await;
    play(&sound, half..SWEEP.len()).await;
    let status = ingest.status("sound").await;
    assert!(up(&status) && status.sinks[0].restarts == 0, "{status:?}");
    sound.stop().await;
    sound.end().await;
    ingest.stop().await;
    assert!(servers::encoders("sound").is_empty(), "all ended with their shows");

    let all = servers::pitches(&server.dir.path().join("sound.flv"));
    assert!((76..=82).contains(&all.len()), "20 s: {}", all.len());
    rises(&all[1..all.len() - 1], 1);
    let streams = std::process::Command::new("ffprobe")
        .args(["-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0"])
        .arg(server.dir.path().join("pictures.flv"))
        .output()
        .expect("ffprobe");
    let streams = String::from_utf8_lossy(&streams.stdout).into_owned();
    assert!(streams.contains("h264") && streams.contains("aac"), "{streams}");
    no_secret_in(&log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_server_costs_its_own_sink_and_no_ack_listener_or_byte() {
    let (port, stuck) = servers::stuck().await;
    let server = servers::icecast().await;
    let sinks = [
        format!("icecast://source:{SECRET}@127.0.0.1:{port}/stuck.mp3"),
        format!("icecast://source:{SECRET}@127.0.0.1:{port}/stuck.webm"),
        format!("icecast://source:{SECRET}@127.0.0.1:{}/well.ogg", server.port),
    ];
    let ingest = ingest(&sinks, &[]).await;
    let mut host = host(&ingest, "stuck").await;
    host.send(0, CAPTURE).await;
    host.acked(CAPTURE.len() as u64).await;
    ingest.until("stuck", |s| sink(s, "well.ogg").state() == SinkState::Up).await;
    ingest
        .until("stuck", |s| {
            ["stuck.mp3", "stuck.webm"].iter().all(|end| is_down(s, end, "no progress"))
        })
        .await;
    let lost = |s: &SessionStatus| sink(s, "stuck.webm").lost_clusters > 0;
    ingest.until("stuck", lost).await;
    let status = ingest.status("stuck").await;
    assert_eq!(sink(&status, "well.ogg").lost_clusters, 0);
    host.stop().await;
    host.end().await;
    let manifest = ingest.archiver.finalized().remove(0);
    assert_eq!((manifest.takes[0].bytes, manifest.gaps.len()), (CAPTURE.len() as u64, 0));
    ingest.spool_empties().await;
    stuck.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_host_a_closed_port_and_a_missing_encoder_are_named_and_the_show_goes_on() {
    let sinks = [
        format!("icecast://source:{SECRET}@no-such-host.invalid/lost.mp3"),
        format!("icecast://source:{SECRET}@127.0.0.1:1/closed.mp3"),
        format!("rtmp://127.0.0.1:1/live/{SECRET}"),
    ];
    let ingest = ingest(&sinks, &["--ffmpeg", "/no/such/ffmpeg"]).await;
    let mut host = host(&ingest, "lost").await;
    host.send(0, CAPTURE).await;
    host.acked(CAPTURE.len() as u64).await;
    ingest.until("lost", |s| is_down(s, "lost.mp3", "find the host")).await;
    ingest.until("lost", |s| is_down(s, "closed.mp3", "connect")).await;
    ingest.until("lost", |s| is_down(s, "/live", "no \"/no/such/ffmpeg\"")).await;
    let status = ingest.status("lost").await;
    assert_eq!(status.state(), SessionState::Live);
    no_secret_in(&format!("{status:?}"));
    host.stop().await;
    host.end().await;
    no_secret_in(&log());
}
