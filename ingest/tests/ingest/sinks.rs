//! Live sinks against a real Icecast with a real ffmpeg, and against servers that misbehave.

use crate::support::{Broadcaster, CAPTURE, Ingest};
use aircheck_proto::ingest::SinkState;
use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

const PASSWORD: &str = "not-for-the-process-table";
/// What a test waits for at most.
const PATIENCE: Duration = Duration::from_secs(20);

/// Encoders are found as children of this process, so one test at a time has some.
static ENCODERS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// An Icecast on a free port, as a user that is not root.
struct Icecast {
    process: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Icecast {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("tempdir");
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("its address");
        drop(free);
        let config = folder.path().join("icecast.xml");
        std::fs::write(&config, settings(folder.path(), address.port())).expect("written");
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "icecast2",
            "-c",
        ]);
        if !Path::new("/proc/self")
            .metadata()
            .is_ok_and(|own| is_root(&own))
        {
            command = Command::new("icecast2");
            command.arg("-c");
        }
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(folder.path(), everybody).expect("opened to that user");
        let process = command
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("run icecast2 (apt: icecast2)");
        let icecast = Self {
            process,
            address,
            folder,
        };
        let there = || std::net::TcpStream::connect(icecast.address).is_ok();
        until("icecast listens", there).await;
        icecast
    }

    /// What it has to say, for failing tests.
    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default()
    }

    /// Seconds of audio that a listener of a mount hears within `seconds`, decoded.
    async fn hears(&self, mount: &str, seconds: u32) -> f64 {
        let url = format!("http://{}/{mount}", self.address);
        let limit = seconds.to_string();
        let heard = tokio::process::Command::new("ffmpeg")
            .args([
                "-v",
                "error",
                "-probesize",
                "8192",
                "-analyzeduration",
                "100000",
                "-rw_timeout",
                "15000000",
                "-i",
                &url,
                "-t",
                &limit,
            ])
            .args(["-f", "s16le", "-ac", "1", "-ar", "8000", "-"])
            .output()
            .await
            .expect("run ffmpeg");
        #[expect(clippy::cast_precision_loss, reason = "a few seconds of samples")]
        let samples = (heard.stdout.len() / 2) as f64;
        let loud = heard
            .stdout
            .chunks_exact(2)
            .filter(|s| s[1] != 0 && s[1] != 0xff)
            .count();
        assert!(
            loud > heard.stdout.len() / 10,
            "a tone is heard, not silence"
        );
        samples / 8000.0
    }
}

impl Drop for Icecast {
    fn drop(&mut self) {
        if self.process.kill().is_ok() {
            self.process.wait().expect("it ends");
        }
    }
}

fn is_root(own: &std::fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::uid(own) == 0
}

