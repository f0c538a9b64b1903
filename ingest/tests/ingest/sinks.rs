//! Live sinks against real servers: what is heard there, and what a broken one may not do.

use crate::support::{Broadcaster, CAPTURE, Ingest};
use aircheck_e2e::{
    authority::Authority,
    servers::{self, SECRET},
};
use aircheck_proto::ingest::{
    Alarm, SessionState, SessionStatus, SinkState, SinkStatus, publish_response::Response,
};
use std::{
    io,
    sync::{Mutex, Once},
    time::Duration,
};

/// 20 s of a tone that rises by 100 Hz a second, from 400 Hz on.
const SWEEP: &[u8] = include_bytes!("../../../core/tests/media/sweepA.bin");
const SWEEP_SECONDS: usize = 20;
const VIDEO: &[u8] = include_bytes!("../../../core/tests/media/vp8.bin");
/// Times the speed of life.
const SPEED: usize = 4;

/// What a test waits for at most.
const PATIENCE: Duration = Duration::from_secs(25);

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
    Ingest::with_flags(tempfile::tempdir().expect("tempdir"), &flags).await
}

/// A connected broadcaster, and the offset it goes on from.
async fn host(ingest: &Ingest, show: &str) -> (Broadcaster, u64) {
    let connected = Broadcaster::connect(ingest, show, "ann", "t1", 0).await;
    let mut host = connected.expect("admitted");
    let offset = host.ready().await.offset;
    (host, offset)
}

