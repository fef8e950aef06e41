/**
 * The frames of the wire, version 1 in JSON, as docs/protocol.md has them: names and types are the server's. Everything behind this folder
 * speaks in the types of `events.ts`.
 *
 * @packageDocumentation
 */

/** A number that JavaScript would lose: a decimal string. Positions, users, epochs, revisions. */
export type Decimal = string;

/** The message that a message answers, by its identity inside the conversation. */
export interface WireReference {
  readonly from: Decimal;
  readonly id: string;
}

/** A message as it is in a page or an event. */
export interface WireMessage {
  readonly event: "message";
  readonly conversation: string;
  readonly position: Decimal;
  readonly from: Decimal;
  readonly id: string;
  readonly kind: string;
  readonly body: Readonly<Record<string, unknown>>;
  readonly reply_to?: WireReference;
  readonly at: string;
}

/** What the server lets a connection do; `welcome` says what is in force. */
export interface Limits {
  /** Longest body, bytes of UTF-8. */
  readonly body_bytes: number;
  /** Longest frame to the server, bytes. */
  readonly frame_bytes: number;
  /** Sends a second of a user. */
  readonly sends_per_s: number;
  /** Sends of a user at once. */
  readonly sends_burst: number;
  /** Unacknowledged events before the server pauses. */
  readonly window_events: number;
  /** Unacknowledged bytes before the server pauses. */
  readonly window_bytes: number;
  /** Unanswered sends of a connection. */
  readonly in_flight: number;
  /** Longest page. */
  readonly page_events: number;
  /** Users whose presence may be watched. */
  readonly watch_users: number;
}

/** What holds until `welcome` has said otherwise. */
export const DEFAULT_LIMITS: Limits = {
  body_bytes: 16_384,
  frame_bytes: 65_536,
  sends_per_s: 50,
  sends_burst: 100,
  window_events: 256,
  window_bytes: 262_144,
  in_flight: 32,
  page_events: 100,
  watch_users: 200,
};

/** Client to server: the first frame, and the answer to `resync`. */
export interface HelloFrame {
  readonly type: "hello";
  readonly version: 1;
  readonly token?: string;
  readonly device?: string;
  readonly cursor?: number;
  readonly epoch?: Decimal;
  readonly rev?: Decimal;
}

/** Client to server: a message. */
export interface SendFrame {
  readonly type: "send";
  readonly id: string;
  readonly to: string;
  readonly kind: string;
  readonly body: Readonly<Record<string, unknown>>;
  readonly reply_to?: WireReference;
}

/** Client to server: a page of older messages is wanted. */
export interface HistoryFrame {
  readonly type: "history";
  readonly conversation: string;
  readonly before: Decimal | null;
  readonly limit: number;
}

/** Client to server: a page of conversations is wanted. */
export interface ConversationsFrame {
  readonly type: "conversations";
  readonly before: string | null;
  readonly limit: number;
}

/** Everything a client says. */
export type ClientFrame =
  | HelloFrame
  | SendFrame
  | HistoryFrame
  | ConversationsFrame
  | { readonly type: "received"; readonly seq: number }
  | { readonly type: "read"; readonly conversation: string; readonly position: Decimal }
  | { readonly type: "typing"; readonly to: string }
  | { readonly type: "watch"; readonly users: readonly Decimal[] }
  | { readonly type: "ping" };

/** Server to client: the connection is a session now. */
export interface WelcomeFrame {
  readonly type: "welcome";
  readonly user: Decimal;
  readonly device: string;
  readonly epoch: Decimal;
  readonly now: string;
  readonly heartbeat_s: number;
  readonly limits: Limits;
}

/** Server to client: one event of the mailbox. `event` is `message`, `refused`, or something newer than this client. */
export interface EventFrame {
  readonly type: "event";
  readonly seq: number;
  readonly event: string;
  readonly [field: string]: unknown;
}

/** Server to client: how far a member has come. */
export interface ReceiptFrame {
  readonly type: "receipt";
  readonly conversation: string;
  readonly member: Decimal;
  readonly delivered: Decimal;
  readonly read: Decimal;
  readonly rev: Decimal;
}

/** Server to client: a page of messages. */
export interface PageFrame {
  readonly type: "page";
  readonly conversation: string;
  readonly events: readonly WireMessage[];
  readonly before: Decimal | null;
}

/** One conversation of a page of conversations. */
export interface WireConversation {
  readonly conversation: string;
  readonly last: WireMessage;
  readonly unread?: number;
  readonly read?: Decimal;
  readonly receipts?: readonly { readonly member: Decimal; readonly delivered: Decimal; readonly read: Decimal }[];
}

/** Server to client: a page of conversations. */
export interface ConversationsPageFrame {
  readonly type: "conversations";
  readonly conversations: readonly WireConversation[];
  readonly before: string | null;
}

/** Server to client: a send was refused. */
export interface RefusedFrame {
  readonly type: "refused";
  readonly id: string;
  readonly code: string;
  readonly field?: string;
  readonly retry_after_ms?: number;
  readonly final: boolean;
}

/** Server to client: something was wrong; the connection stays. */
export interface ErrorFrame {
  readonly type: "error";
  readonly code: string;
  readonly field?: string;
  readonly message?: string;
  readonly id?: string;
  readonly retry_after_ms?: number;
}

/** Server to client: the cursor cannot be continued. */
export interface ResyncFrame {
  readonly type: "resync";
  readonly epoch: Decimal;
  readonly head: number;
  readonly floor: number;
  readonly reason: string;
}

/** Everything the server says that this client knows. */
export type ServerFrame =
  | WelcomeFrame
  | EventFrame
  | ReceiptFrame
  | PageFrame
  | ConversationsPageFrame
  | RefusedFrame
  | ErrorFrame
  | ResyncFrame
  | { readonly type: "live"; readonly head: number }
  | { readonly type: "accepted"; readonly id: string; readonly conversation: string }
  | { readonly type: "typing"; readonly conversation: string; readonly from: Decimal }
  | { readonly type: "presence"; readonly user: Decimal; readonly online: boolean; readonly last_seen?: string }
  | { readonly type: "pong"; readonly now: string }
  | { readonly type: "move"; readonly after_ms: number }
  | { readonly type: "reauth"; readonly before: string };
