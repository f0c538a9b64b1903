//! A second attempt at a recording whose takes could not be stitched.
//!
//! Owns the waiting for its end; must never touch an object itself.

use crate::http::{Http, escaped, join};
use serde::Deserialize;

/// What the gateway says of a repair.
#[derive(Debug, Deserialize)]
struct Answer {
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Running,
    Repaired,
    NothingToRepair,
}

/// Asks until the repair has ended, and says how. Each call waits a while for the end by itself.
///
/// # Errors
/// If the gateway does not answer, or says why the recording can't be repaired.
pub(super) async fn run(http: &Http, to: &str, id: &str) -> anyhow::Result<String> {
    let url = join(to, &format!("/api/recordings/{}/repair", escaped(id)))?;
    let mut was = Outcome::NothingToRepair;
    loop {
        let Answer { outcome } = http.post(&url).await?;
        match (was, outcome) {
            (_, Outcome::Running) => was = outcome,
            (Outcome::NothingToRepair, Outcome::NothingToRepair) => {
                return Ok(format!("recording {id}: nothing to repair"));
            }
            (_, Outcome::Repaired | Outcome::NothingToRepair) => {
                return Ok(format!("recording {id} is repaired"));
            }
        }
    }
}
