/**
 * The fallback for networks that break WebSockets: frames down by server-sent events over `fetch` (so that the token is in a header, which
 * `EventSource` cannot do), frames up by POST.
 *
 * What HTTP has no word for is said so: a stream that ends with an event `close` and `{"code":4409}` has that close code, one that just ends has 1006.
 *
 * @packageDocumentation
 */

import type { Api, Fetch } from "../account/http.js";
import { retryAfter } from "../core/backoff.js";
import type { Closed } from "../core/effects.js";
import type { HelloFrame } from "../protocol/frames.js";
import { EventStreamReader } from "./event_stream.js";
import type { StreamEvent } from "./event_stream.js";
import { endpoint } from "./transport.js";
import type { Link, LinkEvents, Opening, Transport } from "./transport.js";
import { Upstream } from "./upstream.js";

/** Statuses that are a close code. */
const STATUS_CODES: Readonly<Record<number, number>> = { 401: 4401, 403: 4403, 409: 4409, 410: 4410, 426: 4426, 429: 4429 };

/** Options of {@link SseTransport}. */
export interface SseOptions {
  readonly api: Api;
  readonly fetch: Fetch;
}

/** Opens streams. */
export class SseTransport implements Transport {
  readonly #options: SseOptions;

  constructor(options: SseOptions) {
    this.#options = options;
  }

  open(opening: Opening, events: LinkEvents): Link {
    return new SseLink(this.#options, opening, events);
  }
}

class SseLink implements Link {
  readonly #options: SseOptions;
  readonly #opening: Opening;
  readonly #events: LinkEvents;
  readonly #upstream: Upstream;
  #stream = new AbortController();
  #over = false;

  constructor(options: SseOptions, opening: Opening, events: LinkEvents) {
    this.#options = options;
    this.#opening = opening;
    this.#events = events;
    this.#upstream = new Upstream({
      api: options.api, token: opening.token, user: opening.user, device: opening.hello.device ?? "default",
      frame: (frame) => events.frame(JSON.stringify(frame)),
      closed: (closed) => this.#end(closed),
    });
    // not before the caller knows this link
    queueMicrotask(() => void this.#read(opening.hello, this.#stream));
  }

  post(frame: Parameters<Link["post"]>[0]): void {
    if (this.#over) return;
    if (frame.type !== "hello") return this.#upstream.post(frame);
    // the answer to `resync`: a stream from another place
    this.#stream.abort();
    this.#stream = new AbortController();
    void this.#read(frame, this.#stream);
  }

  close(): void {
    this.#over = true;
    this.#stream.abort();
    // posts that were made are let go on: an acknowledgement may be among them
    this.#upstream.rest();
  }

  #end(closed: Closed): void {
    if (this.#over) return;
    this.#over = true;
    this.#stream.abort();
    this.#upstream.close();
    this.#events.closed(closed);
  }

  async #read(hello: HelloFrame, stream: AbortController): Promise<void> {
    const end = (closed: Closed): void => { if (stream === this.#stream) this.#end(closed); };
    try {
      const response = await this.#options.fetch(this.#url(hello), {
        headers: {
          accept: "text/event-stream",
          authorization: `Bearer ${this.#opening.token}`,
          ...(hello.cursor === undefined ? {} : { "last-event-id": String(hello.cursor) }),
        },
        credentials: "omit", cache: "no-store", signal: stream.signal,
      });
      const isStream = (response.headers.get("content-type") ?? "").startsWith("text/event-stream");
      if (!response.ok || !isStream || response.body === null) {
        // a page where a stream should be: the server has no such thing, or something on the way answers for it
        const status = response.ok ? 404 : response.status;
        return end({ code: STATUS_CODES[status] ?? 1006, status, retryAfter_ms: retryAfter(response.headers.get("retry-after"), Date.now()) });
      }
      await this.#frames(response.body, stream, end);
      end({ code: 1006 });
    } catch {
      end({ code: 1006 });
    }
  }

  async #frames(body: ReadableStream<Uint8Array>, stream: AbortController, end: (closed: Closed) => void): Promise<void> {
    const reader = new EventStreamReader();
    const decoder = new TextDecoder();
    const chunks = body.getReader();
    for (;;) {
      const { done, value } = await chunks.read();
      if (done || this.#over || stream !== this.#stream) return;
      this.#events.alive();
      for (const event of reader.push(decoder.decode(value, { stream: true }))) {
        if (this.#over || stream !== this.#stream) return;
        if (event.event === "close") return end({ code: closeCode(event) });
        this.#events.frame(event.data);
      }
    }
  }

  #url(hello: HelloFrame): string {
    const query = new URLSearchParams();
    // the second hello, after `resync`, need not name it: on a WebSocket it is known
    const device = hello.device ?? this.#opening.hello.device;
    if (device !== undefined) query.set("device", device);
    if (hello.cursor !== undefined) query.set("cursor", String(hello.cursor));
    if (hello.epoch !== undefined) query.set("epoch", hello.epoch);
    if (hello.rev !== undefined) query.set("rev", hello.rev);
    return endpoint(this.#options.api.base, `/v1/events?${query.toString()}`);
  }
}

function closeCode(event: StreamEvent): number {
  try {
    const code = (JSON.parse(event.data) as { readonly code?: unknown }).code;
    return typeof code === "number" ? code : 1006;
  } catch {
    return 1006;
  }
}
