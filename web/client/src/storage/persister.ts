/**
 * Changes on their way into a storage: one write at a time, what comes meanwhile goes together into the next. A storage that fails stops nobody:
 * the change is kept and tried again, and that is told.
 *
 * @packageDocumentation
 */

import type { Save } from "../core/effects.js";
import type { Place } from "../core/inbox.js";
import type { OutboxEntry } from "../core/outbox.js";
import { wordsOf } from "../errors.js";
import { FencedError } from "./storage.js";
import type { DeviceStorage, StoredChange } from "./storage.js";

/** A write that takes longer counts as failed, milliseconds. */
const WRITE_MS = 10_000;
/** Between tries while a storage fails, milliseconds. */
const AGAIN_MS = 5_000;

/** What a persister tells. */
export interface PersisterEvents {
  /** A write failed; said once until one succeeds. */
  readonly failed: (why: string) => void;
  /** Another client has opened this state. */
  readonly fenced: () => void;
}

/** Ids to be removed that may wait while a storage fails; a repeat of a send does no harm. */
const REMOVE_MAX = 4096;

/** What is not written yet. */
interface Batch {
  readonly rest: Omit<Save, "put" | "remove">;
  readonly put: ReadonlyMap<string, OutboxEntry>;
  readonly remove: ReadonlySet<string>;
}

const EMPTY: Batch = { rest: {}, put: new Map(), remove: new Set() };

/** Two batches as one; the newer wins. */
function together(older: Batch, newer: Batch): Batch {
  const put = new Map([...older.put, ...newer.put]);
  const remove = new Set([...older.remove, ...newer.remove].slice(-REMOVE_MAX));
  for (const id of remove) put.delete(id);
  return { rest: { ...older.rest, ...newer.rest }, put, remove };
}

function batchOf({ put, remove, ...rest }: Save): Batch {
  return { rest, put: new Map(put === undefined ? [] : [[put.id, put]]), remove: new Set(remove === undefined ? [] : [remove]) };
}

const changeOf = ({ rest, put, remove }: Batch): StoredChange => ({ ...rest, put: [...put.values()], remove: [...remove] });

/** Writes the changes of one client. */
export class Persister {
  readonly #storage: DeviceStorage;
  readonly #events: PersisterEvents;
  #pending = EMPTY;
  #waiters: ((written: boolean) => void)[] = [];
  #running: Promise<void> | null = null;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #failing = false;
  #ended = false;
  #place: Place | null;

  constructor(storage: DeviceStorage, events: PersisterEvents, place: Place | null = null) {
    this.#storage = storage;
    this.#events = events;
    this.#place = place;
  }

  /** The place that the storage holds, as far as this client knows; null: none. */
  get place(): Place | null {
    return this.#place;
  }

  /** Resolves when the change is written (true), or when it cannot be and that was told (false). Never once this client is fenced or closed. */
  save(save: Save): Promise<boolean> {
    this.#pending = together(this.#pending, batchOf(save));
    return new Promise((resolve) => {
      this.#waiters.push(resolve);
      this.#start();
    });
  }

  /** Resolves when nothing is under way. */
  async flush(): Promise<void> {
    while (this.#running !== null) await this.#running;
  }

  /** Writes what it can, then lets go of the storage. */
  async close(): Promise<void> {
    await this.flush();
    if (this.#failing) this.#start();
    await this.flush();
    this.#end();
    await this.#storage.close();
  }

  #end(): void {
    this.#ended = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  #start(): void {
    if (this.#running === null && !this.#ended) this.#running = this.#run();
  }

  async #run(): Promise<void> {
    do {
      const waiters = this.#waiters;
      const batch = this.#pending;
      this.#waiters = [];
      this.#pending = EMPTY;
      const good = await this.#write(batch);
      if (this.#ended) break;
      if (!good) this.#again(batch);
      for (const resolve of waiters) resolve(good);
      // who waited may have more to write at once: the next write takes it along
      await Promise.resolve();
    } while (this.#waiters.length > 0);
    this.#running = null;
  }

  async #write(batch: Batch): Promise<boolean> {
    try {
      await inTime(this.#storage.write(changeOf(batch)));
      this.#failing = false;
      this.#place = batch.rest.place ?? this.#place;
      return true;
    } catch (thrown) {
      if (thrown instanceof FencedError) {
        this.#end();
        this.#events.fenced();
      } else if (!this.#failing) {
        this.#failing = true;
        this.#events.failed(wordsOf(thrown));
      }
      return false;
    }
  }

  /** What could not be written goes with the next change, or by itself after a while. */
  #again(batch: Batch): void {
    this.#pending = together(batch, this.#pending);
    this.#timer ??= setTimeout(() => { this.#timer = null; this.#start(); }, AGAIN_MS);
  }
}

function inTime(write: Promise<void>): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("the storage does not answer")), WRITE_MS);
    write.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
