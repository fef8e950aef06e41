/**
 * Text to frames. What the state machine relies on is checked here, once; what a frame has besides is passed on as it is.
 *
 * @packageDocumentation
 */

import { DEFAULT_LIMITS } from "./frames.js";
import type { Limits, ServerFrame, WelcomeFrame, WireMessage } from "./frames.js";

type Fields = Readonly<Record<string, unknown>>;

const DECIMAL = /^(0|[1-9][0-9]{0,19})$/;

const isObject = (value: unknown): value is Fields => typeof value === "object" && value !== null && !Array.isArray(value);
const isText = (value: unknown): value is string => typeof value === "string";
const isDecimal = (value: unknown): value is string => isText(value) && DECIMAL.test(value);
const isSeq = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const isCount = (value: unknown): value is number => typeof value === "number" && Number.isFinite(value) && value >= 0;
const isAbsent = (value: unknown): boolean => value === undefined || value === null;
const optional = (value: unknown, check: (value: unknown) => boolean): boolean => isAbsent(value) || check(value);

/** Whether this is a whole message: what a page or an event has to hold. */
export function isWireMessage(value: unknown): value is WireMessage {
  return isObject(value) && value["event"] === "message" && isText(value["conversation"]) && isDecimal(value["position"])
    && isDecimal(value["from"]) && isText(value["id"]) && isText(value["kind"]) && isObject(value["body"]) && isText(value["at"])
    && optional(value["reply_to"], (to) => isObject(to) && isDecimal(to["from"]) && isText(to["id"]));
}

/** Whether this is a refusal that came as an event. */
export function isWireRefusal(value: unknown): value is { conversation: string; id: string; code: string; at: string } {
  return isObject(value) && value["event"] === "refused" && isText(value["id"]) && isText(value["code"]) && isText(value["conversation"]);
}

function isConversation(value: unknown): boolean {
  const receipt = (one: unknown): boolean => isObject(one) && isDecimal(one["member"]) && isDecimal(one["delivered"]) && isDecimal(one["read"]);
  return isObject(value) && isText(value["conversation"]) && isWireMessage(value["last"]) && optional(value["unread"], isCount)
    && optional(value["read"], isDecimal) && optional(value["receipts"], (list) => Array.isArray(list) && list.every(receipt));
}

const CHECKS: Readonly<Record<ServerFrame["type"], (frame: Fields) => boolean>> = {
  welcome: (frame) => isDecimal(frame["user"]) && isText(frame["device"]) && isDecimal(frame["epoch"]) && isText(frame["now"]),
  event: (frame) => isSeq(frame["seq"]) && frame["seq"] > 0 && isText(frame["event"]),
  live: (frame) => isSeq(frame["head"]),
  resync: (frame) => isDecimal(frame["epoch"]) && isSeq(frame["head"]) && isSeq(frame["floor"]) && isText(frame["reason"]),
  accepted: (frame) => isText(frame["id"]) && isText(frame["conversation"]),
  refused: (frame) => isText(frame["id"]) && isText(frame["code"]) && typeof frame["final"] === "boolean"
    && optional(frame["retry_after_ms"], isCount),
  error: (frame) => isText(frame["code"]) && optional(frame["id"], isText) && optional(frame["retry_after_ms"], isCount),
  page: (frame) => isText(frame["conversation"]) && Array.isArray(frame["events"]) && optional(frame["before"], isDecimal),
  conversations: (frame) => Array.isArray(frame["conversations"]) && frame["conversations"].every(isConversation)
    && optional(frame["before"], isText),
  receipt: (frame) => isText(frame["conversation"])
    && [frame["member"], frame["delivered"], frame["read"], frame["rev"]].every(isDecimal),
  typing: (frame) => isText(frame["conversation"]) && isDecimal(frame["from"]),
  presence: (frame) => isDecimal(frame["user"]) && typeof frame["online"] === "boolean" && optional(frame["last_seen"], isText),
  pong: () => true,
  move: (frame) => isCount(frame["after_ms"]),
  reauth: (frame) => isText(frame["before"]),
};

/** What became of a text: a frame, one of a type this client does not know (to be ignored), or nonsense. */
export type Parsed =
  | { readonly what: "frame"; readonly frame: ServerFrame }
  | { readonly what: "unknown"; readonly type: string }
  | { readonly what: "bad"; readonly why: string };

/** Reads one frame of the server. Never throws. */
export function parseFrame(text: string): Parsed {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { what: "bad", why: "not JSON" };
  }
  return checkFrame(value);
}

/** Reads a frame that is JSON already. */
export function checkFrame(value: unknown): Parsed {
  if (!isObject(value) || !isText(value["type"])) return { what: "bad", why: "no type" };
  const type = value["type"];
  if (!Object.hasOwn(CHECKS, type)) return { what: "unknown", type };
  if (!CHECKS[type as ServerFrame["type"]](value)) return { what: "bad", why: `fields of ${type}` };
  if (type === "welcome") return { what: "frame", frame: completed(value as unknown as WelcomeFrame) };
  return { what: "frame", frame: value as unknown as ServerFrame };
}

/**
 * A `welcome` whose limits and heartbeat are all there: what a server leaves out is the default. One that names no `watch_users` knows no receipts, typing
 * or presence: then it is 0.
 */
function completed(frame: WelcomeFrame): WelcomeFrame {
  const told: Fields = isObject(frame.limits) ? frame.limits : {};
  const limits = Object.fromEntries(Object.entries(DEFAULT_LIMITS).map(([name, value]) => {
    const given = told[name];
    if (name === "watch_users" && given === undefined) return [name, 0];
    return [name, isCount(given) && given >= 1 ? given : value];
  })) as unknown as Limits;
  const heartbeat_s = isCount(frame.heartbeat_s) && frame.heartbeat_s > 0 ? frame.heartbeat_s : 30;
  return { ...frame, heartbeat_s, limits };
}
