//! The studio page: joins the broadcaster, the microphone, the mirror and the elements. Must never end
//! a show because the page goes away: leaving is a drop, and the server waits.

import { Api } from "./api.js";
import { Broadcaster } from "./client.js";
import { Microphone } from "./microphone.js";
import { Mirror } from "./mirror.js";
import { isShowId } from "./protocol.js";
import { drawPast } from "./recordings.js";
import { rehearse } from "./rehearsal.js";
import { tokenSource } from "./token.js";
import { byId, draw, setText, showError, showNote } from "./view.js";
import { banner, clockWords, sheetRows, sizeWords } from "./words.js";

const PAST_REFRESH_MS = 3_000;
const TAKEN_RECHECK_MS = 2_000;
const RUNNING = ["connecting", "live", "reconnecting", "finalizing"];
const IDLE = {
  state: "idle",
  acked: 0,
  archived: 0,
  unackedBytes: 0,
  unackedMs: 0,
  lostBytes: 0,
  listeners: 0,
  sinks: [],
  alarms: [],
  startedAt: null,
};

const token = tokenSource({ location, history, storage: sessionStorage, document, fetch: fetch.bind(window) });
const api = new Api(location.href, { token });
const microphone = new Microphone();
const page = {
  mirror: null,
  broadcaster: null,
  stored: null,
  opening: null,
  wakeLock: null,
  hasPending: false,
  lastState: "idle",
  lastBanner: "",
};

/** What tests and other scripts may look at. */
window.aircheck = {
  get broadcaster() {
    return page.broadcaster;
  },
};

const showId = () => byId("show").value.trim();
const isRunning = () => RUNNING.includes(page.broadcaster?.state);

function report(error) {
  const isDenied = error.name === "NotAllowedError";
  const message = isDenied
    ? "The browser does not allow the microphone. Allow it for this page and try again."
    : error.message;
  showError({ code: error.code && typeof error.code === "string" ? error.code : error.name, message });
}

/** Runs what a click started; whatever goes wrong is shown, once. */
const guarded = (action) => async (event) => {
  event?.preventDefault?.();
  try {
    await action(event);
  } catch (error) {
    report(error);
  }
};

// ---- Microphone

async function openMicrophone() {
  const { stream, release } = await microphone.open(byId("microphone").value, microphoneLost);
  byId("mic-check").hidden = true;
  await listMicrophones();
  return { stream, release };
}

async function liveStream() {
  if (microphone.stream === null) {
    page.opening ??= openMicrophone().finally(() => (page.opening = null));
    await page.opening;
  }
  return microphone.stream;
}

async function microphoneLost() {
  showNote("The microphone is gone. Trying the default one.");
  byId("microphone").value = "";
  try {
    await changeMicrophone();
    showNote("");
  } catch (error) {
    report(error);
  }
}

async function changeMicrophone() {
  const { stream, release } = await openMicrophone();
  if (isRunning() && !page.broadcaster.snapshot.stopRequested) await page.broadcaster.setStream(stream);
  release();
}

async function listMicrophones() {
  const select = byId("microphone");
  const chosen = select.value;
  const options = (await Microphone.devices()).map(
    (device, i) => new Option(device.label || `Microphone ${i + 1}`, device.deviceId),
  );
  select.replaceChildren(new Option("Default", ""), ...options);
  select.value = options.some(({ value }) => value === chosen) ? chosen : "";
}

function drawLevel(now) {
  const { db, peakDb } = microphone.level(now);
  const share = (value) => Math.max(0, (value + 60) / 60) * 100;
  byId("meter-bar").style.clipPath = `inset(0 ${100 - share(db)}% 0 0)`;
  byId("meter-peak").style.left = `calc(${share(peakDb)}% - 3px)`;
  byId("meter-peak").style.opacity = peakDb > -60 ? "0.6" : "0";
  byId("meter").setAttribute("aria-valuenow", db.toFixed(0));
  setText("meter-text", db <= -60 ? "−∞ dB" : `${db.toFixed(0).replace("-", "−")} dB`);
  requestAnimationFrame(drawLevel);
}

// ---- Broadcast

function whoAndWhere() {
  if (!isShowId(showId())) {
    byId("show").focus();
    throw Object.assign(new Error("Give the show an id: letters, digits, - and _."), { code: "AC_BAD_SHOW_ID" });
  }
  return { showId: showId(), baseUrl: location.href, token, api };
}

function newBroadcaster() {
  showError(null);
  const broadcaster = new Broadcaster({ ...whoAndWhere(), mirror: page.mirror });
  broadcaster.addEventListener("change", ({ detail }) => page.broadcaster === broadcaster && changed(detail));
  broadcaster.addEventListener(
    "source-lost",
    () => microphone.stream === null || showNote("The recorder has stopped. Choose a microphone."),
  );
  broadcaster.addEventListener("storage-lost", storageLost);
  page.broadcaster = broadcaster;
  return broadcaster;
}

