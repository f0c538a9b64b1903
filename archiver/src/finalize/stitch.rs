//! The stitched archive while it grows: takes in, parts of files out.
//!
//! Owns the mapping from offsets in takes to bytes of parts. Pure: the same manifest and bytes give
//! the same parts, however they arrive, so that a replay need not send anything twice. Must never
//! hold more than two parts of a file that is still written.

use super::{
    cut::{Cut, Part},
    source::{Piece, holes},
};
use crate::store::Crc64;
use aircheck_core::{
    media::{
        archive::{
            Chapter, Finished, GapPolicy, MUX_VERSION, MuxError, Muxer, Params, RESERVED_BYTES,
            TakeStart, Volumes,
        },
        probe::{PROBE_BYTES_MAX, Probe, probe},
    },
    spool::{self, Manifest},
};
use bytes::Bytes;
use std::collections::VecDeque;
use thiserror::Error;

/// Most files of one session; each holds up to two parts in memory until the end.
const FILES_MAX: usize = 8;

/// Why a session can't be stitched. Its takes are archived one by one, as they came.
#[derive(Debug, Error)]
pub(super) enum Unfit {
    #[error("take {take} is of no known container")]
    Container { take: u32 },
    #[error("the takes would need more than {FILES_MAX} files")]
    TooManyFiles,
    #[error(transparent)]
    Mux(#[from] MuxError),
}

/// Everything besides the takes that decides the bytes of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recipe {
    params: Params,
    pub(super) part_bytes: u64,
}

impl Recipe {
    /// For a session, whatever of it is known yet.
    pub(super) fn new(manifest: &Manifest, part_bytes: u64) -> Self {
        let started = i64::try_from(manifest.started_unix_ms).unwrap_or(i64::MAX);
        let mut params = Params::new(started);
        params.title.clone_from(&manifest.title);
        params.gap_policy = match manifest.gap_policy {
            spool::GapPolicy::Silence => GapPolicy::Silence,
            spool::GapPolicy::Close => GapPolicy::Close,
        };
        Self { params, part_bytes }
    }

    /// The version of the rules, and the length of the header.
    pub(super) const fn rules() -> (u32, u64) {
        (MUX_VERSION, RESERVED_BYTES as u64)
    }
}

/// What was muxed of one take.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Muxed {
    wall_ms: u64,
    /// Offset after the last byte.
    position: u64,
    /// Passed over so far, sorted.
    holes: Vec<(u64, u64)>,
    crc: Crc64,
    phase: Phase,
}

/// Where a take is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Its first bytes don't tell the container yet.
    Probing(Vec<u8>),
    Open,
    Ended,
}

/// Once `body_bytes` of the first file are safe, so is everything before this place.
#[derive(Clone, Copy, Debug)]
struct Mark {
    body_bytes: u64,
    place: Place,
}

/// A place in the session's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) take: u32,
    pub(super) offset: u64,
}

/// A file of the archive.
#[derive(Debug)]
struct File {
    cut: Cut,
    /// Only of a file that will not grow any more.
    full: Option<Muxer>,
}

/// The end of a file.
#[derive(Debug)]
pub(super) struct Ending {
    /// Index of the file.
    pub(super) file: usize,
    /// Header and the body's first bytes: the whole file, or part 1.
    pub(super) first: Bytes,
    /// The parts that follow and were not dropped yet.
    pub(super) rest: VecDeque<Part>,
    pub(super) finished: Finished,
}

/// The takes of a session on their way into files.
#[derive(Debug)]
pub(super) struct Stitcher {
    recipe: Recipe,
    volumes: Volumes,
    files: Vec<File>,
    takes: Vec<Muxed>,
    marks: VecDeque<Mark>,
    /// Where the input was when the first file last grew, and the time before that.
    grew_at: [Place; 2],
    grown_bytes: u64,
}

impl Stitcher {
    pub(super) fn new(recipe: Recipe) -> Result<Self, Unfit> {
        Ok(Self {
            volumes: Volumes::new(recipe.params.clone())?,
            files: vec![File::new(&recipe)],
            recipe,
            takes: Vec::new(),
            marks: VecDeque::new(),
            grew_at: [Place::default(); 2],
            grown_bytes: 0,
        })
    }

    /// The next byte that is wanted: of the take that was begun last, or of the one after it.
    pub(super) fn place(&self) -> Place {
        let begun = u32::try_from(self.takes.len()).unwrap_or(u32::MAX);
        match self.takes.last() {
            Some(take) if take.phase != Phase::Ended => Place {
                take: begun - 1,
                offset: take.position,
            },
            _ => Place {
                take: begun,
                offset: 0,
            },
        }
    }

