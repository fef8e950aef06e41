// IndexedDB, reloads, tabs and the network of a browser. Run beside a server: web/client/run-tests browser
import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import type { Browser, Page } from "playwright-core";
import { begin, control, holds, launch, profile, reload, seen, state, tab } from "./harness.js";

let browser: Browser;
let reader: Page;
before(async () => {
  browser = await launch();
  reader = await tab(await profile(browser));
  await begin(reader, "43", "reader");
  await state(reader, "live");
});
after(async () => { await browser?.close(); });

const arrived = async (prefix: string): Promise<string[]> => (await seen(reader)).got.filter((text) => text.startsWith(prefix));
const readerHas = (prefix: string, count: number): Promise<unknown> => holds(reader, `seen.got.filter((text) => text.startsWith(${JSON.stringify(prefix)})).length >= ${count}`);

test("the token goes in a sub-protocol entry; cursor and outbox are in IndexedDB and survive a reload", async () => {
  const page = await tab(await profile(browser));
  const urls: string[] = [];
  page.on("websocket", (socket) => urls.push(socket.url()));
  await begin(page, "42", "basic");
  await state(page, "live");
  await page.evaluate(`client.send("u:43", "basic 1").accepted`);
  await readerHas("basic", 1);
  await holds(page, `seen.got.length === 1 && client.pending().length === 0`);
  assert.ok(urls.length === 1 && !/eyJ|token/.test(urls[0] ?? ""), "no token in the URL");
  await holds(page, `new Promise((resolve) => { indexedDB.open("switchboard").onsuccess = ({ target }) => {
    const get = target.result.transaction("meta").objectStore("meta").getAll();
    get.onsuccess = () => { target.result.close(); resolve(get.result.some((value) => value?.seq === 1)); }; }; })`);
  await reload(page);
  await begin(page, "42", "basic");
  await state(page, "live");
  await page.evaluate(`client.send("u:43", "basic 2").accepted`);
  await holds(page, `seen.got.length === 1`);
  assert.deepEqual([(await seen(page)).got, (await seen(page)).problems], [["basic 2"], []]);
  await page.context().close();
});

test("reload in mid-send, at many moments: exactly one message each", { timeout: 120_000 }, async () => {
  const page = await tab(await profile(browser));
  await begin(page, "42", "reload");
  await state(page, "live");
  const stored: string[] = [];
  for (let i = 0; i < 14; i += 1) {
    const texts = [0, 1, 2].map((n) => `reload ${String(i).padStart(2, "0")}.${n}`);
    // up to: stored · sent · answered · some time later
    const moment = ["all.at(-1).stored", "all[0].accepted", "all.at(-1).accepted", `all.at(-1).stored.then(() => new Promise((go) => setTimeout(go, ${i})))`][i % 4];
    await page.evaluate(`(() => { const all = ${JSON.stringify(texts)}.map((text) => client.send("u:43", text)); return Promise.all([all.at(-1).stored, ${moment}]).then(() => {}); })()`);
    stored.push(...texts);
    await reload(page);
    await begin(page, "42", "reload");
  }
  await state(page, "live");
  await holds(page, "client.pending().length === 0");
  await readerHas("reload", stored.length);
  await page.evaluate(`client.send("u:43", "reload end").accepted`);
  await readerHas("reload end", 1);
  assert.deepEqual(await arrived("reload"), [...stored, "reload end"]);
  await page.context().close();
});

test("written while the server is away, then reloaded: shown as pending, sent once it is back", async () => {
  const page = await tab(await profile(browser));
  await begin(page, "42", "down");
  await state(page, "live");
  await control("kill");
  await state(page, "waiting");
  await page.evaluate(`client.send("u:43", "down 1", { replyTo: { from: "43", id: "01932f6e-5c1e-7c3a-9d4e-1f2a3b4c5d6e" } }).stored`);
  await reload(page);
  await begin(page, "42", "down");
  await holds(page, `client.pending().length === 1`);
  assert.deepEqual(await page.evaluate(`client.pending().map(({ text, state, conversation, replyTo }) => [text, state, conversation, replyTo])`),
    [["down 1", "queued", "d:42:43", { from: "43", id: "01932f6e-5c1e-7c3a-9d4e-1f2a3b4c5d6e" }]]);
  await control("start");
  await readerHas("down", 1);
  await holds(page, "client.pending().length === 0");
  assert.deepEqual(await arrived("down"), ["down 1"]);
  await page.context().close();
});

