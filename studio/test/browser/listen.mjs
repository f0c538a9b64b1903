//! Opens the listeners' page in Chromium, presses play, and then touches nothing any more. Reads one wish a line and
//! answers each with one JSON line, once it has come true: `STATE` (the page says so) or `plays` (a second of sound
//! is heard from now on). Exits 1 when a wish does not come true. Owns only the browser that it starts.
//!
//! Usage: node listen.mjs BASE_URL SHOW_ID    CHROMIUM=/path/to/chromium

import { createInterface } from "node:readline";
import { launch } from "./chromium.mjs";

const [baseUrl, showId] = process.argv.slice(2);
/** A restart of the server, and the longest pause of the page, on a busy machine. */
const STEP_MS = 40_000;

/** In the page: notes every state that it goes through. */
function noteStates() {
  const state = document.querySelector("#state");
  window.states = [state.textContent];
  new MutationObserver(() => window.states.push(state.textContent)).observe(state, {
    childList: true,
    characterData: true,
    subtree: true,
  });
}

/** In the page: whether a second more than before is decoded and played. */
function playsOn() {
  const player = document.querySelector("#player");
  const { decoded = null, time = 0 } = window.heard ?? {};
  const now = { decoded: player.webkitAudioDecodedByteCount, time: player.currentTime };
  // Another stream begins at zero again.
  if (decoded === null || now.time < time || now.decoded < decoded) window.heard = now;
  return now.time - window.heard.time > 1 && now.decoded > window.heard.decoded;
}

async function fulfil(page, wish) {
  if (wish === "plays") {
    await page.evaluate(() => (window.heard = undefined));
    await page.waitForFunction(playsOn, undefined, { timeout: STEP_MS, polling: 100 });
  } else {
    const says = (state) => document.querySelector("#state").textContent === state;
    await page.waitForFunction(says, wish, { timeout: STEP_MS });
  }
  return page.evaluate(() => ({ states: window.states.splice(0, window.states.length - 1) }));
}

const browser = await launch();
try {
  const page = await browser.newPage();
  await page.goto(`${baseUrl}/listen/${showId}`);
  await page.evaluate(noteStates);
  await page.click("#listen");
  for await (const wish of createInterface({ input: process.stdin })) {
    const seen = await fulfil(page, wish).catch(async (error) => ({
      error: error.message,
      states: await page.evaluate(() => window.states),
      player: await page.evaluate(() => {
        const { paused, ended, currentTime, readyState, buffered } = document.querySelector("#player");
        return { paused, ended, currentTime, readyState, end: buffered.length && buffered.end(buffered.length - 1) };
      }),
    }));
    process.stdout.write(`${JSON.stringify(seen)}\n`);
  }
} catch (error) {
  process.stdout.write(`${JSON.stringify({ error: error.message })}\n`);
  process.exitCode = 1;
} finally {
  await browser.close();
}
