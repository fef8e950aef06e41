// How the page is served, that it can be installed, and that it opens without a server.
import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { URL_, complaints, control, launch, live, notLive, openChat, person, say, accepted, shows } from "./harness.mjs";

let browser, ann;
before(async () => {
  browser = await launch();
  ann = await person(browser, "Ann");
});
after(async () => { await browser?.close(); });

test("a strict policy, files for a year, the shell asked for each time, everything compressed", async () => {
  const shell = await fetch(URL_, { headers: { "accept-encoding": "br" } });
  assert.equal(shell.headers.get("content-encoding"), "br");
  assert.equal(shell.headers.get("cache-control"), "no-cache");
  const policy = shell.headers.get("content-security-policy");
  assert.match(policy, /default-src 'none'.*script-src 'self'.*require-trusted-types-for 'script'/);
  assert.doesNotMatch(policy, /unsafe|\*|https?:/);
  const html = await shell.text();
  assert.doesNotMatch(html, /<style|style=|<script(?![^>]*src=)|onload=/, "nothing inline");
  const files = [...html.matchAll(/(?:src|href)="(\/[^"]+)"/g)].map(([, path]) => path);
  assert.ok(files.some((path) => /^\/assets\/main-[A-Z0-9]{8}\.js$/.test(path)), files.join());
  for (const path of files.filter((one) => one !== "/docs")) {
    const answer = await fetch(URL_ + path);
    assert.equal(answer.status, 200, path);
    assert.equal(answer.headers.get("x-content-type-options"), "nosniff", path);
    assert.equal(answer.headers.get("cache-control"), path.startsWith("/assets/") ? "public, max-age=31536000, immutable" : "no-cache", path);
  }
  const again = await fetch(URL_, { headers: { "accept-encoding": "br", "if-none-match": shell.headers.get("etag") } });
  assert.equal(again.status, 304);
  assert.equal(again.headers.get("content-security-policy"), policy, "a browser takes the headers of a 304 for the page's");
  assert.equal((await fetch(`${URL_}/assets/main-00000000.js`)).status, 404);
});

test("it can be installed: a manifest with icons of the right size, and a service worker", async () => {
  const session = await ann.context.newCDPSession(ann.page);
  const { errors, url } = await session.send("Page.getAppManifest");
  assert.deepEqual(errors, []);
  assert.equal(new URL(url).pathname, "/manifest.webmanifest");
  await ann.page.evaluate(async () => { await navigator.serviceWorker.ready; });
  const { installabilityErrors } = await session.send("Page.getInstallabilityErrors");
  // a context of the tests is one of those
  assert.deepEqual(installabilityErrors.filter(({ errorId }) => errorId !== "in-incognito"), []);
  const manifest = await (await fetch(`${URL_}/manifest.webmanifest`)).json();
  for (const { src, sizes, type } of manifest.icons) {
    const answer = await fetch(URL_ + src);
    assert.equal(answer.headers.get("content-type"), type, src);
    if (type !== "image/png") continue;
    const bytes = Buffer.from(await answer.arrayBuffer());
    assert.equal(`${bytes.readUInt32BE(16)}x${bytes.readUInt32BE(20)}`, sizes, src);
  }
});

test("without a server the page opens from the cache, with what it knew; back again it goes on", async () => {
  await openChat(ann.page, ann.user);
  await say(ann.page, "a note to myself");
  await accepted(ann.page, "a note to myself");
  await ann.page.reload();
  await live(ann.page);
  await shows(ann.page, "a note to myself");
  await ann.page.waitForFunction(() => navigator.serviceWorker.controller !== null);
  await control("kill");
  await notLive(ann.page);
  await ann.page.close();
  ann.page = await ann.context.newPage();
  await ann.page.goto(`${URL_}/#/u/${ann.user}`);
  await shows(ann.page, "a note to myself");
  await ann.page.getByTestId("connection").getByText(/sent later/).waitFor();
  await control("start");
  await live(ann.page);
  await shows(ann.page, "a note to myself");
});

test("the service worker keeps the page's files and nothing else", async () => {
  const kept = await ann.page.evaluate(async () => {
    const found = [];
    for (const name of await caches.keys()) for (const request of await (await caches.open(name)).keys()) found.push(new URL(request.url).pathname);
    return found.sort();
  });
  assert.ok(kept.includes("/") && kept.length >= 6);
  assert.deepEqual(kept.filter((path) => path !== "/" && !/^\/(assets\/|icons\/|manifest)/.test(path)), []);
  assert.equal(await ann.page.evaluate(async () => (await fetch("/v1/me")).status), 401, "the API is asked, not the cache");
});

test("nothing complained", () => assert.deepEqual(complaints, []));
