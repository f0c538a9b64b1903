//! Finds the places where a recorded byte stream may be cut: the end of the container's header and
//! the starts of WebM clusters, MP4 fragments and Ogg pages. Never changes bytes, never decodes media.

const CLUSTER_ID = [0x1f, 0x43, 0xb6, 0x75];
const CLUSTER_TIMESTAMP_ID = 0xe7;
const OGG_PAGE_HEADER_BYTES = 27;

const text = (bytes, at, length) => String.fromCharCode(...bytes.subarray(at, at + length));
const uint32 = (bytes, at) => ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0;

/** `webm`, `mp4`, `ogg`, or `null` when the first bytes of a take are none of these. */
export function containerOf(head) {
  if (head.length >= 4 && uint32(head, 0) === 0x1a45dfa3) return "webm";
  if (head.length >= 8 && text(head, 4, 4) === "ftyp") return "mp4";
  if (head.length >= 4 && text(head, 0, 4) === "OggS") return "ogg";
  return null;
}

/** A Cluster's ID is only believed when a Timestamp element follows its size: the ID alone may occur in audio. */
function isClusterStart(bytes, at) {
  if (CLUSTER_ID.some((byte, i) => bytes[at + i] !== byte)) return false;
  const sizeByte = bytes[at + 4];
  if (sizeByte === undefined || sizeByte === 0) return false;
  const sizeLength = Math.clz32(sizeByte) - 23;
  return bytes[at + 4 + sizeLength] === CLUSTER_TIMESTAMP_ID;
}

const isFragmentStart = (bytes, at) => text(bytes, at + 4, 4) === "moof" && text(bytes, at + 12, 4) === "mfhd";
const isPageStart = (bytes, at) => text(bytes, at, 4) === "OggS" && bytes[at + 4] === 0;

const BOUNDARY = { webm: isClusterStart, mp4: isFragmentStart, ogg: isPageStart };

function oggHeaderLength(head) {
  let at = 0;
  while (at + OGG_PAGE_HEADER_BYTES <= head.length && isPageStart(head, at)) {
    const granule = head.subarray(at + 6, at + 14);
    const carriesAudio = granule.some((byte) => byte !== 0) && granule.some((byte) => byte !== 0xff);
    if (carriesAudio) return at;
    const segments = head[at + 26];
    const table = head.subarray(at + OGG_PAGE_HEADER_BYTES, at + OGG_PAGE_HEADER_BYTES + segments);
    if (table.length < segments) return null;
    at += OGG_PAGE_HEADER_BYTES + segments + table.reduce((sum, length) => sum + length, 0);
  }
  return null;
}

function mp4HeaderLength(head) {
  let at = 0;
  while (at + 8 <= head.length) {
    const type = text(head, at + 4, 4);
    if (type !== "ftyp" && type !== "moov" && type !== "free") return at;
    const size = uint32(head, at);
    if (size < 8) return null;
    at += size;
  }
  return null;
}

/** Bytes of container header in front of the first media of a take, or `null` while that is not known. */
export function headerLength(head) {
  const kind = containerOf(head);
  if (kind === "ogg") return oggHeaderLength(head);
  if (kind === "mp4") return mp4HeaderLength(head);
  if (kind !== "webm") return null;
  for (let at = 4; at + 6 <= head.length; at += 1) {
    if (isClusterStart(head, at)) return at;
  }
  return null;
}

/** Largest index `<= limit` where a cluster, fragment or page of `kind` starts in `bytes`, or `null`. */
export function lastBoundary(kind, bytes, limit) {
  const starts = BOUNDARY[kind];
  if (!starts) return null;
  for (let at = Math.min(limit, bytes.length - 6); at >= 0; at -= 1) {
    if (starts(bytes, at)) return at;
  }
  return null;
}
