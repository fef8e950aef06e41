/** The rows of a conversation: each message with what stands around it. */

import { comparePositions } from "@switchboard/client";
import type { Message, MessageReference } from "@switchboard/client";
import { sameDay } from "../text/times.js";
import type { Timeline, Waiting } from "./timeline.js";

/** A row. */
export interface Row {
  readonly key: string;
  readonly mine: boolean;
  readonly from: string;
  readonly id: string;
  readonly text: string;
  /** What kind of message it is, where this version cannot show it. */
  readonly unknown: string | null;
  readonly replyTo: MessageReference | null;
  readonly at: string;
  /** `null`: it has no place yet. */
  readonly position: string | null;
  readonly waiting: Waiting | null;
  /** The first one of its day. */
  readonly newDay: boolean;
  /** The first one that was unread when the conversation was opened. */
  readonly firstUnread: boolean;
  /** The first and the last of a run of one person's. */
  readonly first: boolean;
  readonly last: boolean;
}

/** Messages further apart are not one run, milliseconds. */
const RUN_MS = 5 * 60_000;

type Bare = Omit<Row, "newDay" | "firstUnread" | "first" | "last">;

const placed = (message: Message): Bare => ({
  key: `${message.from}/${message.id}`, mine: message.mine, from: message.from, id: message.id, text: message.text,
  unknown: message.kind === "text" ? null : message.kind, replyTo: message.replyTo, at: message.at, position: message.position, waiting: null,
});

const unplaced = (me: string, waiting: Waiting): Bare => ({
  key: `${me}/${waiting.id}`, mine: true, from: me, id: waiting.id, text: waiting.text, unknown: null, replyTo: waiting.replyTo, at: waiting.at, position: null, waiting,
});

const isRun = (one: Bare | undefined, next: Bare | undefined): boolean =>
  one !== undefined && next !== undefined && one.from === next.from && Math.abs(Date.parse(next.at) - Date.parse(one.at)) < RUN_MS && sameDay(one.at, next.at);

/** The rows of a timeline. `unreadFrom`: what was read when it was opened; what is unread behind it begins with a line. */
export function rowsOf(me: string, timeline: Timeline, unreadFrom: string | null): readonly Row[] {
  const bare = [...timeline.placed.map(placed), ...timeline.waiting.map((waiting) => unplaced(me, waiting))];
  const firstUnread = unreadFrom === null ? -1
    : bare.findIndex((row) => !row.mine && row.position !== null && comparePositions(row.position, unreadFrom) > 0);
  return bare.map((row, i) => {
    const [before, after] = [bare[i - 1], bare[i + 1]];
    const newDay = before === undefined || !sameDay(before.at, row.at);
    const cut = i === firstUnread;
    return { ...row, newDay, firstUnread: cut, first: cut || !isRun(before, row), last: i + 1 === firstUnread || !isRun(row, after) };
  });
}
