/**
 * What can go wrong, as a closed list of codes.
 *
 * @packageDocumentation
 */

/** Codes of {@link ClientError}: this library's own, and in `refused` and `query` cases the server's (docs/protocol.md). */
export type ClientErrorCode =
  /** The client was closed. */
  | "closed"
  /** Another tab holds this device: {@link Client.useHere}. */
  | "elsewhere"
  /** The outbox is full: the server has not been reached for long. */
  | "outbox_full"
  /** Too many pages are being waited for. */
  | "busy"
  /** No answer in time. */
  | "timeout"
  /** Nobody is signed in, or not any more: sign in again. */
  | "unauthenticated"
  /** An argument that the server would refuse. */
  | "bad_argument"
  /** The network, or something that is no Switchboard server. */
  | "network"
  /** Refused by the server: see `serverCode`. */
  | "refused";

/** An error of this library. */
export class ClientError extends Error {
  override readonly name = "ClientError";
  readonly code: ClientErrorCode;
  /** The server's code, where it was the server that refused. */
  readonly serverCode: string | null;

  constructor(code: ClientErrorCode, message: string, more: { serverCode?: string; cause?: unknown } = {}) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause });
    this.code = code;
    this.serverCode = more.serverCode ?? null;
  }
}

/** The words of anything that was thrown. */
export const wordsOf = (thrown: unknown): string => (thrown instanceof Error ? `${thrown.name}: ${thrown.message}` : String(thrown));
