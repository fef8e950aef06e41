/**
 * What comes from the mailbox: which events are new, where the cursor is, what may be acknowledged. Pure.
 *
 * The application takes one item after the other. Only when it has taken an event the cursor moves; only when the cursor is stored it is
 * acknowledged. A slow application therefore stops the acknowledgements, and the server's window stops the events: what waits here is never more
 * than that window.
 *
 * Loss policy: events are never dropped, but for repeats (known by `seq`) and for those of a stream that is gone. Receipts that wait are merged
 * for each member; if there are too many pairs, the connection is given up and they come again by `rev`.
 *
 * @packageDocumentation
 */

import type { EventFrame, HelloFrame, Limits, ReceiptFrame, ResyncFrame } from "../protocol/frames.js";
import { comparePositions, laterPosition } from "../protocol/names.js";

/** A place in a mailbox: everything up to `seq` was taken. */
export interface Place {
  readonly epoch: string;
  readonly seq: number;
}

/** What the application is handed, one at a time, in order. */
export type Item =
  | { readonly what: "event"; readonly frame: EventFrame; readonly weight: number }
  | { readonly what: "receipt"; readonly frame: ReceiptFrame }
  | { readonly what: "resync"; readonly frame: ResyncFrame };

/** What an event turned out to be. */
export type Heard =
  /** It waits for the application. */
  | "new"
  /** It was had before. */
  | "repeat"
  /** Something is missing before it, or more came than the server may send: give the connection up and resume. */
  | "broken";

/** Events behind the window that are still no fault: the server counts a little differently. */
const SLACK = 64;
/** Pairs of conversation and member whose receipts may wait. */
const RECEIPTS_MAX = 4096;
/** Taken events before they are acknowledged without waiting for the timer. */
const ACK_EVENTS = 32;

/** The mailbox as this device sees it. */
export class Inbox {
  /** Taken by the application; `null`: never attached, the server's record of this device counts. */
  #taken: Place | null;
  /** Newest revision of receipts that the application has taken; `null`: none. */
  #rev: string | null;
  readonly #events: Extract<Item, { what: "event" | "resync" }>[] = [];
  readonly #receipts = new Map<string, ReceiptFrame>();
  #busy: Item | null = null;
  #stale = false;
  /** Highest seq that has been queued. */
  #queued: number | null;
  /** Per connection: highest seq that came (or was given in hello), and highest acknowledged. `null`: nothing yet. */
  #came: number | null = null;
  #acked = 0;
  #epoch: string | null = null;
  #stored = 0;
  #unackedBytes = 0;

  /** Begins where a storage says; `null` where it says nothing. */
  constructor(place: Place | null, rev: string | null) {
    this.#taken = place;
    this.#rev = rev;
    this.#queued = place?.seq ?? null;
    this.#stored = place?.seq ?? 0;
  }

  /** The last place the application has taken. */
  get place(): Place | null {
    return this.#taken;
  }

  /** The newest revision of receipts the application has taken. */
  get rev(): string | null {
    return this.#rev;
  }

  /** Items that wait for the application. */
  get waiting(): number {
    return this.#events.length + this.#receipts.size;
  }

