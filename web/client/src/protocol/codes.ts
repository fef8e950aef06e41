/**
 * The two closed lists of the protocol, and what each entry asks of a client: error codes of frames, close codes of connections.
 *
 * @packageDocumentation
 */

/** Error codes after which the same frame may come again (for a send: with the same id). */
const RETRYABLE: ReadonlySet<string> = new Set(["rate", "busy", "fenced", "unavailable", "outcome_unknown"]);

/** Whether a code says "again, later". */
export const isRetryable = (code: string): boolean => RETRYABLE.has(code);

/** Why a client has stopped and will not connect by itself. */
export type StopReason =
  /** The application called `close`. */
  | "closed"
  /** Whoever gives out tokens has none until somebody signs in, or gave the one again that was refused (4401). Sign in, then `connect`. */
  | "unauthenticated"
  /** The token is for another device, or the page's origin is not allowed (4403, HTTP 403). */
  | "forbidden"
  /** This device is connected elsewhere: another tab, or a copy of it (4409). `connect` takes it back. */
  | "superseded"
  /** The server speaks another version of the protocol (4426). */
  | "version"
  /** The server says that this client breaks the protocol: a fault in this library (1002, 1003, 1007, 1009, 4400). */
  | "protocol"
  /** The token names another user than the one this client began with. */
  | "other_user";

/** What to do after a connection has closed. */
export type CloseAction =
  /** Come again after a back-off, and resume. */
  | { readonly next: "reconnect" }
  /** Come again, but only after the longest back-off. */
  | { readonly next: "rest" }
  /** Get another token first. */
  | { readonly next: "token" }
  /** The cursor is of a stream that is gone: forget it, come again. */
  | { readonly next: "forget" }
  /** Do not come again by itself. */
  | { readonly next: "stop"; readonly reason: StopReason };

const STOPS: Readonly<Record<number, StopReason>> = {
  1002: "protocol",
  1003: "protocol",
  1007: "protocol",
  1009: "protocol",
  4400: "protocol",
  4403: "forbidden",
  4409: "superseded",
  4426: "version",
};

/** The table of close codes in docs/protocol.md. Codes it does not have (1006: broken) are reconnected. */
export function closeAction(code: number): CloseAction {
  const reason = STOPS[code];
  if (reason !== undefined) return { next: "stop", reason };
  if (code === 4401) return { next: "token" };
  if (code === 4410) return { next: "forget" };
  if (code === 4429) return { next: "rest" };
  return { next: "reconnect" };
}
