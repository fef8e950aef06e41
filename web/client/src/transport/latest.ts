/**
 * Requests of which only the last of a name counts, such as how far a conversation was read: one at a time, tried again while the server cannot take it,
 * given up for a newer one.
 *
 * @packageDocumentation
 */

import { ApiError } from "../account/http.js";

/** Tries of one request. */
const TRIES = 8;
const AGAIN_MS = 1000;

/** One request, and whether a refusal may pass by itself. */
export interface Latest {
  readonly call: () => Promise<unknown>;
  readonly passes: (error: ApiError) => boolean;
}

/** How a request that is given up is told, and when the connection is over: then each that waits is made once. */
export interface LatestOptions {
  readonly refused: (error: ApiError) => void;
  readonly over: AbortSignal;
}

/** What waits, by name. */
export class LatestOnly {
  readonly #options: LatestOptions;
  readonly #waiting = new Map<string, Latest>();
  #busy = false;

  constructor(options: LatestOptions) {
    this.#options = options;
  }

  /** In place of one of the same name that was not made yet. */
  put(name: string, request: Latest): void {
    this.#waiting.set(name, request);
    void this.#run();
  }

  async #run(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    for (let next = this.#waiting.entries().next(); next.done !== true; next = this.#waiting.entries().next()) {
      const [name, request] = next.value;
      this.#waiting.delete(name);
      await this.#made(name, request);
    }
    this.#busy = false;
  }

  async #made(name: string, { call, passes }: Latest): Promise<void> {
    for (let tries = 1; !this.#waiting.has(name); tries += 1) {
      try {
        await call();
        return;
      } catch (thrown) {
        const error = thrown instanceof ApiError ? thrown : new ApiError(0, "network", String(thrown));
        // 401 has ended the connection
        if (error.status === 401) return;
        if (tries >= TRIES || this.#options.over.aborted || !(error.temporary || passes(error))) return this.#options.refused(error);
        await this.#pause(error.retryAfter_ms || AGAIN_MS);
      }
    }
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => { clearTimeout(timer); this.#options.over.removeEventListener("abort", done); resolve(); };
      const timer = setTimeout(done, ms);
      this.#options.over.addEventListener("abort", done);
      if (this.#options.over.aborted) done();
    });
  }
}
