import { test } from "node:test";
import assert from "node:assert/strict";
import { clock, dayNumber, dayOf, fullTime, seenWords, stamp } from "../src/text/times.js";

const now = new Date(2026, 10, 28, 9, 30);
const at = (...parts: [number, number, number, number?, number?]): string => new Date(...parts).toISOString();

test("in the list: a time today, then a day, then a date", () => {
  assert.match(stamp(at(2026, 10, 28, 0, 1), now), /^\D*\d{1,2}\D01/);
  assert.equal(stamp(at(2026, 10, 27, 23, 59), now), "Yesterday");
  assert.equal(stamp(at(2026, 10, 24, 12), now), new Intl.DateTimeFormat(undefined, { weekday: "short" }).format(new Date(2026, 10, 24)));
  assert.doesNotMatch(stamp(at(2026, 9, 1), now), /26/);
  assert.match(stamp(at(2025, 9, 1), now), /25/);
  assert.match(stamp(at(2026, 10, 28, 11), now), /\d\D00/, "a clock that is ahead of ours");
});

test("above messages: a day, also across a change of the clocks", () => {
  assert.equal(dayOf(at(2026, 10, 28, 0, 0), now), "Today");
  assert.equal(dayOf(at(2026, 10, 27, 0, 0), now), "Yesterday");
  assert.equal(dayOf(at(2026, 9, 25, 23, 59), new Date(2026, 9, 26, 0, 1)), "Yesterday");
  assert.match(dayOf(at(2026, 0, 2), now), /2026/);
});

test("days are counted in the reader's zone", () => {
  assert.equal(dayNumber(at(2026, 10, 28, 0, 0)), dayNumber(at(2026, 10, 28, 23, 59)));
  assert.equal((dayNumber(at(2026, 10, 29, 0, 0)) ?? 0) - (dayNumber(at(2026, 10, 28, 23, 59)) ?? 0), 1);
});

test("what is no time is no words", () => {
  for (const words of [clock, fullTime, (x: string) => stamp(x, now), (x: string) => dayOf(x, now), (x: string) => seenWords(x, now)]) assert.equal(words("junk"), "");
  assert.equal(dayNumber("junk"), null);
});

test("last seen, in words that grow coarser", () => {
  const ago = (minutes: number): string => seenWords(new Date(now.getTime() - minutes * 60_000).toISOString(), now);
  assert.equal(ago(0.5), "last seen just now");
  assert.equal(ago(5), "last seen 5 min ago");
  assert.match(ago(120), /^last seen today at/);
  assert.match(ago(24 * 60), /^last seen yesterday at/);
  assert.match(ago(10 * 24 * 60), /2026/);
});
