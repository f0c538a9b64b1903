//! The listener's page: fetches the live branch and plays it. Owns the player and the one stream into
//! it; what to do next is decided in listening.js.

import { START, hasHead, showOf, sourceType, stateWords, step, upkeep } from "./listening.js";

/** Nothing for so long although the connection stands: the show waits for its host. */
const DRY_MS = 3_000;
/** Bytes that may wait for the source buffer. */
const QUEUE_BYTES = 8 * 1024 * 1024;
/** Bytes a stream's head may have. */
const HEAD_BYTES = 64 * 1024;

const byId = (id) => document.getElementById(id);
const player = byId("player");
const Source = globalThis.ManagedMediaSource ?? globalThis.MediaSource;
const show = showOf(location);

let model = START;
let timer = null;
/** Ends the present attempt; a new one has a new controller. */
let attempt = new AbortController();

function handle(kind, more = {}) {
  const { model: next, action, delayMs } = step(model, { kind, now: performance.now(), ...more });
  model = next;
  if (action !== null) {
    clearTimeout(timer);
    attempt.abort();
  }
  if (action === "connect") connect();
  if (action === "retry") timer = setTimeout(() => handle("due"), delayMs);
  if (action === "halt") silence();
  draw();
}

function draw() {
  const { label, tone, sentence } = stateWords(model.state);
  const pill = byId("state");
  if (pill.textContent !== label) pill.textContent = label;
  pill.dataset.tone = tone;
  if (byId("words").textContent !== sentence) byId("words").textContent = sentence;
  const isOn = model.state !== "stopped";
  byId("listen").textContent = isOn ? "Stop" : "Play";
  byId("listen").classList.toggle("danger", isOn);
  byId("listen").classList.toggle("primary", !isOn);
  document.body.dataset.state = model.state;
}

function silence() {
  player.pause();
  if (player.src.startsWith("blob:")) URL.revokeObjectURL(player.src);
  player.removeAttribute("src");
  player.load();
}

async function connect() {
  attempt = new AbortController();
  const { signal } = attempt;
  const report = (kind, more) => {
    if (!signal.aborted) handle(kind, more);
  };
  try {
    const response = await fetch(`/live/${show}`, { signal, cache: "no-store" });
    if (!response.ok) {
      const seconds = Number(response.headers.get("retry-after"));
      return report("refused", { status: response.status, retryMs: seconds > 0 ? seconds * 1000 : 0 });
    }
    const reader = response.body.getReader();
    const head = await readHead(reader);
    const type = sourceType(response.headers.get("content-type") ?? "", head);
    if (Source?.isTypeSupported(type)) await playStream(type, head, reader, signal);
    else await playAddress(signal);
    report("ended");
  } catch (error) {
    // An abort is our own doing and says nothing.
    if (!signal.aborted) console.info("the stream broke off:", error);
    report("broken");
  }
}

/** Reads until the first cluster has begun. */
async function readHead(reader) {
  let head = new Uint8Array(0);
  while (!hasHead(head) && head.length < HEAD_BYTES) {
    const { done, value } = await reader.read();
    if (done) break;
    const longer = new Uint8Array(head.length + value.length);
    longer.set(head);
    longer.set(value, head.length);
    head = longer;
  }
  return head;
}

const once = (target, event, signal) =>
  new Promise((resolve, reject) => {
    target.addEventListener(event, resolve, { once: true, signal });
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });

async function playStream(type, head, reader, signal) {
  const source = new Source();
  silence();
  // Required by browsers with a managed source.
  player.disableRemotePlayback = true;
  const opened = once(source, "sourceopen", signal);
  player.src = URL.createObjectURL(source);
  await opened;
  const buffer = source.addSourceBuffer(type);
  // Every stream begins somewhere in the show: the player's clock need not know.
  buffer.mode = "sequence";
  const broken = new Promise((_, reject) => {
    const fail = () => reject(player.error ?? new Error("the browser can't play the stream"));
    player.addEventListener("error", fail, { once: true, signal });
  });
  await Promise.race([broken, pour(buffer, head, reader, signal)]);
  if (!signal.aborted && source.readyState === "open") source.endOfStream();
  // What is buffered is still heard.
  if (!player.paused && !player.ended) await Promise.race([broken, once(player, "ended", signal)]);
}

/** Moves the stream into the buffer. The network is read ahead of it, so that the server sees no slow reader. */
async function pour(buffer, head, reader, signal) {
  const queue = [head];
  let queued = head.length;
  let isOver = false;
  let wake = () => {};
  const read = async () => {
    while (!isOver) {
      const { done, value } = await reader.read();
      if (done) isOver = true;
      else {
        queue.push(value);
        queued += value.length;
      }
      if (queued > QUEUE_BYTES) throw new Error("the browser does not keep up");
      wake();
    }
  };
  const append = async () => {
    for (;;) {
      if (queue.length === 0) {
        if (isOver) return;
        await new Promise((resolve) => (wake = resolve));
        continue;
      }
      const bytes = queue.shift();
      queued -= bytes.length;
      const updated = once(buffer, "updateend", signal);
      buffer.appendBuffer(bytes);
      await updated;
      start();
      await keepUp(buffer, signal);
    }
  };
  await Promise.all([read(), append()]);
}

function start() {
  if (!player.paused || player.buffered.length === 0) return;
  player.play().catch((error) => {
    // The browser wants to see a press of the button first.
    if (error.name === "NotAllowedError") handle("stop");
  });
}

async function keepUp(buffer, signal) {
  const { buffered } = player;
  if (buffered.length === 0) return;
  const last = buffered.length - 1;
  const todo = upkeep({ time: player.currentTime, start: buffered.start(0), end: buffered.end(last) });
  if (todo.seekTo !== null) player.currentTime = todo.seekTo;
  if (todo.dropBefore === null) return;
  const updated = once(buffer, "updateend", signal);
  buffer.remove(0, todo.dropBefore);
  await updated;
}

/** For browsers that can't be fed: the element fetches the stream by itself. */
async function playAddress(signal) {
  silence();
  player.src = `/live/${show}`;
  const ended = Promise.race([once(player, "ended", signal), once(player, "error", signal)]);
  start();
  await player.play();
  await ended;
}

let dryTimer = null;
player.addEventListener("playing", () => {
  clearTimeout(dryTimer);
  handle("sound");
});
player.addEventListener("waiting", () => {
  clearTimeout(dryTimer);
  dryTimer = setTimeout(() => handle("dry"), DRY_MS);
});
byId("volume").addEventListener("input", ({ target }) => {
  player.volume = Number(target.value) / 100;
});
byId("listen").addEventListener("click", () => {
  // Loading within the press allows the player to play later, when the show begins or comes back.
  if (model.state === "stopped") silence();
  handle(model.state === "stopped" ? "play" : "stop");
});

byId("show").textContent = show === "" ? "No show" : `Show ${show}`;
byId("listen").disabled = show === "";
if (show !== "") document.title = `Show ${show} · Aircheck`;
draw();
