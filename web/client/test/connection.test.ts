import { test } from "node:test";
import assert from "node:assert/strict";
import { Choice } from "../src/core/choice.js";
import { Connection } from "../src/core/connection.js";
import type { Effect } from "../src/core/effects.js";

const half = (): number => 0.5;
const make = (choice = new Choice()): Connection => new Connection(choice, half, () => ({ device: "a" }));
const timer = (effects: Effect[], name: string): number | undefined =>
  effects.flatMap((effect) => (effect.do === "timer" && effect.timer === name ? [effect.ms] : [])).at(-1);
const did = (effects: Effect[]): string[] => effects.filter((effect) => effect.do !== "cancel").map((effect) => effect.do);

function live(connection = make(), token = "t"): Connection {
  connection.connect();
  connection.token(token, 0);
  connection.welcome(30, 0);
  connection.live();
  return connection;
}

test("the whole way", () => {
  const connection = make();
  assert.equal(connection.state.name, "idle");
  assert.deepEqual(did(connection.connect()), ["token"]);
  assert.equal(connection.state.name, "connecting");
  const open = connection.token("t", 0);
  assert.deepEqual(did(open), ["open", "timer"]);
  assert.deepEqual(open.find((effect) => effect.do === "open")?.hello, { type: "hello", version: 1, device: "a" });
  connection.welcome(30, 0);
  assert.equal(connection.state.name, "catching_up");
  connection.live();
  assert.equal(connection.state.name, "live");
});

