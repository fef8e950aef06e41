// What people write, and what is found in storage, may be anything: shown harmless, or thrown away, and never a white page.
import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { PHONE, URL_, accepted, browserOf, complaints, launch, line, live, openChat, person, say, texts, toList } from "./harness.mjs";

const NASTY = [
  "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script><b>bold</b> & co",
  "\u202egpj.exe \u2066isolated\u2069 override",
  "\u001b[31mred\u001b[0m bell\u0007 backspace\u0008",
  "zero\u200bwidth\u2060joiner\ufeffmark",
  "\u{1f468}\u200d\u{1f469}\u200d\u{1f467} family, \u{1f3f4}\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f} flag",
  "Z\u0300\u0301\u0302\u0303\u0304\u0305\u0306\u0307\u0308\u0309\u030a\u030b\u030c\u030d\u030e\u030f\u0310algo",
  "مرحبا بالعالم hello שלום",
  "w".repeat(4000),
  `https://example.org/${"long/".repeat(200)}`,
  "javascript:alert(1) data:text/html,<script>alert(1)</script> https://user:pass@example.org/",
  "line\nbreaks\n\n\nand\ttabs\u2028and separators",
  "\u3164",
];
const NAME = "<b>B</b>\u202eob \u{1f98b}";

let browser, ann, bob;
before(async () => {
  browser = await launch();
  [ann, bob] = [await person(browser, "Ann"), await person(browser, NAME)];
  await openChat(ann.page, bob.user);
  await openChat(bob.page, ann.user);
});
after(async () => { await browser?.close(); });

const overflow = (page) => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);

test("bodies are text, isolated, with what would not be seen made visible", async () => {
  for (const text of NASTY) {
    await say(bob.page, text);
    await bob.page.waitForFunction(() => document.querySelector("[data-testid=text]").value === "");
  }
  await ann.page.waitForFunction((count) => [...document.querySelectorAll("[data-testid=message]")].at(-1)?.getAttribute("aria-posinset") === String(count), NASTY.length);
  await ann.page.getByTestId("messages").focus();
  const seen = new Map();
  // the list is long: what is in the document is what is near the screen
  for (let round = 0; round < 60 && seen.size < NASTY.length; round += 1) {
    for (const [at, text] of await ann.page.evaluate(() => [...document.querySelectorAll("[data-testid=message]")].map((row) =>
      [row.getAttribute("aria-posinset"), row.querySelector("[data-testid=message-text]").textContent]))) seen.set(Number(at), text);
    await ann.page.evaluate(() => { document.querySelector("[data-testid=messages]").scrollTop -= 300; });
    await ann.page.waitForTimeout(30);
  }
  assert.equal(seen.size, NASTY.length);
  const all = [...seen.values()].join("\n");
  assert.ok(all.includes(NASTY[0]), "markup as it was written");
  assert.doesNotMatch(all, /[\u202a-\u202e\u2066-\u2069\u200b\u2060\ufeff\u0000-\u0008\u000b-\u001f\u007f\u2028\u3164]/, "nothing unseen is left");
  for (const mark of ["RLO", "LRI", "ESC", "BEL", "ZWSP", "WJ", "BOM", "filler"]) assert.ok(all.includes(`\u27e8${mark}\u27e9`), mark);
  assert.match(all, /\u27e8\+\d+ marks\u27e9/);
  assert.ok(all.includes("\u{1f468}\u200d\u{1f469}\u200d\u{1f467}"), "what an emoji is made of stays");
  for (const { page } of [ann, bob]) {
    assert.notEqual(await page.title(), "pwned");
    assert.equal(await page.locator("[data-testid=conversation] :is(img, script, b, iframe)").count(), 0);
    const styles = await page.evaluate(() => [...document.querySelectorAll(".said")].map((one) => [getComputedStyle(one).unicodeBidi, one.getAttribute("dir")]));
    assert.ok(styles.length > 0 && styles.every(([bidi, dir]) => bidi === "isolate" && dir === "auto"));
  }
  const links = await ann.page.evaluate(() => [...document.querySelectorAll("[data-testid=message] a")].map((a) => [a.protocol, a.rel, a.username]));
  assert.ok(links.every(([protocol, rel, user]) => protocol === "https:" && rel.includes("noopener") && user === ""), JSON.stringify(links));
});

test("neither at a desktop nor at a phone's width anything scrolls sideways", async () => {
  for (const viewport of [PHONE, { width: 320, height: 560 }, { width: 1280, height: 800 }]) {
    await ann.page.setViewportSize(viewport);
    for (const top of [0, 1e9]) {
      await ann.page.evaluate((to) => { document.querySelector("[data-testid=messages]").scrollTop = to; }, top);
      await ann.page.waitForTimeout(100);
      assert.equal(await overflow(ann.page), 0);
      assert.ok(await ann.page.evaluate(() => { const list = document.querySelector("[data-testid=messages]"); return list.scrollWidth <= list.clientWidth; }));
    }
  }
});

test("names are text, wherever they stand", async () => {
  const wanted = "<b>B</b>\u27e8RLO\u27e9ob \u{1f98b}";
  await ann.page.reload();
  await live(ann.page);
  assert.equal(await ann.page.getByTestId("peer-name").textContent(), wanted);
  assert.equal(await line(ann.page, bob.user).getByTestId("line-name").textContent(), wanted);
  assert.ok((await ann.page.getByTestId("conversation").getAttribute("aria-label")).endsWith(wanted));
  assert.equal(await ann.page.locator("b").count(), 0);
});

