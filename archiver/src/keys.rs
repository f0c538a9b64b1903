//! Names in the bucket and of downloads.
//!
//! Owns the layout of keys. Must never build one from anything but parsed ids and stored versions.

use aircheck_core::{
    id::{Seat, SessionId, ShowId},
    media::probe::{Container, Probe, probe},
};

/// Container of a take that no probe recognises: kept all the same, byte for byte.
const UNKNOWN_EXTENSION: &str = "bin";
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// Where a recording's objects stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Under the names of the contract.
    Regular,
    /// Beside them, with the session's id in the name: somebody else's object has the regular one.
    Beside,
    /// Beside the raw takes of a recording that could not be stitched at first.
    Repaired,
}

/// Which of a recording's media objects one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Label {
    /// The first, which most recordings have alone.
    First,
    /// A take as it came; its number from 1.
    Take(u32),
    /// A further file of a stitched archive; its number from 1, so never below 2.
    Volume(u32),
}

impl Label {
    /// Of the object at `index` among a recording's media objects; `take`: its index, where the
    /// object is one take.
    pub(crate) fn of(index: usize, take: Option<u32>) -> Self {
        match (index, take, u32::try_from(index)) {
            (0, _, _) => Self::First,
            (_, Some(take), _) => Self::Take(take.saturating_add(1)),
            (_, None, Ok(index)) => Self::Volume(index.saturating_add(1)),
            (_, None, Err(_)) => Self::Volume(u32::MAX),
        }
    }

    fn written(self, separator: char) -> String {
        match self {
            Self::First => String::new(),
            Self::Take(number) => format!("{separator}take{number}"),
            Self::Volume(number) => format!("{separator}vol{number}"),
        }
    }
}

/// What a media object is called and served as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) extension: &'static str,
    pub(crate) content_type: &'static str,
}

impl Kind {
    /// By the first bytes; the browser's word only tells audio from video.
    pub(crate) fn of(first_bytes: &[u8], mime: &str) -> Self {
        match probe(first_bytes) {
            Probe::Found(container) => Self::known(container, mime),
            Probe::NeedMore | Probe::Unsupported => Self {
                extension: UNKNOWN_EXTENSION,
                content_type: UNKNOWN_TYPE,
            },
        }
    }

    fn known(container: Container, mime: &str) -> Self {
        Self {
            extension: container.extension(),
            content_type: container.content_type(mime),
        }
    }
}

/// The folder of one recording and how things in it are called.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    path: String,
    file_stem: String,
    session: SessionId,
}

impl Folder {
    /// `prefix` is put in front as it is.
    pub(crate) fn new(prefix: &str, seat: &Seat, version: &str, session: SessionId) -> Self {
        let Seat { show, rehearsal } = seat;
        let kind = if *rehearsal {
            "rehearsals"
        } else {
            "recordings"
        };
        Self {
            path: format!("{prefix}{kind}/{show}/{version}"),
            file_stem: format!("{show}-{version}"),
            session,
        }
    }

    /// Key of a media object.
    pub(crate) fn media(&self, label: Label, extension: &str, place: Place) -> String {
        format!(
            "{}/recording{}{}.{extension}",
            self.path,
            label.written('.'),
            self.mark(place)
        )
    }

    /// Key of the manifest.
    pub(crate) fn manifest(&self, place: Place) -> String {
        format!("{}/manifest{}.json", self.path, self.mark(place))
    }

    fn mark(&self, place: Place) -> String {
        match place {
            Place::Regular => String::new(),
            Place::Beside => format!(".{}", self.session),
            Place::Repaired => ".stitched".to_owned(),
        }
    }

    /// Content-Disposition of a downloaded manifest.
    pub(crate) fn manifest_disposition(&self) -> String {
        format!("attachment; filename=\"{}-{MANIFEST}\"", self.file_stem)
    }

    /// Content-Disposition of a download. Ids and versions are plain ASCII, so it needs no escapes.
    pub(crate) fn disposition(&self, label: Label, extension: &str) -> String {
        format!(
            "attachment; filename=\"{}{}.{extension}\"",
            self.file_stem,
            label.written('-')
        )
    }
}

/// What a manifest is called, wherever it lies.
pub(crate) const MANIFEST: &str = "manifest.json";

/// What follows the last slash of a key.
pub(crate) fn name(key: &str) -> &str {
    key.rsplit_once('/').map_or(key, |(_, name)| name)
}

/// Folders below the prefix that hold recordings.
pub(crate) const KINDS: [&str; 2] = ["recordings/", "rehearsals/"];

