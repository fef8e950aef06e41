// The example of the README, as it stands there.
import { test } from "node:test";
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFile, rm, writeFile } from "node:fs/promises";
import { URL_, until } from "./harness.js";

const PACKAGE = new URL("../../../", import.meta.url);

test("the example of the README runs", async () => {
  const text = await readFile(new URL("README.md", PACKAGE), "utf8");
  const code = /```js\n([\s\S]*?\n)```/.exec(text)?.[1] ?? assert.fail("no example");
  assert.ok(code.trim().split("\n").length <= 10, "ten lines");
  assert.ok(code.includes("http://127.0.0.1:8080"));
  const file = new URL(`build/readme-${process.pid}.mjs`, PACKAGE);
  await writeFile(file, code.replace("http://127.0.0.1:8080", URL_));
  const example = spawn(process.execPath, [file.pathname], { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  example.stdout.on("data", (piece) => { output += String(piece); });
  example.stderr.on("data", (piece) => { output += String(piece); });
  try {
    // Its own message may come while it catches up still, so `live` before it or after it.
    await until("42: hello, and live", () => output.includes("42: hello\n") && output.includes("live\n"));
    assert.match(output, /^connecting\n/);
  } finally {
    example.kill("SIGKILL");
    await rm(file);
  }
});
