// A whole conversation of users 42 and 43 through a real server, with `ws`. Run beside a server: tests/clients/run node
import { test } from "node:test";
import assert from "node:assert/strict";
import { Client, server, uuid7 } from "./client.mjs";

const D = "d:42:43";
const cursor = { 42: 0, 43: 0 };     // what each of them has stored
let epoch;

async function attached(user, more = {}, how = "header") {
  const client = new Client(server.token(user), how);
  const answer = await client.attach({ device: "node-1", cursor: cursor[user], ...more });
  epoch ??= answer.welcome.epoch;
  return Object.assign(client, answer);
}

/** Stores an event as a client must: in order, without holes; then acknowledges. */
function store(client, user, event) {
  assert.equal(event.seq, cursor[user] + 1, "a mailbox has no holes");
  cursor[user] = event.seq;
  client.post({ type: "received", seq: event.seq });
}

test("the token goes in the header, in a sub-protocol or in hello", async () => {
  for (const how of ["header", "protocol", "hello"]) {
    const client = new Client(server.token(42), how);
    const { welcome } = await client.attach({ device: "node-tokens", ...(how === "hello" && { token: server.token(42) }) });
    assert.equal(client.protocol, "switchboard.v1.json");
    assert.equal(welcome.user, "42");
    assert.equal(welcome.device, "node-tokens");
    assert.ok(Math.abs(Date.parse(welcome.now) - Date.now()) < 60_000);
    assert.equal(await client.close(), 1000);
  }
});

test("without a good token: 4401", async () => {
  const client = new Client("", "none");
  await client.opened;
  client.post({ type: "hello", token: "not.a.token" });
  assert.equal(await client.closed, 4401);
});

test("a message reaches both, an answer names what it answers", async () => {
  const [a, b] = [await attached(42), await attached(43)];
  const id = uuid7();
  const answer = await a.send("u:43", "héllo ☎", { id });
  assert.deepEqual(answer, { type: "accepted", id, conversation: D });
  const [atA, atB] = [await a.event(id), await b.event(id)];
  store(a, 42, atA);
  store(b, 43, atB);
  assert.equal(atB.event, "message");
  assert.equal(atB.conversation, D);
  assert.equal(atB.from, "42");
  assert.equal(atB.kind, "text");
  assert.deepEqual(atB.body, { text: "héllo ☎" });
  assert.equal(atB.reply_to, undefined);
  assert.equal(atA.position, atB.position);
  assert.equal(atA.at, atB.at);

  const reply = uuid7();
  assert.equal((await b.send(D, "and back", { id: reply, reply_to: { from: "42", id } })).type, "accepted");
  const [replyA, replyB] = [await a.event(reply), await b.event(reply)];
  store(a, 42, replyA);
  store(b, 43, replyB);
  assert.deepEqual(replyA.reply_to, { from: "42", id });
  assert.ok(BigInt(replyA.position) > BigInt(atA.position));
  await Promise.all([a.close(), b.close()]);
});

test("the same send again is one message; the same id with another body is refused", async () => {
  const [a, b] = [await attached(42), await attached(43)];
  const id = uuid7();
  for (let i = 0; i < 3; i++) assert.equal((await a.send("u:43", "once", { id })).type, "accepted");
  const last = uuid7();
  const other = await a.send("u:43", "twice?", { id });
  // The answer is a refusal at once, or an event after `accepted`.
  if (other.type === "refused") assert.deepEqual([other.code, other.final], ["id_reused", true]);
  else assert.equal((await a.take((frame) => frame.event === "refused" && frame.id === id)).code, "id_reused");
  await a.send("u:43", "last", { id: last });
  const seen = [await b.event(id), await b.event(last)];
  assert.equal(seen[0].body.text, "once");
  assert.equal(seen[1].seq, seen[0].seq + 1, "nothing between the two");
  for (const event of seen) store(b, 43, event);
  assert.deepEqual(b.unread.filter((frame) => frame.type !== "receipt"), []);
  await Promise.all([a.close(), b.close()]);
  const again = await attached(42);
  for (const event of again.missed) store(again, 42, event);
  const mine = again.missed.filter((event) => event.event === "message").map((event) => event.id);
  assert.deepEqual(mine, [id, last]);
  await again.close();
});

test("bad frames are answered, the connection stays", async () => {
  const a = await attached(42);
  a.post({ type: "dance" });
  assert.equal((await a.type("error")).code, "unknown_type");
  a.post({ type: "history", conversation: "d:1:2", before: null });
  assert.equal((await a.type("error")).code, "forbidden");
  const empty = await a.send("u:43", "");
  assert.deepEqual([empty.type, empty.code, empty.final], ["refused", "empty", true]);
  // A version 7 of year 2000 can be read as an id; one of version 4 cannot, so the answer may not name it.
  const old = await a.send("u:43", "x", { id: "00dc6acf-ac00-7c3a-9d4e-1f2a3b4c5d6e" });
  assert.deepEqual([old.type, old.code, old.final], ["refused", "bad_id", true]);
  a.post({ type: "send", id: "0b2c1d6e-5c1e-4c3a-9d4e-1f2a3b4c5d6e", to: "u:43", kind: "text", body: { text: "x" } });
  assert.equal((await a.take((frame) => frame.type === "refused" || frame.type === "error")).code, "bad_id");
  a.post({ type: "ping" });
  assert.ok(Date.parse((await a.type("pong")).now));
  await a.close();
});

