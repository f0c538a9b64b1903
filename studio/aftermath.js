//! Finds out over HTTP how a broadcast ended whose connection was lost after `stop`. Connecting again
//! blindly could begin a new broadcast; this asks first. Never changes anything on the server.

import { backoffMs } from "./protocol.js";

/** Questions without an answer about our recording before it is given up as unknown. */
const QUESTION_LIMIT = 120;

const isEnded = (row) => row.status === "archived" || row.status === "failed";

/**
 * Resolves to `{kind:"alive"}` (the session still waits for us: connect and stop again), `{kind:"over"}`
 * (it ended without our last bytes: they must be delivered as a new session), `{kind:"ended", recording}`
 * or `{kind:"unknown"}`. `wait(ms)` pauses; `isAllAcked()` says whether anything is left to deliver;
 * `onProgress(row)` is told while the archive is being finalized; `isWanted()` turning false ends it.
 */
export async function aftermath({ api, showId, session, isAllAcked, isWanted, wait, onProgress }) {
  for (let question = 0; question < QUESTION_LIMIT && isWanted();) {
    const answer = await ask(api, showId, session, isAllAcked());
    // While the server can't be reached nothing is known and nothing is lost: ask for ever.
    if (answer.kind !== "unreachable") question += 1;
    if (answer.kind === "pending") onProgress(answer.recording);
    else if (answer.kind !== "unreachable" && answer.kind !== "absent") return answer;
    await wait(backoffMs(Math.min(question, 3)));
  }
  return { kind: "unknown" };
}

async function ask(api, showId, session, isAllAcked) {
  let status;
  let rows;
  try {
    status = await api.status(showId);
    rows = await api.recordings(showId);
  } catch {
    return { kind: "unreachable" };
  }
  const isOurs = status.session === session;
  if (isOurs && (status.state === "live" || status.state === "grace")) return { kind: "alive" };
  const isAnothers = !isOurs && Boolean(status.session) && status.state !== "idle";
  const row = rows.find(({ id }) => id === session) ?? rows[isAnothers ? 1 : 0];
  if (!row) return { kind: "absent" };
  // Our `stop` travels behind our last byte, so an end by "stop" proves that all of it arrived.
  if (!isAllAcked && row.end_reason && row.end_reason !== "stop") return { kind: "over" };
  return isEnded(row) ? { kind: "ended", recording: row } : { kind: "pending", recording: row };
}
