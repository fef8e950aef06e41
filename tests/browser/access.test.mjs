// Everybody can use it: axe finds nothing serious at both widths and in both themes, and a person without a mouse gets everywhere.
import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import axe from "axe-core";
import { DESKTOP, PHONE, URL_, accepted, browserOf, complaints, launch, line, live, message, newPhone, openChat, person, say, shows, toList } from "./harness.mjs";

let browser, ann, bob;
before(async () => {
  browser = await launch();
  // axe puts itself into the page by eval, which the page's own policy forbids
  [ann, bob] = [await person(browser, "Ann", { bypassCSP: true }), await person(browser, "Bob")];
  await openChat(bob.page, ann.user);
  await openChat(ann.page, bob.user);
  for (const [who, text] of [[bob, "A first one"], [ann, "An answer, with a link: https://example.org/"], [bob, "مرحبا"], [ann, "and \u202e marks"]]) {
    await say(who.page, text);
    await accepted(who.page, text.replace("\u202e", "\u27e8RLO\u27e9"));
  }
  await message(bob.page, "A first one").hover();
  await message(bob.page, "A first one").getByTestId("reply").click();
  await say(bob.page, "A reply");
  await shows(ann.page, "A reply");
});
after(async () => { await browser?.close(); });

const LOOKS = [["light", DESKTOP], ["dark", DESKTOP], ["light", PHONE], ["dark", PHONE]];

/** No violation of the rules of WCAG 2.2 A and AA or of good practice that axe holds for serious or worse, in any look. */
async function check(page, what) {
  for (const [colorScheme, viewport] of LOOKS) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await page.setViewportSize(viewport);
    // colours in the middle of a change are no colours of ours
    await page.evaluate(async (theme) => {
      while (!matchMedia(`(prefers-color-scheme: ${theme})`).matches) await new Promise(requestAnimationFrame);
      await Promise.all(document.getAnimations().filter((one) => one.effect.getComputedTiming().iterations !== Infinity).map((one) => one.finished.catch(() => {})));
      await new Promise((next) => requestAnimationFrame(() => requestAnimationFrame(next)));
    }, colorScheme);
    await page.evaluate(axe.source);
    const { violations, passes } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
    assert.ok(passes.length > 10, "axe has looked");
    const found = violations.filter(({ impact }) => impact === "serious" || impact === "critical")
      .map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html.slice(0, 160)} (${node.any.map((one) => one.message).join("; ").slice(0, 200)})`).join(" | ")}`);
    assert.deepEqual(found, [], `${what}, ${colorScheme}, ${viewport.width}`);
    const minor = violations.filter(({ impact }) => impact !== "serious" && impact !== "critical").map(({ id }) => id);
    if (minor.length > 0) console.log(`${what}, ${colorScheme}, ${viewport.width}: minor: ${minor.join(", ")}`);
  }
  await page.setViewportSize(DESKTOP);
}

test("axe: signing in", async () => {
  const context = await browserOf(browser, { label: "stranger", bypassCSP: true });
  const page = await context.newPage();
  await page.goto(URL_);
  await page.getByTestId("phone").waitFor();
  await check(page, "phone");
  await page.getByTestId("ask-code").isDisabled();
  await page.getByTestId("phone").fill("12");
  await page.getByTestId("phone").press("Enter");
  await page.getByTestId("sign-in-problem").waitFor();
  await check(page, "a wrong number");
  await page.getByTestId("phone").fill(newPhone());
  await page.getByTestId("phone").press("Enter");
  await page.getByTestId("dev-code").waitFor();
  await check(page, "code");
  await page.getByTestId("use-dev-code").click();
  await page.getByTestId("name").waitFor();
  await check(page, "name");
  await page.getByTestId("name").fill("Stranger");
  await page.getByTestId("save-name").click();
  await live(page);
  await check(page, "no chats yet");
  await context.close();
});

test("axe: the list, a conversation, a new chat, settings, devices", async () => {
  await check(ann.page, "conversation");
  await toList(ann.page);
  await check(ann.page, "list");
  await ann.page.getByTestId("new-chat").click();
  await ann.page.getByTestId("who").fill("nobody");
  await ann.page.getByTestId("start-chat").click();
  await ann.page.getByTestId("who-problem").waitFor();
  await check(ann.page, "new chat");
  await ann.page.keyboard.press("Escape");
  await ann.page.getByTestId("open-settings").click();
  await check(ann.page, "settings");
  await ann.page.getByTestId("sign-out").click();
  await check(ann.page, "signing out");
  await ann.page.getByTestId("open-devices").click();
  await ann.page.getByTestId("device").first().waitFor();
  await check(ann.page, "devices");
});

const focused = (page) => page.evaluate(() => document.activeElement?.getAttribute("data-testid") ?? document.activeElement?.getAttribute("aria-label") ?? document.activeElement?.tagName);
/** Waits until this has the focus: an effect may give it a frame later. */
const focuses = (page, testid) => page.waitForFunction((id) => document.activeElement?.getAttribute("data-testid") === id, testid);

