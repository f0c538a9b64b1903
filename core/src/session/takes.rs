//! Offsets of a session's takes.
//!
//! Owns the arithmetic of resuming: what is new, what is overlap, what is a hole. The order
//! `archived <= durable <= taped <= received` is asserted after every step.

use super::Refusal;
use crate::{
    recording::Gap,
    spool::{Manifest, TakeRecord},
    wire::Take,
};

/// How far a take has come. All are offsets after the last byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Arrived, and sent to the live branch.
    pub received: u64,
    /// Handed to the spool.
    pub taped: u64,
    /// Synced.
    pub durable: u64,
    /// In an S3 part.
    pub archived: u64,
}

impl Cursor {
    fn check(&self) {
        assert!(
            self.archived <= self.durable
                && self.durable <= self.taped
                && self.taped <= self.received,
            "offsets out of order: {self:?}"
        );
    }
}

/// Where a client begins to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakeStart {
    /// Index of the take, from 0.
    pub index: u32,
    /// Send from here on.
    pub offset: u64,
    /// Bytes that the client does not have any more, and nobody else has.
    pub hole: Option<(u64, u64)>,
}

/// What to do with a chunk: how many of its first bytes each branch has already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    /// For the spool; `None` while the recording branch is down.
    pub tape_skip: Option<u64>,
    /// For the live branch.
    pub live_skip: u64,
}

#[derive(Debug)]
pub(super) struct Takes {
    cursors: Vec<Cursor>,
}

impl Takes {
    pub(super) fn recover(manifest: &Manifest) -> Self {
        let at = |(index, record): (u32, &TakeRecord)| {
            // What is declared to be missing is not asked for, even if nothing follows it yet.
            let end = record.bytes.max(declared_end(&manifest.gaps, index));
            Cursor {
                received: end,
                taped: end,
                durable: record.bytes,
                archived: 0,
            }
        };
        Self {
            cursors: (0..).zip(&manifest.takes).map(at).collect(),
        }
    }

    pub(super) fn cursors(&self) -> &[Cursor] {
        &self.cursors
    }

    pub(super) fn open(&mut self) {
        self.cursors.push(Cursor::default());
    }

    pub(super) fn last(&self) -> Option<(u32, u64)> {
        let index = self.cursors.len().checked_sub(1)?;
        Some((u32::try_from(index).ok()?, self.cursors[index].received))
    }

    pub(super) fn received_total(&self) -> u64 {
        self.cursors.iter().map(|cursor| cursor.received).sum()
    }

    /// What of a take arrived and was not handed to the spool.
    pub(super) fn untaped(&self, index: usize) -> Option<(u64, u64)> {
        let cursor = self.cursors.get(index)?;
        (cursor.taped < cursor.received).then_some((cursor.taped, cursor.received))
    }

    /// Gives up what of a take was not handed to the spool.
    pub(super) fn skip_untaped(&mut self, index: usize) -> Option<(u64, u64)> {
        let untaped = self.untaped(index)?;
        self.cursors[index].taped = untaped.1;
        Some(untaped)
    }

    /// The spool has dropped what is not durable: it is to be handed over again, but for what is declared
    /// to be missing. Tells of each take what is lost besides: whoever lacked the bytes of a declared gap
    /// had let go of all before it.
    pub(super) fn rewind(&mut self, gaps: &[Gap]) -> Vec<(u32, u64, u64)> {
        let mut lost = Vec::new();
        for (index, cursor) in (0..).zip(&mut self.cursors) {
            let mut declared: Vec<_> = gaps.iter().filter(|gap| gap.take == index).collect();
            declared.sort_unstable_by_key(|gap| gap.from);
            cursor.taped = cursor.durable;
            for gap in declared {
                if cursor.taped < gap.from {
                    lost.push((index, cursor.taped, gap.from));
                }
                cursor.taped = cursor.taped.max(gap.to);
            }
            cursor.check();
        }
        lost
    }

    /// Agrees on an offset with a client that has `take.first..take.next`.
    pub(super) fn resume(
        &mut self,
        index: usize,
        take: &Take,
        running: bool,
    ) -> Result<TakeStart, Refusal> {
        let cursor = &mut self.cursors[index];
        // Without a tape there is nothing to make durable: only what the listeners lack is asked for.
        let (have, durable) = match running {
            true => (cursor.taped, cursor.durable),
            false => (cursor.received, cursor.received),
        };
        let hole = (take.first > have).then_some((have, take.first));
        let offset = take.first.max(durable);
        if hole.is_some() {
            cursor.received = cursor.received.max(take.first);
            if running {
                cursor.taped = take.first;
            }
        }
        cursor.check();
        let index = u32::try_from(index).map_err(|_| Refusal::TooMany)?;
        Ok(TakeStart {
            index,
            offset,
            hole,
        })
    }

    /// Accounts for a chunk at `offset`. Overlap is dropped, a hole refused.
    pub(super) fn receive(
        &mut self,
        take: u32,
        offset: u64,
        len: u64,
        running: bool,
    ) -> Result<Accept, Refusal> {
        let cursor = self
            .cursors
            .get_mut(take as usize)
            .ok_or(Refusal::NotLive)?;
        let expected = if running {
            cursor.taped
        } else {
            cursor.received
        };
        let end = offset.checked_add(len).filter(|_| offset <= expected);
        let Some(end) = end else {
            return Err(Refusal::Offset { offset, expected });
        };
        let accept = Accept {
            tape_skip: running.then_some((cursor.taped - offset.min(cursor.taped)).min(len)),
            live_skip: (cursor.received - offset).min(len),
        };
        if running {
            cursor.taped = cursor.taped.max(end);
        }
        cursor.received = cursor.received.max(end);
        cursor.check();
        Ok(accept)
    }

    pub(super) fn durable(&mut self, take: u32, offset: u64) {
        if let Some(cursor) = self.cursors.get_mut(take as usize) {
            cursor.durable = cursor.durable.max(offset);
            cursor.check();
        }
    }

    pub(super) fn archived(&mut self, take: u32, offset: u64) {
        if let Some(cursor) = self.cursors.get_mut(take as usize) {
            cursor.archived = cursor.archived.max(offset.min(cursor.durable));
            cursor.check();
        }
    }
}

/// Where the last declared gap of a take ends.
fn declared_end(gaps: &[Gap], take: u32) -> u64 {
    let of_take = gaps.iter().filter(|gap| gap.take == take);
    of_take.map(|gap| gap.to).max().unwrap_or(0)
}
