import { test } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { checkFrame, parseFrame } from "../src/protocol/parse.js";
import { closeAction, isRetryable } from "../src/protocol/codes.js";
import { fullJitter, longRest, retryAfter } from "../src/core/backoff.js";
import { checkState } from "../src/storage/storage.js";

const message = {
  event: "message", conversation: "d:42:43", position: "281474976710674", from: "42", id: "01932f6e-5c1e-7c3a-9d4e-1f2a3b4c5d6e", kind: "text",
  body: { text: "hi" }, at: "2026-11-21T09:00:01.123Z",
};
/** Frames as docs/protocol.md and the contract of receipts show them. */
const FRAMES: Record<string, object> = {
  welcome: { type: "welcome", user: "42", device: "phone-1", session: "6f1c", epoch: "1", now: "2026-11-21T09:00:00.000Z", heartbeat_s: 30, limits: { body_bytes: 16384 } },
  event: { type: "event", seq: 18, ...message, reply_to: { from: "43", id: "x" } },
  refusedEvent: { type: "event", seq: 19, event: "refused", conversation: "d:42:43", position: "1", id: "x", code: "id_reused", at: "t" },
  live: { type: "live", head: 1 },
  resync: { type: "resync", epoch: "1", head: 812, floor: 301, reason: "below_floor" },
  accepted: { type: "accepted", id: "x", conversation: "d:42:43" },
  refused: { type: "refused", id: "x", code: "rate", retry_after_ms: 400, final: false },
  error: { type: "error", code: "outcome_unknown", id: "x", retry_after_ms: 1000 },
  page: { type: "page", conversation: "d:42:43", events: [message], before: "281474976710650" },
  lastPage: { type: "page", conversation: "d:42:43", events: [], before: null },
  conversations: { type: "conversations", conversations: [{ conversation: "d:42:43", last: message, unread: 3, read: "7", receipts: [{ member: "43", delivered: "9", read: "0" }] }], before: null },
  oldConversations: { type: "conversations", conversations: [{ conversation: "d:42:43", last: message }], before: "opaque" },
  receipt: { type: "receipt", conversation: "d:42:43", member: "43", delivered: "9", read: "7", rev: "12" },
  typing: { type: "typing", conversation: "d:42:43", from: "43" },
  presence: { type: "presence", user: "43", online: false, last_seen: "2026-11-21T09:00:00Z" },
  presenceNever: { type: "presence", user: "43", online: false },
  pong: { type: "pong", now: "t" },
  move: { type: "move", after_ms: 3200 },
  reauth: { type: "reauth", before: "2026-11-28T09:00:00.000Z" },
};

test("every frame of the contract is one", () => {
  for (const [name, frame] of Object.entries(FRAMES)) assert.equal(parseFrame(JSON.stringify(frame)).what, "frame", name);
});

test("a frame with a field taken away or replaced is either none, or has what the client relies on", () => {
  fc.assert(fc.property(fc.constantFrom(...Object.values(FRAMES)), fc.nat(20), fc.anything(), (frame, at, value) => {
    const names = Object.keys(frame);
    const name = names[at % names.length] ?? "";
    const parsed = checkFrame({ ...frame, [name]: value });
    if (parsed.what !== "frame") return;
    if (parsed.frame.type === "event") assert.ok(Number.isSafeInteger(parsed.frame.seq) && parsed.frame.seq > 0);
    if (parsed.frame.type === "refused") assert.equal(typeof parsed.frame.final, "boolean");
    if (parsed.frame.type === "welcome") assert.ok(Object.values(parsed.frame.limits).every((limit) => Number.isFinite(limit)));
  }));
});

test("what is no frame is said to be none, and nothing throws", () => {
  assert.deepEqual(parseFrame('{"type":"dance"}'), { what: "unknown", type: "dance" });
  assert.deepEqual(parseFrame('{"type":"toString"}'), { what: "unknown", type: "toString" });
  for (const text of ["", "null", "[]", "7", "{}", '{"type":7}', '{"type":"event","seq":"1","event":"x"}', '{"type":"event","seq":1.5,"event":"x"}']) {
    assert.equal(parseFrame(text).what, "bad", text);
  }
  fc.assert(fc.property(fc.oneof(fc.string(), fc.json()), (text) => void parseFrame(text)));
});

