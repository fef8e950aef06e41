import { test } from "node:test";
import assert from "node:assert/strict";
import { phoneOf, spaced, whoOf } from "../src/text/phone.js";

test("a number as people write it becomes E.164, or nothing", () => {
  for (const typed of ["+4915112345678", "+49 151 1234-5678", "0049 (151) 12345678", "+49/151/12345678", "+49.151.12345678"]) assert.equal(phoneOf(typed), "+4915112345678", typed);
  for (const typed of ["", "0151 1234567", "151", "+0151234567", "+49", "+49151x2345678", "+1234567890123456"]) assert.equal(phoneOf(typed), null, typed);
});

test("who is meant: a number, a user, or nobody", () => {
  assert.deepEqual(whoOf(" 0049 151 12345678 "), { phone: "+4915112345678" });
  assert.deepEqual(whoOf("43"), { user: "43" });
  for (const typed of ["", "Bob", "+", "007", "-1", "12345678901234567890"]) assert.equal(whoOf(typed), null, typed);
});

test("a number in groups has the same digits", () => {
  assert.equal(spaced("+4915112345678").replace(/ /g, ""), "+4915112345678");
  assert.match(spaced("+4915112345678"), /^\+49 \d{3} /);
});
