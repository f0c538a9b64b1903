//! `GET /ws/stream`: broadcasters.
//!
//! Owns a broadcaster's way from the request to a live connection, in both dialects. Must never
//! keep a session alive by itself: a session lives at the ingest.

mod dialect;
mod greeting;
mod handshake;
mod outbox;
mod plain;
mod pulse;
mod pump;
mod resumable;
mod wire;

use crate::{
    app::App,
    meters::{self, Connected},
    refusal::Refusal,
    upstream::publish::Publication,
};
use aircheck_core::code::Code;
use aircheck_proto::{
    Fault,
    ingest::{Dialect as OpenDialect, Open},
};
use axum::{
    extract::{Request, State},
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use handshake::{Offer, Wish};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use plain::Plain;
use pump::Pump;
use std::{sync::Arc, time::Duration};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};
use tracing::Instrument as _;
use wire::{Broken, Wire};

/// The upgraded connection of a broadcaster.
type Socket = TokioIo<Upgraded>;

/// Who broadcasts, where nobody is asked for a name.
const ANONYMOUS: &str = "anonymous";
/// Longest wait for the connection after the 101.
const UPGRADE_DEADLINE: Duration = Duration::from_secs(10);

/// Why a connection ended.
#[derive(Debug)]
enum Ending {
    /// The session is over and everything was said.
    Done,
    /// The client closed or was lost.
    Gone,
    /// A fault found here; the ingest does not know of it yet.
    Ours(Fault),
    /// The ingest ended the connection.
    Theirs(Fault),
}

impl Ending {
    fn of(broken: Broken, max_message: u64) -> Self {
        match broken {
            Broken::Gone => Self::Gone,
            Broken::TooLarge => {
                let message = format!("A message may have at most {max_message} bytes.");
                Self::Ours(Fault::new(Code::TooLarge, message))
            }
            Broken::Malformed => Self::Ours(Fault::new(
                Code::BadMessage,
                "This is not the WebSocket protocol.",
            )),
        }
    }

    /// Close code and reason; a lost client counts as the 1006 that the other side saw.
    fn close(&self) -> (u16, &'static str) {
        match self {
            Self::Done => (1000, ""),
            Self::Gone => (1006, ""),
            Self::Ours(fault) | Self::Theirs(fault) => {
                (fault.code.close_code(), fault.code.as_str())
            }
        }
    }
}

/// What a client is told when the gateway goes down.
pub(crate) fn draining() -> Fault {
    Fault::retry(
        Code::Draining,
        "The server is going down; come back at once.",
        0,
    )
}

/// A broadcaster that was let in, with its place among the others.
type Admitted = (Wish, OwnedSemaphorePermit);

/// Opens a WebSocket, or refuses it in the way of its dialect.
pub(crate) async fn stream(State(app): State<Arc<App>>, mut request: Request) -> Response {
    let offer = match handshake::offer(request.headers()) {
        Ok(offer) => offer,
        Err(fault) => return Refusal(fault).into_response(),
    };
    let admission = handshake::wish(request.uri()).and_then(|wish| {
        let permit = admit(&app, request.headers())?;
        Ok((wish, permit))
    });
    // A plain client reads its refusal in the response, even where it forgot to ask for an upgrade.
    let (admission, key) = match (offer, admission) {
        (Offer::Plain, Err(fault)) => return Refusal(fault).into_response(),
        (_, admission) => match handshake::accept_key(request.headers()) {
            Ok(key) => (admission, key),
            Err(response) => return *response,
        },
    };
    let upgrade = hyper::upgrade::on(&mut request);
    match (offer, admission) {
        (Offer::Plain, Ok(admitted)) => match go_live_plain(&app, &admitted.0).await {
            Ok(publication) => {
                let serving = serve_plain(app.clone(), admitted, publication, upgrade);
                app.tasks.spawn(serving);
            }
            Err(fault) => return Refusal(fault).into_response(),
        },
        (_, admission) => {
            app.tasks
                .spawn(greeting::serve(app.clone(), admission, upgrade));
        }
    }
    handshake::switching(&key, offer)
}

/// Whether one more broadcaster may come in.
fn admit(app: &App, headers: &HeaderMap) -> Result<OwnedSemaphorePermit, Fault> {
    handshake::origin(headers, &app.config)?;
    if app.shutdown.is_triggered() {
        return Err(draining());
    }
    app.broadcasters
        .clone()
        .try_acquire_owned()
        .map_err(|_| Fault::retry(Code::TooMany, "Too many broadcasters are connected.", 1000))
}

/// The socket after the 101, and its place in the count; `None` where the client left before.
async fn upgraded(app: &App, upgrade: OnUpgrade) -> Option<(Wire<Socket>, Connected)> {
    match timeout(UPGRADE_DEADLINE, upgrade).await {
        Ok(Ok(upgraded)) => {
            let limit = usize::try_from(app.config.max_message).unwrap_or(usize::MAX);
            let wire = Wire::new(TokioIo::new(upgraded), limit).await;
            Some((wire, Connected::new()))
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "client left before the upgrade");
            None
        }
        Err(_elapsed) => {
            tracing::debug!("the upgrade took too long");
            None
        }
    }
}

/// Counts and logs how a connection ended.
fn ended(ending: &Ending) {
    let (code, _) = ending.close();
    meters::closed(code);
    match ending {
        Ending::Done | Ending::Gone => tracing::info!(code, "broadcaster left"),
        Ending::Ours(fault) | Ending::Theirs(fault) => {
            tracing::info!(code, %fault, "broadcaster closed");
        }
    }
}

/// Goes live before the 101, so that a refusal can be an HTTP response.
async fn go_live_plain(app: &App, wish: &Wish) -> Result<Publication, Fault> {
    let open = open(app, wish, OpenDialect::Plain).await;
    app.ingests.publish(&wish.show, open).await
}

/// What both dialects say to the ingest.
async fn open(app: &App, wish: &Wish, dialect: OpenDialect) -> Open {
    let settings = app.shows.of(&wish.show).await;
    Open {
        show_id: wish.show.to_string(),
        user: ANONYMOUS.to_owned(),
        force: wish.force,
        dialect: dialect.into(),
        session: None,
        take: None,
        grace_ms: Some(settings.grace_ms),
        title: settings.title,
        gap_policy: settings.gap_policy.into(),
    }
}

/// Serves a plain broadcaster that is live already.
async fn serve_plain(
    app: Arc<App>,
    (wish, _permit): Admitted,
    publication: Publication,
    upgrade: OnUpgrade,
) {
    let span = tracing::info_span!(
        "broadcaster", show_id = %wish.show,
        session_id = publication.ready.session, epoch = publication.ready.epoch
    );
    let connection = async {
        let Some((mut wire, _connected)) = upgraded(&app, upgrade).await else {
            return;
        };
        tracing::info!("broadcaster is live in the plain dialect");
        wire.outbox.text("connected");
        let dialect = Plain::new(publication.ready.offset);
        let ending = Pump::new(&app, wire, dialect, publication).run(&app).await;
        ended(&ending);
    };
    connection.instrument(span).await;
}
