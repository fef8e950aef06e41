import { test } from "node:test";
import assert from "node:assert/strict";
import { isEmojiOnly, links } from "../src/text/links.js";

const found = (text: string): (string | undefined)[] => links(text).filter((run) => run.href !== undefined).map((run) => run.href);

test("the runs together are the text", () => {
  for (const text of ["", "no link", "https://a.example", "x https://a.example y (http://b.example/z). https://", "https://user:p@a.example"]) {
    assert.equal(links(text).map((run) => run.text).join(""), text);
  }
});

test("http and https only, without what ends a sentence", () => {
  assert.deepEqual(found("see https://example.org/a?b=c#d."), ["https://example.org/a?b=c#d"]);
  assert.deepEqual(found("(https://example.org/wiki/Moth_(insect)), http://b.example!"), ["https://example.org/wiki/Moth_(insect)", "http://b.example"]);
  assert.deepEqual(found("[x](https://example.org/y)"), ["https://example.org/y"]);
  assert.deepEqual(found("javascript:alert(1) data:text/html,x file:///etc/passwd ftp://x.example xhttps://a.example"), []);
});

test("what may deceive is no link: other letters in the name, a user before the host", () => {
  assert.deepEqual(found("https://ex\u0430mple.org/"), ["https://ex"], "up to where it is plain");
  assert.deepEqual(found("https://bank.example@evil.example/ https://a:b@evil.example"), []);
  assert.deepEqual(found("https://[ https://:99999"), []);
});

test("one to three emoji alone are large", () => {
  for (const yes of ["\u{1f98b}", "\u{1f44d}\u{1f3fd}", "\u{1f468}\u200d\u{1f469}\u200d\u{1f467} \u2764\ufe0f", "\u{1f1eb}\u{1f1ee}"]) assert.equal(isEmojiOnly(yes), true, yes);
  for (const no of ["", " ", "a", "1", "\u{1f98b} moth", "\u{1f98b}\u{1f98b}\u{1f98b}\u{1f98b}"]) assert.equal(isEmojiOnly(no), false, no);
});