/// Show and version of the recording that a media object's key belongs to; `None`: it is no such key.
pub(crate) fn recording_of(prefix: &str, key: &str) -> Option<(ShowId, String)> {
    let path = key.strip_prefix(prefix)?;
    let path = KINDS.iter().find_map(|kind| path.strip_prefix(kind))?;
    let (show, rest) = path.split_once('/')?;
    let (version, file) = rest.split_once('/')?;
    let is_media = file.starts_with("recording.") && !file.contains('/');
    let show = show.parse().ok().filter(|_| is_media)?;
    Some((show, version.to_owned()))
}

/// Whether a key ends as those of [`Folder::manifest`].
pub(crate) fn is_manifest(key: &str) -> bool {
    let file = key.rsplit('/').next().unwrap_or(key);
    file.starts_with("manifest.") && file.ends_with(".json")
}

/// The extension of a stitched archive of this Content-Type. Matroska is `WebM` with more codecs, and
/// goes by the same name.
pub(crate) fn archive_extension(content_type: &str) -> &'static str {
    if content_type.ends_with("/mp4") {
        Container::Mp4.extension()
    } else {
        Container::WebM.extension()
    }
}

/// Key of what is made of the object at `source`: beside it, under the same name.
pub(crate) fn beside(source: &str, extension: &str) -> String {
    let stem = source.rsplit_once('.').map_or(source, |(stem, _)| stem);
    format!("{stem}.{extension}")
}

/// What follows the last dot of a key.
pub(crate) fn extension(key: &str) -> &str {
    key.rsplit_once('.')
        .map_or(UNKNOWN_EXTENSION, |(_, extension)| extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_contract() {
        let seat = |rehearsal| Seat {
            show: "7".parse().expect("a show id"),
            rehearsal,
        };
        let session = "01JDA0000000000000000000AB".parse().expect("a session id");
        let version = "2026-11-23T20-15-00Z";
        let rehearsal = Folder::new("station/", &seat(true), version, session);
        assert_eq!(
            rehearsal.media(Label::First, "webm", Place::Regular),
            "station/rehearsals/7/2026-11-23T20-15-00Z/recording.webm"
        );
        let folder = Folder::new("station/", &seat(false), version, session);
        let base = "station/recordings/7/2026-11-23T20-15-00Z";
        let key = |label, place| folder.media(label, "webm", place);
        assert_eq!(
            key(Label::First, Place::Regular),
            format!("{base}/recording.webm")
        );
        assert_eq!(
            key(Label::Take(2), Place::Regular),
            format!("{base}/recording.take2.webm")
        );
        assert_eq!(
            key(Label::Volume(2), Place::Regular),
            format!("{base}/recording.vol2.webm")
        );
        assert_eq!(
            key(Label::First, Place::Beside),
            format!("{base}/recording.01JDA0000000000000000000AB.webm")
        );
        assert_eq!(
            key(Label::First, Place::Repaired),
            format!("{base}/recording.stitched.webm")
        );
        assert_eq!(
            folder.manifest(Place::Regular),
            format!("{base}/manifest.json")
        );
        assert_eq!(
            folder.disposition(Label::First, "webm"),
            "attachment; filename=\"7-2026-11-23T20-15-00Z.webm\""
        );
        assert_eq!(extension(&key(Label::Take(2), Place::Regular)), "webm");
        assert_eq!(
            beside(&key(Label::Take(2), Place::Regular), "mp3"),
            format!("{base}/recording.take2.mp3")
        );
    }

    #[test]
    fn a_media_key_tells_its_recording_and_other_keys_tell_none() {
        let of = |key| recording_of("station/", key);
        let key = "station/recordings/7/2026-11-23T20-15-00Z-2/recording.vol2.webm";
        let version = "2026-11-23T20-15-00Z-2".to_owned();
        let show = "7".parse().expect("a show id");
        assert_eq!(of(key), Some((show, version)));
        for other in [
            "recordings/7/v/recording.webm",
            "station/recordings/7/v/manifest.json",
            "station/recordings/7/v/recording.webm/x",
            "station/recordings/7/recording.webm",
            "station/recordings/../v/recording.webm",
            "station/backup.tar",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn the_bytes_decide_the_kind_and_the_browser_only_audio_or_video() {
        let webm = Kind::of(&[0x1A, 0x45, 0xDF, 0xA3, 0], "video/webm");
        assert_eq!(
            webm,
            Kind {
                extension: "webm",
                content_type: "video/webm"
            }
        );
        let unknown = Kind::of(b"what is this", "audio/webm");
        assert_eq!(
            unknown,
            Kind {
                extension: "bin",
                content_type: "application/octet-stream"
            }
        );
    }
}
