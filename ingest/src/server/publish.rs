//! One broadcaster's connection: from its stream into the session's mailbox.
//!
//! Owns admission and the reading of the stream. HTTP/2 flow control holds a client back while its
//! session is busy. Must never end a session: the end of a stream is a drop, nothing more.

use super::{Service, show_id};
use crate::{
    registry::ShowSettings,
    session::{Command, Connect, ConnectError, Handle, OUTBOUND},
};
use aircheck_core::{
    code::Code,
    id::Epoch,
    spool::GapPolicy,
    wire::{MAX_FRAME, Take, check_marker},
};
use aircheck_proto::{
    Fault,
    ingest::{self, Dialect, PublishRequest, PublishResponse, publish_request::Request},
};
use aircheck_runtime::failpoint::Failpoint;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

/// How long a client may take to say who it is.
const OPEN: Duration = Duration::from_secs(10);
/// How long the archiver may take to say how an old session ended; the show goes live regardless.
const PREVIOUS: Duration = Duration::from_millis(500);
/// A show whose sessions keep ending while one tries to connect is a fault, not a race.
const ATTEMPTS: usize = 8;

struct Opened {
    handle: Handle,
    epoch: Epoch,
    gone: CancellationToken,
}

/// Admits a connection and begins to read it.
pub(super) async fn start(
    service: &Service,
    mut requests: Streaming<PublishRequest>,
) -> Result<ReceiverStream<Result<PublishResponse, Status>>, Status> {
    let first = tokio::time::timeout(OPEN, requests.message()).await;
    let first = first.map_err(|_| Fault::new(Code::Timeout, "no open request in time"))??;
    let Some(Request::Open(open)) = first.and_then(|first| first.request) else {
        return Err(Fault::new(Code::BadMessage, "the first request must be open").into());
    };
    Failpoint::PublishOpened.pass();
    let (outbound, answers) = mpsc::channel(OUTBOUND);
    let opened = admit(service, open, outbound).await?;
    service.connections.spawn(read(requests, opened));
    Ok(ReceiverStream::new(answers))
}

async fn admit(
    service: &Service,
    open: ingest::Open,
    outbound: mpsc::Sender<Result<PublishResponse, Status>>,
) -> Result<Opened, Fault> {
    let show = show_id(&open.show_id)?;
    let settings = settings(&open)?;
    let take = match open.dialect() {
        Dialect::Plain => None,
        Dialect::Resumable | Dialect::Unspecified => Some(checked(open.take)?),
    };
    for _ in 0..ATTEMPTS {
        let handle = service.registry.admit(&show, &settings)?;
        let named = open.session.as_deref() == Some(handle.id.to_string().as_str());
        let previous = match open.session.as_deref().filter(|_| !named) {
            Some(session) => previous(service, session).await,
            None => None,
        };
        let gone = CancellationToken::new();
        let asked = handle.ask(|reply| {
            Command::Connect(Box::new(Connect {
                user: open.user.clone(),
                force: open.force,
                take: take.clone(),
                previous,
                named,
                outbound: outbound.clone(),
                gone: gone.clone(),
                reply,
            }))
        });
        match asked.await {
            Some(Ok(epoch)) => {
                return Ok(Opened {
                    handle,
                    epoch,
                    gone,
                });
            }
            Some(Err(ConnectError::Refused(fault))) => return Err(fault),
            // The session ended in between: the show has none, or another one.
            Some(Err(ConnectError::Ended)) | None => {}
        }
    }
    Err(Fault::retry(
        Code::Unavailable,
        "the show's sessions end faster than they begin",
        1000,
    ))
}

fn settings(open: &ingest::Open) -> Result<ShowSettings, Fault> {
    let max_ms = crate::config::GRACE_MAX.as_millis();
    if open
        .grace_ms
        .is_some_and(|grace_ms| u128::from(grace_ms) > max_ms)
    {
        return Err(Fault::new(Code::BadMessage, "grace_ms is at most 1800000"));
    }
    let gap_policy = match open.gap_policy() {
        ingest::GapPolicy::Close => GapPolicy::Close,
        ingest::GapPolicy::Silence | ingest::GapPolicy::Unspecified => GapPolicy::Silence,
    };
    Ok(ShowSettings {
        title: open.title.clone(),
        rehearsal: open.rehearsal,
        grace_ms: open.grace_ms,
        gap_policy,
    })
}

fn checked(take: Option<ingest::Take>) -> Result<Take, Fault> {
    let take = take.ok_or_else(|| Fault::new(Code::BadMessage, "open needs a take"))?;
    let take = Take {
        id: take.id,
        mime: take.mime,
        first: take.first,
        next: take.next,
    };
    take.check()
        .map_err(|error| Fault::new(Code::BadMessage, error.to_string()))?;
    Ok(take)
}

async fn previous(service: &Service, session: &str) -> Option<ingest::Previous> {
    if let Some(known) = service.registry.previous(session) {
        return Some(known);
    }
    let status = service
        .registry
        .archiver()
        .status_of(session, PREVIOUS)
        .await?;
    // A session that is open elsewhere is none of ours to speak for.
    (status != "recording").then(|| ingest::Previous {
        session: session.to_owned(),
        status,
    })
}

/// Reads until the client or the session ends the connection.
async fn read(mut requests: Streaming<PublishRequest>, opened: Opened) {
    let Opened {
        handle,
        epoch,
        gone,
    } = opened;
    loop {
        let request = tokio::select! {
            biased;
            () = gone.cancelled() => return,
            request = requests.message() => request,
        };
        let command = match request {
            Ok(Some(PublishRequest {
                request: Some(request),
            })) => command(epoch, request),
            Ok(Some(PublishRequest { request: None })) => continue,
            Ok(None) => break,
            Err(status) => {
                tracing::debug!(%epoch, %status, "connection broke");
                break;
            }
        };
        let command = match command {
            Ok(command) => command,
            Err(fault) => {
                tracing::warn!(%epoch, %fault, "bad request on a connection");
                break;
            }
        };
        if handle.mailbox.send(command).await.is_err() {
            return;
        }
    }
    if handle
        .mailbox
        .send(Command::Disconnect { epoch })
        .await
        .is_err()
    {
        tracing::debug!(%epoch, "the session is over already");
    }
}

fn command(epoch: Epoch, request: Request) -> Result<Command, Fault> {
    Ok(match request {
        Request::Open(_) => return Err(Fault::new(Code::BadMessage, "open comes once")),
        Request::Take(take) => Command::Take {
            epoch,
            take: checked(Some(take))?,
        },
        Request::Chunk(chunk) if chunk.data.len() > MAX_FRAME => {
            return Err(Fault::new(Code::TooLarge, "a chunk has at most 1 MiB"));
        }
        Request::Chunk(chunk) => Command::Chunk {
            epoch,
            offset: chunk.offset,
            data: chunk.data,
        },
        Request::Marker(marker) => {
            check_marker(&marker.label, &marker.kind)
                .map_err(|error| Fault::new(Code::BadMessage, error.to_string()))?;
            Command::Mark {
                label: marker.label,
                kind: marker.kind,
                reply: None,
            }
        }
        Request::Link(link) => Command::Link {
            epoch,
            link: link.into(),
        },
        Request::Stop(_) => Command::StopBy { epoch },
    })
}
