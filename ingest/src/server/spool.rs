//! Durable bytes of a take, for the archiver.
//!
//! Owns the paging; the disk is read on the blocking pool, one page ahead at most.

use super::Registry;
use crate::spool::{Marks, ReadError, Reader};
use aircheck_core::{code::Code, id::SessionId};
use aircheck_proto::{
    Fault,
    ingest::{ReadSpoolRequest, ReadSpoolResponse},
};
use aircheck_runtime::failpoint::Failpoint;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::Status;

/// Bytes read from disk at once.
const PAGE_BYTES: usize = 1 << 20;
/// Pages that may wait for the archiver.
const PAGES: usize = 2;

pub(super) fn start(
    registry: &Registry,
    tasks: &TaskTracker,
    request: &ReadSpoolRequest,
) -> Result<ReceiverStream<Result<ReadSpoolResponse, Status>>, Fault> {
    let unknown = || Fault::new(Code::NotFound, "the spool does not hold this session");
    let session: SessionId = request.session.parse().map_err(|_| unknown())?;
    let reader = registry.spool().reader(session).ok_or_else(unknown)?;
    let (answers, receiver) = mpsc::channel(PAGES);
    tasks.spawn(pump(
        reader,
        request.take,
        request.offset,
        request.follow,
        answers,
    ));
    Ok(ReceiverStream::new(receiver))
}

async fn pump(
    reader: Reader,
    take: u32,
    mut offset: u64,
    follow: bool,
    answers: mpsc::Sender<Result<ReadSpoolResponse, Status>>,
) {
    let mut marks = reader.marks();
    loop {
        let end = durable_end(&marks.borrow_and_update(), take);
        while offset < end {
            let page = match page(reader.clone(), take, offset).await {
                Ok(page) => page,
                Err(fault) => {
                    tracing::error!(%fault, take, offset, "read spool");
                    hand(&answers, Err(fault.into())).await;
                    return;
                }
            };
            let Some((last, data)) = page.last() else {
                return;
            };
            Failpoint::SpoolRead.pass();
            offset = last + data.len() as u64;
            for (offset, data) in page {
                if !hand(&answers, Ok(ReadSpoolResponse { offset, data })).await {
                    return;
                }
            }
        }
        if !follow {
            return;
        }
        let news = tokio::select! {
            news = marks.changed() => news.is_ok(),
            () = answers.closed() => false,
        };
        if !news {
            return;
        }
    }
}

fn durable_end(marks: &Marks, take: u32) -> u64 {
    marks.takes.get(take as usize).copied().unwrap_or(0)
}

async fn page(reader: Reader, take: u32, offset: u64) -> Result<Vec<(u64, Bytes)>, Fault> {
    let read = tokio::task::spawn_blocking(move || reader.read(take, offset, PAGE_BYTES)).await;
    match read {
        Ok(Ok(page)) => Ok(page),
        Ok(Err(ReadError::NotFound)) => Err(Fault::new(Code::NotFound, "no such take")),
        Ok(Err(error @ ReadError::Corrupt { .. })) => {
            Err(Fault::new(Code::Corrupt, error.to_string()))
        }
        Ok(Err(ReadError::Io(error))) => Err(Fault::retry(
            Code::Internal,
            format!("read spool: {error}"),
            1000,
        )),
        Err(_) => Err(Fault::new(Code::Internal, "read spool: the reader failed")),
    }
}

/// `false` when nobody reads any more.
async fn hand(
    answers: &mpsc::Sender<Result<ReadSpoolResponse, Status>>,
    answer: Result<ReadSpoolResponse, Status>,
) -> bool {
    answers.send(answer).await.is_ok()
}
