//! Which track of a take goes into which track of the output, and when. Shared by the archive and
//! the live stream; it writes nothing itself.

use super::demux::TakeReader;
use super::opus::{self, OpusHead};
use super::packet::{CODEC_VP8, CODEC_VP9, Packet, Track, TrackKind};
use super::probe::Container;
use super::timeline::{Fill, Gaps, LaneKind, Timeline};

/// Where and when a take begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakeStart {
    /// Arrival of the take's first byte, ms since the session's start.
    pub wall_ms: u64,
    /// Its container, from [`probe`](super::probe::probe).
    pub container: Container,
}

/// A take in the middle of being read. Opaque: it is only moved from a full volume to the next.
#[derive(Debug)]
pub struct OpenTake {
    pub(crate) reader: TakeReader,
    pub(crate) start: TakeStart,
    /// Tracks that the output could not take; the next output begins with them.
    pub(crate) unplaced: Option<Vec<Track>>,
}

impl OpenTake {
    pub(crate) fn new(start: TakeStart) -> Self {
        Self {
            reader: TakeReader::new(start.container),
            start,
            unplaced: None,
        }
    }
}

/// The tracks of the output and the clock they share.
#[derive(Debug)]
pub(crate) struct Stitch {
    gaps: Gaps,
    lanes: Vec<Lane>,
    timeline: Timeline,
    /// Track number in the take, index of the lane.
    map: Vec<(u64, usize)>,
    /// Start of the take whose tracks are not known yet.
    start: Option<TakeStart>,
    has_media: bool,
}

/// A track of the output.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) track: Track,
    /// Track number in the output.
    pub(crate) number: u8,
    /// Whether the last real packet was stereo; made-up silence is the same.
    stereo: bool,
}

/// A packet with its place in the output.
#[derive(Debug)]
pub(crate) struct Stitched {
    pub(crate) lane: usize,
    /// When it is shown or heard, nanoseconds.
    pub(crate) ts_ns: i64,
    /// Its place in decoding order, nanoseconds.
    pub(crate) decode_ns: i64,
    pub(crate) silence: Option<Silence>,
}

/// Silence to write before a packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Silence {
    pub(crate) stretch: Fill,
    pub(crate) stereo: bool,
}

/// The output has no track for one of the take's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Incompatible {
    pub(crate) codec_id: String,
}

impl Stitch {
    pub(crate) fn new(gaps: Gaps) -> Self {
        Self {
            gaps,
            lanes: Vec::new(),
            timeline: Timeline::new(gaps, std::iter::empty()),
            map: Vec::new(),
            start: None,
            has_media: false,
        }
    }

    /// The tracks of the output; empty before the first take's are known.
    pub(crate) fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// The declarations of those tracks.
    pub(crate) fn tracks_of_lanes(&self) -> Vec<&Track> {
        self.lanes.iter().map(|lane| &lane.track).collect()
    }

    pub(crate) const fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Whether any packet was placed; from then on the tracks are fixed.
    pub(crate) const fn has_media(&self) -> bool {
        self.has_media
    }

    pub(crate) fn has_video(&self) -> bool {
        self.lanes.iter().any(|lane| lane.track.is_video())
    }

    pub(crate) fn begin_take(&mut self, start: TakeStart) {
        self.map.clear();
        self.start = Some(start);
    }

    /// The encoder was restarted inside the take: what follows continues where it stopped.
    pub(crate) fn restart(&mut self) {
        self.map.clear();
        self.timeline.begin_take(None);
    }

    pub(crate) fn hole(&mut self) {
        self.timeline.hole();
    }

    /// Finds a lane for each track of the take.
    pub(crate) fn tracks(&mut self, tracks: &[Track]) -> Result<(), Incompatible> {
        if !self.has_media {
            self.adopt(tracks);
        }
        let mut map: Vec<(u64, usize)> = Vec::with_capacity(tracks.len());
        for track in tracks.iter().filter(|track| is_media(track)) {
            let lane = self.lanes.iter().enumerate().position(|(index, lane)| {
                fits(&lane.track, track) && map.iter().all(|(_, taken)| *taken != index)
            });
            match lane {
                Some(lane) => map.push((track.number, lane)),
                None => {
                    return Err(Incompatible {
                        codec_id: track.codec_id.clone(),
                    });
                }
            }
        }
        self.map = map;
        if let Some(start) = self.start.take() {
            self.timeline.begin_take(Some(start.wall_ms));
        }
        Ok(())
    }

