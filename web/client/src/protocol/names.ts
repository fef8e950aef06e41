/**
 * Names on the wire: message ids, conversations, positions, and what a token says about itself.
 *
 * @packageDocumentation
 */

const USER = /^[1-9][0-9]{0,18}$/;

/**
 * A source of UUIDs of version 7 that ascend: inside one millisecond the 12 bits behind the time count (RFC 9562, method 1).
 *
 * @param now - Unix milliseconds
 * @param fill - fills an array with random bytes
 */
export function uuid7Source(now: () => number, fill: (bytes: Uint8Array) => Uint8Array): () => string {
  let last = 0;
  let count = 0;
  return () => {
    const bytes = fill(new Uint8Array(16));
    const ms = Math.max(Math.floor(now()), 0);
    if (ms > last) {
      last = ms;
      // half of the range is left to count in
      count = (((bytes[6] ?? 0) << 8) | (bytes[7] ?? 0)) & 0x7ff;
    } else if (++count > 0xfff) {
      last += 1;
      count = 0;
    }
    const head = last.toString(16).padStart(12, "0");
    const tail = Array.from(bytes.subarray(8), (byte, i) => (i === 0 ? 0x80 | (byte & 0x3f) : byte).toString(16).padStart(2, "0")).join("");
    const counted = count.toString(16).padStart(3, "0");
    return `${head.slice(0, 8)}-${head.slice(8)}-7${counted}-${tail.slice(0, 4)}-${tail.slice(4)}`;
  };
}

/** Fills with random bytes; unlike `crypto.randomUUID` it is there in pages without TLS too. */
export const randomBytes = (bytes: Uint8Array): Uint8Array => crypto.getRandomValues(bytes as Uint8Array<ArrayBuffer>);

/** A key that nobody else has: for `Idempotency-Key`. */
export const randomKey = (): string => uuid7Source(() => Date.now(), randomBytes)();

/** Whether this is a UUID of version 7 in lower case. */
export const isUuid7 = (text: string): boolean => /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(text);

/** Orders positions (and other decimal strings): below 0, 0, above 0. */
export function comparePositions(a: string, b: string): number {
  return a.length !== b.length ? a.length - b.length : a < b ? -1 : a > b ? 1 : 0;
}

/** The later of two positions. */
export const laterPosition = (a: string, b: string): string => (comparePositions(a, b) >= 0 ? a : b);

/** The direct conversation of two users: `d:<lower>:<higher>`. */
export function directConversation(one: string, other: string): string {
  return comparePositions(one, other) <= 0 ? `d:${one}:${other}` : `d:${other}:${one}`;
}

/** The conversation that a `to` means for this user: `u:<user>` is the direct conversation with that user. */
export const conversationOf = (me: string, to: string): string => (to.startsWith("u:") ? directConversation(me, to.slice(2)) : to);

/** The other member of a direct conversation (oneself in the one with oneself), or `null` if it is no direct one of this user. */
export function peerOf(me: string, conversation: string): string | null {
  const [kind, lower, higher, rest] = conversation.split(":");
  if (kind !== "d" || lower === undefined || higher === undefined || rest !== undefined) return null;
  return lower === me ? higher : higher === me ? lower : null;
}

/** Whether this is a user's number. */
export const isUser = (text: string): boolean => USER.test(text);

/** Whether a message can be sent there: `u:<user>`, or a direct conversation by name. */
export const isRecipient = (to: string): boolean => /^(u:[1-9][0-9]{0,18}|d:[1-9][0-9]{0,18}:[1-9][0-9]{0,18})$/.test(to);

/** What a token says: not verified, only read, to know whose storage to open and when to refresh. */
export interface TokenClaims {
  readonly user: string;
  readonly device: string | null;
  /** Unix milliseconds, or `null` if it does not say. */
  readonly expiresAt: number | null;
}

/** Reads the claims of a JWT without verifying it; `null` if it is none. */
export function readToken(token: string): TokenClaims | null {
  try {
    const payload = token.split(".")[1] ?? "";
    const bytes = Uint8Array.from(atob(payload.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
    const claims = JSON.parse(new TextDecoder().decode(bytes)) as Record<string, unknown>;
    const user = claims["user_id"] ?? claims["sub"];
    if (typeof user !== "string" || !isUser(user)) return null;
    const device = claims["device"];
    const exp = claims["exp"];
    return { user, device: typeof device === "string" ? device : null, expiresAt: typeof exp === "number" ? exp * 1000 : null };
  } catch {
    return null;
  }
}
