/** The list of conversations: from the server's pages, kept true by events. */

import { computed, signal } from "@preact/signals";
import { comparePositions } from "@switchboard/client";
import type { Client, Conversation, Message } from "@switchboard/client";
import type { Cache } from "../cache/cache.js";
import { linesOf } from "../cache/check.js";
import type { Line } from "../cache/check.js";
import { NO_MARKS, laterMarks } from "../model/ticks.js";
import type { Marks } from "../model/ticks.js";

/** Conversations of one page, and how many are kept in the cache. */
const PAGE = 50;
const CACHED = 200;

const isLater = (a: string, b: string): boolean => comparePositions(a, b) > 0;

export class Lines {
  readonly byName = signal<ReadonlyMap<string, Line>>(new Map());
  /** The most recently active first. Those in which nothing was said are not shown. */
  readonly sorted = computed(() => [...this.byName.value.values()].filter((line) => line.last !== null)
    .sort((a, b) => (b.last?.at ?? "").localeCompare(a.last?.at ?? "") || comparePositions(b.last?.position ?? "0", a.last?.position ?? "0")));
  readonly unread = computed(() => this.sorted.value.reduce((sum, line) => sum + line.unread, 0));
  /** Whether the server's first page has been here since the page was loaded. */
  readonly loaded = signal(false);
  /** Where older ones go on; `null`: there are none. */
  readonly before = signal<string | null>(null);
  readonly #client: Client;
  readonly #me: string;
  readonly #cache: Cache;
  /** What arrives while a page is awaited, by conversation: the page may or may not count it. */
  #during: Message[] | null = null;
  #loading: Promise<void> | null = null;

  constructor(me: string, client: Client, cache: Cache) {
    this.#me = me;
    this.#client = client;
    this.#cache = cache;
  }

  async restore(): Promise<void> {
    const kept = linesOf(await this.#cache.read("lines"));
    if (!this.loaded.peek()) this.byName.value = new Map([...kept.map((line) => [line.conversation, line] as const), ...this.byName.peek()]);
  }

  get(conversation: string): Line {
    return this.byName.value.get(conversation) ?? { conversation, last: null, unread: 0, read: "0", marks: NO_MARKS };
  }

  peek(conversation: string): Line {
    return this.byName.peek().get(conversation) ?? { conversation, last: null, unread: 0, read: "0", marks: NO_MARKS };
  }

  #put(line: Line): void {
    this.byName.value = new Map(this.byName.peek()).set(line.conversation, line);
    this.#cache.keep("lines", () => this.sorted.peek().slice(0, CACHED));
  }

  /** The first page again; one at a time. */
  load(): Promise<void> {
    this.#loading ??= this.#load(null).finally(() => { this.#loading = null; });
    return this.#loading;
  }

  /** The next page of older ones. */
  more(): Promise<void> {
    const before = this.before.peek();
    if (before === null) return Promise.resolve();
    this.#loading ??= this.#load(before).finally(() => { this.#loading = null; });
    return this.#loading;
  }

  async #load(before: string | null): Promise<void> {
    this.#during = [];
    try {
      const page = await this.#client.conversations({ before, limit: PAGE });
      const during = this.#during;
      for (const item of page.items) this.#merge(item, during);
      // a first page that came again says nothing about how far the older ones go
      if (before !== null || !this.loaded.peek()) this.before.value = page.before;
      this.loaded.value = true;
    } finally {
      this.#during = null;
    }
  }

  #merge(item: Conversation, during: readonly Message[]): void {
    const line = this.peek(item.conversation);
    const last = line.last !== null && isLater(line.last.position, item.last.position) ? line.last : item.last;
    const read = isLater(line.read, item.read) ? line.read : item.read;
    const uncounted = during.filter((message) => message.conversation === item.conversation && isLater(message.position, item.last.position)).length;
    const other = item.receipts.find(({ member }) => member !== this.#me);
    // what was read here and is not stored there yet counts as read; a server without receipts counts nothing, and knows less than this page
    const counts = item.read !== "0" || item.unread > 0;
    const unread = comparePositions(read, last.position) >= 0 ? 0 : counts || line.last === null ? item.unread + uncounted : line.unread;
    this.#put({ conversation: item.conversation, last, read, unread, marks: other === undefined ? line.marks : laterMarks(line.marks, other) });
  }

  /** A message of the mailbox; whether its conversation was not known before. */
  arrived(message: Message): boolean {
    const known = this.byName.peek().has(message.conversation);
    const line = this.peek(message.conversation);
    if (line.last !== null && !isLater(message.position, line.last.position)) return false;
    if (!message.mine) this.#during?.push(message);
    this.#put({ ...line, last: message, unread: message.mine ? line.unread : line.unread + 1 });
    return !known || line.last === null;
  }

  /** How far the other has come. */
  marked(conversation: string, marks: Marks): void {
    const line = this.peek(conversation);
    const next = laterMarks(line.marks, marks);
    if (next.read !== line.marks.read || next.delivered !== line.marks.delivered) this.#put({ ...line, marks: next });
  }

  /** This user has read up to `position`, here or elsewhere; `left`: what is unread behind it, if that is known. Whether that is news. */
  read(conversation: string, position: string, left: number | null): boolean {
    const line = this.peek(conversation);
    if (!isLater(position, line.read)) return false;
    const all = line.last === null || comparePositions(position, line.last.position) >= 0;
    this.#put({ ...line, read: position, unread: all ? 0 : Math.min(left ?? line.unread, line.unread) });
    return true;
  }
}