function storageLost() {
  showNote("This browser's storage can't be used: closing the page now would lose what is not on the server yet.");
}

function changed(snapshot) {
  page.hasPending = snapshot.unackedBytes > 0;
  draw(snapshot, { now: Date.now(), downloadUrlOf: (id) => api.downloadUrl(id) });
  const { error, actions } = banner(snapshot);
  const bannerKey = `${snapshot.state} ${error?.code} ${error?.message}`;
  if (bannerKey !== page.lastBanner) showError(error, actions);
  page.lastBanner = bannerKey;
  if (snapshot.state === page.lastState) return;
  page.lastState = snapshot.state;
  keepAwake(isRunning());
  if (["live", "archived", "failed"].includes(snapshot.state)) refreshPast();
}

async function goLive() {
  const stream = await liveStream();
  withdrawOffer();
  newBroadcaster().start(stream);
}

/** Ten seconds, unheard; the page's state stays that of the show. */
async function test() {
  const options = whoAndWhere();
  const stream = await liveStream();
  byId("rehearse").disabled = true;
  byId("sheet-rows").replaceChildren();
  setText("sheet-progress", "Speak: ten seconds go to the archive and back. Nobody hears them.");
  byId("sheet").hidden = false;
  try {
    const sheet = await rehearse(stream, options, (ms) => new Promise((resolve) => setTimeout(resolve, ms)));
    byId("sheet").dataset.verdict = sheet.verdict;
    byId("sheet-rows").replaceChildren(...sheetRows(sheet).map(([name, found]) => sheetRow(name, found)));
    setText("sheet-progress", "");
  } catch (error) {
    byId("sheet").hidden = true;
    throw error;
  } finally {
    byId("rehearse").disabled = false;
  }
}

function sheetRow(name, found) {
  const row = document.createElement("div");
  const [dt, dd] = ["dt", "dd"].map((tag) => document.createElement(tag));
  dt.textContent = name;
  dd.textContent = found;
  row.append(dt, dd);
  return row;
}

async function resume(stream) {
  const { stored } = page;
  if (stored === null) return;
  withdrawOffer();
  newBroadcaster().resume(stored, stream);
}

async function discard() {
  await page.mirror.discard(page.stored.id);
  withdrawOffer();
  await offerUnfinished();
}

async function retry(force) {
  const isDelivering = page.broadcaster.snapshot.stopRequested;
  page.broadcaster.retry(isDelivering ? null : await liveStream(), { force });
}

function addMarker() {
  const label = byId("marker-label").value.trim();
  if (label === "") return;
  const isNoted = page.broadcaster.marker(label, byId("marker-kind").value);
  setText(
    "marker-said",
    isNoted ? `Marked “${label}” at ${byId("elapsed").textContent}.` : "The marker could not be set.",
  );
  if (isNoted) byId("marker-label").value = "";
  byId("marker-label").focus();
}

/** A phone that goes to sleep takes the microphone with it. */
async function keepAwake(isWanted) {
  if (!navigator.wakeLock) return;
  try {
    if (isWanted && !page.wakeLock && document.visibilityState === "visible") {
      page.wakeLock = await navigator.wakeLock.request("screen");
      page.wakeLock.addEventListener("release", () => (page.wakeLock = null));
    } else if (!isWanted) {
      await page.wakeLock?.release();
    }
  } catch {
    page.wakeLock = null; // Low battery or no permission: the show goes on without it.
  }
}

// ---- Show

/** Offers what an earlier page left behind, unless the server is done with it and nothing is owed. */
async function offerUnfinished() {
  const show = showId();
  if (page.stored?.show !== show) withdrawOffer();
  const found = await findUnfinished(show);
  if (show !== showId() || isRunning()) return;
  if (found) offer(found);
  else withdrawOffer();
}

async function findUnfinished(show) {
  if (!page.mirror || !isShowId(show) || isRunning()) return null;
  for (const stored of await page.mirror.unfinished(show)) {
    const owed = stored.takes.reduce((sum, take) => sum + heldBytes(take), 0);
    const status = await statusOf(show);
    const isWaiting =
      status === null || (status.session === stored.session && ["live", "grace"].includes(status.state));
    if (owed > 0 || isWaiting) return { stored, owed, isTaken: status?.state === "live" };
    await page.mirror.discard(stored.id);
  }
  return null;
}

function withdrawOffer() {
  page.stored = null;
  byId("resume-panel").hidden = true;
}

const heldBytes = ({ acked, chunks }) =>
  chunks.reduce((sum, c) => sum + Math.max(0, c.offset + c.bytes.length - Math.max(acked, c.offset)), 0);

