//! Connections of a session: how they come, agree on a take, and go.
//!
//! Owns the translation between a connection's wishes and the lifecycle. Must never decide who may
//! send: the lifecycle does.

use super::{
    super::{
        Connect, ConnectError,
        connection::{Connection, Sending},
        opening::{Opening, Step},
    },
    Actor, answer, fault,
};
use aircheck_core::{
    id::Epoch,
    session::{Refusal, StopBy, TakeStart},
    wire::Take,
};
use aircheck_proto::{
    Fault,
    ingest::{self, publish_response::Response},
};
use aircheck_runtime::failpoint::Failpoint;

impl Actor {
    /// A broadcaster wants the session.
    pub(super) fn connect(&mut self, connect: Connect) {
        let Connect {
            user,
            force,
            take,
            previous,
            named,
            outbound,
            gone,
            reply,
        } = connect;
        let admitted = self.session.handle_connect(&user, force, self.now());
        // A takeover has ended the session by now: the show must be free before the caller hears it.
        self.carry_out();
        let admission = match admitted {
            Ok(admission) => admission,
            Err(Refusal::Ended) => return answer(Some(reply), Err(ConnectError::Ended)),
            Err(refusal) => {
                return answer(Some(reply), Err(ConnectError::Refused(fault(refusal))));
            }
        };
        let epoch = admission.epoch;
        tracing::info!(%epoch, resumed = admission.resumed, "broadcaster connected");
        let sending = Sending::Undecided {
            opening: Opening::at(0),
        };
        self.connection = Some(Connection::new(epoch, sending, outbound, gone));
        Failpoint::SessionConnected.pass();
        answer(Some(reply), Ok(epoch));
        match take {
            Some(take) if previous.is_some() && take.first > 0 => {
                self.ready_after(epoch, take, previous);
            }
            Some(take) => self.ready_for(epoch, &take, admission.resumed && named, previous),
            None => {
                let ready = self.ready(epoch, String::new(), 0, admission.resumed, previous);
                self.say(Response::Ready(ready));
            }
        }
        self.say_state();
    }

    /// A connection announces a take.
    pub(super) fn take(&mut self, epoch: Epoch, take: &Take) {
        self.ready_for(epoch, take, true, None);
    }

    /// The client goes on with a take of a session that is over. It should begin a new one, so this
    /// one is not opened, which would only record a hole; unless its bytes come nevertheless.
    fn ready_after(&mut self, epoch: Epoch, take: Take, previous: Option<ingest::Previous>) {
        let ready = self.ready(epoch, take.id.clone(), take.first, false, previous);
        if let Some(connection) = &mut self.connection {
            connection.sending = Sending::Unopened { take };
        }
        self.say(Response::Ready(ready));
    }

    /// Agrees on an offset for a take and says so.
    fn ready_for(
        &mut self,
        epoch: Epoch,
        take: &Take,
        resumed: bool,
        previous: Option<ingest::Previous>,
    ) {
        let start = match self.session.handle_take(epoch, take, self.now()) {
            Ok(start) => start,
            Err(refusal) => return self.refuse(epoch, fault(refusal)),
        };
        self.begin(start, take);
        let ready = self.ready(epoch, take.id.clone(), start.offset, resumed, previous);
        self.say(Response::Ready(ready));
    }

    /// From now on the connection sends this take.
    pub(super) fn begin(&mut self, start: TakeStart, take: &Take) {
        self.carry_out();
        let cursor = self.session.cursor(start.index).unwrap_or_default();
        let fresh = cursor.received == 0;
        let opening = if fresh {
            Opening::at(start.offset)
        } else {
            Opening::Passed
        };
        if let Some(connection) = &mut self.connection {
            connection.begin(start.index, take.id.clone(), opening, cursor);
        }
        self.rejoin(start.index);
    }

    /// The broadcaster ends the show.
    pub(super) fn stop_by(&mut self, epoch: Epoch) {
        Failpoint::StopHeard.pass();
        let held = match self.connection.as_mut().filter(|c| c.epoch == epoch) {
            Some(Connection {
                sending: Sending::Undecided { opening },
                ..
            }) => opening.finish(),
            _ => None,
        };
        if let Some((_, data)) = held {
            // Too few to be a container, so they can only go on with a take.
            self.plain_step(epoch, Step::Foreign(0, data));
        }
        if let Err(refusal) = self
            .session
            .handle_stop(StopBy::Connection(epoch), self.now())
        {
            self.refuse(epoch, fault(refusal));
        }
    }

    /// A connection is gone.
    pub(super) fn disconnect(&mut self, epoch: Epoch) {
        if self
            .connection
            .as_ref()
            .is_some_and(|connection| connection.epoch == epoch)
        {
            self.connection = None;
        }
        if self.session.is_open() {
            tracing::info!(%epoch, "broadcaster disconnected");
        }
        self.session.handle_disconnect(epoch, self.now());
    }

    /// Ends the connection with a reason; the session waits for the next one.
    pub(super) fn refuse(&mut self, epoch: Epoch, fault: Fault) {
        if let Some(connection) = self.connection.take_if(|c| c.epoch == epoch) {
            tracing::warn!(%epoch, %fault, "connection refused");
            connection.end(fault);
        }
        self.session.handle_disconnect(epoch, self.now());
    }
}
