//! The muxer itself: takes in, header and body out. Everything about time is decided in the stitch,
//! about clusters in the body, about the header in the layout.

use bytes::Bytes;

use super::body::Body;
use super::header::Layout;
use super::output::{Facts, Output, Place};
use super::{Chapter, Finished, GapPolicy, MuxError, Params, Stats};
use super::{RESERVED_BYTES_MAX, RESERVED_BYTES_MIN, chapters};
use crate::media::demux::TakeReader;
use crate::media::limits::{NS_PER_MS, TIMESTAMP_MAX_NS};
use crate::media::packet::{Event, Packet, Track};
use crate::media::stitch::{OpenTake, Silence, Stitch, Stitched, TakeStart, silence_packets};
use crate::media::timeline::Gaps;
use crate::media::webm::cluster::whole_ms;

/// Muxes the takes of a session into one file: WebM, or MP4 for codecs that only MP4 brings.
#[derive(Debug)]
pub struct Muxer {
    params: Params,
    stitch: Stitch,
    take: Take,
    output: Output,
    /// Bytes of the body that were taken.
    taken: u64,
    stats: Stats,
}

#[derive(Debug)]
enum Take {
    None,
    Open(OpenTake),
    /// Does not fit; waits for [`Muxer::detach_take`].
    Refused(OpenTake),
}

impl Muxer {
    /// A muxer without media.
    ///
    /// # Errors
    /// [`MuxError::ReservedBytes`] if the header length is out of range.
    pub fn new(params: Params) -> Result<Self, MuxError> {
        let bytes = params.reserved_bytes;
        if !(RESERVED_BYTES_MIN..=RESERVED_BYTES_MAX).contains(&bytes) {
            return Err(MuxError::ReservedBytes { bytes });
        }
        let gaps = match params.gap_policy {
            GapPolicy::Silence => Gaps::Fill,
            GapPolicy::Close => Gaps::Close,
        };
        Ok(Self {
            params,
            stitch: Stitch::new(gaps),
            take: Take::None,
            output: Output::WebM(Body::default()),
            taken: 0,
            stats: Stats::default(),
        })
    }

    /// Begins a take; one that is still open ends first.
    ///
    /// # Errors
    /// What the rest of the open take brings to light, as for [`Self::end_take`].
    pub fn begin_take(&mut self, start: TakeStart) -> Result<(), MuxError> {
        let ended = self.end_take();
        self.stitch.begin_take(start);
        self.take = Take::Open(OpenTake::new(start));
        self.stats.takes += 1;
        ended
    }

