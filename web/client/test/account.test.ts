import { test } from "node:test";
import assert from "node:assert/strict";
import { Account, ApiError, ClientError, MemorySessionStore, WebSessionStore } from "../src/index.js";
import type { AccountSession } from "../src/index.js";
import { FakeServer, bad, fakeToken, good, until } from "./fake_server.js";

/** The part of a server that rotates refresh tokens and ends a family when one comes twice. */
function rotating(server: FakeServer, life_s = 3600) {
  const state = { present: 0, ended: false, answered: new Map<string, unknown>(), refreshes: 0, lose: 0 };
  const session = (n: number) => ({
    user: "5000000000", device: "laptop", new: n === 0, access_token: fakeToken("5000000000", "laptop", n), refresh_token: `r${n}`,
    expires_at: new Date(Date.now() + life_s * 1000).toISOString(), refresh_expires_at: new Date(Date.now() + 1e9).toISOString(),
  });
  server.routes.set("POST /v1/registrations", ({ body }) => good({ expires_in_s: 300, retry_after_s: 60, ...(body["phone"] === "+491511" ? { dev_code: "123456" } : {}) }, 202));
  server.routes.set("POST /v1/registrations/verify", ({ body }) => (body["code"] === "123456" ? good(session(0)) : bad(400, "bad_code")));
  server.routes.set("POST /v1/sessions/refresh", async ({ body, headers }) => {
    state.refreshes += 1;
    const key = String(headers["idempotency-key"]);
    const before = state.answered.get(key);
    if (before === undefined) {
      if (state.ended || body["refresh_token"] !== `r${state.present}`) { state.ended = true; return bad(401, "unauthenticated"); }
      state.present += 1;
      state.answered.set(key, session(state.present));
    }
    await new Promise((resolve) => { setTimeout(resolve, 20); });
    if (state.lose > 0) { state.lose -= 1; return { status: 502, body: "gateway" }; }
    return good(state.answered.get(key));
  });
  return state;
}

/** Web Locks, as far as they are used: one after another. */
function fakeLocks(): LockManager {
  let last: Promise<unknown> = Promise.resolve();
  return { request: (_name: string, work: () => Promise<unknown>) => (last = last.then(work, work)) } as unknown as LockManager;
}

async function signedIn(life_s = 3600) {
  const server = new FakeServer();
  const url = await server.listen();
  const state = rotating(server, life_s);
  const store = new MemorySessionStore();
  const locks = fakeLocks();
  const account = new Account({ url, store, locks });
  await account.verify({ phone: "+491511", code: "123456", device: "laptop", deviceLabel: "Desk", name: "Ann" });
  return { server, url, state, store, locks, account };
}

test("register and verify: the session is kept, and is the credentials of a client", async () => {
  const { server, account, store } = await signedIn();
  assert.deepEqual(await account.register("+491511"), { expiresIn_s: 300, retryAfter_s: 60, devCode: "123456" });
  assert.equal((await account.register("+491522")).devCode, null);
  assert.deepEqual([account.user, account.device, store.read()?.refreshToken], ["5000000000", "laptop", "r0"]);
  assert.equal(await account.token("connect"), fakeToken("5000000000", "laptop", 0));
  const verify = server.requests.find(({ name }) => name.endsWith("verify"));
  assert.deepEqual(verify?.body, { phone: "+491511", code: "123456", device: "laptop", device_label: "Desk", name: "Ann" });
  assert.match(String(verify?.headers["idempotency-key"]), /^[!-~]{1,64}$/);
  await assert.rejects(account.verify({ phone: "+491511", code: "000000", device: "laptop" }), (thrown) => thrown instanceof ApiError && thrown.code === "bad_code" && !thrown.temporary);
  await server.close();
});

test("an access token near its end, and one that was refused, are refreshed", async () => {
  const { server, state, account } = await signedIn(30);
  assert.equal(await account.token("connect"), fakeToken("5000000000", "laptop", 1));
  assert.equal(await account.token("rejected"), fakeToken("5000000000", "laptop", 2));
  assert.equal(state.ended, false);
  await server.close();
});

