//! Draws recordings: the one just made and the list of past ones. Owns the elements it creates, asks
//! nothing of the server by itself.

import { clockWords, sizeWords } from "./words.js";

const TONES = { archived: "good", failed: "bad", finalizing: "wait", recording: "wait" };
const STATUS_WORDS = {
  recording: "recording now",
  finalizing: "being finalized",
  archived: "archived",
  failed: "incomplete",
};

function element(tag, properties = {}, children = []) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Whether there is an object to play and download. */
export const isPlayable = (row) => row.status === "archived" || (row.status === "failed" && Boolean(row.object_key));

function statusPill(row) {
  const pill = element("span", { className: "pill", textContent: STATUS_WORDS[row.status] ?? row.status });
  pill.dataset.tone = TONES[row.status] ?? "";
  return pill;
}

const fact = (value, name) => element("span", {}, [element("b", { textContent: value }), ` ${name}`]);
const counted = (n, one, many) => fact(String(n), n === 1 ? one : many);

function facts(row, downloadUrl) {
  const gaps = row.gaps?.length ?? 0;
  const parts = [];
  if (Number.isFinite(row.duration_ms)) parts.push(fact(clockWords(row.duration_ms), "long"));
  if (row.status !== "recording" && Number.isFinite(row.bytes)) parts.push(fact(sizeWords(row.bytes), ""));
  if (row.status !== "recording") parts.push(gaps === 0 ? fact("No", "gaps") : counted(gaps, "gap", "gaps"));
  if (row.reconnects > 0) parts.push(counted(row.reconnects, "reconnect", "reconnects"));
  if (row.markers?.length > 0) parts.push(counted(row.markers.length, "marker", "markers"));
  if (isPlayable(row)) parts.push(element("a", { href: downloadUrl, download: "", textContent: "Download" }));
  return element("div", { className: "details" }, parts);
}

function gapList(row) {
  const items = (row.gaps ?? []).map(({ from, to, cause }) =>
    element("li", {
      textContent: `${sizeWords(to - from)} missing at ${sizeWords(from)}${cause ? ` (${cause})` : ""}`,
    }),
  );
  return items.length > 0 ? [element("ul", { className: "gaps" }, items)] : [];
}

function errorLine(row) {
  return row.error ? [element("p", { className: "gaps", textContent: row.error })] : [];
}

/** The contents of the card of a finished recording. */
export function recordingDetail(row, downloadUrl) {
  return [facts(row, downloadUrl), ...errorLine(row), ...gapList(row)];
}

function startWords(row) {
  const started = new Date(row.started_at ?? NaN);
  const words = Number.isNaN(started.getTime())
    ? row.version
    : started.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  return element("time", { dateTime: row.started_at ?? "", textContent: words });
}

function pastItem(row, downloadUrl) {
  const heading = [startWords(row), statusPill(row)];
  const item = element("li", {}, [
    element("div", { className: "row" }, heading),
    facts(row, downloadUrl),
    ...errorLine(row),
  ]);
  item.dataset.id = row.id;
  item.dataset.status = row.status;
  if (isPlayable(row)) {
    const play = element("button", { type: "button", className: "quiet small", textContent: "Play" });
    play.addEventListener("click", () => {
      const player = element("audio", { controls: true, autoplay: true, src: downloadUrl });
      play.replaceWith(player);
      player.focus();
    });
    item.querySelector(".details").append(play);
  }
  return item;
}

/** Brings `list` up to date with `rows`; rows that did not change are left alone, so that players play on. */
export function drawPast(list, rows, downloadUrlOf) {
  const known = new Map([...list.children].map((item) => [item.dataset.id, item]));
  const items = rows.map((row) => {
    const item = known.get(String(row.id));
    return item?.dataset.status === row.status ? item : pastItem(row, downloadUrlOf(row.id));
  });
  const isSame = items.length === list.children.length && items.every((item, i) => item === list.children[i]);
  if (!isSame) list.replaceChildren(...items);
}
