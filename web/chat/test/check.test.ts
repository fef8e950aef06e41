import { test } from "node:test";
import assert from "node:assert/strict";
import { allUnstored, draftsOf, knownOf, linesOf, messageOf, messagesOf } from "../src/cache/check.js";

const MESSAGE = { conversation: "d:42:43", position: "7", from: "43", id: "i", kind: "text", text: "hi", body: {}, replyTo: { from: "42", id: "j" }, at: "2026-11-28T09:00:00Z", mine: false };
const JUNK: unknown[] = [undefined, null, 0, "", "junk", [], {}, true, new Date(NaN), new Uint8Array(3), [null], { length: 3 }, [[]], Object.create(null)];

test("what this version writes is taken as it is", () => {
  assert.deepEqual(messageOf(MESSAGE), MESSAGE);
  const line = { conversation: "d:42:43", last: MESSAGE, unread: 3, read: "5", marks: { delivered: "7", read: "6" } };
  assert.deepEqual(linesOf([line]), [line]);
  assert.deepEqual(knownOf({ 43: { name: "Bob", about: "", at: 5, phone: "+49" } }), new Map([["43", { name: "Bob", about: "", at: 5, phone: "+49" }]]));
  assert.deepEqual(draftsOf({ "d:42:43": "half" }), new Map([["d:42:43", "half"]]));
  const unstored = { id: "019a0000-0000-7000-8000-000000000001", conversation: "d:42:43", text: "written", replyTo: { from: "43", id: "x" } };
  assert.deepEqual(allUnstored([unstored, { ...unstored, replyTo: null }]), [unstored, { ...unstored, replyTo: null }]);
});

test("junk is nothing, in every place", () => {
  for (const junk of JUNK) {
    assert.equal(messageOf(junk), null);
    assert.deepEqual([...messagesOf(junk), ...linesOf(junk), ...knownOf(junk), ...draftsOf(junk), ...allUnstored(junk), ...allUnstored([junk])], []);
    assert.deepEqual([linesOf([junk]), messagesOf([junk])], [[], []]);
    for (const field of ["conversation", "position", "from", "id", "kind", "text", "at"] as const) {
      const taken = messageOf({ ...MESSAGE, [field]: junk });
      assert.ok(taken === null || typeof taken[field] === "string", field);
    }
    const [line] = linesOf([{ conversation: "d:42:43", last: junk, unread: junk, read: junk, marks: junk }]);
    assert.deepEqual(line, { conversation: "d:42:43", last: null, unread: 0, read: "0", marks: { delivered: "0", read: "0" } });
    assert.equal(messageOf({ ...MESSAGE, replyTo: junk })?.replyTo, null);
  }
  for (const bad of ["d:0:1", "d:1:2:3", "g:1:2", "d:1:99999999999999999999"]) assert.deepEqual(linesOf([{ conversation: bad }]), [], bad);
  for (const bad of ["-1", "1.5", "0x1", "x"]) assert.equal(messageOf({ ...MESSAGE, position: bad }), null, bad);
  for (const unread of [-1, 1.5, 2 ** 60, "3"]) assert.equal(linesOf([{ conversation: "d:42:43", unread }])[0]?.unread, 0);
});
