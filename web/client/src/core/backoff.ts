/**
 * How long to wait before the next try: pure, chance is handed in.
 *
 * @packageDocumentation
 */

/** The first upper bound, milliseconds. */
export const BACKOFF_FIRST_MS = 500;
/** The last upper bound, milliseconds. */
export const BACKOFF_LAST_MS = 30_000;

/**
 * Full jitter: anything from 0 to min(30 s, 0.5 s · 2^attempt), never less than the server asked for.
 *
 * @param attempt - tries that have failed before
 * @param random - from 0 to 1
 * @param atLeast_ms - what the server asked for (`retry_after_ms`, `Retry-After`); the jitter comes on top of it
 * @returns milliseconds
 */
export function fullJitter(attempt: number, random: number, atLeast_ms = 0): number {
  const bound = Math.min(BACKOFF_LAST_MS, BACKOFF_FIRST_MS * 2 ** Math.min(Math.max(attempt, 0), 16));
  return Math.round(atLeast_ms + random * bound);
}

/** After being told off (4429): the longest back-off and up to half of it more. Milliseconds. */
export const longRest = (random: number): number => Math.round(BACKOFF_LAST_MS * (1 + random / 2));

/** Milliseconds of a `Retry-After` header, in seconds or as a date; 0 if it says nothing usable. At most an hour. */
export function retryAfter(header: string | null | undefined, now_ms: number): number {
  if (header === null || header === undefined || header.trim() === "") return 0;
  const seconds = Number(header);
  const wait = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(header) - now_ms;
  return Number.isFinite(wait) ? Math.min(Math.max(wait, 0), 3_600_000) : 0;
}
