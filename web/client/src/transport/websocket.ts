/**
 * The ordinary way: a WebSocket, by the interface that browsers, Node 22 and the package `ws` share.
 *
 * @packageDocumentation
 */

import { retryAfter } from "../core/backoff.js";
import { endpoint } from "./transport.js";
import type { Link, LinkEvents, Opening, Transport } from "./transport.js";

/** What is used of a WebSocket. */
export interface WebSocketLike {
  readonly readyState: number;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

/** A WebSocket implementation: the global one, or `import { WebSocket } from "ws"`. */
export type WebSocketClass = new (url: string, protocols?: string[], options?: never) => WebSocketLike;

/**
 * Where the token goes, never into the URL: a `subprotocol` entry (all that a browser can do before the first frame), the `header` (needs an
 * implementation that takes options, such as `ws`), or the first frame, `hello`.
 */
export type TokenPlace = "subprotocol" | "header" | "hello";

/** Options of {@link WebSocketTransport}. */
export interface WebSocketOptions {
  /** `http(s)://host[:port][/prefix]`. */
  readonly base: string;
  readonly WebSocket: WebSocketClass;
  readonly tokenIn: TokenPlace;
}

const PROTOCOL = "switchboard.v1.json";
const BEARER = "switchboard.bearer.";
/** What a sub-protocol entry may hold (a token of RFC 9110). Every JWT does. */
const ENTRY = /^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/;
const OPEN = 1;
const PROBE_MS = 10_000;

/** What `ws` tells of a refused handshake. */
type Refused = (name: "unexpected-response", listener: (request: { destroy(): void }, response: {
  readonly statusCode?: number; readonly headers: Readonly<Record<string, string | undefined>>;
}) => void) => void;

/** Opens WebSockets. */
export class WebSocketTransport implements Transport {
  readonly #options: WebSocketOptions;

  constructor(options: WebSocketOptions) {
    this.#options = options;
  }

  open({ token, hello }: Opening, events: LinkEvents): Link {
    const { tokenIn } = this.#options;
    const place = tokenIn === "subprotocol" && !ENTRY.test(token) ? "hello" : tokenIn;
    let socket: WebSocketLike | null = null;
    let over = false;
    const end = (code: number, status?: number, retryAfter_ms = 0): void => {
      if (over) return;
      over = true;
      events.closed({ code, retryAfter_ms, ...(status === undefined ? {} : { status }) });
    };
    try {
      socket = this.#socket(place === "subprotocol" ? [PROTOCOL, BEARER + token] : [PROTOCOL], place === "header" ? token : null);
    } catch {
      queueMicrotask(() => end(1006));
      return { post: () => {}, close: () => { over = true; } };
    }
    const open = socket;
    open.onopen = () => {
      if (over) open.close(1000);
      else open.send(JSON.stringify(place === "hello" ? { ...hello, token } : hello));
    };
    open.onmessage = (event: { readonly data: unknown }) => {
      if (over) return;
      if (typeof event.data === "string") events.frame(event.data);
      else events.alive();
    };
    open.onerror = () => {};
    open.onclose = (event: { readonly code: number }) => end(event.code);
    const on = (open as { on?: Refused }).on;
    on?.call(open, "unexpected-response", (request, response) => {
      request.destroy();
      end(1006, response.statusCode, retryAfter(response.headers["retry-after"], Date.now()));
    });
    return {
      post: (frame) => { if (!over && open.readyState === OPEN) open.send(JSON.stringify(frame)); },
      close: () => { over = true; open.close(1000); },
    };
  }

  #socket(protocols: string[], header: string | null): WebSocketLike {
    const url = endpoint(this.#options.base, "/ws").replace(/^http/, "ws");
    const options = header === null ? undefined : ({ headers: { authorization: `Bearer ${header}` } } as never);
    return options === undefined ? new this.#options.WebSocket(url, protocols) : new this.#options.WebSocket(url, protocols, options);
  }

  /** Whether a WebSocket opens now. It says nothing and goes again. */
  probe(): Promise<boolean> {
    return new Promise((resolve) => {
      let socket: WebSocketLike;
      try {
        socket = this.#socket([PROTOCOL], null);
      } catch {
        resolve(false);
        return;
      }
      const timer = setTimeout(() => { resolve(false); socket.close(); }, PROBE_MS);
      const end = (opened: boolean): void => { clearTimeout(timer); resolve(opened); };
      socket.onopen = () => { end(true); socket.close(1000); };
      socket.onerror = () => end(false);
      socket.onclose = () => end(false);
    });
  }
}
