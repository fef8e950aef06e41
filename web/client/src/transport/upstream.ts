/**
 * Frames up by POST, for the fallback: each frame becomes a request, each answer the frame that a WebSocket would have brought. One send of a
 * conversation is under way at a time, and a refusal that is not final answers those behind it too (`fenced`), as the server does on a WebSocket; that
 * nothing later goes before the refused one comes again is the outbox's doing.
 *
 * @packageDocumentation
 */

import { ApiError } from "../account/http.js";
import type { Api, ApiRequest } from "../account/http.js";
import type { Closed } from "../core/effects.js";
import { isRetryable } from "../protocol/codes.js";
import type { ClientFrame, ConversationsFrame, HistoryFrame, SendFrame, ServerFrame } from "../protocol/frames.js";
import { conversationOf } from "../protocol/names.js";
import { LatestOnly } from "./latest.js";

const UNKNOWN_MS = 1000;
const FENCED_MS = 100;

type Frame<T extends ClientFrame["type"]> = Extract<ClientFrame, { readonly type: T }>;

interface Lane {
  readonly waiting: SendFrame[];
  busy: boolean;
}

/** Who posts, and whom to tell. */
export interface UpstreamOptions {
  readonly api: Api;
  readonly token: string;
  readonly user: string;
  readonly device: string;
  readonly frame: (frame: ServerFrame) => void;
  readonly closed: (closed: Closed) => void;
}

/** The way up of one connection. */
export class Upstream {
  readonly #options: UpstreamOptions;
  readonly #lanes = new Map<string, Lane>();
  readonly #abort = new AbortController();
  readonly #resting = new AbortController();
  readonly #acknowledgements: LatestOnly;
  readonly #reads: LatestOnly;
  readonly #watches: LatestOnly;

  constructor(options: UpstreamOptions) {
    this.#options = options;
    const latest = { refused: (error: ApiError) => this.#refused(error), over: this.#resting.signal };
    // unacknowledged, the window would close for good: begin again from the cursor
    const refused = ({ retryAfter_ms }: ApiError): void => this.#close({ code: 1006, retryAfter_ms });
    this.#acknowledgements = new LatestOnly({ ...latest, refused });
    this.#reads = new LatestOnly(latest);
    this.#watches = new LatestOnly(latest);
  }

  /** Nothing is told any more; what is under way is given up. */
  close(): void {
    this.rest();
    this.#abort.abort();
  }

  /** What is under way is let go on; nothing is tried again. */
  rest(): void {
    this.#resting.abort();
  }

  /** Sends a frame on its way. `hello` is not for here, `ping` has the stream's heartbeat. `watch` asks for presence down the stream of this connection's device. */
  post(frame: ClientFrame): void {
    switch (frame.type) {
      case "send": return this.#queue(frame);
      case "received": return this.#received(frame);
      case "read": return this.#read(frame);
      case "typing": return void this.#typing(frame);
      case "history":
      case "conversations": return void this.#page(frame);
      case "hello":
      case "ping": return;
      case "watch": return this.#watch(frame);
    }
  }

  async #call(request: Omit<ApiRequest, "token" | "signal">): Promise<unknown> {
    const { api, token } = this.#options;
    try {
      return await api.call({ ...request, token, signal: this.#abort.signal });
    } catch (thrown) {
      if (thrown instanceof ApiError && thrown.status === 401) this.#close({ code: 4401 });
      throw thrown;
    }
  }

  #tell(frame: ServerFrame): void {
    if (!this.#abort.signal.aborted) this.#options.frame(frame);
  }

  #close(closed: Closed): void {
    if (!this.#abort.signal.aborted) this.#options.closed(closed);
  }

  #queue(frame: SendFrame): void {
    const name = conversationOf(this.#options.user, frame.to);
    const lane = this.#lanes.get(name) ?? { waiting: [], busy: false };
    this.#lanes.set(name, lane);
    lane.waiting.push(frame);
    void this.#run(name, lane);
  }

  #fenced({ id }: SendFrame): void {
    this.#tell({ type: "refused", id, code: "fenced", retry_after_ms: FENCED_MS, final: false });
  }

  async #run(name: string, lane: Lane): Promise<void> {
    if (lane.busy) return;
    lane.busy = true;
    for (let frame = lane.waiting.shift(); frame !== undefined; frame = lane.waiting.shift()) {
      const answer = await this.#send(name, frame);
      const again = answer.type === "error" || (answer.type === "refused" && !answer.final);
      this.#tell(answer);
      if (again) for (const behind of lane.waiting.splice(0)) this.#fenced(behind);
    }
    this.#lanes.delete(name);
  }

