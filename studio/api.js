//! The HTTP API as functions: one call, one deadline, one typed error. Owns no state, never retries.

const DEADLINE_MS = 10_000;

/** An answer that is an error (`status` from the server) or no answer at all (`status` 0). */
export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.code = code;
  }
}

async function failure(response) {
  try {
    const { error } = await response.json();
    return new ApiError(response.status, error.code, error.message);
  } catch {
    return new ApiError(response.status, `HTTP_${response.status}`, "The server answered with an error.");
  }
}

export class Api {
  #base;
  #token;
  #known = null;

  /** `token` is sent as bearer; a function is asked before each call. */
  constructor(base, { token = null } = {}) {
    this.#base = base;
    this.#token = token;
    if (typeof token === "string") this.#known = token;
  }

  /** Shows known to the server. */
  async shows() {
    return itemsOf(await this.#call("GET", "/api/shows"), "shows");
  }

  /** Whether the show is live and where its session stands. */
  status(showId) {
    return this.#call("GET", `/api/stream/status?show_id=${encodeURIComponent(showId)}`);
  }

  /** The show's recordings, newest first. */
  async recordings(showId) {
    return itemsOf(await this.#call("GET", `/api/shows/${encodeURIComponent(showId)}/recordings`), "recordings");
  }

  /** One recording. */
  recording(id) {
    return this.#call("GET", `/api/recordings/${encodeURIComponent(id)}`);
  }

  /**
   * Where the archive can be played and downloaded. A link can't carry a header, so it carries the token, as
   * last known where a function yields it.
   */
  downloadUrl(id) {
    const url = new URL(`/api/recordings/${encodeURIComponent(id)}/download`, this.#base);
    if (this.#known) url.searchParams.set("token", this.#known);
    return url.href;
  }

  async #call(method, path) {
    const token = typeof this.#token === "function" ? await this.#token() : this.#token;
    this.#known = token;
    let response;
    try {
      response = await fetch(new URL(path, this.#base), {
        method,
        headers: token ? { authorization: `Bearer ${token}` } : {},
        signal: AbortSignal.timeout(DEADLINE_MS),
        cache: "no-store",
      });
    } catch {
      throw new ApiError(0, "AC_UNREACHABLE", "The server can't be reached.");
    }
    if (!response.ok) throw await failure(response);
    return response.json();
  }
}

function itemsOf(body, name) {
  if (Array.isArray(body)) return body;
  return body.items ?? body[name] ?? [];
}
