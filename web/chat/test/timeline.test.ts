import { test } from "node:test";
import assert from "node:assert/strict";
import type { Message } from "@switchboard/client";
import { Timeline } from "../src/model/timeline.js";
import { rowsOf } from "../src/model/rows.js";
import { laterMarks, tickOf } from "../src/model/ticks.js";

const message = (position: number, from = "43", more: Partial<Message> = {}): Message => ({
  conversation: "d:42:43", position: String(position), from, id: `id-${position}`, kind: "text", text: `text ${position}`, body: {}, replyTo: null,
  at: new Date(Date.UTC(2026, 10, 28, 9, 0, position)).toISOString(), mine: from === "42", ...more,
});
const range = (from: number, to: number): Message[] => Array.from({ length: to - from + 1 }, (_, i) => message(from + i));
const positions = (timeline: Timeline): number[] => timeline.placed.map((one) => Number(one.position));
const waiting = (id: string, text = id) => ({ id, text, replyTo: null, at: "2026-11-28T09:00:00Z", state: "queued" as const });

test("the cache is shown until the server's page is there; events until then are set aside", () => {
  const timeline = new Timeline();
  timeline.restore([message(3), message(1), message(2)]);
  timeline.arrived(message(9));
  assert.deepEqual(positions(timeline), [1, 2, 3]);
  timeline.newest({ items: range(6, 8), before: "6" });
  assert.deepEqual(positions(timeline), [6, 7, 8, 9], "what does not join is let go, what came meanwhile is behind");
  timeline.restore(range(1, 2));
  assert.deepEqual(positions(timeline), [6, 7, 8, 9]);
});

test("a page that reaches into what is here keeps the older part, and older pages go on from there", () => {
  const timeline = new Timeline();
  timeline.restore(range(1, 5));
  timeline.newest({ items: range(4, 8), before: "4" });
  assert.deepEqual(positions(timeline), [1, 2, 3, 4, 5, 6, 7, 8]);
  assert.equal(timeline.before, "1");
  timeline.older({ items: [], before: null });
  assert.equal(timeline.before, null);
});

test("an event twice is one row; one that is older than all that is here waits for its page", () => {
  const timeline = new Timeline();
  timeline.newest({ items: range(5, 7), before: "5" });
  for (const position of [8, 8, 6, 2]) timeline.arrived(message(position));
  assert.deepEqual(positions(timeline), [5, 6, 7, 8]);
  timeline.older({ items: range(1, 5), before: null });
  assert.deepEqual(positions(timeline), [1, 2, 3, 4, 5, 6, 7, 8]);
});

test("positions of 64 bits are compared as numbers", () => {
  const timeline = new Timeline();
  timeline.newest({ items: [message(9), { ...message(10), position: "9007199254740993", id: "big" }], before: null });
  timeline.arrived({ ...message(10), position: "9007199254740992", id: "less" });
  assert.deepEqual(timeline.placed.map(({ position }) => position), ["9", "9007199254740992", "9007199254740993"]);
});

test("one's own message waits until it has a place, whichever way that is learnt, and is there once", () => {
  const timeline = new Timeline();
  timeline.newest({ items: range(1, 2), before: null });
  timeline.wrote(waiting("id-3"));
  timeline.wrote(waiting("id-3"));
  timeline.wrote(waiting("id-4"));
  timeline.changed("id-4", { state: "refused", code: "too_big" });
  assert.deepEqual(timeline.waiting.map(({ id, state }) => [id, state]), [["id-3", "queued"], ["id-4", "refused"]]);
  timeline.arrived(message(3, "42"));
  timeline.wrote(waiting("id-3"));
  assert.deepEqual(timeline.waiting.map(({ id }) => id), ["id-4"]);
  timeline.newest({ items: [...range(1, 2), message(3, "42"), message(4, "42")], before: null });
  assert.deepEqual(timeline.waiting, [], "by a page too");
});

test("after a resync nothing is joined that may not join", () => {
  const timeline = new Timeline();
  timeline.newest({ items: range(1, 3), before: null });
  timeline.unsync();
  timeline.arrived(message(70));
  assert.deepEqual(positions(timeline), [1, 2, 3]);
  timeline.newest({ items: range(60, 70), before: "60" });
  assert.deepEqual(positions(timeline), [60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70]);
  assert.equal(timeline.before, "60");
});

