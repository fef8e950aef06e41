/**
 * What the surroundings offer: a browser's page, a worker, Node.
 *
 * @packageDocumentation
 */

import { ClientError } from "./errors.js";
import type { TokenPlace, WebSocketClass } from "./transport/websocket.js";
import { IndexedDbStorage } from "./storage/indexeddb.js";
import { MemoryStorage } from "./storage/memory.js";
import type { Storage } from "./storage/storage.js";

/** News of the surroundings that a connection wants. */
export type Surroundings = "online" | "offline" | "woken";

/** Whether this is a browser: a page or a worker of one. */
const isBrowser = (): boolean => typeof globalThis.location === "object" && globalThis.location !== null && typeof globalThis.navigator === "object";

/** The page's origin, or the one that was given. */
export function baseUrl(url: string | undefined): string {
  const base = url ?? (isBrowser() ? globalThis.location.origin : undefined);
  if (base === undefined || !/^https?:\/\//.test(base)) throw new ClientError("bad_argument", "url must begin with http:// or https://");
  const { origin, pathname, search, username } = new URL(base);
  if (search !== "" || username !== "") throw new ClientError("bad_argument", "url must hold neither a query nor a name");
  return origin + pathname.replace(/\/+$/, "");
}

/** The implementation that was given, or the global one: there in browsers and in Node from 22 on. */
export function webSocketClass(given: WebSocketClass | undefined): WebSocketClass {
  const found = given ?? (globalThis.WebSocket as unknown as WebSocketClass | undefined);
  if (found === undefined) throw new ClientError("bad_argument", "no global WebSocket: give one, e.g. of the package ws");
  return found;
}

/** Where the token goes, if nobody says: a browser can set no header and should not have to wait for the first frame. */
export const tokenPlace = (given: TokenPlace | undefined): TokenPlace => given ?? (isBrowser() ? "subprotocol" : "hello");

/** IndexedDB where there is one, else memory. */
export function defaultStorage(onReset: (why: string) => void): Storage {
  return typeof globalThis.indexedDB === "undefined" ? new MemoryStorage() : new IndexedDbStorage({ onReset });
}

/** Listens to network and visibility; the answer stops it. Outside browsers there is nothing to hear. */
export function listen(heard: (what: Surroundings) => void): () => void {
  if (typeof globalThis.addEventListener !== "function") return () => {};
  const online = (): void => heard("online");
  const offline = (): void => heard("offline");
  const woken = (): void => heard("woken");
  const shown = (): void => { if (globalThis.document.visibilityState === "visible") woken(); };
  globalThis.addEventListener("online", online);
  globalThis.addEventListener("offline", offline);
  globalThis.addEventListener("pageshow", woken);
  globalThis.document?.addEventListener("visibilitychange", shown);
  globalThis.document?.addEventListener("resume", woken);
  return () => {
    globalThis.removeEventListener("online", online);
    globalThis.removeEventListener("offline", offline);
    globalThis.removeEventListener("pageshow", woken);
    globalThis.document?.removeEventListener("visibilitychange", shown);
    globalThis.document?.removeEventListener("resume", woken);
  };
}
