//! What the page says: lamps, banner, numbers.

import assert from "node:assert/strict";
import { test } from "node:test";
import { airLamp, banner, clockWords, sizeWords, tapeLamp } from "../words.js";

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

test("numbers are said the way people read them", () => {
  assert.equal(sizeWords(0), "0 B");
  assert.equal(sizeWords(1_440_000), "1.4 MB");
  assert.equal(clockWords(3_723_000), "1:02:03");
});
