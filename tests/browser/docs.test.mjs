// The page to try the API, in Chromium: everything of the document is there, and a person logs in on it. Run beside a server: tests/browser/run
import { test, before, after } from "node:test";
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const URL = process.env.TEST_URL;
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];
const PHONE = "+4915100000077";

let browser, page;
const complaints = [], elsewhere = [];

before(async () => {
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", headless: true, args: FLAGS });
  page = await browser.newPage();
  page.setDefaultTimeout(20_000);
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (line) => { if (line.type() === "error" && !/status of 4/.test(line.text())) complaints.push(line.text()); });
  page.on("request", (request) => { if (!request.url().startsWith(URL) && !request.url().startsWith("data:")) elsewhere.push(request.url()); });
  await page.goto(`${URL}/docs`);
  await page.locator("[data-testid=operations][aria-busy=false]").waitFor();
});
after(async () => { await browser?.close(); });

const operation = (name) => page.getByTestId(name);

/** Sends the form of an operation, and returns its answer. */
async function send(name, body) {
  const part = operation(name);
  if (!(await part.getAttribute("open") !== null)) await part.locator("summary").click();
  if (body) await part.locator("textarea").fill(JSON.stringify(body));
  await part.getByRole("button").click();
  await part.locator(".status", { hasText: /^\d{3}/ }).waitFor();
  return JSON.parse(await part.locator("pre").textContent());
}

test("every operation of the document is on the page", async () => {
  const { paths } = await (await fetch(`${URL}/v1/openapi.json`)).json();
  const wanted = Object.entries(paths).flatMap(([path, item]) => Object.keys(item).map((method) => `${method} ${path}`));
  const shown = await page.locator("details.operation").evaluateAll((all) => all.map((one) => one.dataset.testid));
  assert.deepEqual(shown.sort(), wanted.sort());
});

test("a person logs in on it, and the token is used from then on", async () => {
  const { data: asked } = await send("post /v1/registrations", { phone: PHONE });
  assert.match(asked.dev_code, /^\d{6}$/);
  const { data: session } = await send("post /v1/registrations/verify", { phone: PHONE, code: asked.dev_code, device: "page", name: "<b>Ann</b>" });
  assert.equal(await page.getByTestId("token").inputValue(), session.access_token);
  const { data: me } = await send("get /v1/me");
  assert.deepEqual([me.phone, me.name], [PHONE, "<b>Ann</b>"]);
  assert.equal(await page.locator("pre b").count(), 0, "text, never markup");
  await operation("get /v1/users/{id}").locator("summary").click();
  await operation("get /v1/users/{id}").getByTestId("parameter-id").fill(me.user);
  assert.equal((await send("get /v1/users/{id}")).data.user, me.user);
});

test("nothing broke its policy, and nothing came from elsewhere", () => {
  assert.deepEqual(complaints, []);
  assert.deepEqual(elsewhere, []);
});
