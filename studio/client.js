//! `Broadcaster`: one show from "go live" to its recording, without a DOM. Joins recorder, uplink,
//! connection and mirror, and owns the lifecycle. Must never send `stop` unless `stop()` was called,
//! and must never let the page's life decide over the show's.

import { Api } from "./api.js";
import { aftermath } from "./aftermath.js";
import { Connection } from "./connection.js";
import { classifyClose, pickMime, reconnectDelay, streamUrl } from "./protocol.js";
import { RecorderRun } from "./recorder.js";
import { TakeBuffer } from "./takebuffer.js";
import { NO_JOURNAL, Uplink } from "./uplink.js";

const TICK_MS = 250;
const BITS_PER_SECOND = 128_000;

/** A server-side end leaves at most this much behind without being worth another delivery. */
const LEFTOVER_MS = 2_000;

/** A first connection refused by a conflict within this time has recorded nothing that was on air. */
const FALSE_START_MS = 30_000;

const NOTHING_HEARD = {
  epoch: null,
  live: null,
  recording: null,
  recordingError: null,
  listeners: null,
  sinks: [],
  alarms: [],
  previous: null,
};

const SYSTEM_CLOCK = {
  now: () => Date.now(),
  setTimeout: (callback, ms) => setTimeout(callback, ms),
  clearTimeout: (timer) => clearTimeout(timer),
};

const RUNNING = new Set(["connecting", "live", "reconnecting", "finalizing"]);
const PARKED = new Set(["conflict", "superseded", "failed"]);

export class Broadcaster extends EventTarget {
  #options;
  #clock;
  #phase = { name: "idle" };
  #uplink = null;
  #journal = NO_JOURNAL;
  #connection = null;
  #run = null;
  #stream = null;
  #tickTimer = null;
  #attempt = 0;
  #effort = 0;
  #startedAt = null;
  #storage = "off";
  #remote = NOTHING_HEARD;
  #progress = null;
  #sheet = null;
  #onEnded = [];

