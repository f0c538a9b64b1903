//! Owns the bytes of one take: everything recorded until it is acknowledged, and after that down to
//! what has reached the archive's store. Must never forget an unacknowledged byte unless told to by
//! `dropUnacked`, and never reads a clock.

import { containerOf, headerLength, lastBoundary } from "./container.js";

/** Start of each take that is kept for good, so that its tail can be sent as a stream of its own. */
export const HEAD_BYTES = 64 * 1024;

/** Acknowledged but not yet archived bytes that are kept against the loss of the server's disk. */
export const RETAIN_BYTES = 16 * 1024 * 1024;

/** How far below the acknowledged offset a place to cut is looked for. */
const CUT_SEARCH_BYTES = 2 * 1024 * 1024;

/** Bytes after a boundary that are needed to recognise it. */
const BOUNDARY_LOOKAHEAD = 16;

function concat(parts) {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

export class TakeBuffer {
  #chunks = [];
  #head = new Uint8Array(0);
  #next = 0;
  #acked = 0;
  #archived = 0;
  #ended = false;

  constructor({ id, mime }) {
    this.id = id;
    this.mime = mime;
  }

  /**
   * Rebuilds a take from stored chunks (`{offset, bytes, at}`, any order). Chunks of the take's
   * start serve as its head; what can be sent is the unbroken run at the end. It is ended: its
   * encoder died with its page.
   */
  static restore({ id, mime, acked = 0, archived = 0, chunks }) {
    const take = new TakeBuffer({ id, mime });
    const sorted = [...chunks].sort((a, b) => a.offset - b.offset);
    let expected = sorted.length > 0 ? sorted[0].offset : 0;
    for (const chunk of sorted) {
      if (chunk.offset !== expected) take.#chunks = [];
      if (chunk.offset === take.#head.length) take.#growHead(chunk.bytes);
      take.#chunks.push(chunk);
      expected = chunk.offset + chunk.bytes.length;
    }
    take.#next = expected;
    take.#acked = Math.min(acked, expected);
    take.#archived = Math.min(archived, take.#acked);
    take.#ended = true;
    return take;
  }

  /** Lowest offset that can still be sent. */
  get first() {
    return this.#chunks.length > 0 ? this.#chunks[0].offset : this.#next;
  }

  /** Bytes recorded so far. */
  get next() {
    return this.#next;
  }

  get acked() {
    return this.#acked;
  }

  get archived() {
    return this.#archived;
  }

  get ended() {
    return this.#ended;
  }

  /** Bytes that are held and not acknowledged. */
  get unacked() {
    return this.#next - Math.max(this.#acked, Math.min(this.first, this.#next));
  }

  /** When the oldest unacknowledged byte was recorded (the caller's clock), or `null`. */
  get oldestUnackedAt() {
    return this.#chunks[this.#indexOf(this.#acked)]?.at ?? null;
  }

  /** Appends recorded bytes and returns their offset. `at` is when they were recorded, in ms. */
  append(bytes, at) {
    if (this.#ended) throw new Error("append to a take that has ended");
    const offset = this.#next;
    if (bytes.length === 0) return offset;
    this.#growHead(bytes);
    this.#chunks.push({ offset, bytes, at });
    this.#next += bytes.length;
    return offset;
  }

  /** The encoder has delivered its last byte. */
  end() {
    this.#ended = true;
  }

  /** Takes note of an ack. Older or overlong acks change nothing. */
  ack(offset, archived = 0) {
    this.#acked = Math.max(this.#acked, Math.min(offset, this.#next));
    this.#archived = Math.max(this.#archived, Math.min(archived, this.#acked));
    this.#forgetBelow(Math.max(this.#archived, this.#acked - RETAIN_BYTES));
  }

  /**
   * The server continues at `offset`: below it everything is durable, above it nothing is, whatever
   * was acknowledged before (a server that lost its disk asks again for what it had).
   */
  resume(offset) {
    this.#acked = Math.min(offset, this.#next);
    this.#archived = Math.min(this.#archived, this.#acked);
  }

  /** Up to `max` bytes from `offset`, empty at the end of the take. */
  read(offset, max) {
    const parts = [];
    let at = offset;
    let room = max;
    for (let i = this.#indexOf(offset); i < this.#chunks.length && room > 0; i += 1) {
      const chunk = this.#chunks[i];
      const part = chunk.bytes.subarray(at - chunk.offset, at - chunk.offset + room);
      parts.push(part);
      at += part.length;
      room -= part.length;
    }
    return parts.length === 1 ? parts[0] : concat(parts);
  }

  /** Gives up the oldest held chunks until `bytes` unacknowledged ones are gone; returns how many went. */
  dropUnacked(bytes) {
    let dropped = 0;
    while (dropped < bytes && this.#chunks.length > 0) {
      const chunk = this.#chunks.shift();
      dropped += Math.max(0, chunk.offset + chunk.bytes.length - Math.max(chunk.offset, this.#acked));
    }
    return dropped;
  }

  /**
   * This take's header and unacknowledged tail as a take of its own, for a session that has never
   * seen this one. `shift` is what an old offset loses to become a new one.
   */
  rebase(id) {
    const known = headerLength(this.#head);
    const cut = this.#cutPoint(known);
    const fresh = new TakeBuffer({ id, mime: this.mime });
    const header = cut === 0 ? new Uint8Array(0) : this.#head.slice(0, Math.min(known ?? HEAD_BYTES, cut));
    fresh.append(header, this.oldestUnackedAt ?? this.#chunks[0]?.at ?? 0);
    for (const chunk of this.chunksFrom(cut)) fresh.append(chunk.bytes, chunk.at);
    fresh.#ended = this.#ended;
    return { take: fresh, shift: cut - header.length };
  }

  /** The held chunks from `offset` on, the first one cut to it. */
  chunksFrom(offset) {
    return this.#chunks.slice(this.#indexOf(offset)).map((chunk) => {
      const skip = Math.max(0, offset - chunk.offset);
      return { offset: chunk.offset + skip, bytes: chunk.bytes.subarray(skip), at: chunk.at };
    });
  }

  #cutPoint(headerBytes) {
    const lowest = this.first;
    const wanted = Math.max(this.#acked, lowest);
    if (lowest === 0 && (headerBytes === null || wanted <= headerBytes)) return 0;
    const from = Math.max(lowest, wanted - CUT_SEARCH_BYTES);
    const window = this.read(from, wanted - from + BOUNDARY_LOOKAHEAD);
    const boundary = lastBoundary(containerOf(this.#head), window, wanted - from);
    // Without a boundary the tail is sent from mid-cluster: a reader resyncs, and nothing is lost.
    return boundary === null ? wanted : from + boundary;
  }

  #growHead(bytes) {
    if (this.#head.length >= HEAD_BYTES) return;
    this.#head = concat([this.#head, bytes.subarray(0, HEAD_BYTES - this.#head.length)]);
  }

  #indexOf(offset) {
    let low = 0;
    let high = this.#chunks.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const chunk = this.#chunks[middle];
      if (chunk.offset + chunk.bytes.length <= offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #forgetBelow(offset) {
    const keep = this.#indexOf(offset);
    if (keep > 0) this.#chunks.splice(0, keep);
  }
}
