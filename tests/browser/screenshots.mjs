// Pictures of the chat at both widths and in both themes, to be looked at:   tests/browser/run --screenshots FOLDER
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { DESKTOP, PHONE, accepted, browserOf, launch, live, openChat, person, say, shows, toList, userOf } from "./harness.mjs";

const folder = process.env.SCREENSHOTS ?? "screenshots";
await mkdir(folder, { recursive: true });
const browser = await launch();

/** Ann's browser, once in each look. */
const LOOKS = [["light", DESKTOP], ["dark", DESKTOP], ["light", PHONE], ["dark", PHONE]];
const nameOf = (theme, size) => `${size === PHONE ? "phone" : "desktop"}-${theme}`;
async function shoot(page, name) {
  for (const [theme, size] of LOOKS) {
    await page.emulateMedia({ colorScheme: theme, reducedMotion: "reduce" });
    await page.setViewportSize(size);
    await page.waitForTimeout(350);
    await page.screenshot({ path: join(folder, `${name}-${nameOf(theme, size)}.png`) });
  }
  await page.setViewportSize(DESKTOP);
}

const stranger = await (await browserOf(browser)).newPage();
await stranger.goto(process.env.TEST_URL);
await stranger.getByTestId("phone").waitFor();
await shoot(stranger, "1-sign-in");
await stranger.getByTestId("phone").fill("+49 151 2345 6789");
await stranger.getByTestId("phone").press("Enter");
await stranger.getByTestId("dev-code").waitFor();
await shoot(stranger, "2-code");

const ann = await person(browser, "Ann Lovelace");
await shoot(ann.page, "3-empty");
const others = [];
for (const name of ["Grace Hopper", "Katherine Johnson", "محمد الخوارزمي", "Alan <b>T</b>\u202egniru", "Hedy Lamarr", "Margaret Hamilton"]) others.push(await person(browser, name));
const [grace] = others;
const script = {
  1: ["The trajectory is checked, by hand."], 2: ["مرحبا، كيف حالك؟ هل نلتقي غدا في المكتبة؟"], 3: ["<img src=x onerror=alert(1)>"], 4: ["Frequency hopping, tonight?"], 5: ["Lunch on Thursday?", "I bring the stack of listings."],
};
for (const [index, lines] of Object.entries(script)) {
  const { page } = others[index];
  await openChat(page, ann.user);
  for (const line of lines) { await say(page, line); await accepted(page, line); }
}
await openChat(grace.page, ann.user);
await openChat(ann.page, grace.user);
const talk = [
  [grace, "Good morning! Did the nightly run finish?"], [ann, "It did, a little after four. All green."], [ann, "Two of the long ones were slower than last week, I had a look at the traces: https://example.org/traces/2026-11-28"],
  [grace, "Oh good. I was worried about the one with the relay.\nDid anybody find the moth?"], [ann, "🦋"], [ann, "Taped into the logbook, page 92. It deserves a frame and a place on the wall, if you ask me."],
  [grace, "First actual case of a bug being found."],
];
for (const [who, text] of talk) { await say(who.page, text); await accepted(who.page, text); await shows(who === ann ? grace.page : ann.page, text); }
await grace.page.locator("[data-testid=message]").nth(-2).hover();
await grace.page.locator("[data-testid=message]").nth(-2).getByTestId("reply").click();
await say(grace.page, "I have a frame. See you at ten?");
await shows(ann.page, "I have a frame. See you at ten?");
await say(ann.page, "Ten is fine. Bring the moth \u001b[31mred\u001b[0m and zero\u200bwidth \u202eevil\u202c text.");
await toList(grace.page);
await say(ann.page, "And coffee, please.");
await accepted(ann.page, "And coffee, please.");
await openChat(grace.page, ann.user);
await ann.page.waitForTimeout(1500);
await grace.page.getByTestId("text").pressSequentially("I am on my w", { delay: 20 });
await shoot(ann.page, "4-conversation");
await toList(ann.page);
await shoot(ann.page, "5-list");
await ann.page.getByTestId("new-chat").click();
await ann.page.getByTestId("who").fill("+49 151 0000000");
await ann.page.getByTestId("start-chat").click();
await ann.page.getByTestId("who-problem").waitFor();
await shoot(ann.page, "6-new-chat");
await ann.page.keyboard.press("Escape");
await ann.page.getByTestId("open-settings").click();
await shoot(ann.page, "7-settings");
await ann.page.getByTestId("open-devices").click();
await ann.page.getByTestId("device").first().waitFor();
await shoot(ann.page, "8-devices");
await browser.close();
void live; void userOf;
