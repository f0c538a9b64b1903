//! How a broadcast ended, asked over HTTP.

import assert from "node:assert/strict";
import { test } from "node:test";
import { aftermath } from "../aftermath.js";

/** Answers one `[status, rows]` per question; `null` is an unreachable server. The last one repeats. */
function ask(answers, { isAllAcked = true } = {}) {
  let question = -1;
  const present = () => answers[Math.min(question, answers.length - 1)];
  const progress = [];
  const api = {
    status: async () => {
      question += 1;
      if (present() === null) throw new Error("unreachable");
      return present()[0];
    },
    recordings: async () => present()[1],
  };
  const outcome = aftermath({
    api,
    showId: "7",
    session: "s1",
    isAllAcked: () => isAllAcked,
    isWanted: () => true,
    wait: async () => {},
    onProgress: (row) => progress.push(row.status),
  });
  return outcome.then((result) => ({ ...result, progress }));
}

const idle = { session: null, active: false, state: "idle" };

test("a session in grace is connected to again", async () => {
  const { kind } = await ask([[{ session: "s1", active: true, state: "grace" }, []]]);
  assert.equal(kind, "alive");
});

test("progress is followed until the recording is archived, through outages", async () => {
  const finalizing = [{ session: "s1", active: false, state: "finalizing" }, [{ id: "r", status: "finalizing" }]];
  const { kind, recording, progress } = await ask([
    null,
    finalizing,
    null,
    finalizing,
    [idle, [{ id: "r", status: "archived" }]],
  ]);
  assert.equal(kind, "ended");
  assert.equal(recording.id, "r");
  assert.deepEqual(progress, ["finalizing", "finalizing"]);
});

test("an end without our stop means that the tail must still be delivered", async () => {
  const row = { id: "s1", status: "archived", end_reason: "grace_expired" };
  assert.equal((await ask([[idle, [row]]], { isAllAcked: false })).kind, "over");
  assert.equal((await ask([[idle, [row]]], { isAllAcked: true })).kind, "ended");
});

test("an end by our stop proves that the last bytes arrived", async () => {
  const row = { id: "s1", status: "archived", end_reason: "stop" };
  assert.equal((await ask([[idle, [row]]], { isAllAcked: false })).kind, "ended");
});

test("the next broadcast of the show is not mistaken for ours", async () => {
  const rows = [
    { id: "b", status: "recording" },
    { id: "a", status: "archived" },
  ];
  const { recording } = await ask([[{ session: "s2", active: true, state: "live" }, rows]]);
  assert.equal(recording.id, "a");
});

test("a server that knows nothing of us is not asked for ever", async () => {
  assert.equal((await ask([[idle, []]])).kind, "unknown");
});
