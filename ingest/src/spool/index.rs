//! Where a session's durable bytes lie.
//!
//! Owns the map from take and offset to records in segments. An extent keeps its segment alive; the
//! writer removes segments that no extent and no needed event refers to. Must keep records in the order
//! of their files: kept files first, then segments.

use super::disk::Segment;
use aircheck_core::{
    id::SessionId,
    spool::record::{self, Kind},
};
use bytes::Bytes;
use std::{io, sync::Arc};
use thiserror::Error;

/// Where a record lies.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) segment: Arc<Segment>,
    /// Of the record's head in the segment.
    pub(super) position: u64,
    /// Of its payload.
    pub(super) len: u32,
}

impl Place {
    pub(super) fn new(segment: &Arc<Segment>, position: u64, len: usize) -> Self {
        Self {
            segment: Arc::clone(segment),
            position,
            // Records have at most PAYLOAD_MAX.
            len: u32::try_from(len).unwrap_or(u32::MAX),
        }
    }

    /// Bytes that the record takes up.
    pub(super) fn total_bytes(&self) -> u64 {
        record::total_bytes(self.len as usize) as u64
    }
}

/// One record of media bytes.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    pub(super) offset: u64,
    pub(super) place: Place,
}

impl Extent {
    fn end(&self) -> u64 {
        self.offset + u64::from(self.place.len)
    }
}

/// Everything of one session that is on disk.
#[derive(Debug, Default)]
pub(super) struct SessionIndex {
    takes: Vec<Vec<Extent>>,
    events: Vec<Place>,
    /// Files of its own, whether or not a place refers to them.
    kept: Vec<Arc<Segment>>,
    /// Nothing is added any more.
    over: bool,
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
        if fresh && !self.over {
            extent.place.segment.need(extent.place.total_bytes());
            extents.push(extent);
        }
        fresh
    }

    pub(super) fn add_event(&mut self, place: Place) {
        if self.over {
            return;
        }
        place.segment.need(place.total_bytes());
        self.events.push(place);
    }

    pub(super) fn add_kept(&mut self, kept: Arc<Segment>) {
        self.kept.push(kept);
    }

    pub(super) fn drop_kept(&mut self, kept: &Arc<Segment>) {
        self.kept.retain(|known| !Arc::ptr_eq(known, kept));
    }

    /// Files of its own, oldest first.
    pub(super) fn kept(&self) -> &[Arc<Segment>] {
        &self.kept
    }

    /// Lets go of every segment, whoever else still holds the index, and whatever is still written.
    pub(super) fn clear(&mut self) {
        let extents = self.takes.iter().flatten().map(|extent| &extent.place);
        for place in extents.chain(&self.events) {
            place.segment.need_not(place.total_bytes());
        }
        *self = Self {
            over: true,
            ..Self::default()
        };
    }

    /// Its records in a segment, in the order they were written. Only kept files may come before it.
    pub(super) fn within(&self, segment: &Arc<Segment>) -> Vec<Place> {
        let mut found: Vec<_> = within(&self.events, |place| place, segment).to_vec();
        for take in &self.takes {
            let extents = within(take, |extent| &extent.place, segment);
            found.extend(extents.iter().map(|extent| extent.place.clone()));
        }
        found.sort_by_key(|place| place.position);
        found
    }

    /// Its records in `from` lie elsewhere now: by the old position, in rising order.
    pub(super) fn moved(&mut self, from: &Arc<Segment>, to: &[(u64, Place)]) {
        let takes = self.takes.iter_mut().flatten();
        let places = takes
            .map(|extent| &mut extent.place)
            .chain(&mut self.events);
        for place in places.filter(|place| Arc::ptr_eq(&place.segment, from)) {
            if let Ok(at) = to.binary_search_by_key(&place.position, |(old, _)| *old) {
                place.segment.need_not(place.total_bytes());
                *place = to[at].1.clone();
                place.segment.need(place.total_bytes());
            }
        }
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
            left = left.saturating_sub(extent.place.len as usize);
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
        let due = Kind::Bytes {
            session,
            take,
            offset: extent.offset,
        };
        let len = extent.place.len as usize;
        let (kind, buffer) = read_record(&extent.place)?;
        if kind != due {
            return Err(corrupt(&extent.place));
        }
        let buffer = Bytes::from(buffer);
        let skip = usize::try_from(offset.saturating_sub(extent.offset)).unwrap_or(usize::MAX);
        let payload = buffer.slice(record::HEAD_BYTES + skip..record::HEAD_BYTES + len);
        chunks.push((extent.offset.max(offset), payload));
    }
    Ok(chunks)
}

/// Reads a record back, checked against its checksum: what it says, and the whole of it.
pub(super) fn read_record(place: &Place) -> Result<(Kind, Vec<u8>), ReadError> {
    let mut buffer = vec![0; record::total_bytes(place.len as usize)];
    place.segment.read(place.position, &mut buffer)?;
    match record::decode(place.segment.number, &buffer) {
        Ok(found) if found.payload.len() == place.len as usize => Ok((found.kind, buffer)),
        Ok(_) | Err(_) => Err(corrupt(place)),
    }
}

fn corrupt(place: &Place) -> ReadError {
    ReadError::Corrupt {
        segment: place.segment.number,
        position: place.position,
    }
}

/// The part of a list of records, ordered by the files they lie in, that lies in `segment`.
fn within<'a, T>(
    records: &'a [T],
    place: impl Fn(&T) -> &Place,
    segment: &Arc<Segment>,
) -> &'a [T] {
    let rank = |record: &T| place(record).segment.rank();
    let from = records.partition_point(|record| rank(record) < segment.number);
    let to = records.partition_point(|record| rank(record) <= segment.number);
    &records[from..to]
}
