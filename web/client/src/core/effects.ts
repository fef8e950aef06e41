/**
 * What the state machine is told and what it wants done: the whole border between decisions and the world.
 *
 * @packageDocumentation
 */

import type { TransportName } from "./choice.js";
import type { Item, Place } from "./inbox.js";
import type { OutboxEntry } from "./outbox.js";
import type { Query } from "./queries.js";
import type { ClientFrame, ErrorFrame, HelloFrame, ServerFrame } from "../protocol/frames.js";
import type { StopReason } from "../protocol/codes.js";

/** Timers; one of each at a time. */
export type TimerName = "retry" | "opening" | "ping" | "dead" | "move" | "reauth" | "upgrade" | "ack" | "outbox" | "query" | "reads";

/** Why a token is asked for. */
export type TokenReason =
  /** To connect: the one at hand will do while it is good. */
  | "connect"
  /** The server did not take the last one: another one. */
  | "rejected"
  /** It is about to expire: another one. */
  | "expiring";

/** How a connection ended, or did not begin. */
export interface Closed {
  /** Close code; 1006 when there was none. */
  readonly code: number;
  /** HTTP status of a refused handshake, where it can be seen. */
  readonly status?: number;
  /** What the server asked to wait, milliseconds. */
  readonly retryAfter_ms?: number;
}

/** How the connection is. */
export interface ConnectionState {
  /**
   * `idle`: never asked to connect · `elsewhere`: another tab holds this device ({@link Client.useHere}) · `connecting` · `catching_up`: a session,
   * what was missed is coming · `live` · `waiting`: broken, will be tried again · `stopped`: will not, see `reason`.
   */
  readonly name: "idle" | "elsewhere" | "connecting" | "catching_up" | "live" | "waiting" | "stopped";
  /** The way taken. */
  readonly transport: TransportName;
  /** `waiting`: milliseconds until the next try, when it was set. */
  readonly retryIn_ms?: number;
  /** `stopped`: why. */
  readonly reason?: StopReason;
  /** `stopped`: the close code, if there was one. */
  readonly code?: number;
}

/** What happened. */
export type Input =
  | { readonly on: "connect" }
  | { readonly on: "disconnect" }
  | { readonly on: "token"; readonly token: string }
  /** `final`: there will be none until somebody signs in. */
  | { readonly on: "no_token"; readonly final: boolean; readonly retryAfter_ms?: number }
  | { readonly on: "frame"; readonly frame: ServerFrame; readonly weight: number }
  /** Something that is no frame was heard: the line is alive. */
  | { readonly on: "alive" }
  | { readonly on: "closed"; readonly closed: Closed }
  | { readonly on: "checked"; readonly works: boolean; readonly retryAfter_ms?: number }
  | { readonly on: "probed"; readonly opened: boolean }
  | { readonly on: "timer"; readonly timer: TimerName }
  | { readonly on: "online" }
  | { readonly on: "offline" }
  /** The page was shown again, or the machine woke up. */
  | { readonly on: "woken" }
  | { readonly on: "taken" }
  | { readonly on: "stored"; readonly place: Place }
  | { readonly on: "write"; readonly entry: OutboxEntry }
  | { readonly on: "saved"; readonly id: string }
  | { readonly on: "ask"; readonly query: Query }
  | { readonly on: "unask"; readonly key: number; readonly timedOut: boolean }
  | { readonly on: "read"; readonly conversation: string; readonly position: string }
  | { readonly on: "typing"; readonly to: string }
  | { readonly on: "watch"; readonly users: readonly string[] };

/** What is to be stored; one effect is one atomic write. */
export interface Save {
  readonly place?: Place;
  /** `null`: forget it. */
  readonly rev?: string | null;
  readonly put?: OutboxEntry;
  readonly remove?: string;
  readonly reads?: Readonly<Record<string, string>>;
}

/** How far one of one's own messages is. */
export type OutgoingState = "queued" | "sent" | "accepted" | "placed" | "refused";

/**
 * One of one's own messages has gone a step further. `refused` may name one of another device, or of before a reload: a refusal that came after
 * `accepted` is an event of the mailbox. With the code `id_reused` the first message of that id stands.
 */
export interface OutgoingChange {
  readonly id: string;
  readonly conversation: string;
  readonly state: OutgoingState;
  /** `placed`: where. */
  readonly position?: string;
  /** `refused`: the error code. */
  readonly code?: string;
  /** `refused`: whether an earlier try, whose answer was lost, may be a message: look into the history before writing it again. */
  readonly maybe?: boolean;
}

/** What is to be done. */
export type Effect =
  | { readonly do: "token"; readonly reason: TokenReason }
  | { readonly do: "open"; readonly transport: TransportName; readonly token: string; readonly hello: HelloFrame }
  | { readonly do: "post"; readonly frame: ClientFrame }
  /** Let go of the connection: nothing that it says counts any more. */
  | { readonly do: "close" }
  | { readonly do: "timer"; readonly timer: TimerName; readonly ms: number }
  | { readonly do: "cancel"; readonly timer: TimerName }
  /** Does plain HTTP reach the server? Answer with `checked`. */
  | { readonly do: "check" }
  /** Does a WebSocket open now, beside the stream? Answer with `probed`. */
  | { readonly do: "probe" }
  | { readonly do: "save"; readonly save: Save }
  /** Hand it to the application; answer with `taken`. */
  | { readonly do: "deliver"; readonly item: Item }
  | { readonly do: "outgoing"; readonly change: OutgoingChange }
  | { readonly do: "answer"; readonly key: number; readonly frame?: ServerFrame; readonly error?: ErrorFrame }
  /** Not stored and not waited for: `typing`, `presence`, `live`. */
  | { readonly do: "tell"; readonly frame: ServerFrame }
  | { readonly do: "state"; readonly state: ConnectionState }
  | { readonly do: "problem"; readonly code: string; readonly message: string };
