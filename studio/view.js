//! Puts a broadcaster's snapshot on the page. Reads nothing but the snapshot and decides nothing.

import { isPlayable, recordingDetail } from "./recordings.js";
import { airLamp, clockWords, sinkRows, sizeWords, stateWords, tapeLamp, watchLine } from "./words.js";

const TONES = { live: "good", archived: "good", connecting: "wait", reconnecting: "wait", finalizing: "wait" };
const BAD = new Set(["failed", "conflict", "superseded"]);

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** Sets text only when it changes, so that screen readers hear changes only. */
export function setText(id, text) {
  const target = byId(id);
  if (target.textContent !== text) target.textContent = text;
}

function setBytes(id, bytes) {
  byId(id).dataset.bytes = String(bytes);
  setText(id, sizeWords(bytes));
}

function setLamp(id, { state, text }) {
  byId(id).dataset.state = state;
  setText(`${id}-text`, text);
}

/** Shows or hides the error banner; `actions` names the buttons it offers. */
export function showError(error, actions = []) {
  byId("error").hidden = error === null;
  if (error === null) return;
  setText("error-message", error.message);
  setText("error-code", error.code ?? "");
  byId("error").dataset.code = error.code ?? "";
  for (const id of ["takeover", "retry"]) byId(id).hidden = !actions.includes(id);
}

/** A remark that is not an error; empty hides it. */
export function showNote(text) {
  byId("note").hidden = text === "";
  setText("note", text);
}

function drawConsole(snapshot) {
  const { state } = snapshot;
  const isRunning = ["connecting", "live", "reconnecting"].includes(state) && !snapshot.stopRequested;
  const isEnding = state === "finalizing" || (snapshot.stopRequested && state === "reconnecting");
  const pill = byId("state");
  setText("state", state);
  pill.dataset.tone = BAD.has(state) ? "bad" : (TONES[state] ?? "");
  setText("words", stateWords(snapshot));
  byId("go-live").hidden = isRunning || isEnding || state === "conflict" || state === "superseded";
  byId("stop").hidden = !isRunning && !isEnding;
  byId("stop").disabled = isEnding;
  setText("stop", isEnding ? "Ending…" : "Stop");
  byId("show").disabled = isRunning || isEnding;
  byId("marker-form").hidden = !isRunning;
}

/** Draws everything that follows from a snapshot. */
export function draw(snapshot, { now, downloadUrlOf }) {
  drawConsole(snapshot);
  setLamp("on-air", airLamp(snapshot));
  setLamp("on-tape", tapeLamp(snapshot));
  drawWatch(snapshot);
  setBytes("acked", snapshot.acked);
  setBytes("archived-bytes", snapshot.archived);
  setBytes("pending", snapshot.unackedBytes);
  const listeners = snapshot.onAir ? (snapshot.listeners ?? 0) : 0;
  setText("listeners", String(listeners));
  setText("listeners-word", listeners === 1 ? "listener" : "listeners");
  const isCounting = ["connecting", "live", "reconnecting"].includes(snapshot.state);
  if (snapshot.state === "idle") setText("elapsed", clockWords(0));
  if (isCounting && snapshot.startedAt !== null) setText("elapsed", clockWords(now - snapshot.startedAt));
  drawRecording(snapshot, downloadUrlOf);
}

/** What is amiss is said aloud; the servers are listed beside it, for reading only. */
function drawWatch(snapshot) {
  const { state, text } = watchLine(snapshot);
  byId("watch").dataset.state = state;
  setText("watch", text);
  const rows = sinkRows(snapshot);
  const list = byId("sinks");
  const drawn = JSON.stringify(rows);
  if (list.dataset.drawn === drawn) return;
  list.dataset.drawn = drawn;
  list.replaceChildren(...rows.map(sinkRow));
  byId("carried").hidden = rows.length === 0;
}

function sinkRow({ name, state, text }) {
  const row = document.createElement("li");
  row.dataset.state = state;
  const [code, said] = ["code", "span"].map((tag) => document.createElement(tag));
  code.textContent = name;
  said.textContent = text;
  row.append(code, said);
  return row;
}

function drawRecording(snapshot, downloadUrlOf) {
  const card = byId("recording");
  const row = snapshot.recordingRow;
  const isFinalizing = snapshot.state === "finalizing";
  card.hidden = !isFinalizing && !row;
  if (card.hidden) {
    stopPlayer();
    delete card.dataset.id;
    delete card.dataset.status;
    return;
  }
  const status = row?.status ?? "finalizing";
  const isDrawn = card.dataset.status === status && card.dataset.id === (row ? String(row.id) : undefined);
  drawProgress(snapshot);
  if (isDrawn) return;
  card.dataset.status = status;
  byId("recording-detail").replaceChildren();
  stopPlayer();
  if (!row) return;
  card.dataset.id = String(row.id);
  byId("recording-detail").replaceChildren(...recordingDetail(row, downloadUrlOf(row.id)));
  if (isPlayable(row)) {
    byId("player").src = downloadUrlOf(row.id);
    byId("player").hidden = false;
  }
}

function stopPlayer() {
  const player = byId("player");
  if (player.hidden && !player.hasAttribute("src")) return;
  player.hidden = true;
  player.removeAttribute("src");
  player.load();
}

function drawProgress({ recordingRow, progress }) {
  const bar = byId("recording-bar");
  bar.hidden = Boolean(recordingRow);
  if (recordingRow) {
    const isWhole = recordingRow.status === "archived";
    setText("recording-progress", isWhole ? "Archived and ready to play." : "Incomplete. What could be saved is here.");
    return;
  }
  if (progress?.bytes > 0 && Number.isFinite(progress.archived)) {
    bar.max = progress.bytes;
    bar.value = progress.archived;
    setText(
      "recording-progress",
      `Finalizing: ${sizeWords(progress.archived)} of ${sizeWords(progress.bytes)} archived`,
    );
  } else {
    bar.removeAttribute("value");
    setText("recording-progress", "Finalizing…");
  }
}
