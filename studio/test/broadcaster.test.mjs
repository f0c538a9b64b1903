//! The whole client against a server in memory: drops, resumes, holes, ends, conflicts, stop, reload.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Broadcaster } from "../client.js";
import { FakeRecorder, FakeServer, ManualClock, MemoryMirror, settled } from "./fakes.mjs";

/** A client, its server, and a clock; ids are counted so that takes can be named. */
function studio(options = {}) {
  const server = options.server ?? new FakeServer();
  const clock = options.clock ?? new ManualClock();
  const prefix = options.prefix ?? "id";
  let count = 0;
  const broadcaster = new Broadcaster({
    showId: "7",
    baseUrl: "http://studio.test",
    WebSocket: server.WebSocket,
    MediaRecorder: FakeRecorder,
    api: server.api,
    clock,
    random: () => 0,
    newId: () => `${prefix}${(count += 1)}`,
    ...options,
  });
  return { server, clock, broadcaster, mirror: options.mirror };
}

async function liveStudio(options) {
  const all = studio(options);
  all.broadcaster.start("mic");
  await settled();
  return { ...all, recorder: FakeRecorder.last };
}

async function say(recorder, ...words) {
  for (const word of words) recorder.say(word);
  await settled();
}

test("going live sends the bytes in order and reports them acknowledged", async () => {
  const { server, broadcaster, recorder } = await liveStudio();
  await say(recorder, "one ", "two");
  assert.equal(broadcaster.state, "live");
  assert.equal(broadcaster.snapshot.acked, 7);
  assert.equal(broadcaster.snapshot.unackedMs, 0);
  assert.equal(server.text(server.current, "id2"), "one two");
  assert.equal(server.socket.protocols[0], "aircheck.v1");
  assert.equal(server.log[0].session, null);
  await broadcaster.abandon();
});

test("after a drop the same take goes on at the durable offset without loss or repetition", async () => {
  const { server, clock, broadcaster, recorder } = await liveStudio();
  await say(recorder, "heard ");
  server.acks = false;
  await say(recorder, "sent but unacknowledged ");
  const [take] = server.current.takes.values();
  take.bytes.length = "heard ".length; // What the ingest had not synced is gone.
  server.socket.end(1006);
  assert.equal(broadcaster.state, "reconnecting");
  await say(recorder, "while away ");
  server.acks = true;
  await clock.advance(1_000);
  await say(recorder, "again");
  assert.equal(broadcaster.state, "live");
  const hello = server.log.at(-1);
  assert.equal(hello.session, "s1");
  assert.equal(server.text(server.current, "id2"), "heard sent but unacknowledged while away again");
  assert.equal(FakeRecorder.last, recorder, "a reconnect does not restart the encoder");
  await broadcaster.abandon();
});

test("reconnecting goes on long after any grace", async () => {
  const { server, clock, broadcaster, recorder } = await liveStudio();
  server.unreachable = true;
  server.socket.end(1006);
  await clock.advance(10 * 60_000);
  assert.equal(broadcaster.state, "reconnecting");
  await say(recorder, "kept");
  server.unreachable = false;
  await clock.advance(5_000);
  assert.equal(broadcaster.state, "live");
  assert.equal(server.text(server.current, "id2"), "kept");
  await broadcaster.abandon();
});

test("a draining server is reconnected to at once", async () => {
  const { server, broadcaster } = await liveStudio();
  server.socket.end(1001);
  await settled();
  assert.equal(server.sockets.length, 2);
  assert.equal(broadcaster.state, "live");
  await broadcaster.abandon();
});

test("an unavailable server is retried after the time it names", async () => {
  const { server, clock, broadcaster } = studio();
  server.refuse = { code: 4503, error: { code: "AC_UNAVAILABLE", message: "no ingest", retry_ms: 3_000 } };
  broadcaster.start("mic");
  await settled();
  assert.equal(broadcaster.state, "connecting");
  assert.equal(broadcaster.snapshot.error.code, "AC_UNAVAILABLE");
  server.refuse = null;
  await clock.advance(2_500);
  assert.equal(server.sockets.length, 1);
  await clock.advance(1_000);
  assert.equal(broadcaster.state, "live");
  await broadcaster.abandon();
});

