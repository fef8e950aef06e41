// People at the web chat, in Chromium, beside a server of their own. Run by tests/browser/run
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

export const URL_ = process.env.TEST_URL;
export const WAIT_MS = 20_000;
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];

export const DESKTOP = { width: 1280, height: 800 };
export const PHONE = { width: 390, height: 780 };

/** What pages complained about: a test that ends well has none. */
export const complaints = [];

export const launch = () => chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", headless: true, args: FLAGS });

export async function control(action) {
  const answer = await fetch(`${process.env.TEST_CONTROL}/${action}`, { method: "POST" });
  assert.ok(answer.ok, await answer.text());
}

/** A browser of its own, as another machine would be: its own storage, its own network. */
export async function browserOf(browser, { label = "page", viewport = DESKTOP, ...more } = {}) {
  const context = await browser.newContext({ viewport, locale: "en-GB", ...more });
  context.setDefaultTimeout(WAIT_MS);
  context.on("weberror", ({ error }) => complaints.push(`${label}: ${error().stack}`));
  context.on("console", (line) => { if (/Content.Security.Policy|TrustedScript|Unhandled/i.test(line.text())) complaints.push(`${label}: ${line.text()}`); });
  return context;
}

let numbers = 1_000_000 + Math.floor(Math.random() * 8_000_000);
/** A number nobody has registered. */
export const newPhone = () => `+4915${numbers++}`;

/** Signs in on this page by phone and code, the code as development mode shows it. `name`: for a new account. */
export async function signIn(page, phone, name = null) {
  await page.getByTestId("phone").fill(phone);
  await page.getByTestId("phone").press("Enter");
  const code = await page.getByTestId("dev-code").textContent();
  await page.getByTestId("code").fill(code);
  if (name !== null) {
    await page.getByTestId("name").fill(name);
    await page.getByTestId("name").press("Enter");
  }
  await live(page);
}

/** Somebody with a new account, at the chat. */
export async function person(browser, name, more = {}) {
  const context = await browserOf(browser, { label: name, ...more });
  const page = await context.newPage();
  await page.goto(URL_);
  const phone = newPhone();
  await signIn(page, phone, name);
  return { name, phone, context, page, user: await userOf(page) };
}

/** The same person at another device. */
export async function secondDevice(browser, { phone, name }, more = {}) {
  const context = await browserOf(browser, { label: `${name} 2`, ...more });
  const page = await context.newPage();
  await page.goto(URL_);
  await signInAgain(page, phone);
  return { name, phone, context, page };
}

/** A number that has just had a code gets the next one after a second: asks until it does. */
export async function signInAgain(page, phone) {
  await page.getByTestId("phone").fill(phone);
  await page.waitForFunction(async () => {
    if (document.querySelector("[data-testid=code]") !== null) return true;
    document.querySelector("[data-testid=ask-code]")?.click();
    return false;
  }, undefined, { polling: 400 });
  await page.getByTestId("code").fill(await page.getByTestId("dev-code").textContent());
  await live(page);
}

/** Who is signed in, from where the page keeps it. */
export const userOf = (page) => page.evaluate(() => JSON.parse(localStorage.getItem("switchboard.session")).user);

export const state = (page, name) => page.locator(`[data-testid=connection][data-state=${name}]`).waitFor({ state: "attached" });
export const live = (page) => state(page, "live");
export const notLive = (page) => page.locator("[data-testid=connection]:not([data-state=live])").waitFor({ state: "attached" });

/** Opens the chat with a user by the address, as a link would. */
export async function openChat(page, user) {
  await page.evaluate((hash) => { location.hash = hash; }, `#/u/${user}`);
  await page.getByTestId("text").waitFor();
}
export const toList = async (page) => { await page.evaluate(() => { location.hash = "#/"; }); await page.getByTestId("list").waitFor(); };

export const say = async (page, text) => { await page.getByTestId("text").fill(text); await page.getByTestId("text").press("Enter"); };
export const texts = (page) => page.getByTestId("message-text").allTextContents();
export const message = (page, text) => page.getByTestId("message").filter({ has: page.getByTestId("message-text").getByText(text, { exact: true }) });
export const shows = (page, text) => message(page, text).first().waitFor();
/** One's own message has come so far: accepted, delivered or read. */
export const ticked = (page, text, tick) => page.locator(`[data-testid=message][data-state=${tick}]`, { has: page.getByTestId("message-text").getByText(text, { exact: true }) }).first().waitFor();
/** At least durable. */
export const accepted = (page, text) => page.locator("[data-testid=message]:is([data-state=accepted],[data-state=delivered],[data-state=read])",
  { has: page.getByTestId("message-text").getByText(text, { exact: true }) }).first().waitFor();
export const line = (page, user) => page.locator("[data-testid=line]", { hasNot: page.locator("x-none") }).filter({ has: page.locator(`xpath=self::*[contains(concat(@data-conversation, ":"), ":${user}:")]`) });

/** Whether this server has receipts, typing and presence: `welcome.limits.watch_users`. */
export async function hasReceipts(page, token) {
  return await page.evaluate(async (bearer) => new Promise((resolve, reject) => {
    const url = `${location.origin.replace(/^http/, "ws")}/ws`;
    const socket = new WebSocket(url, ["switchboard.v1.json", `switchboard.bearer.${bearer}`]);
    socket.onopen = () => socket.send(JSON.stringify({ type: "hello", device: "asks" }));
    socket.onmessage = ({ data }) => {
      const frame = JSON.parse(data);
      if (frame.type !== "welcome") return;
      socket.close();
      resolve((frame.limits.watch_users ?? 0) > 0);
    };
    socket.onclose = () => reject(new Error("no welcome"));
  }), token);
}
