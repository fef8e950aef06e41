/**
 * What was written and is not durable at the server yet. Pure: no clock, no socket; it is told what happened and says what to send.
 *
 * Order: one lane for each conversation. A message is sent only when everything before it in its lane is sent or settled. After a refusal that
 * is not final the lane waits, then its oldest message goes alone (the probe); when that one is taken, the others follow. So the first copies of
 * a conversation's messages reach the server in the order they were written, whatever is refused.
 *
 * Loss policy: nothing leaves but by `accepted`, by its own event, or by a final refusal.
 *
 * @packageDocumentation
 */

import { fullJitter } from "./backoff.js";
import type { Limits, SendFrame, WireReference } from "../protocol/frames.js";
import { isRetryable } from "../protocol/codes.js";
import { conversationOf } from "../protocol/names.js";

/** Refusals of the server's own list that come while the send may have become a message before. */
const TOO_OLD = "bad_id";

/** A message in the outbox, as it is stored. */
export interface OutboxEntry {
  /** Its place in the order of writing; unique in a storage. */
  readonly order: number;
  /** UUID of version 7, kept for every retry. */
  readonly id: string;
  /** `u:<user>` or a direct conversation. */
  readonly to: string;
  readonly kind: string;
  readonly body: Readonly<Record<string, unknown>>;
  readonly reply_to?: WireReference;
}

interface Slot {
  readonly entry: OutboxEntry;
  readonly lane: string;
  saved: boolean;
  sent: boolean;
  /** Whether it has ever gone out here: then it may be a message though it was refused. */
  tried: boolean;
  /** Refused on this connection: the server waits for it to come again before it takes what is behind it. */
  fences: boolean;
  /** It is a message, that is known. It stays for the answer that is owed, and goes once more if it fences. */
  done: boolean;
}

interface Lane {
  /** Until then nothing new is sent in it. */
  waitUntil: number;
  /** Refusals one after another. */
  attempt: number;
  /** The message that goes alone, once the wait is over. */
  probe: string | null;
}

/** What to send now, and when to ask again if nothing happens before. */
export interface Sendable {
  readonly frames: readonly SendFrame[];
  /** Milliseconds on the caller's clock, or `null`. */
  readonly wakeAt: number | null;
}

/** What an answer did to a message. */
export type Settled =
  | { readonly what: "nothing" }
  /** Durable: it has left the outbox. */
  | { readonly what: "accepted"; readonly entry: OutboxEntry; readonly conversation: string }
  /** It will never be a message by this attempt. `maybe`: an earlier one with an answer that was lost may have been. */
  | { readonly what: "refused"; readonly entry: OutboxEntry; readonly conversation: string; readonly code: string; readonly maybe: boolean }
  /** It will be sent again. */
  | { readonly what: "waits"; readonly entry: OutboxEntry; readonly conversation: string }
  /** The server waits for a message that is settled here (a late copy of it was refused): only a new connection helps. */
  | { readonly what: "stuck" };

const NOTHING: Settled = { what: "nothing" };

/** The messages of one user that have no final answer, in the order they were written. */
export class Outbox {
  readonly #slots = new Map<string, Slot>();
  readonly #lanes = new Map<string, Lane>();
  readonly #me: string;
  readonly #random: () => number;
  #budget = { tokens: Number.POSITIVE_INFINITY, at: 0 };

  /**
   * @param me - the user, for the names of conversations
   * @param random - from 0 to 1, for jitter
   */
  constructor(me: string, random: () => number) {
    this.#me = me;
    this.#random = random;
  }

  /** Messages in it. */
  get size(): number {
    return this.entries().length;
  }

