// Frames as a server with receipts, typing and presence sends them, over a real WebSocket and a scripted server: what the application sees, and what
// the client says of itself. Recorded from the contract; the real server has its turn in server/conversation.test.ts.
import { test } from "node:test";
import assert from "node:assert/strict";
import { WebSocket } from "ws";
import { Client, MemoryStorage, tokenCredentials } from "../src/index.js";
import type { ClientOptions, Receipt, Storage, WebSocketClass } from "../src/index.js";
import { FakeServer, fakeToken, until } from "./fake_server.js";

const LIMITS = { body_bytes: 16384, frame_bytes: 65536, sends_per_s: 50, sends_burst: 100, window_events: 256, window_bytes: 262144, in_flight: 32, page_events: 100, watch_users: 200 };
const message = (seq: number, text: string, from = "43") => ({
  type: "event", seq, event: "message", conversation: "d:42:43", position: String(100 + seq), from, id: `01932f6e-5c1e-7c3a-9d4e-${String(seq).padStart(12, "0")}`,
  kind: "text", body: { text }, at: "2026-11-21T09:00:01.123Z",
});

async function scripted(more: Partial<ClientOptions> = {}) {
  const server = new FakeServer();
  const url = await server.listen();
  const heard: Record<string, unknown>[] = [];
  let say!: (...frames: object[]) => void;
  server.onSocket = (socket) => {
    say = (...frames) => { for (const frame of frames) socket.send(JSON.stringify(frame)); };
    socket.on("message", (data) => {
      const frame = JSON.parse(String(data)) as Record<string, unknown>;
      heard.push(frame);
      if (frame["type"] === "hello") say({ type: "welcome", user: "42", device: "a", session: "s", epoch: "1", now: new Date().toISOString(), heartbeat_s: 30, limits: LIMITS });
    });
  };
  const storage = new MemoryStorage();
  const client = new Client({ url, credentials: tokenCredentials(fakeToken("42", "a")), WebSocket: WebSocket as unknown as WebSocketClass, storage, ...more });
  const types = (): unknown[] => heard.map((frame) => frame["type"]);
  const close = async (): Promise<void> => { await client.close(); await server.close(); };
  return { server, client, heard, types, storage, url, say: (...frames: object[]) => say(...frames), close };
}

test("receipts are taken in order and merged; their newest revision is given back in hello", async () => {
  const { client, heard, say, close, server } = await scripted();
  const receipts: Receipt[] = [];
  let open!: () => void;
  const gate = new Promise<void>((resolve) => { open = resolve; });
  client.on("receipt", async (receipt) => { await gate; receipts.push(receipt); });
  await client.connect();
  await until("hello", () => heard.length >= 1);
  assert.deepEqual(heard[0], { type: "hello", version: 1, token: fakeToken("42", "a"), device: "a", rev: "0" });
  const receipt = (rev: number, delivered: string, read: string, member = "43") => ({ type: "receipt", conversation: "d:42:43", member, delivered, read, rev: String(rev) });
  say({ type: "live", head: 0 }, receipt(1, "5", "0"), receipt(2, "9", "3"), receipt(3, "7", "8", "42"), receipt(10, "4", "9"));
  await until("live", () => client.state.name === "live");
  open();
  await until("two more", () => receipts.length === 3);
  assert.deepEqual(receipts, [
    { conversation: "d:42:43", member: "43", delivered: "5", read: "0", mine: false },
    { conversation: "d:42:43", member: "42", delivered: "7", read: "8", mine: true },
    { conversation: "d:42:43", member: "43", delivered: "9", read: "9", mine: false },
  ]);
  heard.length = 0;
  server.http.closeAllConnections();
  client.doubt();
  say({ type: "move", after_ms: 0 });
  await until("hello again", () => heard.some((frame) => frame["type"] === "hello"));
  assert.equal(heard.find((frame) => frame["type"] === "hello")?.["rev"], "10");
  await close();
});

/** A storage whose opening waits until it is let through. */
function slow() {
  const inner = new MemoryStorage();
  const waiting: (() => void)[] = [];
  let open = 0;
  const storage: Storage = {
    open: async (key) => {
      await new Promise<void>((resolve) => { waiting.push(resolve); });
      const device = await inner.open(key);
      open += 1;
      return { load: () => device.load(), write: (change) => device.write(change), close: () => { open -= 1; return device.close(); } };
    },
  };
  return { storage, waiting, open: () => open };
}

