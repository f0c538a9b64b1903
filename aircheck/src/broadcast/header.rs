//! Where a recorder's container header ends and media begins.
//!
//! Owns just that boundary, so that a new take can begin with the header of an old one. Must never
//! read beyond the bytes it is given, whatever they say.

use aircheck_core::media::Container;

const CLUSTER: [u8; 4] = [0x1f, 0x43, 0xb6, 0x75];
const OGG_HEAD: usize = 27;

/// Bytes of the header at the beginning of `bytes`; `None` if media is not in sight.
pub(super) fn length(container: Container, bytes: &[u8]) -> Option<usize> {
    match container {
        Container::WebM => bytes
            .windows(CLUSTER.len())
            .position(|four| four == CLUSTER),
        Container::Mp4 => mp4(bytes),
        Container::Ogg => ogg(bytes),
    }
}

/// Everything before the first fragment.
fn mp4(bytes: &[u8]) -> Option<usize> {
    let mut at = 0_usize;
    loop {
        let size = u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
        if matches!(
            bytes.get(at + 4..at + 8)?,
            b"moof" | b"mdat" | b"styp" | b"sidx"
        ) {
            return Some(at);
        }
        at = usize::try_from(size)
            .ok()
            .filter(|size| *size >= 8)?
            .checked_add(at)?;
    }
}

/// All pages before the first that ends a packet of media.
fn ogg(bytes: &[u8]) -> Option<usize> {
    let mut at = 0_usize;
    loop {
        let head = bytes.get(at..at.checked_add(OGG_HEAD)?)?;
        if !head.starts_with(b"OggS") {
            return None;
        }
        if head[6..14] != [0; 8] {
            return Some(at);
        }
        let lacing = bytes.get(at + OGG_HEAD..at + OGG_HEAD + usize::from(head[26]))?;
        at += OGG_HEAD + lacing.len() + lacing.iter().map(|n| usize::from(*n)).sum::<usize>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webm_header_ends_at_the_first_cluster() {
        let bytes = [
            &[0x1a, 0x45, 0xdf, 0xa3, 1, 2][..],
            &CLUSTER,
            &[9, 9],
            &CLUSTER,
        ]
        .concat();
        assert_eq!(length(Container::WebM, &bytes), Some(6));
        assert_eq!(length(Container::WebM, &bytes[..8]), None);
    }

    #[test]
    fn an_mp4_header_ends_at_the_first_fragment() {
        let boxed = |kind: &[u8], len: u32| {
            let mut bytes = [&len.to_be_bytes()[..], kind].concat();
            bytes.resize(len as usize, 7);
            bytes
        };
        let head = [boxed(b"ftyp", 20), boxed(b"moov", 100)].concat();
        let whole = [head.clone(), boxed(b"moof", 30)].concat();
        assert_eq!(length(Container::Mp4, &whole), Some(head.len()));
        assert_eq!(length(Container::Mp4, &head), None);
        assert_eq!(length(Container::Mp4, &boxed(b"free", 8).repeat(3)), None);
        assert_eq!(
            length(Container::Mp4, b"\0\0\0\0ftypxxxx"),
            None,
            "no progress"
        );
    }

    #[test]
    fn an_ogg_header_ends_at_the_first_page_with_a_time() {
        let page = |granule: u64, body: u8| {
            let mut bytes = b"OggS\0\0".to_vec();
            bytes.extend_from_slice(&granule.to_le_bytes());
            bytes.resize(26, 0);
            bytes.extend_from_slice(&[1, body]);
            bytes.resize(28 + usize::from(body), 7);
            bytes
        };
        let head = [page(0, 19), page(0, 40)].concat();
        let whole = [head.clone(), page(960, 100)].concat();
        assert_eq!(length(Container::Ogg, &whole), Some(head.len()));
        assert_eq!(length(Container::Ogg, &head), None);
        assert_eq!(length(Container::Ogg, &whole[1..]), None);
    }
}
