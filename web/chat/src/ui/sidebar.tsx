/** The list of conversations. */

import { useRef, useState } from "preact/hooks";
import type { JSX } from "preact";
import { peerOf } from "@switchboard/client";
import type { Line } from "../cache/check.js";
import { tickOf } from "../model/ticks.js";
import { stamp } from "../text/times.js";
import { visible } from "../text/visible.js";
import { hashOf } from "../state/route.js";
import { ConnectionLine } from "./connection.js";
import { Icon } from "./icons.js";
import { Avatar, IconButton, TickSign, usePlace } from "./parts.js";

/** Shown of a last message. */
const PREVIEW = 120;

function Preview({ line, name }: { readonly line: Line; readonly name: string }): JSX.Element {
  const { chat } = usePlace();
  const draft = chat.drafts.value.get(line.conversation);
  const peer = peerOf(chat.me, line.conversation);
  if (chat.presence.typing.value.has(line.conversation)) return <span class="typing" data-testid="line-typing">typing…</span>;
  if (draft !== undefined && chat.open.value !== line.conversation) {
    return <><span class="draft">Draft:</span> <bdi>{visible(draft).slice(0, PREVIEW)}</bdi></>;
  }
  const { last } = line;
  if (last === null) return <span>{name}</span>;
  return (
    <>
      {last.mine && <TickSign tick={peer === chat.me ? "read" : tickOf(last.position, line.marks)} />}
      <bdi>{last.kind === "text" ? visible(last.text.slice(0, 4 * PREVIEW)).slice(0, PREVIEW) : "A message this version cannot show"}</bdi>
    </>
  );
}

function ListLine({ line, open }: { readonly line: Line; readonly open: boolean }): JSX.Element {
  const { chat } = usePlace();
  const peer = peerOf(chat.me, line.conversation) ?? chat.me;
  const name = chat.people.name(peer);
  chat.people.want(peer);
  const unread = line.unread > 0;
  return (
    <li>
      <a class={`list-line${unread ? " unread" : ""}`} href={hashOf({ name: "conversation", conversation: line.conversation })} aria-current={open ? "page" : undefined}
        data-testid="line" data-conversation={line.conversation} data-unread={line.unread}>
        <Avatar user={peer} name={name} online={chat.presence.presence.value.get(peer)?.online ?? false} />
        <span class="list-name" dir="auto" data-testid="line-name">{name}</span>
        <time class="list-time" dateTime={line.last?.at}>{line.last === null ? "" : stamp(line.last.at, new Date())}</time>
        <span class="list-preview" data-testid="line-preview"><Preview line={line} name={name} /></span>
        {unread && <span class="badge" data-testid="line-unread"><span aria-hidden="true">{line.unread >= 1000 ? "999+" : line.unread}</span><span class="unseen">{line.unread} unread</span></span>}
      </a>
    </li>
  );
}

export function Sidebar({ onNew }: { readonly onNew: () => void }): JSX.Element {
  const { chat, router } = usePlace();
  const [filter, setFilter] = useState("");
  const list = useRef<HTMLUListElement>(null);
  const { route } = router;
  const open = route.value.name === "conversation" ? route.value.conversation : null;
  const words = filter.trim().toLowerCase();
  const lines = chat.lines.sorted.value.filter((line) => {
    const peer = peerOf(chat.me, line.conversation) ?? "";
    return words === "" || chat.people.name(peer).toLowerCase().includes(words) || peer.startsWith(words);
  });
  const more = chat.lines.before.value !== null && words === "";
  const onScroll = (event: { readonly currentTarget: HTMLElement }): void => {
    const { scrollHeight, clientHeight, scrollTop } = event.currentTarget;
    if (more && scrollHeight - clientHeight - scrollTop < 400) void chat.lines.more().catch(() => {});
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const links = [...(list.current?.querySelectorAll<HTMLElement>("a") ?? [])];
    const at = links.indexOf(document.activeElement as HTMLElement);
    const next = links[event.key === "ArrowDown" ? at + 1 : Math.max(at - 1, 0)];
    if (next === undefined) return;
    event.preventDefault();
    next.focus();
  };
  const onSearchKey = (event: KeyboardEvent): void => {
    if (event.key === "Escape" && filter !== "") { event.stopPropagation(); setFilter(""); }
    if (event.key === "Enter") list.current?.querySelector<HTMLElement>("a")?.click();
    onKeyDown(event);
  };
  const own = chat.people.name(chat.me);
  return (
    <nav class="sidebar" aria-label="Conversations">
      <header class="sidebar-head">
        <button type="button" class="own" onClick={() => router.go({ name: "settings" })} aria-label="Profile and settings" title="Profile and settings" data-testid="open-settings">
          <Avatar user={chat.me} name={own} />
        </button>
        <h1>Chats</h1>
        <IconButton icon="plus" label="New chat" class="accent" onClick={onNew} testid="new-chat" />
      </header>
      <ConnectionLine />
      <div class="search">
        <Icon name="search" size={18} />
        <input type="search" value={filter} onInput={(event) => setFilter(event.currentTarget.value)} onKeyDown={onSearchKey} placeholder="Search chats" aria-label="Search chats"
          autocomplete="off" data-testid="search" />
      </div>
      <div class="list-scroll" onScroll={onScroll} onKeyDown={onKeyDown}>
        <ul class="list" ref={list} data-testid="list">
          {lines.map((line) => <ListLine key={line.conversation} line={line} open={line.conversation === open} />)}
        </ul>
        {lines.length === 0 && <Empty searching={words !== ""} loaded={chat.lines.loaded.value} onNew={onNew} />}
        {more && <button type="button" class="link more" onClick={() => void chat.lines.more().catch(() => {})}>Older chats</button>}
      </div>
    </nav>
  );
}

function Empty({ searching, loaded, onNew }: { readonly searching: boolean; readonly loaded: boolean; readonly onNew: () => void }): JSX.Element {
  if (searching) return <p class="hint">No chat of that name.</p>;
  if (!loaded) return <p class="hint"><span class="spinner" role="status" aria-label="The chats are coming" /></p>;
  return (
    <div class="hint">
      <p>No chats yet.</p>
      <button type="button" class="button" onClick={onNew}>Begin one</button>
    </div>
  );
}
