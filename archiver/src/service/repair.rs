//! Answers to `RepairRecording`.
//!
//! Owns what its outcome is and how long a caller waits for it; must never work itself.

use super::Ready;
use crate::{
    convert,
    db::RecordingRow,
    finalize::{JobState, is_raw},
};
use aircheck_core::{code::Code, spool::Manifest};
use aircheck_proto::{
    Fault,
    archiver::{RepairOutcome, RepairRecordingResponse},
};
use std::time::Duration;
use tokio::time::timeout;

/// How long a call waits for the job's end; shorter than any caller's deadline.
const WAIT: Duration = Duration::from_secs(3);

/// Repairs a final recording, or says that it need not be.
///
/// # Errors
/// Why it can't be.
pub(super) async fn run(
    ready: &Ready,
    row: RecordingRow,
) -> Result<RepairRecordingResponse, Fault> {
    if !is_raw(&row) {
        return Ok(answer(RepairOutcome::NothingToRepair, row));
    }
    let manifest = Manifest::from_json(row.manifest.to_string().as_bytes())
        .map_err(|error| Fault::new(Code::Corrupt, error.to_string()))?;
    let mut states = ready.jobs.repair(manifest, &row.objects.0)?;
    let ended = states.wait_for(|state| matches!(state, JobState::Ended(_)));
    let ended = match timeout(WAIT, ended).await {
        Err(_elapsed) => None,
        Ok(Err(_)) => {
            return Err(Fault::new(Code::Internal, "the job ended without a result"));
        }
        Ok(Ok(state)) => Some(state.clone()),
    };
    match ended {
        Some(JobState::Ended(Err(fault))) => Err(fault),
        Some(JobState::Ended(Ok(row))) if row.deleted_at.is_some() => {
            Err(Fault::new(Code::NotFound, "there is no such recording"))
        }
        Some(JobState::Ended(Ok(row))) if !is_raw(&row) => {
            Ok(answer(RepairOutcome::Repaired, (*row).clone()))
        }
        // A finalize job of the session was under way, and made nothing new.
        Some(_) | None => Ok(answer(RepairOutcome::Running, row)),
    }
}

fn answer(outcome: RepairOutcome, row: RecordingRow) -> RepairRecordingResponse {
    RepairRecordingResponse {
        outcome: outcome.into(),
        recording: Some(convert::recording(row)),
    }
}
