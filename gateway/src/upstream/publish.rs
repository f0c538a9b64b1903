//! Going live: one Publish stream to the ingest that holds, or shall hold, the show.
//!
//! Owns the choice of the ingest and the bounded queue towards it; must never send a byte of media.

use super::{
    CALL_DEADLINE, Peer,
    ingests::{Ingest, Ingests},
};
use aircheck_core::{code::Code, id::ShowId};
use aircheck_proto::{
    Fault,
    ingest::{
        ListSessionsRequest, Open, PublishRequest, PublishResponse, Ready, SessionState,
        publish_request::Request, publish_response::Response,
    },
};
use futures::future::join_all;
use std::time::Duration;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Messages on their way to the ingest; beyond it the socket isn't read.
const QUEUE_MAX: usize = 4;
/// Longest wait for the other ingests to say whether they hold the show.
const LOCATE_DEADLINE: Duration = Duration::from_millis(500);

/// A connection of a broadcaster at an ingest.
#[derive(Debug)]
pub(crate) struct Publication {
    /// Ends the connection when dropped: without a stop before it, grace begins.
    pub(crate) requests: mpsc::Sender<PublishRequest>,
    pub(crate) responses: Streaming<PublishResponse>,
    pub(crate) ready: Ready,
}

/// Why an ingest did not take a broadcaster.
#[derive(Debug)]
enum Failure {
    /// It decided so: another one would be wrong.
    Refused(Fault),
    /// It is away or about to go.
    Away(Fault),
}

impl Ingests {
    /// Goes live. A show whose ingest has just gone is told to come back, because its session may
    /// come back there too; only one that stays away loses it to the next in order.
    pub(crate) async fn publish(&self, show: &ShowId, open: Open) -> Result<Publication, Fault> {
        let mut ranked = self.ranked(show);
        if ranked.len() > 1 {
            self.holder_first(show, &mut ranked).await;
        }
        let mut last = Peer::Ingest.away();
        for ingest in ranked {
            match attempt(ingest, open.clone()).await {
                Ok(publication) => {
                    ingest.answered();
                    return Ok(publication);
                }
                Err(Failure::Refused(fault)) => {
                    ingest.answered();
                    return Err(fault);
                }
                Err(Failure::Away(fault)) => {
                    last = fault;
                    if !ingest.failed(Instant::now()) {
                        break;
                    }
                }
            }
        }
        Err(last)
    }

    /// Puts the ingest first that holds the show already: it went there while the first was away.
    async fn holder_first(&self, show: &ShowId, ranked: &mut Vec<&Ingest>) {
        let answers = join_all(ranked.iter().map(|ingest| holds(ingest, show))).await;
        if let Some(index) = answers.iter().position(|holds| *holds) {
            let holder = ranked.remove(index);
            ranked.insert(0, holder);
        }
    }
}

/// Whether an ingest says quickly that it has a session of the show that can be resumed.
async fn holds(ingest: &Ingest, show: &ShowId) -> bool {
    let mut client = ingest.client();
    let request = ListSessionsRequest {
        show_id: Some(show.to_string()),
        rehearsals: false,
    };
    let answer = Peer::Ingest
        .call(LOCATE_DEADLINE, client.list_sessions(request))
        .await;
    answer.is_ok_and(|answer| {
        answer.sessions.iter().any(|session| {
            session.show_id == show.as_str()
                && matches!(session.state(), SessionState::Live | SessionState::Grace)
        })
    })
}

async fn attempt(ingest: &Ingest, open: Open) -> Result<Publication, Failure> {
    let (requests, queue) = mpsc::channel(QUEUE_MAX);
    requests
        .try_send(PublishRequest {
            request: Some(Request::Open(open)),
        })
        .map_err(|_| Failure::Away(Peer::Ingest.away()))?;
    let mut client = ingest.client();
    let opening = async {
        let mut responses = client
            .publish(ReceiverStream::new(queue))
            .await?
            .into_inner();
        Ok::<_, Status>((responses.message().await?, responses))
    };
    match timeout(CALL_DEADLINE, opening).await {
        Ok(Ok((first, responses))) => match first.and_then(|first| first.response) {
            Some(Response::Ready(ready)) => Ok(Publication {
                requests,
                responses,
                ready,
            }),
            _ => Err(Failure::Away(Peer::Ingest.away())),
        },
        Ok(Err(status)) => Err(failure(&status)),
        Err(_elapsed) => Err(Failure::Away(Peer::Ingest.away())),
    }
}

fn failure(status: &Status) -> Failure {
    let fault = Peer::Ingest.fault(status);
    let away = fault == Peer::Ingest.away() || fault.code == Code::Draining;
    if away {
        Failure::Away(fault)
    } else {
        Failure::Refused(fault)
    }
}