test("frames are never larger than the server allows", async () => {
  const server = new FakeServer();
  server.maxFrame = 10;
  const { broadcaster, recorder } = await liveStudio({ server });
  await say(recorder, "a".repeat(35));
  assert.deepEqual(server.frames, [10, 10, 10, 5]);
  await broadcaster.abandon();
});

test("a full socket holds the bytes back until it drains", async () => {
  const { server, clock, broadcaster, recorder } = await liveStudio();
  server.socket.bufferedAmount = 2 * 1024 * 1024;
  await say(recorder, "waits");
  assert.equal(server.frames.length, 0);
  server.socket.bufferedAmount = 0;
  await clock.advance(100);
  assert.equal(server.text(server.current, "id2"), "waits");
  await broadcaster.abandon();
});

test("a peer that stops answering is left and reconnected to", async () => {
  const { server, clock, broadcaster, recorder } = await liveStudio();
  server.acks = false;
  await say(recorder, "into the void");
  await clock.advance(14_000);
  assert.equal(server.sockets.length, 1);
  await clock.advance(3_000);
  assert.equal(server.sockets.length, 2);
  assert.equal(broadcaster.state, "live");
  await broadcaster.abandon();
});

test("a failed recording is shown and does not cut the live connection", async () => {
  const { server, clock, broadcaster, recorder } = await liveStudio();
  server.acks = false;
  server.socket.tell({ type: "state", live: true, recording: "failed", error: "disk full", listeners: 3 });
  await say(recorder, "on air only");
  await clock.advance(60_000);
  assert.equal(server.sockets.length, 1);
  assert.equal(broadcaster.snapshot.recording, "failed");
  assert.equal(broadcaster.snapshot.recordingError, "disk full");
  assert.equal(broadcaster.snapshot.onAir, true);
  await broadcaster.abandon();
});

test("alarms and sinks are shown as the server last said, and are none where it says nothing of them", async () => {
  const { server, broadcaster } = await liveStudio();
  assert.deepEqual([broadcaster.snapshot.alarms, broadcaster.snapshot.sinks], [[], []]);
  const state = { type: "state", live: true, recording: "recording", error: null, listeners: 0 };
  server.socket.tell({ ...state, alarms: ["silence"], sinks: [{ name: "rtmp://b/live", state: "down" }] });
  assert.deepEqual(broadcaster.snapshot.alarms, ["silence"]);
  assert.equal(broadcaster.snapshot.sinks[0].state, "down");
  server.socket.tell(state);
  assert.deepEqual([broadcaster.snapshot.alarms, broadcaster.snapshot.sinks], [[], []]);
  await broadcaster.abandon();
});

test("stop delivers the last blob before it says stop", async () => {
  const { server, broadcaster, recorder } = await liveStudio();
  await say(recorder, "main ");
  recorder.lastWords = "last words";
  const end = await broadcaster.stop();
  assert.equal(server.text(server.sessions[0], "id2"), "main last words");
  assert.equal(server.log.at(-1).type, "stop");
  assert.equal(end.state, "archived");
  assert.equal(end.recordingRow.id, "s1");
});

test("stop while the connection is down waits for it and loses nothing", async () => {
  const { server, clock, broadcaster, recorder } = await liveStudio();
  server.unreachable = true;
  server.socket.end(1006);
  await say(recorder, "offline end");
  const stopped = broadcaster.stop();
  await clock.advance(20_000);
  assert.equal(broadcaster.state, "reconnecting");
  server.unreachable = false;
  await clock.advance(5_000);
  assert.equal((await stopped).state, "archived");
  assert.equal(server.text(server.sessions[0], "id2"), "offline end");
});

