/**
 * When to connect, with what, and when not to. Pure: told what happened and the time, it answers with effects.
 *
 * ```
 * idle ─▶ token ─▶ opening ─▶ catching_up ─▶ live
 *           ▲         │            │           │
 *           └─ waiting ◀───────────┴───────────┘        stopped: only `connect` leaves it
 * ```
 *
 * @packageDocumentation
 */

import { BACKOFF_LAST_MS, fullJitter, longRest } from "./backoff.js";
import type { Choice } from "./choice.js";
import type { Closed, ConnectionState, Effect, TimerName, TokenReason } from "./effects.js";
import type { HelloFrame } from "../protocol/frames.js";
import { closeAction } from "../protocol/codes.js";
import type { StopReason } from "../protocol/codes.js";

/** From the first byte to `welcome`, milliseconds. */
const OPENING_MS = 15_000;
/** From a ping to anything heard, milliseconds. */
const PONG_MS = 10_000;
/** The same when there is reason to doubt the line. */
const DOUBT_MS = 4_000;
/** How long answers that are owed may delay a move, milliseconds. */
const OWED_MS = 2_000;
const TIMERS: readonly TimerName[] = ["retry", "opening", "ping", "dead", "move", "reauth", "upgrade"];

type Phase = "idle" | "token" | "opening" | "catching_up" | "live" | "waiting" | "stopped";

/** The life of connections, one after another. */
export class Connection {
  #phase: Phase = "idle";
  #attempt = 0;
  #token: string | null = null;
  #reason: TokenReason = "connect";
  #checking = false;
  #renewing = false;
  #renewals = 0;
  #moving = false;
  #owedOnce = false;
  #offline = false;
  #heardAt = 0;
  #pingEvery_ms = 20_000;
  #stop: { reason: StopReason; code?: number } | null = null;
  #retryIn_ms = 0;
  readonly #choice: Choice;
  readonly #random: () => number;
  readonly #hello: () => Omit<HelloFrame, "type" | "version" | "token">;

  /**
   * @param choice - which way to take
   * @param random - from 0 to 1
   * @param hello - what the first frame of a connection says
   */
  constructor(choice: Choice, random: () => number, hello: () => Omit<HelloFrame, "type" | "version" | "token">) {
    this.#choice = choice;
    this.#random = random;
    this.#hello = hello;
  }

  /** Whether there is a session: frames may be posted. */
  get established(): boolean {
    return this.#phase === "catching_up" || this.#phase === "live";
  }

  /** Whether new messages may be sent here. */
  get sends(): boolean {
    return this.established && !this.#moving;
  }

