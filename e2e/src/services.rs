//! How each process of the system is started: arguments, addresses, readiness.
//!
//! Owns the command lines, which are the contract's; must never start anything.

use crate::process::{Process, Readiness, aircheck};
use std::{net::SocketAddr, path::Path};

/// Name of the process that is everything.
pub const UP: &str = "up";
/// Name of the gateway's process.
pub const GATEWAY: &str = "gateway";
/// Name of the ingest's process.
pub const INGEST: &str = "ingest";
/// Name of the archiver's process.
pub const ARCHIVER: &str = "archiver";
/// Name of the S3 server's process.
pub const S3: &str = "s3-dev";

const BUCKET: &str = "aircheck";
const ACCESS_KEY: &str = "e2e-access-key";
const SECRET_KEY: &str = "e2e-secret-key";

/// Where the services are.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// HTTP and WebSocket of the gateway.
    pub web: SocketAddr,
    /// gRPC of the ingest.
    pub ingest: SocketAddr,
    /// Readiness and metrics of the ingest.
    pub ingest_ops: SocketAddr,
    /// gRPC of the archiver.
    pub archiver: SocketAddr,
    /// Readiness and metrics of the archiver.
    pub archiver_ops: SocketAddr,
    /// The S3 server.
    pub s3: SocketAddr,
}

/// What all services of one test share.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Folder of data and logs.
    pub folder: &'a Path,
    /// Where everything is.
    pub at: Addresses,
    /// Flags of the test's own, as variables.
    pub settings: &'a [(&'a str, &'a str)],
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

impl Plan<'_> {
    /// Everything in one process.
    #[must_use]
    pub fn up(&self) -> Process {
        let at = self.at;
        self.service(UP, Readiness::Readyz(at.web))
            .flag("--data-dir", self.folder.join("data"))
            .flag("--listen", at.web.to_string())
            .flag("--ingest-listen", at.ingest.to_string())
            .flag("--archiver-listen", at.archiver.to_string())
            .flag("--s3-listen", at.s3.to_string())
    }

    /// Services of their own, in the order in which they are started.
    #[must_use]
    pub fn split(&self, database_url: &str) -> Vec<Process> {
        vec![
            self.s3(),
            self.archiver(database_url),
            self.ingest(),
            self.gateway(),
        ]
    }

    fn s3(&self) -> Process {
        self.service(S3, Readiness::Accepts(self.at.s3))
            .flag("--listen", self.at.s3.to_string())
            .flag("--bucket", BUCKET)
            .flag("--data-dir", self.folder.join("objects"))
            .environment(&KEYS)
    }

    fn archiver(&self, database_url: &str) -> Process {
        self.service(ARCHIVER, Readiness::Readyz(self.at.archiver_ops))
            .flag("--listen", self.at.archiver.to_string())
            .flag("--http-listen", self.at.archiver_ops.to_string())
            .flag("--database-url", database_url)
            .flag("--s3-endpoint", url(self.at.s3))
            .flag("--s3-bucket", BUCKET)
            .environment(&KEYS)
    }

    fn ingest(&self) -> Process {
        self.service(INGEST, Readiness::Readyz(self.at.ingest_ops))
            .flag("--listen", self.at.ingest.to_string())
            .flag("--http-listen", self.at.ingest_ops.to_string())
            .flag("--advertise", url(self.at.ingest))
            .flag("--archiver", url(self.at.archiver))
            .flag("--spool-dir", self.folder.join("spool"))
    }

    fn gateway(&self) -> Process {
        self.service(GATEWAY, Readiness::Readyz(self.at.web))
            .flag("--listen", self.at.web.to_string())
            .flag("--ingest", url(self.at.ingest))
            .flag("--archiver", url(self.at.archiver))
    }

    fn service(&self, name: &str, readiness: Readiness) -> Process {
        Process::new(name, aircheck(), readiness, self.folder)
            .arguments([name])
            .environment(&[("AIRCHECK_LOG_FORMAT", "json")])
            .environment(self.settings)
    }
}

const KEYS: [(&str, &str); 2] = [
    ("AIRCHECK_S3_ACCESS_KEY_ID", ACCESS_KEY),
    ("AIRCHECK_S3_SECRET_ACCESS_KEY", SECRET_KEY),
];