test("each failure waits longer, up to the last bound; live begins from the start", () => {
  const connection = make();
  connection.connect();
  const waits: (number | undefined)[] = [];
  for (let i = 0; i < 8; i += 1) {
    connection.token("t", 0);
    connection.closed({ code: 1006 }, 0);
    waits.push(timer(connection.checked(false, 0, 0), "retry"));
    connection.timer("retry", 0, false);
  }
  assert.deepEqual(waits, [250, 500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
  connection.token("t", 0);
  connection.welcome(30, 0);
  connection.live();
  assert.equal(timer(connection.closed({ code: 4500 }, 0), "retry"), 250);
});

test("what the server asks for is honoured: Retry-After, move", () => {
  const refused = make();
  refused.connect();
  refused.token("t", 0);
  assert.equal(timer(refused.closed({ code: 1006, status: 503, retryAfter_ms: 5000 }, 0), "retry"), 5250);

  const moved = live();
  assert.equal(timer(moved.move(3200), "move"), 3200);
  assert.equal(moved.sends, false);
  assert.equal(moved.established, true);
  assert.equal(timer(moved.timer("move", 3200, true), "move"), 2000, "answers are owed");
  assert.deepEqual(did(moved.timer("move", 5200, true)), ["close", "token"]);
});

test("codes after which it stops, and connect begins again", () => {
  const reasons: Record<number, string> = { 4400: "protocol", 4403: "forbidden", 4409: "superseded", 4426: "version", 1009: "protocol" };
  for (const [code, reason] of Object.entries(reasons)) {
    const connection = live();
    connection.closed({ code: Number(code) }, 0);
    assert.deepEqual(connection.state, { name: "stopped", transport: "websocket", reason, code: Number(code) });
    assert.deepEqual(connection.network(true), []);
    assert.deepEqual(did(connection.connect()), ["token"]);
  }
  const origin = make();
  origin.connect();
  origin.token("t", 0);
  origin.closed({ code: 1006, status: 403 }, 0);
  assert.equal(origin.state.reason, "forbidden");
});

test("4429: not before the longest back-off", () => {
  assert.ok((timer(live().closed({ code: 4429 }, 0), "retry") ?? 0) >= 30_000);
});

test("4401: another token, and when there is none, or the same again, it stops", () => {
  const connection = live();
  assert.equal(timer(connection.closed({ code: 4401 }, 0), "retry"), 250);
  const asked = connection.timer("retry", 0, false);
  assert.deepEqual(asked.filter((effect) => effect.do === "token"), [{ do: "token", reason: "rejected" }]);
  connection.token("t", 0);
  assert.equal(connection.state.reason, "unauthenticated");

  const other = live();
  const waits: (number | undefined)[] = [];
  for (let i = 0; i < 8; i += 1) {
    waits.push(timer(other.closed({ code: 4401 }, 0), "retry"));
    assert.deepEqual(did(other.timer("retry", 0, false)), ["token"]);
    other.token(`t${i}`, 0);
  }
  assert.deepEqual(waits, [250, 500, 1000, 2000, 4000, 8000, 15_000, 15_000], "with patience: a late hello and a proxy end no session");

  const none = live();
  none.closed({ code: 1006, status: 401 }, 0);
  none.timer("retry", 0, false);
  none.noToken(true, 0);
  assert.equal(none.state.reason, "unauthenticated");
});

test("reauth: a new token, then over to a new connection; the old one serves until it is there", () => {
  const connection = live();
  assert.deepEqual(connection.reauth(), [{ do: "token", reason: "expiring" }]);
  assert.equal(connection.sends, true);
  assert.deepEqual(connection.reauth(), [], "once");
  assert.ok((timer(connection.noToken(false, 0), "reauth") ?? 0) > 0, "asked again later");
  connection.timer("reauth", 0, false);
  assert.ok((timer(connection.token("t", 0), "reauth") ?? 0) > 0, "the same one is none");
  connection.timer("reauth", 0, false);
  assert.deepEqual(did(connection.token("t2", 0)), ["close", "open", "timer"]);
});

test("a silent line: a ping, then it counts as dead", () => {
  const connection = live();
  assert.equal(timer(connection.timer("ping", 20_000, false), "dead"), 10_000);
  assert.deepEqual(connection.heard(21_000), [{ do: "cancel", timer: "dead" }]);
  assert.deepEqual(did(connection.timer("ping", 25_000, false)), ["timer"], "heard of just now: no ping");
  connection.timer("ping", 60_000, false);
  assert.deepEqual(did(connection.timer("dead", 70_000, false)), ["close", "timer"]);
  assert.equal(connection.state.name, "waiting");
});

test("no welcome in time: given up", () => {
  const connection = make();
  connection.connect();
  connection.token("t", 0);
  assert.deepEqual(did(connection.timer("opening", 15_000, false)), ["close", "check"]);
});

test("offline: a live line is doubted; waiting goes on slowly; online connects at once", () => {
  const connection = live();
  assert.deepEqual(did(connection.network(false)), ["post", "timer"]);
  connection.timer("dead", 4000, false);
  assert.equal(connection.state.retryIn_ms, 30_000);
  assert.deepEqual(did(connection.network(true)), ["token"]);
});

test("the fallback: after two WebSockets that did not open while HTTP worked; back when one opens beside it", () => {
  const choice = new Choice();
  const connection = make(choice);
  connection.connect();
  const fail = (works: boolean): void => {
    connection.token("t", 0);
    assert.deepEqual(did(connection.closed({ code: 1006 }, 0)), ["check"]);
    connection.checked(works, 0, 0);
    connection.timer("retry", 0, false);
  };
  fail(true);
  fail(false);
  assert.equal(choice.name, "websocket", "a server that was away says nothing about WebSockets");
  fail(true);
  fail(true);
  assert.equal(choice.name, "sse");
  const open = connection.token("t", 0);
  assert.equal(open.find((effect) => effect.do === "open")?.transport, "sse");
  assert.equal(timer(connection.welcome(30, 0), "upgrade"), 300_000);
  connection.live();
  assert.deepEqual(connection.timer("upgrade", 0, false), [{ do: "probe" }]);
  assert.equal(timer(connection.probed(false), "upgrade"), 600_000);
  assert.deepEqual(did(connection.probed(true)), ["close", "token"]);
  assert.equal(connection.token("t", 0).find((effect) => effect.do === "open")?.transport, "websocket");
});

test("a server without the fallback: WebSocket again, and it is not asked for a while", () => {
  const choice = new Choice();
  choice.failed(true, 0);
  choice.failed(true, 0);
  const connection = make(choice);
  connection.connect();
  connection.token("t", 1000);
  connection.closed({ code: 1006, status: 404 }, 1000);
  assert.equal(choice.name, "websocket");
  for (let i = 0; i < 4; i += 1) choice.failed(true, 2000);
  assert.equal(choice.name, "websocket");
  choice.failed(true, 400_000);
  assert.equal(choice.name, "sse");
});

test("codes that the server chose say nothing against WebSockets", () => {
  const connection = make();
  connection.connect();
  connection.token("t", 0);
  assert.deepEqual(did(connection.closed({ code: 4500 }, 0)), ["timer"]);
  const only = make(new Choice("websocket"));
  only.connect();
  only.token("t", 0);
  assert.deepEqual(did(only.closed({ code: 1006 }, 0)), ["timer"]);
});
