/**
 * The whole client without the world: connection, inbox, outbox, queries and reads in one state machine. An {@link Input} and the time go in,
 * {@link Effect}s come out, in the order in which they are to be done.
 *
 * @packageDocumentation
 */

import { Choice } from "./choice.js";
import { Connection } from "./connection.js";
import type { ConnectionState, Effect, Input, OutgoingChange, TimerName } from "./effects.js";
import { Inbox } from "./inbox.js";
import type { Place } from "./inbox.js";
import { Outbox } from "./outbox.js";
import type { OutboxEntry, Settled } from "./outbox.js";
import { Queries } from "./queries.js";
import { Reads } from "./reads.js";
import { isRetryable } from "../protocol/codes.js";
import { DEFAULT_LIMITS } from "../protocol/frames.js";
import type { ErrorFrame, EventFrame, Limits, ReceiptFrame, ServerFrame, WelcomeFrame } from "../protocol/frames.js";
import { isWireMessage, isWireRefusal } from "../protocol/parse.js";

/** Taken events wait so long for company before they are acknowledged, milliseconds. */
const ACK_MS = 100;
/** In so many milliseconds only so many read positions are said. */
const READS_MS = 1000;
/** Accepted messages whose own event has not come; the oldest is forgotten. */
const UNPLACED_MAX = 1000;

/** What a session begins with. */
export interface SessionStart {
  readonly user: string;
  readonly device: string;
  readonly place: Place | null;
  readonly rev: string | null;
  readonly outbox: readonly OutboxEntry[];
  readonly reads: Readonly<Record<string, string>>;
  readonly choice?: Choice;
  /** From 0 to 1. */
  readonly random: () => number;
}

/** The state machine of a client. */
export class Session {
  readonly #user: string;
  readonly #connection: Connection;
  readonly #inbox: Inbox;
  readonly #outbox: Outbox;
  readonly #queries = new Queries();
  readonly #reads: Reads;
  /** Accepted and not yet seen as events: id to conversation. */
  readonly #unplaced = new Map<string, string>();
  #limits: Limits = DEFAULT_LIMITS;
  #watched: readonly string[] | null = null;
  /** The server knows no `read`, `typing`, `watch`. */
  #plain = false;
  #ackTimer = false;
  #told: ConnectionState;

