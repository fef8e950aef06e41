/**
 * WebSocket, or the fallback of server-sent events where something on the way breaks WebSockets. Pure.
 *
 * Down after two WebSockets in a row that did not become a session while plain HTTP reached the server; up again when a WebSocket, tried beside the
 * running stream, opens. A server without the fallback (404) is not asked for it again for a while.
 *
 * @packageDocumentation
 */

/** Ways to a server. */
export type TransportName = "websocket" | "sse";

const FAILURES_MAX = 2;
/** First and longest time between tries to get back to WebSocket, milliseconds. */
const UPGRADE_FIRST_MS = 300_000;
const UPGRADE_LAST_MS = 3_600_000;
/** How long a server that has no fallback is not asked for it, milliseconds. */
const ABSENT_MS = 300_000;

/** Which way is taken. */
export class Choice {
  #failures = 0;
  #upgrades = 0;
  #absentUntil = 0;
  #name: TransportName;
  readonly #only: TransportName | null;
  readonly #upgradeFirst_ms: number;

  /**
   * @param only - the one way that may be taken; `null`: both
   * @param upgradeFirst_ms - first time until WebSocket is tried again
   */
  constructor(only: TransportName | null = null, upgradeFirst_ms = UPGRADE_FIRST_MS) {
    this.#only = only;
    this.#name = only ?? "websocket";
    this.#upgradeFirst_ms = upgradeFirst_ms;
  }

  /** The way to take now. */
  get name(): TransportName {
    return this.#name;
  }

  /** Whether it matters if HTTP works: a WebSocket that failed may be one too many. */
  get asks(): boolean {
    return this.#only === null && this.#name === "websocket";
  }

  /** A WebSocket ended before it was a session, and this is whether HTTP reached the server then. */
  failed(httpWorks: boolean, now: number): void {
    if (!this.asks) return;
    this.#failures = httpWorks ? this.#failures + 1 : 0;
    if (this.#failures < FAILURES_MAX || now < this.#absentUntil) return;
    this.#name = "sse";
    this.#failures = 0;
  }

  /** A session began. */
  succeeded(): void {
    this.#failures = 0;
    if (this.#name === "websocket") this.#upgrades = 0;
  }

  /** The server has no fallback. */
  absent(now: number): void {
    if (this.#only !== null) return;
    this.#name = "websocket";
    this.#absentUntil = now + ABSENT_MS;
  }

  /** When to try a WebSocket beside the stream, milliseconds from now; `null`: never. */
  upgradeIn(): number | null {
    if (this.#only !== null || this.#name !== "sse") return null;
    return Math.min(UPGRADE_LAST_MS, this.#upgradeFirst_ms * 2 ** this.#upgrades);
  }

  /** The try beside the stream has opened, or not. True: take WebSocket now. */
  probed(opened: boolean): boolean {
    if (this.#only !== null || this.#name !== "sse") return false;
    this.#upgrades += 1;
    if (opened) this.#name = "websocket";
    return opened;
  }
}
