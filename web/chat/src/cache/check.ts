/** What was found in the cache, checked piece by piece: whatever is not what this version writes is left out. */

import type { Message, MessageReference } from "@switchboard/client";
import { NO_MARKS } from "../model/ticks.js";
import type { Marks } from "../model/ticks.js";

/** One line of the list of conversations. */
export interface Line {
  readonly conversation: string;
  readonly last: Message | null;
  readonly unread: number;
  /** One's own read position. */
  readonly read: string;
  /** The other's. */
  readonly marks: Marks;
}

/** What is known of a user. */
export interface Known {
  readonly name: string;
  readonly about: string;
  /** The number this person was looked up by. */
  readonly phone?: string;
  /** When the server was asked, Unix milliseconds. */
  readonly at: number;
}

/** A message that was written, as long as the client's outbox does not have it. */
export interface Unstored {
  readonly id: string;
  readonly conversation: string;
  readonly text: string;
  readonly replyTo: MessageReference | null;
}

type Fields = Readonly<Record<string, unknown>>;
const isFields = (value: unknown): value is Fields => typeof value === "object" && value !== null && !Array.isArray(value);
const isText = (value: unknown): value is string => typeof value === "string";
const isNumber = (value: unknown): value is string => isText(value) && /^(0|[1-9][0-9]{0,19})$/.test(value);
const isConversation = (value: unknown): value is string => isText(value) && /^d:[1-9][0-9]{0,18}:[1-9][0-9]{0,18}$/.test(value);

function referenceOf(value: unknown): MessageReference | null {
  return isFields(value) && isNumber(value["from"]) && isText(value["id"]) ? { from: value["from"], id: value["id"] } : null;
}

/** A message, or `null` if it is none. */
export function messageOf(value: unknown): Message | null {
  if (!isFields(value)) return null;
  const { conversation, position, from, id, kind, text, body, replyTo, at, mine } = value;
  if (!isConversation(conversation) || !isNumber(position) || !isNumber(from) || !isText(id) || !isText(kind) || !isText(text) || !isText(at)) return null;
  return { conversation, position, from, id, kind, text, body: isFields(body) ? body : {}, replyTo: referenceOf(replyTo), at, mine: mine === true };
}

/** The good ones of an array. */
function all<T>(value: unknown, check: (one: unknown) => T | null): T[] {
  return Array.isArray(value) ? value.map(check).filter((one): one is NonNullable<typeof one> => one !== null) : [];
}

export const messagesOf = (value: unknown): Message[] => all(value, messageOf);

function marksOf(value: unknown): Marks {
  return isFields(value) && isNumber(value["delivered"]) && isNumber(value["read"]) ? { delivered: value["delivered"], read: value["read"] } : NO_MARKS;
}

function lineOf(value: unknown): Line | null {
  if (!isFields(value) || !isConversation(value["conversation"])) return null;
  const { conversation, last, unread, read, marks } = value;
  return {
    conversation, last: messageOf(last), unread: Number.isSafeInteger(unread) && (unread as number) > 0 ? (unread as number) : 0,
    read: isNumber(read) ? read : "0", marks: marksOf(marks),
  };
}

export const linesOf = (value: unknown): Line[] => all(value, lineOf);

/** Profiles by user. */
export function knownOf(value: unknown): Map<string, Known> {
  const found = new Map<string, Known>();
  if (!isFields(value)) return found;
  for (const [user, one] of Object.entries(value)) {
    if (!isNumber(user) || !isFields(one) || !isText(one["name"]) || !isText(one["about"])) continue;
    const at = one["at"];
    found.set(user, {
      name: one["name"], about: one["about"], at: typeof at === "number" && Number.isFinite(at) ? at : 0,
      ...(isText(one["phone"]) ? { phone: one["phone"] } : {}),
    });
  }
  return found;
}

/** Texts by conversation. */
export function draftsOf(value: unknown): Map<string, string> {
  const entries = isFields(value) ? Object.entries(value) : [];
  return new Map(entries.filter((entry): entry is [string, string] => isConversation(entry[0]) && isText(entry[1]) && entry[1] !== ""));
}

function unstoredOf(value: unknown): Unstored | null {
  if (!isFields(value)) return null;
  const { id, conversation, text, replyTo } = value;
  return isText(id) && isConversation(conversation) && isText(text) && text !== "" ? { id, conversation, text, replyTo: referenceOf(replyTo) } : null;
}

export const allUnstored = (value: unknown): Unstored[] => all(value, unstoredOf);
