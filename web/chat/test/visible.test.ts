import { test } from "node:test";
import assert from "node:assert/strict";
import { isolated, pieces, visible } from "../src/text/visible.js";

const text = (of: string): string => pieces(of).map((piece) => piece.text).join("");

test("plain text of any script is one run, as it was written", () => {
  for (const plain of ["hello", "<b>&amp;</b>", "مرحبا שלום", "नमस्ते", "ไทย", "日本語", "tab\there\nand a line", "Z\u0300\u0301algo", "e\u0301"]) {
    assert.deepEqual(pieces(plain), [{ text: plain }]);
  }
  assert.deepEqual(pieces(""), []);
});

test("what turns the direction, is not seen or moves a terminal becomes a mark that says what it is", () => {
  assert.deepEqual(pieces("\u202egpj.exe"), [{ text: "\u27e8RLO\u27e9", control: "invisible character U+202E" }, { text: "gpj.exe" }]);
  assert.deepEqual(pieces("\u001b[31mred"), [{ text: "\u27e8ESC\u27e9", control: "control character U+001B" }, { text: "[31mred" }]);
  for (const code of [0x00, 0x07, 0x08, 0x0d, 0x7f, 0x9b, 0xad, 0x61c, 0x115f, 0x200b, 0x200e, 0x200f, 0x202a, 0x202d, 0x2060, 0x2066, 0x2069, 0x2800, 0x3164, 0xfeff, 0xffa0, 0xfff9, 0xe0001, 0xe0041]) {
    const [before, mark, after, ...rest] = pieces(`a${String.fromCodePoint(code)}b`);
    assert.deepEqual([before, after, rest], [{ text: "a" }, { text: "b" }, []], code.toString(16));
    assert.match(mark?.text ?? "", /^\u27e8[\w+]+\u27e9$/, code.toString(16));
    assert.ok(mark?.control !== undefined);
  }
});

test("no mark stays for a character that is left", () => {
  // every character of the first plane that is unseen by itself is either gone from the text or one of those that are left on purpose
  for (let code = 1; code < 0x10000; code += 1) {
    if (code >= 0xd800 && code < 0xe000) continue;
    const shown = text(`a${String.fromCodePoint(code)}b`);
    if (/[\p{Default_Ignorable_Code_Point}\p{Cc}]/u.test(shown.replace(/[\n\t]/g, ""))) {
      assert.ok(code >= 0xfe00 && code <= 0xfe0f, `U+${code.toString(16)} is still there`);
    }
  }
});

test("joiners stay where a script or an emoji needs them, and nowhere else", () => {
  for (const kept of ["\u{1f468}\u200d\u{1f469}\u200d\u{1f467}", "می\u200cخواهم", "क्\u200dष", "\u2764\ufe0f\u200d\u{1f525}", "\u{1f3f4}\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f}", "1\ufe0f\u20e3"]) {
    assert.deepEqual(pieces(kept), [{ text: kept }], kept);
  }
  assert.equal(text("pay\u200dpal"), "pay\u27e8ZWJ\u27e9pal");
  assert.equal(text("pay\u200cpal"), "pay\u27e8ZWNJ\u27e9pal");
  assert.equal(text(" \ufe0f"), " \u27e8U+FE0F\u27e9");
  // tags with no end to them are no flag
  assert.doesNotMatch(text("\u{1f3f4}\u{e0067}\u{e0062}x"), /[\u{e0000}-\u{e007f}]/u);
});

test("marks stacked without end are counted, not drawn", () => {
  assert.equal(text(`Z${"\u0301".repeat(6)}`), `Z${"\u0301".repeat(6)}`);
  assert.equal(text(`Z${"\u0301".repeat(30)}x`), `Z${"\u0301".repeat(6)}\u27e8+24 marks\u27e9x`);
});

test("line ends of all kinds are line breaks; in a label they are spaces", () => {
  assert.equal(text("a\r\nb\u2028c\u2029d"), "a\nb\nc\nd");
  assert.equal(visible("  a\n\n b\t\u202ec "), "a b \u27e8RLO\u27e9c");
  assert.equal(isolated("a\u202eb"), "\u2068a\u27e8RLO\u27e9b\u2069");
});