    /// Whether everything so far came from the session as it was sealed.
    pub(super) fn agrees(&self, manifest: &Manifest) -> bool {
        self.recipe == Recipe::new(manifest, self.recipe.part_bytes)
            && (0..).zip(&self.takes).all(|(index, take)| {
                let Some(record) = manifest.takes.get(index as usize) else {
                    return false;
                };
                let mut declared = holes(manifest, index);
                declared.retain(|&(from, _)| from < take.position);
                take.wall_ms == wall_ms(manifest, index)
                    && take.holes == declared
                    && (take.phase != Phase::Ended || take.position == record.bytes)
                    && take.position <= record.bytes
            })
    }

    /// Begins the take that [`Self::place`] names, unless it was begun.
    pub(super) fn begin(&mut self, manifest: &Manifest) {
        let place = self.place();
        if place.take as usize == self.takes.len() {
            self.takes.push(Muxed {
                wall_ms: wall_ms(manifest, place.take),
                position: 0,
                holes: Vec::new(),
                crc: Crc64::EMPTY,
                phase: Phase::Probing(Vec::new()),
            });
        }
    }

    /// Adds what comes next of the open take.
    pub(super) fn add(&mut self, piece: &Piece) -> Result<(), Unfit> {
        let place = self.place();
        let Some(take) = self.takes.last_mut() else {
            return Err(MuxError::NoTake.into());
        };
        match (piece, &mut take.phase) {
            (_, Phase::Ended) => return Err(MuxError::NoTake.into()),
            (Piece::Hole(_), Phase::Probing(_)) => {
                return Err(Unfit::Container { take: place.take });
            }
            (Piece::Hole(lost), Phase::Open) => {
                take.holes.push((take.position, take.position + lost));
                take.position += lost;
                self.volumes.hole(*lost)?;
            }
            (Piece::Bytes(bytes), phase) => {
                take.crc = take.crc.then(Crc64::of(bytes), bytes.len() as u64);
                take.position += bytes.len() as u64;
                match phase {
                    Phase::Probing(prefix) => {
                        prefix.extend_from_slice(bytes);
                        self.open(place.take)?;
                    }
                    Phase::Open | Phase::Ended => self.volumes.push(bytes)?,
                }
            }
        }
        self.collect()
    }

    /// Ends the take that is open. One that was too short to be told what it is held no packet.
    pub(super) fn end(&mut self) -> Result<(), Unfit> {
        if let Some(take) = self.takes.last_mut() {
            let was = std::mem::replace(&mut take.phase, Phase::Ended);
            if was == Phase::Open {
                self.volumes.end_take()?;
            }
        }
        self.collect()
    }

    /// The oldest part after the first of its file that was not dropped yet.
    pub(super) fn part(&self) -> Option<(usize, &Part)> {
        let mut files = self.files.iter().enumerate();
        files.find_map(|(index, file)| Some((index, file.cut.front()?)))
    }

    /// Forgets a part that is safe.
    pub(super) fn drop_part(&mut self, file: usize) {
        if let Some(file) = self.files.get_mut(file) {
            file.cut.drop_front();
        }
    }

    /// Part 1 of a file whose end is unknown, once it is full.
    pub(super) fn live_first(&mut self, file: usize) -> Option<Bytes> {
        let last = file + 1 == self.files.len();
        let File { cut, full } = self.files.get(file)?;
        let muxer = match full {
            Some(muxer) => muxer,
            None if last => self.volumes.current(),
            None => return None,
        };
        if !cut.is_first_full() {
            return None;
        }
        Some(cut.first_after(&muxer.live_header()?))
    }

