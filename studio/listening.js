//! What a listener's page does next: one state, one event, one answer. Pure; owns no element, no timer
//! and no network. Must never leave a page that was asked to play without a way back to sound.

/** First pause after sound broke off; doubles up to the longest. */
const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 15_000;

/** Between two looks at a show that is not on air. */
const OFFLINE_MS = 8_000;

/** A stream that played for so long was a good one: the next pause is the first again. */
const STABLE_MS = 10_000;

/**
 * `stopped`, `connecting`, `live`, `waiting`, `offline` or `ended`; `failures` counts attempts in a row without
 * sound, `heardAt` is when sound last began, `null` if none has been heard since play was pressed.
 */
export const START = Object.freeze({ state: "stopped", failures: 0, heardAt: null });

/** The two in which nobody speaks: before the show, and after it. */
const OFF_AIR = new Set(["offline", "ended"]);

const isOn = ({ state }) => state !== "stopped";

/** Pause before the next attempt: a quarter to a whole of a ceiling, so that a crowd does not return at once. */
export function pauseMs(failures, random) {
  const ceiling = Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** Math.min(failures, 10));
  return Math.round(ceiling * (0.25 + 0.75 * random));
}

function again(model, state, atLeastMs, random) {
  const next = { ...model, state, failures: model.failures + 1 };
  return { model: next, action: "retry", delayMs: Math.max(atLeastMs, pauseMs(model.failures, random)) };
}

/**
 * What comes of `event` = `{ kind, now, status?, retryMs? }`. The answer has the new model, and what is to
 * be done: `connect` now, `retry` after `delayMs`, `halt`, or nothing.
 *
 * Kinds: `play` and `stop` (the listener's wishes), `due` (a pause is over), `sound` (it plays), `dry` (no
 * media, the connection stands), `ended` (the stream is over), `refused` (with its HTTP `status`), `broken`.
 */
export function step(model, event, random = Math.random()) {
  const keep = { model, action: null };
  if (event.kind === "play") {
    if (isOn(model)) return keep;
    return { model: { ...START, state: "connecting" }, action: "connect" };
  }
  if (!isOn(model)) return keep;
  switch (event.kind) {
    case "stop":
      return { model: START, action: "halt" };
    case "due":
      return { model: { ...model, state: OFF_AIR.has(model.state) ? model.state : "connecting" }, action: "connect" };
    case "sound":
      if (model.state === "live") return keep;
      return { model: { ...model, state: "live", heardAt: event.now }, action: null };
    case "dry":
      return { model: model.state === "live" ? settled(model, event, "waiting") : model, action: null };
    case "refused":
      if (event.status === 404) return offline(model, random);
      return again(model, "waiting", event.retryMs ?? 0, random);
    case "ended":
    case "broken":
      return again(settled(model, event, model.state), "waiting", 0, random);
    default:
      return keep;
  }
}

/** A model whose good time counts: after long enough the pauses begin at the shortest again. */
function settled(model, event, state) {
  const wasGood = model.state === "live" && event.now - model.heardAt >= STABLE_MS;
  return { ...model, state, failures: wasGood ? 0 : model.failures };
}

/** Nobody speaks. The show may begin at any time, so the page goes on looking. */
function offline(model, random) {
  const delayMs = Math.round(OFFLINE_MS * (0.5 + random));
  const state = model.heardAt === null ? "offline" : "ended";
  return { model: { ...model, state, failures: 0 }, action: "retry", delayMs };
}

/** Label and sentence of a state, and the tone of its pill. */
export function stateWords(state) {
  return (
    {
      connecting: { label: "connecting", tone: "wait", sentence: "Connecting…" },
      live: { label: "live", tone: "good", sentence: "You are listening live." },
      waiting: { label: "waiting", tone: "wait", sentence: "The sound broke off. It goes on by itself." },
      ended: { label: "ended", tone: "", sentence: "The show is over. The next one starts here by itself." },
      offline: { label: "offline", tone: "", sentence: "The show is not on air. It starts here by itself when it is." },
    }[state] ?? { label: "stopped", tone: "", sentence: "Press play to listen." }
  );
}

/** The show's id: the last part of `/listen/ID`, or `?show=ID`; empty if there is none. */
export function showOf({ pathname, search }) {
  const [, named] = /\/listen\/([^/]+)\/?$/.exec(pathname) ?? [];
  const id = named ?? new URLSearchParams(search).get("show") ?? "";
  return /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/.test(id) ? id : "";
}

const CLUSTER = [0x1f, 0x43, 0xb6, 0x75];

/** Whether the head of a stream is complete: its first cluster has begun. */
export function hasHead(bytes) {
  return bytes.some((_, at) => CLUSTER.every((byte, index) => bytes[at + index] === byte));
}

const CODECS = [
  ["A_OPUS", "opus"],
  ["A_AAC", "mp4a.40.2"],
  ["V_VP8", "vp8"],
  ["V_VP9", "vp09.00.31.08"],
  ["V_AV1", "av01.0.05M.08"],
  ["V_MPEG4/ISO/AVC", "avc1.42E01F"],
];

/** The type a source buffer asks for: as the server says, with the codecs the stream's head names. */
export function sourceType(contentType, head) {
  const [plain] = contentType.split(";");
  const text = Array.from(head, (byte) => String.fromCharCode(byte)).join("");
  const codecs = CODECS.filter(([id]) => text.includes(id)).map(([, codec]) => codec);
  if (codecs.length === 0) return contentType;
  const isVideo = codecs.length > 1 || text.includes("V_");
  return `${plain.replace(/^\w+/, isVideo ? "video" : "audio").trim()};codecs="${codecs.join(",")}"`;
}

/**
 * What to do with a player that is at `time` of what is buffered: `seekTo` brings it back near the live
 * edge, `dropBefore` frees what was heard. Seconds; `null` for nothing.
 */
export function upkeep({ time, start, end }) {
  const isBehind = time < start || end - time > 12;
  const seekTo = isBehind ? Math.max(start, end - 3) : null;
  const heard = (seekTo ?? time) - 10;
  return { seekTo, dropBefore: heard - start > 30 ? heard : null };
}
