/**
 * The service worker: the page's own files, so that it opens without a server. Nothing else is touched: no API, no messages.
 *
 * Files with a hash in their name never change: from the cache first. The page itself comes from the server when that answers, so a new version is there
 * at the next load, and from the cache otherwise.
 */

/** Put in by the build: the names of the files, and a hash over all of them. */
declare const FILES: readonly string[];
declare const BUILD: string;

/** The part of the worker's surroundings that is used here; TypeScript has no types for it beside those of pages. */
interface Extendable extends Event {
  waitUntil(work: Promise<unknown>): void;
}
interface Fetched extends Extendable {
  readonly request: Request;
  respondWith(answer: Promise<Response>): void;
}
interface Worker {
  addEventListener(name: "install" | "activate", heard: (event: Extendable) => void): void;
  addEventListener(name: "fetch", heard: (event: Fetched) => void): void;
  skipWaiting(): Promise<void>;
  readonly clients: { claim(): Promise<void> };
}
const worker = self as unknown as Worker;

const PREFIX = "switchboard-shell-";
const NAME = PREFIX + BUILD;
/** How long the server may take to answer before the page comes from the cache, milliseconds. */
const PATIENCE_MS = 3_000;

async function install(): Promise<void> {
  const cache = await caches.open(NAME);
  await cache.addAll(FILES.map((path) => new Request(path, { cache: "reload" })));
  await worker.skipWaiting();
}

async function activate(): Promise<void> {
  for (const name of await caches.keys()) if (name.startsWith(PREFIX) && name !== NAME) await caches.delete(name);
  await worker.clients.claim();
}

async function shell(request: Request): Promise<Response> {
  try {
    const response = await fetch(request, { signal: AbortSignal.timeout(PATIENCE_MS) });
    if (response.ok) return response;
  } catch {
    // no server: below
  }
  return (await caches.match("/", { cacheName: NAME })) ?? fetch(request);
}

async function file(request: Request): Promise<Response> {
  return (await caches.match(request, { cacheName: NAME })) ?? fetch(request);
}

worker.addEventListener("install", (event) => event.waitUntil(install()));
worker.addEventListener("activate", (event) => event.waitUntil(activate()));
worker.addEventListener("fetch", (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  if (request.method !== "GET" || origin !== location.origin) return;
  if (request.mode === "navigate" && pathname === "/") event.respondWith(shell(request));
  else if (FILES.includes(pathname) && pathname !== "/") event.respondWith(file(request));
});