    /// Content-Type of a file, for the tracks known so far.
    pub(super) fn content_type(&mut self, file: usize) -> &'static str {
        match self.files.get(file).and_then(|file| file.full.as_ref()) {
            Some(muxer) => muxer.content_type(),
            None => self.volumes.current().content_type(),
        }
    }

    /// Everything before this place lies in the first `file_bytes` of the first file; only ever
    /// rises. It may be less than what is true.
    pub(super) fn safe_below(&mut self, file_bytes: u64) -> Option<Place> {
        let body_bytes = file_bytes.saturating_sub(RESERVED_BYTES as u64);
        let mut safe = None;
        while let Some(mark) = self.marks.front()
            && mark.body_bytes <= body_bytes
        {
            safe = Some(mark.place);
            self.marks.pop_front();
        }
        safe
    }

    /// How many files were begun.
    pub(super) fn files(&self) -> usize {
        self.files.len()
    }

    /// Parts of the first file that were dropped, as safe.
    pub(super) fn dropped_parts(&self) -> u64 {
        self.files.first().map_or(0, |file| file.cut.dropped())
    }

    /// Raises the offsets of takes to what lies before this place.
    pub(super) fn raise(&self, offsets: &mut Vec<u64>, place: Place) {
        let take = place.take as usize;
        if offsets.len() <= take {
            offsets.resize(take + 1, 0);
        }
        let before = self.takes.iter().map(|take| take.position).take(take);
        let ends = before.chain([place.offset]);
        for (offset, end) in offsets.iter_mut().zip(ends) {
            *offset = end.max(*offset);
        }
    }

    /// Ends all files, but for those without media.
    pub(super) fn finish(mut self, manifest: &Manifest) -> Result<Sealed, Unfit> {
        self.end()?;
        let last = self.volumes.into_last();
        let takes = self.takes.iter().map(|take| take.crc).collect();
        let muxers: Vec<_> = self
            .files
            .into_iter()
            .map(|file| (file.cut, file.full))
            .collect();
        let mut files = Vec::new();
        let mut last = Some(last);
        let mut open: VecDeque<(usize, Cut, Muxer)> = VecDeque::new();
        for (index, (cut, full)) in muxers.into_iter().enumerate() {
            if let Some(muxer) = full.or_else(|| last.take()) {
                open.push_back((index, cut, muxer));
            }
        }
        while let Some((file, cut, muxer)) = open.pop_front() {
            let until = open.front().map(|(_, _, next)| next.origin_ms());
            if muxer.has_media() {
                let from = if file == 0 { 0 } else { muxer.origin_ms() };
                let finished = muxer.finish(&chapters(manifest, from, until))?;
                files.push(cut.end(file, finished));
            }
        }
        if files.is_empty() {
            return Err(MuxError::NoMedia.into());
        }
        Ok(Sealed { files, takes })
    }

    /// Gives the muxer a take whose first bytes are there, once they say what it is.
    fn open(&mut self, index: u32) -> Result<(), Unfit> {
        let Some(take) = self.takes.last_mut() else {
            return Ok(());
        };
        let Phase::Probing(prefix) = &mut take.phase else {
            return Ok(());
        };
        let container = match probe(&prefix[..prefix.len().min(PROBE_BYTES_MAX)]) {
            Probe::NeedMore => return Ok(()),
            Probe::Unsupported => return Err(Unfit::Container { take: index }),
            Probe::Found(container) => container,
        };
        let prefix = std::mem::take(prefix);
        take.phase = Phase::Open;
        let wall_ms = take.wall_ms;
        self.volumes.begin_take(TakeStart { wall_ms, container })?;
        self.volumes.push(&prefix)?;
        Ok(())
    }

    /// Moves what the muxer has closed into parts.
    fn collect(&mut self) -> Result<(), Unfit> {
        while let Some(mut full) = self.volumes.take_full() {
            if self.files.len() >= FILES_MAX {
                return Err(Unfit::TooManyFiles);
            }
            if let Some(file) = self.files.last_mut() {
                file.cut.append(full.take_body());
                file.full = Some(full);
            }
            self.files.push(File::new(&self.recipe));
        }
        let body = self.volumes.current().take_body();
        if let Some(file) = self.files.last_mut() {
            file.cut.append(body);
        }
        self.mark();
        Ok(())
    }

    /// Notes how far the input was. A packet that was begun before the file grew the time before
    /// last was read whole before it grew last, and lies in what is closed now.
    fn mark(&mut self) {
        let body_bytes = self.volumes.current().body_len();
        if self.files.len() > 1 || body_bytes <= self.grown_bytes {
            return;
        }
        self.grown_bytes = body_bytes;
        let [latest, older] = self.grew_at;
        self.marks.push_back(Mark {
            body_bytes,
            place: older,
        });
        self.grew_at = [self.place(), latest];
    }
}

/// All files of a session.
#[derive(Debug)]
pub(super) struct Sealed {
    /// At least one.
    pub(super) files: Vec<Ending>,
    /// Checksum of the bytes of each take.
    pub(super) takes: Vec<Crc64>,
}

impl File {
    fn new(recipe: &Recipe) -> Self {
        Self {
            cut: Cut::new(recipe.part_bytes, RESERVED_BYTES as u64),
            full: None,
        }
    }
}

/// Arrival of a take, ms since the session's start.
fn wall_ms(manifest: &Manifest, take: u32) -> u64 {
    let record = manifest.takes.get(take as usize);
    let started = record.map_or(0, |record| record.started_unix_ms);
    started.saturating_sub(manifest.started_unix_ms)
}

/// The chapters of a file that begins `from` ms after the session's start, and whose successor
/// begins at `until`.
fn chapters(manifest: &Manifest, from: u64, until: Option<u64>) -> Vec<Chapter> {
    manifest
        .markers
        .iter()
        .filter(|marker| matches!(marker.kind.as_str(), "track" | "chapter"))
        .filter(|marker| marker.at_ms >= from && until.is_none_or(|until| marker.at_ms < until))
        .map(|marker| Chapter {
            at_ms: marker.at_ms,
            label: marker.label.clone(),
        })
        .collect()
}