test("closed while it begins: nothing runs on, whatever comes after, and the storage is let go of", async () => {
  const { storage, waiting, open } = slow();
  const { client, server, heard, close } = await scripted({ storage });
  const began = client.connect();
  await until("opening", () => waiting.length === 1);
  await client.close();
  waiting.shift()?.();
  await began;
  assert.deepEqual([client.state.name, client.state.reason, open(), server.upgrades], ["stopped", "closed", 0, 0]);
  assert.throws(() => client.read("d:42:43", "1"), { code: "closed" }, "no runner");

  // begun, closed, and begun again while the first is still opening: one runs, and it is the newer
  const first = client.connect();
  await until("opening", () => waiting.length === 1);
  const closed = client.close();
  const second = client.connect();
  const third = client.connect();
  await closed;
  waiting.shift()?.();
  await first;
  await until("opening again", () => waiting.length === 1);
  assert.equal(server.upgrades, 0);
  waiting.shift()?.();
  await Promise.all([second, third]);
  await until("hello", () => heard.length >= 1);
  await client.connect();
  assert.deepEqual([open(), server.upgrades, waiting.length], [1, 1, 0]);
  await close();
  assert.equal(open(), 0);
});

test("connected again by a late start: a third call makes no second runner", async () => {
  const { storage, waiting, open } = slow();
  const { client, server, heard, close } = await scripted({ storage });
  const first = client.connect();
  await until("opening", () => waiting.length === 1);
  await client.close();
  const second = client.connect();
  waiting.shift()?.();
  await first;
  // the end of the first start is not the end of the second
  const third = client.connect();
  await until("opening again", () => waiting.length === 1);
  waiting.shift()?.();
  await Promise.all([second, third]);
  await until("hello", () => heard.length >= 1);
  assert.deepEqual([open(), server.upgrades, waiting.length], [1, 1, 0]);
  await close();
});

test("read goes out at once, again on each connection, and is kept until one's own receipt confirms it", async () => {
  const { client, heard, say, storage, url, close } = await scripted();
  await client.connect();
  await until("hello", () => heard.length >= 1);
  say({ type: "live", head: 0 });
  await until("live", () => client.state.name === "live");
  client.read("d:42:43", "9");
  client.read("d:42:43", "7");
  client.read("d:42:44", "4");
  await until("said", () => heard.filter((frame) => frame["type"] === "read").length === 2);
  say({ type: "receipt", conversation: "d:42:44", member: "42", delivered: "0", read: "4", rev: "1" },
    { type: "receipt", conversation: "d:42:43", member: "43", delivered: "9", read: "9", rev: "2" },
    { type: "receipt", conversation: "d:42:43", member: "42", delivered: "0", read: "8", rev: "3" });
  heard.length = 0;
  say({ type: "move", after_ms: 0 });
  await until("said again", () => heard.some((frame) => frame["type"] === "read"));
  assert.deepEqual(heard.filter((frame) => frame["type"] === "read"), [{ type: "read", conversation: "d:42:43", position: "9" }]);
  await client.close();
  assert.deepEqual((await (await storage.open(`${url} 42 a`)).load()).reads, { "d:42:43": "9" });
  await close();
});

test("many read positions go out in bursts that the server takes", async () => {
  const { client, heard, say, types, close } = await scripted();
  await client.connect();
  for (let i = 0; i < 120; i += 1) client.read(`d:42:${100 + i}`, "9");
  await until("hello", () => heard.length >= 1);
  say({ type: "live", head: 0 });
  const said = (): number => types().filter((type) => type === "read").length;
  await until("the first", () => said() > 0);
  assert.ok(said() <= 50);
  const began = Date.now();
  await until("all", () => said() === 120);
  assert.ok(Date.now() - began > 1500, "not all at once");
  assert.equal(new Set(heard.map((frame) => frame["conversation"])).size, 121);
  await close();
});

test("a server that knows no receipts hears no read, typing or watch", async () => {
  const { server, client, heard, types, close } = await scripted();
  server.onSocket = (socket) => socket.on("message", (data) => {
    const frame = JSON.parse(String(data)) as Record<string, unknown>;
    heard.push(frame);
    const { watch_users: _, ...limits } = LIMITS;
    if (frame["type"] === "hello") for (const one of [{ type: "welcome", user: "42", device: "a", epoch: "1", now: "", heartbeat_s: 30, limits }, { type: "live", head: 0 }]) socket.send(JSON.stringify(one));
    if (frame["type"] === "history") socket.send(JSON.stringify({ type: "page", conversation: "d:42:43", events: [], before: null }));
  });
  await client.connect();
  client.read("d:42:43", "9");
  client.watch([]);
  await until("live", () => client.state.name === "live");
  client.typing("u:43");
  client.read("d:42:43", "10");
  await client.history("d:42:43");
  assert.deepEqual(types(), ["hello", "history"]);
  await close();
});

