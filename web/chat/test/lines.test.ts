import { test } from "node:test";
import assert from "node:assert/strict";
import type { Client, Conversation, Message, Page } from "@switchboard/client";
import { Cache } from "../src/cache/cache.js";
import { Lines } from "../src/state/lines.js";

const message = (position: number, from = "43", conversation = "d:42:43"): Message => ({
  conversation, position: String(position), from, id: `id-${position}`, kind: "text", text: `text ${position}`, body: {}, replyTo: null,
  at: new Date(Date.UTC(2026, 10, 28, 9, 0, position)).toISOString(), mine: from === "42",
});
const item = (last: Message, unread: number, read: number): Conversation =>
  ({ conversation: last.conversation, last, unread, read: String(read), receipts: [{ member: "43", delivered: "2", read: "1" }] });

/** A list whose pages are answered by hand. */
function list() {
  const asked: ((page: Page<Conversation>) => void)[] = [];
  const client = { conversations: () => new Promise((answer) => asked.push(answer)) } as unknown as Client;
  const cache = new Cache("42");
  const lines = new Lines("42", client, cache);
  return { lines, async page(items: Conversation[], before: string | null = null, meanwhile = () => {}) {
    const loading = lines.load();
    meanwhile();
    asked.shift()?.({ items, before });
    await loading;
    await cache.close();
  } };
}
const unread = (lines: Lines): number => lines.get("d:42:43").unread;

test("the server counts what is unread; what arrives is counted on", async () => {
  const { lines, page } = list();
  await page([item(message(5), 2, 3)]);
  assert.equal(unread(lines), 2);
  assert.equal(lines.arrived(message(6)), false);
  lines.arrived(message(7, "42"));
  assert.equal(unread(lines), 3, "one's own is not unread");
  lines.arrived(message(6));
  assert.equal(unread(lines), 3, "twice is once");
});

test("what arrives while a page is under way is counted once, whether the page knows of it or not", async () => {
  for (const knows of [false, true]) {
    const { lines, page } = list();
    await page([knows ? item(message(6), 3, 3) : item(message(5), 2, 3)], null, () => lines.arrived(message(6)));
    assert.deepEqual([unread(lines), lines.get("d:42:43").last?.position], [3, "6"], String(knows));
  }
});

test("what was read here stays read when an older page says otherwise", async () => {
  const { lines, page } = list();
  await page([item(message(5), 2, 3)]);
  assert.equal(lines.read("d:42:43", "5", null), true);
  assert.equal(lines.read("d:42:43", "4", null), false, "never back");
  await page([item(message(5), 2, 3)]);
  assert.equal(unread(lines), 0);
});

test("read in part: what is left is what is behind", async () => {
  const { lines, page } = list();
  await page([item(message(9), 5, 3)]);
  lines.read("d:42:43", "6", 3);
  assert.equal(unread(lines), 3);
  lines.read("d:42:43", "7", null);
  assert.equal(unread(lines), 3, "not known: no more than before");
});

test("the latest first; a conversation without a message is not shown; marks only rise", async () => {
  const { lines, page } = list();
  await page([item(message(5), 0, 5), { ...item(message(9, "44", "d:42:44"), 0, 9), receipts: [] }]);
  lines.marked("d:42:99", { delivered: "1", read: "1" });
  assert.deepEqual(lines.sorted.value.map(({ conversation }) => conversation), ["d:42:44", "d:42:43"]);
  assert.equal(lines.arrived(message(12)), false);
  assert.deepEqual(lines.sorted.value.map(({ conversation }) => conversation), ["d:42:43", "d:42:44"]);
  lines.marked("d:42:43", { delivered: "5", read: "0" });
  assert.deepEqual(lines.get("d:42:43").marks, { delivered: "5", read: "1" });
  assert.equal(lines.arrived(message(1, "45", "d:42:45")), true, "a new conversation is news");
});