test("a connection lost while finalizing does not begin a new broadcast", async () => {
  const { server, clock, broadcaster } = await liveStudio();
  server.archivesOnStop = false;
  const stopped = broadcaster.stop();
  await settled();
  server.socket.end(1006);
  await clock.advance(3_000);
  assert.equal(broadcaster.state, "finalizing");
  server.sessions[0].status = "archived";
  server.sessions[0].endReason = "stop";
  await clock.advance(10_000);
  assert.equal((await stopped).state, "archived");
  assert.equal(server.sessions.length, 1);
});

test("a stop that never arrived is said again on the same session", async () => {
  const { server, clock, broadcaster, recorder } = await liveStudio();
  await say(recorder, "all of it");
  server.received = (socket, data) => {
    if (data !== '{"type":"stop"}') return FakeServer.prototype.received.call(server, socket, data);
    delete server.received;
    return socket.end(1006);
  };
  const stopped = broadcaster.stop();
  await clock.advance(5_000);
  assert.equal((await stopped).state, "archived");
  assert.equal(server.sessions.length, 1);
});

test("bytes the cap pushed out become a hole that the server is told of", async () => {
  const { Uplink } = await import("../uplink.js");
  const { TakeBuffer } = await import("../takebuffer.js");
  const uplink = new Uplink({ newTakeId: () => "x", unackedCap: 6 });
  uplink.addTake(new TakeBuffer({ id: "t", mime: "audio/webm" }));
  for (const word of ["aaaa", "bbbb", "cccc"]) uplink.append("t", Buffer.from(word), 0);
  assert.equal(uplink.lostBytes, 8);
  assert.deepEqual(uplink.hello().take, { id: "t", mime: "audio/webm", first: 8, next: 12 });
  assert.equal(uplink.ready({ session: "s", take: "t", offset: 8 }), "continues");
  assert.equal(Buffer.from(uplink.next(99).bytes).toString(), "cccc");
  for (const word of ["dddd", "eeee", "ffff"]) uplink.append("t", Buffer.from(word), 0);
  assert.equal(uplink.next(99).kind, "reopen", "what is gone can't be skipped silently");
});

test("when the session is over the old tail and a new take go to the new session", async () => {
  const { server, clock, broadcaster, recorder } = await liveStudio();
  await say(recorder, "old show ");
  server.unreachable = true;
  server.socket.end(1006);
  await say(recorder, "in the gap ");
  recorder.lastWords = "end of old run";
  server.expireGrace();
  server.unreachable = false;
  await clock.advance(5_000);
  await say(FakeRecorder.last, "new run");
  assert.notEqual(FakeRecorder.last, recorder);
  const fresh = server.sessions[1];
  assert.equal(broadcaster.snapshot.session, fresh.id);
  assert.equal(broadcaster.snapshot.previous.session, "s1");
  const [asked, salvaged, begun] = [...fresh.takes.values()].map(({ id }) => server.text(fresh, id));
  assert.equal(asked, "", "nothing is sent for the take that the old session owned");
  assert.match(salvaged, /in the gap end of old run$/);
  assert.equal(begun, "new run");
  await broadcaster.abandon();
});

test("a change of device begins a new take behind the old one", async () => {
  const { server, broadcaster, recorder } = await liveStudio();
  await say(recorder, "first ");
  recorder.lastWords = "mic";
  await broadcaster.setStream("second mic");
  await say(FakeRecorder.last, "second mic");
  const texts = [...server.current.takes.keys()].map((id) => server.text(server.current, id));
  assert.deepEqual(texts, ["first mic", "second mic"]);
  assert.deepEqual(
    server.log.map(({ type }) => type),
    ["hello", "take"],
  );
  await broadcaster.abandon();
});

test("a new take waits until the old one is durable", async () => {
  const { server, broadcaster, recorder } = await liveStudio();
  server.acks = false;
  await say(recorder, "first");
  await broadcaster.setStream("second");
  await settled();
  assert.equal(server.log.length, 1);
  server.ackAll();
  await settled();
  assert.equal(server.log.at(-1).type, "take");
  await broadcaster.abandon();
});

