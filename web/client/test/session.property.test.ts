// Whatever breaks, in whatever order: everything stored arrives, once, in order; every event is taken, once in a life, in order.
import { test } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { ME } from "./model.js";
import type { Outcome } from "./model.js";
import { World } from "./world.js";

type Step = readonly [name: string, argument: number];
const OUTCOMES: readonly Outcome[] = ["accepted", "accepted", "accepted", "unavailable", "unknown_lost", "unknown_kept", "overdue"];

const step = (name: string, weight: number, max = 0) => ({ weight, arbitrary: fc.tuple(fc.constant(name), fc.nat(max)) });
const STEPS: fc.Arbitrary<Step[]> = fc.array(fc.oneof(
  step("write", 6, 2), step("peer", 3), step("up", 10, 4), step("push", 8, 4), step("down", 10, 4), step("settle", 8, OUTCOMES.length - 1), step("refuse", 1, 3),
  step("disked", 6), step("take", 6, 3), step("cut", 1, 1), step("reload", 1, 1), step("tick", 4), step("online", 1),
), { maxLength: 400, size: "max" });

function perform(world: World, [name, n]: Step): void {
  const times = (work: () => unknown): void => { for (let i = 0; i <= n; i += 1) work(); };
  switch (name) {
    case "write": return world.write(n);
    case "peer": return world.peer();
    case "up": return times(() => world.up());
    case "push": return times(() => world.push());
    case "down": return times(() => world.down());
    case "settle": return void world.settle(n, OUTCOMES[n] ?? "accepted");
    case "refuse": return world.refuse(n);
    case "disked": return void world.disked();
    case "take": return times(() => world.take());
    case "cut": return world.cut(n === 1);
    case "reload": return world.reload(n === 1);
    case "tick": return void world.tick();
    case "online": return world.input({ on: "online" });
    default: throw new Error(name);
  }
}

function checkOutgoing(world: World): void {
  for (const [conversation, ids] of world.written) {
    const arrived = world.server.log.filter((entry) => entry.from === ME && entry.conversation === conversation).map((entry) => entry.id);
    assert.deepEqual(arrived, ids.filter((id) => arrived.includes(id)), "in the order of writing");
    for (const id of ids) if (world.stored.has(id)) assert.ok(arrived.includes(id), "what was stored arrives");
  }
  assert.equal(world.disk.outbox.size, 0, "nothing is left that would be sent again");
}

function checkTaken(world: World): void {
  let [life, last, place] = [0, 0, 0];
  for (const one of world.taken) {
    if (one.life !== life) { assert.ok(one.seq <= last + 1, "a new life skips nothing"); life = one.life; place = one.seq - 1; }
    assert.equal(one.seq, place + 1, "one after the other");
    place = last = one.seq;
  }
  assert.equal(last, world.server.head, "all of them");
}

test("nothing lost, nothing twice, in order, whatever breaks", () => {
  fc.assert(fc.property(STEPS, fc.infiniteStream(fc.double({ min: 0, max: 1, noNaN: true })), (steps, chance) => {
    const world = new World(() => chance.next().value ?? 0.5);
    for (const one of steps) perform(world, one);
    world.drain();
    checkOutgoing(world);
    checkTaken(world);
    assert.equal(world.resyncs, 0);
  }), { numRuns: Number(process.env["RUNS"] ?? 400) });
});

test("a stream that was replaced is told and comes again as a whole", () => {
  fc.assert(fc.property(STEPS, fc.nat(20), fc.boolean(), (steps, keep, told) => {
    const world = new World(() => 0.5);
    const half = Math.floor(steps.length / 2);
    for (const one of steps.slice(0, half)) perform(world, one);
    // nothing is drained here: what waits, and what the application is busy with, is of the old stream
    const known = world.disk.place?.epoch === world.server.epoch;
    world.server.replaceStream(keep);
    world.cut(false, told ? 4410 : 1006);
    for (const one of steps.slice(half)) perform(world, one);
    world.drain();
    if (known) assert.ok(world.resyncs >= 1, "the application hears of it");
    const again = new Set(world.taken.filter((one) => one.id !== "resync" && one.stream === world.server.epoch).map((one) => one.seq));
    assert.deepEqual([...again].sort((a, b) => a - b), Array.from({ length: world.server.head }, (_, i) => i + 1), "all of the new stream");
    checkOutgoing(world);
    assert.equal(world.waiting, 0);
  }), { numRuns: Number(process.env["RUNS"] ?? 200) });
});

test("retention that went over the cursor: what is kept comes, and the gap is told once", () => {
  const world = new World(() => 0.5);
  for (let i = 0; i < 5; i += 1) world.peer();
  world.drain();
  world.cut(false);
  for (let i = 0; i < 10; i += 1) world.peer();
  world.server.floor = 8;
  world.drain();
  assert.deepEqual(world.taken.slice(5).map((one) => [one.id === "resync", one.seq]), [[true, 8], ...[9, 10, 11, 12, 13, 14, 15].map((seq) => [false, seq])]);
  world.reload(false);
  world.drain();
  assert.equal(world.resyncs, 1);
});
