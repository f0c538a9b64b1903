//! The words of the `aircheck.v1` dialect: messages, close codes, addresses, reconnect policy.
//! Owns no state and touches no socket, clock or DOM: everything here is a pure function.

export const SUBPROTOCOL = "aircheck.v1";

/** Frame limit assumed until a `ready` names the server's own, in bytes. */
export const DEFAULT_MAX_FRAME = 64 * 1024;

/** Encoder preferences, best first. WebM/Opus gives the cheapest archive. */
export const MIME_PREFERENCE = [
  "audio/webm;codecs=opus",
  "audio/mp4;codecs=opus",
  "audio/mp4",
  "audio/ogg;codecs=opus",
  "audio/webm",
];

const BACKOFF_FLOOR_MS = 250;
const BACKOFF_CEILING_MS = 5_000;
const RETRY_CEILING_MS = 60_000;
const SHOW_ID = /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/;

/** A message or offset that the contract does not allow. The connection is given up, never the data. */
export class ProtocolError extends Error {
  constructor(message) {
    super(message);
    this.name = "ProtocolError";
    this.code = "AC_PROTOCOL";
  }
}

/** Whether `id` may name a show. */
export function isShowId(id) {
  return SHOW_ID.test(id);
}

/** The first supported type of {@link MIME_PREFERENCE}, or `null` when the browser can record none. */
export function pickMime(isTypeSupported) {
  return MIME_PREFERENCE.find((mime) => isTypeSupported(mime)) ?? null;
}

/** Address of the broadcaster socket. `force` takes over from another broadcaster, `test` is a rehearsal. */
export function streamUrl(base, { showId, token = null, force = false, test = false }) {
  const url = new URL("/ws/stream", base);
  url.protocol = url.protocol === "https:" || url.protocol === "wss:" ? "wss:" : "ws:";
  url.searchParams.set("show_id", showId);
  if (token) url.searchParams.set("token", token);
  if (force) url.searchParams.set("force", "true");
  if (test) url.searchParams.set("test", "true");
  return url.href;
}

const describeTake = (take) => ({ id: take.id, mime: take.mime, first: take.first, next: take.next });

/** The first message of a connection. `session` is `null` for a new broadcast. */
export const helloMessage = (session, take) => ({ type: "hello", session, take: describeTake(take) });

/** Announces that binary messages now belong to another take. */
export const takeMessage = (take) => ({ type: "take", take: describeTake(take) });

/** Parses a text message; throws {@link ProtocolError} when it is not an object with a `type`. */
export function parseMessage(text) {
  let message;
  try {
    message = JSON.parse(text);
  } catch {
    throw new ProtocolError("the server sent a text message that is not JSON");
  }
  if (message === null || typeof message !== "object" || typeof message.type !== "string") {
    throw new ProtocolError("the server sent a message without a type");
  }
  return message;
}

const REFUSALS = {
  4400: ["AC_BAD_MESSAGE", "The server did not understand this client."],
  4401: ["AC_UNAUTHENTICATED", "You are not signed in, or the sign-in has expired."],
  4403: ["AC_FORBIDDEN", "You may not broadcast this show."],
  4413: ["AC_TOO_LARGE", "The server refused a message as too large."],
  4415: ["AC_UNSUPPORTED_MEDIA", "The server does not accept this recording format."],
  4429: ["AC_TOO_MANY", "Too many broadcasts are running on the server."],
};

const explained = (error, code, message) => ({
  code: error?.code ?? code,
  message: error?.message || message,
});

/**
 * What the end of a connection means. `error` is the server's last `error` message, if any. `kind` is
 * `done`, `conflict`, `superseded`, `refused`, `offset` (the server does not agree about where a take
 * stands, which the uplink can settle) or `retry` (with `when`: `now`, `backoff` or a delay in ms).
 * Whatever is not a refusal is retried: nobody but the server's word ends a show.
 */
export function classifyClose(code, error = null) {
  if (code === 1000) return { kind: "done" };
  if (code === 4409) {
    return { kind: "conflict", error: explained(error, "AC_CONFLICT", "Another broadcaster is live on this show.") };
  }
  if (code === 4410) {
    const message = "A newer connection has taken over this show.";
    return { kind: "superseded", error: explained(error, "AC_SUPERSEDED", message) };
  }
  if (error?.code === "AC_BAD_OFFSET") return { kind: "offset", error };
  const refusal = REFUSALS[code];
  if (refusal) return { kind: "refused", error: explained(error, ...refusal) };
  if (code === 1001) return { kind: "retry", when: "now", error: null };
  const retryMs = error?.retry_ms;
  const when = Number.isFinite(retryMs) ? Math.min(Math.max(retryMs, 0), RETRY_CEILING_MS) : "backoff";
  return { kind: "retry", when, error };
}

/** Full-jitter delay in ms before reconnect number `attempt` (0-based): 250 ms up to 5 s, for ever. */
export function backoffMs(attempt, random = Math.random) {
  const ceiling = Math.min(BACKOFF_CEILING_MS, 500 * 2 ** Math.min(attempt, 10));
  return Math.round(BACKOFF_FLOOR_MS + random() * (ceiling - BACKOFF_FLOOR_MS));
}

/** Delay before the next connection. An "at once" that did not help falls back to the jitter. */
export function reconnectDelay(when, attempt, random = Math.random) {
  if (when === "now") return attempt === 0 ? 0 : backoffMs(attempt, random);
  if (when === "backoff") return backoffMs(attempt, random);
  return when;
}
