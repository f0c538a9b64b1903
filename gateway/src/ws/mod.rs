//! `GET /ws/stream`: broadcasters.
//!
//! Owns a broadcaster's way from the request to a live connection, in both dialects. Must never
//! keep a session alive by itself: a session lives at the ingest.

mod dialect;
mod gauge;
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
    auth::{Carrier, Grant, Scope},
    meters::{self, Connected},
    refusal::Refusal,
    upstream::publish::Publication,
};
use aircheck_core::code::Code;
use aircheck_proto::{
    Fault,
    ingest::{Dialect as OpenDialect, Open},
};
use aircheck_runtime::failpoint::Failpoint;
use axum::{
    extract::{Request, State},
    http::{HeaderMap, Uri},
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

/// What a client is told when its token expires while it is connected.
fn expired() -> Fault {
    Fault::new(Code::Unauthenticated, "The token has expired.")
}

/// A broadcaster that was let in, with its place among the others.
struct Admitted {
    wish: Wish,
    grant: Grant,
    _permit: OwnedSemaphorePermit,
}

/// Opens a WebSocket, or refuses it in the way of its dialect.
pub(crate) async fn stream(State(app): State<Arc<App>>, mut request: Request) -> Response {
    let offer = match handshake::offer(request.headers()) {
        Ok(offer) => offer,
        Err(fault) => return Refusal(fault).into_response(),
    };
    let admission = admit(&app, request.headers(), request.uri());
    // A plain client reads its refusal in the response, even where it forgot to ask for an upgrade.
    let (admission, key) = match (offer, admission) {
        (Offer::Plain, Err(fault)) => return Refusal(fault).into_response(),
        (_, admission) => match handshake::accept_key(request.headers()) {
            Ok(key) => (admission, key),
            Err(response) => return *response,
        },
    };
    let upgrade = hyper::upgrade::on(&mut request);
    Failpoint::GatewayAccepted.pass();
    match (offer, admission) {
        (Offer::Plain, Ok(admitted)) => match go_live_plain(&app, &admitted).await {
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
fn admit(app: &App, headers: &HeaderMap, uri: &Uri) -> Result<Admitted, Fault> {
    let wish = handshake::wish(uri)?;
    handshake::origin(headers, &app.config)?;
    let grant = app.auth.grant(headers, uri, Carrier::HeaderOrQuery)?;
    grant.permits(Scope::Publish)?;
    grant.covers(&wish.show)?;
    if app.shutdown.is_triggered() {
        return Err(draining());
    }
    let permit = app.broadcasters.clone().try_acquire_owned();
    let full = |_| Fault::retry(Code::TooMany, "Too many broadcasters are connected.", 1000);
    Ok(Admitted {
        wish,
        grant,
        _permit: permit.map_err(full)?,
    })
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
async fn go_live_plain(app: &App, admitted: &Admitted) -> Result<Publication, Fault> {
    let open = open(app, admitted, OpenDialect::Plain).await;
    app.ingests.publish(&admitted.wish.show, open).await
}

/// What both dialects say to the ingest.
async fn open(app: &App, admitted: &Admitted, dialect: OpenDialect) -> Open {
    let Admitted { wish, grant, .. } = admitted;
    let settings = app.shows.of(&wish.show).await;
    Open {
        show_id: wish.show.to_string(),
        user: grant.user.clone(),
        force: wish.force,
        dialect: dialect.into(),
        session: None,
        take: None,
        grace_ms: Some(settings.grace_ms),
        title: settings.title,
        gap_policy: settings.gap_policy.into(),
        rehearsal: wish.rehearsal,
    }
}

/// Serves a plain broadcaster that is live already.
async fn serve_plain(
    app: Arc<App>,
    admitted: Admitted,
    publication: Publication,
    upgrade: OnUpgrade,
) {
    let span = tracing::info_span!(
        "broadcaster", show_id = %admitted.wish.show, user = admitted.grant.user,
        session_id = publication.ready.session, epoch = publication.ready.epoch
    );
    let connection = async {
        let Some((mut wire, _connected)) = upgraded(&app, upgrade).await else {
            return;
        };
        tracing::info!("broadcaster is live in the plain dialect");
        wire.outbox.text("connected");
        let rehearsal = admitted.wish.rehearsal;
        let dialect = Plain::new(publication.ready.offset, rehearsal);
        let until = admitted.grant.until;
        let pump = Pump::new(&app, wire, dialect, publication, until);
        let pump = if rehearsal { pump.measured() } else { pump };
        let ending = pump.run(&app).await;
        ended(&ending);
    };
    connection.instrument(span).await;
}
