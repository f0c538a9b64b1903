//! How a session ends: sealed, durable, archived, over; or drained, to go on after a restart.
//!
//! Owns the order of these steps. Must never give up local bytes before the archive is proved, and
//! that is durable.

use super::Actor;
use aircheck_core::{code::Code, recording::Status};
use aircheck_proto::{
    Fault, archiver,
    ingest::{self, publish_response::Response},
};
use aircheck_runtime::failpoint::Failpoint;
use std::time::Duration;

/// How long a draining session waits for its last bytes to be durable.
const DRAIN_MAX: Duration = Duration::from_secs(3);

/// Where the end of a session stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Not ended.
    Open,
    /// Ended; its last events are not durable yet.
    Sealing,
    /// The archiver is at work.
    Finalizing,
    /// The archive is proved; the event that says so is not durable yet.
    Closing,
    /// Nothing is left to do.
    Over,
    /// The process ends; the session goes on after its restart.
    Draining,
}

impl Actor {
    /// The spool has news: acks, failures, and the steps of the end that waited for it.
    pub(super) fn check_marks(&mut self) {
        let (durable, events, failed) = {
            let marks = self.marks.borrow_and_update();
            for (take, durable) in (0..).zip(&marks.takes) {
                self.session.handle_durable(take, *durable);
            }
            let durable = marks.takes.iter().sum();
            self.run = marks.run;
            (durable, marks.events, marks.failed.clone())
        };
        match &failed {
            Some(reason) => self.write_failed(reason.to_string()),
            None => self.tape_goes_on(),
        }
        self.carry_out();
        self.announced.grew(durable, || self.session.manifest());
        let settled = events >= self.persisted || failed.is_some();
        match self.ending {
            Ending::Sealing if settled => {
                Failpoint::SealDurable.pass();
                self.ending = Ending::Finalizing;
                let manifest = self.session.manifest();
                let bytes = manifest.bytes();
                self.registry.finalize(manifest);
                self.say(Response::Progress(ingest::Progress { bytes, archived: 0 }));
            }
            Ending::Closing if settled => self.over(),
            _ => {}
        }
        self.ack_if_due();
    }

    /// The archiver has proved the archive.
    pub(super) fn finalized(&mut self, recording: archiver::Recording) {
        let status = recording.status().to_core().unwrap_or(Status::Failed);
        if !self.session.handle_finalized(status) {
            return;
        }
        tracing::info!(
            status = status.as_str(),
            bytes = recording.bytes,
            "session over"
        );
        // Acks keep their distance from each other, and the end may come sooner: nothing is left open.
        self.ack_now();
        self.say(Response::End(Box::new(ingest::End {
            recording: Some(recording),
        })));
        if let Some(connection) = self.connection.take() {
            connection.close();
        }
        Failpoint::EndSaid.pass();
        self.ending = Ending::Closing;
        self.carry_out();
        self.check_marks();
    }

    fn over(&mut self) {
        Failpoint::DoneDurable.pass();
        self.ending = Ending::Over;
        self.registry.over(self.session.seat(), self.status());
    }

    /// Sends the broadcaster away; the session goes on after the restart.
    pub(super) fn drain(&mut self) {
        if let Some(connection) = self.connection.take() {
            let epoch = connection.epoch;
            connection.end(Fault::retry(Code::Draining, "the service restarts", 0));
            self.session.handle_disconnect(epoch, self.now());
        }
        self.ending = Ending::Draining;
    }

    /// Waits until what was received is durable: it was not acknowledged, but why send it twice.
    pub(super) async fn drained(&mut self) {
        self.carry_out();
        let events = self.persisted;
        let settled = self
            .marks
            .wait_for(|marks| marks.events >= events || marks.failed.is_some());
        if tokio::time::timeout(DRAIN_MAX, settled).await.is_err() {
            tracing::warn!("the spool did not settle in time; clients resend what is missing");
        }
    }
}
