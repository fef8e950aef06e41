/**
 * A client of Switchboard for browsers and Node. Start with {@link Client}; sign-in is {@link Account}.
 *
 * @packageDocumentation
 */

export { Client } from "./client.js";
export type { ClientOptions, PageOptions, SendOptions } from "./client.js";
export type {
  ClientEvents, Conversation, EventName, Handler, Message, MessageReference, Page, Problem, Receipt, Resync,
} from "./events.js";
export type { ConnectionState, OutgoingChange, OutgoingState, TokenReason } from "./core/effects.js";
export type { TransportName } from "./core/choice.js";
export { Outgoing } from "./outgoing.js";
export type { Pending } from "./outgoing.js";
export { ClientError } from "./errors.js";
export type { ClientErrorCode } from "./errors.js";
export type { StopReason } from "./protocol/codes.js";
export type { EventFrame, Limits } from "./protocol/frames.js";
export { comparePositions, conversationOf, directConversation, laterPosition, peerOf } from "./protocol/names.js";

export { devCredentials, tokenCredentials } from "./credentials.js";
export type { Credentials } from "./credentials.js";
export { Account } from "./account/account.js";
export type { AccountOptions, Device, OwnProfile, Profile, Registration, Verification } from "./account/account.js";
export { ApiError } from "./account/http.js";
export type { Fetch } from "./account/http.js";
export { MemorySessionStore, WebSessionStore } from "./account/session_store.js";
export type { AccountSession, SessionStore } from "./account/session_store.js";

export { IndexedDbStorage } from "./storage/indexeddb.js";
export type { IndexedDbOptions } from "./storage/indexeddb.js";
export { MemoryStorage } from "./storage/memory.js";
export { FencedError } from "./storage/storage.js";
export type { DeviceStorage, Storage, StoredChange, StoredState } from "./storage/storage.js";
export type { Place } from "./core/inbox.js";
export type { OutboxEntry } from "./core/outbox.js";
export type { TokenPlace, WebSocketClass, WebSocketLike } from "./transport/websocket.js";
