//! What a spool still holds after a crash.
//!
//! Owns the reading of segments from front to back. Must never invent a byte: a record counts only if
//! its checksum holds, and bytes that were synced but are damaged are reported, not skipped silently.

use super::{
    Error, SessionSpool, Shared,
    disk::{self, Segment},
    index::{Extent, Place},
};
use aircheck_core::{
    id::SessionId,
    recording::Gap,
    spool::{
        Event, Manifest, Stage,
        record::{self, ALIGN_BYTES, Kind, NoRecord},
    },
};
use aircheck_runtime::failpoint::Failpoint;
use std::{collections::HashMap, os::unix::fs::FileExt as _, path::Path, sync::Arc};

/// A session found on disk that is not done.
#[derive(Debug)]
pub struct Recovered {
    /// Its writing end.
    pub spool: SessionSpool,
    /// Its manifest, with the durable length of every take.
    pub manifest: Manifest,
}

pub(super) struct Found {
    pub(super) manifest: Manifest,
    pub(super) events: u64,
}

pub(super) struct Recovery {
    pub(super) sessions: Vec<(Arc<Shared>, Found)>,
    pub(super) segments: Vec<Arc<Segment>>,
    /// The first number that no kept file has had.
    pub(super) next_kept: u64,
}

#[derive(Default)]
struct Reading {
    sessions: HashMap<SessionId, (Arc<Shared>, Found)>,
    /// Where each session that has ended was seen: its records may come twice.
    done: std::collections::HashSet<SessionId>,
}

/// Reads the journal.
pub(super) fn recover(journal: &Path) -> Result<Recovery, Error> {
    let opened = disk::open_journal(journal)?;
    let segments: Vec<_> = opened.segments.into_iter().map(Arc::new).collect();
    let kept: Vec<_> = opened
        .kept
        .into_iter()
        .map(|(session, kept)| (session, Arc::new(kept)))
        .collect();
    Failpoint::RecoveryBegun.pass();
    let mut reading = Reading::default();
    // What was moved comes from the oldest segments, so it comes first.
    for (_, file) in &kept {
        reading.read(file, &read_segment(file, u64::MAX)?, 0);
    }
    // One segment in memory at a time: a spool may be larger than the machine.
    for (at, segment) in segments.iter().enumerate() {
        let vouched = segments
            .get(at + 1)
            .map_or(Ok(0), |next| vouched(segment, next))?;
        reading.read(segment, &read_segment(segment, u64::MAX)?, vouched);
    }
    reading.own(journal, &kept)?;
    let mut sessions: Vec<_> = reading.sessions.into_values().collect();
    sessions.sort_by_key(|(shared, _)| shared.id);
    for (shared, found) in &mut sessions {
        let index = shared.index();
        for (take, record) in (0..).zip(&mut found.manifest.takes) {
            record.bytes = index.end(take);
        }
        drop(index);
        shared.marks.send_modify(|marks| {
            marks.takes = found.manifest.takes.iter().map(|take| take.bytes).collect();
            marks.events = found.events;
        });
    }
    let last_kept = kept.last().map_or(0, |(_, file)| file.number & !disk::KEPT);
    Ok(Recovery {
        sessions,
        segments,
        next_kept: last_kept + 1,
    })
}

/// How much of a segment the next one's header says was synced.
fn vouched(segment: &Segment, next: &Segment) -> Result<u64, Error> {
    let head = read_segment(next, 256)?;
    Ok(
        match record::decode(next.number, &head).map(|found| found.kind) {
            Ok(Kind::Header {
                previous,
                previous_synced,
            }) if previous == segment.number => previous_synced,
            _ => 0,
        },
    )
}

/// The first bytes of a segment, or all of it.
fn read_segment(segment: &Segment, bytes_max: u64) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Io {
        doing: "read spool segment",
        source,
    };
    let length = segment
        .file
        .metadata()
        .map_err(failed)?
        .len()
        .min(bytes_max);
    let mut content = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    segment
        .file
        .read_exact_at(&mut content, 0)
        .map_err(failed)?;
    Ok(content)
}

impl Reading {
    /// Reads one segment; `vouched` is how much of it the next one's header says was synced.
    fn read(&mut self, segment: &Arc<Segment>, content: &[u8], vouched: u64) {
        let mut position = 0;
        while position < content.len() {
            match record::decode(segment.number, &content[position..]) {
                Ok(found) => {
                    self.take(segment, position as u64, found.kind, found.payload);
                    position += found.total_bytes;
                }
                Err(NoRecord::End | NoRecord::Invalid) => {
                    match damaged_until(segment.number, content, position, vouched) {
                        Some(next) => {
                            self.damaged(segment, content, position, next);
                            position = next;
                        }
                        None => return,
                    }
                }
            }
        }
    }

