//! A rehearsal: the microphone's way to the archive and back, for a few seconds and unheard. Owns its
//! broadcaster; must never keep or send anything as a show.

import { Broadcaster } from "./client.js";

/** How long is broadcast, in ms: enough for round trips to tell. */
export const REHEARSAL_MS = 10_000;

/** Longest wait for the sheet after that, in ms. */
const SHEET_MS = 90_000;

const OVER = ["archived", "failed", "conflict", "superseded"];

/**
 * Rehearses and resolves with the sheet. `options` are the {@link Broadcaster}'s; `wait(ms)` resolves after
 * that time. Rejects with the reason when the server will not have it.
 */
export async function rehearse(stream, options, wait) {
  const broadcaster = new Broadcaster({ ...options, rehearsal: true, mirror: null });
  const over = new Promise((resolve) => {
    broadcaster.addEventListener("change", ({ detail }) => OVER.includes(detail.state) && resolve(detail));
  });
  broadcaster.start(stream);
  await Promise.race([over, wait(REHEARSAL_MS)]);
  if (!OVER.includes(broadcaster.state)) broadcaster.stop();
  const last = await Promise.race([over, wait(SHEET_MS)]);
  if (!last) await broadcaster.abandon();
  const { sheet, error } = last ?? { error: { code: "AC_TIMEOUT", message: "The server does not answer." } };
  if (sheet) return sheet;
  throw Object.assign(new Error(error?.message ?? "The server gave no sheet."), { code: error?.code ?? "AC_NO_SHEET" });
}
