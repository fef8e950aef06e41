/**
 * The account API: register by phone and code, stay signed in, devices, profile, look-up. An {@link Account} is the {@link Credentials} of a client.
 *
 * Refresh tokens are used once, and one that comes twice ends the session. So of all tabs one refreshes at a time (Web Locks), each looks first
 * whether another has done so, and a refresh whose answer was lost is repeated under the same `Idempotency-Key`.
 *
 * @packageDocumentation
 */

import { Api, ApiError } from "./http.js";
import type { ApiRequest, Fetch } from "./http.js";
import { defaultSessionStore, sameSignIn } from "./session_store.js";
import type { AccountSession, SessionStore } from "./session_store.js";
import type { TokenReason } from "../core/effects.js";
import type { Credentials } from "../credentials.js";
import { ClientError } from "../errors.js";
import { randomKey } from "../protocol/names.js";

/** An access token this close to its end is not used any more, milliseconds. */
const MARGIN_MS = 60_000;

/** What `register` says. */
export interface Registration {
  /** How long the code is good, seconds. */
  readonly expiresIn_s: number;
  /** When another one may be asked for, seconds. */
  readonly retryAfter_s: number;
  /** The code itself; only from a server in development mode. */
  readonly devCode: string | null;
}

/** What `verify` needs. */
export interface Verification {
  /** E.164: `+4915112345678`. */
  readonly phone: string;
  /** Six digits. */
  readonly code: string;
  /** As in {@link Credentials.device}. */
  readonly device: string;
  /** What people call it: `Firefox on the desk`. */
  readonly deviceLabel?: string;
  /** The display name of a new account. */
  readonly name?: string;
}

/** A signed-in device. Times are RFC 3339, `null` where unknown. */
export interface Device {
  readonly device: string;
  readonly label: string | null;
  readonly current: boolean;
  readonly createdAt: string | null;
  readonly lastSeenAt: string | null;
}

/** What others see of a user. */
export interface Profile {
  readonly user: string;
  readonly name: string;
  readonly about: string;
}

/** One's own profile: the number is for nobody else. */
export interface OwnProfile extends Profile {
  readonly phone: string;
  /** RFC 3339, `null` where unknown. */
  readonly createdAt: string | null;
}

/** Options of {@link Account}. */
export interface AccountOptions {
  /** `https://chat.example.org`. Default: the page's origin. */
  readonly url?: string;
  readonly store?: SessionStore;
  readonly fetch?: Fetch;
  /** Default: the browser's, where there are any; `null`: none. */
  readonly locks?: LockManager | null;
}

type Fields = Readonly<Record<string, unknown>>;
const text = (value: unknown): string => (typeof value === "string" ? value : "");
const textOrNull = (value: unknown): string | null => (typeof value === "string" ? value : null);
const number = (value: unknown): number => (typeof value === "number" && Number.isFinite(value) ? value : 0);
const fields = (value: unknown): Fields => (typeof value === "object" && value !== null ? (value as Fields) : {});
const profileOf = (value: unknown): Profile => {
  const { user, name, about } = fields(value);
  return { user: text(user), name: text(name), about: text(about) };
};

const ownProfileOf = (value: unknown): OwnProfile =>
  ({ ...profileOf(value), phone: text(fields(value)["phone"]), createdAt: textOrNull(fields(value)["created_at"]) });

/** Whether the API itself has said that a token is no good. A 401 of anybody else, a proxy for instance, says nothing about a session. */
const isUnauthenticated = (thrown: unknown): thrown is ApiError => thrown instanceof ApiError && thrown.status === 401 && thrown.code === "unauthenticated";

const ended = (cause?: ApiError): ClientError =>
  new ClientError("unauthenticated", "the session has ended: sign in again", cause === undefined ? {} : { serverCode: cause.code, cause });

/** A person's account on one server, as this installation knows it. */
export class Account implements Credentials {
  readonly #api: Api;
  readonly #store: SessionStore;
  readonly #locks: LockManager | null;
  #refreshing: Promise<AccountSession> | null = null;