/** Where the show stands, or `null` without an answer: then too much is offered rather than forgotten. */
async function statusOf(show) {
  try {
    return await api.status(show);
  } catch {
    return null;
  }
}

/**
 * `isTaken`: a connection is live on this show, another studio's or the dying one of the page before.
 * Then "deliver and end" is not offered: it would end somebody's show.
 */
function offer({ stored, owed, isTaken }) {
  page.stored = stored;
  const started = new Date(stored.startedAt).toLocaleTimeString(undefined, { timeStyle: "short" });
  const ago = clockWords(Date.now() - stored.startedAt);
  const held =
    owed > 0 ? `${sizeWords(owed)} may not be on the server yet.` : "Everything recorded so far is on the server.";
  const taken = isTaken ? " A studio is live on this show right now; resuming takes over from it." : "";
  setText("resume-detail", `Show ${stored.show}, started at ${started}, ${ago} ago. ${held}${taken}`);
  byId("deliver").hidden = isTaken;
  byId("resume-panel").hidden = false;
  if (isTaken) setTimeout(() => page.stored === stored && guarded(offerUnfinished)(), TAKEN_RECHECK_MS);
}

async function refreshPast() {
  const show = showId();
  if (!isShowId(show)) return;
  let rows;
  try {
    rows = await api.recordings(show);
  } catch (error) {
    if (error.status !== 404) return; // The connection's own state tells of an unreachable server.
    rows = [];
  }
  if (show !== showId()) return;
  drawPast(byId("past"), rows, (id) => api.downloadUrl(id));
  byId("past-empty").hidden = rows.length > 0;
  setText("past-empty", "No recordings of this show yet.");
}

async function refreshPastWhileOpen() {
  const isOpen = byId("past").querySelector('[data-status="recording"], [data-status="finalizing"]') !== null;
  if (isOpen && document.visibilityState === "visible") await refreshPast();
  setTimeout(refreshPastWhileOpen, PAST_REFRESH_MS);
}

async function listShows() {
  const shows = await api.shows();
  const ids = shows.map((show) => (typeof show === "string" ? { id: show } : show));
  byId("shows").replaceChildren(...ids.map(({ id, show_id, title }) => new Option(title ?? "", id ?? show_id)));
}

async function showChosen() {
  const url = new URL(location.href);
  if (isShowId(showId())) url.searchParams.set("show", showId());
  history.replaceState(null, "", url);
  await leaveParked();
  await Promise.all([refreshPast(), offerUnfinished()]);
}

/** A broadcaster that rests after a refusal belongs to its show; another show begins afresh. */
async function leaveParked() {
  const { broadcaster } = page;
  if (!broadcaster || isRunning() || broadcaster.snapshot.showId === showId()) return;
  page.broadcaster = null;
  page.lastState = "idle";
  showError(null);
  draw(IDLE, { now: Date.now(), downloadUrlOf: (id) => api.downloadUrl(id) });
  await broadcaster.abandon();
}

// ---- Page

function listen() {
  const on = (id, event, action) => byId(id).addEventListener(event, guarded(action));
  on("go-live", "click", goLive);
  on("rehearse", "click", test);
  on("stop", "click", () => page.broadcaster.stop());
  on("takeover", "click", () => retry(true));
  on("retry", "click", () => retry(false));
  on("resume", "click", async () => resume(await liveStream()));
  on("deliver", "click", () => resume(null));
  on("discard", "click", discard);
  on("marker-form", "submit", addMarker);
  on("mic-check", "click", liveStream);
  on("microphone", "change", changeMicrophone);
  on("show", "change", showChosen);
  window.addEventListener("online", () => page.broadcaster?.reconnectNow());
  document.addEventListener("visibilitychange", () => keepAwake(isRunning()));
  // Only a warning: if the page goes anyway, the server waits and the tail is in the mirror.
  window.addEventListener("beforeunload", (event) => isRunning() && page.hasPending && event.preventDefault());
}

async function openIfAllowed() {
  const permission = await navigator.permissions?.query({ name: "microphone" });
  if (permission?.state === "granted") await liveStream();
}

async function begin() {
  listen();
  draw(IDLE, { now: Date.now(), downloadUrlOf: (id) => api.downloadUrl(id) });
  requestAnimationFrame(drawLevel);
  byId("show").value = new URLSearchParams(location.search).get("show") ?? "";
  if (!navigator.mediaDevices || !window.MediaRecorder) {
    showError({ code: "AC_INSECURE_PAGE", message: "Recording needs HTTPS (or localhost) and a current browser." });
    byId("go-live").disabled = true;
  }
  try {
    page.mirror = await Mirror.open();
  } catch {
    storageLost();
  }
  await Promise.allSettled([listShows(), showChosen(), openIfAllowed()]);
  refreshPastWhileOpen();
}

begin();
