// Ten thousand messages in one conversation: few of them in the document, what is looked at stays where it is, and frames are counted (told, not judged).
import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { URL_, browserOf, complaints, launch, live, openChat, shows } from "./harness.mjs";

const COUNT = Number(process.env.MESSAGES ?? 10_000);
/** Rows in the document, whatever the length of the conversation: three screens of one-liners. */
const ROWS_MAX = 140;

let browser, page;
before(async () => {
  browser = await launch();
  const context = await browserOf(browser, { label: "long", viewport: { width: 1100, height: 900 } });
  page = await context.newPage();
  await page.goto(URL_);
  await page.getByTestId("by-token").click();
  await page.getByTestId("token").fill(process.env.TEST_TOKEN_43);
  await page.getByTestId("use-token").click();
  await live(page);
});
after(async () => { await browser?.close(); });

/** Sends `count` messages of many lengths from user 42, over a socket of a page of its own. */
async function write(count) {
  const writer = await (await browserOf(browser, { label: "writer" })).newPage();
  await writer.goto(`${URL_}/docs`);
  await writer.evaluate(({ bearer, total }) => new Promise((resolve, reject) => {
    const socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/ws`, ["switchboard.v1.json", `switchboard.bearer.${bearer}`]);
    let next = 0, answered = 0, seq = 0;
    const ids = () => { const hex = [...crypto.getRandomValues(new Uint8Array(10))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
      const now = Date.now().toString(16).padStart(12, "0"); return `${now.slice(0, 8)}-${now.slice(8)}-7${hex.slice(0, 3)}-8${hex.slice(3, 6)}-${hex.slice(6, 18)}`; };
    const pump = () => { while (next < total && next - answered < 30) {
      const text = `message ${next} ${"lorem ipsum dolor ".repeat((next * 7) % 23)}`.trim();
      socket.send(JSON.stringify({ type: "send", id: ids(), to: "u:43", kind: "text", body: { text } })); next += 1; } };
    socket.onopen = () => socket.send(JSON.stringify({ type: "hello", device: "writer", cursor: 0 }));
    socket.onclose = () => reject(new Error("closed"));
    socket.onmessage = ({ data }) => {
      const frame = JSON.parse(data);
      if (frame.type === "welcome") pump();
      if (frame.type === "event" && (seq = frame.seq) % 50 === 0) socket.send(JSON.stringify({ type: "received", seq }));
      if (frame.type === "refused") reject(new Error(data));
      if (frame.type === "accepted") { answered += 1; if (answered === total) { socket.onclose = null; socket.close(1000); resolve(); } pump(); }
    };
  }), { bearer: process.env.TEST_TOKEN_42, total: count });
  await writer.context().close();
}

const rows = () => page.getByTestId("message").count();
/** Where the row at the top of the view is: its number and distance. */
const anchor = () => page.evaluate(() => {
  const list = document.querySelector("[data-testid=messages]"), { top } = list.getBoundingClientRect();
  const row = [...list.querySelectorAll("[data-testid=message]")].find((one) => one.getBoundingClientRect().bottom > top + 1);
  return { text: row.querySelector("[data-testid=message-text]").textContent, offset: row.getBoundingClientRect().top - top };
});

/** Scrolls by the wheel, `turns` times, and counts the time between frames meanwhile. */
async function wheel(delta, turns) {
  await page.mouse.move(800, 400);
  await page.evaluate(() => {
    window.frames_ms = [];
    let last = performance.now();
    window.counting = true;
    const next = (now) => { window.frames_ms.push(now - last); last = now; if (window.counting) requestAnimationFrame(next); };
    requestAnimationFrame(next);
  });
  let most = 0;
  for (let turn = 0; turn < turns; turn += 1) {
    await page.mouse.wheel(0, delta);
    if (turn % 10 === 0) most = Math.max(most, await rows());
  }
  const frames = await page.evaluate(() => { window.counting = false; return window.frames_ms.slice(1).sort((a, b) => a - b); });
  const at = (share) => frames[Math.min(frames.length - 1, Math.floor(frames.length * share))]?.toFixed(1);
  return { most, words: `${frames.length} frames; ms between them: median ${at(0.5)}, p95 ${at(0.95)}, p99 ${at(0.99)}, longest ${at(1)}; over 50 ms: ${frames.filter((ms) => ms > 50).length}` };
}

test(`${COUNT} messages come in while the chat is open; at the end, few rows in the document`, { timeout: 300_000 }, async (t) => {
  await openChat(page, "42");
  const began = Date.now();
  await write(COUNT);
  const written = Date.now();
  await shows(page, `message ${COUNT - 1} ${"lorem ipsum dolor ".repeat(((COUNT - 1) * 7) % 23)}`.trim());
  console.log(`${COUNT} messages written in ${written - began} ms; the last one is shown ${Date.now() - written} ms after it was accepted`);
  assert.ok(await rows() <= ROWS_MAX, `${await rows()} rows`);
  t.diagnostic(`${await rows()} rows in the document`);
});

test("opened anew, older ones come while scrolling up, to the very first", { timeout: 300_000 }, async () => {
  await page.reload();
  await live(page);
  await page.getByTestId("message").first().waitFor();
  const first = await wheel(-900, 200);
  console.log(`scrolling up through history that is being fetched: ${first.words}; at most ${first.most} rows`);
  assert.ok(first.most <= ROWS_MAX);
  const began = Date.now();
  // all the way up, as by the Home key
  await page.waitForFunction(() => {
    const list = document.querySelector("[data-testid=messages]");
    list.scrollTop = 0;
    return [...list.querySelectorAll("[data-testid=message-text]")].some((one) => /^message 0\b/.test(one.textContent));
  }, undefined, { polling: 20, timeout: 240_000 });
  console.log(`at the first message after another ${Date.now() - began} ms`);
  assert.equal(await page.getByTestId("message").first().getAttribute("aria-posinset"), "1");
  assert.equal(Number(await page.getByTestId("message").first().getAttribute("aria-setsize")), COUNT);
  assert.ok(await rows() <= ROWS_MAX);
});

test("with all of them loaded: scrolling down and up, by wheel and by jumps, each time few rows", { timeout: 120_000 }, async () => {
  for (const [delta, turns] of [[700, 150], [-700, 100], [5000, 60]]) {
    const { most, words } = await wheel(delta, turns);
    console.log(`all loaded, wheel of ${delta}: ${words}; at most ${most} rows`);
    assert.ok(most <= ROWS_MAX);
  }
  for (const share of [0, 0.37, 0.81, 1, 0.5]) {
    await page.evaluate((to) => { const list = document.querySelector("[data-testid=messages]"); list.scrollTop = (list.scrollHeight - list.clientHeight) * to; }, share);
    await page.waitForFunction(() => {
      const list = document.querySelector("[data-testid=messages]"), view = list.getBoundingClientRect();
      const all = [...list.querySelectorAll("[data-testid=message]")].map((one) => one.getBoundingClientRect());
      return all.length > 0 && all[0].top <= view.top + 60 && all.at(-1).bottom >= view.bottom - 30;
    });
    assert.ok(await rows() <= ROWS_MAX);
  }
});

test("what is looked at stays where it is: when messages come, when rows above are measured, when the width changes", { timeout: 60_000 }, async () => {
  const settled = async () => {
    let before = await anchor();
    for (;;) {
      await page.waitForTimeout(150);
      const now = await anchor();
      if (now.text === before.text && Math.abs(now.offset - before.offset) < 0.5) return now;
      before = now;
    }
  };
  const start = await settled();
  await write(50);
  await page.getByTestId("to-end").getByText("50").waitFor();
  const later = await settled();
  assert.equal(later.text, start.text);
  assert.ok(Math.abs(later.offset - start.offset) <= 2, `moved by ${later.offset - start.offset}`);

  // into rows that were never measured at this width
  await page.setViewportSize({ width: 700, height: 900 });
  await page.waitForFunction((text) => [...document.querySelectorAll("[data-testid=message-text]")].some((one) => one.textContent === text), start.text);
  const narrow = await settled();
  assert.equal(narrow.text, start.text, "the same one at the top");
  for (let step = 0; step < 12; step += 1) {
    const before = await settled();
    await page.evaluate(() => { document.querySelector("[data-testid=messages]").scrollTop -= 40; });
    const after = await page.evaluate((text) => {
      const list = document.querySelector("[data-testid=messages]");
      const row = [...list.querySelectorAll("[data-testid=message]")].find((one) => one.querySelector("[data-testid=message-text]").textContent === text);
      return row.getBoundingClientRect().top - list.getBoundingClientRect().top;
    }, before.text);
    const now = await settled();
    const moved = await page.evaluate((text) => {
      const list = document.querySelector("[data-testid=messages]");
      const row = [...list.querySelectorAll("[data-testid=message]")].find((one) => one.querySelector("[data-testid=message-text]").textContent === text);
      return row.getBoundingClientRect().top - list.getBoundingClientRect().top;
    }, before.text);
    assert.ok(Math.abs(after - before.offset - 40) <= 2 && Math.abs(moved - after) <= 2, `step ${step}: by ${after - before.offset}, then ${moved - after}; at ${now.text.slice(0, 20)}`);
  }
  await page.getByTestId("to-end").click();
  await page.getByTestId("to-end").waitFor({ state: "detached" });
  assert.ok(await page.evaluate(() => { const list = document.querySelector("[data-testid=messages]"); return list.scrollHeight - list.clientHeight - list.scrollTop < 2; }));
});

test("nothing complained", () => assert.deepEqual(complaints, []));
