//! Plays an archive in Chromium over HTTP ranges: its duration, a seek to each wanted place and the tone that is
//! heard there, and its end. Prints one JSON line of what was seen; exits 1 when anything was not as promised.
//! Owns the browser and the server that it starts.
//!
//! Usage: node playback.mjs FILE CONTENT_TYPE SECONDS [AT:HZ...]    CHROMIUM=/path/to/chromium
//!
//! AT:HZ: at AT seconds a tone of HZ is heard that rises by 100 Hz a second; HZ 0: silence.

import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import { launch } from "./chromium.mjs";

const [file, contentType, seconds, ...places] = process.argv.slice(2);
const STEP_MS = 30_000;
const DURATION_SLACK_S = 0.1;
/** The tone tells the time: this many Hz are 0.6 s, far less than the distance of two clusters. */
const TONE_SLACK_HZ = 60;

/** Serves the page and the file, and notes the ranges that were asked for. */
function serve(seen) {
  const length = statSync(file).size;
  const server = createServer((request, response) => {
    if (request.url === "/") {
      response.setHeader("Content-Type", "text/html");
      return response.end('<!doctype html><audio id="player" preload="metadata"></audio>');
    }
    if (request.url !== "/archive") return response.writeHead(204).end();
    const [, from = "0", to] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "") ?? [];
    const start = Number(from);
    const end = to ? Number(to) : length - 1;
    seen.ranges.push(start);
    response.writeHead(request.headers.range ? 206 : 200, {
      "Accept-Ranges": "bytes",
      "Content-Type": contentType,
      "Content-Length": end - start + 1,
      ...(request.headers.range && { "Content-Range": `bytes ${start}-${end}/${length}` }),
    });
    const body = createReadStream(file, { start, end });
    response.on("close", () => body.destroy());
    return body.pipe(response);
  });
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)));
}

/** In the page: loads the archive and tells its duration. */
async function load() {
  const player = document.querySelector("#player");
  const context = new AudioContext();
  const analyser = new AnalyserNode(context, { fftSize: 8192, smoothingTimeConstant: 0 });
  context.createMediaElementSource(player).connect(analyser).connect(context.destination);
  window.sound = { player, context, analyser };
  await new Promise((resolve, reject) => {
    player.addEventListener("loadedmetadata", resolve, { once: true });
    player.addEventListener("error", () => reject(new Error(player.error.message)), { once: true });
    player.src = "/archive";
  });
  await context.resume();
  return { duration: Number.isFinite(player.duration) ? player.duration : null, seekable: player.seekable.end(0) };
}

/** In the page: seeks, plays for a moment, and tells the time and the tone. */
async function hear(at) {
  const { player, context, analyser } = window.sound;
  const happens = (name) => new Promise((resolve) => player.addEventListener(name, resolve, { once: true }));
  const seeked = happens("seeked");
  player.currentTime = at;
  await seeked;
  await player.play();
  while (player.currentTime < at + 0.5) await happens("timeupdate");
  const levels = new Float32Array(analyser.frequencyBinCount);
  const before = player.currentTime;
  analyser.getFloatFrequencyData(levels);
  const time = (before + player.currentTime) / 2;
  player.pause();
  let peak = 1;
  for (let bin = 1; bin < levels.length; bin += 1) if (levels[bin] > levels[peak]) peak = bin;
  return { at, time, hz: (peak * context.sampleRate) / analyser.fftSize, decibels: levels[peak] };
}

/** In the page: plays the last second and tells where it ended. */
async function finish() {
  const { player } = window.sound;
  player.currentTime = player.duration - 1;
  const ended = new Promise((resolve) => player.addEventListener("ended", resolve, { once: true }));
  await player.play();
  await ended;
  return { ended: player.ended, currentTime: player.currentTime };
}

function check(seen) {
  const wanted = Number(seconds);
  const { duration, seekable } = seen.loaded;
  for (const found of [duration, seekable, seen.end.currentTime]) {
    if (found === null || Math.abs(found - wanted) > DURATION_SLACK_S) throw new Error(`${found} s, not ${wanted} s`);
  }
  seen.heard.forEach(({ at, time, hz, decibels }, index) => {
    const tone = Number(places[index].split(":")[1]);
    if (tone === 0) {
      if (decibels > -80) throw new Error(`no silence at ${time} s: ${hz} Hz`);
      return;
    }
    const now = tone + 100 * (time - at);
    if (decibels < -60 || Math.abs(hz - now) > TONE_SLACK_HZ) throw new Error(`${hz} Hz at ${time} s, not ${now} Hz`);
  });
  if (!seen.ranges.some((start) => start > 0)) throw new Error("no range was asked for");
}

async function run(seen) {
  const server = await serve(seen);
  const browser = await launch();
  try {
    const page = await browser.newPage();
    page.setDefaultTimeout(STEP_MS);
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    seen.loaded = await page.evaluate(load);
    for (const place of places) seen.heard.push(await page.evaluate(hear, Number(place.split(":")[0])));
    seen.end = await page.evaluate(finish);
    check(seen);
    seen.ok = true;
  } finally {
    await browser.close();
    server.closeAllConnections();
    server.close();
  }
}

const seen = { ok: false, ranges: [], heard: [] };
try {
  if (!seconds) throw new Error("usage: node playback.mjs FILE CONTENT_TYPE SECONDS [AT:HZ...]");
  await run(seen);
} catch (error) {
  seen.error = error.message;
}
process.stdout.write(`${JSON.stringify(seen)}\n`);
process.exitCode = seen.ok ? 0 : 1;
