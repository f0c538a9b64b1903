//! What the page says: lamps, banner, numbers.

import assert from "node:assert/strict";
import { test } from "node:test";
import { airLamp, banner, clockWords, sinkRows, sizeWords, tapeLamp, watchLine } from "../words.js";

const live = { state: "live", onAir: true, recording: "recording", lostBytes: 0, unackedMs: 500, unackedBytes: 100 };

test("the tape lamp follows the server's acks and not the socket", () => {
  assert.equal(tapeLamp(live).state, "green");
  assert.equal(tapeLamp({ ...live, unackedMs: 2_500 }).state, "amber");
  assert.equal(tapeLamp({ ...live, unackedMs: 12_000 }).state, "red");
  assert.equal(tapeLamp({ ...live, state: "reconnecting", unackedMs: 1_000 }).state, "green");
});

test("a failed recording or lost bytes are red however fast the acks are", () => {
  assert.equal(tapeLamp({ ...live, recording: "failed", recordingError: "disk full" }).state, "red");
  assert.equal(tapeLamp({ ...live, lostBytes: 1 }).state, "red");
});

test("a parked client does not call undelivered bytes safe", () => {
  const lamp = tapeLamp({ ...live, state: "superseded", unackedMs: 0, unackedBytes: 4_700 });
  assert.deepEqual(lamp, { state: "amber", text: "4.7 kB not delivered" });
  assert.equal(tapeLamp({ ...live, state: "idle", unackedBytes: 0 }).state, "off");
});

test("the air lamp is on only while the server says live", () => {
  assert.equal(airLamp(live).state, "on");
  assert.equal(airLamp({ ...live, state: "reconnecting", onAir: false }).state, "wait");
  assert.equal(airLamp({ ...live, state: "archived", onAir: false }).state, "off");
});

test("the banner offers takeover, another try, or only the truth", () => {
  const error = { code: "AC_CONFLICT", message: "Ann is live" };
  assert.deepEqual(banner({ state: "conflict", error }), { error, actions: ["takeover"] });
  assert.deepEqual(banner({ state: "failed", error }).actions, ["retry"]);
  assert.equal(banner({ state: "live", error }).error, null);
  assert.equal(banner({ ...live, recording: "failed" }).error.code, "AC_RECORDING_FAILED");
  const ended = { state: "failed", recording: "failed", recordingRow: { status: "failed", error: "disk full" } };
  assert.match(banner(ended).error.message, /disk full/);
});

const icecast = { name: "icecast://a/7.mp3", state: "up", error: null, lost_clusters: 0, restarts: 0 };
const rtmp = { ...icecast, name: "rtmp://b/live", state: "down", error: "connection refused" };

test("every alarm and every server that is down is a warning in plain words", () => {
  const calm = { ...live, alarms: [], sinks: [icecast] };
  assert.deepEqual(watchLine(calm), { state: "off", text: "No warnings." });
  for (const [alarm, words] of [
    ["no_data", /No sound reaches/],
    ["silence", /silent/],
    ["clipping", /turn the level down/],
    ["of_tomorrow", /of_tomorrow/],
  ]) {
    const said = watchLine({ ...calm, alarms: [alarm] });
    assert.equal(said.state, "bad");
    assert.match(said.text, words);
  }
  const both = watchLine({ ...calm, alarms: ["silence"], sinks: [icecast, rtmp] });
  assert.match(both.text, /silent.*rtmp:\/\/b\/live does not get the show/);
});

test("what a connection said is not repeated when it is gone", () => {
  const lost = { ...live, state: "reconnecting", alarms: ["silence"], sinks: [icecast] };
  assert.deepEqual(watchLine(lost), { state: "off", text: "" });
  assert.deepEqual(sinkRows(lost)[0].state, "unknown");
  assert.deepEqual(sinkRows({ ...lost, state: "archived" }), []);
});

test("a server that the show is carried on to says how it is", () => {
  const worn = { ...icecast, restarts: 2, lost_clusters: 1 };
  const rows = sinkRows({ ...live, sinks: [icecast, worn, rtmp, { ...icecast, state: "starting" }] });
  assert.deepEqual(
    rows.map(({ state, text }) => [state, text]),
    [
      ["up", "up"],
      ["up", "up, begun anew 2 times, 1 piece lost"],
      ["down", "down, tried again by itself: connection refused"],
      ["starting", "connecting"],
    ],
  );
});

test("numbers are said the way people read them", () => {
  assert.equal(sizeWords(0), "0 B");
  assert.equal(sizeWords(1_440_000), "1.4 MB");
  assert.equal(clockWords(3_723_000), "1:02:03");
});
