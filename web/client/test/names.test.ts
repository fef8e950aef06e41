import { test } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { comparePositions, conversationOf, directConversation, isRecipient, isUuid7, peerOf, readToken, uuid7Source } from "../src/protocol/names.js";

const fill = (bytes: Uint8Array): Uint8Array => crypto.getRandomValues(bytes as Uint8Array<ArrayBuffer>);

test("ids are UUIDs of version 7, ascend and differ, whatever the clock does", () => {
  fc.assert(fc.property(fc.array(fc.integer({ min: -5, max: 5 }), { minLength: 1, maxLength: 200 }), (steps) => {
    let now = 1_790_000_000_000;
    const next = uuid7Source(() => now, fill);
    const ids = steps.map((by) => { now += by; return next(); });
    assert.ok(ids.every(isUuid7));
    assert.deepEqual([...new Set(ids)].sort(), ids);
  }));
});

test("more ids in one millisecond than can be counted: they still ascend", () => {
  const next = uuid7Source(() => 1_790_000_000_000, fill);
  const ids = Array.from({ length: 10_000 }, next);
  assert.deepEqual([...new Set(ids)].sort(), ids);
  assert.ok(Number.parseInt((ids.at(-1) ?? "").slice(0, 8) + (ids.at(-1) ?? "").slice(9, 13), 16) - 1_790_000_000_000 < 10);
});

test("positions compare as 64-bit numbers", () => {
  fc.assert(fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (a, b) => {
    assert.equal(Math.sign(comparePositions(String(a), String(b))), a < b ? -1 : a > b ? 1 : 0);
  }));
});

test("conversations: the lower user first, whoever asks; the peer is the other one", () => {
  assert.equal(directConversation("43", "42"), "d:42:43");
  assert.equal(directConversation("9", "10"), "d:9:10");
  assert.equal(conversationOf("42", "u:43"), "d:42:43");
  assert.equal(conversationOf("42", "d:42:43"), "d:42:43");
  assert.deepEqual([peerOf("42", "d:42:43"), peerOf("43", "d:42:43"), peerOf("42", "d:42:42"), peerOf("1", "d:42:43"), peerOf("42", "g:1")],
    ["43", "42", "42", null, null]);
  assert.deepEqual(["u:43", "d:42:43", "u:0", "u:043", "43", "u:43 ", "d:42", "g:1"].map(isRecipient), [true, true, false, false, false, false, false, false]);
});

test("a token's claims are read, and nothing that is none breaks", () => {
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const token = `${part({ alg: "HS256" })}.${part({ user_id: "42", device: "täb", exp: 1_790_000_000 })}.x`;
  assert.deepEqual(readToken(token), { user: "42", device: "täb", expiresAt: 1_790_000_000_000 });
  fc.assert(fc.property(fc.oneof(fc.string(), fc.json().map((json) => `x.${Buffer.from(json).toString("base64url")}.y`)), (text) => {
    const claims = readToken(text);
    assert.ok(claims === null || /^[1-9][0-9]*$/.test(claims.user));
  }));
});
