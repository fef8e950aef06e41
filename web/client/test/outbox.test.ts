import { test } from "node:test";
import assert from "node:assert/strict";
import { Outbox } from "../src/core/outbox.js";
import type { OutboxEntry } from "../src/core/outbox.js";
import { LIMITS } from "./model.js";

const limits = { ...LIMITS, in_flight: 4, sends_burst: 10, sends_per_s: 10 };
let order = 0;
const entry = (id: string, to = "u:43"): OutboxEntry => ({ order: (order += 1), id, to, kind: "text", body: { text: id } });

function outbox(...ids: string[]): Outbox {
  const box = new Outbox("42", () => 0.5);
  for (const id of ids) box.add(entry(id), true);
  box.connected(0, limits);
  return box;
}
const take = (box: Outbox, now: number): string[] => box.take(now, limits).frames.map((frame) => frame.id);

test("what is not stored yet holds its conversation, and no other", () => {
  const box = outbox();
  box.add(entry("a"), false);
  box.add(entry("b"), true);
  box.add(entry("c", "u:44"), true);
  assert.deepEqual(take(box, 0), ["c"]);
  box.saved("a");
  assert.deepEqual(take(box, 0), ["a", "b"]);
});

test("at most in_flight without an answer", () => {
  const box = outbox("a", "b", "c", "d", "e", "f");
  assert.deepEqual(take(box, 0), ["a", "b", "c", "d"]);
  box.accepted("b");
  assert.deepEqual(take(box, 0), ["e"]);
});

test("a refusal: the conversation waits as long as was asked, then its oldest goes alone, then the others", () => {
  const box = outbox("a", "b", "c");
  take(box, 0);
  box.add(entry("x", "u:44"), true);
  assert.equal(box.refused("a", "rate", false, 0, 400).what, "waits");
  for (const id of ["b", "c"]) assert.equal(box.refused(id, "fenced", false, 0, 100).what, "waits");
  const first = box.take(0, limits);
  assert.deepEqual(first.frames, [], "after `rate` other conversations wait for the budget too");
  const late = box.take(450, limits);
  assert.deepEqual(late.frames, []);
  assert.ok(late.wakeAt !== null && late.wakeAt > 450 && late.wakeAt <= 510);
  assert.deepEqual(take(box, 510), ["a"]);
  assert.deepEqual(take(box, 1000), ["x"]);
  box.accepted("a");
  assert.deepEqual(take(box, 1000), ["b", "c"]);
});

test("a probe that is refused again waits longer each time", () => {
  const box = outbox("a");
  take(box, 0);
  let now = 0;
  const waits: number[] = [];
  for (let i = 0; i < 6; i += 1) {
    box.refused("a", "unavailable", false, now, undefined);
    const { wakeAt } = box.take(now, limits);
    assert.ok(wakeAt !== null);
    waits.push(wakeAt - now);
    now = wakeAt;
    assert.deepEqual(take(box, now), ["a"]);
  }
  assert.deepEqual(waits, [250, 500, 1000, 2000, 4000, 8000]);
});

test("outcome_unknown: again with the same id; an event meanwhile settles it, and it still lifts its fence", () => {
  const box = outbox("a", "b");
  take(box, 0);
  box.refused("a", "outcome_unknown", false, 0, 1000);
  box.refused("b", "fenced", false, 0, 100);
  assert.equal(box.placed("a").what, "accepted");
  assert.deepEqual([box.size, box.entries().map((one) => one.id)], [1, ["b"]]);
  assert.deepEqual(take(box, 2000), ["a"], "the server waits for it");
  assert.equal(box.accepted("a").what, "nothing");
  assert.deepEqual(take(box, 2000), ["b"]);
});

test("fenced by something that is settled here: only a new connection helps", () => {
  const box = outbox("a", "b");
  take(box, 0);
  box.accepted("a");
  assert.equal(box.refused("b", "fenced", false, 0, 100).what, "stuck");
  box.disconnected();
  box.connected(0, limits);
  assert.deepEqual(take(box, 0), ["b"]);
});

test("a final refusal leaves; an old id that was sent before may be a message", () => {
  const box = outbox("a");
  box.add(entry("new"), false);
  box.saved("new");
  take(box, 0);
  assert.deepEqual({ ...box.refused("a", "bad_id", true, 0), entry: null }, { what: "refused", entry: null, conversation: "d:42:43", code: "bad_id", maybe: true });
  const other = box.refused("new", "too_large", true, 0);
  assert.ok(other.what === "refused" && !other.maybe);
  assert.equal(box.size, 0);
});

test("the rate that the server allows is kept", () => {
  const box = outbox(...Array.from({ length: 30 }, (_, i) => `m${i}`));
  const wide = { ...limits, in_flight: 100 };
  assert.equal(box.take(0, wide).frames.length, 10);
  assert.equal(box.take(0, wide).wakeAt, 100);
  assert.equal(box.take(500, wide).frames.length, 5);
});

test("the same id twice is one message", () => {
  const box = outbox("a");
  assert.equal(box.add(entry("a"), true), false);
  assert.equal(box.size, 1);
});
