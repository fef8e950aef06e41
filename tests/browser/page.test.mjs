// Two people in two tabs of Chromium, on the page the server serves. Run beside a server: tests/browser/run
import { test, before, after } from "node:test";
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const URL = process.env.TEST_URL;
const WAIT_MS = 20_000;
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];

let browser, ann, bob;
const complaints = [];

async function control(action) {
  const answer = await fetch(`${process.env.TEST_CONTROL}/${action}`, { method: "POST" });
  assert.ok(answer.ok, await answer.text());
}

/** One person: a context of its own (its own sessionStorage), as another browser would be. */
async function person(me, to) {
  const context = await browser.newContext();
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS);
  page.on("pageerror", (error) => complaints.push(`${me}: ${error}`));
  page.on("console", (line) => { if (/Content.Security.Policy/i.test(line.text())) complaints.push(`${me}: ${line.text()}`); });
  await page.goto(`${URL}/#me=${me}&to=${to}`);
  await live(page);
  return page;
}

const live = (page) => page.locator('[data-testid=state][data-state=live]').waitFor();
const say = async (page, text) => { await page.getByTestId("text").fill(text); await page.getByTestId("text").press("Enter"); };
const texts = (page) => page.getByTestId("message-text").allTextContents();
const message = (page, text) => page.getByTestId("message").filter({ has: page.getByTestId("message-text").getByText(text, { exact: true }) });
const shows = (page, text) => message(page, text).first().waitFor();
const accepted = (page, text) => page.locator('[data-testid=message][data-state=accepted]', { hasText: text }).first().waitFor();

before(async () => {
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", headless: true, args: FLAGS });
  [ann, bob] = [await person(42, 43), await person(43, 42)];
});
after(async () => { await browser?.close(); });

test("the page comes under its strict policy", async () => {
  const answer = await fetch(URL);
  assert.equal(answer.status, 200);
  assert.match(answer.headers.get("content-security-policy") ?? "", /default-src 'none'.*script-src 'self'/);
});

test("messages go both ways, with their ticks", async () => {
  await say(ann, "hello from Ann");
  await shows(bob, "hello from Ann");
  await accepted(ann, "hello from Ann");
  assert.match(await message(ann, "hello from Ann").getByTestId("tick").textContent(), /accepted/);
  assert.equal(await message(bob, "hello from Ann").getByTestId("tick").count(), 0, "a tick is for one's own");
  await say(bob, "hello from Bob");
  await shows(ann, "hello from Bob");
  await accepted(bob, "hello from Bob");
  assert.deepEqual(await texts(ann), ["hello from Ann", "hello from Bob"]);
  assert.deepEqual(await texts(bob), ["hello from Ann", "hello from Bob"]);
});

test("what people write is text, never markup", async () => {
  const nasty = "<img src=x onerror=\"document.title='pwned'\"><b>bold</b> & co";
  await say(ann, nasty);
  await shows(bob, nasty);
  assert.equal(await bob.locator("[data-testid=messages] img, [data-testid=messages] b").count(), 0);
  assert.notEqual(await bob.title(), "pwned");
});

test("a reload in the middle shows the history, once", async () => {
  const had = await texts(bob);
  await bob.reload();
  await live(bob);
  await shows(bob, "hello from Bob");
  assert.deepEqual(await texts(bob), had);
  await say(ann, "after the reload");
  await shows(bob, "after the reload");
  assert.deepEqual(await texts(bob), [...had, "after the reload"]);
});

test("SIGKILL and restart: both come back; what was written meanwhile appears once, in order", async () => {
  await control("kill");
  await ann.locator('[data-testid=state]:not([data-state=live])').waitFor();
  await bob.locator('[data-testid=state]:not([data-state=live])').waitFor();
  for (const text of ["while down 1", "while down 2", "while down 3"]) await say(ann, text);
  assert.equal(await message(ann, "while down 1").getAttribute("data-state"), "pending");
  await control("start");
  await Promise.all([live(ann), live(bob)]);
  for (const text of ["while down 1", "while down 2", "while down 3"]) { await shows(bob, text); await accepted(ann, text); }
  await say(bob, "and we go on");
  await shows(ann, "and we go on");
  const wanted = ["while down 1", "while down 2", "while down 3", "and we go on"];
  assert.deepEqual((await texts(bob)).slice(-4), wanted);
  assert.deepEqual((await texts(ann)).slice(-4), wanted);
  for (const page of [ann, bob]) { const all = await texts(page); assert.equal(new Set(all).size, all.length, "each once"); }
});

test("written while the server is down, then the tab reloaded: the outbox survives and goes out once", async () => {
  await control("kill");
  await ann.locator('[data-testid=state]:not([data-state=live])').waitFor();
  await say(ann, "kept in the tab");
  await control("start");
  await ann.reload();
  await live(ann);
  await accepted(ann, "kept in the tab");
  await live(bob);
  await shows(bob, "kept in the tab");
  assert.equal(await message(bob, "kept in the tab").count(), 1);
  assert.equal(await message(ann, "kept in the tab").count(), 1);
});

test("one who was away gets what was sent meanwhile, once", async () => {
  await bob.goto("about:blank");
  await say(ann, "while you were away");
  await accepted(ann, "while you were away");
  await bob.goto(`${URL}/#me=43&to=42`);
  await live(bob);
  await shows(bob, "while you were away");
  assert.equal(await message(bob, "while you were away").count(), 1);
});

test("the same tab's device elsewhere: the older page stops and says so", async () => {
  const copy = await bob.context().newPage();
  const kept = await bob.evaluate(() => JSON.stringify({ ...sessionStorage }));
  await copy.addInitScript((text) => { for (const [name, value] of Object.entries(JSON.parse(text))) sessionStorage.setItem(name, value); }, kept);
  await copy.goto(`${URL}/#me=43&to=42`);
  await live(copy);
  await bob.locator('[data-testid=state][data-state=stopped]').waitFor();
  assert.match(await bob.getByTestId("note").textContent(), /4409/);
  await copy.close();
});

test("a server that gives out no tokens: the page asks for one, refuses a bad one, and keeps it out of the address", async () => {
  const context = await browser.newContext();
  await context.route("**/dev/token", (route) => route.fulfill({ status: 404 }));
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS);
  await page.goto(`${URL}/#me=42&to=43`);
  await page.getByTestId("token").fill(process.env.TEST_TOKEN_42);
  await page.getByTestId("token").press("Enter");
  await live(page);
  await shows(page, "hello from Bob");
  assert.equal(page.url(), `${URL}/#me=42&to=43`);
  await page.reload();
  await live(page);
  await context.close();

  const other = await browser.newContext();
  await other.route("**/dev/token", (route) => route.fulfill({ status: 404 }));
  const refused = await other.newPage();
  refused.setDefaultTimeout(WAIT_MS);
  await refused.goto(`${URL}/#me=42&to=43`);
  await refused.getByTestId("token").fill("not.a.token");
  await refused.getByTestId("token").press("Enter");
  // Thrown away, and asked for again.
  await refused.waitForFunction(() => sessionStorage.getItem("switchboard.token.42") === null && !document.getElementById("token-form").hidden,
    undefined, { timeout: WAIT_MS });
  await other.close();
});

test("a phone's width needs no sideways scrolling, and nothing complained", async () => {
  await ann.setViewportSize({ width: 360, height: 640 });
  assert.ok(await ann.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  if (process.env.SCREENSHOT) await ann.screenshot({ path: process.env.SCREENSHOT });
  assert.deepEqual(complaints, []);
});
