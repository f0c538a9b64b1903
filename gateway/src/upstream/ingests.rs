//! The ingest services: which one holds a show, and calls that find it.
//!
//! Owns the order in which ingests are asked; must never move a show that is live.

use super::{CALL_DEADLINE, Peer};
use crate::error::Error;
use aircheck_core::{code::Code, id::ShowId};
use aircheck_proto::{
    Fault,
    ingest::{self, SessionState, SessionStatus, ingest_service_client::IngestServiceClient},
};
use aircheck_runtime::grpc;
use futures::future::join_all;
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, timeout};
use tonic::{Streaming, transport::Channel};

/// A listener's first response holds a whole cluster.
const MESSAGE_MAX: usize = 16 << 20;
/// An ingest that was away for less may come back with the show's session.
const AWAY_MIN: Duration = Duration::from_secs(10);
/// A failure this long ago says nothing about now.
const AWAY_STALE: Duration = Duration::from_secs(60);

/// Since when an ingest fails, and when it last did.
#[derive(Clone, Copy, Debug)]
struct Away {
    since: Instant,
    last: Instant,
}

/// One ingest service.
#[derive(Debug)]
pub(crate) struct Ingest {
    url: String,
    client: IngestServiceClient<Channel>,
    away: Mutex<Option<Away>>,
}

impl Ingest {
    fn new(url: &str) -> Result<Self, Error> {
        let client =
            IngestServiceClient::new(grpc::channel(url)?).max_decoding_message_size(MESSAGE_MAX);
        Ok(Self {
            url: url.to_owned(),
            client,
            away: Mutex::new(None),
        })
    }

    /// The generated client, cloned for one call.
    pub(super) fn client(&self) -> IngestServiceClient<Channel> {
        self.client.clone()
    }

    pub(super) fn answered(&self) {
        *self.away.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Notes a failure; true if it has been away for so long that its shows go elsewhere.
    pub(super) fn failed(&self, now: Instant) -> bool {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match *away {
            Some(known) if now - known.last < AWAY_STALE => known.since,
            _ => now,
        };
        *away = Some(Away { since, last: now });
        now - since >= AWAY_MIN
    }

    async fn list(&self, show_id: Option<String>) -> Result<Vec<SessionStatus>, Fault> {
        let request = ingest::ListSessionsRequest {
            show_id,
            rehearsals: false,
        };
        let answer = Peer::Ingest
            .call(CALL_DEADLINE, self.client().list_sessions(request))
            .await;
        Ok(answer?.sessions)
    }
}

/// All ingests.
#[derive(Debug)]
pub(crate) struct Ingests(Vec<Ingest>);

impl Ingests {
    pub(crate) fn new(urls: &[String]) -> Result<Self, Error> {
        if urls.is_empty() {
            return Err(Error::NoIngest);
        }
        Ok(Self(
            urls.iter()
                .map(|url| Ingest::new(url.trim()))
                .collect::<Result<_, _>>()?,
        ))
    }

    /// The ingests in this show's order of preference: rendezvous hashing, so that every gateway
    /// agrees and a new ingest takes over only its share.
    pub(crate) fn ranked(&self, show: &ShowId) -> Vec<&Ingest> {
        let mut ranked: Vec<_> = self.0.iter().collect();
        ranked.sort_by_cached_key(|ingest| std::cmp::Reverse(score(show.as_str(), &ingest.url)));
        ranked
    }

    /// Ends the session of a show, wherever it is.
    pub(crate) async fn stop(&self, show: &ShowId) -> Result<ingest::StopSessionResponse, Fault> {
        let mut idle = ingest::StopSessionResponse::default();
        let mut failure = None;
        for ingest in self.ranked(show) {
            let request = ingest::StopSessionRequest {
                show_id: show.to_string(),
            };
            let mut client = ingest.client();
            match Peer::Ingest
                .call(CALL_DEADLINE, client.stop_session(request))
                .await
            {
                Ok(answer) if answer.stopped => return Ok(answer),
                Ok(answer) => idle.session = idle.session.or(answer.session),
                Err(fault) if fault.code == Code::NotLive => {}
                Err(fault) => failure = Some(fault),
            }
        }
        // Somebody who could not be asked may hold it.
        failure.map_or(Ok(idle), Err)
    }

    /// The session of a show that matters most, if it has any: live before grace before finalizing.
    pub(crate) async fn session(&self, show: &ShowId) -> Result<Option<SessionStatus>, Fault> {
        let ranked = self.ranked(show);
        let answers = join_all(ranked.iter().map(|i| i.list(Some(show.to_string())))).await;
        let mut failure = None;
        let mut best: Option<SessionStatus> = None;
        for answer in answers {
            match answer {
                Ok(sessions) => {
                    let of_show = sessions.into_iter().filter(|s| s.show_id == show.as_str());
                    best = of_show
                        .chain(best)
                        .max_by_key(weight)
                        .filter(|s| weight(s).0 > 0);
                }
                Err(fault) => failure = Some(fault),
            }
        }
        match (best, failure) {
            (Some(session), _) => Ok(Some(session)),
            (None, Some(fault)) => Err(fault),
            (None, None) => Ok(None),
        }
    }

