/**
 * The messages of one conversation as they are shown: what the server has placed, ascending and without a hole, then one's own that have no place yet.
 *
 * What is *synced* joins the newest page of the server; from then on every event of the mailbox belongs behind it. Before that (from the cache, or after a
 * `resync`) events are set aside until a page shows where they belong.
 */

import { comparePositions } from "@switchboard/client";
import type { Message, MessageReference, OutgoingState } from "@switchboard/client";

/** One's own message without a place yet. */
export interface Waiting {
  readonly id: string;
  readonly text: string;
  readonly replyTo: MessageReference | null;
  readonly at: string;
  readonly state: OutgoingState;
  /** `refused`: why. */
  readonly code?: string;
  /** `refused`: an earlier try may be a message all the same. */
  readonly maybe?: boolean;
}

/** A page as it came. */
export interface HistoryPage {
  readonly items: readonly Message[];
  readonly before: string | null;
}

/** Set aside while a page is awaited; more make the next page the better source. */
const ASIDE_MAX = 1000;

export class Timeline {
  #placed: Message[] = [];
  #aside: Message[] = [];
  #waiting: Waiting[] = [];
  #synced = false;
  /** Where older ones go on; `null`: there are none; `undefined`: nobody has asked. */
  #before: string | null | undefined = undefined;

  /** Those with a place, ascending. */
  get placed(): readonly Message[] { return this.#placed; }
  /** One's own without a place, as they were written. */
  get waiting(): readonly Waiting[] { return this.#waiting; }
  get synced(): boolean { return this.#synced; }
  get before(): string | null | undefined { return this.#before; }

  /** What the cache held: shown until the server's page is there. */
  restore(items: readonly Message[]): void {
    if (this.#synced || this.#placed.length > 0) return;
    this.#placed = [...items].sort((a, b) => comparePositions(a.position, b.position));
  }

  /** What comes next does not join what is here. */
  unsync(): void {
    this.#synced = false;
    this.#aside = [];
  }

  /** The newest page. Where it reaches into what is here, the older part stays. */
  newest(page: HistoryPage): void {
    const first = page.items[0];
    const joins = first !== undefined && this.#placed.some((message) => message.position === first.position);
    const older = joins && first !== undefined ? this.#placed.filter((message) => comparePositions(message.position, first.position) < 0) : [];
    const last = page.items.at(-1);
    const newer = this.#synced && last !== undefined ? this.#placed.filter((message) => comparePositions(message.position, last.position) > 0) : [];
    if (older.length === 0 || this.#before === undefined) this.#before = older.length === 0 ? page.before : older[0]?.position ?? page.before;
    this.#placed = [...older, ...page.items, ...newer];
    this.#synced = true;
    const aside = this.#aside;
    this.#aside = [];
    for (const message of aside) this.arrived(message);
    for (const message of page.items) this.#settle(message);
  }

  /** An older page, asked for with `before`. */
  older(page: HistoryPage): void {
    const first = this.#placed[0];
    const fresh = first === undefined ? page.items : page.items.filter((message) => comparePositions(message.position, first.position) < 0);
    this.#placed = [...fresh, ...this.#placed];
    this.#before = page.before;
  }

  /** An event of the mailbox. */
  arrived(message: Message): void {
    this.#settle(message);
    if (!this.#synced) {
      if (this.#aside.length < ASIDE_MAX) this.#aside.push(message);
      return;
    }
    let at = this.#placed.length;
    while (at > 0 && comparePositions(this.#placed[at - 1]?.position ?? "0", message.position) > 0) at -= 1;
    if (this.#placed[at - 1]?.position === message.position) return;
    // older than everything that is here: it is on a page that is still to come
    if (at === 0 && this.#placed.length > 0 && this.#before !== null) return;
    this.#placed.splice(at, 0, message);
  }

  /** It has its place: it waits no more. */
  #settle(message: Message): void {
    if (message.mine && this.#waiting.some(({ id }) => id === message.id)) this.#waiting = this.#waiting.filter(({ id }) => id !== message.id);
  }

  /** One's own message, written or found in the outbox; what has a place already is not added. */
  wrote(waiting: Waiting): void {
    if (this.#waiting.some(({ id }) => id === waiting.id) || this.has(waiting.id)) return;
    this.#waiting = [...this.#waiting, waiting];
  }

  /** One's own message has gone a step further. */
  changed(id: string, change: Pick<Waiting, "state" | "code" | "maybe">): void {
    this.#waiting = this.#waiting.map((one) => (one.id === id ? { ...one, ...change } : one));
  }

  /** Takes a refused one away. */
  forget(id: string): void {
    this.#waiting = this.#waiting.filter((one) => one.id !== id);
  }

  /** Whether one's own message of this id has a place. */
  has(id: string): boolean {
    return this.#placed.some((message) => message.mine && message.id === id);
  }

  find(reference: MessageReference): Message | undefined {
    return this.#placed.find((message) => message.id === reference.id && message.from === reference.from);
  }

  /** Lets go of all but the newest: nobody looks. */
  trim(keep: number): void {
    if (this.#placed.length <= keep) return;
    this.#placed = this.#placed.slice(-keep);
    this.#before = this.#placed[0]?.position ?? null;
  }
}
