//! Bytes on their way in: from the connection to the tee.
//!
//! Owns the tee. Must never let one side of it wait for the other, nor copy what it can share.

use super::{
    super::{
        connection::Sending,
        opening::{Opening, Step},
    },
    Actor, fault,
};
use crate::live::Beginning;
use aircheck_core::{
    code::Code,
    id::Epoch,
    media::{Container, Probe, probe},
    session::{Refusal, Tape},
};
use aircheck_proto::Fault;
use aircheck_runtime::failpoint::Failpoint;
use bytes::Bytes;
use tokio::time::Instant;

impl Actor {
    /// Bytes of a connection. What comes from another than the present one is dropped.
    pub(super) fn chunk(&mut self, epoch: Epoch, offset: u64, data: Bytes) {
        if data.is_empty() {
            return;
        }
        let Some(connection) = self.connection.as_mut().filter(|c| c.epoch == epoch) else {
            return;
        };
        if connection.heard(Instant::now()) {
            tracing::info!("the broadcaster sends again");
            self.alarms_changed();
            return self.chunk(epoch, offset, data);
        }
        match &mut connection.sending {
            Sending::Unopened { take } => {
                let take = take.clone();
                match self.session.handle_take(epoch, &take, self.clock.now()) {
                    Ok(start) => self.begin(start, &take),
                    Err(refusal) => return self.refuse(epoch, fault(refusal)),
                }
                self.chunk(epoch, offset, data);
            }
            Sending::Undecided { opening } => {
                let held = match opening {
                    Opening::Undecided { held, .. } => held.len() as u64,
                    Opening::Passed => 0,
                };
                let step = opening.push(held, data);
                self.plain_step(epoch, step);
            }
            Sending::Take {
                index,
                opening,
                plain,
                ..
            } => {
                let (index, plain) = (*index, *plain);
                let end = self
                    .session
                    .cursor(index)
                    .map_or(0, |cursor| cursor.received);
                let offset = if plain { end } else { offset };
                let step = opening.push(offset, data);
                self.step(epoch, index, step);
            }
        }
    }

    /// A resumable client's bytes.
    fn step(&mut self, epoch: Epoch, take: u32, step: Step) {
        match step {
            Step::More => {}
            Step::Pass(offset, data) => self.bytes(epoch, take, offset, &data),
            Step::Container(container, offset, data) => {
                self.begin_live(take, container);
                self.bytes(epoch, take, offset, &data);
            }
            Step::Foreign(..) => self.refuse(epoch, foreign()),
            Step::Offset { expected } => {
                self.refuse(
                    epoch,
                    fault(Refusal::Offset {
                        offset: 0,
                        expected,
                    }),
                );
            }
        }
    }

    /// A plain client's first bytes.
    pub(super) fn plain_step(&mut self, epoch: Epoch, step: Step) {
        let (start, data) = match step {
            Step::More | Step::Offset { .. } => return,
            Step::Container(container, _, data) => {
                let mime = container.content_type("");
                let start = self.session.handle_plain_take(epoch, mime, self.now());
                self.carry_out();
                if let Ok(start) = &start {
                    self.begin_live(start.index, container);
                }
                (start, data)
            }
            Step::Foreign(_, data) | Step::Pass(_, data) => {
                let start = self.session.handle_plain_continue(epoch);
                if let Ok(start) = &start {
                    self.rejoin(start.index);
                }
                (start, data)
            }
        };
        self.carry_out();
        match start {
            Ok(start) => {
                if let Some(connection) = &mut self.connection {
                    let (index, opening) = (start.index, Opening::Passed);
                    let id = String::new();
                    connection.sending = Sending::Take {
                        index,
                        id,
                        opening,
                        plain: true,
                    };
                }
                self.bytes(epoch, start.index, start.offset, &data);
            }
            Err(Refusal::NotLive) => self.refuse(epoch, foreign()),
            Err(refusal) => self.refuse(epoch, fault(refusal)),
        }
    }

    fn begin_live(&mut self, take: u32, container: Container) {
        let manifest = self.session.facts();
        let Some(record) = manifest.takes.get(take as usize) else {
            return;
        };
        let wall_ms = record
            .started_unix_ms
            .saturating_sub(manifest.started_unix_ms);
        self.live.begin_take(take, container, &record.mime, wall_ms);
    }

