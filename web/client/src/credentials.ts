/**
 * Who a client is, and where its tokens come from.
 *
 * @packageDocumentation
 */

import { Api, ApiError } from "./account/http.js";
import type { Fetch } from "./account/http.js";
import type { TokenReason } from "./core/effects.js";
import { ClientError } from "./errors.js";
import { isUser, readToken } from "./protocol/names.js";

/** Who connects, and the tokens to do so. {@link Account} is one; so is anything with these three. */
export interface Credentials {
  /** The user, a number as text. */
  readonly user: string;
  /** Names this installation: 1 to 64 of `A-Z a-z 0-9 . _ -`. One connection a device. */
  readonly device: string;
  /**
   * A token. Asked for before each connection.
   *
   * @param reason - `connect`: the one at hand will do; `rejected`, `expiring`: a new one
   * @throws {@link ClientError} with code `unauthenticated` when there is none until somebody signs in; anything else: again later
   */
  token(reason: TokenReason): Promise<string>;
}

/** A token that is given once. When the server does not take it any more, the client stops. */
export function tokenCredentials(token: string, device?: string): Credentials {
  const claims = readToken(token);
  const name = device ?? claims?.device;
  if (claims === null) throw new ClientError("bad_argument", "this is no token of Switchboard");
  if (name === undefined || name === null) throw new ClientError("bad_argument", "the token names no device: give one");
  return {
    user: claims.user,
    device: name,
    token: (reason) => reason === "connect" ? Promise.resolve(token)
      : Promise.reject(new ClientError("unauthenticated", "the only token was refused, or is about to expire")),
  };
}

/**
 * Tokens for the asking, from a server in development mode (`POST /dev/token`).
 *
 * @param base - `http://127.0.0.1:8080`
 */
export function devCredentials(base: string, user: string, device: string, fetch: Fetch = (url, init) => globalThis.fetch(url, init)): Credentials {
  if (!isUser(user)) throw new ClientError("bad_argument", "a user is a number from 1 on");
  const api = new Api(base, fetch);
  let kept: string | null = null;
  return {
    user,
    device,
    async token(reason) {
      if (kept !== null && reason === "connect") return kept;
      try {
        const data = (await api.call({ method: "POST", path: "/dev/token", body: { user, device } })) as { readonly token: string };
        return (kept = data.token);
      } catch (thrown) {
        const refused = thrown instanceof ApiError && !thrown.temporary;
        if (!refused) throw thrown;
        throw new ClientError("unauthenticated", "the server gives out no tokens for the asking", { cause: thrown });
      }
    },
  };
}
