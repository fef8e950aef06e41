/**
 * Where a signed-in session is kept: in `localStorage`, so that all tabs of an origin share it, or in memory.
 *
 * @packageDocumentation
 */

import { isUser } from "../protocol/names.js";

/** A signed-in session. Both tokens are secrets. */
export interface AccountSession {
  readonly user: string;
  readonly device: string;
  readonly accessToken: string;
  /** Unix milliseconds. */
  readonly expiresAt: number;
  readonly refreshToken: string;
  /** Unix milliseconds. */
  readonly refreshExpiresAt: number;
  /** Goes with the refresh token: a refresh whose answer was lost is repeated under the same key. */
  readonly refreshKey: string;
  /** Made at sign-in, and the same until sign-out; absent in sessions of older versions. */
  readonly signIn?: string;
}

/** Whether two are of one sign-in: their tokens may be older and newer. */
export const sameSignIn = (one: AccountSession, other: AccountSession): boolean =>
  one.user === other.user && one.device === other.device && one.signIn === other.signIn;

/** Keeps one session. */
export interface SessionStore {
  read(): AccountSession | null;
  /** `null` forgets it. */
  write(session: AccountSession | null): void;
}

function isSession(value: unknown): value is AccountSession {
  if (typeof value !== "object" || value === null) return false;
  const session = value as Record<string, unknown>;
  const texts = ["device", "accessToken", "refreshToken", "refreshKey"].every((name) => typeof session[name] === "string");
  return texts && typeof session["user"] === "string" && isUser(session["user"])
    && Number.isFinite(session["expiresAt"]) && Number.isFinite(session["refreshExpiresAt"]);
}

/** Keeps it for as long as the process lives. */
export class MemorySessionStore implements SessionStore {
  #session: AccountSession | null = null;

  read(): AccountSession | null {
    return this.#session;
  }

  write(session: AccountSession | null): void {
    this.#session = session;
  }
}

/** Keeps it in `localStorage` (or anything like it). What is broken there, or cannot be read, is no session; what cannot be written is kept in memory. */
export class WebSessionStore implements SessionStore {
  readonly #name: string;
  readonly #storage: Pick<globalThis.Storage, "getItem" | "setItem" | "removeItem">;
  #unwritten: AccountSession | null = null;

  constructor(name = "switchboard.session", storage: Pick<globalThis.Storage, "getItem" | "setItem" | "removeItem"> = globalThis.localStorage) {
    this.#name = name;
    this.#storage = storage;
  }

  read(): AccountSession | null {
    if (this.#unwritten !== null) return this.#unwritten;
    try {
      const value: unknown = JSON.parse(this.#storage.getItem(this.#name) ?? "null");
      return isSession(value) ? value : null;
    } catch {
      return null;
    }
  }

  write(session: AccountSession | null): void {
    this.#unwritten = null;
    try {
      if (session === null) this.#storage.removeItem(this.#name);
      else this.#storage.setItem(this.#name, JSON.stringify(session));
    } catch {
      this.#unwritten = session;
    }
  }
}

/** `localStorage` where there is one that can be used, else memory. */
export function defaultSessionStore(name?: string): SessionStore {
  try {
    return typeof globalThis.localStorage === "undefined" ? new MemorySessionStore() : new WebSessionStore(name);
  } catch {
    return new MemorySessionStore();
  }
}