  async #send(conversation: string, { type: _, id, ...rest }: SendFrame): Promise<ServerFrame> {
    try {
      await this.#call({ method: "POST", path: "/v1/messages", body: { id, ...rest } });
      return { type: "accepted", id, conversation };
    } catch (thrown) {
      const error = thrown instanceof ApiError ? thrown : new ApiError(0, "network", String(thrown));
      const { code } = error;
      // whatever did not come from the API says nothing about the message
      if (code === "network" || code === "not_api" || code === "outcome_unknown" || code === "unauthenticated") {
        return { type: "error", id, code: "outcome_unknown", retry_after_ms: error.retryAfter_ms || UNKNOWN_MS };
      }
      const final = !isRetryable(code) && !error.temporary;
      return {
        type: "refused", id, code, final,
        ...(error.field === null ? {} : { field: error.field }), ...(error.retryAfter_ms === 0 ? {} : { retry_after_ms: error.retryAfter_ms }),
      };
    }
  }

  #received({ seq }: Frame<"received">): void {
    const call = (): Promise<unknown> => this.#call({ method: "POST", path: "/v1/received", body: { seq, device: this.#options.device } });
    this.#acknowledgements.put("received", { call, passes: () => false });
  }

  #read({ conversation, position }: Frame<"read">): void {
    const path = `/v1/conversations/${encodeURIComponent(conversation)}/read`;
    this.#reads.put(conversation, { call: () => this.#call({ method: "POST", path, body: { position } }), passes: () => false });
  }

  #watch({ users }: Frame<"watch">): void {
    const call = (): Promise<unknown> => this.#call({ method: "POST", path: "/v1/watch", body: { users, device: this.#options.device } });
    // behind a balancer it may have come to a node that does not have the stream
    this.#watches.put("watch", { call, passes: ({ code }) => code === "not_found" });
  }

  /** What is old in a moment is not tried again. */
  async #typing({ to }: Frame<"typing">): Promise<void> {
    try {
      await this.#call({ method: "POST", path: "/v1/typing", body: { to } });
    } catch (thrown) {
      if (thrown instanceof ApiError && !thrown.temporary && thrown.status !== 401) this.#refused(thrown);
    }
  }

  /** What is not answered on a WebSocket either, but by an `error`. */
  #refused({ code, message, temporary }: ApiError): void {
    // a `read` comes again on the next connection, a `watch` too
    if (!temporary) this.#tell({ type: "error", code: code === "not_api" ? "unknown_type" : code, message });
  }

  async #page(frame: HistoryFrame | ConversationsFrame): Promise<void> {
    const before = frame.before === null ? "" : `&before=${encodeURIComponent(frame.before)}`;
    const of = frame.type === "history" ? `/${encodeURIComponent(frame.conversation)}/messages` : "";
    try {
      const data = await this.#call({ method: "GET", path: `/v1/conversations${of}?limit=${frame.limit}${before}` });
      const page = data as { readonly items?: unknown; readonly before?: unknown };
      const common = { before: typeof page.before === "string" ? page.before : null };
      const items = Array.isArray(page.items) ? page.items : [];
      this.#tell(frame.type === "history"
        ? { type: "page", conversation: frame.conversation, events: items, ...common }
        : { type: "conversations", conversations: items, ...common });
    } catch (thrown) {
      const error = thrown instanceof ApiError ? thrown : new ApiError(0, "network", String(thrown));
      const code = error.temporary ? "unavailable" : error.code === "not_found" ? "forbidden" : error.code;
      this.#tell({ type: "error", code, field: error.field ?? "conversation", message: error.message, retry_after_ms: error.retryAfter_ms || UNKNOWN_MS });
    }
  }
}