    /// Listeners can hear a take only from its beginning on, which lies in the spool where the branch
    /// has not seen it: after a restart. It is read there while the session goes on.
    pub(super) fn rejoin(&mut self, take: u32) {
        let received = self.session.cursor(take).map_or(0, |c| c.received);
        if received > 0 && self.live.rejoin(take, received) {
            self.registry.recall(self.session.id(), take, received);
        }
    }

    /// What [`Self::rejoin`] asked for.
    pub(super) fn rejoined(&mut self, take: u32, known: &[(u64, Bytes)]) {
        let manifest = self.session.facts();
        let container = match known.first() {
            Some((0, first)) => match probe(first) {
                Probe::Found(container) => Some(container),
                Probe::NeedMore | Probe::Unsupported => None,
            },
            _ => None,
        };
        let beginning = manifest.takes.get(take as usize).zip(container);
        if beginning.is_none() {
            tracing::warn!(take, "listeners hear nothing of a take without a beginning");
        }
        let wall_ms = self.now().unix_ms.saturating_sub(manifest.started_unix_ms);
        let beginning = beginning.map(|(record, container)| Beginning {
            container,
            mime: &record.mime,
            wall_ms,
            known,
        });
        self.live.rejoined(take, beginning);
    }

    /// The tee: each side gets what it has not had. Neither can hold up the other.
    fn bytes(&mut self, epoch: Epoch, take: u32, offset: u64, data: &Bytes) {
        let len = data.len() as u64;
        let accept = match self
            .session
            .handle_chunk(epoch, take, offset, len, self.now())
        {
            Ok(accept) => accept,
            // Somebody else ended the session while this was under way; the end is on its way back.
            Err(Refusal::Ended) => return,
            Err(refusal) => return self.refuse(epoch, fault(refusal)),
        };
        Failpoint::ChunkAccepted.pass();
        metrics::counter!("aircheck_received_bytes_total").increment(len);
        let rest =
            |skip: u64| usize::try_from(skip).map_or(Bytes::new(), |skip| data.slice(skip..));
        let live = rest(accept.live_skip);
        if let Some(skip) = accept.tape_skip.filter(|skip| *skip < len) {
            let appended = self.spool.append(take, offset + skip, rest(skip));
            Failpoint::ChunkAppended.pass();
            if let Err(error) = appended {
                self.write_failed(error.to_string());
            }
        }
        if !live.is_empty() {
            self.live.push(take, &live);
        }
    }

    /// The spool can't take more; the live branch is not concerned.
    pub(super) fn write_failed(&mut self, reason: String) {
        if *self.session.tape() == Tape::Running {
            tracing::error!(%reason, "recording failed; the live branch goes on");
            metrics::counter!("aircheck_recording_failures_total").increment(1);
        }
        // Also where it has failed again before we heard that it went on.
        if self.run == self.wanted_run {
            match self.spool.restart() {
                Ok(run) => self.wanted_run = run,
                Err(error) => tracing::debug!(%error, "ask for the spool again"),
            }
        }
        self.session.handle_write_failed(reason);
    }

    /// The spool takes bytes again, if it had failed. What arrived meanwhile is asked for once more, where
    /// the client can send it; else it is a gap.
    pub(super) fn tape_goes_on(&mut self) {
        if self.run != self.wanted_run || !self.session.handle_tape_healed() {
            return;
        }
        tracing::warn!("recording goes on");
        metrics::counter!("aircheck_recording_restarts_total").increment(1);
        let Some(connection) = &self.connection else {
            return;
        };
        let epoch = connection.epoch;
        match connection.sending {
            Sending::Take {
                index, plain: true, ..
            } => self.session.handle_untaped_lost(index),
            Sending::Take { index, .. } if self.session.has_untaped(index) => {
                let message = "the recording goes on; send again what was not acknowledged";
                self.refuse(epoch, Fault::retry(Code::Unavailable, message, 0));
            }
            Sending::Take { .. } | Sending::Undecided { .. } | Sending::Unopened { .. } => {}
        }
    }
}

fn foreign() -> Fault {
    let message = "the bytes begin no supported container (WebM, MP4 or Ogg)";
    Fault::new(Code::UnsupportedMedia, message)
}
