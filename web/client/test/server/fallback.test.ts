// The fallback against the real server, through a proxy that breaks upgrades, loses answers and answers itself.
import { test } from "node:test";
import assert from "node:assert/strict";
import { MemoryStorage, comparePositions } from "../../src/index.js";
import type { ClientOptions, Receipt } from "../../src/index.js";
import { URL_, control, dense, live, person, texts, until } from "./harness.js";
import type { Person } from "./harness.js";
import { Proxy } from "./proxy.js";
import type { Fault, Upgrades } from "./proxy.js";

const D = "d:44:45";

async function through(user: string, device: string, more: Partial<ClientOptions> & { storage?: MemoryStorage } = {}) {
  const proxy = new Proxy(URL_);
  const url = await proxy.listen();
  const who = person(user, device, { url, ...more });
  const end = async (): Promise<void> => { await who.client.close(); await proxy.close(); };
  return { proxy, url, who, end };
}

const posts = (proxy: Proxy): number => proxy.requests.filter((name) => name === "POST /v1/messages").length;
const overSse = (who: Person): Promise<void> => until("over the stream", () => who.client.state.name === "live" && who.client.state.transport === "sse");

for (const upgrades of ["refused", "cut", "stripped"] satisfies Upgrades[]) {
  test(`upgrades that are ${upgrades}: over to server-sent events by itself, messages go both ways`, async () => {
    const { proxy, who, end } = await through("44", `way-${upgrades}`);
    proxy.upgrades = upgrades;
    const other = person("45", `way-${upgrades}`);
    await Promise.all([who.client.connect(), other.client.connect()]);
    const first = who.client.send("u:45", `${upgrades} hi`);
    await first.accepted;
    await overSse(who);
    assert.equal(proxy.tried, 2);
    await until("it arrives", () => texts(other, "44", upgrades).length === 1);
    await other.client.send("u:44", `${upgrades} and back`).accepted;
    await until("and back", () => texts(who, "45", upgrades).length === 1);
    await until("placed", () => first.state === "placed");
    assert.ok(proxy.headers.every(({ authorization }, i) => proxy.requests[i] === "GET /health" || authorization?.startsWith("Bearer ")));
    assert.ok(proxy.requests.every((name) => !name.includes("eyJ")), "no token in a URL");
    const page = await who.client.history(D, { limit: 2 });
    assert.deepEqual(page.items.map(({ text }) => text), [`${upgrades} hi`, `${upgrades} and back`]);
    assert.equal((await who.client.conversations()).items[0]?.last.text, `${upgrades} and back`);
    assert.deepEqual([who.problems, other.problems], [[], []]);
    await end();
    await other.client.close();
  });
}

test("a stream that is cut again and again: every message once, in order, resumed behind the last one taken", async () => {
  const { proxy, who, end } = await through("44", "cut", { transport: "sse" });
  const other = person("45", "cut");
  await Promise.all([who.client.connect(), other.client.connect()]);
  await overSse(who);
  for (let i = 0; i < 60; i += 1) {
    await other.client.send("u:44", `cut off ${i}`).accepted;
    if (i % 7 !== 0) continue;
    await until("a stream", () => proxy.streams === 1);
    proxy.cut();
  }
  await until("all", () => texts(who, "45", "cut off").length >= 60);
  assert.deepEqual(texts(who, "45", "cut off"), Array.from({ length: 60 }, (_, i) => `cut off ${i}`));
  dense(who, "cut off");
  const streams = proxy.requests.filter((name) => name.startsWith("GET /v1/events"));
  assert.ok(streams.length > 3, `${streams.length}`);
  await end();
  await other.client.close();
});

test("more events than the window: acknowledgements by POST keep it open", async () => {
  const other = person("45", "many");
  await other.client.connect();
  const storage = new MemoryStorage();
  const first = await through("44", "many", { transport: "sse", storage });
  await first.who.client.connect();
  await overSse(first.who);
  await first.end();
  const all = Array.from({ length: 700 }, (_, i) => other.client.send("u:44", `many ${i}`));
  await Promise.all(all.map((one) => one.accepted));
  const { who, end } = await through("44", "many", { transport: "sse", from: "present" });
  await who.client.connect();
  await until("all", () => texts(who, "45", "many").length === 700);
  assert.deepEqual(texts(who, "45", "many"), all.map((_, i) => `many ${i}`));
  await end();
  await other.client.close();
});

