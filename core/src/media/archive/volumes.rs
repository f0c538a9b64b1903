//! A session as a series of files: when a take does not continue the file, the next file begins
//! with it. Hands each full file to the caller whole; it decides nothing about packets.

use std::collections::VecDeque;

use super::{MuxError, Muxer, Params, TakeStart};
use crate::media::limits::VOLUMES_MAX;

/// The present file of a session, and the rule when the next one begins.
///
/// After each call look for [`Self::take_full`]; usually there is nothing.
#[derive(Debug)]
pub struct Volumes {
    params: Params,
    current: Muxer,
    full: VecDeque<Muxer>,
    index: u32,
}

impl Volumes {
    /// The first volume, without media.
    ///
    /// # Errors
    /// As for [`Muxer::new`].
    pub fn new(params: Params) -> Result<Self, MuxError> {
        let current = Muxer::new(params.clone())?;
        Ok(Self {
            params,
            current,
            full: VecDeque::new(),
            index: 0,
        })
    }

    /// The file being written.
    pub const fn current(&mut self) -> &mut Muxer {
        &mut self.current
    }

    /// How many files were begun before the present one.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// A file that will not grow any more: drain its body, then finish it.
    pub fn take_full(&mut self) -> Option<Muxer> {
        self.full.pop_front()
    }

    /// The last file, to be finished.
    #[must_use]
    pub fn into_last(self) -> Muxer {
        self.current
    }

    /// Begins a take; one that is still open ends first.
    ///
    /// # Errors
    /// As for [`Muxer::begin_take`]; never [`MuxError::Incompatible`]. The new take is begun
    /// whatever the end of the old one brought.
    pub fn begin_take(&mut self, start: TakeStart) -> Result<(), MuxError> {
        let ended = self.end_take();
        self.current.begin_take(start)?;
        ended
    }

    /// Adds the next bytes of the take.
    ///
    /// # Errors
    /// As for [`Muxer::push`]; never [`MuxError::Incompatible`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), MuxError> {
        let result = self.current.push(bytes);
        self.advance(result)
    }

    /// Passes over `lost_bytes` of the take that will never come.
    ///
    /// # Errors
    /// As for [`Muxer::hole`]; never [`MuxError::Incompatible`].
    pub fn hole(&mut self, lost_bytes: u64) -> Result<(), MuxError> {
        let result = self.current.hole(lost_bytes);
        self.advance(result)
    }

    /// Ends the take.
    ///
    /// # Errors
    /// As for [`Muxer::end_take`]; never [`MuxError::Incompatible`].
    pub fn end_take(&mut self) -> Result<(), MuxError> {
        let result = self.current.end_take();
        self.advance(result)?;
        // If the rest of the take began a new volume, the take is open in that one.
        self.current.end_take()
    }

    /// Begins new volumes as long as the open take does not fit into the present one. An encoder
    /// restarted with other codecs inside one piece of bytes makes several.
    fn advance(&mut self, mut result: Result<(), MuxError>) -> Result<(), MuxError> {
        while let Err(MuxError::Incompatible { .. }) = &result {
            if self.index + 1 >= VOLUMES_MAX {
                return Err(MuxError::TooManyVolumes);
            }
            let Some(take) = self.current.detach_take() else {
                return result;
            };
            let next = Muxer::new(self.params.clone())?;
            self.full
                .push_back(std::mem::replace(&mut self.current, next));
            self.index += 1;
            result = self.current.adopt_take(take);
        }
        result
    }
}
