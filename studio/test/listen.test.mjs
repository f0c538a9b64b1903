//! What a listener's page does next, whatever happens to the stream.

import assert from "node:assert/strict";
import { test } from "node:test";
import { START, hasHead, pauseMs, showOf, sourceType, stateWords, step, upkeep } from "../listening.js";

/** Runs events, each `[kind, now, more]`; the last answer. */
function after(...events) {
  let answer = { model: START, action: null };
  for (const [kind, now = 0, more = {}] of events) answer = step(answer.model, { kind, now, ...more }, 0.5);
  return answer;
}

test("play connects, sound is live, and stop is final whatever comes late", () => {
  assert.equal(after(["play"]).action, "connect");
  assert.equal(after(["play"], ["sound"]).model.state, "live");
  const stopped = after(["play"], ["sound"], ["stop"]);
  assert.deepEqual([stopped.model.state, stopped.action], ["stopped", "halt"]);
  for (const late of ["due", "sound", "ended", "broken", "dry", "refused"])
    assert.deepEqual(step(stopped.model, { kind: late, now: 9 }), { model: START, action: null });
});

test("a second press while it plays starts nothing twice", () => {
  assert.equal(after(["play"], ["play"]).action, null);
});

test("a show that is off air is looked for until it is on, without ever giving up", () => {
  let answer = after(["play"], ["refused", 0, { status: 404 }]);
  for (let round = 0; round < 100; round += 1) {
    assert.deepEqual([answer.model.state, answer.action], ["offline", "retry"]);
    assert.ok(answer.delayMs >= 4_000 && answer.delayMs <= 12_000);
    const due = step(answer.model, { kind: "due", now: 0 });
    assert.deepEqual([due.model.state, due.action], ["offline", "connect"]);
    answer = step(due.model, { kind: "refused", now: 0, status: 404 });
  }
  const due = step(answer.model, { kind: "due", now: 0 });
  assert.equal(step(due.model, { kind: "sound", now: 0 }).model.state, "live");
});

test("a show that was heard and is off air has ended, and the next one is waited for", () => {
  const ended = after(["play"], ["sound"], ["ended", 60_000], ["due"], ["refused", 0, { status: 404 }]);
  assert.deepEqual([ended.model.state, ended.action], ["ended", "retry"]);
  const due = step(ended.model, { kind: "due", now: 0 });
  assert.deepEqual([due.model.state, due.action], ["ended", "connect"]);
  assert.equal(step(due.model, { kind: "sound", now: 0 }).model.state, "live");
  const again = after(["play"], ["sound"], ["stop"], ["play"], ["refused", 0, { status: 404 }]);
  assert.equal(again.model.state, "offline", "another press knows of no show");
});

test("a stream that ends is fetched again soon, and ever later while it has no sound", () => {
  const first = after(["play"], ["sound", 0], ["ended", 60_000]);
  assert.deepEqual([first.model.state, first.action], ["waiting", "retry"]);
  assert.ok(first.delayMs <= 500);
  let { model } = first;
  const delays = [];
  for (let round = 0; round < 12; round += 1) {
    const answer = step(step(model, { kind: "due", now: 0 }).model, { kind: "broken", now: 0 }, 1);
    delays.push(answer.delayMs);
    model = answer.model;
  }
  assert.deepEqual(delays.slice(0, 3), [1_000, 2_000, 4_000]);
  assert.equal(delays.at(-1), 15_000);
});

test("a stream that breaks at once again and again does not hammer the server", () => {
  let model = after(["play"]).model;
  for (let round = 0; round < 6; round += 1) {
    model = step(model, { kind: "sound", now: round }).model;
    model = step(model, { kind: "ended", now: round + 100 }, 1).model;
    model = step(model, { kind: "due", now: round + 200 }).model;
  }
  assert.equal(step(model, { kind: "broken", now: 999 }, 1).delayMs, 15_000);
});

test("a refusal that names a time is not asked before it", () => {
  const answer = after(["play"], ["refused", 0, { status: 429, retryMs: 10_000 }]);
  assert.deepEqual([answer.model.state, answer.delayMs], ["waiting", 10_000]);
});

test("silence of the host is waiting, and goes on as live without a new connection", () => {
  const dry = after(["play"], ["sound"], ["dry", 5_000]);
  assert.deepEqual([dry.model.state, dry.action], ["waiting", null]);
  assert.equal(step(dry.model, { kind: "sound", now: 9_000 }).model.state, "live");
  assert.equal(after(["play"], ["dry"]).model.state, "connecting", "nothing was heard yet");
});

test("pauses are spread, so that a crowd does not return at once", () => {
  assert.deepEqual([pauseMs(0, 0), pauseMs(0, 1)], [125, 500]);
  assert.deepEqual([pauseMs(50, 0), pauseMs(50, 1)], [3_750, 15_000]);
});

test("the show comes from the address, and nothing else does", () => {
  assert.equal(showOf({ pathname: "/listen/morning-7", search: "" }), "morning-7");
  assert.equal(showOf({ pathname: "/studio/listen.html", search: "?show=7" }), "7");
  for (const bad of ["", "?show=", "?show=../x", "?show=a%20b", `?show=${"x".repeat(65)}`])
    assert.equal(showOf({ pathname: "/studio/listen.html", search: bad }), "");
});

test("the codecs come from the stream's own head", () => {
  const bytes = (text) => new TextEncoder().encode(text);
  assert.equal(sourceType("audio/webm", bytes("..A_OPUS..")), 'audio/webm;codecs="opus"');
  assert.equal(sourceType("video/webm;codecs=vp8", bytes("A_OPUS V_VP8")), 'video/webm;codecs="opus,vp8"');
  assert.equal(sourceType("video/webm", bytes("V_VP8")), 'video/webm;codecs="vp8"');
  assert.equal(sourceType("audio/unknown", bytes("?")), "audio/unknown");
  assert.equal(hasHead(new Uint8Array([1, 0x1f, 0x43, 0xb6, 0x75, 9])), true);
  assert.equal(hasHead(new Uint8Array([0x1f, 0x43, 0xb6])), false);
});

test("a player far behind is brought to the live edge, and what was heard is freed", () => {
  assert.deepEqual(upkeep({ time: 3, start: 0, end: 6 }), { seekTo: null, dropBefore: null });
  assert.deepEqual(upkeep({ time: 3, start: 0, end: 40 }), { seekTo: 37, dropBefore: null });
  assert.deepEqual(upkeep({ time: 0, start: 5, end: 9 }), { seekTo: 6, dropBefore: null });
  assert.deepEqual(upkeep({ time: 100, start: 0, end: 104 }), { seekTo: null, dropBefore: 90 });
});

test("every state has words", () => {
  for (const state of ["stopped", "connecting", "live", "waiting", "offline", "ended"])
    assert.equal(stateWords(state).label, state);
});