test("history comes in pages, newest first, ascending inside", async () => {
  const a = await attached(42);
  const sent = [];
  for (let i = 0; i < 7; i++) {
    sent.push(uuid7());
    assert.equal((await a.send("u:43", `page ${i}`, { id: sent[i] })).type, "accepted");
    store(a, 42, await a.event(sent[i]));
  }
  const read = [];
  let before = null;
  do {
    a.post({ type: "history", conversation: D, before, limit: 3 });
    const page = await a.type("page");
    assert.equal(page.conversation, D);
    assert.ok(page.events.length <= 3);
    read.unshift(...page.events);
    before = page.before;
  } while (before !== null);
  const positions = read.map((event) => BigInt(event.position));
  assert.ok(positions.every((position, i) => i === 0 || position > positions[i - 1]), "ascending, each once");
  assert.deepEqual(read.slice(-7).map((event) => event.id), sent);
  assert.equal(read.length, 11);

  a.post({ type: "conversations", before: null, limit: 50 });
  const { conversations } = await a.type("conversations");
  assert.equal(conversations.length, 1);
  assert.equal(conversations[0].conversation, D);
  assert.equal(conversations[0].last.id, sent[6]);
  await a.close();
});

test("resume by cursor gives exactly what was missed, then the live ones", async () => {
  const first = await attached(43);
  for (const event of first.missed) store(first, 43, event);
  first.cut();
  const a = await attached(42);
  const sent = [uuid7(), uuid7(), uuid7()];
  for (const id of sent) { await a.send("u:43", `while away ${id}`, { id }); store(a, 42, await a.event(id)); }
  const b = await attached(43, { epoch });
  assert.deepEqual(b.missed.map((event) => event.id), sent);
  for (const event of b.missed) store(b, 43, event);
  assert.equal(b.live.head, cursor[43]);
  const now = uuid7();
  await a.send("u:43", "now", { id: now });
  store(a, 42, await a.event(now));
  store(b, 43, await b.event(now));
  await Promise.all([a.close(), b.close()]);
});

test("a cursor that cannot be continued: resync, and a new hello on the same connection", async () => {
  const b = new Client(server.token(43));
  await b.opened;
  b.post({ type: "hello", device: "node-2", cursor: 1_000_000 });
  const resync = await b.type("resync");
  assert.equal(resync.reason, "ahead");
  assert.equal(resync.head, cursor[43]);
  b.post({ type: "hello", device: "node-2", cursor: resync.floor });
  await b.type("live");
  assert.equal(b.unread.filter((frame) => frame.type === "event").length, resync.head - resync.floor);
  await b.close();
});

test("the same device attached twice: the older one is closed with 4409", async () => {
  const older = await attached(42);
  const newer = await attached(42);
  assert.equal(await older.closed, 4409);
  await newer.close();
});

test("SIGKILL in the middle: everything accepted is there, each once, and the conversation goes on", async () => {
  const [a, b] = [await attached(42), await attached(43)];
  const sent = Array.from({ length: 60 }, uuid7);
  const accepted = new Set();
  // One at a time until a third is in; then ten more without waiting for their answers, and the server dies.
  for (const id of sent.slice(0, 20)) { assert.equal((await a.send("u:43", id, { id })).type, "accepted"); accepted.add(id); }
  for (const id of sent.slice(20, 30)) a.post({ type: "send", id, to: "u:43", kind: "text", body: { text: id } });
  await server.control("kill");
  await Promise.all([a.closed, b.closed]);
  for (const frame of a.unread) if (frame.type === "accepted") accepted.add(frame.id);
  for (const frame of b.unread) if (frame.type === "event") cursor[43] = frame.seq;   // b stored what it saw
  const seen = b.unread.filter((frame) => frame.type === "event").map((frame) => frame.id);
  await server.control("start");

  const [a2, b2] = [await attached(42, { epoch }), await attached(43, { epoch })];
  assert.equal(b2.welcome.epoch, epoch, "the same data is the same stream");
  for (const event of b2.missed) { store(b2, 43, event); seen.push(event.id); }
  const have = new Set(seen);
  for (const id of accepted) assert.ok(have.has(id), "what was accepted survives");
  // Everything not known to be accepted again, in order; repeats are one message.
  for (const id of sent.slice(20)) {
    const answer = await a2.send("u:43", id, { id });
    assert.equal(answer.type, "accepted", JSON.stringify(answer));
  }
  while (seen.length < sent.length) {
    const event = await b2.type("event");
    store(b2, 43, event);
    seen.push(event.id);
  }
  assert.deepEqual(seen, sent, "each once, in the order they were sent");
  assert.deepEqual(b2.unread.filter((frame) => frame.type === "event"), []);
  await Promise.all([a2.close(), b2.close()]);
});
