/**
 * What an application sees: the events of a client, and how frames become them.
 *
 * @packageDocumentation
 */

import type { ConnectionState, OutgoingChange } from "./core/effects.js";
import type { EventFrame, Limits, ReceiptFrame, ResyncFrame, ServerFrame, WireConversation, WireMessage } from "./protocol/frames.js";

/** Names a message inside its conversation. */
export interface MessageReference {
  readonly from: string;
  readonly id: string;
}

/** A message. Its identity is (`from`, `conversation`, `id`); the order of a conversation is by `position` ({@link comparePositions}). */
export interface Message {
  /** `d:<lower user>:<higher user>`. */
  readonly conversation: string;
  /** A 64-bit number as text. */
  readonly position: string;
  /** The sender, a number as text. */
  readonly from: string;
  /** The UUID its sender gave it. */
  readonly id: string;
  readonly kind: string;
  /** The text of a message of kind `text`; empty for kinds this client does not know. Text of a person: never put it into markup. */
  readonly text: string;
  readonly body: Readonly<Record<string, unknown>>;
  /** The message it answers. */
  readonly replyTo: MessageReference | null;
  /** When the server took it in, RFC 3339. */
  readonly at: string;
  /** Whether this user sent it, from whatever device. */
  readonly mine: boolean;
  /** Its place in this user's mailbox; only on messages that came as events. */
  readonly seq?: number;
}

/** How far a member of a conversation has come; positions, `"0"` where none. */
export interface Receipt {
  readonly conversation: string;
  readonly member: string;
  readonly delivered: string;
  readonly read: string;
  /** Whether it is this user's own: read elsewhere. */
  readonly mine: boolean;
}

/** A conversation as in a list. */
export interface Conversation {
  readonly conversation: string;
  readonly last: Message;
  /** Messages of others behind one's own read position, at most 1000; 0 from a server that does not count. */
  readonly unread: number;
  /** One's own read position. */
  readonly read: string;
  readonly receipts: readonly Omit<Receipt, "conversation" | "mine">[];
}

/** A page; `before` goes into the next call, `null`: there is no more. */
export interface Page<T> {
  readonly items: readonly T[];
  readonly before: string | null;
}

/** What comes next does not continue what came before: load what is shown anew. */
export interface Resync {
  /**
   * `below_floor`: some events are gone by retention. `epoch`, `ahead`: the mailbox is another one (a restore); everything in it comes again.
   * `elsewhere`: another tab held this device for a while and has taken some.
   */
  readonly reason: string;
}

/** Something that a log or a person should know of; the client goes on. */
export interface Problem {
  /** `storage`, `handler`, `token`, `bad_frame`, `protocol`, or a code of the server's (docs/protocol.md). */
  readonly code: string;
  readonly message: string;
}

/**
 * The events. `message`, `other`, `receipt` and `resync` are *taken*: a handler may return a promise, the next one waits for it, and only then the
 * cursor moves. A handler that throws gets the same event again, after a while.
 */
export interface ClientEvents {
  /** A message, one's own too. In order, each once; after a crash or reload the last ones may come again, with the same `seq`. */
  message: Message;
  /** An event of the mailbox that this client does not know. */
  other: EventFrame;
  receipt: Receipt;
  resync: Resync;
  /** One of this client's own messages has gone a step further. */
  outgoing: OutgoingChange;
  state: ConnectionState;
  /** Everything that was missed has come. */
  live: { readonly head: number };
  /** Somebody writes: to be shown for 6 seconds. */
  typing: { readonly conversation: string; readonly from: string };
  /** A watched user; `lastSeen` is RFC 3339, `null` if never seen or online. */
  presence: { readonly user: string; readonly online: boolean; readonly lastSeen: string | null };
  /** A session has begun: what the server lets it do. */
  welcome: { readonly limits: Limits; readonly now: string };
  problem: Problem;
}

/** Names of events. */
export type EventName = keyof ClientEvents;

/** A handler of an event. */
export type Handler<N extends EventName> = (event: ClientEvents[N]) => unknown;

/** A frame's message. */
export function messageOf(me: string, wire: WireMessage, seq?: number): Message {
  const text = wire.body["text"];
  return {
    conversation: wire.conversation, position: wire.position, from: wire.from, id: wire.id, kind: wire.kind,
    text: typeof text === "string" ? text : "", body: wire.body,
    replyTo: wire.reply_to === undefined || wire.reply_to === null ? null : { from: wire.reply_to.from, id: wire.reply_to.id },
    at: wire.at, mine: wire.from === me, ...(seq === undefined ? {} : { seq }),
  };
}

/** A frame's receipt. */
export const receiptOf = (me: string, { conversation, member, delivered, read }: ReceiptFrame): Receipt =>
  ({ conversation, member, delivered, read, mine: member === me });

/** A frame's resync. */
export const resyncOf = (frame: ResyncFrame): Resync => ({ reason: frame.reason });

/** A line of a page of conversations. */
export function conversationLine(me: string, wire: WireConversation): Conversation {
  return {
    conversation: wire.conversation, last: messageOf(me, wire.last),
    unread: wire.unread ?? 0, read: wire.read ?? "0", receipts: wire.receipts ?? [],
  };
}

/** A frame that is told and not waited for, as an event. */
export function toldEvent(frame: ServerFrame): { [N in EventName]: readonly [N, ClientEvents[N]] }[EventName] | null {
  switch (frame.type) {
    case "live": return ["live", { head: frame.head }];
    case "typing": return ["typing", { conversation: frame.conversation, from: frame.from }];
    case "presence": return ["presence", { user: frame.user, online: frame.online, lastSeen: frame.last_seen ?? null }];
    case "welcome": return ["welcome", { limits: frame.limits, now: frame.now }];
    default: return null;
  }
}
