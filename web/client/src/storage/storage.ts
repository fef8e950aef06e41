/**
 * What must survive a reload, and the interface behind which it is kept: cursor, revision of receipts, read positions on their way, outbox.
 *
 * @packageDocumentation
 */

import type { Place } from "../core/inbox.js";
import type { OutboxEntry } from "../core/outbox.js";
import { isRecipient, isUuid7 } from "../protocol/names.js";

/** One atomic change. */
export interface StoredChange {
  readonly place?: Place;
  /** `null`: forget it. */
  readonly rev?: string | null;
  readonly reads?: Readonly<Record<string, string>>;
  readonly put: readonly OutboxEntry[];
  /** Ids of outbox entries. */
  readonly remove: readonly string[];
}

/** What a storage holds, as it is: nobody has looked at it. */
export interface StoredState {
  readonly place?: unknown;
  readonly rev?: unknown;
  readonly reads?: unknown;
  /** Entries in any order. */
  readonly outbox: readonly unknown[];
}

/** The state of one device, held by one client at a time. */
export interface DeviceStorage {
  /** Everything there is. */
  load(): Promise<StoredState>;
  /**
   * Writes a change as a whole or not at all.
   *
   * @throws {@link FencedError} when another client has opened this state since; anything else when it cannot be written now
   */
  write(change: StoredChange): Promise<void>;
  /** Lets go of it. */
  close(): Promise<void>;
}

/** A place to keep state. Write your own for other environments: files, SQLite, a native store. */
export interface Storage {
  /**
   * Opens the state of one device. Whoever had it open before is fenced: its writes fail from now on.
   *
   * @param key - names server, user and device
   */
  open(key: string): Promise<DeviceStorage>;
}

/** Another client has opened this state: nothing is written here any more. */
export class FencedError extends Error {
  override readonly name = "FencedError";
}

/** State that can be relied on, and what had to be left out. */
export interface CheckedState {
  readonly place: Place | null;
  readonly rev: string | null;
  readonly reads: Readonly<Record<string, string>>;
  /** In the order of writing. */
  readonly outbox: readonly OutboxEntry[];
  /** In words, without contents. */
  readonly broken: readonly string[];
}

type Fields = Readonly<Record<string, unknown>>;
const DECIMAL = /^(0|[1-9][0-9]{0,19})$/;
const isObject = (value: unknown): value is Fields => typeof value === "object" && value !== null && !Array.isArray(value);
const isSeq = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const isDecimal = (value: unknown): value is string => typeof value === "string" && DECIMAL.test(value);

function isPlace(value: unknown): value is Place {
  return isObject(value) && (value["epoch"] === "" || isDecimal(value["epoch"])) && isSeq(value["seq"]);
}

function isEntry(value: unknown): value is OutboxEntry {
  if (!isObject(value)) return false;
  const { order, id, to, kind, body, reply_to } = value;
  const reply = reply_to === undefined || (isObject(reply_to) && isDecimal(reply_to["from"]) && typeof reply_to["id"] === "string");
  return isSeq(order) && typeof id === "string" && isUuid7(id) && typeof to === "string" && isRecipient(to) && typeof kind === "string"
    && isObject(body) && reply;
}

/**
 * Looks at what a storage held. Whatever is broken is left out, piece by piece: a broken cursor means that the server's own record of this device
 * counts; a broken message is lost here, and that is said.
 *
 * @param max - entries of the outbox that are taken at most
 */
export function checkState(state: StoredState, max: number): CheckedState {
  const broken: string[] = [];
  const piece = <T>(name: string, value: unknown, good: (value: unknown) => value is T): T | null => {
    if (value === undefined || value === null) return null;
    if (good(value)) return value;
    broken.push(name);
    return null;
  };
  const place = piece("cursor", state.place, isPlace);
  const rev = piece("revision of receipts", state.rev, isDecimal);
  const given = piece("read positions", state.reads, isObject) ?? {};
  const reads = Object.fromEntries(Object.entries(given).filter((pair): pair is [string, string] => isDecimal(pair[1])));
  if (Object.keys(reads).length < Object.keys(given).length) broken.push("a read position");
  const entries = Array.isArray(state.outbox) ? state.outbox : [];
  const seen = new Set<string>();
  const outbox = entries.filter(isEntry).sort((a, b) => a.order - b.order)
    .filter((entry) => !seen.has(entry.id) && seen.add(entry.id)).slice(0, max);
  if (outbox.length < entries.length) broken.push(`${entries.length - outbox.length} of ${entries.length} messages of the outbox`);
  return { place, rev, reads, outbox, broken };
}
