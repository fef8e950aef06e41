/** Who users are: profiles from the server, kept for a while. */

import { signal } from "@preact/signals";
import { ApiError } from "@switchboard/client";
import type { Account, Profile } from "@switchboard/client";
import type { Cache } from "../cache/cache.js";
import { knownOf } from "../cache/check.js";
import type { Known } from "../cache/check.js";
import { visible } from "../text/visible.js";
import { spaced } from "../text/phone.js";

/** How long a profile is good, milliseconds. */
const FRESH_MS = 10 * 60_000;
/** Profiles that are kept; the oldest go first. */
const KNOWN_MAX = 2_000;
/** Requests at once. */
const ASKED_MAX = 3;

export class People {
  /** What is known, by user. */
  readonly known = signal<ReadonlyMap<string, Known>>(new Map());
  readonly #account: Account | null;
  readonly #cache: Cache;
  readonly #me: string;
  readonly #wanted = new Set<string>();
  #asked = 0;

  constructor(me: string, account: Account | null, cache: Cache) {
    this.#me = me;
    this.#account = account;
    this.#cache = cache;
  }

  async restore(): Promise<void> {
    const kept = knownOf(await this.#cache.read("known"));
    this.known.value = new Map([...kept, ...this.known.value]);
  }

  /** A user is to be shown: asks the server if what is known is old. */
  want(user: string): void {
    const known = this.known.peek().get(user);
    if (this.#account === null || (known !== undefined && Date.now() - known.at < FRESH_MS)) return;
    this.#wanted.add(user);
    this.#ask();
  }

  #ask(): void {
    for (const user of this.#wanted) {
      if (this.#asked >= ASKED_MAX) return;
      this.#wanted.delete(user);
      this.#asked += 1;
      void this.#one(user).finally(() => { this.#asked -= 1; this.#ask(); });
    }
  }

  async #one(user: string): Promise<void> {
    try {
      const profile = await this.#account?.profile(user);
      if (profile !== undefined) this.learn(profile);
    } catch (error) {
      // nobody of this id has an account: the number is all there is
      if (error instanceof ApiError && error.status === 404) this.learn({ user, name: "", about: "" });
    }
  }

  /** Takes a profile in; `phone`: the number it was found by. */
  learn({ user, name, about }: Profile, phone?: string): void {
    const before = this.known.peek().get(user);
    const number = phone ?? before?.phone;
    const next = new Map(this.known.peek());
    next.delete(user);
    next.set(user, { name, about, at: Date.now(), ...(number === undefined ? {} : { phone: number }) });
    for (const oldest of next.keys()) {
      if (next.size <= KNOWN_MAX) break;
      next.delete(oldest);
    }
    this.known.value = next;
    this.#cache.keep("known", () => Object.fromEntries(this.known.peek()));
  }

  /** What to call a user, harmless to look at. */
  name(user: string): string {
    const known = this.known.value.get(user);
    const name = visible(known?.name ?? "");
    const words = name !== "" ? name : known?.phone !== undefined ? spaced(known.phone) : `User ${user}`;
    return user === this.#me ? `${name === "" ? "You" : words} (you)` : words;
  }
}