/// Sends a part of the sweep like a recorder that runs a few times too fast.
async fn play(host: &Broadcaster, range: std::ops::Range<usize>) {
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let step = SWEEP.len() * SPEED / SWEEP_SECONDS / 20;
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

/// The tone rises by 25 Hz a quarter second, wherever it begins, without a hole.
fn rises(pitches: &[f64]) {
    let mut jumps = pitches
        .windows(2)
        .filter(|pair| !(10.0..=40.0).contains(&(pair[1] - pair[0])));
    assert_eq!(jumps.next(), None, "in {pitches:?}");
}

fn no_secret_in(seen: &str) {
    assert!(!seen.contains(SECRET), "{seen}");
}

async fn until(ingest: &Ingest, show: &str, what: &str, wanted: impl Fn(&SessionStatus) -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let status = ingest.status(show).await;
        if wanted(&status) {
            return;
        }
        let in_time = tokio::time::Instant::now() < deadline;
        assert!(in_time, "in vain until {what}: {status:?}\n{}", log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn is_up(status: &SessionStatus, end: &str) -> bool {
    sink(status, end).state() == SinkState::Up
}

async fn drops(ingest: &Ingest, show: &str, mut host: Broadcaster, at: usize) {
    host.acked(at as u64).await;
    drop(host);
    let grace = |s: &SessionStatus| s.state() == SessionState::Grace;
    until(ingest, show, "grace", grace).await;
}

async fn returns(ingest: &Ingest, show: &str, at: usize) -> Broadcaster {
    let (host, offset) = host(ingest, show).await;
    assert_eq!(offset, at as u64);
    host
}

fn ids(encoders: &[(u32, String)]) -> Vec<u32> {
    encoders.iter().map(|(id, _)| *id).collect()
}

const FORMATS: [&str; 3] = ["mp3", "ogg", "webm"];

fn all_up(status: &SessionStatus) -> bool {
    let mut formats = FORMATS.iter();
    formats.all(|format| is_up(status, &format!("ice.{format}")))
}

/// Kills the mp3 encoder while the rest is played to the end; what a listener hears who comes after.
async fn kill_while_playing(
    ingest: &Ingest,
    port: u16,
    mut host: Broadcaster,
    from: usize,
) -> Vec<u8> {
    let encoders = servers::encoders("ice");
    assert_eq!(encoders.len(), 2, "mp3 and ogg: {encoders:?}");
    encoders.iter().for_each(|(_, seen)| no_secret_in(seen));
    let mut mp3 = encoders
        .iter()
        .filter(|(_, seen)| seen.contains("libmp3lame"));
    servers::signal(mp3.next().expect("one encodes mp3").0, "KILL");
    let back = |s: &SessionStatus| sink(s, "ice.mp3").restarts == 1 && is_up(s, "ice.mp3");
    let listen = async {
        until(ingest, "ice", "mp3 is back", back).await;
        servers::listen(port, "/ice.mp3").await.expect("heard")
    };
    let finish = async {
        play(&host, from..SWEEP.len()).await;
        until(ingest, "ice", "mp3 is back", back).await;
        host.stop().await;
        host.end().await;
    };
    tokio::join!(listen, finish).0
}

#[tokio::test(flavor = "multi_thread")]
async fn icecast_is_served_in_three_formats_through_a_drop_and_a_killed_encoder() {
    let server = servers::icecast().await;
    let port = server.port;
    let url =
        |secret: &str, mount: &str| format!("icecast://source:{secret}@127.0.0.1:{port}/{mount}");
    let mut sinks = FORMATS
        .map(|format| url(SECRET, &format!("{{show_id}}.{format}")))
        .to_vec();
    sinks.push(url(&format!("not-{SECRET}"), "closed.mp3"));
    let ingest = ingest(&sinks, &[]).await;
    let (drop_at, kill_at) = (SWEEP.len() * 4 / 10, SWEEP.len() * 6 / 10);
    let (host, _) = host(&ingest, "ice").await;
    play(&host, 0..drop_at).await;
    until(&ingest, "ice", "three are up", all_up).await;
    let heard = FORMATS.map(|format| servers::listen(port, &format!("/ice.{format}")));
    let refused = |s: &SessionStatus| is_down(s, "closed.mp3", "401");
    until(&ingest, "ice", "one is refused", refused).await;
    let before = ids(&servers::encoders("ice"));
    drops(&ingest, "ice", host, drop_at).await;
    let host = returns(&ingest, "ice", drop_at).await;
    play(&host, drop_at..kill_at).await;
    let status = ingest.status("ice").await;
    let restarts = FORMATS.map(|format| sink(&status, &format!("ice.{format}")).restarts);
    assert!(all_up(&status) && restarts == [0; 3], "{status:?}");
    assert_eq!(ids(&servers::encoders("ice")), before, "the same processes");
    let after = kill_while_playing(&ingest, port, host, kill_at).await;

    let [mp3, ogg, webm] = heard;
    let pitches = |media: &[u8]| servers::pitches(&servers::saved(server.dir.path(), media));
    let before = pitches(&mp3.await.expect("heard"));
    assert!(before.len() >= 40, "10 of the first 12 s: {before:?}");
    rises(&before[1..before.len() - 1]);
    let after = pitches(&after);
    let goes_on = after.len() >= 8 && after[1] > 1600.0;
    assert!(goes_on, "2 of the last 8 s: {after:?}");
    rises(&after[1..after.len() - 1]);
    for media in [ogg, webm] {
        let all = pitches(&media.await.expect("heard"));
        assert!((76..=81).contains(&all.len()), "20 s: {all:?}");
        rises(&all[1..all.len() - 1]);
    }
    let archived = ingest.archiver.finalized()[0].takes[0].bytes;
    assert_eq!(archived, SWEEP.len() as u64);
    no_secret_in(&log());
    assert!(log().contains("sink down"), "the log is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn rtmps_goes_only_to_the_server_that_proves_its_name() {
    let (server, authority) = (servers::nginx_rtmp().await, Authority::generate());
    let behind = format!("127.0.0.1:{}", server.port);
    let (port, guard) = authority.guard(&behind).await;
    let ca_file = server.dir.path().join("ca.pem");
    std::fs::write(&ca_file, &authority.pem).expect("write");
    let ca_file = ["--live-sink-ca-file", ca_file.to_str().expect("utf-8")];

    let url = |host: &str| format!("rtmps://{host}:{port}/live/{{show_id}}");
    for (name, more, show) in [
        ("localhost", &[][..], "unknown"),
        ("127.0.0.1", &ca_file, "other"),
    ] {
        let ingest = ingest(&[url(name)], more).await;
        let (mut liar, _) = host(&ingest, show).await;
        play(&liar, 0..SWEEP.len() / 4).await;
        until(&ingest, show, "it is refused", |status| {
            let sink = &status.sinks[0];
            sink.state() == SinkState::Down && sink.error().contains("ertificate")
        })
        .await;
        liar.stop().await;
        liar.end().await;
        ingest.stop().await;
        assert!(!server.dir.path().join(format!("{show}.flv")).exists());
    }

    let ingest = ingest(&[url("localhost")], &ca_file).await;
    let (mut sound, _) = host(&ingest, "proved").await;
    play(&sound, 0..SWEEP.len()).await;
    until(&ingest, "proved", "it is up", |status| {
        is_up(status, "/live")
    })
    .await;
    sound.stop().await;
    sound.end().await;
    ingest.stop().await;
    let all = servers::pitches(&server.dir.path().join("proved.flv"));
    assert!((76..=82).contains(&all.len()), "20 s: {}", all.len());
    rises(&all[1..all.len() - 1]);
    guard.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn rtmp_gets_sound_and_pictures_through_a_drop_and_the_key_stays_hidden() {
    let server = servers::nginx_rtmp().await;
    let sinks = [format!(
        "rtmp://127.0.0.1:{}/live/{{show_id}}?token={SECRET}",
        server.port
    )];
    let ingest = ingest(&sinks, &[]).await;
    let (sound, _) = host(&ingest, "sound").await;
    let half = SWEEP.len() / 2;
    let up = |s: &SessionStatus| is_up(s, "/live");
    play(&sound, 0..half).await;
    until(&ingest, "sound", "sound is up", up).await;
    let encoders = servers::encoders("sound");
    assert_eq!(encoders.len(), 1);
    no_secret_in(&encoders[0].1);
    drops(&ingest, "sound", sound, half).await;
    let (mut pictures, _) = host(&ingest, "pictures").await;
    pictures.send(0, VIDEO).await;
    until(&ingest, "pictures", "pictures are up", up).await;
    pictures.stop().await;
    pictures.end().await;
    let mut sound = returns(&ingest, "sound", half).await;
    play(&sound, half..SWEEP.len()).await;
    let status = ingest.status("sound").await;
    assert!(up(&status) && status.sinks[0].restarts == 0, "{status:?}");
    sound.stop().await;
    sound.end().await;
    ingest.stop().await;
    assert!(
        servers::encoders("sound").is_empty(),
        "all ended with their shows"
    );

    let all = servers::pitches(&server.dir.path().join("sound.flv"));
    assert!((76..=82).contains(&all.len()), "20 s: {}", all.len());
    rises(&all[1..all.len() - 1]);
    let streams = std::process::Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-show_entries",
            "stream=codec_name",
            "-of",
            "csv=p=0",
        ])
        .arg(server.dir.path().join("pictures.flv"))
        .output()
        .expect("ffprobe");
    let streams = String::from_utf8_lossy(&streams.stdout).into_owned();
    assert!(
        streams.contains("h264") && streams.contains("aac"),
        "{streams}"
    );
    no_secret_in(&log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_server_costs_its_own_sink_and_no_ack_listener_or_byte() {
    let (port, stuck) = servers::stuck().await;
    let server = servers::icecast().await;
    let sinks = [
        format!("icecast://source:{SECRET}@127.0.0.1:{port}/stuck.mp3"),
        format!("icecast://source:{SECRET}@127.0.0.1:{port}/stuck.webm"),
        format!(
            "icecast://source:{SECRET}@127.0.0.1:{}/well.ogg",
            server.port
        ),
    ];
    let ingest = ingest(&sinks, &[]).await;
    let (mut host, _) = host(&ingest, "stuck").await;
    host.send(0, CAPTURE).await;
    host.acked(CAPTURE.len() as u64).await;
    until(&ingest, "stuck", "one is well", |s| is_up(s, "well.ogg")).await;
    let both_down = |s: &SessionStatus| {
        is_down(s, "stuck.mp3", "no progress") && is_down(s, "stuck.webm", "no progress")
    };
    until(&ingest, "stuck", "both are down", both_down).await;
    let lost = |s: &SessionStatus| sink(s, "stuck.webm").lost_clusters > 0;
    until(&ingest, "stuck", "what waited is lost", lost).await;
    let status = ingest.status("stuck").await;
    assert_eq!(sink(&status, "well.ogg").lost_clusters, 0);
    host.stop().await;
    host.end().await;
    let manifest = ingest.archiver.finalized().remove(0);
    assert_eq!(
        (manifest.takes[0].bytes, manifest.gaps.len()),
        (CAPTURE.len() as u64, 0)
    );
    ingest.spool_empties().await;
    stuck.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_encoder_is_replaced_and_costs_no_ack_or_byte() {
    let server = servers::icecast().await;
    let port = server.port;
    let sinks = [format!(
        "icecast://source:{SECRET}@127.0.0.1:{port}/frozen.ogg"
    )];
    let ingest = ingest(&sinks, &[]).await;
    let (mut host, _) = host(&ingest, "frozen").await;
    let quarter = SWEEP.len() / 4;
    play(&host, 0..quarter).await;
    until(&ingest, "frozen", "it is up", |s| is_up(s, "frozen.ogg")).await;
    let frozen = ids(&servers::encoders("frozen"));
    servers::signal(frozen[0], "STOP");
    host.send(quarter as u64, &SWEEP[quarter..2 * quarter])
        .await;
    host.acked(2 * quarter as u64).await;
    // More than the pipe to the encoder holds.
    host.send(2 * quarter as u64, &SWEEP[2 * quarter..]).await;
    host.acked(SWEEP.len() as u64).await;
    let stalled = |s: &SessionStatus| is_down(s, "frozen.ogg", "no progress");
    until(&ingest, "frozen", "the stall is seen", stalled).await;
    assert!(!ids(&servers::encoders("frozen")).contains(&frozen[0]));
    let states = host.next_matching(|response| {
        matches!(response, Response::State(state) if state.sinks.iter().any(|sink| sink.state() == SinkState::Down))
    });
    states.await;
    host.stop().await;
    host.end().await;
    let manifest = ingest.archiver.finalized().remove(0);
    assert_eq!(manifest.takes[0].bytes, SWEEP.len() as u64);
}

/// A live WebM of what ffmpeg's `source` makes, longer than a watch's patience.
fn made(source: &str) -> Vec<u8> {
    let made = std::process::Command::new("ffmpeg")
        .args([
            "-v", "error", "-f", "lavfi", "-i", source, "-c:a", "libopus",
        ])
        .args([
            "-f",
            "webm",
            "-live",
            "1",
            "-cluster_time_limit",
            "300",
            "-",
        ])
        .output();
    made.expect("ffmpeg").stdout
}

async fn alarms_of(ingest: &Ingest, show: &str, media: &[u8], wanted: &[Alarm]) {
    let (mut host, _) = host(ingest, show).await;
    host.send(0, media).await;
    let told = |said: &Response| matches!(said, Response::State(state) if state.alarms().eq(wanted.iter().copied()));
    host.next_matching(told).await;
    let raised = |s: &SessionStatus| s.alarms().collect::<Vec<_>>() == wanted;
    until(ingest, show, "the alarm is raised", raised).await;
    host.stop().await;
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_and_clipping_are_said_and_a_real_show_raises_no_alarm() {
    keep_log();
    let flags = ["--watch-silence", "5s", "--watch-clipping"];
    let ingest = Ingest::with_flags(tempfile::tempdir().expect("tempdir"), &flags).await;
    let silent = made("anullsrc=d=9");
    alarms_of(&ingest, "silent", &silent, &[Alarm::Silence]).await;
    let loud = made("sine=f=440:d=9,volume=40dB");
    alarms_of(&ingest, "loud", &loud, &[Alarm::Clipping]).await;
    // Sound ends a silence; the capture is neither silent nor too loud.
    let (mut host, _) = host(&ingest, "real").await;
    host.send(0, SWEEP).await;
    host.acked(SWEEP.len() as u64).await;
    host.stop().await;
    host.end().await;
    assert_eq!(ingest.archiver.finalized().len(), 3);
    assert!(!log().contains("show_id=real}: the show's sound is amiss"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_host_a_closed_port_and_a_missing_encoder_are_named_and_the_show_goes_on() {
    let sinks = [
        format!("icecast://source:{SECRET}@no-such-host.invalid/lost.mp3"),
        format!("icecast://source:{SECRET}@127.0.0.1:1/closed.mp3"),
        format!("rtmp://127.0.0.1:1/live/{SECRET}"),
    ];
    let ingest = ingest(&sinks, &["--ffmpeg", "/no/such/ffmpeg"]).await;
    let (mut host, _) = host(&ingest, "lost").await;
    host.send(0, CAPTURE).await;
    host.acked(CAPTURE.len() as u64).await;
    for (end, why) in [
        ("lost.mp3", "find the host"),
        ("closed.mp3", "connect"),
        ("/live", "no \"/no/such/ffmpeg\""),
    ] {
        until(&ingest, "lost", why, |s| is_down(s, end, why)).await;
    }
    let status = ingest.status("lost").await;
    assert_eq!(status.state(), SessionState::Live);
    no_secret_in(&format!("{status:?}"));
    host.stop().await;
    host.end().await;
    no_secret_in(&log());
}
