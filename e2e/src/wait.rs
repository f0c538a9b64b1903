//! Deadlines.
//!
//! Owns how long a test waits for anything; must never sleep for a fixed time and hope.

use std::{future::Future, time::Duration};
use tokio::time::{Instant, sleep, timeout};

/// What should take milliseconds, on a machine that is busy with other tests.
pub const SOON: Duration = Duration::from_secs(10);
/// What may need a restart, a retry with backoff or a lease of a dead process.
pub const HEALED: Duration = Duration::from_secs(25);
/// Beyond this a test has hung.
pub const HANG: Duration = Duration::from_secs(120);
/// Between two looks at something that can't be awaited.
const LOOK_EVERY: Duration = Duration::from_millis(40);

/// Waits for `future`; panics with `what` when it takes longer than [`SOON`].
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    within(SOON, what, future).await
}

/// Waits for `future`; panics with `what` when it takes longer than `limit`.
pub async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match timeout(limit, future).await {
        Ok(value) => value,
        Err(_elapsed) => panic!("waited {limit:?} in vain: {what}"),
    }
}

/// Looks again and again until `look` answers `Ok`; panics with its last complaint after `limit`.
pub async fn eventually<T, E, F>(limit: Duration, what: &str, mut look: impl FnMut() -> F) -> T
where
    E: std::fmt::Debug,
    F: Future<Output = Result<T, E>>,
{
    let deadline = Instant::now() + limit;
    loop {
        match timeout(limit, look()).await {
            Ok(Ok(value)) => return value,
            Ok(Err(complaint)) => {
                assert!(
                    Instant::now() < deadline,
                    "waited {limit:?} in vain: {what}; last: {complaint:?}"
                );
            }
            Err(_elapsed) => panic!("waited {limit:?} in vain: {what}; the last look never ended"),
        }
        sleep(LOOK_EVERY).await;
    }
}
