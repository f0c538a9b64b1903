//! Owns one WebSocket from its opening to its end: moves what the uplink decides to the wire, keeps
//! deadlines, notices dead peers. Reports its end exactly once and never reconnects by itself.

import { ProtocolError, SUBPROTOCOL, parseMessage } from "./protocol.js";

/** Bytes that may wait inside the socket. */
const BUFFERED_LIMIT_BYTES = 1024 * 1024;

/** Pause before looking at a full socket again: WebSocket has no event for "drained". */
const DRAIN_POLL_MS = 50;

/** Time from opening until the first `ready`. */
const READY_DEADLINE_MS = 12_000;

/** Silence of the server while bytes wait for an ack (promised every second) that counts as a dead peer. */
const SILENCE_DEADLINE_MS = 15_000;

/** Close code reported when this side gives up; never sent by a server. */
export const ABNORMAL_CLOSE = 1006;

export class Connection {
  #socket;
  #uplink;
  #clock;
  #events;
  #stage = "opening";
  #openedAt;
  #heardAt;
  #drainTimer = null;
  #lastError = null;
  #recordingFailed = false;
  #lastBuffered = 0;

  /** `events`: `ready(message, outcome)`, `ack()`, `message(message)`, `closed({code, error})`. */
  constructor({ url, WebSocket, uplink, clock, events }) {
    this.#uplink = uplink;
    this.#clock = clock;
    this.#events = events;
    this.#openedAt = clock.now();
    this.#heardAt = this.#openedAt;
    this.#socket = new WebSocket(url, [SUBPROTOCOL]);
    this.#socket.binaryType = "arraybuffer";
    this.#socket.onopen = () => this.#opened();
    this.#socket.onmessage = (event) => this.#received(event.data);
    this.#socket.onclose = (event) => this.#finish(event.code);
    // An error event says nothing; the close event that follows carries what can be known.
    this.#socket.onerror = () => {};
  }

  /** Sends whatever may be sent now. Call it whenever the uplink has something new. */
  pump() {
    if (this.#stage === "closed" || this.#socket.readyState !== 1) return;
    for (;;) {
      const budget = BUFFERED_LIMIT_BYTES - this.#socket.bufferedAmount;
      if (budget <= 0) return this.#pumpLater();
      const action = this.#uplink.next(budget);
      if (action === null) return undefined;
      if (action.kind === "reopen") return this.giveUp();
      this.#socket.send(action.kind === "frame" ? action.bytes : JSON.stringify(action.message));
    }
  }

  /** Checks the deadlines; call it a few times a second. */
  tick() {
    const now = this.#clock.now();
    if (this.#stage === "opening") {
      if (now - this.#openedAt > READY_DEADLINE_MS) this.giveUp();
      return;
    }
    const isWaiting = this.#recordingFailed ? this.#isSocketStuck() : this.#uplink.unacked > 0;
    if (!isWaiting) this.#heardAt = now;
    if (now - this.#heardAt > SILENCE_DEADLINE_MS) this.giveUp();
  }

  /** Abandons the connection without a word: for the server this is a drop. */
  giveUp() {
    this.#socket.close();
    this.#finish(ABNORMAL_CLOSE);
  }

  /** Ends the connection without reporting it. */
  close() {
    this.#stage = "closed";
    this.#clock.clearTimeout(this.#drainTimer);
    this.#socket.close();
  }

  #opened() {
    if (this.#stage === "closed") return;
    this.#socket.send(JSON.stringify(this.#uplink.hello()));
  }

  #received(data) {
    if (this.#stage === "closed") return;
    this.#heardAt = this.#clock.now();
    try {
      this.#dispatch(parseMessage(data));
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#lastError = { code: error.code, message: error.message };
      this.giveUp();
    }
  }

  #dispatch(message) {
    switch (message.type) {
      case "ready": {
        const outcome = this.#uplink.ready(message);
        this.#stage = "open";
        this.#recordingFailed = message.recording === "failed";
        this.#events.ready(message, outcome);
        break;
      }
      case "ack":
        this.#uplink.ack(message);
        this.#events.ack();
        break;
      case "error":
        this.#lastError = message;
        break;
      case "state":
        this.#recordingFailed = message.recording === "failed";
        this.#events.message(message);
        break;
      default:
        this.#events.message(message);
    }
    this.pump();
  }

  /** With a failed recording no acks come; then only a socket that drains proves the peer alive. */
  #isSocketStuck() {
    const buffered = this.#socket.bufferedAmount;
    const isStuck = buffered > 0 && buffered >= this.#lastBuffered;
    this.#lastBuffered = buffered;
    return isStuck;
  }

  #pumpLater() {
    this.#clock.clearTimeout(this.#drainTimer);
    this.#drainTimer = this.#clock.setTimeout(() => this.pump(), DRAIN_POLL_MS);
  }

  #finish(code) {
    if (this.#stage === "closed") return;
    this.#stage = "closed";
    this.#clock.clearTimeout(this.#drainTimer);
    this.#uplink.disconnected();
    this.#events.closed({ code, error: this.#lastError });
  }
}
