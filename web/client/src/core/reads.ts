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

/** Read positions on their way. */
export class Reads {
  readonly #waiting: Map<string, string>;

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

  /** A conversation in which reading cannot be told. */
  drop(conversation: string): boolean {
    return this.#waiting.delete(conversation);
  }
}