test("network off and on: noticed, kept, sent once, and what was missed comes", async () => {
  const page = await tab(await profile(browser));
  await begin(page, "42", "offline");
  await state(page, "live");
  await page.context().setOffline(true);
  await state(page, "waiting");
  await page.evaluate(`client.send("u:43", "offline 1").stored`);
  await reader.evaluate(`client.send("u:42", "meanwhile").accepted`);
  await page.context().setOffline(false);
  await state(page, "live");
  await readerHas("offline", 1);
  await holds(page, `seen.got.includes("meanwhile")`);
  assert.deepEqual(await arrived("offline"), ["offline 1"]);
  assert.equal((await seen(page)).got.filter((text) => text === "meanwhile").length, 1);
  await page.context().close();
});

test("several tabs of one device: one works, the others wait; useHere takes it over; a closed tab leaves it to the next", async () => {
  const context = await profile(browser);
  const [one, two] = [await tab(context), await tab(context)];
  await begin(one, "42", "tabs");
  await state(one, "live");
  await begin(two, "42", "tabs");
  await state(two, "elsewhere");
  assert.match(String(await two.evaluate(`(() => { try { client.send("u:43", "no"); } catch (error) { return error.code; } })()`)), /elsewhere/);
  await control("kill");
  await state(one, "waiting");
  await one.evaluate(`Promise.all([1, 2, 3].map((n) => client.send("u:43", "tabs " + n).stored)).then(() => {})`);
  await two.evaluate("client.useHere()");
  await state(one, "elsewhere");
  await holds(two, "client.pending().length === 3");
  await control("start");
  await state(two, "live");
  await two.evaluate(`client.send("u:43", "tabs 4").accepted`);
  await readerHas("tabs", 4);
  await holds(two, `seen.got.includes("tabs 4")`);
  await one.evaluate(`window.resyncs = []; client.on("resync", ({ reason }) => { resyncs.push(reason); });`);

  await two.close();
  await state(one, "live");
  assert.deepEqual(await one.evaluate("resyncs"), ["elsewhere"]);
  await one.evaluate(`client.send("u:43", "tabs 5").accepted`);
  await readerHas("tabs", 5);
  assert.deepEqual(await arrived("tabs"), [1, 2, 3, 4, 5].map((n) => `tabs ${n}`));
  assert.deepEqual((await seen(one)).problems, []);
  await context.close();
});

test("a tab that does not answer: the device is taken from it, and it stops when it wakes", async () => {
  const context = await profile(browser);
  const [one, two] = [await tab(context), await tab(context)];
  await begin(one, "42", "frozen");
  await state(one, "live");
  await begin(two, "42", "frozen");
  await state(two, "elsewhere");
  const frozen = one.evaluate(`(() => { const until = Date.now() + 5000; while (Date.now() < until); })()`);
  await two.evaluate("client.useHere()");
  await state(two, "live");
  await frozen;
  await state(one, "elsewhere");
  await two.evaluate(`client.send("u:43", "frozen 1").accepted`);
  await readerHas("frozen", 1);
  await context.close();
});

/** What a storage may be found as, and whether what was kept is usable. */
const IMAGES: Record<string, { readonly break: string; readonly says: RegExp }> = {
  "a cursor and an outbox of garbage": {
    break: `const meta = store("meta"), outbox = store("outbox");
      meta.put({ epoch: 7, seq: "many" }, [key, "place"]); meta.put([1, 2], [key, "rev"]); meta.put("x", [key, "reads"]); meta.put({}, [key, "writer"]);
      outbox.put("garbage", [key, "1"]); outbox.put({ order: 1, id: "x", to: 43 }, [key, "2"]); outbox.put({ order: 2, id: "01932f6e-5c1e-7c3a-9d4e-1f2a3b4c5d6e", to: "u:43" }, [key, "3"]);`,
    says: /left out what was broken: cursor, revision of receipts, read positions, 3 of 3 messages/,
  },
  "half of an entry": { break: `store("outbox").put({ order: 9, id: "01932f6e-5c1e-7c3a-9d4e-1f2a3b4c5d6e", to: "u:43", kind: "text" }, [key, "x"]);`, says: /1 of 1 messages/ },
};

