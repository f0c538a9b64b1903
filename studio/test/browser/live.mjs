//! Drives the studio page in Chromium against a running server: rehearse, go live, wait for acknowledged bytes,
//! set a marker, reload and resume, stop, wait for the archive, play it. Prints one JSON line of what was
//! seen; exits 1 when anything was not as promised. Owns only the browser that it starts.
//!
//! Usage: node live.mjs BASE_URL SHOW_ID [SCREENSHOT_FOLDER]    CHROMIUM=/path/to/chromium

import { join } from "node:path";
import { launch } from "./chromium.mjs";

const [baseUrl, showId, screenshots] = process.argv.slice(2);
const STEP_MS = 30_000;

const stateOf = (page) => page.textContent("#state");

async function waitForState(page, ...wanted) {
  await page.waitForFunction((states) => states.includes(document.querySelector("#state").textContent), wanted, {
    timeout: STEP_MS,
  });
  return stateOf(page);
}

async function waitForAcked(page, bytes) {
  const enough = (least) => Number(document.querySelector("#acked").dataset.bytes) >= least;
  await page.waitForFunction(enough, bytes, { timeout: STEP_MS });
  return page.evaluate(() => Number(document.querySelector("#acked").dataset.bytes));
}

async function shot(page, name) {
  if (screenshots) await page.screenshot({ path: join(screenshots, `${name}.png`), fullPage: true });
}

/** The page must be idle: its state stays so. */
async function rehearse(page, seen) {
  await page.click("#rehearse");
  await page.waitForSelector("#sheet[data-verdict]", { timeout: STEP_MS });
  seen.verdict = await page.getAttribute("#sheet", "data-verdict");
  seen.sheet = await page.textContent("#sheet-rows");
  seen.stateWhileTesting = await stateOf(page);
  await shot(page, "sheet");
}

/** The server carries the show on to one sink that is well and to one that can't be reached. */
async function carriedOn(page, seen) {
  const texts = (list) => list.map((row) => row.textContent);
  for (const state of ["up", "down"]) {
    await page.waitForSelector(`#sinks li[data-state="${state}"]`, { timeout: STEP_MS });
    seen[state] = await page.$$eval(`#sinks li[data-state="${state}"]`, texts);
  }
  await page.waitForSelector('#watch[data-state="bad"]', { timeout: STEP_MS });
  seen.watch = await page.textContent("#watch");
}

async function goLive(page, seen) {
  await page.goto(`${baseUrl.replace(/\/$/, "")}/?show=${encodeURIComponent(showId)}`);
  await shot(page, "idle");
  await rehearse(page, seen);
  await page.click("#go-live");
  seen.live = await waitForState(page, "live");
  seen.ackedBeforeReload = await waitForAcked(page, 20_000);
  seen.onAir = await page.getAttribute("#on-air", "data-state");
  await page.waitForSelector('#on-tape[data-state="green"]', { timeout: STEP_MS });
  seen.onTape = "green";
  await carriedOn(page, seen);
  await page.fill("#marker-label", "Browser test");
  await page.click("#marker-add");
  await shot(page, "live");
  seen.ackedBeforeReload = await waitForAcked(page, seen.ackedBeforeReload + 1);
  return page.evaluate(() => window.aircheck.broadcaster.snapshot.session);
}

async function reloadAndResume(page, seen, session) {
  await page.reload();
  await page.waitForSelector("#resume-panel:not([hidden])", { timeout: STEP_MS });
  await shot(page, "resume");
  await page.click("#resume");
  seen.resumed = await waitForState(page, "live");
  // What the first page had delivered counts here too: only bytes beyond it prove that this page is heard.
  seen.ackedAfterReload = await waitForAcked(page, seen.ackedBeforeReload + 30_000);
  const sessionNow = await page.evaluate(() => window.aircheck.broadcaster.snapshot.session);
  seen.sameSession = sessionNow === session;
  if (!seen.sameSession) throw new Error(`the reload began another session: ${session} became ${sessionNow}`);
}

async function stopAndArchive(page, seen) {
  const stoppedAt = performance.now();
  await page.click("#stop");
  seen.ended = await waitForState(page, "archived", "failed");
  seen.stopToArchivedMs = Math.round(performance.now() - stoppedAt);
  if (seen.ended !== "archived") throw new Error(`the recording ended as ${seen.ended}`);
  const card = await page.waitForSelector('#recording[data-status="archived"]', { timeout: STEP_MS });
  seen.recordingId = await card.getAttribute("data-id");
  seen.recording = await page.evaluate(() => window.aircheck.broadcaster.snapshot.recordingRow);
  if (seen.recording.gaps?.some(({ cause }) => cause === "client")) throw new Error("the client lost bytes");
  seen.unackedAfterStop = await page.evaluate(() => window.aircheck.broadcaster.snapshot.unackedBytes);
  if (seen.unackedAfterStop !== 0) throw new Error("bytes were left behind");
}

async function play(page, seen) {
  seen.playback = await page.evaluate(async () => {
    const player = document.querySelector("#player");
    player.muted = true;
    await player.play();
    const startedAt = player.currentTime;
    await new Promise((resolve, reject) => {
      player.addEventListener("error", () => reject(new Error(player.error.message)));
      player.addEventListener("timeupdate", () => player.currentTime > startedAt + 1 && resolve());
    });
    return {
      duration: Number.isFinite(player.duration) ? player.duration : null,
      currentTime: player.currentTime,
      error: player.error?.message ?? null,
    };
  });
  await page.waitForSelector(`#past li[data-id="${seen.recordingId}"][data-status="archived"]`, { timeout: STEP_MS });
  seen.listed = true;
  await shot(page, "archived");
}

async function run(seen) {
  const browser = await launch();
  try {
    const page = await browser.newPage({ viewport: { width: 820, height: 1000 } });
    page.setDefaultTimeout(STEP_MS);
    page.on("dialog", (dialog) => dialog.accept());
    page.on("pageerror", (error) => seen.pageErrors.push(error.message));
    page.on("console", (message) => message.type() === "error" && seen.consoleErrors.push(message.text()));
    const session = await goLive(page, seen);
    await reloadAndResume(page, seen, session);
    await stopAndArchive(page, seen);
    await play(page, seen);
    if (seen.pageErrors.length > 0) throw new Error(`the page threw: ${seen.pageErrors[0]}`);
    seen.ok = true;
  } finally {
    await browser.close();
  }
}

const seen = { ok: false, baseUrl, showId, pageErrors: [], consoleErrors: [] };
try {
  if (!baseUrl || !showId) throw new Error("usage: node live.mjs BASE_URL SHOW_ID [SCREENSHOT_FOLDER]");
  await run(seen);
} catch (error) {
  seen.error = error.message;
}
process.stdout.write(`${JSON.stringify(seen)}\n`);
process.exitCode = seen.ok ? 0 : 1;
