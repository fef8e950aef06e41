import { test } from "node:test";
import assert from "node:assert/strict";
import { Heights } from "../src/model/heights.js";

test("measured where it was measured, guessed elsewhere; a row is found by its distance", () => {
  const heights = new Heights();
  heights.set(["a", "b", "c"], [10, 20, 30]);
  assert.deepEqual([heights.offset(0), heights.offset(1), heights.offset(2), heights.total], [0, 10, 30, 60]);
  assert.equal(heights.measure("b", 50), true);
  assert.equal(heights.measure("b", 50), false);
  assert.equal(heights.total, 90);
  assert.deepEqual([-5, 0, 9.9, 10, 59, 60, 1e9].map((y) => heights.at(y)), [0, 0, 0, 1, 1, 2, 2]);
  heights.set(["x", "a", "b", "c"], [5, 10, 20, 30]);
  assert.equal(heights.offset(3), 65, "rows put before do not lose what was measured");
  assert.deepEqual([heights.indexOf("c"), heights.indexOf("y"), heights.keyAt(0), heights.keyAt(9)], [3, -1, "x", undefined]);
});

test("rows behind, before, gone and changed places: each is found where it is", () => {
  const heights = new Heights();
  for (const keys of ["abc", "abcde", "xabcde", "xab", "", "ba", "bax"].map((letters) => [...letters])) {
    heights.set(keys, keys.map(() => 10));
    assert.deepEqual([..."abcdex"].map((key) => heights.indexOf(key)), [..."abcdex"].map((key) => keys.indexOf(key)), keys.join(""));
    assert.equal(heights.total, 10 * keys.length);
  }
});

test("nothing is at the top of nothing", () => {
  const heights = new Heights();
  assert.deepEqual([heights.at(0), heights.at(100), heights.total, heights.offset(3)], [0, 0, 0, 0]);
});

test("every distance is in the row that is found for it", () => {
  const heights = new Heights();
  const keys = Array.from({ length: 500 }, (_, i) => `k${i}`);
  heights.set(keys, keys.map((_, i) => 20 + ((i * 7919) % 90)));
  keys.forEach((key, i) => { if (i % 3 === 0) heights.measure(key, 1 + ((i * 104729) % 300)); });
  for (let y = 0; y < heights.total; y += 13) {
    const row = heights.at(y);
    assert.ok(heights.offset(row) <= y && y < heights.offset(row + 1), String(y));
  }
});