    /// Every session that has not ended, by show. An ingest that can't be asked is left out, unless
    /// none can.
    pub(crate) async fn sessions(&self) -> Result<Vec<SessionStatus>, Fault> {
        let mut failure = None;
        let mut sessions = Vec::new();
        let mut heard = false;
        for answer in join_all(self.0.iter().map(|ingest| ingest.list(None))).await {
            match answer {
                Ok(some) => {
                    heard = true;
                    sessions.extend(some.into_iter().filter(|session| weight(session).0 > 0));
                }
                Err(fault) => failure = Some(fault),
            }
        }
        match failure {
            Some(fault) if !heard => Err(fault),
            _ => {
                sessions.sort_by(|a, b| a.show_id.cmp(&b.show_id).then(a.session.cmp(&b.session)));
                Ok(sessions)
            }
        }
    }

    /// A point in the timeline of a live show; its place in milliseconds.
    pub(crate) async fn mark(&self, show: &ShowId, marker: ingest::Marker) -> Result<u64, Fault> {
        let mut failure = Fault::new(Code::NotLive, "The show is not live.");
        for ingest in self.ranked(show) {
            let request = ingest::AddMarkerRequest {
                show_id: show.to_string(),
                marker: Some(marker.clone()),
            };
            let mut client = ingest.client();
            match Peer::Ingest
                .call(CALL_DEADLINE, client.add_marker(request))
                .await
            {
                Ok(answer) => return Ok(answer.at_ms),
                Err(fault) if is_idle(&fault) => {}
                Err(fault) => failure = fault,
            }
        }
        Err(failure)
    }

    /// The live branch of a show: its first message and the rest.
    pub(crate) async fn listen(
        &self,
        show: &ShowId,
    ) -> Result<(ingest::ListenResponse, Streaming<ingest::ListenResponse>), Fault> {
        let mut failure = Fault::new(Code::NotFound, "The show is not live.");
        for ingest in self.ranked(show) {
            let mut client = ingest.client();
            let opening = async {
                let request = ingest::ListenRequest {
                    show_id: show.to_string(),
                };
                let mut stream = client.listen(request).await?.into_inner();
                Ok::<_, tonic::Status>((stream.message().await?, stream))
            };
            match timeout(CALL_DEADLINE, opening).await {
                Ok(Ok((Some(first), stream))) => return Ok((first, stream)),
                Ok(Ok((None, _))) => {}
                Ok(Err(status)) => match Peer::Ingest.fault(&status) {
                    fault if is_idle(&fault) => {}
                    fault => failure = fault,
                },
                Err(_elapsed) => failure = Peer::Ingest.away(),
            }
        }
        Err(failure)
    }
}

fn is_idle(fault: &Fault) -> bool {
    matches!(fault.code, Code::NotLive | Code::NotFound)
}

/// How much a session matters to somebody who asks for its show; of two alike, the later started.
fn weight(session: &SessionStatus) -> (u8, u64) {
    let weight = match session.state() {
        SessionState::Live => 3,
        SessionState::Grace => 2,
        SessionState::Finalizing => 1,
        SessionState::Unspecified | SessionState::Archived | SessionState::Failed => 0,
    };
    (weight, session.started_at_unix_ms)
}

/// A score that every build of every gateway computes alike: FNV-1a, then `SplitMix64`'s finalizer,
/// because FNV's high bits hardly change with the last characters.
fn score(show: &str, url: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in show.bytes().chain([0]).chain(url.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ingests(count: usize) -> Ingests {
        let urls: Vec<_> = (0..count)
            .map(|n| format!("http://ingest-{n}:7001"))
            .collect();
        Ingests::new(&urls).expect("addresses")
    }

    fn first(ingests: &Ingests, show: usize) -> String {
        let show = show.to_string().parse().expect("show id");
        ingests.ranked(&show)[0].url.clone()
    }

    #[tokio::test]
    async fn shows_spread_over_all_ingests() {
        let three = ingests(3);
        for ingest in &three.0 {
            let share = (0..300)
                .filter(|show| first(&three, *show) == ingest.url)
                .count();
            assert!(
                (60..=140).contains(&share),
                "{} holds {share} of 300",
                ingest.url
            );
        }
    }

    #[tokio::test]
    async fn a_new_ingest_takes_shows_but_moves_none_between_the_others() {
        let (three, four) = (ingests(3), ingests(4));
        for show in 0..300 {
            let after = first(&four, show);
            assert!(after == four.0[3].url || after == first(&three, show));
        }
    }

    #[tokio::test]
    async fn an_ingest_counts_as_away_after_ten_seconds_of_failures() {
        let ingest = Ingest::new("http://ingest:7001").expect("address");
        let start = Instant::now();
        let failed_after = |seconds| ingest.failed(start + Duration::from_secs(seconds));
        assert!(!failed_after(0));
        assert!(!failed_after(9));
        assert!(failed_after(10));
        ingest.answered();
        assert!(!failed_after(10));
        assert!(
            !failed_after(71),
            "what failed a minute ago says nothing about now"
        );
    }
}
