//! Doubles for the client's tests: a server that keeps the contract in memory, its sockets, a recorder
//! with hand-fed bytes, a mirror, a clock. Nothing here knows the client's insides.

/** A clock that moves only when told to. */
export class ManualClock {
  #now = 1_000_000;
  #timers = new Map();
  #id = 0;

  now = () => this.#now;

  setTimeout = (callback, ms) => {
    this.#id += 1;
    this.#timers.set(this.#id, { due: this.#now + ms, callback });
    return this.#id;
  };

  clearTimeout = (id) => this.#timers.delete(id);

  /** Moves on by `ms`, firing what falls due in order, and lets promises settle in between. */
  async advance(ms) {
    const end = this.#now + ms;
    for (;;) {
      await settled();
      const [next] = [...this.#timers].filter(([, t]) => t.due <= end).sort((a, b) => a[1].due - b[1].due);
      if (!next) break;
      this.#timers.delete(next[0]);
      this.#now = Math.max(this.#now, next[1].due);
      next[1].callback();
    }
    this.#now = end;
    await settled();
  }
}

/** Lets everything that is already decided happen. */
export async function settled() {
  for (let i = 0; i < 8; i += 1) await new Promise((resolve) => setImmediate(resolve));
}

/** One session on the fake server. */
class FakeSession {
  constructor(id) {
    this.id = id;
    this.epoch = 0;
    this.takes = new Map();
    this.gaps = [];
    this.markers = [];
    this.status = "recording";
  }

  take(id) {
    if (!this.takes.has(id)) this.takes.set(id, { id, bytes: [], base: 0, acked: 0, archived: 0 });
    return this.takes.get(id);
  }
}

/** An ingest in memory. `acks` false holds acks back; `refuse` answers every hello with a close. */
export class FakeServer {
  acks = true;
  refuse = null;
  maxFrame = 1024;
  archivesOnStop = true;
  sessions = [];
  sockets = [];
  frames = [];
  log = [];
  urls = [];
  unreachable = false;
  #count = 0;

  get current() {
    return this.sessions.find(({ status }) => status === "recording") ?? null;
  }

  get socket() {
    return this.sockets.at(-1);
  }

  /** What the session holds of a take, as text. */
  text(session, takeId) {
    return Buffer.from(session.takes.get(takeId).bytes).toString();
  }

  /** Constructor to hand to the client as `WebSocket`. */
  get WebSocket() {
    const server = this;
    return class extends FakeSocket {
      constructor(url, protocols) {
        super(server, url, protocols);
      }
    };
  }

  connected(socket) {
    this.sockets.push(socket);
    this.urls.push(socket.url);
  }

  received(socket, data) {
    if (typeof data !== "string") return this.#media(socket, data);
    const message = JSON.parse(data);
    this.log.push(message);
    switch (message.type) {
      case "hello":
        return this.#hello(socket, message);
      case "take":
        return this.#open(socket, message.take, {});
      case "marker":
        socket.session.markers.push({ ...message, take: socket.take.id, at: socket.take.bytes.length });
        return undefined;
      case "stop":
        return this.#stop(socket);
      default:
        throw new Error(`unexpected ${message.type}`);
    }
  }

  /** The grace of the present session runs out. */
  expireGrace(status = "archived") {
    this.current.status = status;
  }

  ackAll(socket = this.socket) {
    const { take } = socket;
    take.acked = take.base + take.bytes.length;
    socket.tell({ type: "ack", take: take.id, offset: take.acked, archived: take.archived });
  }

  #hello(socket, { session, take }) {
    if (this.refuse) {
      const { code, error } = this.refuse;
      if (error) socket.tell({ type: "error", ...error });
      return socket.end(code);
    }
    const known = this.sessions.find(({ id }) => id === session);
    const isOver = known && known.status !== "recording";
    let target = this.current;
    if (!target) {
      this.#count += 1;
      target = new FakeSession(`s${this.#count}`);
      this.sessions.push(target);
    }
    target.epoch += 1;
    socket.session = target;
    const previous = isOver ? { previous: { session, status: known.status } } : {};
    return this.#open(socket, take, { resumed: known === target, ...previous });
  }

