//! What a spool still holds after a crash.
//!
//! Owns the reading of segments from front to back. Must never invent a byte: a record counts only if
//! its checksum holds, and bytes that were synced but are damaged are reported, not skipped silently.
//! Must never call a recording failed that lacks nothing: a damaged copy of an event costs nothing.

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
        record::{self, ALIGN_BYTES, Damaged, Kind, NoRecord, Record},
    },
};
use aircheck_runtime::failpoint::Failpoint;
use std::{
    collections::{HashMap, HashSet},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
};

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
    suspected: Option<Suspicion>,
}

/// Bytes are damaged that may be a session's.
struct Suspicion {
    /// The take it was sending, and how far; bytes that follow there prove that none are missing.
    take: u32,
    end: u64,
    reason: String,
}

pub(super) struct Recovery {
    pub(super) sessions: Vec<(Arc<Shared>, Found)>,
    pub(super) segments: Vec<Arc<Segment>>,
    /// How much of the last segment was read, and is synced.
    pub(super) last_bytes: u64,
    /// The first number that no kept file has had.
    pub(super) next_kept: u64,
}

#[derive(Default)]
struct Reading {
    sessions: HashMap<SessionId, (Arc<Shared>, Found)>,
    /// Where each session that has ended was seen: its records may come twice.
    done: HashSet<SessionId>,
    /// Sessions without a beginning: of those that are over it goes first.
    strangers: HashSet<SessionId>,
    /// A torn tail is read: what does not follow exactly was never acknowledged.
    torn: bool,
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
    let mut last_bytes = 0;
    for (at, segment) in segments.iter().enumerate() {
        let vouched = segments
            .get(at + 1)
            .map_or(Ok(0), |next| vouched(segment, next))?;
        last_bytes = reading.read(segment, &read_segment(segment, u64::MAX)?, vouched);
    }
    reading.own(journal, &kept)?;
    let mut sessions: Vec<_> = reading.sessions.into_values().collect();
    sessions.sort_by_key(|(shared, _)| shared.id);
    for (shared, found) in &mut sessions {
        if let Some(Suspicion { reason, .. }) = found.suspected.take() {
            found.manifest.recording_error.get_or_insert(reason);
        }
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
        last_bytes,
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
    /// Reads one segment; `vouched` is how much of it the next one's header says was synced. Returns how
    /// much of it is no torn tail.
    fn read(&mut self, segment: &Arc<Segment>, content: &[u8], vouched: u64) -> u64 {
        let mut position = 0;
        while position < content.len() {
            match record::decode(segment.number, &content[position..]) {
                Ok(found) => {
                    self.take(segment, position as u64, found.kind, found.payload);
                    position += found.total_bytes;
                }
                Err(NoRecord::End | NoRecord::Invalid) => {
                    match unreadable(segment.number, content, position, vouched) {
                        Unreadable::Damage(next) => {
                            self.damaged(segment, content, position, next);
                            position = next;
                        }
                        Unreadable::Torn(behind) => {
                            self.read_torn(segment, content, behind);
                            break;
                        }
                    }
                }
            }
        }
        position as u64
    }

    /// Records behind a torn place, from `next` on: only what follows exactly on what is known can have been
    /// acknowledged.
    fn read_torn<'a>(
        &mut self,
        segment: &Arc<Segment>,
        content: &'a [u8],
        mut next: Option<(usize, Record<'a>)>,
    ) {
        self.torn = true;
        while let Some((position, found)) = next {
            self.take(segment, position as u64, found.kind, found.payload);
            next = next_record(segment.number, content, position);
        }
        self.torn = false;
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
        match record::damaged(from as u64, &content[from..to]) {
            // Where both copies of an event are gone, the next one's number says so.
            Damaged::Frame | Damaged::Event => {}
            Damaged::Bytes { session } => self.lost(session, reason),
        }
    }

    /// Bytes are lost that name a session. Where there is no such session the name is damaged as well:
    /// then it may be any that is open, unless it goes on as if nothing had happened.
    fn lost(&mut self, named: SessionId, reason: String) {
        if let Some((_, found)) = self.sessions.get_mut(&named) {
            found.manifest.recording_error.get_or_insert(reason);
            return;
        }
        if self.done.contains(&named) || self.strangers.contains(&named) {
            return;
        }
        for (shared, found) in self.sessions.values_mut() {
            if matches!(found.manifest.stage, Stage::Live | Stage::Grace { .. }) {
                let last = found.manifest.takes.len().saturating_sub(1);
                let take = u32::try_from(last).unwrap_or(u32::MAX);
                found.suspected.get_or_insert_with(|| Suspicion {
                    take,
                    end: shared.index().end(take),
                    reason: reason.clone(),
                });
            }
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
            self.strangers.insert(session);
            return;
        };
        let offset = extent.offset;
        let mut index = shared.index();
        let end = index.end(take);
        let gaps = &mut found.manifest.gaps;
        let mut due = offset;
        while let Some(gap) = gaps
            .iter()
            .find(|gap| gap.take == take && gap.from < due && due <= gap.to)
        {
            due = gap.from;
        }
        if due > end && self.torn {
            return;
        }
        if due > end {
            let reason = format!("spool lost bytes {end}..{due} of take {take}");
            found.manifest.recording_error.get_or_insert(reason);
            gaps.push(Gap {
                take,
                from: end,
                to: due,
                cause: "spool".to_owned(),
            });
        }
        let suspected = &mut found.suspected;
        suspected.take_if(|at| at.take == take && at.end == offset);
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
                            suspected: None,
                        },
                    ),
                );
            }
            return;
        }
        let Some((shared, found)) = self.sessions.get_mut(&id) else {
            return;
        };
        if seq < found.events || (seq > found.events && self.torn) {
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

/// What there is where no record can be read.
enum Unreadable<'a> {
    /// Bytes that were synced once, up to here.
    Damage(usize),
    /// The end, or the torn end of a batch: never synced, or of the very last batch, which nothing vouches
    /// for. With the next readable record behind it.
    Torn(Option<(usize, Record<'a>)>),
}

fn unreadable(segment: u64, content: &[u8], position: usize, vouched: u64) -> Unreadable<'_> {
    let first = next_record(segment, content, position);
    let mut next = first;
    let mut synced = vouched;
    while synced <= position as u64
        && let Some((at, found)) = next
    {
        if let Kind::Commit { synced: below } = found.kind {
            synced = synced.max(below);
        }
        next = next_record(segment, content, at);
    }
    if synced <= position as u64 {
        return Unreadable::Torn(first);
    }
    // Where nothing readable follows, the next segment vouches for more than there is.
    Unreadable::Damage(match first {
        Some((at, _)) => at,
        None => usize::try_from(synced).map_or(content.len(), |end| end.min(content.len())),
    })
}

/// The next readable record behind `position`, and where it lies.
fn next_record(segment: u64, content: &[u8], position: usize) -> Option<(usize, Record<'_>)> {
    let mut behind = (position + ALIGN_BYTES..content.len()).step_by(ALIGN_BYTES);
    behind.find_map(|at| {
        let from = &content[at..];
        // Cheap look first: a record never begins with eight zero bytes.
        if from.starts_with(&[0; ALIGN_BYTES]) {
            return None;
        }
        Some((at, record::decode(segment, from).ok()?))
    })
}
