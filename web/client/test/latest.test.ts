// Requests of which only the last of a name counts.
import { test } from "node:test";
import assert from "node:assert/strict";
import { ApiError } from "../src/account/http.js";
import { LatestOnly } from "../src/transport/latest.js";
import { until } from "./fake_server.js";

const later = (): ApiError => new ApiError(503, "unavailable", "not now", { retryAfter_ms: 1 });

function latest() {
  const over = new AbortController();
  const refused: string[] = [];
  const made: string[] = [];
  const only = new LatestOnly({ refused: ({ code }) => { refused.push(code); }, over: over.signal });
  /** Answers the calls of one name, one after the other; the last answer stays. */
  const put = (name: string, ...answers: (ApiError | null)[]): void => {
    only.put(name.split(" ")[0] ?? name, {
      call: () => {
        made.push(name);
        const answer = answers.length > 1 ? answers.shift() : answers[0];
        return answer instanceof ApiError ? Promise.reject(answer) : Promise.resolve();
      },
      passes: ({ code }) => code === "not_found",
    });
  };
  return { over, refused, made, only, put };
}

test("one at a time; of those that wait only the last of a name is made", async () => {
  const { made, refused, put } = latest();
  put("a 1", null);
  put("a 2", null);
  put("b 1", null);
  put("a 3", null);
  await until("all", () => made.length === 3);
  assert.deepEqual([made, refused], [["a 1", "a 3", "b 1"], []]);
});

test("what may pass is tried again, eight times; what is final is told at once", async () => {
  const { made, refused, put } = latest();
  put("a 1", later(), new ApiError(404, "not_found", "", { retryAfter_ms: 1 }), null);
  await until("the third", () => made.length === 3);
  put("b 1", new ApiError(403, "forbidden", ""));
  await until("told", () => refused.length === 1);
  put("c 1", later());
  await until("given up", () => refused.length === 2);
  assert.deepEqual(refused, ["forbidden", "unavailable"]);
  assert.deepEqual(made, ["a 1", "a 1", "a 1", "b 1", ...Array.from({ length: 8 }, () => "c 1")]);
});

test("a newer one takes the place of one that is tried again, and when it is over each that waits is made once", async () => {
  const { made, refused, put, over } = latest();
  put("a 1", later());
  await until("tried", () => made.length >= 2);
  put("a 2", null);
  await until("the newer", () => made.at(-1) === "a 2");
  put("b 1", new ApiError(503, "unavailable", "", { retryAfter_ms: 60_000 }));
  put("c 1", later());
  await until("rests", () => made.at(-1) === "b 1");
  const count = made.length;
  over.abort();
  await until("the other", () => refused.length === 2);
  assert.deepEqual([made.slice(count), refused], [["b 1", "c 1"], ["unavailable", "unavailable"]]);
});

test("a token that is no good is the connection's business", async () => {
  const { made, refused, put } = latest();
  put("a 1", new ApiError(401, "unauthenticated", ""));
  await until("made", () => made.length === 1);
  put("b 1", null);
  await until("the next", () => made.length === 2);
  assert.deepEqual(refused, []);
});
