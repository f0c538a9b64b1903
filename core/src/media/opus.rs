//! The little of Opus that a muxer needs: how long a packet is, what silence looks like, and the
//! `OpusHead`. It never decodes sound.

use bytes::Bytes;

/// Sample rate of every Opus timestamp, Hz.
pub const SAMPLE_RATE: u32 = 48_000;
/// The seek pre-roll every Opus track needs, nanoseconds.
pub const SEEK_PRE_ROLL_NS: u64 = 80_000_000;
/// Length of the short silence packet, nanoseconds.
pub const SILENCE_SHORT_NS: i64 = 20_000_000;
/// Length of the long silence packet, nanoseconds.
pub const SILENCE_LONG_NS: i64 = 60_000_000;
/// The longest packet the format allows, nanoseconds.
const PACKET_MAX_NS: u64 = 120_000_000;
const STEREO_BIT: u8 = 0x04;
/// Smallest `OpusHead`: magic, version, channels, pre-skip, rate, gain, mapping family.
const HEAD_LEN: usize = 19;

/// Length of a packet in nanoseconds; `None` if the packet is empty or breaks the format.
#[must_use]
pub fn duration_ns(packet: &[u8]) -> Option<u64> {
    let toc = *packet.first()?;
    let frame_us: u64 = match toc >> 3 {
        config @ 0..=11 => [10_000, 20_000, 40_000, 60_000][usize::from(config & 3)],
        config @ 12..=15 => [10_000, 20_000][usize::from(config & 1)],
        config => [2_500, 5_000, 10_000, 20_000][usize::from(config & 3)],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u64::from(packet.get(1)? & 63),
    };
    let total = frames * frame_us * 1_000;
    (total > 0 && total <= PACKET_MAX_NS).then_some(total)
}

/// Whether the packet codes two channels.
#[must_use]
pub fn is_stereo(packet: &[u8]) -> bool {
    packet.first().is_some_and(|toc| toc & STEREO_BIT != 0)
}

/// A packet of 60 ms of silence.
#[must_use]
pub const fn silence_long(stereo: bool) -> Bytes {
    const MONO: &[u8] = &[0xFB, 0x03, 0xFF, 0xFE, 0xFF, 0xFE, 0xFF, 0xFE];
    const STEREO: &[u8] = &[0xFF, 0x03, 0xFF, 0xFE, 0xFF, 0xFE, 0xFF, 0xFE];
    Bytes::from_static(if stereo { STEREO } else { MONO })
}

/// A packet of 20 ms of silence.
#[must_use]
pub const fn silence_short(stereo: bool) -> Bytes {
    const MONO: &[u8] = &[0xF8, 0xFF, 0xFE];
    const STEREO: &[u8] = &[0xFC, 0xFF, 0xFE];
    Bytes::from_static(if stereo { STEREO } else { MONO })
}

/// The fields of an `OpusHead`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpusHead {
    /// Output channels.
    pub channels: u8,
    /// Samples at 48 kHz to drop at the start.
    pub pre_skip: u16,
    /// Sample rate of the original sound, Hz.
    pub input_rate: u32,
    /// Output gain, dB in 1/256.
    pub gain: i16,
    /// Channel mapping family; 0 is mono or stereo.
    pub mapping_family: u8,
}

impl OpusHead {
    /// Reads an `OpusHead` packet; `None` if it is not one.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        if packet.len() < HEAD_LEN || !packet.starts_with(b"OpusHead") || packet[8] >> 4 != 0 {
            return None;
        }
        let channels = packet[9];
        (channels > 0).then_some(Self {
            channels,
            pre_skip: u16::from_le_bytes([packet[10], packet[11]]),
            input_rate: u32::from_le_bytes([packet[12], packet[13], packet[14], packet[15]]),
            gain: i16::from_le_bytes([packet[16], packet[17]]),
            mapping_family: packet[18],
        })
    }

    /// Writes the head of a mono or stereo stream (mapping family 0).
    #[must_use]
    pub fn to_bytes(self) -> Bytes {
        let mut out = Vec::with_capacity(HEAD_LEN);
        out.extend_from_slice(b"OpusHead\x01");
        out.push(self.channels);
        out.extend_from_slice(&self.pre_skip.to_le_bytes());
        out.extend_from_slice(&self.input_rate.to_le_bytes());
        out.extend_from_slice(&self.gain.to_le_bytes());
        out.push(0);
        out.into()
    }

    /// The pre-skip as a codec delay, nanoseconds.
    #[must_use]
    pub fn delay_ns(self) -> u64 {
        u64::from(self.pre_skip) * 1_000_000_000 / u64::from(SAMPLE_RATE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_packet_follows_its_first_two_bytes() {
        for (packet, ms) in [
            (&[0xFF, 0x03, 0xFF][..], Some(60)),
            (&[0xFC, 0xFF][..], Some(20)),
            (&[0xFD][..], Some(40)),
            (&[0x18][..], Some(60)),
            (&[0x60][..], Some(10)),
            (&[0x83, 0x04][..], Some(10)),
            (&[0x83, 0x00][..], None),
            (&[0x1B, 0x03][..], None),
            (&[0xFF][..], None),
            (&[][..], None),
        ] {
            assert_eq!(
                duration_ns(packet),
                ms.map(|ms| ms * 1_000_000),
                "{packet:x?}"
            );
        }
    }

    #[test]
    fn silence_lasts_what_its_name_says_in_both_layouts() {
        for stereo in [false, true] {
            let (long, short) = (silence_long(stereo), silence_short(stereo));
            assert_eq!(duration_ns(&long), Some(SILENCE_LONG_NS.unsigned_abs()));
            assert_eq!(duration_ns(&short), Some(SILENCE_SHORT_NS.unsigned_abs()));
            assert_eq!((is_stereo(&long), is_stereo(&short)), (stereo, stereo));
        }
    }

    #[test]
    fn a_head_survives_being_written_and_read() {
        let head = OpusHead {
            channels: 2,
            pre_skip: 312,
            input_rate: 44_100,
            gain: -3,
            mapping_family: 0,
        };
        assert_eq!(OpusHead::parse(&head.to_bytes()), Some(head));
        assert_eq!(head.delay_ns(), 6_500_000);
        assert_eq!(OpusHead::parse(b"OpusTags-and-more-bytes"), None);
        assert_eq!(OpusHead::parse(&head.to_bytes()[..18]), None);
    }
}
