//! A rehearsal against a server in memory: unheard, by its own clock, to its sheet.

import assert from "node:assert/strict";
import { test } from "node:test";
import { REHEARSAL_MS, rehearse } from "../rehearsal.js";
import { sheetRows } from "../words.js";
import { FakeRecorder, FakeServer, ManualClock, settled } from "./fakes.mjs";

const SHEET = {
  round_trip_ms: { p50: 20.4, p99: 51.2 },
  ack_ms: null,
  lost_bytes: 0,
  reconnects: 0,
  level: { rms_dbfs: -17.4, peak_dbfs: -0.5 },
  verdict: "good",
  reasons: [],
};

function begin(wait) {
  const server = new FakeServer();
  const options = {
    showId: "7",
    baseUrl: "http://studio.test",
    WebSocket: server.WebSocket,
    MediaRecorder: FakeRecorder,
    api: server.api,
    clock: new ManualClock(),
    random: () => 0,
  };
  return { server, over: rehearse("mic", options, wait) };
}

test("a rehearsal stops by itself and gives its sheet", async () => {
  let ring;
  const { server, over } = begin((ms) => new Promise((resolve) => ms === REHEARSAL_MS && (ring = resolve)));
  await settled();
  server.archivesOnStop = false;
  assert.match(server.socket.url, /test=true/);
  FakeRecorder.last.say("one two");
  await settled();
  ring();
  await settled();
  server.socket.tell({ type: "sheet", ...SHEET });
  server.socket.tell({ type: "archived", recording: { id: "1", status: "archived" } });
  server.socket.end(1000);
  const sheet = await over;
  assert.equal(sheet.verdict, "good");
  assert.deepEqual(sheetRows(sheet).slice(0, 3), [
    ["Verdict", "good"],
    ["Round trip", "20 ms, at worst 51 ms"],
    ["Acknowledged after", "not measured"],
  ]);
});

test("a server that never answers ends it with a reason", async () => {
  const { over } = begin(async () => undefined);
  await assert.rejects(over, { code: "AC_TIMEOUT" });
});
