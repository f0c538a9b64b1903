//! A live connection: media up, answers down, until one side ends.
//!
//! Owns backpressure, liveness and the two endings of a connection, towards the client and towards
//! the ingest. Must never buffer more than the queue of its publication and one message.

use super::{
    Ending,
    dialect::{Course, Dialect},
    draining, expired,
    gauge::Gauge,
    pulse::{Beat, Pulse},
    wire::{Broken, Incoming, Wire},
};
use crate::{
    app::App,
    meters,
    upstream::{Peer, publish::Publication},
};
use aircheck_core::code::Code;
use aircheck_proto::{
    Fault,
    ingest::{
        PublishRequest, PublishResponse, publish_request::Request, publish_response::Response,
    },
};
use aircheck_runtime::failpoint::Failpoint;
use metrics::Counter;
use std::{future::pending, pin::pin, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc::{self, error::TrySendError},
    time::{Instant, sleep_until, timeout},
};
use tonic::{Status, Streaming};

/// Longest wait for the ingest to take what a client sent before it left.
const SETTLE_DEADLINE: Duration = Duration::from_secs(5);

/// The way to the ingest.
#[derive(Debug)]
enum Uplink {
    /// There is room.
    Free,
    /// There was no room for this message; until there is, the socket isn't read.
    Held(PublishRequest),
    /// The ingest takes nothing more; it is about to say why.
    Closed,
}

/// What happened first.
enum Step {
    Drain,
    Expired,
    Answered(Result<Option<PublishResponse>, Status>),
    Heard(Result<Incoming, Broken>),
    Beat,
    Measure,
}

/// A connection that is live.
pub(crate) struct Pump<S, D> {
    wire: Wire<S>,
    dialect: D,
    requests: mpsc::Sender<PublishRequest>,
    responses: Streaming<PublishResponse>,
    uplink: Uplink,
    pulse: Pulse,
    /// When the broadcaster's token is void.
    until: Option<Instant>,
    received: Counter,
    /// Of a rehearsal.
    gauge: Option<Gauge>,
}

impl<S: AsyncRead + AsyncWrite + Unpin, D: Dialect> Pump<S, D> {
    pub(crate) fn new(
        app: &App,
        wire: Wire<S>,
        dialect: D,
        publication: Publication,
        until: Option<Instant>,
    ) -> Self {
        let Publication {
            requests,
            responses,
            ready: _,
        } = publication;
        let (ping_every, silence_max) = (app.config.ping_interval, app.config.idle_timeout);
        Self {
            wire,
            dialect,
            requests,
            responses,
            uplink: Uplink::Free,
            pulse: Pulse::new(ping_every, silence_max, Instant::now()),
            until,
            received: meters::received(),
            gauge: None,
        }
    }

    /// Measures the connection while it carries it.
    pub(crate) fn measured(self) -> Self {
        let mut pump = Self {
            gauge: Some(Gauge::new(Instant::now())),
            ..self
        };
        // At once: even a rehearsal that is over in no time has a round trip on its sheet.
        pump.measure();
        pump
    }

    /// Runs the connection to its end, and both endings.
    pub(crate) async fn run(mut self, app: &App) -> Ending {
        let ending = self.flow(app).await;
        if let Ending::Ours(fault) | Ending::Theirs(fault) = &ending {
            self.dialect.farewell(fault, &mut self.wire.outbox);
        }
        let settled = match &ending {
            Ending::Gone | Ending::Ours(_) => true,
            Ending::Done | Ending::Theirs(_) => false,
        };
        let (code, reason) = ending.close();
        let wire = self.wire;
        let settling = async {
            if settled {
                settle(self.requests, self.responses, self.uplink).await;
            }
        };
        tokio::join!(wire.close(code, reason), settling);
        ending
    }

    /// Moves messages both ways. Answers come first: they are few, and an ending is among them.
    async fn flow(&mut self, app: &App) -> Ending {
        let mut drain = pin!(app.leave());
        let mut expiry = pin!(at(self.until));
        let mut timer = pin!(sleep_until(self.pulse.due(self.wire.heard())));
        loop {
            let is_held = matches!(self.uplink, Uplink::Held(_));
            let is_free = matches!(self.uplink, Uplink::Free);
            let step = tokio::select! {
                biased;
                () = &mut drain => Step::Drain,
                () = &mut expiry => Step::Expired,
                answer = self.responses.message() => Step::Answered(answer),
                () = release(&self.requests, &mut self.uplink), if is_held => continue,
                incoming = self.wire.next(is_free) => Step::Heard(incoming),
                () = &mut timer => Step::Beat,
                () = at(self.gauge.as_ref().map(Gauge::due)) => Step::Measure,
            };
            let ended = match step {
                Step::Drain => Err(Ending::Ours(draining())),
                Step::Expired => Err(Ending::Ours(expired())),
                Step::Answered(answer) => self.answered(answer),
                Step::Heard(Ok(message)) => self.heard(message),
                Step::Heard(Err(broken)) => Err(Ending::of(broken, app.config.max_message)),
                Step::Measure => {
                    self.measure();
                    Ok(())
                }
                Step::Beat => {
                    let beat = self.beat();
                    timer.as_mut().reset(self.pulse.due(self.wire.heard()));
                    beat
                }
            };
            if let Err(ending) = ended {
                return ending;
            }
        }
    }

