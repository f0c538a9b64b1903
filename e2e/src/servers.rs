//! Real servers for live sinks, and what can be heard there.
//!
//! Owns one process or task each, which ends with its owner. Must know nothing of the product.

use crate::cluster::free_address;
use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What every server of a test takes as its password or key, and nobody may see.
pub const SECRET: &str = "sesame-7391";

/// A server that ends with the test.
#[derive(Debug)]
pub struct Server {
    /// On loopback.
    pub port: u16,
    /// What it writes.
    pub dir: TempDir,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().expect("kill the server");
        self.child.wait().expect("reap the server");
    }
}

fn dir() -> TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().expect("tempdir");
    // The servers run as somebody else where the test runs as root.
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(dir.path(), open).expect("chmod");
    dir
}

fn is_root() -> bool {
    uid() == 0
}

fn uid() -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").expect("proc").uid()
}

async fn started(mut command: Command, port: u16, dir: TempDir) -> Server {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = command.spawn().expect("the server is installed");
    let mut server = Server { port, dir, child };
    let mut tries = 0;
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        tries += 1;
        assert!(tries < 500, "the server does not listen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ended = server.child.try_wait().expect("ask the server");
    assert!(ended.is_none(), "somebody else has its port: {ended:?}");
    server
}

/// An Icecast that refuses root, as it does.
///
/// # Panics
/// If it is not installed (apt: icecast2) or does not start.
pub async fn icecast() -> Server {
    let (port, dir) = (free_address().port(), dir());
    let log = dir.path().display();
    let config = format!(
        "<icecast><location>test</location><admin>a@example.org</admin><hostname>127.0.0.1</hostname>
        <limits><clients>50</clients><sources>20</sources><queue-size>800000</queue-size><burst-size>400000</burst-size></limits>
        <authentication><source-password>{SECRET}</source-password>
        <admin-user>admin</admin-user><admin-password>admin</admin-password></authentication>
        <listen-socket><port>{port}</port><bind-address>127.0.0.1</bind-address></listen-socket>
        <paths><logdir>{log}</logdir><webroot>/usr/share/icecast2/web</webroot>
        <adminroot>/usr/share/icecast2/admin</adminroot></paths>
        <logging><accesslog>-</accesslog><errorlog>-</errorlog></logging></icecast>"
    );
    let path = dir.path().join("icecast.xml");
    std::fs::write(&path, config).expect("write");
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "icecast2",
        ]);
        command
    } else {
        Command::new("icecast2")
    };
    command.arg("-c").arg(&path);
    started(command, port, dir).await
}

/// An nginx that records what it gets by RTMP as `NAME.flv` in its directory.
///
/// # Panics
/// If it is not installed (apt: libnginx-mod-rtmp) or does not start.
pub async fn nginx_rtmp() -> Server {
    let (port, dir) = (free_address().port(), dir());
    let path = dir.path().display();
    let config = format!(
        "load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;
        daemon off; master_process off; pid {path}/nginx.pid; error_log {path}/error.log;
        events {{ worker_connections 64; }}
        rtmp {{ server {{ listen 127.0.0.1:{port};
        application live {{ live on; record all; record_path {path}; }} }} }}"
    );
    let file = dir.path().join("nginx.conf");
    std::fs::write(&file, config).expect("write");
    let mut command = Command::new("nginx");
    command.arg("-e").arg(dir.path().join("error.log"));
    command.arg("-p").arg(dir.path()).arg("-c").arg(&file);
    started(command, port, dir).await
}

/// A server that takes a source and then reads no more.
///
/// # Panics
/// If there is no free port.
pub async fn stuck() -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("address").port();
    let serving = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
            answer.expect("a source waits");
            held.push(stream);
        }
    });
    (port, serving)
}

/// Listens to a mount until its source leaves; answers what was heard.
///
/// # Panics
/// In the task, if the mount does not exist.
#[must_use]
pub fn listen(port: u16, mount: &str) -> JoinHandle<Vec<u8>> {
    let request = format!("GET {mount} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n");
    tokio::spawn(async move {
        let mut stream = TcpStream::connect(("127.0.0.1", port))
            .await
            .expect("connect");
        stream.write_all(request.as_bytes()).await.expect("ask");
        let mut answer = Vec::new();
        // Icecast may reset the connection when the source is gone.
        if let Err(error) = stream.read_to_end(&mut answer).await {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
        assert!(
            answer.starts_with(b"HTTP/1.0 200"),
            "{:?}",
            String::from_utf8_lossy(&answer[..answer.len().min(100)])
        );
        let head = answer
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .expect("a head");
        answer.split_off(head + 4)
    })
}

/// What a listener hears, in steps of a quarter of a second: the pitch in Hz.
///
/// # Panics
/// If there is no ffmpeg.
#[must_use]
pub fn pitches(media: &Path) -> Vec<f64> {
    let rate = 48_000;
    let decoded = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(media)
        .args([
            "-map", "0:a:0", "-ac", "1", "-ar", "48000", "-f", "s16le", "pipe:1",
        ])
        .output()
        .expect("ffmpeg");
    let samples: Vec<i16> = decoded
        .stdout
        .chunks_exact(2)
        .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
        .collect();
    let rises = |window: &[i16]| window.windows(2).filter(|w| w[0] < 0 && w[1] >= 0).count();
    let windows = samples.chunks_exact(rate / 4);
    windows.map(|window| rises(window) as f64 * 4.0).collect()
}

/// Media as a file in `dir`.
///
/// # Panics
/// If it can't be written.
#[must_use]
pub fn saved(dir: &Path, media: &[u8]) -> PathBuf {
    let path = dir.join("heard");
    std::fs::write(&path, media).expect("write");
    path
}

/// The ffmpeg processes of this test process that work for a show: id, arguments and environment.
///
/// # Panics
/// If processes can't be listed.
#[must_use]
pub fn encoders(show: &str) -> Vec<(u32, String)> {
    let title = format!("title={show}\0");
    let parent = format!("PPid:\t{}\n", std::process::id());
    let read = |pid: u32, file: &str| {
        let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("proc") {
        let name = entry.expect("an entry").file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let mut seen = read(pid, "cmdline");
        if seen.contains(&title) && read(pid, "status").contains(&parent) {
            write!(seen, "{}", read(pid, "environ")).expect("room");
            found.push((pid, seen));
        }
    }
    found
}

/// Sends a signal, such as `KILL` or `STOP`.
///
/// # Panics
/// If there is no such process.
pub fn signal(pid: u32, signal: &str) {
    let status = Command::new("kill")
        .args(["-s", signal, &pid.to_string()])
        .status();
    assert!(status.expect("kill").success());
}