/** Writes something into the page's databases while no page is open. */
async function tamper(context, how) {
  const page = await context.newPage();
  await page.route("**/tamper", (route) => route.fulfill({ contentType: "text/html", body: "<!doctype html>" }));
  await page.goto(`${URL_}/tamper`);
  await page.evaluate(how);
  await page.close();
}

const IMAGES = {
  "garbage in every record of every database": async () => {
    for (const { name } of await indexedDB.databases()) {
      await new Promise((done, failed) => {
        const open = indexedDB.open(name);
        open.onerror = failed;
        open.onsuccess = () => {
          const database = open.result, all = [...database.objectStoreNames];
          const transaction = database.transaction(all, "readwrite");
          transaction.oncomplete = () => { database.close(); done(); };
          const junk = [null, 42, "junk", [], [null, { conversation: {} }], { place: { seq: "x" } }, new Date(NaN), new Uint8Array(9), { last: { last: null } }];
          let n = 0;
          for (const store of all) {
            const keys = transaction.objectStore(store).getAllKeys();
            keys.onsuccess = () => { for (const key of keys.result) transaction.objectStore(store).put(junk[n++ % junk.length], key); };
          }
        };
      });
    }
  },
  "lines and messages of the right shape with wrong contents": async () => {
    await new Promise((done, failed) => {
      const open = indexedDB.open("switchboard-chat");
      open.onerror = failed;
      open.onsuccess = () => {
        const database = open.result, transaction = database.transaction("kept", "readwrite"), store = transaction.objectStore("kept");
        transaction.oncomplete = () => { database.close(); done(); };
        const keys = store.getAllKeys();
        keys.onsuccess = () => {
          for (const key of keys.result) {
            if (key[1] === "lines") store.put([{ conversation: "d:1:2", last: null, unread: -5, read: "x", marks: 7 }, { conversation: "d:9:8:7" }, 3], key);
            else if (key[1].startsWith("timeline")) store.put([{ position: "999999999999999999999", from: "x" }, { conversation: "d:1:2", position: "1", from: "1", id: "", kind: "", text: {}, at: 0 }], key);
            else store.put({ "": {}, "1": { name: {} }, "d:1:2": 5 }, key);
          }
        };
      };
    });
  },
  "an older schema": async () => {
    await new Promise((done) => { indexedDB.deleteDatabase("switchboard-chat").onsuccess = done; });
    await new Promise((done, failed) => {
      const open = indexedDB.open("switchboard-chat", 1);
      open.onupgradeneeded = () => { open.result.createObjectStore("kept", { keyPath: "id" }).put({ id: 1, old: true }); open.result.createObjectStore("conversations"); };
      open.onsuccess = () => { open.result.close(); done(); };
      open.onerror = failed;
    });
  },
  "a newer version": async () => {
    for (const name of ["switchboard-chat", "switchboard"]) {
      await new Promise((done) => { indexedDB.deleteDatabase(name).onsuccess = done; });
      await new Promise((done, failed) => {
        const open = indexedDB.open(name, 99);
        open.onupgradeneeded = () => open.result.createObjectStore("future");
        open.onsuccess = () => { open.result.close(); done(); };
        open.onerror = failed;
      });
    }
  },
  "no databases, and junk in every setting but the session": async () => {
    for (const { name } of await indexedDB.databases()) await new Promise((done) => { indexedDB.deleteDatabase(name).onsuccess = done; });
    localStorage.setItem("switchboard.chat.theme", "{}");
    sessionStorage.setItem("switchboard.chat.token", "junk");
  },
};

for (const [what, how] of Object.entries(IMAGES)) {
  test(`state in the browser: ${what}: starts anew, and goes on`, async () => {
    await toList(ann.page);
    await ann.page.close();
    await tamper(ann.context, how);
    ann.page = await ann.context.newPage();
    await ann.page.goto(`${URL_}/#/u/${bob.user}`);
    await live(ann.page);
    await line(ann.page, bob.user).waitFor();
    const text = `after: ${what}`;
    await say(ann.page, text);
    await accepted(ann.page, text);
    assert.equal((await texts(ann.page)).filter((one) => one === text).length, 1);
    assert.equal(await ann.page.getByTestId("broken").count(), 0);
  });
}

test("a session that is junk is no session", async () => {
  const context = await browserOf(browser, { label: "junk" });
  for (const junk of ["{", "null", "[]", JSON.stringify({ user: "42", device: 7 }), JSON.stringify({ user: "42", device: "d", accessToken: "a.b.c", refreshToken: "r", refreshKey: "k", expiresAt: 1, refreshExpiresAt: 1 })]) {
    await tamper(context, `localStorage.setItem("switchboard.session", ${JSON.stringify(junk)})`);
    const page = await context.newPage();
    await page.goto(URL_);
    await page.getByTestId("sign-in").waitFor();
    await page.close();
  }
  await context.close();
});

test("where nothing can be stored the chat works all the same", async () => {
  const context = await browserOf(browser, { label: "no storage" });
  await context.addInitScript(() => {
    const broken = () => { throw new DOMException("not allowed", "SecurityError"); };
    Object.defineProperty(window, "indexedDB", { value: { open: broken, deleteDatabase: broken, databases: async () => [] } });
    for (const name of ["localStorage", "sessionStorage"]) Object.defineProperty(window, name, { get: broken });
  });
  const page = await context.newPage();
  await page.goto(URL_);
  await page.getByTestId("by-token").click();
  await page.getByTestId("token").fill(process.env.TEST_TOKEN_42);
  await page.getByTestId("use-token").click();
  await live(page);
  await openChat(page, "43");
  await say(page, "from memory");
  await accepted(page, "from memory");
  await context.close();
});

test("nothing complained", () => assert.deepEqual(complaints, []));
