//! Decides what a broadcaster sends next: the queue of takes, the session, and where the present
//! connection stands. Pure: bytes and server messages go in, frames and messages come out. Must never
//! touch a socket, a clock or a recorder, and must never let go of a byte that is not acknowledged,
//! except when the memory cap is reached, and then it says so.

import { DEFAULT_MAX_FRAME, ProtocolError, helloMessage, takeMessage } from "./protocol.js";

/** Unacknowledged bytes that are held at most: about 4.5 hours of audio at 128 kbit/s. */
export const UNACKED_CAP_BYTES = 256 * 1024 * 1024;

/** Largest frame that is sent even when the server would take a larger one. */
const FRAME_BYTES = 256 * 1024;

/** Largest piece that is buffered and journalled as one; a stalled page may deliver much at once. */
const CHUNK_BYTES = 128 * 1024;

/** Markers that wait for their place in the stream at most. */
const MARKER_CAP = 256;

/** Journal that keeps nothing; the interface of {@link ./mirror.js}. */
export const NO_JOURNAL = {
  takeOpened() {},
  appended() {},
  acked() {},
  takeClosed() {},
  sessionChanged() {},
};

const OFFLINE = { kind: "offline" };
const SEALED = { kind: "sealed" };

export class Uplink {
  #queue = [];
  #byRun = new Map();
  #markers = [];
  #wire = OFFLINE;
  #session = null;
  #stopRequested = false;
  #stopSent = false;
  #wasAsking = false;
  #maxFrame = DEFAULT_MAX_FRAME;
  #delivered = { acked: 0, archived: 0 };
  #lostBytes = 0;
  #journal;
  #newTakeId;
  #cap;

  constructor({ newTakeId, journal = NO_JOURNAL, unackedCap = UNACKED_CAP_BYTES, session = null }) {
    this.#newTakeId = newTakeId;
    this.#journal = journal;
    this.#cap = unackedCap;
    this.#session = session;
  }

  get session() {
    return this.#session;
  }

  get stopRequested() {
    return this.#stopRequested;
  }

  /** Whether `stop` went out for the present session, on whatever connection, behind its last byte. */
  get stopSent() {
    return this.#stopSent;
  }

  /** Bytes given up because the memory cap was reached. */
  get lostBytes() {
    return this.#lostBytes;
  }

  get unacked() {
    return this.#queue.reduce((sum, take) => sum + take.unacked, 0);
  }

  get oldestUnackedAt() {
    return this.#queue.find((take) => take.unacked > 0)?.oldestUnackedAt ?? null;
  }

  /** Bytes of this broadcast that are on the server's disk, over all takes. */
  get acked() {
    return this.#queue.reduce((sum, take) => sum + take.acked, this.#delivered.acked);
  }

  /** Bytes of this broadcast that are in the archive's store, over all takes. */
  get archived() {
    return this.#queue.reduce((sum, take) => sum + take.archived, this.#delivered.archived);
  }

  /** Queues a take behind those that wait. `stored` says that the journal has it already. */
  addTake(take, { stored = false } = {}) {
    this.#queue.push(take);
    this.#byRun.set(take.id, take);
    if (!stored) this.#journal.takeOpened(take);
  }

  /** Appends what the encoder run `run` (the id its take was added with) recorded at `at`. */
  append(run, bytes, at) {
    const take = this.#byRun.get(run);
    if (!take || take.ended) return;
    for (let from = 0; from < bytes.length; from += CHUNK_BYTES) {
      const chunk = bytes.subarray(from, from + CHUNK_BYTES);
      const offset = take.append(chunk, at);
      this.#journal.appended(take, offset, chunk, at);
    }
    this.#enforceCap();
  }

  /** The encoder run `run` has delivered its last byte. */
  endTake(run) {
    this.#byRun.get(run)?.end();
    this.#byRun.delete(run);
  }

