//! How an `aircheck.v1` connection goes live: upgrade, hello, ready.
//!
//! Owns the order of the first messages; must never accept media before the client was told where
//! it belongs.

use super::{
    Admitted, Ending,
    dialect::Dialect as _,
    draining, ended, open,
    pump::Pump,
    resumable::{self, Resumable},
    upgraded,
    wire::{Incoming, Wire},
};
use crate::{app::App, upstream::publish::Publication};
use aircheck_core::{
    code::Code,
    wire::{FromClient, Take},
};
use aircheck_proto::{
    Fault,
    ingest::{Dialect, publish_response::Response},
};
use aircheck_runtime::failpoint::Failpoint;
use hyper::upgrade::OnUpgrade;
use std::{pin::pin, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::sleep,
};
use tracing::Instrument as _;

/// Serves a client whose upgrade was accepted, whether or not it was let in.
pub(super) async fn serve(app: Arc<App>, admission: Result<Admitted, Fault>, upgrade: OnUpgrade) {
    let span = match &admission {
        Ok(admitted) => tracing::info_span!(
            "broadcaster", show_id = %admitted.wish.show, user = admitted.grant.user
        ),
        Err(_) => tracing::info_span!("broadcaster"),
    };
    let connection = async {
        let Some((mut wire, _connected)) = upgraded(&app, upgrade).await else {
            return;
        };
        let opened = match &admission {
            Ok(admitted) => {
                let until = admitted.grant.until;
                let greeted = greet(&app, &mut wire, admitted).await;
                let rehearsal = admitted.wish.rehearsal;
                greeted.map(|(dialect, publication)| (dialect, publication, until, rehearsal))
            }
            Err(fault) => Err(Ending::Ours(fault.clone())),
        };
        let ending = match opened {
            Ok((dialect, publication, until, rehearsal)) => {
                let (session_id, epoch) = (&publication.ready.session, publication.ready.epoch);
                tracing::info!(session_id, epoch, "broadcaster is live");
                let pump = Pump::new(&app, wire, dialect, publication, until);
                let pump = if rehearsal { pump.measured() } else { pump };
                pump.run(&app).await
            }
            Err(ending) => {
                turn_away(wire, &ending).await;
                ending
            }
        };
        ended(&ending);
    };
    connection.instrument(span).await;
}

/// Tells a client that never was live why it is closed.
async fn turn_away<S: AsyncRead + AsyncWrite + Unpin>(mut wire: Wire<S>, ending: &Ending) {
    if let Ending::Ours(fault) | Ending::Theirs(fault) = ending {
        resumable::farewell(fault, &mut wire.outbox);
    }
    let (code, reason) = ending.close();
    wire.close(code, reason).await;
}

/// From the first message to ready.
async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    app: &App,
    wire: &mut Wire<S>,
    admitted: &Admitted,
) -> Result<(Resumable, Publication), Ending> {
    let (session, take) = hello(app, wire).await?;
    Failpoint::GatewayHello.pass();
    let mut dialect = Resumable::new(take.id.clone(), app.config.max_message);
    let opening = async {
        let mut open = open(app, admitted, Dialect::Resumable).await;
        open.session = session;
        open.take = Some(resumable::take_request(take));
        app.ingests.publish(&admitted.wish.show, open).await
    };
    let mut opening = pin!(opening);
    let publication = tokio::select! {
        biased;
        opened = &mut opening => opened.map_err(Ending::Theirs)?,
        incoming = wire.next(true) => return Err(match incoming {
            Ok(_) => bad("Nothing may follow hello before ready."),
            Err(broken) => Ending::of(broken, app.config.max_message),
        }),
    };
    Failpoint::GatewayPublished.pass();
    dialect.answered(Response::Ready(publication.ready.clone()), &mut wire.outbox);
    Ok((dialect, publication))
}

/// The session and the take of the first message, which comes in time.
async fn hello<S: AsyncRead + AsyncWrite + Unpin>(
    app: &App,
    wire: &mut Wire<S>,
) -> Result<(Option<String>, Take), Ending> {
    let incoming = tokio::select! {
        () = app.leave() => return Err(Ending::Ours(draining())),
        () = sleep(app.config.hello_timeout) => {
            return Err(Ending::Ours(Fault::new(Code::Timeout, "No hello came in time.")));
        }
        incoming = wire.next(true) => incoming,
    };
    let first = bad("The first message is hello.");
    match incoming.map_err(|broken| Ending::of(broken, app.config.max_message))? {
        Incoming::Text(text) => match resumable::parse(&text).map_err(Ending::Ours)? {
            FromClient::Hello { session, take } => Ok((session, take)),
            FromClient::Take { .. } | FromClient::Marker { .. } | FromClient::Stop => Err(first),
        },
        Incoming::Binary(_) => Err(first),
    }
}

fn bad(why: &str) -> Ending {
    Ending::Ours(Fault::new(Code::BadMessage, why))
}
