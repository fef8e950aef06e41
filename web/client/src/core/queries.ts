/**
 * Pages that were asked for: one at a time on the wire, the others wait in order; asked again after a reconnect. Pure.
 *
 * An `error` does not say which frame it answers. So only one page is under way, and an error that can belong to it is taken as its answer; if it
 * was another frame's, the application asks again and nothing else is harmed.
 *
 * @packageDocumentation
 */

import type { ConversationsFrame, ErrorFrame, HistoryFrame, ServerFrame } from "../protocol/frames.js";
import { isRetryable } from "../protocol/codes.js";

/** A page somebody waits for. */
export interface Query {
  /** Names it towards the caller. */
  readonly key: number;
  readonly frame: HistoryFrame | ConversationsFrame;
}

/** What a frame of the server means for the queries. */
export type QueryAnswer =
  | { readonly what: "nothing" }
  | { readonly what: "page"; readonly key: number; readonly frame: ServerFrame }
  | { readonly what: "failed"; readonly key: number; readonly error: ErrorFrame }
  /** To be asked again after so many milliseconds. */
  | { readonly what: "again"; readonly after_ms: number };

/** Pages that may wait; more are refused here. */
export const QUERIES_MAX = 64;
const AGAIN_MS = 500;
/** The key of a query whose caller has gone. */
const NOBODY = -1;
const FIELDS: ReadonlySet<string> = new Set(["conversation", "before", "limit"]);
const CODES: ReadonlySet<string> = new Set(["forbidden", "busy", "unavailable"]);

/** The queue of queries. */
export class Queries {
  readonly #waiting: Query[] = [];
  #asked = false;
  #resting = false;

  /** Queries without an answer. */
  get size(): number {
    return this.#waiting.length;
  }

  /** Adds one. False: too many wait. */
  add(query: Query): boolean {
    if (this.#waiting.length >= QUERIES_MAX) return false;
    this.#waiting.push(query);
    return true;
  }

  /** The caller does not want it any more. True: it is under way; its answer will be taken and find nobody. */
  drop(key: number): boolean {
    const at = this.#waiting.findIndex((query) => query.key === key);
    const found = this.#waiting[at];
    if (found === undefined) return false;
    const underWay = at === 0 && this.#asked;
    if (underWay) this.#waiting[0] = { ...found, key: NOBODY };
    else this.#waiting.splice(at, 1);
    return underWay;
  }

  /** The time that an answer asked for has passed. */
  resume(): void {
    this.#resting = false;
  }

  /** The connection is gone. */
  disconnected(): void {
    this.#asked = this.#resting = false;
    if (this.#waiting[0]?.key === NOBODY) this.#waiting.shift();
  }

  /** The frame to ask now, if none is under way. */
  next(): HistoryFrame | ConversationsFrame | null {
    const first = this.#waiting[0];
    if (this.#asked || this.#resting || first === undefined) return null;
    this.#asked = true;
    return first.frame;
  }

  /** A frame came that may be an answer. */
  answer(frame: ServerFrame): QueryAnswer {
    const first = this.#waiting[0];
    if (!this.#asked || first === undefined) return { what: "nothing" };
    if (frame.type === "error") return this.#failed(first, frame);
    const fits = first.frame.type === "history"
      ? frame.type === "page" && frame.conversation === first.frame.conversation
      : frame.type === "conversations";
    if (!fits) return { what: "nothing" };
    this.#settle();
    return { what: "page", key: first.key, frame };
  }

  #failed(first: Query, error: ErrorFrame): QueryAnswer {
    const ours = error.id === undefined && (CODES.has(error.code) || (error.code === "bad_field" && FIELDS.has(error.field ?? "")));
    if (!ours) return { what: "nothing" };
    if (isRetryable(error.code)) {
      this.#asked = false;
      this.#resting = true;
      return { what: "again", after_ms: error.retry_after_ms ?? AGAIN_MS };
    }
    this.#settle();
    return { what: "failed", key: first.key, error };
  }

  #settle(): void {
    this.#waiting.shift();
    this.#asked = false;
  }
}
