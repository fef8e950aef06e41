/** The messages of the open conversation. */

import { useComputed, useSignalEffect } from "@preact/signals";
import type { JSX } from "preact";
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import { comparePositions } from "@switchboard/client";
import { rowsOf } from "../model/rows.js";
import type { Row } from "../model/rows.js";
import { tickOf } from "../model/ticks.js";
import type { Marks, Tick } from "../model/ticks.js";
import { MessageRow, ToEnd } from "./message.js";
import type { MessageActions, Quote } from "./message.js";
import { usePlace } from "./parts.js";
import { VirtualList } from "./virtual_list.js";
import type { InView } from "./virtual_list.js";
import { visible } from "../text/visible.js";

/** This many rows from the first one, older messages are asked for. */
const NEAR = 30;
/** Pages looked through for a message that is quoted. */
const SEEK_PAGES = 20;
const FLASH_MS = 1_600;

const keyOf = (row: Row): string => row.key;

/** A guess that is about right for text of our size. */
function estimate(row: Row, width: number): number {
  const across = Math.max(16, Math.floor(Math.min(width * 0.72, 560) / 7.6));
  const lines = row.text.split("\n", 200).reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / across)), 0);
  return 16 + 21 * lines + (row.first ? 8 : 2) + (row.newDay ? 44 : 0) + (row.firstUnread ? 40 : 0) + (row.replyTo === null ? 0 : 52);
}

function tickFor(row: Row, marks: Marks, self: boolean): Tick | null {
  if (!row.mine) return null;
  if (row.position !== null) return self ? "read" : tickOf(row.position, marks);
  const { state } = row.waiting ?? { state: "queued" };
  return state === "refused" ? "refused" : state === "accepted" || state === "placed" ? "accepted" : "waiting";
}

const isLookedAt = (): boolean => document.visibilityState === "visible" && document.hasFocus();

interface Props {
  readonly conversation: string;
  readonly peer: string;
  readonly name: string;
  readonly onReply: (row: Row) => void;
}

/** What is unread when a conversation is opened, until it is left: the line stays where it was. */
function useUnreadFrom(conversation: string): string | null {
  const { chat } = usePlace();
  return useMemo(() => {
    const line = chat.lines.peek(conversation);
    return line.unread > 0 ? line.read : null;
  }, [conversation]);
}

