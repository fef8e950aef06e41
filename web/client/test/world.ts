// One client's state machine, the model of a server, a storage and an application, and between them only steps that somebody decides on.
import assert from "node:assert/strict";
import type { Effect, Input, Save, TimerName } from "../src/core/effects.js";
import type { Place } from "../src/core/inbox.js";
import type { OutboxEntry } from "../src/core/outbox.js";
import { Session } from "../src/core/session.js";
import type { ClientFrame } from "../src/protocol/frames.js";
import { uuid7Source } from "../src/protocol/names.js";
import { LIMITS, ME, ModelConnection, ModelServer } from "./model.js";

const newId = uuid7Source(() => Date.now(), (bytes) => crypto.getRandomValues(bytes as Uint8Array<ArrayBuffer>));

export class World {
  readonly server = new ModelServer();
  now = 0;
  /** What survives a reload. */
  readonly disk = { place: null as Place | null, rev: null as string | null, outbox: new Map<string, OutboxEntry>(), reads: {} as Record<string, string> };
  /** Ids in the order of writing, by conversation; only those that were stored must arrive. */
  readonly written = new Map<string, string[]>();
  readonly stored = new Set<string>();
  readonly settled = new Set<string>();
  /** What the application took: epochs and seqs, and where lives begin. */
  readonly taken: { life: number; stream: string; seq: number; id: string }[] = [];
  resyncs = 0;
  life = 0;
  #session: Session;
  #link: ModelConnection | null = null;
  #up: ClientFrame[] = [];
  #saves: Save[] = [];
  #item: Extract<Effect, { do: "deliver" }>["item"] | null = null;
  readonly #timers = new Map<TimerName, number>();
  #order = 0;
  #random: () => number;

  constructor(random: () => number, place: Place | null = { epoch: "", seq: 0 }) {
    this.#random = random;
    this.disk.place = place;
    this.#session = this.#begin();
    this.input({ on: "connect" });
  }

