//! The append-only part of the archive: blocks into clusters, clusters into the index. It decides
//! where clusters end and nothing about time.

use bytes::Bytes;

use super::cues::CueIndex;
use crate::media::packet::Packet;
use crate::media::webm::cluster::{BlockAt, Cluster};

/// Longest cluster of sound alone, ms.
const SOUND_CLUSTER_MS: u64 = 5_000;
/// Longest cluster with picture, ms; most end earlier, at a keyframe.
const VIDEO_CLUSTER_MS: u64 = 10_000;
/// A keyframe joins a cluster without picture that is not older than this, ms.
const LEAD_IN_MS: u64 = 1_000;
/// Size at which a cluster is full, bytes.
const CLUSTER_BYTES: usize = 4 * 1024 * 1024;

/// What the file holds besides sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing: any cluster is a seek point.
    Sound,
    /// Picture: its keyframes are the seek points.
    Picture,
}

/// The clusters of an archive.
#[derive(Debug, Default)]
pub(super) struct Body {
    open: Option<Open>,
    /// Closed clusters that were not taken yet.
    closed: Vec<u8>,
    /// All closed clusters, bytes.
    len: u64,
    cues: CueIndex,
}

#[derive(Debug)]
struct Open {
    cluster: Cluster,
    has_picture: bool,
}

/// Where a block goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) at: BlockAt,
    pub(super) is_video: bool,
    pub(super) content: Content,
}

impl Body {
    /// Appends a packet.
    pub(super) fn write(&mut self, target: Target, packet: &Packet) {
        let Target {
            at,
            is_video,
            content,
        } = target;
        let is_keyframe = is_video && packet.keyframe;
        let longest = match content {
            Content::Sound => SOUND_CLUSTER_MS,
            Content::Picture => VIDEO_CLUSTER_MS,
        };
        let fits = self.open.as_ref().is_some_and(|open| {
            let start_ms = open.cluster.start_ms();
            let opens_picture = !open.has_picture && at.ts_ms < start_ms + LEAD_IN_MS;
            (!is_keyframe || opens_picture)
                && at.ts_ms < start_ms + longest
                && open.cluster.reaches(at.ts_ms)
                && open.cluster.len() + packet.payload.len() <= CLUSTER_BYTES
        });
        if !fits {
            self.close();
        }
        if is_keyframe || (content == Content::Sound && !fits) {
            self.cues.offer(at.ts_ms, self.len);
        }
        let open = self.open.get_or_insert_with(|| Open {
            cluster: Cluster::open(at.ts_ms),
            has_picture: false,
        });
        open.has_picture |= is_video;
        let written = open.cluster.append(at, packet);
        debug_assert!(written, "the cluster was changed for what it did not reach");
    }

    /// Closes the open cluster, if there is one.
    pub(super) fn close(&mut self) {
        let Some(mut open) = self.open.take() else {
            return;
        };
        let before = self.closed.len();
        open.cluster.close(&mut self.closed);
        self.len += (self.closed.len() - before) as u64;
    }

    /// Takes the clusters that were closed since the last call.
    pub(super) fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.closed).into()
    }

    /// Length of all closed clusters, bytes.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// The index so far.
    pub(super) const fn cues(&self) -> &CueIndex {
        &self.cues
    }
}