fn settings(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    format!(
        "<icecast><limits><clients>20</clients><sources>5</sources>
        <source-timeout>10</source-timeout></limits>
        <authentication><source-password>{PASSWORD}</source-password>
        <admin-user>admin</admin-user><admin-password>x</admin-password></authentication>
        <hostname>localhost</hostname>
        <listen-socket><port>{port}</port><bind-address>127.0.0.1</bind-address></listen-socket>
        <paths><basedir>{folder}</basedir><logdir>{folder}</logdir>
        <webroot>/usr/share/icecast2/web</webroot><adminroot>/usr/share/icecast2/admin</adminroot>
        </paths><logging><errorlog>error.log</errorlog><accesslog>access.log</accesslog><loglevel>3</loglevel></logging></icecast>"
    )
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !is() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "waited in vain until {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Command lines of the ffmpegs that this process has started.
fn encoders() -> Vec<(u32, String)> {
    let own = std::process::id().to_string();
    let listed = Command::new("ps")
        .args(["-o", "pid=,args=", "--ppid", &own])
        .output();
    let listed = String::from_utf8_lossy(&listed.expect("run ps").stdout).into_owned();
    let lines = listed.lines().filter(|line| line.contains("ffmpeg"));
    lines
        .filter_map(|line| line.trim().split_once(' '))
        .filter_map(|(pid, args)| Some((pid.parse().ok()?, args.to_owned())))
        .collect()
}

async fn state(ingest: &Ingest) -> SinkState {
    ingest.status("7").await.sinks[0].state()
}

async fn becomes(ingest: &Ingest, wanted: SinkState) {
    let seen = async {
        while state(ingest).await != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen)
        .await
        .expect("the sink's state in time");
}

async fn with_sink(sink: &str) -> Ingest {
    let spool = tempfile::tempdir().expect("tempdir");
    Ingest::with_flags(spool, &["--live-sink", sink]).await
}

/// Sends the capture at about the speed of life, from `from` to `to`.
async fn speak(host: &Broadcaster, from: usize, to: usize) {
    // 16 kB/s, in pieces of a quarter second.
    for start in (from..to).step_by(4000) {
        let end = (start + 4000).min(to);
        host.send(start as u64, &CAPTURE[start..end]).await;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn icecast_plays_the_show_before_and_after_a_drop_and_a_kill_of_ffmpeg() {
    let _alone = ENCODERS.lock().await;
    let icecast = Icecast::start().await;
    let sink = format!(
        "icecast://source:{PASSWORD}@{}/{{show_id}}.mp3",
        icecast.address
    );
    let ingest = with_sink(&sink).await;
    let mut host = Broadcaster::connect(&ingest, "7", "ann", "t1", 0)
        .await
        .expect("admitted");
    host.ready().await;
    host.send(0, &CAPTURE[..60_000]).await;
    let (_, heard) = tokio::join!(speak(&host, 60_000, 160_000), async {
        becomes(&ingest, SinkState::Up).await;
        icecast.hears("7.mp3", 3).await
    });
    assert!(heard > 2.0, "{heard} s before the drop");
    let started = encoders();
    assert_eq!(started.len(), 1, "one encoder: {started:?}");
    assert!(
        !started[0].1.contains(PASSWORD),
        "no password for everybody to see"
    );

    drop(host);
    let mut host = Broadcaster::connect(&ingest, "7", "ann", "t1", 0)
        .await
        .expect("resumed");
    let from = usize::try_from(host.ready().await.offset).expect("an offset");
    let (_, heard) = tokio::join!(speak(&host, from, 260_000), icecast.hears("7.mp3", 2));
    assert!(heard > 1.0, "{heard} s after the drop");
    let sinks = ingest.status("7").await.sinks;
    let same = encoders().first().map(|(pid, _)| *pid);
    assert_eq!(
        same,
        Some(started[0].0),
        "a drop of the host restarts nothing: {sinks:?}\n{}",
        icecast.log()
    );

    let killed = Command::new("kill")
        .args(["-9", &started[0].0.to_string()])
        .status();
    assert!(killed.expect("run kill").success());
    let (_, heard) = tokio::join!(speak(&host, 260_000, 420_000), async {
        until("another encoder runs", || {
            encoders().iter().any(|(pid, _)| *pid != started[0].0)
        })
        .await;
        becomes(&ingest, SinkState::Up).await;
        icecast.hears("7.mp3", 2).await
    });
    assert!(heard > 1.0, "{heard} s after the kill");
    assert!(ingest.status("7").await.sinks[0].restarts >= 1);
    host.stop().await;
    host.end().await;
    until("the encoder is gone", || encoders().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_reads_nothing_and_one_that_is_not_there_cost_the_show_nothing() {
    let _alone = ENCODERS.lock().await;
    let stuck = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = stuck.local_addr().expect("its address");
    for sink in [
        format!("icecast://source:x@{address}/{{show_id}}.webm"),
        "icecast://source:x@127.0.0.1:1/{show_id}.webm".to_owned(),
    ] {
        let ingest = with_sink(&sink).await;
        let mut host = Broadcaster::connect(&ingest, "7", "ann", "t1", 0)
            .await
            .expect("admitted");
        host.ready().await;
        host.send(0, CAPTURE).await;
        host.acked(CAPTURE.len() as u64).await;
        assert_ne!(state(&ingest).await, SinkState::Up);
        host.stop().await;
        host.end().await;
        let manifest = ingest.archiver.next_finalized().await;
        assert_eq!(manifest.takes[0].bytes, CAPTURE.len() as u64);
    }
}
