/**
 * One request to the HTTP API under `/v1`, and its envelope.
 *
 * @packageDocumentation
 */

import { retryAfter } from "../core/backoff.js";
import { endpoint } from "../transport/transport.js";
import { wordsOf } from "../errors.js";

/** A request. */
export interface ApiRequest {
  readonly method: "GET" | "POST" | "PATCH" | "DELETE";
  /** From `/v1` on, its parts encoded. */
  readonly path: string;
  readonly token?: string;
  readonly body?: unknown;
  /** Same key, same answer, for 24 hours: what makes a repeat of a POST safe. */
  readonly idempotencyKey?: string;
  readonly signal?: AbortSignal;
}

/** A request was refused, or there was no answer (`status` 0, code `network`). */
export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly status: number;
  /** The closed list of the API, or `network` (no answer) or `not_api` (an answer that is none of this API). */
  readonly code: string;
  readonly field: string | null;
  readonly retryAfter_ms: number;

  constructor(status: number, code: string, message: string, more: { field?: string; retryAfter_ms?: number; cause?: unknown } = {}) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause });
    this.status = status;
    this.code = code;
    this.field = more.field ?? null;
    this.retryAfter_ms = more.retryAfter_ms ?? 0;
  }

  /** Whether the same request may succeed later. */
  get temporary(): boolean {
    // 501: not in this deployment
    return this.status === 0 || this.status === 429 || (this.status >= 500 && this.status !== 501);
  }
}

/** `fetch`, or something like it. */
export type Fetch = (url: string, init?: RequestInit) => Promise<Response>;

/** No answer within this counts as none, milliseconds. */
const REQUEST_MS = 15_000;

type Fields = Readonly<Record<string, unknown>>;
const isObject = (value: unknown): value is Fields => typeof value === "object" && value !== null && !Array.isArray(value);

/** Talks to one server. */
export class Api {
  readonly base: string;
  readonly #fetch: Fetch;

  constructor(base: string, fetch: Fetch) {
    this.base = base;
    this.#fetch = fetch;
  }

  /**
   * The `data` of the answer.
   *
   * @throws {@link ApiError}
   */
  async call({ method, path, token, body, idempotencyKey, signal }: ApiRequest): Promise<unknown> {
    const headers: Record<string, string> = { accept: "application/json" };
    if (token !== undefined) headers["authorization"] = `Bearer ${token}`;
    if (body !== undefined) headers["content-type"] = "application/json";
    if (idempotencyKey !== undefined) headers["idempotency-key"] = idempotencyKey;
    const deadline = AbortSignal.timeout(REQUEST_MS);
    let response: Response;
    let value: unknown = null;
    try {
      response = await this.#fetch(endpoint(this.base, path), {
        method, headers, credentials: "omit", cache: "no-store",
        signal: signal === undefined ? deadline : AbortSignal.any([signal, deadline]),
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const text = await response.text();
      value = text === "" ? null : parsed(text);
    } catch (thrown) {
      throw new ApiError(0, "network", wordsOf(thrown), { cause: thrown });
    }
    if (isObject(value) && value["success"] === true && response.ok) return value["data"];
    throw refusal(response, value);
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function refusal(response: Response, value: unknown): ApiError {
  const error = isObject(value) && isObject(value["error"]) ? value["error"] : null;
  const asked = error?.["retry_after_ms"];
  const retryAfter_ms = typeof asked === "number" && asked >= 0 ? asked : retryAfter(response.headers.get("retry-after"), Date.now());
  const code = error?.["code"];
  if (typeof code !== "string") return new ApiError(response.status, "not_api", `HTTP ${response.status}`, { retryAfter_ms });
  const field = error?.["field"];
  const message = typeof error?.["message"] === "string" ? error["message"] : code;
  return new ApiError(response.status, code, message, { retryAfter_ms, ...(typeof field === "string" ? { field } : {}) });
}
