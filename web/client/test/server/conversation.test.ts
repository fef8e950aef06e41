// A conversation through a real server. Run beside one: web/client/run-tests server
import { test } from "node:test";
import assert from "node:assert/strict";
import { WebSocket } from "ws";
import { Client, MemoryStorage, comparePositions, devCredentials, tokenCredentials } from "../../src/index.js";
import type { TokenPlace, WebSocketClass } from "../../src/index.js";
import { URL_, control, dense, live, person, texts, token, until, wire } from "./harness.js";

const D = "d:42:43";

test("messages go both ways: stored, sent, accepted, placed; replies; each once", async () => {
  const [a, b] = [person("42", "talk"), person("43", "talk")];
  await Promise.all([a.client.connect(), b.client.connect()]);
  const first = a.client.send("u:43", "héllo ☎");
  await first.stored;
  await first.accepted;
  await until("placed", () => first.state === "placed");
  await until("at both", () => a.got.length === 1 && b.got.length === 1);
  const [atA, atB] = [a.got[0], b.got[0]];
  assert.ok(atA && atB);
  assert.deepEqual([atA.mine, atB.mine, atB.text, atB.conversation, atB.position], [true, false, "héllo ☎", D, first.position]);
  assert.deepEqual(a.changes.map((change) => change.state).filter((state) => state !== "accepted"), ["queued", "sent", "placed"]);

  const reply = b.client.send(D, "and back", { replyTo: { from: "42", id: first.id } });
  await reply.accepted;
  await until("reply", () => a.got.length === 2);
  assert.deepEqual(a.got[1]?.replyTo, { from: "42", id: first.id });
  assert.ok(comparePositions(a.got[1]?.position ?? "0", atA.position) > 0);
  assert.deepEqual([a.client.pending(), b.client.pending(), a.problems, b.problems], [[], [], [], []]);
  await Promise.all([a.client.close(), b.client.close()]);
  assert.deepEqual(a.client.state, { name: "stopped", transport: "websocket", reason: "closed" });
});

test("an id of the application's own, sent again with a storage that knows nothing of it, is one message", async () => {
  const [a, b] = [person("42", "again"), person("43", "again")];
  await Promise.all([a.client.connect(), b.client.connect()]);
  const first = a.client.send("u:43", "id: once");
  assert.throws(() => a.client.send("u:43", "id: once", { id: first.id }), { code: "bad_argument" }, "it waits");
  await first.accepted;
  await a.client.close();
  const later = person("42", "later");
  await later.client.connect();
  await later.client.send("u:43", "id: once", { id: first.id }).accepted;
  await later.client.send("u:43", "id: behind it").accepted;
  await until("both", () => b.got.some(({ text }) => text === "id: behind it"));
  assert.deepEqual(texts(b, "42", "id: "), ["id: once", "id: behind it"]);
  await Promise.all([later.client.close(), b.client.close()]);
});

test("the token goes into the first frame, a header or a sub-protocol entry", async () => {
  for (const tokenIn of ["hello", "header", "subprotocol"] satisfies TokenPlace[]) {
    const who = person("42", "tokens", { tokenIn });
    await who.client.connect();
    await live(who);
    await who.client.close();
  }
});

test("a token that is no good: the provider is asked for another, then the client stops", async () => {
  for (const tokenIn of ["hello", "header", "subprotocol"] satisfies TokenPlace[]) {
    const reasons: string[] = [];
    const credentials = { user: "42", device: "bad", token: (reason: string) => { reasons.push(reason); return Promise.resolve("not.a.token"); } };
    const who = person("42", "bad", { credentials, tokenIn });
    await who.client.connect();
    await until("stopped", () => who.client.state.name === "stopped");
    assert.equal(who.client.state.reason, "unauthenticated");
    assert.deepEqual(reasons, ["connect", "rejected"]);
    await who.client.close();
  }
  const dev = new Client({ url: URL_, credentials: devCredentials(URL_, "44", "dev"), WebSocket: WebSocket as unknown as WebSocketClass, storage: new MemoryStorage() });
  await dev.connect();
  await until("live", () => dev.state.name === "live");
  await dev.close();
});

