// Two people and a second device at the chat: what one does, by what the others' pages show.
import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { URL_, accepted, browserOf, complaints, control, hasReceipts, launch, line, live, message, newPhone, notLive, openChat, person, say, secondDevice, shows, state, texts,
  ticked, toList, userOf } from "./harness.mjs";

let browser, ann, bob, receipts;

before(async () => {
  browser = await launch();
  [ann, bob] = [await person(browser, "Ann"), await person(browser, "Bob")];
  receipts = await hasReceipts(ann.page, process.env.TEST_TOKEN_42);
  if (!receipts) console.log("NOTE: this server has no receipts (welcome.limits.watch_users is 0): delivered, read, typing, presence and read positions are NOT tested here");
});
after(async () => { await browser?.close(); });

/** Needs a server with receipts; says aloud where there is none. */
const withReceipts = (name, body) => test(name, async (t) => {
  if (!receipts) return t.skip("the server has no receipts yet");
  return body(t);
});
const tickIn = async (page, text) => message(page, text).first().getAttribute("data-state");

test("a chat is begun by the exact phone number; a wrong one finds nobody", async () => {
  const { page } = ann;
  await page.getByTestId("new-chat").click();
  await page.getByTestId("who").fill(newPhone());
  await page.getByTestId("start-chat").click();
  assert.match(await page.getByTestId("who-problem").textContent(), /Nobody/);
  await page.getByTestId("who").fill("Bob");
  await page.getByTestId("start-chat").click();
  assert.match(await page.getByTestId("who-problem").textContent(), /phone number/);
  await page.getByTestId("who").fill(bob.phone.replace(/^\+(..)(...)/, "00$1 $2 / "));
  await page.getByTestId("start-chat").click();
  await page.getByTestId("peer-name").getByText("Bob", { exact: true }).waitFor();
  assert.match(page.url(), new RegExp(`#/c/d:.*${bob.user}`));
});

test("messages go both ways; the list shows the last one and what is unread; the first tick is durability", async () => {
  await say(ann.page, "hello from Ann");
  await accepted(ann.page, "hello from Ann");
  const entry = line(bob.page, ann.user);
  await entry.getByText("hello from Ann").waitFor();
  assert.equal(await entry.getAttribute("data-unread"), "1");
  assert.match(await bob.page.title(), /^\(1\)/);
  await entry.getByTestId("line-name").getByText("Ann", { exact: true }).waitFor();
  await entry.click();
  await shows(bob.page, "hello from Ann");
  assert.equal(await message(bob.page, "hello from Ann").getByTestId("tick").count(), 0, "a tick is for one's own");
  await bob.page.locator("[data-testid=line][data-unread='0']").waitFor();
  await say(bob.page, "hello from Bob");
  await shows(ann.page, "hello from Bob");
  assert.deepEqual(await texts(ann.page), ["hello from Ann", "hello from Bob"]);
  assert.deepEqual(await texts(bob.page), ["hello from Ann", "hello from Bob"]);
});

withReceipts("the three ticks: accepted while the other is away, delivered when it comes, read when it looks", async () => {
  await toList(bob.page);
  await bob.page.goto("about:blank");
  await say(ann.page, "ticks");
  await ticked(ann.page, "ticks", "accepted");
  // nobody is there to take it: it stays so over a whole round of another conversation
  await openChat(ann.page, ann.user);
  await say(ann.page, "a note in between");
  await accepted(ann.page, "a note in between");
  await openChat(ann.page, bob.user);
  assert.equal(await tickIn(ann.page, "ticks"), "accepted");
  await bob.page.goto(`${URL_}/#/`);
  await live(bob.page);
  await ticked(ann.page, "ticks", "delivered");
  assert.equal(await message(ann.page, "ticks").getByTestId("tick").getAttribute("aria-label"), "Delivered");
  await line(bob.page, ann.user).click();
  await shows(bob.page, "ticks");
  await ticked(ann.page, "ticks", "read");
  await ticked(ann.page, "hello from Ann", "read");
});

withReceipts("online, typing, last seen: by what the other page shows", async () => {
  const presence = (page, state) => page.locator(`[data-testid=presence][data-state=${state}]`).waitFor();
  await presence(ann.page, "online");
  await presence(bob.page, "online");
  await bob.page.getByTestId("text").pressSequentially("w");
  await presence(ann.page, "typing");
  await toList(ann.page);
  await bob.page.getByTestId("text").pressSequentially("riting");
  await line(ann.page, bob.user).getByTestId("line-preview").waitFor();
  await openChat(ann.page, bob.user);
  await bob.page.getByTestId("text").press("Enter");
  await shows(ann.page, "writing");
  await presence(ann.page, "online");
  await bob.page.goto("about:blank");
  await presence(ann.page, "offline");
  assert.match(await ann.page.getByTestId("presence").textContent(), /last seen/);
  await bob.page.goto(`${URL_}/#/u/${ann.user}`);
  await live(bob.page);
  await presence(ann.page, "online");
});

