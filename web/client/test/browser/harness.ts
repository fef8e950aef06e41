// The client in Chromium, on pages of the server's own origin. The pages are ours: `/harness` and the built package under `/client/`.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { chromium } from "playwright-core";
import type { Browser, BrowserContext, Page } from "playwright-core";

export const URL_ = process.env["TEST_URL"] ?? "";
const DIST = new URL("../../../dist/", import.meta.url);
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
  // pages that a test fulfils count as public, and those may not open sockets to this machine
  "--disable-features=LocalNetworkAccessChecks"];
const WAIT_MS = 20_000;

const PAGE = `<!doctype html><meta charset="utf-8"><title>harness</title><script type="module">
  import * as lib from "/client/index.js";
  window.lib = lib;
  window.begin = (user, device, token, more = {}) => {
    const client = new lib.Client({ credentials: lib.tokenCredentials(token, device), from: "oldest", ...more });
    const seen = window.seen = { got: [], seqs: [], states: [], problems: [], changes: [] };
    client.on("message", (message) => { seen.got.push(message.text); seen.seqs.push(message.seq); });
    client.on("state", ({ name }) => { seen.states.push(name); });
    client.on("problem", ({ code, message }) => { seen.problems.push(code + ": " + message); });
    client.on("outgoing", (change) => { seen.changes.push(change); });
    window.client = client;
    void client.connect();
  };
  window.ready = true;
</script>`;

export interface Seen { got: string[]; seqs: number[]; states: string[]; problems: string[]; changes: { id: string; state: string; code?: string }[] }

export const launch = (): Promise<Browser> =>
  chromium.launch({ executablePath: process.env["CHROMIUM"] || "/usr/bin/chromium", headless: true, args: FLAGS });

/** A profile of its own: its own IndexedDB, locks and network. */
export async function profile(browser: Browser): Promise<BrowserContext> {
  const context = await browser.newContext();
  await context.route("**/harness", (route) => route.fulfill({ contentType: "text/html", body: PAGE }));
  await context.route("**/client/**", async (route) => {
    const path = new URL(route.request().url()).pathname.replace(/^\/client\//, "");
    await route.fulfill({ contentType: "text/javascript", body: await readFile(new URL(path, DIST), "utf8") });
  });
  return context;
}

/** A tab with the library loaded and no client yet. */
export async function tab(context: BrowserContext): Promise<Page> {
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS);
  page.on("pageerror", (error) => { console.error(`in the page: ${error.stack}`); });
  await page.goto(`${URL_}/harness`);
  await page.waitForFunction("window.ready");
  return page;
}

export const token = (user: string): string => process.env[`TEST_TOKEN_${user}`] ?? assert.fail(`no token for ${user}`);
export const begin = (page: Page, user: string, device: string, more = "{}"): Promise<void> =>
  page.evaluate(`begin(${JSON.stringify(user)}, ${JSON.stringify(device)}, ${JSON.stringify(token(user))}, ${more})`);
/** By a timer: a tab in the background gets no animation frames. */
export const holds = (page: Page, condition: string): Promise<unknown> => page.waitForFunction(condition, undefined, { polling: 20 });
export const state = (page: Page, name: string): Promise<unknown> => holds(page, `window.client?.state.name === ${JSON.stringify(name)}`);
export const seen = (page: Page): Promise<Seen> => page.evaluate("seen");

/** Loads the page anew: nothing in it has time to say goodbye. */
export async function reload(page: Page): Promise<void> {
  await page.reload();
  await page.waitForFunction("window.ready");
}

export async function control(action: "kill" | "start"): Promise<void> {
  const answer = await fetch(`${process.env["TEST_CONTROL"]}/${action}`, { method: "POST" });
  assert.ok(answer.ok, await answer.text());
}
