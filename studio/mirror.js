//! Keeps a copy of the undelivered tail in IndexedDB, so that a reload or crash of the page loses
//! nothing. Storage that fails is reported once and then left alone: the broadcast goes on from memory.
//! Must never delay a broadcast, and never deletes what was not delivered or discarded by the user.

import { HEAD_BYTES } from "./takebuffer.js";

const DATABASE = "aircheck-studio";
const VERSION = 1;
const STORES = ["broadcasts", "takes", "chunks"];

/** Acknowledged bytes kept below the tail, so that it can be cut at a cluster. */
const SLACK_BYTES = 256 * 1024;

/** Acks are written down at most this often. */
const ACK_INTERVAL_MS = 1_000;

/** Bytes that may wait for the disk before the mirror is given up as too slow. */
const PENDING_LIMIT_BYTES = 32 * 1024 * 1024;

const lockName = (id) => `aircheck-broadcast-${id}`;
const rangeOf = (...prefix) => IDBKeyRange.bound(prefix, [...prefix, []]);

function promised(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function openDatabase() {
  const request = indexedDB.open(DATABASE, VERSION);
  request.onupgradeneeded = () => {
    const database = request.result;
    database.createObjectStore("broadcasts", { keyPath: "id" });
    database.createObjectStore("takes", { keyPath: ["broadcast", "id"] });
    database.createObjectStore("chunks", { keyPath: ["broadcast", "take", "offset"] });
  };
  return promised(request);
}

/** Holds a lock that lives as long as the page, so that no other tab takes this broadcast for an orphan. */
function holdLock(id) {
  if (!globalThis.navigator?.locks) return () => {};
  let release = () => {};
  const held = new Promise((resolve) => {
    release = resolve;
  });
  // Refusal only means that another tab could offer the same tail; the server fences that.
  navigator.locks.request(lockName(id), () => held).catch(() => {});
  return release;
}

async function heldLocks() {
  if (!globalThis.navigator?.locks) return new Set();
  const { held } = await navigator.locks.query();
  return new Set(held.map(({ name }) => name));
}

export class Mirror {
  #database;

  constructor(database) {
    this.#database = database;
  }

  /** Opens the browser's storage; rejects where there is none (private windows, blocked storage). */
  static async open() {
    return new Mirror(await openDatabase());
  }

  /** Broadcasts of `show` that no open page owns, the last active first, with everything still held of them. */
  async unfinished(show) {
    const locks = await heldLocks();
    const stores = this.#database.transaction(STORES, "readonly");
    const broadcasts = await promised(stores.objectStore("broadcasts").getAll());
    const orphans = broadcasts.filter((one) => one.show === show && !locks.has(lockName(one.id)));
    const restored = await Promise.all(
      orphans.map(async (one) => {
        const takes = await promised(stores.objectStore("takes").getAll(rangeOf(one.id)));
        const chunks = await promised(stores.objectStore("chunks").getAll(rangeOf(one.id)));
        takes.sort((a, b) => a.order - b.order);
        const lastAt = chunks.reduce((latest, { at }) => Math.max(latest, at), one.startedAt);
        const whole = takes.map((take) => ({ ...take, chunks: chunks.filter((c) => c.take === take.id) }));
        return { ...one, lastAt, takes: whole };
      }),
    );
    return restored.sort((a, b) => b.lastAt - a.lastAt);
  }

  /** Deletes all that is held of one broadcast. */
  discard(id) {
    const stores = this.#database.transaction(STORES, "readwrite");
    stores.objectStore("broadcasts").delete(id);
    stores.objectStore("takes").delete(rangeOf(id));
    stores.objectStore("chunks").delete(rangeOf(id));
    return new Promise((resolve, reject) => {
      stores.oncomplete = resolve;
      stores.onabort = () => reject(stores.error);
    });
  }

  /** The journal of one broadcast `{id, show, session, startedAt}`; `onDegraded(error)` is called at most once. */
  journal(broadcast, onDegraded) {
    return new MirrorJournal(this, this.#database, broadcast, onDegraded);
  }
}

class MirrorJournal {
  #mirror;
  #database;
  #broadcast;
  #onDegraded;
  #release;
  #isUsable = true;
  #pendingBytes = 0;
  #order = Date.now();
  #ackedAt = new Map();

  constructor(mirror, database, broadcast, onDegraded) {
    this.#mirror = mirror;
    this.#database = database;
    this.#broadcast = broadcast;
    this.#onDegraded = onDegraded;
    this.#release = holdLock(broadcast.id);
    this.#write(["broadcasts"], (broadcasts) => broadcasts.put(broadcast));
  }

  sessionChanged(session) {
    this.#broadcast = { ...this.#broadcast, session };
    this.#write(["broadcasts"], (broadcasts) => broadcasts.put(this.#broadcast));
  }

  takeOpened(take) {
    this.#order += 1;
    this.#putTake(take, this.#order);
  }

  appended(take, offset, bytes, at) {
    if (this.#pendingBytes > PENDING_LIMIT_BYTES) return this.#degrade(new Error("storage is too slow"));
    const record = { broadcast: this.#broadcast.id, take: take.id, offset, bytes: bytes.slice(), at };
    this.#pendingBytes += bytes.length;
    return this.#write(
      ["chunks"],
      (chunks) => chunks.put(record),
      () => {
        this.#pendingBytes -= bytes.length;
      },
    );
  }

  acked(take) {
    const now = Date.now();
    if (now - (this.#ackedAt.get(take.id) ?? 0) < ACK_INTERVAL_MS) return;
    this.#ackedAt.set(take.id, now);
    const { id } = this.#broadcast;
    const { id: takeId, acked, archived } = take;
    this.#write(["takes", "chunks"], (takes, chunks) => {
      takes.get([id, takeId]).onsuccess = ({ target }) => {
        if (target.result) takes.put({ ...target.result, acked, archived });
      };
      // A chunk is smaller than the slack: one that starts below it is acknowledged to its end.
      const below = acked - SLACK_BYTES;
      if (below > HEAD_BYTES) {
        chunks.delete(IDBKeyRange.bound([id, takeId, HEAD_BYTES], [id, takeId, below]));
      }
    });
  }

  takeClosed(take) {
    const { id } = this.#broadcast;
    this.#ackedAt.delete(take.id);
    this.#write(["takes", "chunks"], (takes, chunks) => {
      takes.delete([id, take.id]);
      chunks.delete(rangeOf(id, take.id));
    });
  }

  /** Everything was delivered: forget the broadcast. */
  async end() {
    this.#isUsable = false;
    try {
      await this.#mirror.discard(this.#broadcast.id);
    } catch (error) {
      this.#onDegraded(error);
    }
    this.#release();
  }

  /** This page is done with the broadcast; what is held may be offered by another. */
  release() {
    this.#isUsable = false;
    this.#release();
  }

  #putTake({ id, mime, acked, archived }, order) {
    const record = { broadcast: this.#broadcast.id, id, order, mime, acked, archived };
    this.#write(["takes"], (takes) => takes.put(record));
  }

  #write(names, change, done = () => {}) {
    if (!this.#isUsable) return;
    try {
      const transaction = this.#database.transaction(names, "readwrite", { durability: "relaxed" });
      transaction.oncomplete = done;
      transaction.onabort = () => this.#degrade(transaction.error);
      change(...names.map((name) => transaction.objectStore(name)));
    } catch (error) {
      this.#degrade(error);
    }
  }

  #degrade(error) {
    if (!this.#isUsable) return;
    this.#isUsable = false;
    this.#onDegraded(error);
  }
}