  /** Marks the present point of the newest take; false when there is none or too many wait. */
  mark(label, kind) {
    const take = this.#queue.at(-1);
    if (!take || this.#markers.length >= MARKER_CAP) return false;
    this.#markers.push({ takeId: take.id, offset: take.next, label, kind, sent: false });
    return true;
  }

  /** After the last byte, ask the server to end the session. */
  requestStop() {
    this.#stopRequested = true;
  }

  /** The server has sealed the session: it takes no more bytes, and needs no `stop`. */
  sealed() {
    this.#stopRequested = true;
    this.#wire = SEALED;
  }

  /** The connection is gone: nothing that was sent on it counts, only what was acknowledged. */
  disconnected() {
    this.#wasAsking = this.#wire.kind === "asking";
    this.#wire = OFFLINE;
  }

  /**
   * The server ended the connection because of an offset. Asked about a take whose encoder has ended,
   * it holds more of it than we do (a page died before its last bytes were stored): all of ours is
   * durable. Anything else can't be aligned and is sent as takes of its own. Answers as `ready` does.
   */
  offsetRefused() {
    const take = this.#queue[0];
    if (this.#wasAsking && take?.ended) {
      take.ack(take.next);
      this.#retireDelivered();
      return "continues";
    }
    this.#carryOver();
    this.#wire = OFFLINE;
    return "begins-anew";
  }

  /** First message of a new connection. */
  hello() {
    this.#retireDelivered();
    const take = this.#queue[0];
    if (!take) throw new Error("hello without a take");
    this.#wire = { kind: "asking", takeId: take.id };
    return helloMessage(this.#session, take);
  }

  /**
   * Takes in a `ready`. Answers `continues`, or `begins-anew` when a fresh encoder run must be added:
   * our session was over, or the server holds more of the running take than we do.
   */
  ready(message) {
    if (this.#wire.kind !== "asking") throw new ProtocolError("ready without a question");
    this.#checkReady(message);
    const take = this.#queue[0];
    const isOver = this.#session !== null && message.session !== this.#session;
    if (this.#session !== message.session) {
      this.#stopSent = false;
      this.#session = message.session;
      this.#journal.sessionChanged(message.session);
    }
    this.#maxFrame = Math.min(message.max_frame ?? DEFAULT_MAX_FRAME, FRAME_BYTES);
    this.#wire = { kind: "sending", takeId: take.id, cursor: message.offset, stopSent: false };
    const hasDiverged = message.offset > take.next && !take.ended;
    if (isOver || hasDiverged) {
      this.#carryOver();
      return "begins-anew";
    }
    if (message.offset < take.first) throw new ProtocolError("the server continues below what can be sent");
    take.resume(message.offset);
    this.#askMarkersAgain(take);
    return "continues";
  }

  /** Takes in an `ack`. */
  ack(message) {
    if (!Number.isSafeInteger(message.offset)) throw new ProtocolError("ack without an offset");
    const take = this.#queue.find((candidate) => candidate.id === message.take);
    if (!take) return;
    take.ack(message.offset, message.archived ?? 0);
    this.#markers = this.#markers.filter((m) => !(m.sent && m.takeId === take.id && m.offset < take.acked));
    this.#journal.acked(take);
    this.#retireDelivered();
  }

  /**
   * The next thing to put on the wire: `{kind:"message", message}`, `{kind:"frame", bytes}` with at
   * most `budget` bytes, `{kind:"reopen"}` when the connection can't go on, or `null` for "wait".
   */
  next(budget) {
    const wire = this.#wire;
    if (wire.kind !== "sending" || wire.stopSent) return null;
    this.#retireDelivered();
    const take = this.#queue[0];
    if (!take) return this.#stopOrWait(wire);
    if (wire.takeId !== take.id) {
      this.#wire = { kind: "asking", takeId: take.id };
      return { kind: "message", message: takeMessage(take) };
    }
    if (wire.cursor < take.first) return { kind: "reopen" };
    const marker = this.#markers.find((m) => !m.sent && m.takeId === take.id);
    if (marker && marker.offset <= wire.cursor) {
      marker.sent = true;
      return { kind: "message", message: { type: "marker", label: marker.label, kind: marker.kind } };
    }
    if (wire.cursor >= take.next) {
      return this.#queue.length === 1 && take.ended ? this.#stopOrWait(wire) : null;
    }
    const limit = marker ? marker.offset - wire.cursor : Infinity;
    const bytes = take.read(wire.cursor, Math.min(budget, this.#maxFrame, limit));
    wire.cursor += bytes.length;
    return { kind: "frame", bytes };
  }

  #stopOrWait(wire) {
    if (!this.#stopRequested) return null;
    wire.stopSent = true;
    this.#stopSent = true;
    return { kind: "message", message: { type: "stop" } };
  }

  #checkReady(message) {
    const { takeId } = this.#wire;
    if (typeof message.session !== "string" || !Number.isSafeInteger(message.offset) || message.offset < 0) {
      throw new ProtocolError("ready without session or offset");
    }
    if (message.take !== undefined && message.take !== takeId) throw new ProtocolError("ready for another take");
  }

  /** A take makes room for the next one only when all of it is durable: the server sees takes in order. */
  #retireDelivered() {
    while (this.#queue.length > 1 && this.#queue[0].ended && this.#queue[0].acked >= this.#queue[0].next) {
      this.#forget(this.#queue.shift());
    }
  }

  #forget(take) {
    this.#delivered.acked += take.acked;
    this.#delivered.archived += take.archived;
    this.#markers = this.#markers.filter((marker) => marker.takeId !== take.id);
    this.#journal.takeClosed(take);
  }

  /** Turns every take that still has something to say into one of the new session. */
  #carryOver() {
    const old = this.#queue;
    this.#queue = [];
    this.#wire = { kind: "sending", takeId: null, cursor: 0, stopSent: false };
    for (const take of old) {
      if (!take.ended || take.unacked > 0) this.#rebase(take);
      this.#forget(take);
    }
  }

  #rebase(old) {
    const { take, shift } = old.rebase(this.#newTakeId());
    this.#queue.push(take);
    for (const [run, running] of this.#byRun) {
      if (running === old) this.#byRun.set(run, take);
    }
    for (const marker of this.#markers) {
      if (marker.takeId !== old.id || marker.sent) continue;
      marker.takeId = take.id;
      marker.offset = Math.max(0, marker.offset - shift);
    }
    this.#journal.takeOpened(take);
    for (const chunk of take.chunksFrom(0)) this.#journal.appended(take, chunk.offset, chunk.bytes, chunk.at);
  }

  /** A marker was lost with the connection unless the server has bytes from behind it. */
  #askMarkersAgain(take) {
    for (const marker of this.#markers) {
      if (marker.takeId === take.id && marker.offset >= take.acked) marker.sent = false;
    }
  }

  #enforceCap() {
    let excess = this.unacked - this.#cap;
    for (const take of this.#queue) {
      if (excess <= 0) return;
      const dropped = take.dropUnacked(excess);
      this.#lostBytes += dropped;
      excess -= dropped;
    }
  }
}
