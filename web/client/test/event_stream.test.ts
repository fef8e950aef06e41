import { test } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { EventStreamReader, StreamTooLong } from "../src/transport/event_stream.js";

const TEXT = "\uFEFF: a comment\nid: 7\nevent: event\ndata: {\"a\":1}\n\n:\r\n\r\nevent:live\r\ndata:{\"head\":7}\r\n\r\ndata: one\rdata:  two\r\rid\nunknown: x\ndata\n\nevent: lost\n\ndata: no end";
const EVENTS = [
  { event: "event", data: '{"a":1}', id: "7" },
  { event: "live", data: '{"head":7}', id: "7" },
  { event: "message", data: "one\n two", id: "7" },
  { event: "message", data: "", id: "" },
];

test("events are the same however the stream is cut into pieces", () => {
  fc.assert(fc.property(fc.array(fc.nat(TEXT.length), { maxLength: 40 }), (cuts) => {
    const reader = new EventStreamReader();
    const at = [0, ...cuts.sort((a, b) => a - b), TEXT.length];
    const events = at.slice(1).flatMap((end, i) => reader.push(TEXT.slice(at[i], end)));
    assert.deepEqual(events, EVENTS);
  }));
});

test("a line or an event without end is not kept for ever", () => {
  const line = new EventStreamReader();
  assert.throws(() => { for (let i = 0; i < 10; i += 1) line.push("x".repeat(1_000_000)); }, StreamTooLong);
  const event = new EventStreamReader();
  assert.throws(() => { for (let i = 0; i < 10; i += 1) event.push(`data: ${"x".repeat(1_000_000)}\n`); }, StreamTooLong);
});