test("answers that are lost and refusals that are not final: the order is kept, the same id comes again, each is one message", async () => {
  const { proxy, who, end } = await through("44", "lost", { transport: "sse" });
  const other = person("45", "lost");
  await Promise.all([who.client.connect(), other.client.connect()]);
  await overSse(who);
  const envelope = (code: string, retry_after_ms: number): string => JSON.stringify({ success: false, error: { code, message: code, retry_after_ms } });
  const json = "application/json";
  const faults: (Fault | null)[] = [
    { status: 503, body: envelope("unavailable", 30), type: json }, null, "lost answer", { status: 502, body: "<html>" }, "lost answer",
    { status: 429, body: envelope("rate", 20), type: json }, { status: 200, body: "<html>captive portal" }, null,
  ];
  proxy.fault = ({ url }) => (url === "/v1/messages" ? faults.shift() ?? null : null);
  const sent = Array.from({ length: 12 }, (_, i) => who.client.send("u:45", `lost ${i}`));
  await Promise.all(sent.map((one) => one.accepted));
  await until("all", () => texts(other, "44", "lost").length >= 12);
  assert.deepEqual(texts(other, "44", "lost"), sent.map((_, i) => `lost ${i}`));
  assert.equal(faults.length, 0);
  assert.ok(posts(proxy) > 12, "some went more than once");
  await end();
  await other.client.close();
});

test("final refusals come with their code and field", async () => {
  const { who, end } = await through("44", "final", { transport: "sse" });
  await who.client.connect();
  await who.client.send("u:45", "final first").accepted;
  await assert.rejects(who.client.send("d:42:43", "not mine").accepted, { serverCode: "bad_recipient" });
  await who.client.send("u:45", "final last").accepted;
  assert.deepEqual(who.client.pending(), []);
  await end();
});

test("back to WebSocket, once one opens beside the stream", async () => {
  const { proxy, who, end } = await through("44", "upgrade", { upgradeAfter_ms: 50 });
  await who.client.connect();
  await overSse(who);
  await until("tries", () => proxy.tried >= 3);
  proxy.upgrades = "passed";
  await until("websocket", () => who.client.state.name === "live" && who.client.state.transport === "websocket");
  await until("the stream is let go", () => proxy.streams === 0);
  await who.client.send("u:45", "upgraded").accepted;
  assert.deepEqual(who.problems, []);
  await end();
});

test("read, typing and watch go up by POST; receipts, typing and presence come down the stream, and receipts after being away", async () => {
  const { proxy, who, end } = await through("44", "hints", { transport: "sse" });
  const other = await through("45", "hints", { transport: "sse" });
  const tablet = person("45", "hints-tablet");
  const [receipts, own, typing, presence]: [Receipt[], Receipt[], string[], string[]] = [[], [], [], []];
  who.client.on("receipt", (receipt) => { receipts.push(receipt); });
  tablet.client.on("receipt", (receipt) => { own.push(receipt); });
  who.client.on("typing", ({ from, conversation }) => { typing.push(`${from} ${conversation}`); });
  who.client.on("presence", ({ user, online }) => { presence.push(`${user} ${online}`); });
  await Promise.all([who.client.connect(), other.who.client.connect(), tablet.client.connect()]);
  await Promise.all([overSse(who), overSse(other.who), live(tablet)]);
  const sent = who.client.send("u:45", "hints 1");
  await sent.accepted;
  await until("it arrives", () => texts(other.who, "44", "hints").length === 1);
  const position = other.who.got.at(-1)?.position ?? "";
  const of45 = (reached: (receipt: Receipt) => boolean): boolean => receipts.some((receipt) => receipt.member === "45" && reached(receipt));
  await until("delivered", () => of45(({ delivered }) => comparePositions(delivered, position) >= 0));

  who.client.watch(["45"]);
  await until("presence", () => presence.includes("45 true"));
  other.who.client.typing("u:44");
  await until("typing", () => typing.includes(`45 ${D}`));
  other.who.client.read(D, position);
  await until("read", () => of45(({ read }) => comparePositions(read, position) >= 0));
  await until("one's other device learns it", () => own.some(({ member, read }) => member === "45" && comparePositions(read, position) >= 0));

  // a refusal for now: it is said again
  const next = who.client.send("u:45", "hints 2");
  await next.accepted;
  await until("it arrives too", () => texts(other.who, "44", "hints").length === 2);
  const later = other.who.got.at(-1)?.position ?? "";
  const faults: Fault[] = [{ status: 503, body: "<html>" }, { status: 429, body: "<html>" }, "lost answer"];
  other.proxy.fault = ({ url }) => (url?.endsWith("/read") === true ? faults.shift() ?? null : null);
  await who.client.close();
  other.who.client.read(D, later);
  await until("tried again", () => faults.length === 0);
  const again = await through("44", "hints", { transport: "sse", storage: who.storage });
  const missed: Receipt[] = [];
  again.who.client.on("receipt", (receipt) => { missed.push(receipt); });
  await again.who.client.connect();
  await until("told after being away", () => missed.some(({ member, read }) => member === "45" && comparePositions(read, later) >= 0));
  assert.ok(again.proxy.requests.some((name) => /GET \/v1\/events.*[?&]rev=\d+/.test(name)), "it has said which it knows");
  assert.equal(proxy.requests.filter((name) => name === "POST /v1/watch").length, 1);
  assert.deepEqual([who.problems, other.who.problems, again.who.problems], [[], [], []]);
  await Promise.all([end(), other.end(), again.end(), tablet.client.close()]);
});

