//! Where a session's durable bytes lie.
//!
//! Owns the map from take and offset to records in segments. An extent keeps its segment alive; the
//! writer removes segments that no extent and no needed event refers to.

use super::disk::Segment;
use aircheck_core::{id::SessionId, spool::record};
use bytes::Bytes;
use std::{io, sync::Arc};
use thiserror::Error;

/// One record of media bytes.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    pub(super) offset: u64,
    pub(super) len: u32,
    pub(super) segment: Arc<Segment>,
    /// Of the record's head in the segment.
    pub(super) position: u64,
}

impl Extent {
    fn end(&self) -> u64 {
        self.offset + u64::from(self.len)
    }
}

/// Everything of one session that is on disk.
#[derive(Debug, Default)]
pub(super) struct SessionIndex {
    takes: Vec<Vec<Extent>>,
    /// Segments that hold its events.
    events: Vec<Arc<Segment>>,
}

/// Why bytes can't be read back.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The session or take is not here.
    #[error("the spool does not hold this take")]
    NotFound,
    /// The disk refuses.
    #[error("read spool")]
    Io(#[from] io::Error),
    /// The disk returns other bytes than were written.
    #[error("segment {segment} is damaged at position {position}")]
    Corrupt {
        /// Which segment.
        segment: u64,
        /// Where in it.
        position: u64,
    },
}

impl SessionIndex {
    /// Adds a durable record. Overlap with what is there already is ignored: a batch that was written
    /// again after a failed sync may be found twice.
    pub(super) fn add_bytes(&mut self, take: u32, extent: Extent) -> bool {
        let take = take as usize;
        if self.takes.len() <= take {
            self.takes.resize_with(take + 1, Vec::new);
        }
        let extents = &mut self.takes[take];
        let fresh = extents
            .last()
            .is_none_or(|last| extent.offset >= last.end());
        if fresh {
            extents.push(extent);
        }
        fresh
    }

    pub(super) fn add_event(&mut self, segment: &Arc<Segment>) {
        if self
            .events
            .last()
            .is_none_or(|last| !Arc::ptr_eq(last, segment))
        {
            self.events.push(Arc::clone(segment));
        }
    }

    /// Lets go of every segment, whoever else still holds the index.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn end(&self, take: u32) -> u64 {
        self.takes
            .get(take as usize)
            .and_then(|extents| extents.last())
            .map_or(0, Extent::end)
    }

    /// Extents from `offset` on, up to about `max_bytes`.
    pub(super) fn from(&self, take: u32, offset: u64, max_bytes: usize) -> Vec<Extent> {
        let Some(extents) = self.takes.get(take as usize) else {
            return Vec::new();
        };
        let first = extents.partition_point(|extent| extent.end() <= offset);
        let mut left = max_bytes;
        let mut found = Vec::new();
        for extent in &extents[first..] {
            found.push(extent.clone());
            left = left.saturating_sub(extent.len as usize);
            if left == 0 {
                break;
            }
        }
        found
    }
}

/// Reads extents back, each checked against its checksum; the first is cut to begin at `offset`.
pub(super) fn read(
    session: SessionId,
    take: u32,
    offset: u64,
    extents: &[Extent],
) -> Result<Vec<(u64, Bytes)>, ReadError> {
    let mut chunks = Vec::with_capacity(extents.len());
    for extent in extents {
        let Extent {
            segment, position, ..
        } = extent;
        let mut buffer = vec![0; record::total_bytes(extent.len as usize)];
        segment.read(*position, &mut buffer)?;
        let corrupt = ReadError::Corrupt {
            segment: segment.number,
            position: *position,
        };
        let Ok(found) = record::decode(segment.number, &buffer) else {
            return Err(corrupt);
        };
        let due = record::Kind::Bytes {
            session,
            take,
            offset: extent.offset,
        };
        if found.kind != due || found.payload.len() != extent.len as usize {
            return Err(corrupt);
        }
        let buffer = Bytes::from(buffer);
        let skip = usize::try_from(offset.saturating_sub(extent.offset)).unwrap_or(usize::MAX);
        let payload =
            buffer.slice(record::HEAD_BYTES + skip..record::HEAD_BYTES + extent.len as usize);
        chunks.push((extent.offset.max(offset), payload));
    }
    Ok(chunks)
}