test("one refresh at a time: in a tab, and between tabs that share the store", async () => {
  const { server, url, state, store, locks, account } = await signedIn();
  const tabs = [account, account, ...Array.from({ length: 4 }, () => new Account({ url, store, locks }))];
  const tokens = await Promise.all(tabs.map((tab) => tab.token("rejected")));
  assert.deepEqual([...new Set(tokens)], [fakeToken("5000000000", "laptop", 1)]);
  assert.deepEqual([state.refreshes, state.ended], [1, false]);
  await server.close();
});

test("a refresh whose answer was lost is repeated under the same key and ends nothing", async () => {
  const { server, state, account } = await signedIn();
  state.lose = 2;
  for (let i = 0; i < 2; i += 1) await assert.rejects(account.token("rejected"), (thrown) => thrown instanceof ApiError && thrown.temporary);
  assert.equal(await account.token("rejected"), fakeToken("5000000000", "laptop", 1));
  assert.deepEqual([state.refreshes, state.ended], [3, false]);
  await server.close();
});

test("a session that has ended: forgotten, and said so", async () => {
  const { server, state, store, account } = await signedIn();
  state.ended = true;
  await assert.rejects(account.token("rejected"), (thrown) => thrown instanceof ClientError && thrown.code === "unauthenticated");
  assert.equal(store.read(), null);
  assert.throws(() => account.user, { code: "unauthenticated" });
  await assert.rejects(account.devices(), { code: "unauthenticated" });
  await server.close();
});

test("a 401 that is not the API's own word ends nothing, and is tried again", async () => {
  const { server, state, store, account } = await signedIn();
  const refresh = server.routes.get("POST /v1/sessions/refresh");
  for (const answer of [{ status: 401, body: "<html>log in to the proxy</html>" }, { status: 401 }, bad(401, "proxy_login"), bad(400, "unauthenticated")]) {
    server.routes.set("POST /v1/sessions/refresh", () => answer);
    await assert.rejects(account.token("rejected"), (thrown) => thrown instanceof ApiError && thrown.status === answer.status);
    assert.equal(store.read()?.refreshToken, "r0");
  }
  server.routes.set("GET /v1/me", () => ({ status: 401, body: "proxy" }));
  await assert.rejects(account.me(), (thrown) => thrown instanceof ApiError && thrown.code === "not_api");
  assert.ok(refresh);
  server.routes.set("POST /v1/sessions/refresh", refresh);
  assert.equal(await account.token("rejected"), fakeToken("5000000000", "laptop", 1));
  assert.equal(state.ended, false);
  await server.close();
});

test("a sign-in while the sign-out of another still runs is left alone, and its token not used", async () => {
  const { server, account, store } = await signedIn();
  const first = store.read();
  const used: unknown[] = [];
  let answer = (): void => undefined;
  server.routes.set("DELETE /v1/sessions/current", async ({ headers }) => {
    used.push(headers["authorization"]);
    await new Promise<void>((resolve) => { answer = resolve; });
    return bad(401, "unauthenticated");
  });
  for (const [user, device, signIn] of [["43", "phone", "other"], ["5000000000", "laptop", "again"]] as const) {
    // once somebody else, then the same person on the same device
    store.write(first);
    const out = account.signOut();
    await until("asked", () => used.length === 1);
    const next: AccountSession = { user, device, signIn, accessToken: "new", refreshToken: "new", refreshKey: "k", expiresAt: Date.now() + 1e9, refreshExpiresAt: Date.now() + 1e9 };
    store.write(next);
    answer();
    await out;
    assert.deepEqual(store.read(), next);
    assert.deepEqual(used.splice(0), [`Bearer ${fakeToken("5000000000", "laptop", 0)}`]);
  }
  assert.ok(!server.requests.some(({ name }) => name.endsWith("refresh")));
  await server.close();
});

test("signed out while a refresh is under way: it stays so", async () => {
  const { server, account, store } = await signedIn();
  server.routes.set("DELETE /v1/sessions/current", () => good(null));
  const token = account.token("rejected");
  const refused = assert.rejects(token, { code: "unauthenticated" });
  await until("asked", () => server.requests.some(({ name }) => name.endsWith("refresh")));
  await account.signOut();
  await refused;
  assert.equal(store.read(), null);
  await server.close();
});