    /// Adds the next bytes of the take.
    ///
    /// # Errors
    /// [`MuxError`] when the take cannot go into this file. The take is refused then and what was
    /// muxed so far stays good.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), MuxError> {
        self.reader()?.push(bytes);
        self.drain()
    }

    /// Passes over `lost_bytes` of the take that will never come.
    ///
    /// # Errors
    /// As for [`Self::push`].
    pub fn hole(&mut self, lost_bytes: u64) -> Result<(), MuxError> {
        self.reader()?.skip(lost_bytes);
        self.stitch.hole();
        self.drain()
    }

    /// Ends the take. Nothing happens if none is open.
    ///
    /// # Errors
    /// As for [`Self::push`].
    pub fn end_take(&mut self) -> Result<(), MuxError> {
        if let Take::Open(take) = &mut self.take {
            take.reader.finish();
            self.drain()?;
        }
        self.take = Take::None;
        Ok(())
    }

    /// Takes out the take that was refused as [`MuxError::Incompatible`], in the middle of being
    /// read; the muxer of the next volume goes on with it in [`Self::adopt_take`].
    pub fn detach_take(&mut self) -> Option<OpenTake> {
        match std::mem::replace(&mut self.take, Take::None) {
            Take::Refused(take) if take.unplaced.is_some() => Some(take),
            Take::Refused(_) | Take::None => None,
            open @ Take::Open(_) => {
                self.take = open;
                None
            }
        }
    }

    /// Begins this file with a take that another one could not continue.
    ///
    /// # Errors
    /// As for [`Self::push`].
    pub fn adopt_take(&mut self, mut take: OpenTake) -> Result<(), MuxError> {
        let ended = self.end_take();
        self.stitch.begin_take(take.start);
        self.stats.takes += 1;
        let unplaced = take.unplaced.take();
        self.take = Take::Open(take);
        if let Some(tracks) = unplaced {
            self.checked(|muxer| muxer.tracks(tracks))?;
        }
        self.drain()?;
        ended
    }

    /// Takes the clusters that were closed since the last call. They follow the header and each
    /// other without gaps and never change.
    #[must_use]
    pub fn take_body(&mut self) -> Bytes {
        let bytes = self.output.take();
        self.taken += bytes.len() as u64;
        bytes
    }

    /// Length of all closed clusters so far, bytes.
    #[must_use]
    pub const fn body_len(&self) -> u64 {
        self.output.len()
    }

    /// Length of the recording so far, ms.
    #[must_use]
    pub fn duration_ms(&self) -> u64 {
        whole_ms(self.stitch.timeline().end_ns() + NS_PER_MS / 2)
    }

    /// Start of this file on the session's clock, ms.
    #[must_use]
    pub fn origin_ms(&self) -> u64 {
        self.stitch.timeline().origin_ms()
    }

    /// What happened so far.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// Whether any packet was written.
    #[must_use]
    pub const fn has_media(&self) -> bool {
        self.stitch.has_media()
    }

    /// Content-Type of the file, for the tracks known so far.
    #[must_use]
    pub fn content_type(&self) -> &'static str {
        self.output.content_type(&self.stitch.tracks_of_lanes())
    }

    /// A header for the body as it is: with it and any number of clusters the file plays, but
    /// cannot be seeked. `None` before the first packet.
    #[must_use]
    pub fn live_header(&self) -> Option<Bytes> {
        if !self.has_media() {
            return None;
        }
        let tracks = self.stitch.tracks_of_lanes();
        let layout = layout(&self.params, &self.stitch, &tracks);
        self.output.live_header(&layout).ok().map(Bytes::from)
    }

    /// Ends the file. The same calls before give the same bytes, whenever this is called.
    ///
    /// # Errors
    /// [`MuxError::NoMedia`] if no take held a packet, and what the rest of an open take brings to
    /// light, as for [`Self::end_take`].
    pub fn finish(mut self, markers: &[Chapter]) -> Result<Finished, MuxError> {
        self.end_take()?;
        if !self.has_media() {
            return Err(MuxError::NoMedia);
        }
        let tracks = self.stitch.tracks_of_lanes();
        let chapters = self.on_media_clock(markers);
        let facts = Facts {
            end_ns: self.stitch.timeline().end_ns(),
            chapters: &chapters,
        };
        let layout = layout(&self.params, &self.stitch, &tracks);
        let ending = self.output.finish(&layout, facts, self.cue_track())?;
        let stats = Stats {
            cue_every: ending.cue_every,
            ..self.stats
        };
        // What was taken before, and the tail with what was not.
        let taken = self.taken;
        Ok(Finished {
            total_bytes: ending.header.len() as u64 + taken + ending.tail.len() as u64,
            header: ending.header.into(),
            tail: ending.tail,
            duration_ms: self.duration_ms(),
            content_type: self.output.content_type(&tracks),
            chapters: ending.chapters,
            stats,
        })
    }

    fn reader(&mut self) -> Result<&mut TakeReader, MuxError> {
        match &mut self.take {
            Take::Open(take) => Ok(&mut take.reader),
            Take::None | Take::Refused(_) => Err(MuxError::NoTake),
        }
    }

    fn drain(&mut self) -> Result<(), MuxError> {
        loop {
            let Take::Open(take) = &mut self.take else {
                return Ok(());
            };
            let Some(event) = take.reader.poll() else {
                return Ok(());
            };
            self.checked(|muxer| muxer.handle(event))?;
        }
    }

    /// Runs a step; if it fails the take is refused.
    fn checked(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<(), MuxError>,
    ) -> Result<(), MuxError> {
        let result = step(self);
        if result.is_err() {
            self.take = match std::mem::replace(&mut self.take, Take::None) {
                Take::Open(take) => Take::Refused(take),
                other => other,
            };
        }
        result
    }

    fn handle(&mut self, event: Event) -> Result<(), MuxError> {
        match event {
            Event::Tracks(tracks) => self.tracks(tracks),
            Event::Packet(packet) => self.packet(&packet),
            Event::Lost { bytes, .. } => {
                self.stats.lost_bytes += bytes;
                self.stats.resyncs += 1;
                self.stitch.hole();
                Ok(())
            }
            Event::NestedHeader { .. } => {
                self.stitch.restart();
                Ok(())
            }
            Event::Failed(error) => Err(MuxError::Demux(error)),
            Event::ClusterStart { .. } => Ok(()),
        }
    }

    fn tracks(&mut self, tracks: Vec<Track>) -> Result<(), MuxError> {
        let refused = self.stitch.tracks(&tracks).err();
        if let Some(refused) = refused {
            if let Take::Open(take) = &mut self.take {
                take.unplaced = Some(tracks);
            }
            return Err(MuxError::Incompatible {
                codec_id: refused.codec_id,
            });
        }
        if !self.has_media() {
            self.output = Output::suiting(self.stitch.lanes(), self.params.reserved_bytes);
        }
        let tracks = self.stitch.tracks_of_lanes();
        self.output
            .check(&layout(&self.params, &self.stitch, &tracks))
    }

    fn packet(&mut self, packet: &Packet) -> Result<(), MuxError> {
        let Some(placed) = self.stitch.packet(packet) else {
            self.stats.dropped_packets += 1;
            return Ok(());
        };
        if placed.ts_ns > TIMESTAMP_MAX_NS {
            return Err(MuxError::TooLong);
        }
        if let Some(silence) = placed.silence {
            self.fill(placed.lane, silence)?;
        }
        let Stitched {
            lane,
            ts_ns,
            decode_ns,
            ..
        } = placed;
        let place = Place {
            lane,
            ts_ns,
            decode_ns,
        };
        self.output.write(self.stitch.lanes(), place, packet)?;
        self.stats.packets += 1;
        Ok(())
    }

    fn fill(&mut self, lane: usize, silence: Silence) -> Result<(), MuxError> {
        for (ts_ns, packet) in silence_packets(silence) {
            let place = Place {
                lane,
                ts_ns,
                decode_ns: ts_ns,
            };
            self.output.write(self.stitch.lanes(), place, &packet)?;
            self.stats.silence_packets += 1;
        }
        self.stats.silence_ms += whole_ms(silence.stretch.len_ns);
        Ok(())
    }

    /// The track that the index points into: picture if there is any.
    fn cue_track(&self) -> u8 {
        let lanes = self.stitch.lanes();
        let video = lanes.iter().find(|lane| lane.track.is_video());
        video
            .or_else(|| lanes.first())
            .map_or(1, |lane| lane.number)
    }

    /// The markers that fall into this file, at their media times, in order.
    fn on_media_clock(&self, markers: &[Chapter]) -> Vec<Chapter> {
        let timeline = self.stitch.timeline();
        let mut chapters: Vec<_> = markers
            .iter()
            .map(|marker| Chapter {
                at_ms: whole_ms(timeline.media_ns(marker.at_ms)),
                label: marker.label.clone(),
            })
            .collect();
        chapters.sort_by_key(|chapter| chapter.at_ms);
        chapters
    }
}

fn layout<'a>(params: &'a Params, stitch: &Stitch, tracks: &'a [&'a Track]) -> Layout<'a> {
    let origin_ms = i64::try_from(stitch.timeline().origin_ms()).unwrap_or(0);
    Layout {
        tracks,
        title: params.title.as_deref().map(chapters::clip),
        date_unix_ms: params.session_started_unix_ms.saturating_add(origin_ms),
        reserved: params.reserved_bytes,
    }
}