async function withDatabase(page: Page, device: string, body: string): Promise<void> {
  await page.evaluate(`new Promise((resolve, reject) => {
    const key = location.origin + " 42 ${device}";
    const open = indexedDB.open("switchboard");
    open.onerror = () => reject(open.error);
    open.onsuccess = () => {
      const tx = open.result.transaction(["meta", "outbox"], "readwrite");
      const store = (name) => tx.objectStore(name);
      ${body}
      tx.oncomplete = () => { open.result.close(); resolve(); };
      tx.onabort = () => reject(tx.error);
    };
  })`);
}

for (const [name, image] of Object.entries(IMAGES)) {
  test(`a broken image: ${name}`, async () => {
    const page = await tab(await profile(browser));
    const device = `image-${Object.keys(IMAGES).indexOf(name)}`;
    await begin(page, "42", device, `{ from: "present" }`);
    await state(page, "live");
    await page.evaluate(`client.send("u:43", "${device} before").accepted`);
    await holds(page, `seen.got.length === 1`);
    await page.evaluate("client.close()");
    await withDatabase(page, device, image.break);
    await reload(page);
    await begin(page, "42", device, `{ from: "present" }`);
    await state(page, "live");
    await page.evaluate(`client.send("u:43", "${device} after").accepted`);
    await readerHas(device, 2);
    await holds(page, `seen.got.includes("${device} after")`);
    const { problems, got } = await seen(page);
    assert.match(problems.join("\n"), image.says);
    assert.deepEqual(await arrived(device), [`${device} before`, `${device} after`], "what was settled is not sent again");
    assert.ok(got.length <= 2, "on from the server's record of the device");
    await page.evaluate("client.close()");
    await begin(page, "42", device, `{ from: "present" }`);
    await state(page, "live");
    assert.deepEqual((await seen(page)).problems, image.says.source.includes("messages") ? (await seen(page)).problems : [], "mended");
    await page.context().close();
  });
}

/** Databases that cannot be used: prepared before the client opens them. */
const DATABASES: Record<string, { readonly prepare: string; readonly says: RegExp; readonly survives: boolean }> = {
  "an older schema: stores that are not there": {
    prepare: `await new Promise((go) => { const open = indexedDB.open("switchboard", 1); open.onupgradeneeded = () => open.result.createObjectStore("cursors"); open.onsuccess = () => { open.result.close(); go(); }; });`,
    says: /what was kept is lost: no store meta/, survives: true,
  },
  "stores that are keyed otherwise": {
    prepare: `await new Promise((go) => { const open = indexedDB.open("switchboard", 1); open.onupgradeneeded = () => { open.result.createObjectStore("meta", { keyPath: "id" }); open.result.createObjectStore("outbox", { autoIncrement: true }); }; open.onsuccess = () => { open.result.close(); go(); }; });`,
    says: /what was kept is lost: store meta has other keys/, survives: true,
  },
  "a newer version": {
    prepare: `await new Promise((go) => { const open = indexedDB.open("switchboard", 9); open.onsuccess = () => { open.result.close(); go(); }; });`,
    says: /nothing will survive a reload: VersionError/, survives: false,
  },
  "one that another page blocks": {
    prepare: `await new Promise((go) => { const open = indexedDB.open("switchboard", 1); open.onupgradeneeded = () => open.result.createObjectStore("cursors"); open.onsuccess = () => { window.kept = open.result; go(); }; });`,
    says: /nothing will survive a reload: Error: blocked/, survives: false,
  },
  "one that is switched off": {
    prepare: `Object.defineProperty(window, "indexedDB", { value: { open: () => { throw new DOMException("denied", "SecurityError"); } } });`,
    says: /nothing will survive a reload: SecurityError/, survives: false,
  },
  "one that never answers": {
    prepare: `Object.defineProperty(window, "indexedDB", { value: { open: () => ({}) } });`,
    says: /nothing will survive a reload: Error: IndexedDB does not answer/, survives: false,
  },
  "one that is full": {
    prepare: `IDBObjectStore.prototype.put = new Proxy(IDBObjectStore.prototype.put, { apply(put, store, args) { if (args[1]?.[1] === "writer") return Reflect.apply(put, store, args); throw new DOMException("full", "QuotaExceededError"); } });`,
    says: /cannot be written now: QuotaExceededError/, survives: false,
  },
};