  constructor(options: AccountOptions = {}) {
    const base = options.url ?? globalThis.location?.origin;
    if (base === undefined) throw new ClientError("bad_argument", "url is needed outside browsers");
    this.#api = new Api(base, options.fetch ?? ((url, init) => globalThis.fetch(url, init)));
    this.#store = options.store ?? defaultSessionStore();
    this.#locks = options.locks === undefined ? (globalThis.navigator?.locks ?? null) : options.locks;
  }

  /** The session at hand, or `null`: nobody is signed in. */
  get session(): Pick<AccountSession, "user" | "device" | "expiresAt" | "refreshExpiresAt"> | null {
    return this.#store.read();
  }

  /** The signed-in user. Throws `unauthenticated` when there is none. */
  get user(): string {
    return this.#signedIn().user;
  }

  /** The device of the session. Throws `unauthenticated` when there is none. */
  get device(): string {
    return this.#signedIn().device;
  }

  #signedIn(): AccountSession {
    const session = this.#store.read();
    if (session === null) throw new ClientError("unauthenticated", "nobody is signed in");
    return session;
  }

  /** Asks for a code by SMS (or whatever the server delivers by). */
  async register(phone: string): Promise<Registration> {
    const data = fields(await this.#api.call({ method: "POST", path: "/v1/registrations", body: { phone }, idempotencyKey: randomKey() }));
    return { expiresIn_s: number(data["expires_in_s"]), retryAfter_s: number(data["retry_after_s"]), devCode: textOrNull(data["dev_code"]) };
  }

  /** Signs in with the code. `isNew`: the account was made by this. */
  async verify({ phone, code, device, deviceLabel, name }: Verification): Promise<{ readonly user: string; readonly device: string; readonly isNew: boolean }> {
    const body = {
      phone, code, device,
      ...(deviceLabel === undefined ? {} : { device_label: deviceLabel }), ...(name === undefined ? {} : { name }),
    };
    const data = await this.#api.call({ method: "POST", path: "/v1/registrations/verify", body, idempotencyKey: randomKey() });
    const session = sessionOf(data, randomKey());
    this.#store.write(session);
    return { user: session.user, device: session.device, isNew: fields(data)["new"] === true };
  }

  /** See {@link Credentials.token}. */
  async token(reason: TokenReason): Promise<string> {
    return (await this.#current(this.#signedIn(), reason)).accessToken;
  }

  /** The session with a token that will do. */
  async #current(session: AccountSession, reason: TokenReason): Promise<AccountSession> {
    if (reason === "connect" && session.expiresAt - MARGIN_MS > Date.now()) return session;
    return this.#refresh(session);
  }

  /** What has come of a session, in place of its `stale` token; one refresh at a time, here and in all tabs. */
  async #refresh(stale: AccountSession): Promise<AccountSession> {
    this.#refreshing ??= this.#exclusively(() => this.#refreshNow(stale)).finally(() => { this.#refreshing = null; });
    const next = await this.#refreshing;
    // the refresh that was under way may have been of a sign-in before or after
    if (!sameSignIn(next, stale)) throw ended();
    return next;
  }

  async #exclusively<T>(work: () => Promise<T>): Promise<T> {
    if (this.#locks === null) return work();
    return (await this.#locks.request(`switchboard.refresh ${this.#api.base}`, work)) as T;
  }

  /** What is stored of this sign-in; `null`: somebody signed out, perhaps in again. */
  #stored(session: AccountSession): AccountSession | null {
    const present = this.#store.read();
    return present !== null && sameSignIn(present, session) ? present : null;
  }

  async #refreshNow(stale: AccountSession): Promise<AccountSession> {
    const session = this.#stored(stale);
    if (session === null) throw ended();
    // another tab was quicker
    if (session.accessToken !== stale.accessToken) return session;
    try {
      const data = await this.#api.call({
        method: "POST", path: "/v1/sessions/refresh", body: { refresh_token: session.refreshToken }, idempotencyKey: session.refreshKey,
      });
      const next = sessionOf(data, session.signIn);
      // signed out meanwhile: that stays so
      if (this.#stored(session) === null) throw ended();
      this.#store.write(next);
      return next;
    } catch (thrown) {
      return this.#refused(session, thrown);
    }
  }

  #refused(used: AccountSession, thrown: unknown): AccountSession {
    if (!isUnauthenticated(thrown)) throw thrown;
    const present = this.#stored(used);
    if (present === null) throw ended(thrown);
    if (present.refreshToken !== used.refreshToken) return present;
    this.#store.write(null);
    throw ended(thrown);
  }

  /** A request in a session's name; once more with a new token if this one is not taken. */
  async #call(request: Omit<ApiRequest, "token">, session = this.#signedIn()): Promise<unknown> {
    const current = await this.#current(session, "connect");
    try {
      return await this.#api.call({ ...request, token: current.accessToken });
    } catch (thrown) {
      if (!isUnauthenticated(thrown)) throw thrown;
      return this.#api.call({ ...request, token: (await this.#refresh(current)).accessToken });
    }
  }

  /** Ends the session at the server and forgets it here, even if the server cannot be reached. A sign-in that comes while this runs is left alone. */
  async signOut(): Promise<void> {
    const session = this.#store.read();
    if (session === null) return;
    try {
      await this.#call({ method: "DELETE", path: "/v1/sessions/current" }, session);
    } catch (thrown) {
      const gone = thrown instanceof ClientError && thrown.code === "unauthenticated";
      if (!gone && !(thrown instanceof ApiError)) throw thrown;
    } finally {
      if (this.#stored(session) !== null) this.#store.write(null);
    }
  }

  /** The devices that are signed in. */
  async devices(): Promise<Device[]> {
    const data = await this.#call({ method: "GET", path: "/v1/devices" });
    return (Array.isArray(data) ? data : []).map(fields).map((one) => ({
      device: text(one["device"]), label: textOrNull(one["label"]), current: one["current"] === true,
      createdAt: textOrNull(one["created_at"]), lastSeenAt: textOrNull(one["last_seen_at"]),
    }));
  }

  /** Signs a device out; its connections close within seconds. */
  async signOutDevice(device: string): Promise<void> {
    await this.#call({ method: "DELETE", path: `/v1/devices/${encodeURIComponent(device)}` });
  }

  /** One's own profile. */
  async me(): Promise<OwnProfile> {
    return ownProfileOf(await this.#call({ method: "GET", path: "/v1/me" }));
  }

  /** Changes one's own profile. `name`: 1 to 64 characters, `about`: up to 140. */
  async updateMe(change: { readonly name?: string; readonly about?: string }): Promise<OwnProfile> {
    return ownProfileOf(await this.#call({ method: "PATCH", path: "/v1/me", body: change }));
  }

  /** What a user shows of himself. */
  async profile(user: string): Promise<Profile> {
    return profileOf(await this.#call({ method: "GET", path: `/v1/users/${encodeURIComponent(user)}` }));
  }

  /** The user with exactly this phone number, or `null`. Limited: it is no search. */
  async lookup(phone: string): Promise<Profile | null> {
    try {
      return profileOf(await this.#call({ method: "POST", path: "/v1/contacts/lookup", body: { phone }, idempotencyKey: randomKey() }));
    } catch (thrown) {
      if (thrown instanceof ApiError && thrown.status === 404) return null;
      throw thrown;
    }
  }
}

/** The answer of `verify` and `refresh`. Times may be RFC 3339 or Unix seconds. */
function sessionOf(data: unknown, signIn: string | undefined): AccountSession {
  const { user, device, access_token, expires_at, refresh_token, refresh_expires_at } = fields(data);
  const time = (value: unknown): number => (typeof value === "number" ? value * 1000 : Date.parse(text(value)));
  const session = {
    user: text(user), device: text(device), accessToken: text(access_token), expiresAt: time(expires_at),
    refreshToken: text(refresh_token), refreshExpiresAt: time(refresh_expires_at), refreshKey: randomKey(), ...(signIn === undefined ? {} : { signIn }),
  };
  if (session.accessToken === "" || session.refreshToken === "" || !Number.isFinite(session.expiresAt)) {
    throw new ApiError(200, "not_api", "an answer without tokens");
  }
  return session;
}
