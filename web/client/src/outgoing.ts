/**
 * One's own messages on their way.
 *
 * @packageDocumentation
 */

import type { OutgoingChange, OutgoingState } from "./core/effects.js";
import type { OutboxEntry } from "./core/outbox.js";
import { ClientError } from "./errors.js";
import type { MessageReference } from "./events.js";

/** A message that has no final answer yet, as it is in the outbox. */
export interface Pending {
  readonly id: string;
  readonly to: string;
  readonly conversation: string;
  readonly kind: string;
  readonly text: string;
  readonly body: Readonly<Record<string, unknown>>;
  readonly replyTo: MessageReference | null;
  readonly state: "queued" | "sent";
}

/** A message that was given to {@link Client.send}. */
export class Outgoing {
  /** The UUID it has from now on, on every try. */
  readonly id: string;
  readonly to: string;
  readonly conversation: string;
  readonly text: string;
  /** Resolves when it is in the outbox's storage: from then on it survives a reload. Where nothing can be stored, when the server has answered for good. */
  readonly stored: Promise<void>;
  /**
   * Resolves when the server has it durably; waits through any time without connection. Rejects with a {@link ClientError}: `refused` (final), or
   * `closed` or `elsewhere`, which say nothing about the message: it stays in the outbox.
   */
  readonly accepted: Promise<void>;
  #state: OutgoingState = "queued";
  #position: string | null = null;
  #resolve!: { stored: () => void; accepted: () => void; rejected: (error: ClientError) => void };

  /** Made by {@link Client.send}. */
  constructor({ id, to, conversation, text }: { readonly id: string; readonly to: string; readonly conversation: string; readonly text: string }) {
    this.id = id;
    this.to = to;
    this.conversation = conversation;
    this.text = text;
    let stored!: () => void;
    let accepted!: () => void;
    let rejected!: (error: ClientError) => void;
    this.stored = new Promise((resolve) => { stored = resolve; });
    this.accepted = new Promise((resolve, reject) => { accepted = resolve; rejected = reject; });
    // nobody is made to listen
    this.accepted.catch(() => {});
    this.#resolve = { stored, accepted, rejected };
  }

  /** How far it is. */
  get state(): OutgoingState {
    return this.#state;
  }

  /** Its position, once it is `placed`. */
  get position(): string | null {
    return this.#position;
  }

  /** @internal */
  wasStored(): void {
    this.#resolve.stored();
  }

  /** @internal */
  change(change: OutgoingChange): void {
    this.#state = change.state;
    if (change.position !== undefined) this.#position = change.position;
    if (change.state === "accepted" || change.state === "placed") this.#resolve.accepted();
    if (change.state !== "queued" && change.state !== "sent") this.#resolve.stored();
    if (change.state !== "refused") return;
    const code = change.code ?? "refused";
    this.#resolve.rejected(new ClientError("refused", `the server refused the message: ${code}`, { serverCode: code }));
  }

  /** @internal */
  abandon(error: ClientError): void {
    this.#resolve.rejected(error);
  }
}

/** An entry of the outbox as an application sees it. */
export function pendingOf(entry: OutboxEntry, conversation: string, state: "queued" | "sent"): Pending {
  const text = entry.body["text"];
  return {
    id: entry.id, to: entry.to, conversation, kind: entry.kind, text: typeof text === "string" ? text : "", body: entry.body,
    replyTo: entry.reply_to === undefined ? null : { from: entry.reply_to.from, id: entry.reply_to.id }, state,
  };
}
