//! Starts Chromium for the browser tests, with a microphone that beeps and no need of a click before sound.
//! Owns its path and flags, and nothing of what is tested.

import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

const ARGUMENTS = [
  "--no-sandbox",
  "--disable-gpu",
  "--use-fake-device-for-media-stream",
  "--use-fake-ui-for-media-stream",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--autoplay-policy=no-user-gesture-required",
];

function chromiumPath() {
  const candidates = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
  const found = candidates.find((path) => path && existsSync(path));
  if (!found) throw new Error("no Chromium found; name it in CHROMIUM");
  return found;
}

/** A browser that the caller closes. */
export function launch() {
  return chromium.launch({ executablePath: chromiumPath(), headless: true, args: ARGUMENTS });
}
