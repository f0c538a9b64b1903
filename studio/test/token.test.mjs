import assert from "node:assert/strict";
import test from "node:test";
import { Api } from "../api.js";
import { tokenSource } from "../token.js";

function page(href, { kept = null, meta = null, fetch = null } = {}) {
  const values = new Map(kept ? [["aircheck-token", kept]] : []);
  const seen = { href };
  const storage = { getItem: (key) => values.get(key) ?? null, setItem: (key, value) => values.set(key, value) };
  const history = { replaceState: (_state, _title, url) => (seen.href = String(url)) };
  const document = { querySelector: () => (meta ? { content: meta } : null) };
  return { seen, values, source: tokenSource({ location: { href }, history, storage, document, fetch }) };
}

test("a token in the address is taken out of it and kept for the tab", () => {
  const { seen, values, source } = page("https://a/?show=7&token=eyJ");
  assert.equal(source, "eyJ");
  assert.equal(seen.href, "https://a/?show=7");
  assert.equal(page("https://a/?show=7", { kept: values.get("aircheck-token") }).source, "eyJ");
});

test("a page that names an address asks there each time", async () => {
  let asked = 0;
  const fetch = async (url) => {
    assert.equal(url, "/my-token");
    asked += 1;
    return { ok: true, text: async () => `t${asked}\n` };
  };
  const { source } = page("https://a/", { meta: "/my-token", fetch });
  assert.deepEqual([await source(), await source()], ["t1", "t2"]);
  const refused = page("https://a/", { meta: "/x", fetch: async () => ({ ok: false, status: 401 }) });
  await assert.rejects(refused.source(), /401/);
});

test("without either there is no token", () => {
  assert.equal(page("https://a/").source, null);
});

test("a download's link carries the token, and none where there is none", () => {
  assert.equal(new Api("https://a/").downloadUrl("1"), "https://a/api/recordings/1/download");
  assert.equal(new Api("https://a/", { token: "t" }).downloadUrl("1"), "https://a/api/recordings/1/download?token=t");
});
