/**
 * Storage in a browser's IndexedDB. One transaction a change; every write looks first whether this client is still the one that opened the state.
 *
 * What can be wrong with a database and what is done: stores that are missing or keyed otherwise → the database is made anew; a newer version, blocked by another
 * tab, disabled, broken → `open` fails, and the client goes on in memory and says so; closed by the browser → opened again at the next write.
 *
 * @packageDocumentation
 */

import { FencedError } from "./storage.js";
import type { DeviceStorage, Storage, StoredChange, StoredState } from "./storage.js";

const VERSION = 1;
const META = "meta";
const OUTBOX = "outbox";
/** How long another tab may stand in the way of opening, milliseconds. */
const BLOCKED_MS = 3_000;
/** How long opening may take in all, milliseconds. */
const OPEN_MS = 10_000;
const META_NAMES = ["place", "rev", "reads"] as const;

/** Options of {@link IndexedDbStorage}. */
export interface IndexedDbOptions {
  /** Name of the database. Default `switchboard`. */
  readonly name?: string;
  /** Default: the global `indexedDB`. */
  readonly factory?: IDBFactory;
  /** The database was of no use and has been made anew: everything kept before is gone. */
  readonly onReset?: (why: string) => void;
}

function answer<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("IndexedDB failed"));
  });
}

function done(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = transaction.onerror = () => reject(transaction.error ?? new Error("the transaction was aborted"));
  });
}

function abort(transaction: IDBTransaction): void {
  try {
    transaction.abort();
  } catch {
    // it has ended by itself
  }
}

function opened(request: IDBOpenDBRequest): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    let over = false;
    const fail = (error: Error | DOMException | null): void => {
      over = true;
      clearTimeout(timer);
      reject(error ?? new Error("IndexedDB did not open"));
    };
    let timer = setTimeout(() => fail(new Error("IndexedDB does not answer")), OPEN_MS);
    request.onblocked = () => {
      clearTimeout(timer);
      timer = setTimeout(() => fail(new Error("blocked: another tab holds an older version of the database")), BLOCKED_MS);
    };
    request.onerror = () => fail(request.error);
    request.onsuccess = () => {
      clearTimeout(timer);
      // too late: let it go, so that it blocks nobody
      if (over) request.result?.close();
      else resolve(request.result);
    };
  });
}

/** Keeps state in IndexedDB. */
export class IndexedDbStorage implements Storage {
  readonly #name: string;
  readonly #factory: IDBFactory;
  readonly #onReset: (why: string) => void;

  constructor(options: IndexedDbOptions = {}) {
    this.#name = options.name ?? "switchboard";
    this.#factory = options.factory ?? globalThis.indexedDB;
    this.#onReset = options.onReset ?? (() => {});
  }

  async open(key: string): Promise<DeviceStorage> {
    const device = new IndexedDbDevice(key, () => this.#database());
    await device.takeOver();
    return device;
  }

  async #database(): Promise<IDBDatabase> {
    const database = await this.#openOnce();
    const why = unusable(database);
    if (why === null) return database;
    database.close();
    await opened(this.#factory.deleteDatabase(this.#name));
    this.#onReset(why);
    return this.#openOnce();
  }

  #openOnce(): Promise<IDBDatabase> {
    const request = this.#factory.open(this.#name, VERSION);
    request.onupgradeneeded = () => {
      const database = request.result;
      for (const name of [META, OUTBOX]) {
        if (!database.objectStoreNames.contains(name)) database.createObjectStore(name);
      }
    };
    return opened(request);
  }
}

/** Why the stores are not those of this version, or `null`. */
function unusable(database: IDBDatabase): string | null {
  for (const name of [META, OUTBOX]) {
    if (!database.objectStoreNames.contains(name)) return `no store ${name}`;
    const store = database.transaction(name).objectStore(name);
    if (store.keyPath !== null || store.autoIncrement) return `store ${name} has other keys`;
  }
  return null;
}

/** Everything of one device lies between these keys: arrays `[device, name]`. */
const all = (key: string): IDBKeyRange => IDBKeyRange.bound([key], [key, []]);

class IndexedDbDevice implements DeviceStorage {
  readonly #key: string;
  readonly #connect: () => Promise<IDBDatabase>;
  #database: IDBDatabase | null = null;
  #writer = 0;

  constructor(key: string, connect: () => Promise<IDBDatabase>) {
    this.#key = key;
    this.#connect = connect;
  }

  async #transaction(mode: IDBTransactionMode): Promise<IDBTransaction> {
    for (let attempt = 0; ; attempt += 1) {
      this.#database ??= await this.#opened();
      try {
        return this.#database.transaction([META, OUTBOX], mode);
      } catch (thrown) {
        // closed meanwhile, by the browser or for another tab's sake
        this.#database.close();
        this.#database = null;
        if (attempt > 0) throw thrown;
      }
    }
  }

  async #opened(): Promise<IDBDatabase> {
    const database = await this.#connect();
    database.onversionchange = () => database.close();
    database.onclose = () => { if (this.#database === database) this.#database = null; };
    return database;
  }

  /** This client is the writer from now on. */
  async takeOver(): Promise<void> {
    const transaction = await this.#transaction("readwrite");
    const meta = transaction.objectStore(META);
    const complete = done(transaction);
    const before: unknown = await answer(meta.get([this.#key, "writer"]));
    this.#writer = (Number.isSafeInteger(before) ? (before as number) : 0) + 1;
    meta.put(this.#writer, [this.#key, "writer"]);
    await complete;
  }

  async load(): Promise<StoredState> {
    const transaction = await this.#transaction("readonly");
    const meta = transaction.objectStore(META);
    const [place, rev, reads, outbox] = await Promise.all([
      ...META_NAMES.map((name) => answer<unknown>(meta.get([this.#key, name]))),
      answer<unknown[]>(transaction.objectStore(OUTBOX).getAll(all(this.#key))),
    ]);
    return { place, rev, reads, outbox: outbox as unknown[] };
  }

  async write(change: StoredChange): Promise<void> {
    const transaction = await this.#transaction("readwrite");
    const complete = done(transaction);
    complete.catch(() => {});
    try {
      const writer: unknown = await answer(transaction.objectStore(META).get([this.#key, "writer"]));
      if (writer !== this.#writer) throw new FencedError("opened elsewhere");
      this.#put(transaction, change);
    } catch (thrown) {
      // all of it or nothing, whatever failed
      abort(transaction);
      throw thrown;
    }
    await complete;
  }

  #put(transaction: IDBTransaction, change: StoredChange): void {
    const meta = transaction.objectStore(META);
    for (const name of META_NAMES) {
      const value = change[name];
      if (value === null) meta.delete([this.#key, name]);
      else if (value !== undefined) meta.put(value, [this.#key, name]);
    }
    const outbox = transaction.objectStore(OUTBOX);
    for (const entry of change.put) outbox.put(entry, [this.#key, entry.id]);
    for (const id of change.remove) outbox.delete([this.#key, id]);
  }

  close(): Promise<void> {
    this.#database?.close();
    this.#database = null;
    return Promise.resolve();
  }
}
