import { test } from "node:test";
import assert from "node:assert/strict";
import { hashOf, routeOf } from "../src/state/route.js";

test("addresses lead to places and back", () => {
  for (const hash of ["#/", "#/settings", "#/devices", "#/c/d:42:43"]) assert.equal(hashOf(routeOf(hash, "42")), hash);
  assert.deepEqual(routeOf("#/u/7", "42"), { name: "conversation", conversation: "d:7:42" });
});

test("what is no place is the list: other people's conversations too", () => {
  for (const hash of ["", "#", "#/x", "#/c/", "#/c/d:1:2", "#/c/d:43:42", "#/u/0", "#/u/x", "#/u/99999999999999999999", "#/settings/x/y", "#/c/<b>"]) assert.deepEqual(routeOf(hash, "42"), { name: "list" }, hash);
});