test("without locks another tab may have been quicker: its session counts, nothing is forgotten", async () => {
  const { server, url, state, store } = await signedIn();
  const used = store.read();
  const late = new Account({ url, store: { read: () => reads.shift() ?? store.read(), write: (session) => store.write(session) }, locks: null });
  const reads: (AccountSession | null)[] = [used, used];
  await new Account({ url, store, locks: null }).token("rejected");
  state.answered.clear();
  assert.equal(await late.token("rejected"), fakeToken("5000000000", "laptop", 1));
  assert.equal(store.read()?.refreshToken, "r1");
  await server.close();
});

test("devices, profile, look-up; a refused access token is renewed once under way", async () => {
  const { server, account } = await signedIn();
  const authorized = (data: unknown) => ({ headers }: { headers: Record<string, unknown> }) =>
    (headers["authorization"] === `Bearer ${fakeToken("5000000000", "laptop", 1)}` ? good(data) : bad(401, "unauthenticated"));
  server.routes.set("GET /v1/devices", authorized([{ device: "laptop", label: "Desk", current: true, created_at: "t", last_seen_at: null }]));
  server.routes.set("DELETE /v1/devices/old%20one", authorized(null));
  server.routes.set("GET /v1/me", authorized({ user: "5000000000", name: "Ann", about: "<b>", phone: "+491511" }));
  server.routes.set("PATCH /v1/me", ({ body }) => good({ user: "5000000000", name: body["name"], about: "" }));
  server.routes.set("GET /v1/users/43", authorized({ user: "43", name: "Bob", about: "" }));
  server.routes.set("POST /v1/contacts/lookup", ({ body }) => (body["phone"] === "+1" ? good({ user: "43", name: "Bob", about: "" }) : bad(404, "not_found")));
  server.routes.set("DELETE /v1/sessions/current", authorized(null));
  assert.deepEqual(await account.devices(), [{ device: "laptop", label: "Desk", current: true, createdAt: "t", lastSeenAt: null }]);
  await account.signOutDevice("old one");
  assert.deepEqual(await account.me(), { user: "5000000000", name: "Ann", about: "<b>", phone: "+491511", createdAt: null });
  assert.equal((await account.updateMe({ name: "Anna" })).name, "Anna");
  assert.equal((await account.profile("43")).name, "Bob");
  assert.deepEqual([(await account.lookup("+1"))?.user, await account.lookup("+2")], ["43", null]);
  await account.signOut();
  assert.equal(account.session, null);
  await server.close();
});

test("a server that is away: temporary; signing out forgets the session all the same", async () => {
  const { server, account, store } = await signedIn();
  await server.close();
  await assert.rejects(account.me(), (thrown) => thrown instanceof ApiError && thrown.code === "network" && thrown.temporary);
  await account.signOut();
  assert.equal(store.read(), null);
});

test("a session store with garbage, or that throws, holds no session", () => {
  const kept = new Map<string, string>([["s", "{broken"]]);
  let full = false;
  const storage = {
    getItem: (name: string) => kept.get(name) ?? null,
    setItem: (name: string, value: string) => { if (full) throw new Error("QuotaExceededError"); kept.set(name, value); },
    removeItem: (name: string) => { kept.delete(name); },
  };
  const store = new WebSessionStore("s", storage);
  assert.equal(store.read(), null);
  for (const text of ["null", "7", "{}", '{"user":"42"}', '{"user":7,"device":"x","accessToken":"a","refreshToken":"b","refreshKey":"c","expiresAt":1,"refreshExpiresAt":1}']) {
    kept.set("s", text);
    assert.equal(store.read(), null, text);
  }
  const session: AccountSession = { user: "42", device: "x", accessToken: "a", refreshToken: "b", refreshKey: "c", expiresAt: 1, refreshExpiresAt: 2 };
  store.write(session);
  assert.deepEqual(new WebSessionStore("s", storage).read(), session);
  full = true;
  store.write({ ...session, accessToken: "new" });
  assert.equal(store.read()?.accessToken, "new", "kept in memory");
  store.write(null);
  assert.equal(store.read(), null);
});
