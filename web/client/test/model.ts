// A server in a few lines, as far as a client can tell: one mailbox, lanes with fences, a window. Everything asynchronous is a step somebody else
// decides on. It throws when the client does what the protocol forbids.
import assert from "node:assert/strict";
import type { ClientFrame, HelloFrame, SendFrame, ServerFrame } from "../src/protocol/frames.js";
import { conversationOf } from "../src/protocol/names.js";

export const ME = "42";
export const LIMITS = {
  body_bytes: 16_384, frame_bytes: 65_536, sends_per_s: 50, sends_burst: 100, window_events: 8, window_bytes: 262_144, in_flight: 6,
  page_events: 100, watch_users: 200,
};
export type Outcome = "accepted" | "unavailable" | "unknown_lost" | "unknown_kept" | "overdue";

interface Lane { underWay: { frame: SendFrame; copies: number } | null; waiting: SendFrame[]; fence: string | null }

export interface LogEntry { readonly conversation: string; readonly from: string; readonly id: string; readonly text: unknown }

/** What outlives connections. */
export class ModelServer {
  readonly log: LogEntry[] = [];
  epoch = "1";
  floor = 0;
  head = 0;
  connection: ModelConnection | null = null;

  append(from: string, conversation: string, id: string, text: unknown): void {
    if (this.log.some((entry) => entry.id === id && entry.conversation === conversation)) return;
    this.log.push({ from, conversation, id, text });
    this.head += 1;
  }

  eventFrame(seq: number): ServerFrame {
    const entry = this.log[this.log.length - (this.head - seq) - 1];
    assert.ok(entry);
    return {
      type: "event", seq, event: "message", conversation: entry.conversation, position: String(1000 + this.log.indexOf(entry)), from: entry.from,
      id: entry.id, kind: "text", body: { text: entry.text }, at: "2026-11-21T09:00:01.123Z", stream: this.epoch,
    };
  }

  /** The mailbox is another one from now on, with the newest `keep` events of the old. */
  replaceStream(keep: number): void {
    this.epoch = String(Number(this.epoch) + 1);
    this.head = Math.min(keep, this.log.length);
    this.floor = 0;
  }
}

/** One connection, as the server sees it. */
export class ModelConnection {
  readonly out: ServerFrame[] = [];
  readonly #server: ModelServer;
  readonly #lanes = new Map<string, Lane>();
  #next: number | null = null;
  #acked = 0;
  #live = false;
  #inFlight = 0;
  #greeted = false;
  /** How many of the sends to come are refused at the door. */
  refuse = 0;

  constructor(server: ModelServer) {
    this.#server = server;
    server.connection = this;
  }

  hear(frame: ClientFrame): void {
    if (frame.type === "hello") return this.#hello(frame);
    assert.ok(this.#greeted, "nothing before hello");
    if (frame.type === "send") return this.#send(frame);
    if (frame.type === "ping") this.out.push({ type: "pong", now: "" });
    if (frame.type !== "received") return;
    assert.ok(this.#next !== null && frame.seq < this.#next, `acknowledged ${frame.seq}, which was never sent here`);
    assert.ok(frame.seq > this.#acked, "an acknowledgement that says nothing");
    this.#acked = frame.seq;
    this.events();
  }

  #hello(frame: HelloFrame): void {
    const { epoch, head, floor } = this.#server;
    assert.ok(!this.#greeted || this.#next === null, "a second hello only after resync");
    if (!this.#greeted) {
      this.out.push({ type: "welcome", user: ME, device: "a", epoch, now: new Date().toISOString(), heartbeat_s: 30, limits: LIMITS });
    }
    this.#greeted = true;
    const cursor = frame.cursor ?? head;
    const reason = frame.epoch !== undefined && frame.epoch !== epoch ? "epoch" : cursor > head ? "ahead" : cursor < floor && cursor !== 0 ? "below_floor" : null;
    if (reason !== null) return void this.out.push({ type: "resync", epoch, head, floor, reason });
    this.#acked = Math.max(cursor, floor);
    this.#next = this.#acked + 1;
    this.events();
  }

  /** Sends one more event, if the window lets it; or `live`. False: nothing to send. */
  events(): boolean {
    if (this.#next === null) return false;
    if (this.#next <= this.#server.head) {
      if (this.#next - this.#acked > LIMITS.window_events) return false;
      return this.out.push(this.#server.eventFrame(this.#next++)) > 0;
    }
    if (this.#live) return false;
    this.#live = true;
    return this.out.push({ type: "live", head: this.#next - 1 }) > 0;
  }

  #send(frame: SendFrame): void {
    const name = conversationOf(ME, frame.to);
    const lane = this.#lanes.get(name) ?? { underWay: null, waiting: [], fence: null };
    this.#lanes.set(name, lane);
    const refuse = (code: string, retry_after_ms: number): void => void this.out.push({ type: "refused", id: frame.id, code, retry_after_ms, final: false });
    if (lane.fence !== null && lane.fence !== frame.id) return refuse("fenced", 100);
    if (this.refuse > 0) {
      this.refuse -= 1;
      lane.fence ??= frame.id;
      return refuse("rate", 20);
    }
    assert.ok(this.#inFlight < LIMITS.in_flight * 2, "far over in_flight");
    if (this.#inFlight >= LIMITS.in_flight) {
      lane.fence ??= frame.id;
      return refuse("busy", 200);
    }
    lane.fence = null;
    this.#inFlight += 1;
    if (lane.underWay?.frame.id === frame.id) lane.underWay.copies += 1;
    else if (lane.underWay !== null) lane.waiting.push(frame);
    else lane.underWay = { frame, copies: 0 };
  }

  /** One attempt gets its report. False: none is under way. */
  settle(which: number, outcome: Outcome): boolean {
    const busy = [...this.#lanes].filter(([, lane]) => lane.underWay !== null);
    const found = busy[which % Math.max(busy.length, 1)];
    if (found === undefined) return false;
    const [name, lane] = found;
    const first = lane.underWay;
    assert.ok(first);
    const unknown: ServerFrame = { type: "error", code: "outcome_unknown", id: first.frame.id, retry_after_ms: 1000 };
    if (outcome === "overdue") return this.out.push(unknown) > 0;
    lane.underWay = null;
    if (outcome === "accepted" || outcome === "unknown_kept") this.#server.append(ME, name, first.frame.id, first.frame.body["text"]);
    for (let i = 0; i <= first.copies; i += 1) {
      this.#inFlight -= 1;
      this.out.push(outcome === "accepted" ? { type: "accepted", id: first.frame.id, conversation: name }
        : outcome === "unavailable" ? { type: "refused", id: first.frame.id, code: "unavailable", retry_after_ms: 500, final: false } : unknown);
    }
    if (outcome === "accepted") {
      const next = lane.waiting.shift();
      if (next !== undefined) lane.underWay = { frame: next, copies: 0 };
    } else {
      lane.fence = first.frame.id;
      for (const behind of lane.waiting.splice(0)) {
        this.#inFlight -= 1;
        this.out.push({ type: "refused", id: behind.id, code: "fenced", retry_after_ms: 100, final: false });
      }
    }
    this.events();
    return true;
  }

  /** The connection is gone. Of each lane the attempt under way may have become durable. */
  die(kept: boolean): void {
    for (const [name, lane] of this.#lanes) {
      if (kept && lane.underWay !== null) this.#server.append(ME, name, lane.underWay.frame.id, lane.underWay.frame.body["text"]);
    }
    this.#server.connection = null;
  }
}
