//! How numbers and states are said to people. Pure; owns no element.

const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** `1.4 MB`. */
export function sizeWords(bytes) {
  let value = bytes ?? 0;
  let unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : 1;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

/** `1:02:03`. */
export function clockWords(ms) {
  const seconds = Math.max(0, Math.floor((ms ?? 0) / 1000));
  const two = (n) => String(n).padStart(2, "0");
  return `${Math.floor(seconds / 3600)}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
}

const secondsWords = (ms) => `${(ms / 1000).toFixed(1)} s`;

/** One sentence about where the broadcast stands. */
export function stateWords(snapshot) {
  switch (snapshot.state) {
    case "idle":
      return "Ready when you are.";
    case "connecting":
      return snapshot.attempt > 0 ? "No answer yet. Your sound is kept and the studio keeps trying." : "Connecting…";
    case "live":
      return snapshot.isRecording ? "You are live and being recorded." : "Live, but no sound comes in.";
    case "reconnecting":
      return snapshot.stopRequested
        ? "Connection lost. The rest is delivered as soon as it is back."
        : "Connection lost. Keep talking: everything is kept and sent later.";
    case "finalizing":
      return snapshot.unackedBytes > 0 ? "Delivering the last seconds…" : "Closing the recording…";
    case "archived":
      return "Done. The recording is archived.";
    case "failed":
      return snapshot.recordingRow ? "The show has ended; its recording is incomplete." : "The broadcast can't go on.";
    case "conflict":
      return "Somebody else is live on this show.";
    case "superseded":
      return "Another studio has taken over this show.";
    default:
      return snapshot.state;
  }
}

/** What the error banner says, `error: null` for nothing, and the buttons it offers. */
export function banner({ state, error, recording, recordingError, recordingRow }) {
  if (recordingRow?.status === "failed") {
    const message = `The recording is incomplete${recordingRow.error ? `: ${recordingRow.error}` : "."}`;
    return { error: { code: "AC_RECORDING_FAILED", message }, actions: [] };
  }
  if (recording === "failed" && RUNNING.has(state)) {
    const message = `You are on air, but the recording has failed${recordingError ? `: ${recordingError}` : "."}`;
    return { error: { code: "AC_RECORDING_FAILED", message }, actions: [] };
  }
  if (state === "live" || !error) return { error: null, actions: [] };
  const actions = { conflict: ["takeover"], superseded: ["takeover"], failed: ["retry"] }[state] ?? [];
  return { error, actions };
}

const ms = (span) => (span ? `${span.p50.toFixed(0)} ms, at worst ${span.p99.toFixed(0)} ms` : "not measured");

/** The rows of a rehearsal's sheet, as pairs of a name and what was found. */
export function sheetRows(sheet) {
  const { level } = sheet;
  return [
    ["Verdict", sheet.reasons.length > 0 ? `${sheet.verdict}: ${sheet.reasons.join("; ")}` : sheet.verdict],
    ["Round trip", ms(sheet.round_trip_ms)],
    ["Acknowledged after", ms(sheet.ack_ms)],
    ["Lost", sheet.lost_bytes > 0 ? sizeWords(sheet.lost_bytes) : "nothing"],
    ["Level", level ? `${level.rms_dbfs.toFixed(0)} dB, peak ${level.peak_dbfs.toFixed(0)} dB` : "not measured"],
  ];
}

const RUNNING = new Set(["connecting", "live", "reconnecting", "finalizing"]);
const GREEN_MS = 2_000;
const AMBER_MS = 10_000;

/** State and text of the "on tape" lamp: how far the server's disk is behind the microphone. */
export function tapeLamp({ state, recording, recordingError, lostBytes, unackedMs, unackedBytes }) {
  if (recording === "failed")
    return { state: "red", text: recordingError ? `failed: ${recordingError}` : "recording failed" };
  if (lostBytes > 0) return { state: "red", text: `memory full, ${sizeWords(lostBytes)} lost` };
  const isRunning = RUNNING.has(state);
  if (!isRunning) {
    if (state === "archived") return { state: "green", text: "archived" };
    if (unackedBytes === 0) return { state: "off", text: "not recording" };
    return { state: "amber", text: `${sizeWords(unackedBytes)} not delivered` };
  }
  if (unackedMs < GREEN_MS) return { state: "green", text: "safe" };
  return { state: unackedMs < AMBER_MS ? "amber" : "red", text: `${secondsWords(unackedMs)} not safe yet` };
}

const ALARMS = {
  no_data: "No sound reaches the server.",
  silence: "The show is silent: is the microphone muted?",
  clipping: "The sound is distorted: turn the level down.",
};
const RUNS = new Set(["live", "reconnecting"]);

/** What somebody should look at, in one line: `bad`, or `off`. It is read aloud, so no numbers are in it. */
export function watchLine({ state, alarms, sinks }) {
  if (state !== "live") return { state: "off", text: "" };
  const heard = alarms.map((alarm) => ALARMS[alarm] ?? `The server warns: ${alarm}.`);
  const lost = sinks.filter((sink) => sink.state === "down").map(({ name }) => `${name} does not get the show.`);
  const said = [...heard, ...lost];
  return said.length > 0 ? { state: "bad", text: said.join(" ") } : { state: "off", text: "No warnings." };
}

/** The servers that the show is carried on to: name, state and text of each. Only a connection knows of them. */
export function sinkRows({ state, sinks }) {
  if (!RUNS.has(state)) return [];
  if (state !== "live")
    return sinks.map(({ name }) => ({ name, state: "unknown", text: "not known while the connection is lost" }));
  return sinks.map((sink) => ({ name: sink.name, state: sink.state, text: sinkWords(sink) }));
}

function sinkWords({ state, error, lost_clusters: lost, restarts }) {
  if (state === "down") return `down, tried again by itself${error ? `: ${error}` : ""}`;
  if (state !== "up") return "connecting";
  const troubles = [
    restarts > 0 ? `begun anew ${restarts === 1 ? "once" : `${restarts} times`}` : "",
    lost > 0 ? `${lost} ${lost === 1 ? "piece" : "pieces"} lost` : "",
  ];
  return ["up", ...troubles.filter((trouble) => trouble !== "")].join(", ");
}

/** State and text of the "on air" lamp. */
export function airLamp({ state, onAir }) {
  if (onAir) return { state: "on", text: "live" };
  if (state === "connecting" || state === "reconnecting") return { state: "wait", text: "connecting" };
  return { state: "off", text: "not live" };
}
