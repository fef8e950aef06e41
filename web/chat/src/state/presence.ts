/** Who is there and who writes: hints about now, from the server's `presence` and `typing`. */

import { signal } from "@preact/signals";
import type { Client } from "@switchboard/client";

/** How long somebody who writes is shown as writing, milliseconds. */
const TYPING_MS = 6_000;
/** Between two changes of what is watched, milliseconds. */
const WATCH_MS = 250;
/** Users watched at most, whatever the server allows. */
const WATCH_MAX = 100;

/** `null`: nothing is known. */
export type Presence = { readonly online: boolean; readonly lastSeen: string | null };

export class PresenceOf {
  /** By user. */
  readonly presence = signal<ReadonlyMap<string, Presence>>(new Map());
  /** By conversation: who writes there. */
  readonly typing = signal<ReadonlyMap<string, string>>(new Map());
  readonly #client: Client;
  readonly #timers = new Map<string, ReturnType<typeof setTimeout>>();
  #wanted: readonly string[] = [];
  #timer: ReturnType<typeof setTimeout> | null = null;

  constructor(client: Client) {
    this.#client = client;
    client.on("presence", ({ user, online, lastSeen }) => {
      this.presence.value = new Map(this.presence.peek()).set(user, { online, lastSeen });
    });
    client.on("typing", ({ conversation, from }) => this.#writes(conversation, from));
    client.on("state", ({ name }) => {
      // what was told on a connection that is gone is not known any more
      if (name === "waiting" || name === "stopped" || name === "elsewhere") this.forget();
    });
  }

  #writes(conversation: string, from: string): void {
    clearTimeout(this.#timers.get(conversation));
    this.#timers.set(conversation, setTimeout(() => this.stopped(conversation, from), TYPING_MS));
    this.typing.value = new Map(this.typing.peek()).set(conversation, from);
  }

  /** Somebody does not write there any more: a message came, or nothing for a while. */
  stopped(conversation: string, from: string): void {
    if (this.typing.peek().get(conversation) !== from) return;
    clearTimeout(this.#timers.get(conversation));
    this.#timers.delete(conversation);
    const next = new Map(this.typing.peek());
    next.delete(conversation);
    this.typing.value = next;
  }

  forget(): void {
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
    this.presence.value = new Map();
    this.typing.value = new Map();
  }

  /** Whom to watch from now on, the most important first; `again`: even if it is the same, because a conversation has begun. */
  watch(users: readonly string[], again = false): void {
    const wanted = users.slice(0, WATCH_MAX);
    if (!again && wanted.length === this.#wanted.length && wanted.every((user, i) => user === this.#wanted[i])) return;
    this.#wanted = wanted;
    this.#timer ??= setTimeout(() => { this.#timer = null; this.#say(); }, WATCH_MS);
  }

  #say(): void {
    const { name } = this.#client.state;
    const limit = this.#client.limits.watch_users;
    if (limit === 0 || name === "elsewhere" || name === "stopped" || name === "idle") return;
    this.#client.watch(this.#wanted.slice(0, limit));
  }
}
