/**
 * Storage for as long as the process lives: for Node, for tests, and where a browser has no other.
 *
 * @packageDocumentation
 */

import { FencedError } from "./storage.js";
import type { DeviceStorage, Storage, StoredChange, StoredState } from "./storage.js";

interface Kept {
  writer: number;
  place?: unknown;
  rev?: unknown;
  reads?: unknown;
  readonly outbox: Map<string, unknown>;
}

/** Keeps the state of any number of devices in memory. One instance given to several clients is what they share. */
export class MemoryStorage implements Storage {
  readonly #kept = new Map<string, Kept>();

  open(key: string): Promise<DeviceStorage> {
    const kept = this.#kept.get(key) ?? { writer: 0, outbox: new Map<string, unknown>() };
    this.#kept.set(key, kept);
    kept.writer += 1;
    const writer = kept.writer;
    return Promise.resolve({
      load: () => Promise.resolve<StoredState>(structuredClone({
        place: kept.place, rev: kept.rev, reads: kept.reads, outbox: [...kept.outbox.values()],
      })),
      write: (change) => (kept.writer === writer ? Promise.resolve(apply(kept, change)) : Promise.reject(new FencedError("opened elsewhere"))),
      close: () => Promise.resolve(),
    });
  }
}

function apply(kept: Kept, change: StoredChange): void {
  if (change.place !== undefined) kept.place = change.place;
  if (change.rev !== undefined) kept.rev = change.rev;
  if (change.reads !== undefined) kept.reads = change.reads;
  for (const entry of change.put) kept.outbox.set(entry.id, structuredClone(entry));
  for (const id of change.remove) kept.outbox.delete(id);
}
