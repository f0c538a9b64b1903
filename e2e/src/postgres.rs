//! A real PostgreSQL of the test's own.
//!
//! Owns its files and its process; must never touch one that runs on the machine already.

use crate::{
    cluster::free_address,
    process::{Process, Readiness},
    wait::{HEALED, eventually, within},
};
use rustix::process::{Signal, geteuid};
use std::{env, fs, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::Path, path::PathBuf};
use tempfile::TempDir;
use tokio::process::Command;

/// A PostgreSQL server.
#[derive(Debug)]
pub struct Postgres {
    tools: PathBuf,
    /// Where it is.
    pub address: SocketAddr,
    process: Process,
    // Last: the server must be dead before its files go.
    _folder: TempDir,
}

impl Postgres {
    /// Starts a server of its own, in a folder and on a port of its own.
    ///
    /// # Panics
    /// If PostgreSQL is not installed or does not start.
    pub async fn start() -> Self {
        let (tools, address) = (tools(), free_address());
        let folder = tempfile::Builder::new()
            .prefix("aircheck-postgres-")
            .tempdir()
            .expect("a temporary folder");
        let data = folder.path().join("data");
        fs::create_dir(&data).expect("a folder for PostgreSQL");
        own(folder.path(), &data).await;
        let mut initdb = as_postgres(&tools.join("initdb"));
        initdb
            .args([
                "--no-sync",
                "-A",
                "trust",
                "-U",
                "postgres",
                "-E",
                "UTF8",
                "-D",
            ])
            .arg(&data);
        let made = within(HEALED, "initdb", initdb.output())
            .await
            .expect("run initdb");
        assert!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let server = as_postgres(&tools.join("postgres"));
        let process = Process::new(
            "postgres",
            server.as_std().get_program().into(),
            Readiness::Accepts(address),
            folder.path(),
        )
        .arguments(server.as_std().get_args())
        .arguments(["-D".into(), data.into_os_string()])
        .arguments(["-p".to_owned(), address.port().to_string()])
        .arguments([
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "unix_socket_directories=",
            // What a test kills is the server, never the machine.
            "-c",
            "fsync=off",
        ]);
        let mut postgres = Self {
            tools,
            address,
            process,
            _folder: folder,
        };
        postgres.restart().await;
        postgres
    }

    /// As the archiver's `--database-url`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.address)
    }

    /// Starts it again.
    ///
    /// # Panics
    /// If it runs, or accepts nobody in time.
    pub async fn restart(&mut self) {
        self.process.start().await;
        eventually(HEALED, "PostgreSQL answers", || async {
            self.ask("select 1").await.map(drop)
        })
        .await;
    }

    /// Stops it at once, connections and all.
    pub async fn stop(&mut self) {
        self.process.signal(Signal::QUIT);
        self.process.gone(HEALED).await;
    }

    /// The answer to a query, one row a line.
    ///
    /// # Errors
    /// What psql said.
    ///
    /// # Panics
    /// If there is no psql.
    pub async fn ask(&self, query: &str) -> Result<String, String> {
        let beside = self.tools.join("psql");
        let mut psql = Command::new(if beside.exists() {
            beside
        } else {
            "psql".into()
        });
        psql.args([
            &self.url(),
            "-X",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            query,
        ]);
        let output = within(HEALED, "psql", psql.output())
            .await
            .expect("run psql");
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

/// The folder with `initdb`: of the newest version where there are several.
fn tools() -> PathBuf {
    let debian = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut debian: Vec<PathBuf> = debian.map(|entry| entry.path().join("bin")).collect();
    debian.sort();
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders = env::split_paths(&path).chain(debian.into_iter().rev());
    folders
        .find(|folder| folder.join("initdb").exists())
        .expect("PostgreSQL is installed (apt: postgresql)")
}

/// PostgreSQL refuses to run as root: there, it runs as the user of its package.
fn as_postgres(program: &Path) -> Command {
    if !geteuid().is_root() {
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

/// Gives `data` to the user of PostgreSQL, and lets him through `folder`.
async fn own(folder: &Path, data: &Path) {
    if !geteuid().is_root() {
        return;
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("open a folder of ours");
    let given = Command::new("chown")
        .arg("postgres:")
        .arg(data)
        .status()
        .await;
    assert!(
        given.expect("run chown").success(),
        "chown {}",
        data.display()
    );
}
