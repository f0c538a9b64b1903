//! The S3 server of the default set-up: s3s-fs over a directory, for development.
//!
//! Owns its listener and its keys; must never be mistaken for a store to keep shows in for years.

mod assembly;
mod files;
mod store;

use aircheck_runtime::shutdown::Shutdown;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::Service};
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    pin::{Pin, pin},
    time::Duration,
};
use store::Store;
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;

/// Longest wait for the head of a request.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);
/// Pause after a failed accept: the process is out of descriptors, and so it will be for a moment.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for requests under way at the end.
const FINISH_DEADLINE: Duration = Duration::from_secs(3);

/// Keys of the default set-up. They guard nothing: its server listens on the loopback interface.
pub(crate) const DEV_ACCESS_KEY_ID: &str = "aircheck";
/// See [`DEV_ACCESS_KEY_ID`].
pub(crate) const DEV_SECRET_ACCESS_KEY: &str = "aircheck-development";

/// Why the directory can't be served.
#[derive(Debug, Error)]
pub(crate) enum OpenError {
    /// It can't be made or written.
    #[error("can't write to {dir}")]
    Dir {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// s3s-fs refuses it.
    #[error("can't serve {dir}: {reason:?}")]
    Refused {
        /// The directory.
        dir: PathBuf,
        /// Why; its error is no `std::error::Error`.
        reason: s3s_fs::Error,
    },
    /// A name that would not be a directory of its own.
    #[error("a bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens")]
    Bucket,
}

/// A directory ready to be served.
#[derive(Clone, Debug)]
pub(crate) struct DevS3(S3Service);

impl DevS3 {
    /// Opens `dir`, which is made if need be, as is `bucket` within.
    ///
    /// # Errors
    /// If the directory can't be used, or the name.
    pub(crate) fn open(
        dir: &Path,
        bucket: &str,
        access_key_id: &str,
        secret_access_key: &str,
    ) -> Result<Self, OpenError> {
        if !is_bucket(bucket) {
            return Err(OpenError::Bucket);
        }
        let failed = |source| OpenError::Dir {
            dir: dir.to_owned(),
            source,
        };
        fs::create_dir_all(dir.join(bucket)).map_err(failed)?;
        let store = Store::open(&dir.canonicalize().map_err(failed)?).map_err(|reason| {
            OpenError::Refused {
                dir: dir.to_owned(),
                reason,
            }
        })?;
        let mut service = S3ServiceBuilder::new(store);
        service.set_auth(SimpleAuth::from_single(access_key_id, secret_access_key));
        Ok(Self(service.build()))
    }

    /// Serves until `shutdown`; requests under way may finish.
    pub(crate) async fn serve(self, listener: TcpListener, shutdown: Shutdown) {
        let (connections, requests) = (TaskTracker::new(), TaskTracker::new());
        loop {
            let accepted = tokio::select! {
                () = shutdown.triggered() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let service = Requests {
                        service: self.0.clone(),
                        tasks: requests.clone(),
                    };
                    let connection = serve_connection(stream, service, shutdown.clone());
                    connections.spawn(connection);
                }
                Err(error) => {
                    tracing::warn!(%error, "accept a connection to S3");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        connections.close();
        requests.close();
        let ended = async {
            connections.wait().await;
            requests.wait().await;
        };
        if timeout(FINISH_DEADLINE, ended).await.is_err() {
            tracing::warn!(
                connections = connections.len(),
                "requests to S3 did not end in time"
            );
        }
    }
}

/// A subset of Amazon's rules that no path can be made from.
fn is_bucket(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    (3..=63).contains(&name.len())
        && name.bytes().all(allowed)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        && !name.contains("..")
}

/// Runs every request in a task of its own: a client that hangs up in the middle of a Complete must
/// not leave it half done, as it would with the connection's task.
#[derive(Clone)]
struct Requests {
    service: S3Service,
    tasks: TaskTracker,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<s3s::Body>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let service = self.service.clone();
        let task = self
            .tasks
            .spawn(async move { Service::call(&service, request).await });
        Box::pin(async move { Ok(task.await??) })
    }
}

async fn serve_connection(stream: TcpStream, service: Requests, shutdown: Shutdown) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "serve without TCP_NODELAY");
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = shutdown.triggered() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "connection to S3 ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_paths_are_no_buckets() {
        for good in ["aircheck", "a-b.c", "123"] {
            assert!(is_bucket(good), "{good}");
        }
        for bad in [
            "", "ab", "../x", "a/b", "a..b", "Upper", ".tmp", "abc-", "a b c",
        ] {
            assert!(!is_bucket(bad), "{bad}");
        }
    }
}