test("a reply shows what it answers, and leads there", async () => {
  const answered = message(bob.page, "hello from Ann");
  await answered.hover();
  await answered.getByTestId("reply").click();
  await bob.page.getByTestId("replying").getByText("hello from Ann").waitFor();
  await say(bob.page, "an answer");
  await shows(ann.page, "an answer");
  const quote = message(ann.page, "an answer").getByTestId("quote");
  assert.match(await quote.textContent(), /You.*hello from Ann/);
  await quote.click();
  await ann.page.locator("[data-testid=message].flash", { hasText: "hello from Ann" }).waitFor();
});

test("a second device has everything, live too, and what one reads the other has read", async () => {
  const second = await secondDevice(browser, ann);
  const entry = line(second.page, bob.user);
  await entry.waitFor();
  await openChat(second.page, bob.user);
  await shows(second.page, "an answer");
  assert.deepEqual((await texts(second.page)).slice(-1), ["an answer"]);
  await say(second.page, "from the second device");
  await shows(ann.page, "from the second device");
  await shows(bob.page, "from the second device");
  assert.equal(await message(ann.page, "from the second device").getAttribute("data-state").then((tick) => tick !== "received"), true, "one's own on all devices");
  if (receipts) {
    await Promise.all([toList(ann.page), toList(second.page)]);
    await say(bob.page, "read it once");
    await line(ann.page, bob.user).and(ann.page.locator("[data-unread='1']")).waitFor();
    await line(second.page, bob.user).and(second.page.locator("[data-unread='1']")).waitFor();
    await openChat(second.page, bob.user);
    await line(ann.page, bob.user).and(ann.page.locator("[data-unread='0']")).waitFor();
    await ticked(bob.page, "read it once", "read");
    await openChat(ann.page, bob.user);
  }
  await second.context.close();
});

test("a reload in mid-send, at many moments: exactly one message each, in order", { timeout: 120_000 }, async () => {
  const wanted = [];
  for (let i = 0; i < 8; i += 1) {
    const text = `reload ${i}`;
    const field = ann.page.getByTestId("text");
    await field.fill(text);
    await field.press("Enter");
    // from not even stored to accepted
    if (i % 4 === 1) await ann.page.waitForTimeout(i);
    if (i % 4 === 2) await message(ann.page, text).waitFor();
    if (i % 4 === 3) await accepted(ann.page, text);
    await ann.page.reload();
    await live(ann.page);
    await accepted(ann.page, text);
    assert.equal(await ann.page.getByTestId("text").inputValue(), "");
    wanted.push(text);
  }
  for (const text of wanted) await shows(bob.page, text);
  for (const { page } of [ann, bob]) assert.deepEqual((await texts(page)).filter((text) => text.startsWith("reload")), wanted);
});

test("a reload before the outbox has it: the page still does", async () => {
  // the answer to "am I still the writer?" never comes, so nothing gets into the outbox, and nothing goes out
  await ann.page.evaluate(() => {
    const get = IDBObjectStore.prototype.get;
    IDBObjectStore.prototype.get = function (key) {
      const request = get.call(this, key);
      if (this.transaction.mode === "readwrite") Object.defineProperty(request, "onsuccess", { set: () => {} });
      return request;
    };
  });
  await say(ann.page, "never stored");
  await message(ann.page, "never stored").waitFor();
  assert.equal(await tickIn(ann.page, "never stored"), "waiting");
  await ann.page.reload();
  await accepted(ann.page, "never stored");
  await shows(bob.page, "never stored");
  for (const { page } of [ann, bob]) assert.equal((await texts(page)).filter((text) => text === "never stored").length, 1);
});

test("network off and on: said, kept, sent once, and what was missed comes", async () => {
  await ann.context.setOffline(true);
  await notLive(ann.page);
  await ann.page.getByTestId("connection").getByText(/sent later/).waitFor();
  await say(ann.page, "written offline");
  assert.equal(await tickIn(ann.page, "written offline"), "waiting");
  await say(bob.page, "said meanwhile");
  await accepted(bob.page, "said meanwhile");
  await ann.context.setOffline(false);
  await live(ann.page);
  await accepted(ann.page, "written offline");
  await shows(ann.page, "said meanwhile");
  await shows(bob.page, "written offline");
  for (const { page } of [ann, bob]) {
    const all = (await texts(page)).filter((text) => /offline|meanwhile/.test(text));
    assert.deepEqual(all, ["said meanwhile", "written offline"]);
  }
});

