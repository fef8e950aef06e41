// Devices and profiles: what is seen elsewhere, and signing out from afar.
import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { complaints, launch, line, live, openChat, person, say, secondDevice, shows, signInAgain, userOf } from "./harness.mjs";

let browser, ann, bob;
before(async () => {
  browser = await launch();
  [ann, bob] = [await person(browser, "Ann"), await person(browser, "Bob")];
  await openChat(ann.page, bob.user);
  await say(ann.page, "hello");
  await line(bob.page, ann.user).waitFor();
});
after(async () => { await browser?.close(); });

const stored = (page) => page.evaluate(async () => ({
  session: localStorage.getItem("switchboard.session"),
  databases: (await indexedDB.databases()).map(({ name }) => name).filter((name) => name.startsWith("switchboard")),
}));
const goTo = (page, hash) => page.evaluate((to) => { location.hash = to; }, hash);

test("the devices are listed; signing one out closes its page's session and wipes what it kept", async () => {
  const second = await secondDevice(browser, ann);
  await openChat(second.page, bob.user);
  await shows(second.page, "hello");
  await goTo(ann.page, "#/settings");
  await ann.page.getByTestId("open-devices").click();
  const items = ann.page.getByTestId("device");
  await items.nth(1).waitFor();
  assert.equal(await items.count(), 2);
  assert.equal(await ann.page.locator("[data-testid=device][data-current=true]").count(), 1);
  await ann.page.getByTestId("sign-out-device").click();
  const began = Date.now();
  await ann.page.getByTestId("confirm-sign-out-device").click();
  await second.page.getByTestId("signed-out-note").waitFor();
  assert.ok(Date.now() - began < 7_000, "within seconds");
  assert.match(await second.page.getByTestId("signed-out-note").textContent(), /signed out/);
  await second.page.waitForFunction(async () => (await indexedDB.databases()).filter(({ name }) => name.startsWith("switchboard")).length === 0);
  assert.deepEqual(await stored(second.page), { session: null, databases: [] });
  await ann.page.waitForFunction(() => document.querySelectorAll("[data-testid=device]").length === 1);
  await second.page.reload();
  await second.page.getByTestId("sign-in").waitFor();
  // and in again, as a new device
  await signInAgain(second.page, ann.phone);
  await openChat(second.page, bob.user);
  await shows(second.page, "hello");
  await second.context.close();
});

test("name and about text are seen by the other; one's own number is not", async () => {
  await goTo(ann.page, "#/settings");
  await ann.page.getByTestId("profile-name").fill("Ann the First");
  await ann.page.getByTestId("profile-about").fill("Counting by hand");
  await ann.page.getByTestId("save-profile").click();
  await ann.page.getByText("Saved.").waitFor();
  await bob.page.reload();
  await live(bob.page);
  // what is known of a person is asked for again after a while; here it is made old
  await bob.page.evaluate(() => new Promise((done) => { const request = indexedDB.deleteDatabase("switchboard-chat"); request.onsuccess = request.onerror = request.onblocked = done; }));
  await bob.page.reload();
  await live(bob.page);
  await line(bob.page, ann.user).getByTestId("line-name").getByText("Ann the First", { exact: true }).waitFor();
  await openChat(bob.page, ann.user);
  await bob.page.getByTestId("peer-name").getByText("Ann the First", { exact: true }).waitFor();
  assert.doesNotMatch(await bob.page.locator("body").textContent(), new RegExp(ann.phone.slice(1)));
});

test("signing out here asks first, and forgets everything; another tab follows", async () => {
  const tab = await bob.context.newPage();
  await tab.goto(process.env.TEST_URL);
  await tab.getByTestId("frame").waitFor();
  await goTo(bob.page, "#/settings");
  await bob.page.getByTestId("sign-out").click();
  await bob.page.getByTestId("confirm-sign-out").click();
  await bob.page.getByTestId("sign-in").waitFor();
  await tab.getByTestId("sign-in").waitFor();
  await bob.page.waitForFunction(async () => (await indexedDB.databases()).filter(({ name }) => name.startsWith("switchboard")).length === 0);
  assert.equal((await stored(bob.page)).session, null);
  await tab.close();
  await signInAgain(bob.page, bob.phone);
  assert.equal(await userOf(bob.page), bob.user);
});

test("nothing complained", () => assert.deepEqual(complaints, []));
