// Speaks to the desk's JSON API. Every failure is an ApiError; status 0 means that no answer came.
export class ApiError extends Error {
  constructor(status, body) {
    super(body?.said ?? body?.error ?? `HTTP ${status}`);
    this.status = status;
    this.current = body?.current ?? null;
    this.item = body?.item ?? "";
  }

  // Worth sending again as it is: nothing was stored, or nobody knows whether it was.
  get passing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

export class Api {
  // `reached(whether)` is told when the server begins or ceases to answer.
  constructor(base, reached = () => {}, patience = 15000) {
    this.base = base;
    this.reached = reached;
    this.patience = patience;
    this.reachable = true;
  }

  #hear(reachable) {
    if (this.reachable === reachable) return;
    this.reachable = reachable;
    this.reached(reachable);
  }

  post(name, body = {}, options = {}) {
    const token = document.querySelector('meta[name="csrf-token"]')?.content ?? "";
    const headers = { "Content-Type": "application/json", "X-CSRFToken": token };
    return this.#send(name, { method: "POST", headers, body: JSON.stringify(body), ...options });
  }

  get(name) {
    return this.#send(name, {});
  }

  // Returns the JSON object of the answer, or null for 204.
  async #send(name, options) {
    let response;
    try {
      // What a closing page still sends goes out; browsers allow that up to 64 KiB.
      const keepalive = (options.body?.length ?? Infinity) < 10000;
      response = await fetch(this.base + name, {
        ...options, keepalive, signal: AbortSignal.timeout(this.patience), credentials: "same-origin", headers: { Accept: "application/json", ...options.headers },
      });
    } catch {
      this.#hear(false);
      throw new ApiError(0, null);
    }
    this.#hear(true);
    if (response.status === 204) return null;
    let body = null;
    try {
      body = await response.json();
    } catch {
      // An answer that was cut off on its way is no answer.
      if (response.ok) throw new ApiError(0, null);
    }
    if (!response.ok) throw new ApiError(response.status, body);
    return body;
  }
}