test("presence comes again on every stream", async () => {
  const { proxy, who, end } = await through("44", "again", { transport: "sse" });
  const other = person("45", "again");
  const presence: string[] = [];
  who.client.on("presence", ({ user, online }) => { presence.push(`${user} ${online}`); });
  await Promise.all([who.client.connect(), other.client.connect()]);
  await Promise.all([overSse(who), live(other)]);
  await who.client.send("u:45", "again").accepted;
  who.client.watch(["45"]);
  await until("presence", () => presence.length === 1);
  proxy.cut();
  await until("presence once more", () => presence.length === 2);
  assert.deepEqual(presence, ["45 true", "45 true"]);
  await end();
  await other.client.close();
});

test("the device connects elsewhere: the stream says so, and the client stops", async () => {
  const { who, end } = await through("44", "elsewhere", { transport: "sse" });
  await who.client.connect();
  await overSse(who);
  const newer = person("44", "elsewhere");
  await newer.client.connect();
  await live(newer);
  await until("stopped", () => who.client.state.name === "stopped");
  assert.equal(who.client.state.reason, "superseded");
  await end();
  await newer.client.close();
});

test("a token that is no good: asked for another, then stopped", async () => {
  const reasons: string[] = [];
  const credentials = { user: "44", device: "bad", token: (reason: string) => { reasons.push(reason); return Promise.resolve("not.a.token"); } };
  const { who, end } = await through("44", "bad", { transport: "sse", credentials });
  await who.client.connect();
  await until("stopped", () => who.client.state.name === "stopped");
  assert.equal(who.client.state.reason, "unauthenticated");
  assert.deepEqual(reasons, ["connect", "rejected"]);
  await end();
});

test("a cursor of another life: resync over the stream, then on from what is kept", async () => {
  const storage = new MemoryStorage();
  const { url, who, end } = await through("44", "ahead", { transport: "sse", storage });
  await (await storage.open(`${url} 44 ahead`)).write({ place: { epoch: "1", seq: 9_999_999 }, put: [], remove: [] });
  const resyncs: string[] = [];
  who.client.on("resync", ({ reason }) => { resyncs.push(reason); });
  await who.client.connect();
  await overSse(who);
  await until("kept", () => who.got.length > 0);
  assert.equal(resyncs.length, 1);
  await end();
});

test("a server that is killed: the stream is opened again, and nothing is lost or doubled", async () => {
  const { who, end } = await through("44", "killed", { transport: "sse" });
  const other = person("45", "killed");
  await Promise.all([who.client.connect(), other.client.connect()]);
  await overSse(who);
  const sent = [who.client.send("u:45", "killed 0")];
  await sent[0]?.accepted;
  await control("kill");
  sent.push(who.client.send("u:45", "killed 1"), who.client.send("u:45", "killed 2"));
  await control("start");
  await Promise.all(sent.map((one) => one.accepted));
  await until("all", () => texts(other, "44", "killed").length >= 3);
  assert.deepEqual(texts(other, "44", "killed"), ["killed 0", "killed 1", "killed 2"]);
  await until("own", () => texts(who, "44", "killed").length >= 3);
  dense(who, "killed");
  await end();
  await other.client.close();
});