  #begin(): Session {
    const { place, rev, reads } = this.disk;
    const outbox = [...this.disk.outbox.values()].sort((a, b) => a.order - b.order);
    return new Session({ user: ME, device: "a", place, rev, outbox, reads, random: this.#random });
  }

  get state() { return this.#session.state; }
  get place() { return this.#session.place; }
  get waiting() { return this.#session.waiting; }

  input(input: Input): void {
    for (const effect of this.#session.input(input, this.now)) this.#do(effect);
    assert.ok(this.#session.outgoing().filter(({ state }) => state === "sent").length <= LIMITS.in_flight, "no more in flight than allowed");
  }

  #do(effect: Effect): void {
    switch (effect.do) {
      case "token": return this.input({ on: "token", token: "t" });
      case "open":
        this.#link?.die(false);
        this.#link = new ModelConnection(this.server);
        this.#up = [effect.hello];
        return;
      case "post": return void (this.#link !== null && this.#up.push(effect.frame));
      case "close": return this.#drop(false);
      case "timer": return void this.#timers.set(effect.timer, this.now + effect.ms);
      case "cancel": return void this.#timers.delete(effect.timer);
      case "check": return this.input({ on: "checked", works: false });
      case "save": return void this.#saves.push(effect.save);
      case "deliver":
        assert.equal(this.#item, null, "one item at a time");
        this.#item = effect.item;
        return;
      case "outgoing":
        if (effect.change.state === "accepted" || effect.change.state === "placed") this.settled.add(effect.change.id);
        assert.notEqual(effect.change.state, "refused");
        return;
      case "problem": throw new Error(effect.message);
      default: return;
    }
  }

  #drop(kept: boolean): void {
    this.#link?.die(kept);
    this.#link = null;
    this.#up = [];
  }

  // --- steps ---------------------------------------------------------------------------------------------------
  write(peer: number): void {
    const id = newId();
    const to = `u:${43 + peer}`;
    const conversation = `d:42:${43 + peer}`;
    this.written.set(conversation, [...(this.written.get(conversation) ?? []), id]);
    this.input({ on: "write", entry: { order: (this.#order += 1), id, to, kind: "text", body: { text: id } } });
  }

  peer(): void {
    this.server.append("43", "d:42:43", newId(), "from a peer");
    this.server.connection?.events();
  }

  /** The server hears one frame. */
  up(): boolean {
    const frame = this.#up.shift();
    if (frame === undefined || this.#link === null) return false;
    if (frame.type === "send") assert.ok(this.stored.has(frame.id), "stored first, sent second");
    this.#link.hear(frame);
    return true;
  }

  /** The server sends one more event. */
  push(): boolean {
    return this.#link?.events() ?? false;
  }

  /** The client hears one frame. */
  down(): boolean {
    const frame = this.#link?.out.shift();
    if (frame === undefined) return false;
    this.input({ on: "frame", frame, weight: 300 });
    assert.ok(this.backlog <= LIMITS.window_events + 64, "bounded");
    return true;
  }

  settle(which: number, outcome: Parameters<ModelConnection["settle"]>[1]): boolean {
    return this.#link?.settle(which, outcome) ?? false;
  }

  refuse(count: number): void {
    if (this.#link !== null) this.#link.refuse += count;
  }

  /** The storage has written everything that was asked for. */
  disked(): boolean {
    const saves = this.#saves.splice(0);
    for (const { place, rev, put, remove, reads } of saves) {
      if (place !== undefined) this.disk.place = place;
      if (rev !== undefined) this.disk.rev = rev;
      if (reads !== undefined) this.disk.reads = { ...reads };
      if (put !== undefined) { this.disk.outbox.set(put.id, put); this.stored.add(put.id); }
      if (remove !== undefined) this.disk.outbox.delete(remove);
    }
    for (const { place, put } of saves) {
      if (put !== undefined) this.input({ on: "saved", id: put.id });
      if (place !== undefined) this.input({ on: "stored", place });
    }
    return saves.length > 0;
  }

  /** The application has taken what it was handed. */
  take(): boolean {
    const item = this.#item;
    if (item === null) return false;
    this.#item = null;
    if (item.what === "event") this.taken.push({ life: this.life, stream: String(item.frame["stream"]), seq: item.frame.seq, id: String(item.frame["id"]) });
    if (item.what === "resync") { this.resyncs += 1; this.taken.push({ life: this.life, stream: this.server.epoch, seq: item.frame.floor, id: "resync" }); }
    this.input({ on: "taken" });
    return true;
  }

  /** The line breaks; frames on their way are lost. */
  cut(kept: boolean, code = 1006): void {
    if (this.#link === null) return;
    this.#drop(kept);
    this.input({ on: "closed", closed: { code } });
  }

  /** The page is loaded anew: what was not stored is forgotten. */
  reload(kept: boolean): void {
    this.#drop(kept);
    this.#saves = [];
    this.#item = null;
    this.#timers.clear();
    this.life += 1;
    this.#session = this.#begin();
    this.input({ on: "connect" });
  }

  /** Time passes until the next timer, and that one fires. */
  tick(): boolean {
    const [first] = [...this.#timers].sort((a, b) => a[1] - b[1]);
    if (first === undefined) return false;
    this.#timers.delete(first[0]);
    this.now = Math.max(this.now, first[1]);
    this.input({ on: "timer", timer: first[0] });
    return true;
  }

  get backlog(): number { return this.#session.backlog; }

  /** Everything goes well from here on, until nothing more happens. */
  drain(): void {
    for (let i = 0; i < 100_000; i += 1) {
      const busy = [this.disked(), this.take(), this.up(), this.push(), this.down(), this.settle(0, "accepted")].some(Boolean);
      if (busy) continue;
      const quiet = this.state.name === "live" && this.waiting === 0 && !this.#timers.has("ack");
      if (quiet) return;
      assert.ok(this.tick(), "nothing is left that could go on");
    }
    assert.fail("it does not come to rest");
  }
}