test("history and conversations come in pages", async () => {
  const a = person("44", "pages");
  await a.client.connect();
  const sent = Array.from({ length: 7 }, (_, i) => a.client.send("u:45", `page ${i}`));
  await Promise.all(sent.map((one) => one.accepted));
  const read: string[] = [];
  let before: string | null = null;
  do {
    const page: Awaited<ReturnType<Client["history"]>> = await a.client.history("d:44:45", { before, limit: 3 });
    assert.ok(page.items.length <= 3);
    read.unshift(...page.items.map((message) => message.text));
    before = page.before;
  } while (before !== null);
  assert.deepEqual(read, sent.map((one) => one.text));
  await a.client.send("u:44", "note to self").accepted;
  const pages = await Promise.all([a.client.conversations({ limit: 1 }), a.client.history("d:44:45"), a.client.conversations()]);
  assert.deepEqual(pages[0].items.map((line) => line.conversation), ["d:44:44"]);
  assert.ok(pages[0].before !== null);
  assert.deepEqual(pages[2].items.map((line) => line.last.text), ["note to self", "page 6"]);
  await assert.rejects(a.client.history("d:1:2"), { code: "refused", serverCode: "forbidden" });
  assert.equal((await a.client.history("d:44:45", { limit: 1 })).items[0]?.text, "page 6", "the connection has not suffered");
  await a.client.close();
});

test("what the server would refuse is refused here, and not sent", async () => {
  const a = person("42", "args");
  await a.client.connect();
  await live(a);
  const bad: [string, string][] = [["43", "x"], ["u:0", "x"], ["d:42", "x"], ["u:43", ""], ["u:43", "a\0b"], ["u:43", "\ud800"], ["u:43", "é".repeat(8193)],
    ["u:43", "\u0001".repeat(12_000)]];
  for (const [to, text] of bad) assert.throws(() => a.client.send(to, text), { code: "bad_argument" }, JSON.stringify([to, text.slice(0, 10)]));
  assert.throws(() => a.client.send("u:43", "x", { replyTo: { from: "43", id: "x" } }), { code: "bad_argument" });
  for (const id of ["", "x", "019a0000-0000-4000-8000-000000000001"]) assert.throws(() => a.client.send("u:43", "x", { id }), { code: "bad_argument" }, id);
  assert.throws(() => a.client.watch(["x"]), { code: "bad_argument" });
  const longest = a.client.send("u:43", "é".repeat(8192));
  await longest.accepted;
  assert.deepEqual(a.client.state.name, "live");
  await a.client.close();
});

test("a handler that fails gets the event again; a slow one stops the acknowledgements, then the server", async () => {
  const a = person("44", "slow");
  const b = person("45", "slow", { from: "present" });
  let open!: () => void;
  const gate = new Promise<void>((resolve) => { open = resolve; });
  let failures = 0;
  b.client.on("message", async () => {
    await gate;
    if (failures < 2) { failures += 1; throw new Error("not now"); }
  });
  await b.client.connect();
  await live(b);
  await a.client.connect();
  const sent = Array.from({ length: 400 }, (_, i) => a.client.send("u:45", `slow ${i}`));
  await Promise.all(sent.map((one) => one.accepted));
  await until("the window is full", () => b.wire.seen.events === 256);
  assert.deepEqual([b.wire.seen.acknowledged, texts(b, "44", "slow").length], [0, 1]);
  open();
  await until("everything", () => texts(b, "44", "slow").length === 400);
  assert.equal(failures, 2);
  assert.equal(b.problems.filter((problem) => problem.code === "handler").length, 2);
  assert.deepEqual(texts(b, "44", "slow"), sent.map((one) => one.text));
  dense(b, "slow");
  assert.ok(b.wire.seen.acknowledged < 100, "in batches");
  await Promise.all([a.client.close(), b.client.close()]);
});

