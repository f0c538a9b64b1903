//! Where the page gets its token from: its own address, or an address that gives one. Owns no request of
//! its own beyond that; must never leave a token in the address bar or keep it beyond the tab.

const KEY = "aircheck-token";
const DEADLINE_MS = 10_000;

/**
 * A token, a function that yields one, or `null` where the page has neither.
 *
 * `?token=` in the page's address is taken out of it and kept for this tab. Otherwise, a page that is served
 * with `<meta name="aircheck-token-url" content="/my-token">` asks there before every connection and call, with
 * the page's own cookies; the answer's text is the token.
 */
export function tokenSource({ location, history, storage, document, fetch }) {
  const url = new URL(location.href);
  const given = url.searchParams.get("token");
  if (given) {
    storage.setItem(KEY, given);
    url.searchParams.delete("token");
    history.replaceState(null, "", url);
  }
  const kept = storage.getItem(KEY);
  if (kept) return kept;
  const from = document.querySelector('meta[name="aircheck-token-url"]')?.content;
  if (!from) return null;
  return async () => {
    const answer = await fetch(from, { signal: AbortSignal.timeout(DEADLINE_MS), cache: "no-store" });
    if (!answer.ok) throw new Error(`No token: ${from} answered ${answer.status}.`);
    return (await answer.text()).trim();
  };
}
