/** Times in words, in the reader's language and zone. */

const DAY_MS = 86_400_000;
const format = (options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat => new Intl.DateTimeFormat(undefined, options);
const TIME = format({ hour: "2-digit", minute: "2-digit" });
const WEEKDAY = format({ weekday: "long" });
const SHORT_WEEKDAY = format({ weekday: "short" });
const SHORT = format({ day: "numeric", month: "short" });
const NUMERIC = format({ day: "2-digit", month: "2-digit", year: "2-digit" });
const LONG = format({ day: "numeric", month: "long", year: "numeric" });
const FULL = format({ dateStyle: "full", timeStyle: "short" });

/** Midnights between two times; negative if `at` is after `now`. */
function daysBetween(at: Date, now: Date): number {
  const midnight = (time: Date): number => Date.UTC(time.getFullYear(), time.getMonth(), time.getDate());
  return Math.round((midnight(now) - midnight(at)) / DAY_MS);
}

const dateOf = (at: string): Date | null => {
  const date = new Date(at);
  return Number.isNaN(date.getTime()) ? null : date;
};

/** `14:05`. */
export const clock = (at: string): string => {
  const date = dateOf(at);
  return date === null ? "" : TIME.format(date);
};

/** In a list: the time today, the weekday this week, else the date. */
export function stamp(at: string, now: Date): string {
  const date = dateOf(at);
  if (date === null) return "";
  const days = daysBetween(date, now);
  if (days <= 0) return TIME.format(date);
  if (days === 1) return "Yesterday";
  if (days < 7) return SHORT_WEEKDAY.format(date);
  return date.getFullYear() === now.getFullYear() ? SHORT.format(date) : NUMERIC.format(date);
}

/** Above the messages of a day. */
export function dayOf(at: string, now: Date): string {
  const date = dateOf(at);
  if (date === null) return "";
  const days = daysBetween(date, now);
  if (days === 0) return "Today";
  if (days === 1) return "Yesterday";
  return days > 1 && days < 7 ? WEEKDAY.format(date) : LONG.format(date);
}

/** Whether both are on one day. */
export function sameDay(one: string, other: string): boolean {
  const [a, b] = [dateOf(one), dateOf(other)];
  return a !== null && b !== null && daysBetween(a, b) === 0;
}

/** `last seen yesterday at 14:05`. */
export function seenWords(at: string, now: Date): string {
  const date = dateOf(at);
  if (date === null) return "";
  const minutes = Math.floor((now.getTime() - date.getTime()) / 60_000);
  if (minutes < 1) return "last seen just now";
  if (minutes < 60) return `last seen ${minutes} min ago`;
  const days = daysBetween(date, now);
  if (days <= 0) return `last seen today at ${TIME.format(date)}`;
  if (days === 1) return `last seen yesterday at ${TIME.format(date)}`;
  return `last seen ${LONG.format(date)}`;
}

/** All of it, for a tooltip. */
export const fullTime = (at: string): string => {
  const date = dateOf(at);
  return date === null ? "" : FULL.format(date);
};