test("a lost source leaves the show live and is reported", async () => {
  const { broadcaster, recorder } = await liveStudio();
  let lost = 0;
  broadcaster.addEventListener("source-lost", () => (lost += 1));
  recorder.stop();
  await settled();
  assert.equal(lost, 1);
  assert.equal(broadcaster.snapshot.isRecording, false);
  assert.equal(broadcaster.state, "live");
  await broadcaster.abandon();
});

test("a conflict offers takeover and force is used for that one attempt only", async () => {
  const mirror = new MemoryMirror();
  const { server, clock, broadcaster } = studio({ mirror });
  server.refuse = { code: 4409, error: { code: "AC_CONFLICT", message: "Ann is live" } };
  broadcaster.start("mic");
  await settled();
  assert.equal(mirror.unfinished().length, 0, "a false start is not offered for resuming");
  assert.equal(broadcaster.state, "conflict");
  assert.equal(broadcaster.snapshot.error.message, "Ann is live");
  assert.equal(FakeRecorder.last.state, "inactive");
  server.refuse = null;
  broadcaster.retry("mic", { force: true });
  await settled();
  assert.equal(broadcaster.state, "live");
  server.socket.end(1006);
  await clock.advance(1_000);
  assert.deepEqual(
    server.urls.map((url) => url.includes("force=true")),
    [false, true, false],
  );
  await broadcaster.abandon();
});

test("a superseded client stops recording, does not come back by itself, and keeps what it holds", async () => {
  const { server, clock, broadcaster, recorder } = await liveStudio();
  server.acks = false;
  await say(recorder, "unsent");
  server.sessions[0].takes.get("id2").bytes.length = 0;
  server.socket.end(4410);
  await clock.advance(60_000);
  assert.equal(broadcaster.state, "superseded");
  assert.equal(recorder.state, "inactive");
  assert.equal(server.sockets.length, 1);
  assert.equal(broadcaster.snapshot.unackedBytes, 6);
  server.acks = true;
  broadcaster.retry("mic", { force: true });
  await settled();
  assert.equal(server.text(server.current, "id2"), "unsent");
  await broadcaster.abandon();
});

test("a refusal is an error state with the server's code", async () => {
  const { server, broadcaster } = studio();
  server.refuse = { code: 4403, error: { code: "AC_FORBIDDEN", message: "not yours" } };
  broadcaster.start("mic");
  await settled();
  assert.equal(broadcaster.state, "failed");
  assert.equal(broadcaster.snapshot.error.code, "AC_FORBIDDEN");
});

test("a session ended by somebody else ends the recording here too", async () => {
  const { server, broadcaster, recorder } = await liveStudio();
  await say(recorder, "all");
  server.socket.tell({ type: "finalizing", bytes: 3, archived: 0 });
  await settled();
  assert.equal(broadcaster.state, "finalizing");
  assert.equal(recorder.state, "inactive");
  server.socket.tell({ type: "archived", recording: { id: "s1", status: "archived" } });
  assert.equal(broadcaster.state, "archived");
});

test("markers keep their place in the stream across a drop", async () => {
  const { server, clock, broadcaster, recorder } = await liveStudio();
  await say(recorder, "12345");
  server.unreachable = true;
  server.socket.end(1006);
  await say(recorder, "678");
  assert.equal(broadcaster.marker("the song", "track"), true);
  await say(recorder, "90");
  server.unreachable = false;
  await clock.advance(5_000);
  const [{ label, kind, at }] = server.current.markers;
  assert.deepEqual({ label, kind, at }, { label: "the song", kind: "track", at: 8 });
  assert.equal(server.text(server.current, "id2"), "1234567890");
  await broadcaster.abandon();
});

