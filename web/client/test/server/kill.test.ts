// The server killed at random, lines cut at random, clients dying at random: nothing lost, nothing twice, nothing out of order.
import { test } from "node:test";
import assert from "node:assert/strict";
import { control, dense, live, person, texts, until } from "./harness.js";
import type { Person } from "./harness.js";

const KILLS = Number(process.env["KILLS"] ?? 6);
const MESSAGES = Number(process.env["MESSAGES"] ?? 400);
const pause = (ms: number): Promise<void> => new Promise((resolve) => { setTimeout(resolve, ms); });

/** Writes at an uneven pace until all are written; answers what it wrote. */
async function chatter(who: Person, to: string, prefix: string, count: number): Promise<string[]> {
  const written: string[] = [];
  for (let i = 0; i < count; i += 1) {
    written.push(`${prefix} ${i}`);
    who.client.send(to, `${prefix} ${i}`);
    if (Math.random() < 0.2) await pause(Math.random() * 40);
  }
  return written;
}

test(`kill -9 of the server ${KILLS} times under ${2 * MESSAGES} messages`, { timeout: 300_000 }, async () => {
  const [a, b] = [person("42", "kill", { from: "present" }), person("43", "kill", { from: "present" })];
  await Promise.all([a.client.connect(), b.client.connect()]);
  await Promise.all([live(a), live(b)]);
  let over = false;
  const killer = (async () => {
    for (let i = 0; i < KILLS; i += 1) {
      await pause(100 + Math.random() * 500);
      await control("kill");
      if (Math.random() < 0.5) await pause(Math.random() * 300);
      await control("start");
    }
    over = true;
  })();
  const cutter = (async () => {
    while (!over) {
      await pause(Math.random() * 400);
      (Math.random() < 0.5 ? a : b).wire.cut();
    }
  })();
  const [fromA, fromB] = await Promise.all([chatter(a, "u:43", "kill a", MESSAGES), chatter(b, "u:42", "kill b", MESSAGES)]);
  await Promise.all([killer, cutter]);
  await until("everything has come", () => [a, b].every((who) => texts(who, "42", "kill a").length >= MESSAGES && texts(who, "43", "kill b").length >= MESSAGES), 90_000);
  for (const who of [a, b]) {
    assert.deepEqual(texts(who, "42", "kill a"), fromA);
    assert.deepEqual(texts(who, "43", "kill b"), fromB);
    dense(who, "kill");
    assert.deepEqual(who.client.pending(), []);
    assert.deepEqual(who.changes.filter((change) => change.state === "refused"), []);
    assert.deepEqual(who.problems, []);
  }
  assert.deepEqual(a.got.map((message) => message.position), b.got.filter((message) => message.conversation === "d:42:43").slice(-a.got.length).map((message) => message.position));
  await Promise.all([a.client.close(), b.client.close()]);
});

test("a client that dies in the middle of sending, again and again: each message exactly once, in order", { timeout: 120_000 }, async () => {
  const b = person("45", "die", { from: "present" });
  await b.client.connect();
  await live(b);
  let a = person("44", "die", { from: "present" });
  const stored: string[] = [];
  for (let life = 0; life < 12; life += 1) {
    await a.client.connect();
    const sent = Array.from({ length: 20 }, (_, i) => a.client.send("u:45", `die ${life}.${String(i).padStart(2, "0")}`));
    // at some point between "nothing went out" and "all was answered"
    await (life % 3 === 0 ? sent[0]?.stored : sent[Math.floor(Math.random() * 19)]?.accepted);
    if (life % 2 === 0) await pause(Math.random() * 4);
    await Promise.all(sent.map((one) => one.stored));
    stored.push(...sent.map((one) => one.text));
    a.wire.die();
    a = person("44", "die", { storage: a.storage, from: "present" });
  }
  await a.client.connect();
  await until("all", () => texts(b, "44", "die").length >= stored.length && a.client.pending().length === 0);
  assert.deepEqual(texts(b, "44", "die"), stored);
  const history: string[] = [];
  let before: string | null = null;
  do {
    const page: Awaited<ReturnType<typeof a.client.history>> = await a.client.history("d:44:45", { before, limit: 100 });
    history.unshift(...page.items.map((message) => message.text).filter((text) => text.startsWith("die")));
    before = page.before;
  } while (before !== null);
  assert.deepEqual(history, stored, "the server has each of them once");
  await Promise.all([a.client.close(), b.client.close()]);
});