    fn adopt(&mut self, tracks: &[Track]) {
        self.lanes = tracks
            .iter()
            .filter(|track| is_media(track))
            .map(|track| Lane {
                number: u8::try_from(track.number).unwrap_or(u8::MAX) & 0x7F,
                stereo: matches!(track.kind, TrackKind::Audio { channels: 2.., .. }),
                track: track.clone(),
            })
            .collect();
        self.timeline = Timeline::new(self.gaps, self.lanes.iter().map(lane_kind));
    }

    /// Places a packet; `None` if it belongs to no lane or cannot be used.
    pub(crate) fn packet(&mut self, packet: &Packet) -> Option<Stitched> {
        let (_, lane) = *self
            .map
            .iter()
            .find(|(number, _)| *number == packet.track)?;
        let placed = self.timeline.place(lane, packet)?;
        self.has_media = true;
        let output = &mut self.lanes[lane];
        let stereo = output.stereo;
        if output.track.is_opus() {
            output.stereo = opus::is_stereo(&packet.payload);
        }
        let silence = placed.fill.map(|stretch| Silence { stretch, stereo });
        Some(Stitched {
            lane,
            ts_ns: placed.ts_ns.saturating_add(packet.composition_ns),
            decode_ns: placed.ts_ns,
            silence,
        })
    }
}

fn is_media(track: &Track) -> bool {
    track.is_audio() || track.is_video()
}

fn lane_kind(lane: &Lane) -> LaneKind {
    match lane.track.kind {
        TrackKind::Audio { .. } if lane.track.is_opus() => LaneKind::Opus,
        TrackKind::Audio { .. } => LaneKind::Audio,
        TrackKind::Video { .. } | TrackKind::Other => LaneKind::Video,
    }
}

/// Whether packets of `new` decode in a track declared as `old`.
fn fits(old: &Track, new: &Track) -> bool {
    if old.codec_id != new.codec_id {
        return false;
    }
    match (old.kind, new.kind) {
        // Opus says mono or stereo in each packet; only other channel layouts must agree.
        (TrackKind::Audio { .. }, TrackKind::Audio { .. }) if old.is_opus() => {
            old.codec_private == new.codec_private || (is_simple_opus(old) && is_simple_opus(new))
        }
        (TrackKind::Video { .. }, TrackKind::Video { .. })
            if [CODEC_VP8, CODEC_VP9].contains(&old.codec_id.as_str()) =>
        {
            old.kind == new.kind
        }
        (TrackKind::Audio { .. }, TrackKind::Audio { .. })
        | (TrackKind::Video { .. }, TrackKind::Video { .. }) => {
            old.kind == new.kind && old.codec_private == new.codec_private
        }
        _ => false,
    }
}

fn is_simple_opus(track: &Track) -> bool {
    OpusHead::parse(&track.codec_private).is_some_and(|head| head.mapping_family == 0)
}

