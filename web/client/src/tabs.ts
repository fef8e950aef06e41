/**
 * One client for each device: of several tabs of one origin, only one connects and writes. Web Locks say who; a channel asks the holder to hand over.
 * (Where there are no Web Locks, the storage fences the older tab at its next write and the server closes it with 4409.)
 *
 * @packageDocumentation
 */

/** How long the holder may take to hand over before the lock is taken from it (a frozen tab), milliseconds. */
const HAND_OVER_MS = 2_000;

/** What a tab is told about the lock. */
export interface TabEvents {
  /** Somebody else holds it; this tab waits. */
  readonly waiting: () => void;
  /** Another tab asks for it: finish, then call `release`. */
  readonly asked: () => void;
  /** It was taken from this tab: stop at once. */
  readonly lost: () => void;
}

/** The lock of one device, as seen from one tab. */
export class DeviceLock {
  readonly #name: string;
  readonly #locks: LockManager;
  readonly #events: TabEvents;
  readonly #channel: BroadcastChannel | null;
  #letGo: (() => void) | null = null;
  #waiting: AbortController | null = null;
  #granted: (() => void) | null = null;
  #timer: ReturnType<typeof setTimeout> | null = null;

  constructor(name: string, locks: LockManager, events: TabEvents) {
    this.#name = name;
    this.#locks = locks;
    this.#events = events;
    this.#channel = typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel(name);
    if (this.#channel === null) return;
    this.#channel.onmessage = () => { if (this.#letGo !== null) this.#events.asked(); };
  }

  /** Resolves when this tab holds the lock; never if it is closed before. */
  acquire(): Promise<void> {
    return new Promise((resolve) => {
      this.#granted = resolve;
      void this.#request({ ifAvailable: true }).then((got) => {
        if (got || this.#granted === null) return;
        this.#events.waiting();
        this.#waiting = new AbortController();
        void this.#request({ signal: this.#waiting.signal });
      });
    });
  }

  /** Requests the lock and holds it until it is let go. False: it was not to be had. */
  async #request(options: LockOptions): Promise<boolean> {
    let held = false;
    try {
      await this.#locks.request(this.#name, options, (lock) => {
        if (lock === null || this.#granted === null) return undefined;
        held = true;
        return this.#hold();
      });
      return held;
    } catch {
      // given up by this tab, or stolen from it
      if (held && this.#letGo !== null) {
        this.#letGo = null;
        this.#events.lost();
      }
      return held;
    }
  }

  #hold(): Promise<void> {
    this.#waiting = null;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    return new Promise((release) => {
      this.#letGo = release;
      const granted = this.#granted;
      this.#granted = null;
      granted?.();
    });
  }

  /** Asks the tab that holds it to hand over; if it does not, takes it. Only while waiting. */
  take(): void {
    if (this.#granted === null || this.#timer !== null) return;
    this.#channel?.postMessage("hand over");
    this.#timer = setTimeout(() => {
      this.#timer = null;
      if (this.#granted === null) return;
      this.#waiting?.abort();
      void this.#request({ steal: true });
    }, HAND_OVER_MS);
  }

  /** Lets go of it; others get it. */
  release(): void {
    const letGo = this.#letGo;
    this.#letGo = null;
    letGo?.();
  }

  /** Lets go and stops waiting. */
  close(): void {
    this.#granted = null;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#waiting?.abort();
    this.release();
    this.#channel?.close();
  }
}