  /**
   * `showId` is required. `baseUrl` defaults to the page's origin, `token` is a JWT or a function that
   * yields one, `rehearsal` goes the same way unheard and beside the show, `mirror` is an open {@link ./mirror.js Mirror} or `null`. `bitsPerSecond` is the encoder's.
   * `WebSocket`, `MediaRecorder`, `api`, `clock`, `random`, `newId` exist for tests.
   */
  constructor(options) {
    super();
    const baseUrl = options.baseUrl ?? globalThis.location?.href;
    this.#options = {
      token: null,
      rehearsal: false,
      mirror: null,
      bitsPerSecond: BITS_PER_SECOND,
      WebSocket: globalThis.WebSocket,
      MediaRecorder: globalThis.MediaRecorder,
      api: options.api ?? new Api(baseUrl, { token: options.token }),
      random: Math.random,
      newId: () => crypto.randomUUID(),
      ...options,
      baseUrl,
    };
    this.#clock = options.clock ?? SYSTEM_CLOCK;
  }

  /** `idle|connecting|live|reconnecting|finalizing|archived|failed|conflict|superseded`. */
  get state() {
    return this.#phase.name;
  }

  /** Everything a page shows; a new object at every `change` event. */
  get snapshot() {
    const oldest = this.#uplink?.oldestUnackedAt ?? null;
    return {
      state: this.#phase.name,
      showId: this.#options.showId,
      session: this.#uplink?.session ?? null,
      ...this.#remote,
      onAir: this.#phase.name === "live" && this.#remote.live !== false,
      isRecording: this.#run !== null,
      acked: this.#uplink?.acked ?? 0,
      archived: (this.state === "archived" ? this.#uplink?.acked : this.#uplink?.archived) ?? 0,
      unackedBytes: this.#uplink?.unacked ?? 0,
      unackedMs: oldest === null ? 0 : Math.max(0, this.#clock.now() - oldest),
      lostBytes: this.#uplink?.lostBytes ?? 0,
      startedAt: this.#startedAt,
      attempt: this.#attempt,
      stopRequested: this.#uplink?.stopRequested ?? false,
      storage: this.#storage,
      error: this.#phase.error ?? null,
      recordingRow: this.#phase.recording ?? null,
      progress: this.#progress,
      sheet: this.#sheet,
    };
  }

  /** Goes live with `stream`. `force` takes over from another broadcaster, in this one attempt. */
  start(stream, { force = false } = {}) {
    if (!["idle", "archived"].includes(this.state) && !PARKED.has(this.state)) throw new Error("already running");
    this.#begin({ id: this.#options.newId(), session: null, startedAt: this.#clock.now(), takes: [] });
    this.#startRun(stream);
    this.#connect(force);
  }

  /**
   * Continues a broadcast found by `Mirror.unfinished`. Its undelivered tail goes first; with
   * `stream === null` it is only delivered, and the session then stopped.
   */
  resume(stored, stream) {
    if (RUNNING.has(this.state)) throw new Error("already running");
    if (stored.takes.length === 0 && stream === null) throw new Error("nothing to deliver");
    this.#begin(stored);
    for (const take of stored.takes) this.#uplink.addTake(TakeBuffer.restore(take), { stored: true });
    if (stream === null) this.#uplink.requestStop();
    else this.#startRun(stream);
    this.#connect(false);
  }

  /**
   * After `conflict`, `superseded` or a refusal: connects again, with `force` in that one attempt
   * when taking over. What was kept goes first, then `stream` as a new take.
   */
  retry(stream, { force = false } = {}) {
    if (!PARKED.has(this.state)) throw new Error("nothing to retry");
    if (this.#uplink === null || this.#phase.recording) return this.start(stream, { force });
    if (!this.#uplink.stopRequested) this.#startRun(stream);
    this.#startTicking();
    return this.#connect(force);
  }

  /** Records from another stream from now on, as a new take. */
  setStream(stream) {
    if (!RUNNING.has(this.state) || this.#uplink.stopRequested) throw new Error("not live");
    const old = this.#run;
    this.#startRun(stream);
    return old?.stop();
  }

  /** Notes a point of the show; false when it can't be. `kind` is `track`, `chapter` or `note`. */
  marker(label, kind = "note") {
    if (!RUNNING.has(this.state) || this.#uplink.stopRequested) return false;
    const isNoted = this.#uplink.mark(label, kind);
    this.#connection?.pump();
    return isNoted;
  }

  /** Ends the show: delivers every byte, then stops. Resolves to the final snapshot. */
  async stop() {
    if (!RUNNING.has(this.state)) return this.snapshot;
    const ended = new Promise((resolve) => this.#onEnded.push(resolve));
    this.#uplink.requestStop();
    if (this.state === "live") this.#enter({ name: "finalizing" });
    await this.#stopRun();
    this.#connection?.pump();
    return ended;
  }

  /** Leaves without stopping the show: for the server this is a drop. What is undelivered stays stored. */
  async abandon() {
    this.#effort += 1;
    this.#connection?.close();
    this.#connection = null;
    this.#uplink?.disconnected();
    await this.#stopRun();
    this.#park({ name: "idle" });
  }

  /** Cuts a waiting time short, for instance when the network is back. */
  reconnectNow() {
    if (this.#phase.waitUntil !== undefined) this.#connect(false);
  }

  #begin({ id, session, startedAt }) {
    this.#startedAt = startedAt;
    this.#attempt = 0;
    this.#progress = null;
    this.#remote = NOTHING_HEARD;
    this.#journal.release?.();
    this.#journal = this.#openJournal({ id, show: this.#options.showId, session, startedAt });
    this.#uplink = new Uplink({ newTakeId: this.#options.newId, journal: this.#journal, session });
    this.#enter({ name: "connecting" });
    this.#startTicking();
  }

  #openJournal(broadcast) {
    const { mirror } = this.#options;
    if (!mirror) return NO_JOURNAL;
    this.#storage = "mirrored";
    return mirror.journal(broadcast, (error) => {
      this.#storage = "memory";
      this.dispatchEvent(new CustomEvent("storage-lost", { detail: error }));
      this.#changed();
    });
  }

  #startRun(stream) {
    const { MediaRecorder, bitsPerSecond, newId } = this.#options;
    const mime = pickMime((type) => MediaRecorder.isTypeSupported(type));
    if (mime === null) throw new Error("this browser can't record audio in a usable format");
    const id = newId();
    const run = new RecorderRun({
      MediaRecorder,
      stream,
      mime,
      bitsPerSecond,
      clock: this.#clock,
      onBytes: (bytes, at) => {
        this.#uplink?.append(id, bytes, at);
        this.#connection?.pump();
        this.#tick();
      },
      onEnd: (error) => this.#runEnded(run, id, error),
    });
    run.start();
    run.takeId = id;
    this.#stream = stream;
    this.#run = run;
    this.#uplink.addTake(new TakeBuffer({ id, mime: run.mime || mime }));
  }

  /** A new encoder run, without a pause: the new one starts before the old one ends. */
  #restartRun() {
    const old = this.#run;
    if (!old) return;
    this.#startRun(this.#stream);
    old.stop();
  }

  async #stopRun() {
    const run = this.#run;
    if (!run) return;
    this.#run = null;
    await run.stop();
    this.#uplink?.endTake(run.takeId);
  }

  #runEnded(run, id, error) {
    this.#uplink?.endTake(id);
    this.#connection?.pump();
    if (this.#run !== run) return;
    this.#run = null;
    // The show stays live without sound until the page offers another source by `setStream`.
    this.dispatchEvent(new CustomEvent("source-lost", { detail: error }));
    this.#changed();
  }

  async #connect(force) {
    this.#effort += 1;
    const effort = this.#effort;
    const { name } = this.#phase;
    this.#enter({ name: RUNNING.has(name) ? name : "connecting" });
    const { baseUrl, showId, token, rehearsal, WebSocket } = this.#options;
    let bearer = null;
    try {
      bearer = typeof token === "function" ? await token() : token;
    } catch (error) {
      if (effort === this.#effort) this.#closed({ code: 1006, error: { code: "AC_TOKEN", message: error.message } });
      return;
    }
    if (effort !== this.#effort) return;
    this.#connection = new Connection({
      url: streamUrl(baseUrl, { showId, token: bearer, force, test: rehearsal }),
      WebSocket,
      uplink: this.#uplink,
      clock: this.#clock,
      events: {
        ready: (message, outcome) => this.#ready(message, outcome),
        ack: () => this.#acked(),
        message: (message) => this.#told(message),
        closed: (end) => this.#closed(end),
      },
    });
  }

  #ready(message, outcome) {
    this.#remote = {
      ...this.#remote,
      epoch: message.epoch,
      recording: message.recording,
      previous: message.previous ?? this.#remote.previous,
    };
    if (outcome === "begins-anew") this.#restartRun();
    this.#enter({ name: this.#uplink.stopRequested ? "finalizing" : "live" });
  }

  #acked() {
    this.#attempt = 0;
  }

  #told(message) {
    switch (message.type) {
      case "state": {
        const { live, recording, error, listeners, sinks = [], alarms = [] } = message;
        this.#remote = { ...this.#remote, live, recording, recordingError: error, listeners, sinks, alarms };
        this.#changed();
        break;
      }
      case "finalizing":
        this.#progress = { bytes: message.bytes, archived: message.archived };
        this.#sealed();
        break;
      case "sheet":
        this.#sheet = message;
        this.#changed();
        break;
      case "archived":
      case "failed":
        this.#sheet ??= message.recording.sheet ?? null;
        this.#ended(message.recording);
        break;
      default: // A newer server may say more than this client understands.
    }
  }

  /** The session is over on the server's side, by our wish or another's: recording on would lead nowhere. */
  #sealed() {
    this.#uplink.sealed();
    this.#stopRun();
    if (this.state !== "finalizing") this.#enter({ name: "finalizing" });
    else this.#changed();
  }

  #closed({ code, error }) {
    this.#connection = null;
    if (!RUNNING.has(this.state)) return;
    const meaning = classifyClose(code, error);
    if (this.#uplink.stopSent || meaning.kind === "done" || this.#progress !== null) {
      this.#followUp();
      return;
    }
    switch (meaning.kind) {
      case "conflict":
        this.#stopRun();
        this.#park({ name: "conflict", error: meaning.error }, { forget: this.#isFalseStart() });
        break;
      case "offset":
        if (this.#uplink.offsetRefused() === "begins-anew") this.#restartRun();
        this.#reconnectAfter({ when: "backoff", error: meaning.error });
        break;
      case "superseded":
      case "refused":
        this.#stopRun();
        this.#park({ name: meaning.kind === "refused" ? "failed" : "superseded", error: meaning.error });
        break;
      default:
        this.#reconnectAfter(meaning);
    }
  }

  #reconnectAfter({ when, error }) {
    const delay = reconnectDelay(when, this.#attempt, this.#options.random);
    this.#attempt += 1;
    const name = this.#uplink.session === null ? "connecting" : "reconnecting";
    this.#enter({ name, error, waitUntil: this.#clock.now() + delay });
    if (delay === 0) this.#connect(false);
  }

  /** The connection ended where the session may have ended too: ask before connecting again. */
  async #followUp() {
    this.#effort += 1;
    const effort = this.#effort;
    this.#enter({ name: this.#uplink.stopRequested ? "finalizing" : "reconnecting" });
    const outcome = await aftermath({
      api: this.#options.api,
      showId: this.#options.showId,
      session: this.#uplink.session,
      isAllAcked: () => this.#uplink.unacked === 0,
      wait: (ms) => new Promise((resolve) => this.#clock.setTimeout(resolve, ms)),
      isWanted: () => effort === this.#effort,
      onProgress: (row) => {
        this.#progress = { bytes: row.bytes, archived: null };
        this.#changed();
      },
    });
    if (effort !== this.#effort) return;
    if (outcome.kind === "ended") this.#ended(outcome.recording);
    else if (outcome.kind === "unknown") {
      const error = { code: "AC_UNKNOWN_OUTCOME", message: "The server does not know how this broadcast ended." };
      this.#stopRun();
      this.#park({ name: "failed", error });
    } else {
      this.#progress = null;
      this.#connect(false);
    }
  }

  #ended(recording) {
    this.#effort += 1;
    const { unackedMs } = this.snapshot;
    const isLeftBehind = !this.#uplink.stopSent && unackedMs > LEFTOVER_MS;
    this.#stopRun();
    this.#connection?.close();
    this.#connection = null;
    this.#park({ name: recording.status === "failed" ? "failed" : "archived", recording }, { forget: !isLeftBehind });
  }

  #isFalseStart() {
    return this.#uplink.session === null && this.snapshot.unackedMs < FALSE_START_MS;
  }

  /** Rests in a state that only the user leaves. `forget` deletes the mirror's copy: nothing is owed. */
  #park(phase, { forget = false } = {}) {
    this.#clock.clearTimeout(this.#tickTimer);
    this.#tickTimer = null;
    if (forget) {
      this.#journal.end?.();
      this.#journal = NO_JOURNAL;
      if (phase.name === "conflict") this.#uplink = null;
    } else if (phase.name === "idle" || phase.recording) {
      this.#journal.release?.();
    }
    this.#enter(phase);
    const waiting = this.#onEnded;
    this.#onEnded = [];
    for (const resolve of waiting) resolve(this.snapshot);
  }

  #startTicking() {
    this.#clock.clearTimeout(this.#tickTimer);
    this.#tickTimer = this.#clock.setTimeout(() => {
      this.#startTicking();
      this.#tick();
    }, TICK_MS);
  }

  /** Also driven by every recorded blob: a background tab's timers may be slow, its recorder is not. */
  #tick() {
    if (!RUNNING.has(this.state)) return;
    this.#connection?.tick();
    if (this.#phase.waitUntil !== undefined && this.#clock.now() >= this.#phase.waitUntil) this.#connect(false);
    this.#changed();
  }

  #enter(phase) {
    this.#phase = phase;
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new CustomEvent("change", { detail: this.snapshot }));
  }
}
