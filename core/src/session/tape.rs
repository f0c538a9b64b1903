//! The recording branch as the lifecycle sees it: it runs, fails, and may run again.
//!
//! Owns what is said of bytes that arrived while it was down. Must never concern the live branch.

use super::{Output, Session, State};
use crate::spool::Event;

/// Health of the recording branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tape {
    /// Bytes go to the spool.
    Running,
    /// They don't, and why; until [`Session::handle_tape_healed`].
    Failed(String),
}

impl Session {
    /// The spool can't take this session's bytes any more. The live branch is not concerned.
    pub fn handle_write_failed(&mut self, reason: String) {
        if !self.is_open() && self.state != State::Finalizing {
            return;
        }
        if self.tape == Tape::Running {
            self.tape = Tape::Failed(reason.clone());
            self.persist(Event::RecordingFailed { reason });
            self.outputs.push_back(Output::Changed);
        }
    }

    /// The spool takes this session's bytes again, from the durable end of each take on. `true` if this
    /// set the tape going.
    pub fn handle_tape_healed(&mut self) -> bool {
        let due = self.is_open() && self.tape != Tape::Running;
        if due {
            self.tape = Tape::Running;
            for (take, from, to) in self.takes.rewind(&self.manifest.gaps) {
                self.gap(take, from, to, self.tape_cause());
            }
            self.outputs.push_back(Output::Changed);
        }
        due
    }

    /// Whether a take has bytes that listeners have heard and the tape has not: they arrived while it was
    /// down. `false` once the session has ended: then nothing can be taped any more.
    #[must_use]
    pub fn has_untaped(&self, take: u32) -> bool {
        self.is_open() && self.tape == Tape::Running && self.takes.untaped(take as usize).is_some()
    }

    /// Nobody can send again what arrived of a take while the tape was down: a gap, and on from there. No
    /// effect once the session has ended: its manifest is sealed.
    pub fn handle_untaped_lost(&mut self, take: u32) {
        if !self.has_untaped(take) {
            return;
        }
        if let Some((from, to)) = self.takes.skip_untaped(take as usize) {
            let cause = self.tape_cause();
            self.gap(take, from, to, cause);
        }
    }

    /// What is to blame for bytes that arrived while the tape was down.
    pub(super) fn tape_cause(&self) -> String {
        let error = self.manifest.recording_error.as_deref();
        error.unwrap_or("spool").to_owned()
    }
}
