/**
 * How far this user has read, said and not yet confirmed: `read` is not answered, but one's own receipt comes back. Until then it is said again on
 * every connection. Pure.
 *
 * @packageDocumentation
 */

import { comparePositions } from "../protocol/names.js";
import type { ReceiptFrame } from "../protocol/frames.js";

/** Conversations that may wait for their confirmation; the oldest gives way. */
const READS_MAX = 1000;

/** Most that are said in a second: the server takes 100. */
const BURST = 50;

/** Read positions on their way. */
export class Reads {
  readonly #waiting: Map<string, string>;
  /** Conversations of which this connection has not heard yet. */
  #unsaid = new Set<string>();
  /** How many were said in the present second. */
  #said = 0;

  /** Begins with what a storage had. */
  constructor(waiting: Readonly<Record<string, string>>) {
    this.#waiting = new Map(Object.entries(waiting).slice(-READS_MAX));
  }

  /** Everything that waits, for the storage. */
  all(): Record<string, string> {
    return Object.fromEntries(this.#waiting);
  }

  /** Read up to there. False: that is known already. */
  add(conversation: string, position: string): boolean {
    const before = this.#waiting.get(conversation);
    if (before !== undefined && comparePositions(position, before) <= 0) return false;
    this.#waiting.delete(conversation);
    this.#waiting.set(conversation, position);
    this.#unsaid.add(conversation);
    const oldest = this.#waiting.keys().next();
    if (this.#waiting.size > READS_MAX && oldest.done !== true) this.#waiting.delete(oldest.value);
    return true;
  }

  /** A receipt of one's own came. True: it has confirmed something. */
  confirmed({ conversation, read }: ReceiptFrame): boolean {
    const waiting = this.#waiting.get(conversation);
    if (waiting === undefined || comparePositions(read, waiting) < 0) return false;
    return this.#waiting.delete(conversation);
  }

  /** A connection begins: everything is to be said. */
  connected(): void {
    this.#unsaid = new Set(this.#waiting.keys());
    this.#said = 0;
  }

  /** The second is over. */
  resume(): void {
    this.#said = 0;
  }

  /** Whether a second has begun, so that somebody must call {@link resume}. */
  get counting(): boolean {
    return this.#said > 0;
  }

  /** What to say now. */
  next(): { readonly conversation: string; readonly position: string }[] {
    const said: { conversation: string; position: string }[] = [];
    for (const conversation of this.#unsaid) {
      if (this.#said >= BURST) break;
      this.#unsaid.delete(conversation);
      const position = this.#waiting.get(conversation);
      if (position === undefined) continue;
      said.push({ conversation, position });
      this.#said += 1;
    }
    return said;
  }
}