  /** As the application sees it. */
  get state(): ConnectionState {
    const transport = this.#choice.name;
    if (this.#phase === "token" || this.#phase === "opening" || this.#checking) return { name: "connecting", transport };
    if (this.#phase === "waiting") return { name: "waiting", transport, retryIn_ms: this.#retryIn_ms };
    if (this.#phase === "stopped" && this.#stop !== null) return { name: "stopped", transport, ...this.#stop };
    return { name: this.#phase, transport };
  }

  /** The application wants to be connected. */
  connect(): Effect[] {
    if (this.#phase !== "idle" && this.#phase !== "stopped") return [];
    this.#attempt = 0;
    this.#reason = "connect";
    this.#stop = null;
    return this.#begin();
  }

  /** It will not connect by itself any more. */
  stop(reason: StopReason, code?: number): Effect[] {
    this.#stop = code === undefined ? { reason } : { reason, code };
    return [...this.#leave("stopped"), { do: "close" }];
  }

  /** Lets go of what there is and enters a phase without a connection. */
  #leave(phase: Phase): Effect[] {
    this.#phase = phase;
    this.#moving = this.#checking = this.#renewing = this.#owedOnce = false;
    return TIMERS.map((timer) => ({ do: "cancel", timer }));
  }

  #begin(): Effect[] {
    return [...this.#leave("token"), { do: "token", reason: this.#reason }];
  }

  #open(token: string): Effect[] {
    this.#token = token;
    const cancels = this.#leave("opening");
    const hello: HelloFrame = { type: "hello", version: 1, ...this.#hello() };
    return [...cancels, { do: "open", transport: this.#choice.name, token, hello }, { do: "timer", timer: "opening", ms: OPENING_MS }];
  }

  /** A token is there. */
  token(token: string, now: number): Effect[] {
    if (this.#phase === "token") {
      if (this.#reason === "rejected" && token === this.#token) return this.stop("unauthenticated", 4401);
      this.#reason = "connect";
      return this.#open(token);
    }
    if (!this.#renewing) return [];
    this.#renewing = false;
    if (token === this.#token) return this.#renewLater(0);
    this.#heardAt = now;
    return [{ do: "close" }, ...this.#open(token)];
  }

  /** There is no token now, or none at all. */
  noToken(final: boolean, retryAfter_ms: number): Effect[] {
    if (this.#phase === "token") return final ? this.stop("unauthenticated") : this.#later(retryAfter_ms);
    if (!this.#renewing) return [];
    this.#renewing = false;
    return final ? this.stop("unauthenticated") : this.#renewLater(retryAfter_ms);
  }

  #renewLater(atLeast_ms: number): Effect[] {
    return [{ do: "timer", timer: "reauth", ms: fullJitter(3 + this.#renewals++, this.#random(), atLeast_ms) }];
  }

  /** `reauth`: another token is needed soon. */
  reauth(): Effect[] {
    if (!this.established || this.#renewing) return [];
    this.#renewing = true;
    return [{ do: "token", reason: "expiring" }];
  }

  /** `welcome`. */
  welcome(heartbeat_s: number, now: number): Effect[] {
    this.#phase = "catching_up";
    this.#renewals = 0;
    this.#choice.succeeded();
    this.#heardAt = now;
    this.#pingEvery_ms = Math.max(1000, (heartbeat_s * 2000) / 3);
    const upgrade = this.#choice.upgradeIn();
    return [
      { do: "cancel", timer: "opening" },
      { do: "timer", timer: "ping", ms: this.#pingEvery_ms },
      ...(upgrade === null ? [] : [{ do: "timer", timer: "upgrade", ms: upgrade } as const]),
    ];
  }

  /** `live`: it works, the next back-off begins from the start. */
  live(): void {
    if (this.#phase !== "catching_up") return;
    this.#phase = "live";
    this.#attempt = 0;
  }

  /** Anything was heard. */
  heard(now: number): Effect[] {
    this.#heardAt = now;
    return this.established ? [{ do: "cancel", timer: "dead" }] : [];
  }

  /** `move`: go elsewhere, in a while. */
  move(after_ms: number): Effect[] {
    if (!this.established || this.#moving) return [];
    this.#moving = true;
    return [{ do: "timer", timer: "move", ms: after_ms }];
  }

  /** A timer fired. `owed`: whether sends wait for their answers. */
  timer(timer: TimerName, now: number, owed: boolean): Effect[] {
    if (timer === "retry") return this.#phase === "waiting" ? this.#begin() : [];
    if (timer === "opening") return this.#phase === "opening" ? [{ do: "close" }, ...this.closed({ code: 1006 }, now)] : [];
    if (!this.established) return [];
    if (timer === "ping") return this.#ping(now);
    if (timer === "dead") return this.broken(now);
    if (timer === "reauth") return this.reauth();
    if (timer === "upgrade") return [{ do: "probe" }];
    if (timer !== "move") return [];
    if (owed && !this.#owedOnce) {
      this.#owedOnce = true;
      return [{ do: "timer", timer, ms: OWED_MS }];
    }
    this.#attempt = 0;
    return [{ do: "close" }, ...this.#begin()];
  }

  #ping(now: number): Effect[] {
    const next = { do: "timer", timer: "ping", ms: this.#pingEvery_ms } as const;
    if (now - this.#heardAt < this.#pingEvery_ms / 2) return [next];
    return [next, { do: "post", frame: { type: "ping" } }, { do: "timer", timer: "dead", ms: PONG_MS }];
  }

  /** The connection is no good any more, whatever the socket says: come again. */
  broken(now: number): Effect[] {
    return this.established ? [{ do: "close" }, ...this.closed({ code: 1006 }, now)] : [];
  }

  /** The connection has ended, or did not come to be. */
  closed(closed: Closed, now: number): Effect[] {
    if (this.#phase === "idle" || this.#phase === "stopped" || this.#phase === "waiting") return [];
    const opening = this.#phase === "opening";
    const wait_ms = closed.retryAfter_ms ?? 0;
    const { code, status } = closed;
    if (status === 403) return this.stop("forbidden");
    if (this.#choice.name === "sse" && (status === 404 || status === 405 || status === 501)) {
      this.#choice.absent(now);
      return this.#later(wait_ms);
    }
    const action = closeAction(status === 401 ? 4401 : code);
    if (action.next === "stop") return this.stop(action.reason, code);
    if (action.next === "token") return this.#refused();
    if (action.next === "rest") return this.#later(Math.max(wait_ms, longRest(this.#random())));
    const spoke = code >= 4000 || status === 429 || status === 503;
    if (opening && !spoke && this.#choice.asks) {
      const effects = this.#leave("waiting");
      this.#checking = true;
      return [...effects, { do: "check" }];
    }
    return this.#later(wait_ms);
  }

  /** The token was not taken, or `hello` was late (4401 too), or a proxy says 401. That nobody is signed in any more, only who gives out tokens can say. */
  #refused(): Effect[] {
    this.#reason = "rejected";
    return this.#later(0);
  }

  /** Whether HTTP works where a WebSocket did not. */
  checked(works: boolean, retryAfter_ms: number, now: number): Effect[] {
    if (!this.#checking) return [];
    this.#choice.failed(works, now);
    return this.#later(retryAfter_ms);
  }

  /** A WebSocket beside the stream has opened, or not. */
  probed(opened: boolean): Effect[] {
    if (!this.established) return [];
    if (this.#choice.probed(opened)) return [{ do: "close" }, ...this.#begin()];
    const upgrade = this.#choice.upgradeIn();
    return upgrade === null ? [] : [{ do: "timer", timer: "upgrade", ms: upgrade }];
  }

  #later(atLeast_ms: number): Effect[] {
    const effects = this.#leave("waiting");
    const wait = fullJitter(this.#attempt, this.#random(), atLeast_ms);
    this.#attempt += 1;
    this.#retryIn_ms = this.#offline ? Math.max(wait, BACKOFF_LAST_MS) : wait;
    return [...effects, { do: "timer", timer: "retry", ms: this.#retryIn_ms }];
  }

  /** The machine says that it has a network, or that it has none. */
  network(online: boolean): Effect[] {
    this.#offline = !online;
    if (this.established) return this.doubt();
    if (!online || this.#phase !== "waiting" || this.#checking) return [];
    this.#attempt = 0;
    return this.#begin();
  }

  /** Perhaps the line is gone and nobody has told: ask. */
  doubt(): Effect[] {
    if (!this.established) return [];
    return [{ do: "post", frame: { type: "ping" } }, { do: "timer", timer: "dead", ms: DOUBT_MS }];
  }
}
