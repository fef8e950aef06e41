/** The open conversation: with whom, the messages, the text field. */

import { useEffect, useRef, useState } from "preact/hooks";
import type { JSX } from "preact";
import { peerOf } from "@switchboard/client";
import type { Row } from "../model/rows.js";
import { seenWords } from "../text/times.js";
import { visible } from "../text/visible.js";
import { Composer } from "./composer.js";
import { Logo } from "./icons.js";
import { Messages } from "./messages.js";
import { Avatar, IconButton, usePlace } from "./parts.js";

/** What is known of the other at this moment, in words; with `online` as a state for tests and styles. */
function usePresenceWords(conversation: string, peer: string): { readonly words: string; readonly state: "typing" | "online" | "offline" | "unknown" } {
  const { chat } = usePlace();
  const [, again] = useState(0);
  useEffect(() => {
    // "5 min ago" grows old
    const timer = setInterval(() => again((n) => n + 1), 30_000);
    return () => clearInterval(timer);
  }, []);
  if (chat.presence.typing.value.get(conversation) === peer) return { words: "typing…", state: "typing" };
  if (peer === chat.me) return { words: "Notes to yourself", state: "unknown" };
  const presence = chat.presence.presence.value.get(peer);
  if (presence === undefined) return { words: "", state: "unknown" };
  if (presence.online) return { words: "online", state: "online" };
  return { words: presence.lastSeen === null ? "" : seenWords(presence.lastSeen, new Date()), state: "offline" };
}

export function ConversationView({ conversation }: { readonly conversation: string }): JSX.Element {
  const { chat, router } = usePlace();
  const peer = peerOf(chat.me, conversation) ?? chat.me;
  const [replyTo, setReplyTo] = useState<Row | null>(null);
  const frame = useRef<HTMLElement>(null);
  const { words, state } = usePresenceWords(conversation, peer);
  const name = chat.people.name(peer);
  const about = chat.people.known.value.get(peer)?.about ?? "";
  useEffect(() => setReplyTo(null), [conversation]);

  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.key !== "Escape" || event.defaultPrevented) return;
    if (replyTo !== null) setReplyTo(null);
    else if ((event.target as HTMLElement).closest(".scroller") !== null) frame.current?.querySelector("textarea")?.focus();
    else router.go({ name: "list" });
  };
  return (
    <section class="conversation" ref={frame} aria-label={`Conversation with ${name}`} onKeyDown={onKeyDown} data-testid="conversation" data-conversation={conversation}>
      <header class="conversation-head">
        <IconButton icon="back" label="Back to the list" class="only-narrow" onClick={() => router.go({ name: "list" })} testid="back-to-list" />
        <Avatar user={peer} name={name} online={state === "online" || state === "typing"} />
        <div class="who">
          <h2 dir="auto" data-testid="peer-name">{name}</h2>
          <p class={`presence ${state}`} data-testid="presence" data-state={state} title={visible(about)}>{words !== "" ? words : about !== "" ? <bdi>{visible(about)}</bdi> : null}</p>
        </div>
      </header>
      <Messages key={conversation} conversation={conversation} peer={peer} name={name} onReply={setReplyTo} />
      <Composer conversation={conversation} name={name} replyTo={replyTo} onReplied={() => setReplyTo(null)}
        onUp={() => frame.current?.querySelector<HTMLElement>(".scroller")?.focus()} />
    </section>
  );
}

/** Nothing is open. */
export function NothingOpen({ onNew }: { readonly onNew: () => void }): JSX.Element {
  return (
    <section class="nothing" aria-label="No conversation open">
      <Logo size={72} />
      <h2>Pick a conversation</h2>
      <p>or begin a new one with somebody's phone number or user id.</p>
      <button type="button" class="button" onClick={onNew}>New chat</button>
    </section>
  );
}