test("a reloaded page resumes the session with the stored tail and then its own take", async () => {
  const mirror = new MemoryMirror();
  const first = await liveStudio({ mirror });
  const { server, clock } = first;
  await say(first.recorder, "before ");
  server.unreachable = true;
  server.socket.end(1006);
  await say(first.recorder, "undelivered");
  const [stored] = mirror.unfinished(); // The page dies here, without a word.
  server.unreachable = false;
  const second = studio({ server, clock, mirror, prefix: "page2-" });
  second.broadcaster.resume(stored, "mic");
  await settled();
  await say(FakeRecorder.last, "after reload");
  assert.equal(server.sessions.length, 1);
  const texts = [...server.current.takes.keys()].map((id) => server.text(server.current, id));
  assert.deepEqual(texts, ["before undelivered", "after reload"]);
  assert.equal((await second.broadcaster.stop()).state, "archived");
  assert.equal(mirror.unfinished().length, 0, "what was delivered is forgotten");
});

test("a tail found after the grace is delivered without a microphone and then stopped", async () => {
  const mirror = new MemoryMirror();
  const first = await liveStudio({ mirror });
  const { server, clock } = first;
  await say(first.recorder, "before ");
  server.unreachable = true;
  server.socket.end(1006);
  await say(first.recorder, "lost tail");
  const [stored] = mirror.unfinished();
  server.expireGrace();
  server.unreachable = false;
  const second = studio({ server, clock, mirror, prefix: "page2-" });
  second.broadcaster.resume(stored, null);
  await clock.advance(5_000);
  assert.equal(second.broadcaster.state, "archived");
  const delivered = [...server.sessions[1].takes.keys()].map((id) => server.text(server.sessions[1], id)).join("");
  assert.match(delivered, /lost tail$/);
});

test("storage that fails leaves the show running from memory and says so", async () => {
  const mirror = new MemoryMirror();
  mirror.breaks = true;
  const { server, broadcaster, recorder } = await liveStudio({ mirror });
  await say(recorder, "goes on");
  assert.equal(broadcaster.snapshot.storage, "memory");
  assert.equal(server.text(server.current, "id2"), "goes on");
  await broadcaster.abandon();
});

test("a stored take of which the server holds more than the dead page had stored is left as it is", async () => {
  const mirror = new MemoryMirror();
  const first = await liveStudio({ mirror });
  const { server, clock } = first;
  await say(first.recorder, "stored ");
  const [stored] = mirror.unfinished();
  await say(first.recorder, "sent but never stored");
  stored.takes[0].acked = 0;
  server.socket.end(1006);
  server.refuse = { code: 4400, error: { code: "AC_BAD_OFFSET", message: "behind what is durable" } };
  const second = studio({ server, clock, mirror, prefix: "page2-" });
  second.broadcaster.resume(stored, "mic");
  await settled();
  assert.equal(second.broadcaster.state, "reconnecting");
  server.refuse = null;
  await clock.advance(1_000);
  await say(FakeRecorder.last, "after reload");
  assert.equal(server.log.at(-1).take.first, 0, "the next hello is about the new take");
  const texts = [...server.current.takes.keys()].map((id) => server.text(server.current, id));
  assert.deepEqual(texts, ["stored sent but never stored", "after reload"]);
  await second.broadcaster.abandon();
  await first.broadcaster.abandon();
});

test("a running take that can't be aligned is carried over whole and nothing is lost", async () => {
  const { server, clock, broadcaster, recorder } = await liveStudio();
  server.acks = false;
  await say(recorder, "not acknowledged ");
  recorder.lastWords = "last of the old run";
  server.socket.tell({ type: "error", code: "AC_BAD_OFFSET", message: "a hole" });
  server.socket.end(4400);
  server.acks = true;
  await clock.advance(1_000);
  await say(FakeRecorder.last, "new run");
  const texts = [...server.current.takes.keys()].map((id) => server.text(server.current, id));
  assert.deepEqual(texts.slice(1), ["not acknowledged last of the old run", "new run"]);
  assert.equal(broadcaster.state, "live");
  await broadcaster.abandon();
});