test("resume: the next life gets what it missed and nothing twice", async () => {
  const a = person("42", "resume-a");
  const b = person("43", "resume", { from: "present" });
  await Promise.all([a.client.connect(), b.client.connect()]);
  await Promise.all([live(a), live(b)]);
  await a.client.send("u:43", "resume 1").accepted;
  await until("1", () => texts(b, "42", "resume").length === 1);
  await b.client.close();
  for (const n of [2, 3]) await a.client.send("u:43", `resume ${n}`).accepted;
  const again = person("43", "resume", { storage: b.storage });
  await again.client.connect();
  await until("3", () => texts(again, "42", "resume").length === 2);
  assert.deepEqual(texts(again, "42", ""), ["resume 2", "resume 3"]);
  again.wire.cut();
  await a.client.send("u:43", "resume 4").accepted;
  await until("4", () => texts(again, "42", "resume").length === 3);
  dense(again, "resume");
  await Promise.all([a.client.close(), again.client.close()]);
});

test("a cursor beyond the mailbox: resync, then everything that is kept", async () => {
  const storage = new MemoryStorage();
  const key = `${URL_} 43 ahead`;
  await (await storage.open(key)).write({ place: { epoch: "1", seq: 1_000_000 }, put: [], remove: [] });
  const b = person("43", "ahead", { storage });
  const resyncs: string[] = [];
  b.client.on("resync", ({ reason }) => { resyncs.push(reason); });
  await b.client.connect();
  await live(b);
  await until("taken", () => b.got.length > 5);
  assert.deepEqual([resyncs, b.got[0]?.seq], [["ahead"], 1]);
  dense(b, "");
  await b.client.close();
});

test("the same device elsewhere: the older stops and says so, writes nothing more, and connect takes it back", async () => {
  for (const storage of [undefined, new MemoryStorage()]) {
    const device = storage === undefined ? "twice" : "twice-shared";
    const shared = storage === undefined ? {} : { storage };
    const [older, newer, reader] = [person("42", device, shared), person("42", device, shared), person("43", device, { from: "present" })];
    await reader.client.connect();
    await live(reader);
    await older.client.connect();
    await live(older);
    await newer.client.connect();
    await live(newer);
    await until("superseded", () => older.client.state.reason === "superseded");
    const { acknowledged } = newer.wire.seen;
    await newer.client.send("u:43", `${device} 1`).accepted;
    const resyncs: string[] = [];
    older.client.on("resync", ({ reason }) => { resyncs.push(reason); });
    // what is acknowledged is in the storage
    await until("taken", () => texts(newer, "42", device).length === 1 && newer.wire.seen.acknowledged > acknowledged);
    await older.client.connect();
    await live(older);
    await older.client.send("u:43", `${device} 2`).accepted;
    await until("superseded too", () => newer.client.state.reason === "superseded");
    await until("both", () => texts(reader, "42", device).length === 2);
    assert.deepEqual(texts(reader, "42", device), [`${device} 1`, `${device} 2`]);
    // who shares a cursor is told that he missed something; who has one of his own gets it
    if (storage === undefined) dense(older, device);
    assert.deepEqual(resyncs, storage === undefined ? [] : ["elsewhere"]);
    await Promise.all([older, newer, reader].map(({ client }) => client.close()));
  }
});

test("an id that was used with another body: refused for good, and not sent again", async () => {
  const a = person("42", "reuse");
  await a.client.connect();
  const first = a.client.send("u:43", "the first stands");
  await first.accepted;
  await a.client.close();
  const storage = new MemoryStorage();
  const entry = { order: 1, id: first.id, to: "u:43", kind: "text", body: { text: "another" } };
  await (await storage.open(`${URL_} 42 reuse-2`)).write({ put: [entry], remove: [] });
  const other = person("42", "reuse-2", { storage });
  await other.client.connect();
  await until("refused", () => other.changes.some((change) => change.state === "refused" && change.id === first.id && change.code === "id_reused"));
  assert.deepEqual([other.client.pending(), (await (await storage.open(`${URL_} 42 reuse-2`)).load()).outbox], [[], []]);
  await other.client.close();
});

