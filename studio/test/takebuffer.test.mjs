//! The take's buffer and the places where a take may be cut.

import assert from "node:assert/strict";
import { test } from "node:test";
import { containerOf, headerLength, lastBoundary } from "../container.js";
import { RETAIN_BYTES, TakeBuffer } from "../takebuffer.js";

const EBML = [0x1a, 0x45, 0xdf, 0xa3, 1, 2, 3, 4];
const CLUSTER = [0x1f, 0x43, 0xb6, 0x75, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xe7, 0x81, 0x00];
const bytes = (...parts) => Uint8Array.from(parts.flat());
const filled = (length, value) => Array.from({ length }, () => value);

function takeOf(...parts) {
  const take = new TakeBuffer({ id: "t", mime: "audio/webm;codecs=opus" });
  parts.forEach((part, i) => take.append(bytes(part), i * 250));
  return take;
}

test("bytes are read back across chunks from any offset", () => {
  const take = takeOf([1, 2, 3], [4, 5], [6]);
  assert.deepEqual([...take.read(1, 4)], [2, 3, 4, 5]);
  assert.deepEqual([...take.read(5, 10)], [6]);
  assert.equal(take.read(6, 10).length, 0);
});

test("acknowledged bytes are kept until they are archived", () => {
  const take = takeOf([1, 2], [3, 4], [5, 6]);
  take.ack(4, 0);
  assert.equal(take.first, 0);
  take.ack(4, 2);
  assert.equal(take.first, 2);
  assert.equal(take.unacked, 2);
  take.ack(3, 0);
  assert.equal(take.acked, 4, "an older ack changes nothing");
});

test("acknowledged bytes that never get archived are kept up to the cap only", () => {
  const take = new TakeBuffer({ id: "t", mime: "audio/webm" });
  const mebibyte = new Uint8Array(1024 * 1024);
  for (let i = 0; i < 20; i += 1) take.append(mebibyte, i);
  take.ack(20 * mebibyte.length, 0);
  assert.equal(take.next - take.first, RETAIN_BYTES);
});

test("a server that lost its disk gets back what it had acknowledged", () => {
  const take = takeOf([1, 2], [3, 4]);
  take.ack(4, 0);
  take.resume(1);
  assert.equal(take.unacked, 3);
  assert.deepEqual([...take.read(1, 9)], [2, 3, 4]);
});

test("the age of the tail is that of its oldest unacknowledged byte", () => {
  const take = takeOf([1, 2], [3, 4], [5]);
  assert.equal(take.oldestUnackedAt, 0);
  take.ack(3);
  assert.equal(take.oldestUnackedAt, 250);
  take.ack(5);
  assert.equal(take.oldestUnackedAt, null);
});

test("what is dropped at the cap moves first beyond the acknowledged offset", () => {
  const take = takeOf([1, 2], [3, 4], [5, 6]);
  take.ack(2);
  assert.equal(take.dropUnacked(1), 2);
  assert.equal(take.first, 4);
  assert.equal(take.unacked, 2);
});

test("a rebased webm take is its header and whole clusters from before the durable offset", () => {
  const header = EBML;
  const first = [...CLUSTER, ...filled(10, 0xaa)];
  const second = [...CLUSTER, ...filled(10, 0xbb)];
  const take = takeOf(header, first, second, [...CLUSTER, ...filled(10, 0xcc)]);
  take.ack(header.length + first.length + 3);
  const { take: fresh, shift } = take.rebase("t2");
  assert.deepEqual([...fresh.read(0, 1e6)], [...header, ...second, ...CLUSTER, ...filled(10, 0xcc)]);
  assert.equal(shift, first.length);
  assert.equal(fresh.id, "t2");
  assert.equal(fresh.acked, 0);
});

test("a rebased take without a cluster at hand loses nothing all the same", () => {
  const take = takeOf(EBML, [...CLUSTER, ...filled(30, 0xaa)], filled(20, 0xbb));
  take.ack(60, 55);
  const { take: fresh } = take.rebase("t2");
  const text = [...fresh.read(0, 1e6)];
  assert.deepEqual(text.slice(0, EBML.length), EBML);
  assert.deepEqual(text.slice(-(take.next - take.acked)), [...take.read(take.acked, 1e6)]);
});

test("a take that was never acknowledged is rebased whole", () => {
  const take = takeOf(EBML, [...CLUSTER, 9]);
  const { take: fresh, shift } = take.rebase("t2");
  assert.deepEqual([...fresh.read(0, 1e6)], [...take.read(0, 1e6)]);
  assert.equal(shift, 0);
});

test("a stored take keeps its head and its unbroken tail", () => {
  const head = { offset: 0, bytes: bytes(EBML, CLUSTER), at: 1 };
  const tail = [
    { offset: 102, bytes: bytes([3, 4]), at: 3 },
    { offset: 100, bytes: bytes([1, 2]), at: 2 },
  ];
  const take = TakeBuffer.restore({ id: "t", mime: "audio/webm", acked: 101, chunks: [...tail, head] });
  assert.equal(take.first, 100);
  assert.equal(take.next, 104);
  assert.equal(take.unacked, 3);
  assert.equal(take.ended, true);
  assert.deepEqual([...take.rebase("t2").take.read(0, 1e6)], [...EBML, 2, 3, 4]);
});

test("an mp4 header ends at the first fragment and fragments are boundaries", () => {
  const box = (type, body) => [0, 0, 0, 8 + body.length, ...Buffer.from(type), ...body];
  const fragment = box("moof", box("mfhd", [0, 0, 0, 0]));
  const init = [...box("ftyp", [1, 2, 3, 4]), ...box("moov", filled(20, 7))];
  const stream = bytes(init, fragment, box("mdat", filled(9, 5)), fragment);
  assert.equal(containerOf(stream), "mp4");
  assert.equal(headerLength(stream), init.length);
  assert.equal(lastBoundary("mp4", stream, stream.length), stream.length - fragment.length);
});

test("an ogg header ends at the first page with audio and pages are boundaries", () => {
  const page = (granule, body) => [
    ...Buffer.from("OggS"),
    0,
    0,
    granule,
    ...filled(7, 0),
    ...filled(12, 0),
    1,
    body.length,
    ...body,
  ];
  const headers = [...page(0, filled(19, 1)), ...page(0, filled(30, 2))];
  const stream = bytes(headers, page(9, [3, 3]), page(18, [4, 4, 4]), [0, 0, 0, 0, 0, 0]);
  assert.equal(headerLength(stream), headers.length);
  assert.equal(lastBoundary("ogg", stream, headers.length + 5), headers.length);
});

test("a cluster id inside of audio is not a boundary", () => {
  const stream = bytes(EBML, CLUSTER, filled(5, 1), [0x1f, 0x43, 0xb6, 0x75, 0x81, 0x00], filled(5, 1));
  assert.equal(lastBoundary("webm", stream, stream.length), EBML.length);
});
