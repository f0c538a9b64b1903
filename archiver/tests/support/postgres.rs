//! A PostgreSQL of its own for a test, on a free port, in a temporary folder.
//!
//! It is killed with this value. As root it runs as the user `postgres`, because it refuses root.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A running (or, between [`Postgres::kill`] and [`Postgres::restart`], a dead) server.
#[derive(Debug)]
pub struct Postgres {
    port: u16,
    folder: TempDir,
    binaries: PathBuf,
    server: Option<Child>,
}

impl Postgres {
    /// # Panics
    /// If there is no PostgreSQL on this machine.
    pub fn start() -> Self {
        let binaries = binaries();
        let folder = tempfile::tempdir().expect("make a folder");
        if is_root() {
            let done = Command::new("chown")
                .arg("postgres")
                .arg(folder.path())
                .status();
            assert!(
                done.expect("run chown").success(),
                "give the folder to postgres"
            );
        }
        let data = folder.path().join("data");
        let made = as_postgres(&binaries.join("initdb"))
            .args([
                "--username=postgres",
                "--auth=trust",
                "--no-sync",
                "--encoding=UTF8",
            ])
            .arg("--pgdata")
            .arg(&data)
            .current_dir(folder.path())
            .output()
            .expect("run initdb");
        assert!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let mut postgres = Self {
            port,
            folder,
            binaries,
            server: None,
        };
        postgres.restart();
        postgres
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Starts the server on what is in its folder, and waits until it accepts connections.
    pub fn restart(&mut self) {
        assert!(self.server.is_none(), "it runs already");
        let server = as_postgres(&self.binaries.join("postgres"))
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k", ""])
            .args(["-c", "fsync=off", "-c", "max_connections=60"])
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("run postgres");
        self.server = Some(server);
        let asked = Instant::now();
        while !self.accepts() {
            assert!(
                asked.elapsed() < Duration::from_secs(60),
                "postgres does not come up"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn accepts(&self) -> bool {
        let ready = Command::new(self.binaries.join("pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
            .status();
        ready.is_ok_and(|status| status.success())
    }

    /// Ends the server as a crash would: sessions break, the next start recovers.
    pub fn kill(&mut self) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        let pid = i32::try_from(server.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        let pid = pid.expect("a process id");
        // SIGQUIT is PostgreSQL's immediate shutdown: SIGKILL would leave its children behind.
        rustix::process::kill_process(pid, rustix::process::Signal::QUIT).expect("signal");
        server.wait().expect("wait for postgres");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

fn binaries() -> PathBuf {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&on_path).collect();
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        let mut found: Vec<_> = versions
            .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
            .collect();
        found.sort();
        folders.extend(found.into_iter().rev());
    }
    let wanted = ["postgres", "initdb", "pg_isready"];
    folders
        .into_iter()
        .find(|folder| wanted.iter().all(|name| folder.join(name).is_file()))
        .expect("these tests need PostgreSQL: apt-get install postgresql")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn as_postgres(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
            "--",
        ])
        .arg(program);
    command
}