test("trimmed, it goes on from its first one", () => {
  const timeline = new Timeline();
  timeline.newest({ items: range(1, 50), before: null });
  timeline.trim(10);
  assert.deepEqual([timeline.placed.length, timeline.before], [10, "41"]);
});

test("any order of pages and events: ascending, each once, without a hole", () => {
  let seed = 7;
  const random = (below: number): number => { seed = (seed * 1103515245 + 12345) & 0x7fffffff; return (seed >> 8) % below; };
  for (let round = 0; round < 300; round += 1) {
    const timeline = new Timeline();
    let written = 20 + random(30);
    // a server that answers pages of 7 as it is when it answers
    const page = (before: number) => { const from = Math.max(1, before - 7); return { items: range(from, before - 1), before: from === 1 ? null : String(from) }; };
    if (random(2) === 0) timeline.restore(range(1, random(written)));
    for (let step = 0; step < 60; step += 1) {
      const what = random(5);
      if (what === 0) timeline.newest(page(written + 1));
      else if (what === 1 && timeline.synced && typeof timeline.before === "string") timeline.older(page(Number(timeline.before)));
      else if (what === 2 && random(5) === 0) timeline.unsync();
      else { written += 1; timeline.arrived(message(written)); }
      const now = positions(timeline);
      if (!timeline.synced) continue;
      assert.equal(now.at(-1), written, `round ${round}`);
      assert.deepEqual(now, range(now[0] ?? 0, written).map(({ position }) => Number(position)), `round ${round}`);
    }
  }
});

test("rows: runs of one person's, days, and the line above what is unread", () => {
  const timeline = new Timeline();
  const day = (n: number, hour: number, minute = 0): Partial<Message> => ({ at: new Date(2026, 10, n, hour, minute).toISOString() });
  timeline.newest({ items: [message(1, "43", day(27, 9)), message(2, "43", day(27, 9, 1)), message(3, "43", day(27, 9, 30)), message(4, "42", day(28, 9)), message(5, "43", day(28, 9, 1)), message(6, "43", day(28, 9, 2))], before: null });
  timeline.wrote({ ...waiting("w"), ...day(28, 9, 3) as { at: string } });
  const rows = rowsOf("42", timeline, "5");
  assert.deepEqual(rows.map(({ first, last }) => [first, last]), [[true, false], [false, true], [true, true], [true, true], [true, true], [true, true], [true, true]]);
  assert.deepEqual(rows.map(({ newDay }) => newDay), [true, false, false, true, false, false, false]);
  assert.deepEqual(rows.map(({ firstUnread }) => firstUnread), [false, false, false, false, false, true, false]);
  assert.equal(new Set(rows.map(({ key }) => key)).size, rows.length);
  assert.equal(rowsOf("42", timeline, null).some(({ firstUnread }) => firstUnread), false);
});

test("a message keeps its row when it gets its place", () => {
  const timeline = new Timeline();
  timeline.newest({ items: [], before: null });
  timeline.wrote(waiting("id-1"));
  const before = rowsOf("42", timeline, null)[0]?.key;
  timeline.arrived(message(1, "42"));
  assert.equal(rowsOf("42", timeline, null)[0]?.key, before);
});

test("a row that has not changed is the same object, and one that has is another", () => {
  const timeline = new Timeline();
  timeline.newest({ items: range(1, 5), before: null });
  const before = rowsOf("42", timeline, null);
  timeline.arrived(message(6));
  const after = rowsOf("42", timeline, null);
  assert.deepEqual(before.map((row, i) => row === after[i]), [true, true, true, true, false], "the fifth is not the last of its run any more");
  assert.deepEqual([before[4]?.last, after[4]?.last], [true, false]);
});

test("ticks: read is more than delivered, and marks never go back", () => {
  assert.equal(tickOf("10", { delivered: "9", read: "8" }), "accepted");
  assert.equal(tickOf("10", { delivered: "10", read: "8" }), "delivered");
  assert.equal(tickOf("10", { delivered: "0", read: "11" }), "read");
  assert.deepEqual(laterMarks({ delivered: "10", read: "9" }, { delivered: "9", read: "10" }), { delivered: "10", read: "10" });
});