test("SIGKILL and restart: both come back; what was written meanwhile appears once, in order", async () => {
  await control("kill");
  await Promise.all([notLive(ann.page), notLive(bob.page)]);
  for (const n of [1, 2, 3]) await say(ann.page, `while down ${n}`);
  assert.equal(await tickIn(ann.page, "while down 1"), "waiting");
  await control("start");
  await Promise.all([live(ann.page), live(bob.page)]);
  for (const n of [1, 2, 3]) { await shows(bob.page, `while down ${n}`); await accepted(ann.page, `while down ${n}`); }
  await say(bob.page, "and we go on");
  await shows(ann.page, "and we go on");
  const wanted = ["while down 1", "while down 2", "while down 3", "and we go on"];
  for (const { page } of [ann, bob]) {
    const all = await texts(page);
    assert.deepEqual(all.slice(-4), wanted);
    assert.equal(new Set(all).size, all.length, "each once");
  }
});

test("written while the server is down, then loaded anew, still down: the page opens, shows what it knew and what waits, and it goes out once", async () => {
  await control("kill");
  await notLive(ann.page);
  await say(ann.page, "kept over the reload");
  await message(ann.page, "kept over the reload").waitFor();
  await ann.page.waitForFunction(() => navigator.serviceWorker?.controller !== null);
  await ann.page.reload();
  await ann.page.getByTestId("text").waitFor();
  await shows(ann.page, "and we go on");
  await shows(ann.page, "kept over the reload");
  assert.equal(await tickIn(ann.page, "kept over the reload"), "waiting");
  await control("start");
  await live(ann.page);
  await accepted(ann.page, "kept over the reload");
  await live(bob.page);
  await shows(bob.page, "kept over the reload");
  assert.equal(await message(bob.page, "kept over the reload").count(), 1);
  assert.equal(await message(ann.page, "kept over the reload").count(), 1);
});

test("one who was away finds what was said, unread, behind a line", async () => {
  await toList(bob.page);
  await bob.page.goto("about:blank");
  for (const n of [1, 2]) await say(ann.page, `away ${n}`);
  await accepted(ann.page, "away 2");
  await bob.page.goto(`${URL_}/#/`);
  await live(bob.page);
  await line(bob.page, ann.user).and(bob.page.locator("[data-unread='2']")).click();
  await shows(bob.page, "away 2");
  await bob.page.getByText("New messages").waitFor();
  assert.equal(await message(bob.page, "away 1").count(), 1);
});

test("two tabs of one browser: one works, the other says so and can take over", async () => {
  const copy = await bob.context.newPage();
  await copy.goto(`${URL_}/#/u/${ann.user}`);
  await state(copy, "elsewhere");
  assert.equal(await copy.getByTestId("text").isDisabled(), true);
  await copy.getByTestId("use-here").click();
  await live(copy);
  await state(bob.page, "elsewhere");
  await say(copy, "from the other tab");
  await shows(ann.page, "from the other tab");
  await copy.close();
  await live(bob.page);
  await openChat(bob.page, ann.user);
  await shows(bob.page, "from the other tab");
  assert.equal(await message(bob.page, "from the other tab").count(), 1);
});

test("a token from the command line is a way in; a bad one is said to be bad, and none is in the address", async () => {
  const context = await browserOf(browser, { label: "token" });
  const page = await context.newPage();
  await page.goto(URL_);
  await page.getByTestId("by-token").click();
  await page.getByTestId("token").fill("not.a.token");
  await page.getByTestId("use-token").click();
  await page.getByTestId("sign-in-problem").waitFor();
  await page.getByTestId("token").fill(process.env.TEST_TOKEN_42);
  await page.getByTestId("use-token").click();
  await live(page);
  await openChat(page, "43");
  await say(page, "by token");
  await accepted(page, "by token");
  await page.reload();
  await live(page);
  await shows(page, "by token");
  assert.doesNotMatch(page.url(), /eyJ/);
  await context.close();
});

test("the address of a user opens the chat; a code that is wrong is said to be wrong", async () => {
  const context = await browserOf(browser, { label: "code" });
  const page = await context.newPage();
  await page.goto(`${URL_}/#/u/${ann.user}`);
  await page.getByTestId("phone").fill("12345");
  await page.getByTestId("ask-code").click();
  assert.match(await page.getByTestId("sign-in-problem").textContent(), /country/);
  await page.getByTestId("phone").fill(newPhone());
  await page.getByTestId("ask-code").click();
  const right = await page.getByTestId("dev-code").textContent();
  await page.getByTestId("code").fill(right === "000000" ? "000001" : "000000");
  assert.match(await page.getByTestId("sign-in-problem").textContent(), /wrong/);
  await page.getByTestId("code").fill(right);
  await page.getByTestId("name").fill("Carol");
  await page.getByTestId("save-name").click();
  await live(page);
  await page.getByTestId("peer-name").getByText("Ann", { exact: true }).waitFor();
  await say(page, "hello from Carol");
  await line(ann.page, await userOf(page)).getByTestId("line-name").getByText("Carol", { exact: true }).waitFor();
  await context.close();
});

test("nothing complained", () => assert.deepEqual(complaints, []));