    fn answered(&mut self, answer: Result<Option<PublishResponse>, Status>) -> Result<(), Ending> {
        let answer = match answer {
            Ok(Some(answer)) => answer,
            Ok(None) => return Err(Ending::Theirs(Peer::Ingest.away())),
            Err(status) => return Err(Ending::Theirs(Peer::Ingest.fault(&status))),
        };
        let Some(response) = answer.response else {
            return Ok(());
        };
        Failpoint::GatewayAnswered.pass();
        if let (Some(gauge), Response::Ack(ack)) = (&mut self.gauge, &response) {
            gauge.acknowledged(ack, Instant::now());
        }
        match self.dialect.answered(response, &mut self.wire.outbox) {
            Course::On => Ok(()),
            Course::Done => Err(Ending::Done),
        }
    }

    fn heard(&mut self, message: Incoming) -> Result<(), Ending> {
        if let Incoming::Binary(data) = &message {
            self.received.increment(data.len() as u64);
        }
        let Some(request) = self.dialect.heard(message).map_err(Ending::Ours)? else {
            return Ok(());
        };
        self.take_in_pong();
        if let Some(gauge) = &mut self.gauge {
            gauge.sent(&request, Instant::now());
            if matches!(request, Request::Stop(_)) {
                let link = Request::Link(gauge.link().into());
                if self.requests.try_send(wrapped(link)).is_err() {
                    tracing::debug!("no room for what was measured");
                }
            }
        }
        match self.requests.try_send(wrapped(request)) {
            Ok(()) => Failpoint::GatewayForwarded.pass(),
            Err(TrySendError::Full(request)) => self.uplink = Uplink::Held(request),
            Err(TrySendError::Closed(_)) => self.uplink = Uplink::Closed,
        }
        Ok(())
    }

    fn measure(&mut self) {
        self.take_in_pong();
        let now = Instant::now();
        if self.gauge.as_mut().is_some_and(|gauge| gauge.measure(now)) {
            self.wire.outbox.ping();
        }
    }

    fn take_in_pong(&mut self) {
        if let (Some(gauge), Some(at)) = (&mut self.gauge, self.wire.ponged()) {
            gauge.ponged(at);
        }
    }

    /// A client that isn't read can't be heard: its silence is the ingest's fault then.
    fn beat(&mut self) -> Result<(), Ending> {
        match (
            self.pulse.beat(Instant::now(), self.wire.heard()),
            &self.uplink,
        ) {
            (Beat::Fine, _) => Ok(()),
            (Beat::Ping, _) => {
                self.wire.outbox.ping();
                Ok(())
            }
            (Beat::Silent, Uplink::Free) => {
                let message = "Nothing was heard for too long.";
                Err(Ending::Ours(Fault::new(Code::Timeout, message)))
            }
            (Beat::Silent, Uplink::Held(_) | Uplink::Closed) => {
                Err(Ending::Ours(Peer::Ingest.away()))
            }
        }
    }
}

fn wrapped(request: Request) -> PublishRequest {
    PublishRequest {
        request: Some(request),
    }
}

/// Waits for a time that may never come.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// Sends the held message as soon as there is room. Until then it may be dropped without loss.
async fn release(requests: &mpsc::Sender<PublishRequest>, uplink: &mut Uplink) {
    let permit = requests.reserve().await;
    match (permit, std::mem::replace(uplink, Uplink::Closed)) {
        (Ok(permit), Uplink::Held(request)) => {
            permit.send(request);
            *uplink = Uplink::Free;
        }
        (_, Uplink::Held(_) | Uplink::Free | Uplink::Closed) => {}
    }
}

/// Lets the ingest take what the client sent before it left: the last chunk, perhaps a stop. To cut
/// the stream at once could overtake them.
async fn settle(
    requests: mpsc::Sender<PublishRequest>,
    mut responses: Streaming<PublishResponse>,
    uplink: Uplink,
) {
    let settling = async move {
        if let Uplink::Held(request) = uplink
            && requests.send(request).await.is_err()
        {
            return;
        }
        drop(requests);
        while let Ok(Some(answer)) = responses.message().await {
            if matches!(
                answer.response,
                Some(Response::Progress(_) | Response::End(_))
            ) {
                return;
            }
        }
    };
    if timeout(SETTLE_DEADLINE, settling).await.is_err() {
        tracing::debug!("the ingest did not end the connection in time");
    }
}