/** Presses Tab until something has the focus. */
async function tabTo(page, testid, key = "Tab") {
  for (let presses = 0; presses < 40; presses += 1) {
    if (await focused(page) === testid) return;
    await page.keyboard.press(key);
  }
  assert.fail(`Tab never comes to ${testid}; it is at ${await focused(page)}`);
}

test("without a mouse: sign in, begin a chat, write, answer, copy, look at devices, sign out", async () => {
  const context = await browserOf(browser, { label: "keys" });
  const page = await context.newPage();
  const { keyboard } = page;
  await page.goto(URL_);
  await page.getByTestId("phone").waitFor();
  await focuses(page, "phone");
  await keyboard.type(newPhone());
  await keyboard.press("Enter");
  await page.getByTestId("dev-code").waitFor();
  await focuses(page, "code");
  await keyboard.type(await page.getByTestId("dev-code").textContent());
  await page.getByTestId("name").waitFor();
  await tabTo(page, "name");
  await keyboard.type("Keys");
  await keyboard.press("Enter");
  await live(page);

  await keyboard.press("Alt+n");
  await page.getByTestId("who").waitFor();
  await focuses(page, "who");
  await keyboard.press("Escape");
  await page.getByTestId("new-chat-dialog").waitFor({ state: "detached" });
  await tabTo(page, "new-chat");
  await keyboard.press("Enter");
  await focuses(page, "who");
  await keyboard.type(bob.phone);
  await keyboard.press("Enter");
  await page.getByTestId("text").waitFor();
  await focuses(page, "text");
  for (const text of ["one", "two"]) { await keyboard.type(text); await keyboard.press("Enter"); await accepted(page, text); }

  // up into the messages, to the first one, and answer it
  await keyboard.press("ArrowUp");
  await focuses(page, "messages");
  await keyboard.press("ArrowUp");
  await page.waitForFunction(() => document.activeElement?.matches("[data-testid=message]") && document.activeElement.textContent.includes("two"));
  await keyboard.press("ArrowUp");
  await page.waitForFunction(() => document.activeElement?.matches("[data-testid=message]") && document.activeElement.textContent.includes("one"));
  await keyboard.press("Enter");
  await page.getByTestId("replying").getByText("one").waitFor();
  await focuses(page, "text");
  await keyboard.press("Escape");
  await page.getByTestId("replying").waitFor({ state: "detached" });
  await keyboard.press("ArrowUp");
  await keyboard.press("ArrowUp");
  await tabTo(page, "reply");
  await keyboard.press("Escape");
  await focuses(page, "text");
  await keyboard.press("Escape");
  await page.locator("[data-testid=frame].at-list").waitFor();

  await keyboard.press("Alt+k");
  await focuses(page, "search");
  await keyboard.press("ArrowDown");
  await focuses(page, "line");
  await keyboard.press("Enter");
  await page.getByTestId("text").waitFor();
  await tabTo(page, "open-settings", "Shift+Tab");
  await keyboard.press("Enter");
  await page.getByTestId("settings").waitFor();
  await tabTo(page, "open-devices");
  await keyboard.press("Enter");
  await page.getByTestId("device").waitFor();
  await tabTo(page, "back");
  await keyboard.press("Enter");
  await tabTo(page, "sign-out");
  await keyboard.press("Enter");
  await tabTo(page, "confirm-sign-out");
  await keyboard.press("Enter");
  await page.getByTestId("sign-in").waitFor();
  await context.close();
});

test("the theme is the system's, or what a person chose, also after a reload", async () => {
  // with less motion a change of colour takes a frame
  const ground = () => ann.page.evaluate(async () => {
    await new Promise((next) => requestAnimationFrame(() => requestAnimationFrame(next)));
    return getComputedStyle(document.body).backgroundColor;
  });
  const system = async (colorScheme) => {
    await ann.page.emulateMedia({ colorScheme });
    await ann.page.waitForFunction((theme) => matchMedia(`(prefers-color-scheme: ${theme})`).matches, colorScheme);
    return await ground();
  };
  const dark = await system("dark");
  const light = await system("light");
  assert.notEqual(dark, light);
  await ann.page.evaluate(() => { location.hash = "#/settings"; });
  await ann.page.getByTestId("theme").getByText("Dark").click();
  assert.equal(await ground(), dark);
  await ann.page.reload();
  await ann.page.getByTestId("settings").waitFor();
  assert.equal(await ground(), dark);
  await ann.page.getByTestId("theme").getByText("System").click();
  assert.equal(await ground(), light);
});

test("what comes is said to who cannot see it, and signs have words", async () => {
  await openChat(ann.page, bob.user);
  await shows(ann.page, "A reply");
  await say(bob.page, "say it aloud");
  await ann.page.locator("[aria-live=polite]", { hasText: "Bob: say it aloud" }).waitFor({ state: "attached" });
  await line(ann.page, bob.user).waitFor();
  const silent = await ann.page.evaluate(() => [...document.querySelectorAll("button, a, input, textarea")].filter((one) =>
    (one.getAttribute("aria-label") ?? one.textContent ?? "").trim() === "" && one.closest("label") === null && one.getAttribute("placeholder") === null).map((one) => one.outerHTML.slice(0, 100)));
  assert.deepEqual(silent, []);
});

test("nothing complained", () => assert.deepEqual(complaints, []));