test("typing is passed on every 3 s at most; watch is said again on each connection; presence comes", async () => {
  const { client, heard, types, say, close } = await scripted();
  const seen: unknown[] = [];
  client.on("typing", (event) => seen.push(event));
  client.on("presence", (event) => seen.push(event));
  await client.connect();
  client.watch(["43", "44", "43"]);
  await until("welcome", () => client.state.name === "catching_up");
  say({ type: "live", head: 0 });
  await until("live", () => client.state.name === "live");
  for (let i = 0; i < 5; i += 1) client.typing("u:43");
  client.typing("u:44");
  await until("said", () => types().filter((type) => type === "typing").length === 2 && types().includes("watch"));
  say({ type: "typing", conversation: "d:42:43", from: "43" }, { type: "presence", user: "43", online: true }, { type: "presence", user: "44", online: false, last_seen: "2026-11-21T09:00:00Z" });
  await until("seen", () => seen.length === 3);
  assert.deepEqual(seen, [{ conversation: "d:42:43", from: "43" }, { user: "43", online: true, lastSeen: null }, { user: "44", online: false, lastSeen: "2026-11-21T09:00:00Z" }]);
  heard.length = 0;
  say({ type: "move", after_ms: 0 });
  await until("watch again", () => types().includes("watch"));
  assert.deepEqual(heard.find((frame) => frame["type"] === "watch")?.["users"], ["43", "44"]);
  await close();
});

test("frames and events from the future, and nonsense: passed over, the cursor goes on", async () => {
  const { client, heard, types, say, close } = await scripted({ from: "oldest" });
  const got: string[] = [];
  const problems: string[] = [];
  client.on("message", ({ text, kind }) => { got.push(`${kind}:${text}`); });
  client.on("other", ({ event }) => { got.push(event); });
  client.on("problem", ({ code }) => problems.push(code));
  await client.connect();
  await until("hello", () => heard.length >= 1);
  say({ type: "dance" }, message(1, "one"), { type: "event", seq: 2, event: "edited", conversation: "d:42:43" }, { ...message(3, "x"), position: 7 },
    { ...message(4, ""), kind: "image", body: { url: "x" } }, { type: "event", seq: "5" }, message(5, "five"), { type: "live", head: 5 });
  await until("acknowledged", () => heard.some((frame) => frame["type"] === "received" && frame["seq"] === 5));
  assert.deepEqual(got, ["text:one", "edited", "message", "image:", "text:five"]);
  assert.deepEqual([problems, client.state.name, types().filter((type) => type === "hello").length], [["bad_frame"], "live", 1]);
  await close();
});

test("a hole in the events: not stepped over, the client comes again with its cursor", async () => {
  const { client, heard, say, close } = await scripted({ from: "oldest" });
  const got: number[] = [];
  client.on("message", ({ seq }) => { got.push(seq ?? 0); });
  await client.connect();
  await until("hello", () => heard.length >= 1);
  say(message(1, "one"), message(2, "two"));
  await until("taken", () => got.length === 2);
  say(message(4, "four"));
  await until("again", () => heard.filter((frame) => frame["type"] === "hello").length === 2);
  assert.equal(heard.at(-1)?.["cursor"], 2);
  say(message(3, "three"), message(4, "four"), { type: "live", head: 4 });
  await until("all", () => got.length === 4);
  assert.deepEqual(got, [1, 2, 3, 4]);
  await close();
});

test("handshakes that are refused with a status: 503 waits as it was told, 401 asks for another token, 403 stops", async () => {
  const { server, client, close } = await scripted();
  server.onSocket = null;
  server.refusal = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 7";
  await client.connect();
  await until("waiting", () => client.state.name === "waiting");
  const wait = client.state.retryIn_ms ?? 0;
  assert.ok(wait >= 7000 && wait <= 7500, String(wait));
  await close();

  const stopped = await scripted();
  stopped.server.onSocket = null;
  stopped.server.refusal = "HTTP/1.1 403 Forbidden";
  await stopped.client.connect();
  await until("stopped", () => stopped.client.state.name === "stopped");
  assert.equal(stopped.client.state.reason, "forbidden");
  await stopped.close();

  const refused = await scripted();
  refused.server.onSocket = null;
  refused.server.refusal = "HTTP/1.1 401 Unauthorized";
  await refused.client.connect();
  await until("stopped", () => refused.client.state.reason === "unauthenticated");
  await refused.close();
});

test("a welcome for somebody else: not for this storage", async () => {
  const { server, client, close } = await scripted();
  server.onSocket = (socket) => socket.on("message", () => socket.send(JSON.stringify({ type: "welcome", user: "43", device: "a", epoch: "1", now: "", heartbeat_s: 30, limits: LIMITS })));
  await client.connect();
  await until("stopped", () => client.state.reason === "other_user");
  await close();
});

test("the outbox is bounded, and close says that nothing is known of what waits", async () => {
  const { client, close } = await scripted({ outboxMax: 3 });
  await client.connect();
  const sent = [1, 2, 3].map((n) => client.send("u:43", `m${n}`));
  assert.throws(() => client.send("u:43", "m4"), { code: "outbox_full" });
  await client.close();
  await assert.rejects(sent[0]?.accepted ?? Promise.resolve(), { code: "closed" });
  await close();
});