  #open(socket, { id, first }, extra) {
    const take = socket.session.take(id);
    const durable = take.base + take.bytes.length;
    if (first > durable) {
      socket.session.gaps.push({ take: id, from: durable, to: first });
      take.base += first - durable;
    }
    socket.take = take;
    const offset = take.base + take.bytes.length;
    const { session } = socket;
    socket.tell({
      type: "ready",
      session: session.id,
      epoch: session.epoch,
      show_id: "7",
      take: id,
      offset,
      resumed: false,
      recording: "recording",
      grace_s: 30,
      max_frame: this.maxFrame,
      ...extra,
    });
  }

  #media(socket, data) {
    this.frames.push(data.length);
    if (data.length > this.maxFrame) return socket.end(4413);
    if (!socket.session) return socket.end(4400);
    socket.take.bytes.push(...data);
    if (this.acks) this.ackAll(socket);
    return undefined;
  }

  #stop(socket) {
    const { session } = socket;
    session.status = "finalizing";
    const recording = { id: session.id, status: "archived", end_reason: "stop", bytes: 1, gaps: session.gaps };
    if (!this.archivesOnStop) return;
    session.status = "archived";
    this.ackAll(socket);
    socket.tell({ type: "finalizing", bytes: 1, archived: 0 });
    socket.tell({ type: "archived", recording });
    socket.end(1000);
  }

  /** The HTTP side, as the client's `api`. */
  get api() {
    const orFail = (answer) => {
      if (this.unreachable) throw new Error("unreachable");
      return answer();
    };
    return {
      status: async () =>
        orFail(() => {
          const live = this.current;
          const last = live ?? this.sessions.at(-1);
          const state = live ? "grace" : "idle";
          return { session: live ? last.id : null, active: live !== null, state };
        }),
      recordings: async () =>
        orFail(() => this.sessions.map((s) => ({ id: s.id, status: s.status, end_reason: s.endReason })).reverse()),
    };
  }
}

export class FakeSocket {
  readyState = 0;
  bufferedAmount = 0;

  constructor(server, url, protocols) {
    this.server = server;
    this.url = url;
    this.protocols = protocols;
    this.session = null;
    this.take = null;
    queueMicrotask(() => this.#open());
  }

  send(data) {
    if (this.readyState !== 1) throw new Error("send on a socket that is not open");
    const copy = typeof data === "string" ? data : Uint8Array.from(data);
    queueMicrotask(() => this.readyState === 1 && this.server.received(this, copy));
  }

  close() {
    this.readyState = 3;
  }

  /** Server to client. */
  tell(message) {
    if (this.readyState === 1) this.onmessage({ data: JSON.stringify(message) });
  }

  /** The connection ends with `code`; 1006 is a drop. */
  end(code = 1006) {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.onclose({ code });
  }

  #open() {
    if (this.server.unreachable) return this.end(1006);
    this.readyState = 1;
    this.server.connected(this);
    return this.onopen();
  }
}

/** A MediaRecorder that delivers what the test says. */
export class FakeRecorder {
  static all = [];
  static isTypeSupported = (mime) => mime === "audio/webm;codecs=opus";
  state = "inactive";
  lastWords = "";

  constructor(stream, { mimeType }) {
    this.stream = stream;
    this.mimeType = mimeType;
    FakeRecorder.all.push(this);
  }

  static get last() {
    return FakeRecorder.all.at(-1);
  }

  start(timeslice) {
    if (!timeslice) throw new Error("a timeslice must always be given");
    this.state = "recording";
  }

  say(text) {
    this.ondataavailable({ data: new Blob([text]) });
  }

  stop() {
    this.state = "inactive";
    queueMicrotask(() => {
      this.say(this.lastWords);
      this.onstop();
    });
  }
}

/** The mirror's interface over plain maps. */
export class MemoryMirror {
  broadcasts = new Map();
  breaks = false;

  journal(broadcast, onDegraded) {
    if (!this.broadcasts.has(broadcast.id)) this.broadcasts.set(broadcast.id, { ...broadcast, takes: [] });
    const stored = this.broadcasts.get(broadcast.id);
    const find = (take) => stored.takes.find(({ id }) => id === take.id);
    return {
      sessionChanged: (session) => {
        stored.session = session;
      },
      takeOpened: ({ id, mime }) => stored.takes.push({ id, mime, acked: 0, archived: 0, chunks: [] }),
      appended: (take, offset, bytes, at) => {
        if (this.breaks) {
          this.breaks = false;
          onDegraded(new Error("quota"));
          return;
        }
        find(take).chunks.push({ offset, bytes: bytes.slice(), at });
      },
      acked: (take) => Object.assign(find(take), { acked: take.acked, archived: take.archived }),
      takeClosed: (take) => {
        stored.takes = stored.takes.filter(({ id }) => id !== take.id);
      },
      end: () => this.broadcasts.delete(broadcast.id),
      release: () => {},
    };
  }

  /** What a new page would find. */
  unfinished() {
    return structuredClone([...this.broadcasts.values()]);
  }
}