test("read, typing, presence", async (t) => {
  const [a, b] = [person("42", "signs"), person("43", "signs")];
  await Promise.all([a.client.connect(), b.client.connect()]);
  await Promise.all([live(a), live(b)]);
  if (a.client.limits.watch_users === 0) {
    await Promise.all([a.client.close(), b.client.close()]);
    console.log("SKIPPED: this server knows no read, typing and watch (its welcome names no watch_users)");
    t.skip("the server knows no read, typing and watch");
    return;
  }
  const receipts: string[] = [];
  const typing: string[] = [];
  const online: boolean[] = [];
  a.client.on("receipt", (receipt) => { receipts.push(`${receipt.member} ${receipt.read}`); });
  a.client.on("typing", ({ from }) => { typing.push(from); });
  a.client.on("presence", (presence) => { if (presence.user === "43") online.push(presence.online); });
  const sent = a.client.send("u:43", "read me");
  await sent.accepted;
  await until("at b", () => texts(b, "42", "read me").length === 1);
  const message = b.got.at(-1);
  assert.ok(message);
  a.client.watch(["43"]);
  b.client.read(D, message.position);
  b.client.typing("u:42");
  await until("receipt", () => receipts.includes(`43 ${message.position}`));
  await until("typing", () => typing.includes("43"));
  await until("online", () => online.includes(true));
  const unread = (await b.client.conversations()).items.find((line) => line.conversation === D);
  assert.deepEqual([unread?.unread, unread?.read], [0, message.position]);
  await b.client.close();
  await until("offline", () => online.at(-1) === false);
  await a.client.close();
});

test("written while the server is away: kept, sent once it is back", async () => {
  const [a, b] = [person("42", "away"), person("43", "away")];
  await Promise.all([a.client.connect(), b.client.connect()]);
  await Promise.all([live(a), live(b)]);
  await control("kill");
  await until("a notices", () => a.client.state.name === "waiting");
  const sent = [1, 2, 3].map((n) => a.client.send("u:43", `away ${n}`));
  assert.deepEqual(a.client.pending().map((one) => one.text), ["away 1", "away 2", "away 3"]);
  await control("start");
  await Promise.all(sent.map((one) => one.accepted));
  await until("b has them", () => texts(b, "42", "away").length === 3);
  assert.deepEqual(texts(b, "42", "away"), ["away 1", "away 2", "away 3"]);
  assert.equal(a.client.state.transport, "websocket");
  await Promise.all([a.client.close(), b.client.close()]);
});

test("a client whose line is silent notices by itself", async () => {
  const line = wire();
  const credentials = tokenCredentials(token("42"), "silent");
  let swallow = false;
  // a line that swallows everything and does not close
  const Deaf = class extends (line.Wire as unknown as typeof WebSocket) {
    override emit(name: string | symbol, ...rest: unknown[]): boolean {
      return swallow && (name === "message" || name === "close") ? false : super.emit(name, ...rest as []);
    }
    override send(text: string): void { if (!swallow) super.send(text); }
  };
  const client = new Client({ url: URL_, credentials, WebSocket: Deaf as unknown as WebSocketClass, storage: new MemoryStorage() });
  await client.connect();
  await until("live", () => client.state.name === "live");
  const states: string[] = [];
  client.on("state", ({ name }) => { states.push(name); });
  swallow = true;
  client.doubt();
  await until("noticed", () => states.includes("waiting"));
  swallow = false;
  await until("back", () => client.state.name === "live");
  await client.close();
});
