import { test } from "node:test";
import assert from "node:assert/strict";
import { MemoryStorage } from "../src/index.js";
import type { StoredChange } from "../src/index.js";
import { Persister } from "../src/storage/persister.js";
import type { DeviceStorage } from "../src/storage/storage.js";

const entry = (id: string) => ({ order: 1, id, to: "u:43", kind: "text", body: { text: id } });

/** A storage whose writes are let through, or fail, one by one. */
function gated() {
  const writes: { change: StoredChange; good: () => void; fail: () => void }[] = [];
  let closed = false;
  const storage: DeviceStorage = {
    load: () => Promise.resolve({ outbox: [] }),
    write: (change) => new Promise((resolve, reject) => { writes.push({ change, good: resolve, fail: () => reject(new Error("QuotaExceededError")) }); }),
    close: () => { closed = true; return Promise.resolve(); },
  };
  return { storage, writes, isClosed: () => closed };
}
const settle = async (): Promise<void> => { for (let i = 0; i < 10; i += 1) await Promise.resolve(); };

test("one write at a time; what comes meanwhile goes together into the next", async () => {
  const { storage, writes } = gated();
  const persister = new Persister(storage, { failed: () => assert.fail(), fenced: () => assert.fail() });
  const done: string[] = [];
  void persister.save({ put: entry("a") }).then(() => done.push("a"));
  void persister.save({ put: entry("b") }).then(() => done.push("b"));
  void persister.save({ place: { epoch: "1", seq: 1 } }).then(() => done.push("1"));
  void persister.save({ remove: "b", place: { epoch: "1", seq: 2 } }).then(() => done.push("2"));
  assert.deepEqual(writes.map(({ change }) => change.put.map((one) => one.id)), [["a"]]);
  writes[0]?.good();
  await settle();
  assert.deepEqual(done, ["a"]);
  assert.deepEqual(writes[1]?.change, { put: [], remove: ["b"], place: { epoch: "1", seq: 2 } });
  writes[1]?.good();
  await persister.flush();
  assert.deepEqual([done, writes.length], [["a", "b", "1", "2"], 2]);
});

test("a storage that fails: said once, nobody waits, and it is written later with the next", async () => {
  const { storage, writes, isClosed } = gated();
  const failures: string[] = [];
  const persister = new Persister(storage, { failed: (why) => failures.push(why), fenced: () => assert.fail() });
  const first = persister.save({ put: entry("a"), place: { epoch: "1", seq: 1 } });
  writes[0]?.fail();
  assert.equal(await first, false);
  const second = persister.save({ put: entry("b") });
  await settle();
  writes[1]?.fail();
  await second;
  assert.deepEqual(failures, ["Error: QuotaExceededError"]);
  const third = persister.save({ remove: "a", place: { epoch: "1", seq: 2 } });
  await settle();
  assert.deepEqual([writes[2]?.change.put.map((one) => one.id), writes[2]?.change.remove, writes[2]?.change.place], [["b"], ["a"], { epoch: "1", seq: 2 }]);
  writes[2]?.good();
  assert.equal(await third, true);
  const closing = persister.close();
  await closing;
  assert.deepEqual([writes.length, isClosed()], [3, true]);
});

test("what could not be written is tried once more at the end", async () => {
  const { storage, writes } = gated();
  const persister = new Persister(storage, { failed: () => {}, fenced: () => assert.fail() });
  const first = persister.save({ put: entry("a") });
  writes[0]?.fail();
  await first;
  const closing = persister.close();
  await settle();
  assert.equal(writes[1]?.change.put.length, 1);
  writes[1]?.good();
  await closing;
});

test("another client has opened the state: this one is told, writes nothing, and its promises stay open", async () => {
  const memory = new MemoryStorage();
  let fenced = 0;
  const older = new Persister(await memory.open("k"), { failed: () => assert.fail(), fenced: () => { fenced += 1; } });
  const newer = new Persister(await memory.open("k"), { failed: () => assert.fail(), fenced: () => assert.fail() });
  await newer.save({ put: entry("new") });
  let resolved = false;
  void older.save({ put: entry("old") }).then(() => { resolved = true; });
  void older.save({ remove: "new" }).then(() => { resolved = true; });
  await settle();
  assert.deepEqual([fenced, resolved], [1, false]);
  assert.deepEqual((await (await memory.open("k")).load()).outbox, [entry("new")]);
});
