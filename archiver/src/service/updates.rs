//! The answer stream of Finalize.
//!
//! Owns its pace: every change at once, and a sign of life each second; the last response holds the
//! recording.

use crate::{
    convert,
    finalize::{JobState, Progress},
};
use aircheck_core::code::Code;
use aircheck_proto::{Fault, archiver::FinalizeResponse};
use futures::stream::{self, BoxStream, StreamExt as _};
use std::time::Duration;
use tokio::{sync::watch, time::timeout};
use tonic::Status;

const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

type Update = Result<FinalizeResponse, Status>;

/// Responses until the job has ended.
pub(super) fn of(mut states: watch::Receiver<JobState>) -> BoxStream<'static, Update> {
    states.mark_changed();
    stream::unfold(Some(states), |states| async { next(states?).await }).boxed()
}

async fn next(
    mut states: watch::Receiver<JobState>,
) -> Option<(Update, Option<watch::Receiver<JobState>>)> {
    if let Ok(Err(_)) = timeout(SIGN_OF_LIFE, states.changed()).await
        && matches!(*states.borrow(), JobState::Running(_))
    {
        let fault = Fault::new(Code::Internal, "the job ended without a result");
        return Some((Err(fault.into()), None));
    }
    let state = states.borrow_and_update().clone();
    Some(match state {
        JobState::Running(Progress { bytes, archived }) => (
            Ok(FinalizeResponse {
                bytes,
                archived,
                recording: None,
            }),
            Some(states),
        ),
        JobState::Ended(Ok(row)) => {
            let recording = convert::recording((*row).clone());
            let bytes = recording.bytes;
            (
                Ok(FinalizeResponse {
                    bytes,
                    archived: bytes,
                    recording: Some(recording),
                }),
                None,
            )
        }
        JobState::Ended(Err(fault)) => (Err(fault.into()), None),
    })
}