  /** What `hello` says of cursor, epoch and revision. A connection begins, or goes on after `resync` from the place that asked for. */
  hello(place: Place | null = this.#taken): Pick<HelloFrame, "cursor" | "epoch" | "rev"> {
    // 0 is "from the oldest event kept": then the first one may be any
    this.#came = place === null || place.seq === 0 ? null : place.seq;
    this.#acked = place?.seq ?? 0;
    this.#unackedBytes = 0;
    this.#epoch = place === null || place.epoch === "" ? null : place.epoch;
    return {
      ...(place === null ? {} : { cursor: place.seq }),
      ...(this.#epoch === null ? {} : { epoch: this.#epoch }),
      rev: this.#rev ?? "0",
    };
  }

  /** The session's stream, if hello did not name one. What the server knows before it has looked: `resync` corrects it the next time. */
  welcome(epoch: string): void {
    this.#epoch ??= epoch;
    if (this.#taken?.epoch === "") this.#taken = { epoch: this.#epoch, seq: this.#taken.seq };
  }

  /** An event has come; `weight` is about its bytes. */
  event(frame: EventFrame, weight: number, limits: Limits): Heard {
    const expected = this.#came === null ? frame.seq : this.#came + 1;
    if (frame.seq > expected) return "broken";
    if (frame.seq < expected) return "repeat";
    if (this.#came === null) this.#acked = frame.seq - 1;
    this.#came = frame.seq;
    if (this.#queued !== null && frame.seq <= this.#queued) return "repeat";
    if (this.#events.length >= limits.window_events + SLACK) return "broken";
    this.#taken ??= { epoch: this.#epoch ?? "", seq: frame.seq - 1 };
    this.#queued = frame.seq;
    this.#events.push({ what: "event", frame, weight });
    return "new";
  }

  /** `live`: everything up to `head` has been sent. Returns the place if it is only now known. */
  live(head: number): Place | "broken" | null {
    if (this.#came !== null && this.#came !== head) return "broken";
    if (this.#came === null) this.#acked = head;
    this.#came = head;
    const idle = this.#events.length === 0 && this.#busy === null;
    if (this.#taken !== null && (this.#taken.seq >= head || !idle)) return null;
    this.#taken = { epoch: this.#epoch ?? "", seq: head };
    this.#queued = this.#stored = head;
    return this.#taken;
  }

  /**
   * The cursor is no good: go on from the oldest event kept. What waits here and is of another stream goes; below the floor it is still right, and
   * the application takes it before it hears of the gap. Returns the place for {@link hello}.
   */
  resync(frame: ResyncFrame): Place {
    const place = { epoch: frame.epoch, seq: frame.floor };
    if (frame.reason !== "below_floor") this.#forgetStream(place);
    this.#events.push({ what: "resync", frame });
    this.#queued = this.#stored = frame.floor;
    return place;
  }

  /** The stream has been replaced (4410): begin at the oldest event of the present one. The application is told as by `resync`. */
  forget(): void {
    this.#forgetStream({ epoch: "", seq: 0 });
    this.#events.push({ what: "resync", frame: { type: "resync", epoch: "", head: 0, floor: 0, reason: "epoch" } });
    this.#queued = this.#stored = 0;
  }

  #forgetStream(place: Place): void {
    this.#events.length = 0;
    this.#receipts.clear();
    this.#stale = this.#busy !== null;
    this.#rev = null;
    this.#taken = place;
    this.#epoch = place.epoch === "" ? null : place.epoch;
  }

  /** A receipt has come. False: too many wait. */
  receipt(frame: ReceiptFrame): boolean {
    if (this.#rev !== null && comparePositions(frame.rev, this.#rev) <= 0) return true;
    const key = `${frame.conversation} ${frame.member}`;
    const before = this.#receipts.get(key);
    if (before === undefined && this.#receipts.size >= RECEIPTS_MAX) {
      this.#receipts.clear();
      return false;
    }
    // at the end, so that they leave in the order of their revisions
    this.#receipts.delete(key);
    this.#receipts.set(key, before === undefined ? frame : merged(before, frame));
    return true;
  }

  /** The next item for the application, if it is free. */
  next(): Item | null {
    if (this.#busy !== null) return null;
    const event = this.#events.shift();
    if (event !== undefined) return (this.#busy = event);
    const first = this.#receipts.entries().next();
    if (first.done === true) return null;
    this.#receipts.delete(first.value[0]);
    return (this.#busy = { what: "receipt", frame: first.value[1] });
  }

  /** The application has taken the item it had. What is to be stored now, if anything. */
  taken(): { readonly place?: Place; readonly rev?: string | null } {
    const item = this.#busy;
    const stale = this.#stale;
    this.#busy = null;
    this.#stale = false;
    if (item === null || stale) return {};
    if (item.what === "receipt") {
      this.#rev = this.#rev === null ? item.frame.rev : laterPosition(item.frame.rev, this.#rev);
      return { rev: this.#rev };
    }
    const present = this.#epoch ?? this.#taken?.epoch ?? "";
    if (item.what === "resync") {
      this.#taken = { epoch: item.frame.epoch === "" ? present : item.frame.epoch, seq: item.frame.floor };
      return { place: this.#taken, rev: this.#rev };
    }
    this.#unackedBytes += item.weight;
    this.#taken = { epoch: present, seq: item.frame.seq };
    return { place: this.#taken };
  }

  /** A place is stored (or cannot be, and that was told): it may be acknowledged. */
  stored(place: Place): void {
    const ours = place.epoch === "" || place.epoch === this.#taken?.epoch;
    if (ours && place.seq <= (this.#taken?.seq ?? 0)) this.#stored = Math.max(this.#stored, place.seq);
  }

  /** What to acknowledge: at once if it is much, else when the timer asks (`now`). `null`: nothing; `"later"`: set the timer. */
  acknowledge(now: boolean, limits: Limits): number | "later" | null {
    // never what has not come on this connection: the server would take it for a fault
    const seq = Math.min(this.#stored, this.#came ?? 0);
    if (seq <= this.#acked) return null;
    const much = seq - this.#acked >= Math.min(ACK_EVENTS, limits.window_events / 4) || this.#unackedBytes >= limits.window_bytes / 4;
    if (!now && !much) return "later";
    this.#acked = seq;
    this.#unackedBytes = 0;
    return seq;
  }
}

function merged(a: ReceiptFrame, b: ReceiptFrame): ReceiptFrame {
  return {
    ...b,
    delivered: laterPosition(a.delivered, b.delivered),
    read: laterPosition(a.read, b.read),
    rev: laterPosition(a.rev, b.rev),
  };
}
