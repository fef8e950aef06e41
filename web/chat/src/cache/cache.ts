/**
 * The cache of what was shown last, in IndexedDB: so that the page has something to show before the server has answered, and without it. Nothing here is
 * needed: what is broken, of another version, or cannot be opened is thrown away, and without IndexedDB there is no cache.
 */

const NAME = "switchboard-chat";
/** Raised when what is stored changes its shape: the older one is thrown away. */
const VERSION = 1;
const STORE = "kept";
const OPEN_MS = 3_000;

/** The names of what is kept, each for a user; `timeline` for a conversation too. */
export type Kept = "lines" | "known" | "drafts" | "unstored" | "me" | `timeline ${string}`;

function opened(request: IDBOpenDBRequest): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error("IndexedDB does not answer")), OPEN_MS);
    request.onsuccess = () => { clearTimeout(late); resolve(request.result); };
    request.onerror = () => { clearTimeout(late); reject(request.error ?? new Error("IndexedDB failed")); };
  });
}

function openOnce(): Promise<IDBDatabase> {
  const request = indexedDB.open(NAME, VERSION);
  request.onupgradeneeded = () => {
    const database = request.result;
    for (const name of [...database.objectStoreNames]) database.deleteObjectStore(name);
    database.createObjectStore(STORE);
  };
  return opened(request);
}

/** Whether it has the shape of this version. */
function isUsable(database: IDBDatabase): boolean {
  if (!database.objectStoreNames.contains(STORE)) return false;
  const store = database.transaction(STORE).objectStore(STORE);
  return store.keyPath === null && !store.autoIncrement;
}

async function open(): Promise<IDBDatabase> {
  const first = await openOnce().catch(() => null);
  if (first !== null && isUsable(first)) return first;
  first?.close();
  await opened(indexedDB.deleteDatabase(NAME));
  return openOnce();
}

function answer<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("IndexedDB failed"));
  });
}

/** What one user's page keeps. No method fails. */
export class Cache {
  readonly #user: string;
  #database: Promise<IDBDatabase | null> | null = null;
  /** The same once it is open: a page that goes away has no time to wait. */
  #opened: IDBDatabase | null = null;
  #wanted = new Map<Kept, () => unknown>();
  #timer: ReturnType<typeof setTimeout> | null = null;

  constructor(user: string) {
    this.#user = user;
  }

  #open(): Promise<IDBDatabase | null> {
    this.#database ??= open().then((database) => {
      const gone = (): void => { this.#database = this.#opened = null; };
      database.onversionchange = () => { database.close(); gone(); };
      database.onclose = gone;
      this.#opened = database;
      return database;
    }, (error: unknown) => { console.warn("no cache:", error); return null; });
    return this.#database;
  }

  async read(name: Kept): Promise<unknown> {
    try {
      const database = await this.#open();
      if (database === null) return undefined;
      return await answer<unknown>(database.transaction(STORE).objectStore(STORE).get([this.#user, name]));
    } catch (error) {
      console.warn("not read from the cache:", error);
      return undefined;
    }
  }

  /** Keeps what `value` answers a moment later: many changes are one write. */
  keep(name: Kept, value: () => unknown): void {
    this.#wanted.set(name, value);
    this.#timer ??= setTimeout(() => void this.flush(), 500);
  }

  /** Writes now what is still to be written; when the database is open already, before this returns. */
  async flush(): Promise<void> {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const wanted = this.#wanted;
    if (wanted.size === 0) return;
    this.#wanted = new Map();
    try {
      const database = this.#opened ?? await this.#open();
      if (database === null) return;
      const transaction = database.transaction(STORE, "readwrite");
      for (const [name, value] of wanted) transaction.objectStore(STORE).put(value(), [this.#user, name]);
      // what is not committed when the page goes away is undone
      transaction.commit();
    } catch (error) {
      console.warn("not kept in the cache:", error);
    }
  }

  /** Lets go; nothing is written any more. */
  async close(): Promise<void> {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#wanted.clear();
    (await this.#database)?.close();
    this.#opened = null;
    this.#database = Promise.resolve(null);
  }
}

/** Throws away everything this page has stored on the device, whoever's it is. */
export async function forgetAll(): Promise<void> {
  for (const name of [NAME, "switchboard"]) {
    await opened(indexedDB.deleteDatabase(name)).catch((error: unknown) => console.warn(`${name} is still there:`, error));
  }
}