test("limits that a server does not name are the defaults; without watch_users it knows no receipts", () => {
  const parsed = parseFrame(JSON.stringify({ ...FRAMES["welcome"], limits: { in_flight: 7, window_events: "many", frame_bytes: 0 } }));
  assert.ok(parsed.what === "frame" && parsed.frame.type === "welcome");
  const { in_flight, window_events, frame_bytes, watch_users } = parsed.frame.limits;
  assert.deepEqual([in_flight, window_events, frame_bytes, watch_users], [7, 256, 65_536, 0]);
});

test("the tables of codes", () => {
  assert.deepEqual(["rate", "busy", "fenced", "unavailable", "outcome_unknown", "too_large", "id_reused", "new_one"].map(isRetryable),
    [true, true, true, true, true, false, false, false]);
  const next = (code: number): string => { const action = closeAction(code); return action.next === "stop" ? action.reason : action.next; };
  assert.deepEqual([1000, 1001, 1006, 1008, 1012, 4408, 4500, 4999].map(next), Array(8).fill("reconnect"));
  assert.deepEqual([1002, 1003, 1007, 1009, 4400, 4403, 4409, 4426].map(next),
    ["protocol", "protocol", "protocol", "protocol", "protocol", "forbidden", "superseded", "version"]);
  assert.deepEqual([4401, 4410, 4429].map(next), ["token", "forget", "rest"]);
});

test("back-off: full jitter up to min(30 s, 0.5 s · 2^n), never less than was asked for", () => {
  fc.assert(fc.property(fc.nat(100), fc.double({ min: 0, max: 1, noNaN: true }), fc.nat(100_000), (attempt, random, asked) => {
    const wait = fullJitter(attempt, random, asked);
    assert.ok(wait >= asked && wait <= asked + Math.min(30_000, 500 * 2 ** attempt));
  }));
  assert.deepEqual([fullJitter(0, 1), fullJitter(3, 1), fullJitter(50, 1), fullJitter(9, 0)], [500, 4000, 30_000, 0]);
  assert.ok(longRest(0) >= 30_000 && longRest(1) <= 45_000);
});

test("Retry-After: seconds, a date, nonsense, for ever", () => {
  const now = Date.parse("2026-11-21T09:00:00Z");
  assert.deepEqual(["2", "0", "-1", "x", "", null, "Sat, 21 Nov 2026 09:00:05 GMT", "99999999"].map((header) => retryAfter(header, now)),
    [2000, 0, 0, 0, 0, 0, 5000, 3_600_000]);
});

test("whatever a storage holds, what is taken from it is good", () => {
  const entry = { order: 1, id: "01932f6e-5c1e-7c3a-9d4e-1f2a3b4c5d6e", to: "u:43", kind: "text", body: { text: "x" } };
  const garbage = fc.oneof(fc.anything(), fc.constant(entry), fc.record({ epoch: fc.anything(), seq: fc.anything() }));
  fc.assert(fc.property(garbage, garbage, garbage, fc.array(garbage), (place, rev, reads, outbox) => {
    const state = checkState({ place, rev, reads, outbox }, 10);
    assert.ok(state.place === null || Number.isSafeInteger(state.place.seq));
    assert.ok(state.outbox.every((one) => one.to === "u:43"));
    assert.ok(state.outbox.length <= 1);
  }));
  const two = [{ ...entry, order: 5 }, { ...entry, id: entry.id.replace("1", "2"), order: 2 }, { ...entry, order: -1 }, null, { ...entry, to: "nobody" }];
  const state = checkState({ place: { epoch: "1", seq: 7 }, rev: "12", reads: { "d:1:2": "9", "d:1:3": 4 }, outbox: two }, 10);
  assert.deepEqual(state.outbox.map((one) => one.order), [2, 5]);
  assert.deepEqual([state.place, state.rev, state.reads], [{ epoch: "1", seq: 7 }, "12", { "d:1:2": "9" }]);
  assert.deepEqual(state.broken, ["a read position", "3 of 5 messages of the outbox"]);
});
