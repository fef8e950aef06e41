// The account API of a real server in development mode, and a client on such an account.
import { test } from "node:test";
import assert from "node:assert/strict";
import { WebSocket } from "ws";
import { Account, ApiError, Client, MemorySessionStore, MemoryStorage } from "../../src/index.js";
import type { WebSocketClass } from "../../src/index.js";
import { URL_, until } from "./harness.js";

test("register, chat, refresh, look up, log another device out, sign out", async (t) => {
  if ((await fetch(`${URL_}/v1/me`)).status === 404) {
    console.log("SKIPPED: this server has no accounts (/v1/me is 404)");
    t.skip("the server has no accounts");
    return;
  }
  const number = (): string => `+4915${Math.floor(Math.random() * 1e9).toString().padStart(9, "0")}`;
  const signIn = async (phone: string, device: string, name: string) => {
    const store = new MemorySessionStore();
    const account = new Account({ url: URL_, store, locks: null });
    const { devCode } = await account.register(phone);
    assert.ok(devCode, "development mode shows the code");
    return { account, store, ...(await account.verify({ phone, code: devCode, device, deviceLabel: `${name}'s ${device}`, name })) };
  };
  const [annsPhone, bobsPhone] = [number(), number()];
  const [ann, bob] = [await signIn(annsPhone, "laptop", "Ann"), await signIn(bobsPhone, "phone", "Bob")];
  assert.ok(ann.isNew && BigInt(ann.user) >= 2n ** 32n);
  const clients: Client[] = [];
  t.after(async () => { await Promise.all(clients.map((client) => client.close())); });
  const begin = async (account: Account) => {
    const client = new Client({ url: URL_, credentials: account, WebSocket: WebSocket as unknown as WebSocketClass, storage: new MemoryStorage() });
    clients.push(client);
    await client.connect();
    await until("live", () => client.state.name === "live");
    return client;
  };
  const [annClient, bobClient] = [await begin(ann.account), await begin(bob.account)];
  const got: string[] = [];
  bobClient.on("message", ({ text }) => { got.push(text); });
  await annClient.send(`u:${bob.user}`, "hi Bob").accepted;
  await until("got", () => got.includes("hi Bob"));

  assert.deepEqual(await ann.account.lookup(bobsPhone), { user: bob.user, name: "Bob", about: "" });
  assert.equal(await ann.account.lookup(number()), null);
  assert.equal((await bob.account.updateMe({ about: "<b>busy</b>" })).about, "<b>busy</b>");
  assert.equal((await ann.account.profile(bob.user)).about, "<b>busy</b>");
  assert.equal((await ann.account.me()).phone, annsPhone);
  await assert.rejects(bob.account.updateMe({ name: "" }), (thrown) => thrown instanceof ApiError && thrown.field === "name");
  const before = ann.store.read()?.refreshToken;
  // the access token of the same second is the same one
  await ann.account.token("rejected");
  assert.notEqual(ann.store.read()?.refreshToken, before);
  assert.equal((await ann.account.me()).name, "Ann");
  assert.deepEqual((await ann.account.devices()).map(({ device, label, current }) => [device, label, current]), [["laptop", "Ann's laptop", true]]);
  await assert.rejects(ann.account.verify({ phone: annsPhone, code: "000000", device: "x" }), (thrown) => thrown instanceof ApiError && thrown.code === "bad_code");

  await bob.account.signOut();
  await until("Bob is out", () => bobClient.state.reason === "unauthenticated");
  await assert.rejects(bob.account.me(), { code: "unauthenticated" });
});