for (const [name, { prepare, says, survives }] of Object.entries(DATABASES)) {
  test(`a database that cannot be used: ${name}`, async () => {
    const page = await tab(await profile(browser));
    const device = `db-${Object.keys(DATABASES).indexOf(name)}`;
    await page.evaluate(`(async () => { ${prepare} })()`);
    await begin(page, "42", device, `{ from: "present" }`);
    await state(page, "live");
    await page.evaluate(`client.send("u:43", "${device} 1").accepted`);
    await readerHas(device, 1);
    await holds(page, `seen.got.includes("${device} 1")`);
    assert.match((await seen(page)).problems.join("\n"), says);
    await reload(page);
    await begin(page, "42", device, `{ from: "present" }`);
    await state(page, "live");
    await page.evaluate(`client.send("u:43", "${device} 2").accepted`);
    await readerHas(device, 2);
    if (survives) assert.deepEqual((await seen(page)).problems, []);
    assert.deepEqual(await arrived(device), [`${device} 1`, `${device} 2`]);
    await page.context().close();
  });
}

test("a database that is closed under a running client is opened again", async () => {
  const page = await tab(await profile(browser));
  await page.evaluate(`(() => { const open = indexedDB.open; window.opened = []; indexedDB.open = function (...args) { const request = open.apply(this, args); request.addEventListener("success", () => opened.push(request.result)); return request; }; })()`);
  await begin(page, "42", "closed");
  await state(page, "live");
  await page.evaluate(`opened.forEach((database) => database.close())`);
  await page.evaluate(`client.send("u:43", "closed 1").accepted`);
  await readerHas("closed", 1);
  assert.deepEqual([(await seen(page)).problems, await page.evaluate("opened.length")], [[], 2]);
  await page.context().close();
});

test("whoever opened the storage before writes nothing any more, and a change is written as a whole or not at all", async () => {
  const page = await tab(await profile(browser));
  const found = await page.evaluate(`(async () => {
    const storage = new lib.IndexedDbStorage();
    const entry = (id) => ({ order: 1, id, to: "u:43", kind: "text", body: { text: id } });
    const [older, newer] = [await storage.open("k"), await storage.open("k")];
    const other = await storage.open("k2");
    await other.write({ put: [entry("of another device")], remove: [] });
    await newer.write({ put: [entry("a")], remove: [], place: { epoch: "1", seq: 7 } });
    const fenced = await older.write({ put: [entry("b")], remove: ["a"] }).catch((error) => error.name);
    const halved = await newer.write({ put: [entry("c"), { ...entry("d"), body: { text: () => {} } }], remove: ["a"], place: { epoch: "1", seq: 8 } }).catch((error) => error.name);
    const { outbox, place } = await newer.load();
    return [fenced, halved, outbox.map((one) => one.id), place];
  })()`);
  assert.deepEqual(found, ["FencedError", "DataCloneError", ["a"], { epoch: "1", seq: 7 }]);
  await page.context().close();
});

test("one refresh of the session between two tabs", async () => {
  const context = await profile(browser);
  // as the server does: one key, one answer. What one tab writes into localStorage reaches a tab of another process a moment later, so that the second
  // one may still see the old session when it gets the lock, and asks again with its key.
  const keys: string[] = [];
  await context.route("**/v1/sessions/refresh", async (route) => {
    const key = route.request().headers()["idempotency-key"] ?? "none";
    if (!keys.includes(key)) keys.push(key);
    const number = keys.indexOf(key) + 1;
    await new Promise((resolve) => { setTimeout(resolve, 100); });
    const at = new Date(Date.now() + 3_600_000).toISOString();
    await route.fulfill({ json: { success: true, data: { user: "42", device: "d", access_token: `new-${number}`, expires_at: at, refresh_token: `r${number}`, refresh_expires_at: at } } });
  });
  const [one, two] = [await tab(context), await tab(context)];
  await one.evaluate(`new lib.WebSessionStore().write({ user: "42", device: "d", accessToken: "old", expiresAt: 1, refreshToken: "r0", refreshExpiresAt: Date.now() + 1e9, refreshKey: "k" })`);
  const tokens = await Promise.all([one, two, one].map((page) => page.evaluate(`new lib.Account().token("connect")`)));
  assert.deepEqual([tokens, keys], [["new-1", "new-1", "new-1"], ["k"]]);
  await context.close();
});