/// Cuts a stretch of silence into packets, long ones first.
pub(crate) fn silence_packets(silence: Silence) -> impl Iterator<Item = (i64, Packet)> {
    let Fill { from_ns, len_ns } = silence.stretch;
    let end_ns = from_ns + len_ns;
    let mut at_ns = from_ns;
    std::iter::from_fn(move || {
        let left = end_ns - at_ns;
        let (payload, len) = if left >= opus::SILENCE_LONG_NS {
            (opus::silence_long(silence.stereo), opus::SILENCE_LONG_NS)
        } else if left >= opus::SILENCE_SHORT_NS {
            (opus::silence_short(silence.stereo), opus::SILENCE_SHORT_NS)
        } else {
            return None;
        };
        let ts_ns = at_ns;
        at_ns += len;
        let packet = Packet {
            track: 0,
            ts_ns,
            composition_ns: 0,
            duration_ns: Some(len.unsigned_abs()),
            keyframe: true,
            block_flags: 0,
            payload,
            group: None,
        };
        Some((ts_ns, packet))
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::media::packet::{CODEC_H264, CODEC_OPUS, Entry};

    fn opus_track(number: u64, channels: u8, pre_skip: u16) -> Track {
        let head = OpusHead {
            channels,
            pre_skip,
            input_rate: 48_000,
            gain: 0,
            mapping_family: 0,
        };
        Track {
            number,
            kind: TrackKind::Audio {
                channels: channels.into(),
                sample_rate: 48_000,
            },
            codec_id: CODEC_OPUS.to_owned(),
            codec_private: head.to_bytes(),
            codec_delay_ns: 0,
            seek_pre_roll_ns: 0,
            entry: Entry::None,
        }
    }

    fn video_track(number: u64, codec_id: &str, width: u32, private: &'static [u8]) -> Track {
        Track {
            number,
            kind: TrackKind::Video { width, height: 480 },
            codec_id: codec_id.to_owned(),
            codec_private: Bytes::from_static(private),
            codec_delay_ns: 0,
            seek_pre_roll_ns: 0,
            entry: Entry::None,
        }
    }

    fn sound(track: u64, ts_ms: i64) -> Packet {
        Packet {
            track,
            ts_ns: ts_ms * 1_000_000,
            composition_ns: 0,
            duration_ns: Some(60_000_000),
            keyframe: true,
            block_flags: 0,
            payload: Bytes::from_static(&[0xFB, 3]),
            group: None,
        }
    }

    fn start(wall_ms: u64) -> TakeStart {
        TakeStart {
            wall_ms,
            container: Container::WebM,
        }
    }

    #[test]
    fn another_browsers_opus_goes_into_the_same_track() {
        let mut stitch = Stitch::new(Gaps::Fill);
        stitch.begin_take(start(0));
        assert_eq!(stitch.tracks(&[opus_track(1, 2, 0)]), Ok(()));
        assert!(stitch.packet(&sound(1, 0)).is_some());
        stitch.begin_take(start(10_000));
        assert_eq!(stitch.tracks(&[opus_track(2, 1, 312)]), Ok(()));
        let placed = stitch.packet(&sound(2, 6)).expect("mapped");
        assert_eq!((placed.lane, placed.ts_ns), (0, 10_000_000_000));
        let silence = placed.silence.expect("the gap is filled");
        assert!(!silence.stereo, "the last real packet was mono");
        assert!(
            stitch.packet(&sound(1, 6)).is_none(),
            "track 1 is not of this take"
        );
    }

    #[test]
    fn tracks_may_still_change_while_nothing_was_placed() {
        let mut stitch = Stitch::new(Gaps::Fill);
        stitch.begin_take(start(0));
        assert_eq!(stitch.tracks(&[opus_track(1, 2, 0)]), Ok(()));
        stitch.begin_take(start(500));
        assert_eq!(
            stitch.tracks(&[video_track(1, CODEC_VP9, 640, b"")]),
            Ok(())
        );
        assert!(stitch.has_video());
        assert_eq!(stitch.lanes().len(), 1);
    }

    #[test]
    fn what_would_not_decode_in_the_old_track_is_refused() {
        let avc = video_track(1, CODEC_H264, 640, b"a");
        for (other, fit) in [
            (video_track(1, CODEC_H264, 640, b"a"), true),
            (video_track(1, CODEC_H264, 640, b"b"), false),
            (video_track(1, CODEC_H264, 320, b"a"), false),
            (video_track(1, CODEC_VP9, 640, b"a"), false),
            (opus_track(1, 2, 0), false),
        ] {
            assert_eq!(fits(&avc, &other), fit, "{other:?}");
        }
        let vp9 = video_track(1, CODEC_VP9, 640, b"x");
        assert!(fits(&vp9, &video_track(9, CODEC_VP9, 640, b"y")));
    }

    #[test]
    fn silence_is_as_long_as_its_stretch() {
        let stretch = Fill {
            from_ns: 180_000_000,
            len_ns: 200_000_000,
        };
        let packets: Vec<_> = silence_packets(Silence {
            stretch,
            stereo: true,
        })
        .collect();
        let starts: Vec<_> = packets.iter().map(|(ts_ns, _)| ts_ns / 1_000_000).collect();
        assert_eq!(starts, [180, 240, 300, 360]);
        let total: u64 = packets
            .iter()
            .filter_map(|(_, packet)| packet.duration_ns)
            .sum();
        assert_eq!(total, 200_000_000);
    }
}