  constructor(start: SessionStart) {
    this.#user = start.user;
    this.#inbox = new Inbox(start.place, start.rev);
    this.#outbox = new Outbox(start.user, start.random);
    for (const entry of start.outbox) this.#outbox.add(entry, true);
    this.#reads = new Reads(start.reads);
    const hello = () => ({ device: start.device, ...this.#inbox.hello() });
    this.#connection = new Connection(start.choice ?? new Choice(), start.random, hello);
    this.#told = this.#connection.state;
  }

  /** How the connection is. */
  get state(): ConnectionState {
    return this.#connection.state;
  }

  /** The limits in force. */
  get limits(): Limits {
    return this.#limits;
  }

  /** The last place the application has taken. */
  get place(): Place | null {
    return this.#inbox.place;
  }

  /** Items that wait for the application. */
  get backlog(): number {
    return this.#inbox.waiting;
  }

  /** Messages without a final answer. */
  get waiting(): number {
    return this.#outbox.size;
  }

  /** The same, oldest first. */
  outgoing(): { readonly entry: OutboxEntry; readonly state: "queued" | "sent" }[] {
    return this.#outbox.entries().map((entry) => ({ entry, state: this.#outbox.stateOf(entry.id) ?? "queued" }));
  }

  /** One thing happened. What is to be done, in order. */
  input(input: Input, now: number): Effect[] {
    const effects = this.#work(input, now);
    if (effects.some((effect) => effect.do === "close" || effect.do === "open") || input.on === "closed") this.#disconnected(effects);
    const state = this.#connection.state;
    if (!sameState(state, this.#told)) effects.push({ do: "state", state });
    this.#told = state;
    effects.push(...this.#pump(now));
    return effects;
  }

  #work(input: Input, now: number): Effect[] {
    const connection = this.#connection;
    switch (input.on) {
      case "connect": return connection.connect();
      case "disconnect": return [...this.#acknowledge(true), ...connection.stop("closed")];
      case "token": return connection.token(input.token, now);
      case "no_token": return connection.noToken(input.final, input.retryAfter_ms ?? 0);
      case "frame": return [...connection.heard(now), ...this.#frame(input.frame, input.weight, now)];
      case "alive": return connection.heard(now);
      case "closed":
        if (input.closed.code === 4410) this.#inbox.forget();
        return connection.closed(input.closed, now);
      case "checked": return connection.checked(input.works, input.retryAfter_ms ?? 0, now);
      case "probed": return connection.probed(input.opened);
      case "timer": return this.#timer(input.timer, now);
      case "online": return connection.network(true);
      case "offline": return connection.network(false);
      case "woken": return connection.doubt();
      case "taken": return this.#taken();
      case "stored":
        this.#inbox.stored(input.place);
        return this.#acknowledge(false);
      case "write": return this.#write(input.entry);
      case "saved":
        this.#outbox.saved(input.id);
        return [];
      case "ask": return this.#queries.add(input.query) ? [] : [{ do: "answer", key: input.query.key, error: { type: "error", code: "busy" } }];
      case "unask": return this.#queries.drop(input.key) && input.timedOut ? connection.broken(now) : [];
      case "read": return this.#read(input.conversation, input.position);
      case "typing": return this.#connection.sends && !this.#plain ? [{ do: "post", frame: { type: "typing", to: input.to } }] : [];
      case "watch": return this.#watch(input.users);
    }
  }

  #disconnected(effects: Effect[]): void {
    this.#outbox.disconnected();
    this.#queries.disconnected();
    this.#ackTimer = false;
    effects.push({ do: "cancel", timer: "ack" }, { do: "cancel", timer: "outbox" }, { do: "cancel", timer: "query" }, { do: "cancel", timer: "reads" });
  }

  #timer(timer: TimerName, now: number): Effect[] {
    if (timer === "ack") return this.#acknowledge(true);
    if (timer === "query") this.#queries.resume();
    if (timer === "reads") this.#reads.resume();
    // the pump behind every input is what these are for
    if (timer === "outbox" || timer === "query" || timer === "reads") return [];
    return this.#connection.timer(timer, now, this.#outbox.inFlight > 0);
  }

  /** What may go on now: the next item for the application, sends, the next page. */
  #pump(now: number): Effect[] {
    const effects: Effect[] = [];
    const item = this.#inbox.next();
    if (item !== null) effects.push({ do: "deliver", item });
    if (this.#connection.sends) {
      const { frames, wakeAt } = this.#outbox.take(now, this.#limits);
      for (const frame of frames) {
        effects.push({ do: "post", frame });
        if (this.#outbox.stateOf(frame.id) !== null) effects.push(this.#step(frame.id, "sent"));
      }
      if (wakeAt !== null) effects.push({ do: "timer", timer: "outbox", ms: Math.max(1, Math.ceil(wakeAt - now)) });
    }
    if (this.#connection.established && !this.#plain) effects.push(...this.#sayRead());
    const query = this.#connection.established ? this.#queries.next() : null;
    if (query !== null) effects.push({ do: "post", frame: query });
    return effects;
  }

  #sayRead(): Effect[] {
    const counting = this.#reads.counting;
    const frames = this.#reads.next().map((read) => ({ do: "post", frame: { type: "read", ...read } }) as const);
    return counting || frames.length === 0 ? frames : [...frames, { do: "timer", timer: "reads", ms: READS_MS }];
  }

  #step(id: string, state: "queued" | "sent"): Effect {
    return { do: "outgoing", change: { id, conversation: this.#outbox.laneOf(id) ?? "", state } };
  }

  #frame(frame: ServerFrame, weight: number, now: number): Effect[] {
    switch (frame.type) {
      case "welcome": return this.#welcome(frame, now);
      case "live": return this.#live(frame, now);
      case "event": return this.#event(frame, weight, now);
      case "resync": return this.#resync(frame);
      case "accepted": return this.#settled(this.#outbox.accepted(frame.id), now);
      case "refused": return this.#settled(this.#outbox.refused(frame.id, frame.code, frame.final, now, frame.retry_after_ms), now);
      case "error": return this.#error(frame, now);
      case "page":
      case "conversations": return this.#answer(frame);
      case "receipt": return this.#receipt(frame, now);
      case "move": return this.#connection.move(frame.after_ms);
      case "reauth": return this.#connection.reauth();
      case "typing":
      case "presence": return [{ do: "tell", frame }];
      case "pong": return [];
    }
  }

  #welcome(frame: WelcomeFrame, now: number): Effect[] {
    if (frame.user !== this.#user) return this.#connection.stop("other_user");
    this.#limits = frame.limits;
    this.#plain = frame.limits.watch_users === 0;
    this.#inbox.welcome(frame.epoch);
    this.#outbox.connected(now, frame.limits);
    const effects: Effect[] = [...this.#connection.welcome(frame.heartbeat_s, now), { do: "tell", frame }];
    this.#reads.connected();
    if (this.#watched !== null && !this.#plain) effects.push({ do: "post", frame: { type: "watch", users: this.#watched } });
    return effects;
  }

  #live(frame: { readonly type: "live"; readonly head: number }, now: number): Effect[] {
    const place = this.#inbox.live(frame.head);
    if (place === "broken") return this.#lost("live does not follow the events", now);
    this.#connection.live();
    return [...(place === null ? [] : [{ do: "save", save: { place } } as const]), { do: "tell", frame }];
  }

  #lost(message: string, now: number): Effect[] {
    return [{ do: "problem", code: "protocol", message }, ...this.#connection.broken(now)];
  }

  #event(frame: EventFrame, weight: number, now: number): Effect[] {
    const heard = this.#inbox.event(frame, weight, this.#limits);
    if (heard === "broken") return this.#lost(`event ${frame.seq} does not follow, or is too much`, now);
    if (heard === "repeat") return this.#acknowledge(false);
    if (isWireMessage(frame) && frame.from === this.#user) return this.#placed(frame.id, frame.conversation, frame.position);
    if (isWireRefusal(frame)) return this.#refusedLate(frame.id, frame.conversation, frame.code);
    return [];
  }

  /** One's own message has come as an event: it is in its place, whether or not `accepted` was heard. */
  #placed(id: string, conversation: string, position: string): Effect[] {
    const settled = this.#outbox.placed(id);
    const known = this.#unplaced.delete(id) || settled.what === "accepted";
    if (!known) return [];
    const change: OutgoingChange = { id, conversation, state: "placed", position };
    return [...(settled.what === "accepted" ? [{ do: "save", save: { remove: id } } as const] : []), { do: "outgoing", change }];
  }

  /** A refusal behind `accepted`: the first message with that id stands, this one is none. */
  #refusedLate(id: string, conversation: string, code: string): Effect[] {
    const settled = this.#outbox.placed(id);
    this.#unplaced.delete(id);
    const change: OutgoingChange = { id, conversation, state: "refused", code, maybe: code !== "id_reused" };
    return [...(settled.what === "accepted" ? [{ do: "save", save: { remove: id } } as const] : []), { do: "outgoing", change }];
  }

  #settled(settled: Settled, now: number): Effect[] {
    switch (settled.what) {
      case "nothing": return [];
      case "stuck": return this.#connection.broken(now);
      case "waits": return this.#outbox.stateOf(settled.entry.id) === null ? [] : [this.#step(settled.entry.id, "queued")];
      case "accepted": {
        const { entry: { id }, conversation } = settled;
        this.#unplaced.set(id, conversation);
        const oldest = this.#unplaced.keys().next();
        if (this.#unplaced.size > UNPLACED_MAX && oldest.done !== true) this.#unplaced.delete(oldest.value);
        return [{ do: "save", save: { remove: id } }, { do: "outgoing", change: { id, conversation, state: "accepted" } }];
      }
      case "refused": {
        const { entry: { id }, conversation, code, maybe } = settled;
        return [{ do: "save", save: { remove: id } }, { do: "outgoing", change: { id, conversation, state: "refused", code, maybe } }];
      }
    }
  }

  #resync(frame: Extract<ServerFrame, { type: "resync" }>): Effect[] {
    const place = this.#inbox.resync(frame);
    return [{ do: "post", frame: { type: "hello", version: 1, ...this.#inbox.hello(place) } }];
  }

  #error(frame: ErrorFrame, now: number): Effect[] {
    if (frame.id !== undefined && this.#outbox.laneOf(frame.id) !== null) {
      return this.#settled(this.#outbox.refused(frame.id, frame.code, !isRetryable(frame.code), now, frame.retry_after_ms), now);
    }
    // a late answer to a send that is settled
    if (frame.id !== undefined && isRetryable(frame.code)) return [];
    if (frame.code === "unknown_type") this.#plain = true;
    const answer = this.#answer(frame);
    const told = { do: "problem", code: frame.code, message: `${frame.message ?? "the server answered an error"}${frame.field ? ` (${frame.field})` : ""}` } as const;
    return answer.length > 0 ? answer : [told];
  }

  #answer(frame: ServerFrame): Effect[] {
    const answer = this.#queries.answer(frame);
    switch (answer.what) {
      case "nothing": return [];
      case "page": return [{ do: "answer", key: answer.key, frame: answer.frame }];
      case "failed": return [{ do: "answer", key: answer.key, error: answer.error }];
      case "again": return [{ do: "timer", timer: "query", ms: answer.after_ms }];
    }
  }

  #receipt(frame: ReceiptFrame, now: number): Effect[] {
    const confirmed = frame.member === this.#user && this.#reads.confirmed(frame);
    if (!this.#inbox.receipt(frame)) return this.#lost("more receipts than can wait", now);
    return confirmed ? [{ do: "save", save: { reads: this.#reads.all() } }] : [];
  }

  #taken(): Effect[] {
    const save = this.#inbox.taken();
    return save.place === undefined && save.rev === undefined ? [] : [{ do: "save", save }];
  }

  #acknowledge(timerFired: boolean): Effect[] {
    if (!this.#connection.established) return [];
    if (timerFired) this.#ackTimer = false;
    const seq = this.#inbox.acknowledge(timerFired, this.#limits);
    if (seq === null || (seq === "later" && this.#ackTimer)) return [];
    this.#ackTimer = seq === "later";
    if (seq === "later") return [{ do: "timer", timer: "ack", ms: ACK_MS }];
    return [{ do: "post", frame: { type: "received", seq } }, { do: "cancel", timer: "ack" }];
  }

  #write(entry: OutboxEntry): Effect[] {
    if (!this.#outbox.add(entry, false)) return [];
    return [{ do: "save", save: { put: entry } }, this.#step(entry.id, "queued")];
  }

  #read(conversation: string, position: string): Effect[] {
    return this.#reads.add(conversation, position) ? [{ do: "save", save: { reads: this.#reads.all() } }] : [];
  }

  #watch(users: readonly string[]): Effect[] {
    this.#watched = users;
    return this.#connection.established && !this.#plain ? [{ do: "post", frame: { type: "watch", users } }] : [];
  }
}

const sameState = (a: ConnectionState, b: ConnectionState): boolean =>
  a.name === b.name && a.transport === b.transport && a.retryIn_ms === b.retryIn_ms && a.reason === b.reason && a.code === b.code;