  /** Messages sent on this connection and not answered. */
  get inFlight(): number {
    let count = 0;
    for (const slot of this.#slots.values()) if (slot.sent) count += 1;
    return count;
  }

  /** Everything in it, oldest first. */
  entries(): OutboxEntry[] {
    return [...this.#slots.values()].filter((slot) => !slot.done).map((slot) => slot.entry);
  }

  /** Whether it waits here, and how far it is. */
  stateOf(id: string): "queued" | "sent" | null {
    const slot = this.#slots.get(id);
    return slot === undefined || slot.done ? null : slot.sent ? "sent" : "queued";
  }

  /** The conversation of a message that waits here. */
  laneOf(id: string): string | null {
    return this.#slots.get(id)?.lane ?? null;
  }

  /** A new message, behind all others. One that is not `saved` yet holds its lane until {@link saved}. False: the id is here already. */
  add(entry: OutboxEntry, saved: boolean): boolean {
    if (this.#slots.has(entry.id)) return false;
    // what was loaded may have been sent by an earlier life of this client
    this.#slots.set(entry.id, { entry, lane: conversationOf(this.#me, entry.to), saved, sent: false, tried: saved, fences: false, done: false });
    return true;
  }

  /** It is in the storage: it may go out. */
  saved(id: string): void {
    const slot = this.#slots.get(id);
    if (slot !== undefined) slot.saved = true;
  }

  /** The connection is gone, and with it what the server knew of fences and answers owed. */
  disconnected(): void {
    for (const [id, slot] of this.#slots) {
      slot.sent = slot.fences = false;
      if (slot.done) this.#slots.delete(id);
    }
    this.#lanes.clear();
  }

  /** A new session: its limits count from now. */
  connected(now: number, limits: Limits): void {
    this.disconnected();
    this.#budget = { tokens: limits.sends_burst, at: now };
  }

  /** What goes out now; what it returns counts as sent. */
  take(now: number, limits: Limits): Sendable {
    const frames: SendFrame[] = [];
    const held = new Set<string>();
    let wakeAt: number | null = null;
    const wake = (at: number): void => { wakeAt = wakeAt === null ? at : Math.min(wakeAt, at); };
    this.#refill(now, limits);
    let inFlight = this.inFlight;
    for (const slot of this.#slots.values()) {
      if (inFlight >= limits.in_flight) break;
      if (held.has(slot.lane)) continue;
      const lane = this.#lanes.get(slot.lane);
      if (slot.sent) {
        // behind a probe nothing goes until it is answered
        if (lane?.probe === slot.entry.id) held.add(slot.lane);
        continue;
      }
      if (!slot.saved) { held.add(slot.lane); continue; }
      if (lane !== undefined && lane.waitUntil > now) { held.add(slot.lane); wake(lane.waitUntil); continue; }
      if (this.#budget.tokens < 1) {
        wake(now + Math.ceil(((1 - this.#budget.tokens) * 1000) / limits.sends_per_s));
        break;
      }
      if (lane !== undefined) { lane.probe = slot.entry.id; held.add(slot.lane); }
      this.#budget.tokens -= 1;
      slot.sent = slot.tried = true;
      if (lane !== undefined) slot.fences = false;
      inFlight += 1;
      frames.push(frameOf(slot.entry));
    }
    return { frames, wakeAt };
  }

  #refill(now: number, limits: Limits): void {
    const gained = (Math.max(now - this.#budget.at, 0) * limits.sends_per_s) / 1000;
    this.#budget = { tokens: Math.min(limits.sends_burst, this.#budget.tokens + gained), at: Math.max(now, this.#budget.at) };
  }

  /** The server says that it is durable. */
  accepted(id: string): Settled {
    const slot = this.#slots.get(id);
    if (slot === undefined) return NOTHING;
    this.#leave(slot);
    return slot.done ? NOTHING : { what: "accepted", entry: slot.entry, conversation: slot.lane };
  }

  /** It came as an event of the mailbox: it is durable, whatever was answered. */
  placed(id: string): Settled {
    const slot = this.#slots.get(id);
    if (slot === undefined || slot.done) return NOTHING;
    // an answer is still owed, and may be a refusal that fences the ones behind it
    if (slot.sent || slot.fences) slot.done = true;
    else this.#leave(slot);
    return { what: "accepted", entry: slot.entry, conversation: slot.lane };
  }

  /** `refused`, or an `error` that names a send. */
  refused(id: string, code: string, final: boolean, now: number, retryAfter_ms?: number): Settled {
    const slot = this.#slots.get(id);
    if (slot === undefined) return NOTHING;
    if (final && !isRetryable(code)) {
      if (slot.done) return this.#leave(slot);
      const maybe = code === TOO_OLD && slot.tried;
      this.#leave(slot);
      return { what: "refused", entry: slot.entry, conversation: slot.lane, code, maybe };
    }
    if (!slot.sent) return { what: "waits", entry: slot.entry, conversation: slot.lane };
    slot.sent = false;
    slot.fences = true;
    if (code === "fenced" && !this.#hasEarlier(slot)) return { what: "stuck" };
    if (code === "rate") this.#budget = { tokens: 0, at: now + (retryAfter_ms ?? 0) };
    const lane = this.#lanes.get(slot.lane);
    // what follows the first refusal of a lane says nothing new; when the probe is refused, or what went before it, the wait grows
    if (lane === undefined || lane.probe === id || (lane.probe !== null && code !== "fenced")) this.#wait(slot.lane, now, retryAfter_ms);
    return { what: "waits", entry: slot.entry, conversation: slot.lane };
  }

  #wait(name: string, now: number, retryAfter_ms: number | undefined): void {
    const attempt = (this.#lanes.get(name)?.attempt ?? -1) + 1;
    const asked = retryAfter_ms ?? 0;
    // the server knows best; jitter of a quarter so that a crowd does not come as one, growing when it goes on
    const jitter = asked > 0 && attempt < 3 ? Math.round((asked / 4) * this.#random()) : fullJitter(attempt, this.#random());
    this.#lanes.set(name, { waitUntil: now + asked + jitter, attempt, probe: null });
  }

  /** Whether something older in its lane is unanswered: then that is what the server waits for. */
  #hasEarlier(slot: Slot): boolean {
    for (const other of this.#slots.values()) {
      if (other === slot) return false;
      if (other.lane === slot.lane) return true;
    }
    return false;
  }

  #leave(slot: Slot): Settled {
    this.#slots.delete(slot.entry.id);
    const lane = this.#lanes.get(slot.lane);
    if (lane?.probe === slot.entry.id) this.#lanes.delete(slot.lane);
    return NOTHING;
  }
}

function frameOf({ id, to, kind, body, reply_to }: OutboxEntry): SendFrame {
  return { type: "send", id, to, kind, body, ...(reply_to === undefined ? {} : { reply_to }) };
}