    /// Gives each session its kept files. Those of sessions that are over go first of all: the record of
    /// the end must outlive them.
    fn own(&self, journal: &Path, kept: &[(SessionId, Arc<Segment>)]) -> Result<(), Error> {
        let mut over = Vec::new();
        for (id, file) in kept {
            if let Some((shared, _)) = self.sessions.get(id) {
                shared.index().add_kept(Arc::clone(file));
            } else if self.done.contains(id) {
                over.push(file.path.clone());
            }
        }
        if over.is_empty() {
            return Ok(());
        }
        disk::remove_files(journal, &over).map_err(|source| Error::Io {
            doing: "remove kept files",
            source,
        })
    }

    /// Synced bytes are not what they were. Whoever had records there is told.
    fn damaged(&mut self, segment: &Arc<Segment>, content: &[u8], from: usize, to: usize) {
        tracing::error!(segment = segment.number, from, to, "spool is damaged");
        metrics::counter!("aircheck_spool_damaged_bytes_total").increment((to - from) as u64);
        let reason = format!(
            "spool segment {} is damaged at {from}..{to}",
            segment.number
        );
        let named = content
            .get(from + 16..from + 32)
            .and_then(|id| Some(SessionId(u128::from_le_bytes(id.try_into().ok()?).into())));
        if let Some((_, found)) = named.and_then(|id| self.sessions.get_mut(&id)) {
            found.manifest.recording_error.get_or_insert(reason);
        }
    }

    fn take(&mut self, segment: &Arc<Segment>, position: u64, kind: Kind, payload: &[u8]) {
        match kind {
            Kind::Header { .. } | Kind::Commit { .. } => {}
            Kind::Bytes {
                session,
                take,
                offset,
            } => {
                let place = Place::new(segment, position, payload.len());
                self.bytes(session, take, Extent { offset, place });
            }
            Kind::Event { session, seq } => {
                let place = Place::new(segment, position, payload.len());
                self.event(place, session, seq, payload);
            }
        }
    }

    fn bytes(&mut self, session: SessionId, take: u32, extent: Extent) {
        let Some((shared, found)) = self.sessions.get_mut(&session) else {
            return;
        };
        let offset = extent.offset;
        let mut index = shared.index();
        let end = index.end(take);
        let known = found
            .manifest
            .gaps
            .iter()
            .any(|gap| gap.take == take && gap.to == offset);
        if offset > end && !known {
            let reason = format!("spool lost bytes {end}..{offset} of take {take}");
            found.manifest.recording_error.get_or_insert(reason);
            let cause = "spool".to_owned();
            found.manifest.gaps.push(Gap {
                take,
                from: end,
                to: offset,
                cause,
            });
        }
        index.add_bytes(take, extent);
    }

    fn event(&mut self, place: Place, id: SessionId, seq: u64, json: &[u8]) {
        let event = match serde_json::from_slice::<Event>(json) {
            Ok(event) => event,
            Err(error) => {
                tracing::error!(%error, session = %id, "read session event");
                return;
            }
        };
        if let Event::Opened { manifest } = event {
            if seq == 0 && !self.done.contains(&id) && !self.sessions.contains_key(&id) {
                let shared = Arc::new(Shared::new(id));
                shared.index().add_event(place);
                self.sessions.insert(
                    id,
                    (
                        shared,
                        Found {
                            manifest: *manifest,
                            events: 1,
                        },
                    ),
                );
            }
            return;
        }
        let Some((shared, found)) = self.sessions.get_mut(&id) else {
            return;
        };
        if seq < found.events {
            return;
        }
        if seq > found.events {
            found
                .manifest
                .recording_error
                .get_or_insert_with(|| "spool lost events".to_owned());
        }
        found.events = seq + 1;
        shared.index().add_event(place);
        if let Err(error) = found.manifest.apply(event) {
            tracing::error!(%error, session = %id, "session event out of order");
        }
        if matches!(found.manifest.stage, Stage::Done { .. }) {
            self.done.insert(id);
            shared.index().clear();
            self.sessions.remove(&id);
        }
    }
}

/// Whether what can't be read at `position` was synced once: then the next readable record after it.
/// Otherwise it is the torn end of a batch that nobody was told about, and reading ends.
fn damaged_until(segment: u64, content: &[u8], position: usize, vouched: u64) -> Option<usize> {
    let mut next = position;
    let mut resync = None;
    let mut synced = vouched;
    while next + ALIGN_BYTES < content.len() {
        next += ALIGN_BYTES;
        // Cheap look first: a record never begins with eight zero bytes.
        if content[next..].starts_with(&[0; ALIGN_BYTES]) {
            continue;
        }
        let Ok(found) = record::decode(segment, &content[next..]) else {
            continue;
        };
        resync.get_or_insert(next);
        if let Kind::Commit { synced: below } = found.kind {
            synced = synced.max(below);
        }
        if synced > position as u64 {
            return resync;
        }
    }
    // Nothing readable follows, but the next segment vouches for more than there is.
    (synced > position as u64).then_some(content.len())
}