export function Messages({ conversation, peer, name, onReply }: Props): JSX.Element {
  const { chat } = usePlace();
  const list = useRef<VirtualList<Row>>(null);
  const view = useRef<InView>({ first: 0, last: -1, atEnd: true });
  const [atEnd, setAtEnd] = useState(true);
  const [current, setCurrent] = useState<string | null>(null);
  const [flash, setFlash] = useState<string | null>(null);
  const unreadFrom = useUnreadFrom(conversation);
  const rows = useComputed(() => {
    chat.version.value;
    return rowsOf(chat.me, chat.timeline(conversation), unreadFrom);
  }).value;
  const line = chat.lines.get(conversation);
  const timeline = chat.timeline(conversation);
  const latest = useRef(rows);
  latest.current = rows;

  const look = useCallback((): void => {
    const { last, first } = view.current;
    if (first < NEAR) void chat.older(conversation);
    if (!isLookedAt() || !chat.timeline(conversation).synced) return;
    for (let i = last; i >= 0; i -= 1) {
      const row = latest.current[i];
      if (row === undefined || row.mine || row.position === null) continue;
      if (comparePositions(row.position, chat.lines.peek(conversation).read) > 0) chat.seen(conversation, row.position);
      return;
    }
  }, [conversation]);

  const onView = useCallback((next: InView): void => {
    view.current = next;
    setAtEnd(next.atEnd);
    look();
  }, [look]);

  useEffect(() => {
    addEventListener("focus", look);
    document.addEventListener("visibilitychange", look);
    return () => {
      removeEventListener("focus", look);
      document.removeEventListener("visibilitychange", look);
    };
  }, [look]);
  // a page that came short of the view asks for the next
  useSignalEffect(() => {
    chat.version.value;
    queueMicrotask(look);
  });
  // what this person writes is what is looked at
  const newest = rows.at(-1);
  useEffect(() => {
    if (newest?.waiting?.state === "queued") list.current?.toEnd();
  }, [newest?.key]);

  const toQuoted = useCallback(async (row: Row): Promise<void> => {
    if (row.replyTo === null) return;
    const key = `${row.replyTo.from}/${row.replyTo.id}`;
    for (let page = 0; page < SEEK_PAGES && !latest.current.some((one) => one.key === key) && typeof chat.timeline(conversation).before === "string"; page += 1) {
      await chat.older(conversation);
      await new Promise((next) => setTimeout(next));
    }
    if (!latest.current.some((one) => one.key === key)) return chat.note("That message is further back.");
    list.current?.reveal(key);
    setFlash(key);
    setTimeout(() => setFlash((now) => (now === key ? null : now)), FLASH_MS);
  }, [conversation]);

  const actions = useMemo((): MessageActions => ({
    reply: onReply,
    copy: (row) => void navigator.clipboard?.writeText(row.text).then(() => chat.note("Copied."), () => chat.note("The browser does not allow that.")),
    toQuoted: (row) => void toQuoted(row),
    again: (row) => chat.again(conversation, row.id),
    forget: (row) => chat.forget(conversation, row.id),
  }), [conversation, onReply, toQuoted]);

  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.ctrlKey || event.altKey || event.metaKey || rows.length === 0) return;
    const at = rows.findIndex((row) => row.key === current);
    const row = rows[at];
    const inRow = (event.target as HTMLElement).getAttribute("role") === "listitem";
    const move = (to: number): void => {
      const next = rows[Math.max(0, Math.min(to, rows.length - 1))];
      if (next === undefined) return;
      event.preventDefault();
      setCurrent(next.key);
      list.current?.reveal(next.key, { focus: true, least: true });
    };
    if (event.key === "ArrowUp") move(at < 0 ? view.current.last : at - 1);
    else if (event.key === "ArrowDown") move(at < 0 ? view.current.last : at + 1);
    else if (event.key === "End") { setCurrent(null); list.current?.toEnd(); }
    else if (inRow && row !== undefined && row.position !== null && (event.key === "Enter" || event.key === "r")) { event.preventDefault(); onReply(row); }
    else if (inRow && row !== undefined && event.key === "c") actions.copy(row);
  };

  const quoteOf = (row: Row): Quote | null => {
    if (row.replyTo === null) return null;
    const quoted = timeline.find(row.replyTo);
    return { name: row.replyTo.from === chat.me ? "You" : name, text: quoted?.text ?? null };
  };
  const today = new Date().toDateString();
  const start = unreadFrom === null ? undefined : rows.find((row) => row.firstUnread)?.key;
  const ready = timeline.synced || rows.length > 0;
  return (
    <>
      {!ready ? <Waiting name={name} /> : rows.length === 0 ? <Beginning name={name} /> : (
        <VirtualList key={timeline.synced || unreadFrom === null ? "known" : "guessed"} ref={list} items={rows} keyOf={keyOf} estimate={estimate} onView={onView} onKeyDown={onKeyDown} start={start} label={`Messages with ${name}`}
          row={(row, index) => (
            <MessageRow key={row.key} row={row} tick={tickFor(row, line.marks, peer === chat.me)} quote={quoteOf(row)} index={index} count={rows.length}
              current={row.key === current} flash={row.key === flash} name={name} today={today} actions={actions} />
          )} />
      )}
      {!atEnd && <ToEnd count={line.unread} onClick={() => list.current?.toEnd()} />}
    </>
  );
}

const Waiting = ({ name }: { readonly name: string }): JSX.Element => (
  <div class="list-frame centred" data-testid="messages-waiting"><span class="spinner" role="status" aria-label={`Messages with ${name} are coming`} /></div>
);

const Beginning = ({ name }: { readonly name: string }): JSX.Element => (
  <div class="list-frame centred" data-testid="messages-empty">
    <p class="hint">Nothing has been said yet.<br />Write to <bdi>{visible(name)}</bdi> below.</p>
  </div>
);
