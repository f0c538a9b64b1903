//! Addresses, close codes and the reconnect policy.

import assert from "node:assert/strict";
import { test } from "node:test";
import * as protocol from "../protocol.js";

test("the socket's address follows the page's and carries the query", () => {
  assert.equal(protocol.streamUrl("http://a:8080/x", { showId: "7" }), "ws://a:8080/ws/stream?show_id=7");
  const url = protocol.streamUrl("https://a", { showId: "7", token: "t", force: true });
  assert.equal(url, "wss://a/ws/stream?show_id=7&token=t&force=true");
});

test("only the server's refusal ends the attempts", () => {
  for (const code of [1005, 1006, 1011, 1012, 4408, 4503, 4999]) {
    assert.equal(protocol.classifyClose(code).kind, "retry", String(code));
  }
  for (const code of [4400, 4401, 4403, 4413, 4415, 4429]) {
    const { kind, error } = protocol.classifyClose(code);
    assert.equal(kind, "refused", String(code));
    assert.match(error.code, /^AC_/);
  }
  assert.equal(protocol.classifyClose(4409).kind, "conflict");
  assert.equal(protocol.classifyClose(4410).kind, "superseded");
  assert.equal(protocol.classifyClose(1000).kind, "done");
});

test("the server's own words are shown rather than ours", () => {
  const { error } = protocol.classifyClose(4403, { code: "AC_FORBIDDEN", message: "show 7 is Ann's" });
  assert.deepEqual(error, { code: "AC_FORBIDDEN", message: "show 7 is Ann's" });
});

test("delays are jittered between a quarter of a second and five", () => {
  assert.equal(
    protocol.backoffMs(0, () => 0),
    250,
  );
  assert.equal(
    protocol.backoffMs(99, () => 1),
    5_000,
  );
  assert.ok(protocol.backoffMs(0, () => 1) <= 500);
});

test("a draining server is left at once, but not in a tight loop", () => {
  const { when } = protocol.classifyClose(1001);
  assert.equal(
    protocol.reconnectDelay(when, 0, () => 0),
    0,
  );
  assert.ok(protocol.reconnectDelay(when, 1, () => 0) >= 250);
});

test("the server's retry time is kept", () => {
  const { when } = protocol.classifyClose(4503, { code: "AC_UNAVAILABLE", message: "", retry_ms: 1234 });
  assert.equal(protocol.reconnectDelay(when, 5), 1234);
});

test("show ids are those of the contract", () => {
  for (const id of ["7", "late-night_2", "A".repeat(64)]) assert.ok(protocol.isShowId(id), id);
  for (const id of ["", "-a", "a b", "A".repeat(65), "é"]) assert.ok(!protocol.isShowId(id), id);
});

test("a message without a type is a protocol error", () => {
  for (const text of ["x", "null", "[]", "{}"]) {
    assert.throws(() => protocol.parseMessage(text), protocol.ProtocolError);
  }
});

test("a rehearsal says so in the address", () => {
  assert.equal(protocol.streamUrl("http://a", { showId: "7", test: true }), "ws://a/ws/stream?show_id=7&test=true");
});
