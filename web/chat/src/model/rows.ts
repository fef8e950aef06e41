/** The rows of a conversation: each message with what stands around it. */

import { comparePositions } from "@switchboard/client";
import type { Message, MessageReference } from "@switchboard/client";
import { dayNumber } from "../text/times.js";
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

/** A message's row as it was last, and what its neighbours are told from: its time, Unix milliseconds, and its day. */
interface Bare {
  row: Row;
  readonly time: number;
  readonly day: number | null;
}

const bareOf = (row: Row): Bare => ({ row, time: Date.parse(row.at), day: dayNumber(row.at) });
const ALONE = { newDay: false, firstUnread: false, first: true, last: true } as const;

/** A message's row is the same object as long as nothing of it has changed: a conversation may have thousands, and each event looks at all of them. */
const made = new WeakMap<Message, Bare>();

function placed(message: Message): Bare {
  const known = made.get(message);
  if (known !== undefined) return known;
  const bare = bareOf({
    key: `${message.from}/${message.id}`, mine: message.mine, from: message.from, id: message.id, text: message.text,
    unknown: message.kind === "text" ? null : message.kind, replyTo: message.replyTo, at: message.at, position: message.position, waiting: null, ...ALONE,
  });
  made.set(message, bare);
  return bare;
}

const unplaced = (me: string, waiting: Waiting): Bare => bareOf({
  key: `${me}/${waiting.id}`, mine: true, from: me, id: waiting.id, text: waiting.text, unknown: null, replyTo: waiting.replyTo, at: waiting.at, position: null, waiting, ...ALONE,
});

const isRun = (one: Bare | undefined, next: Bare | undefined): boolean =>
  one !== undefined && next !== undefined && one.row.from === next.row.from && one.day !== null && one.day === next.day && Math.abs(next.time - one.time) < RUN_MS;

/** The rows of a timeline. `unreadFrom`: what was read when it was opened; what is unread behind it begins with a line. */
export function rowsOf(me: string, timeline: Timeline, unreadFrom: string | null): readonly Row[] {
  const bare = [...timeline.placed.map(placed), ...timeline.waiting.map((waiting) => unplaced(me, waiting))];
  const firstUnread = unreadFrom === null ? -1
    : bare.findIndex(({ row }) => !row.mine && row.position !== null && comparePositions(row.position, unreadFrom) > 0);
  return bare.map((one, i) => {
    const [before, after] = [bare[i - 1], bare[i + 1]];
    const cut = i === firstUnread;
    const newDay = before === undefined || one.day === null || before.day !== one.day;
    const first = cut || !isRun(before, one);
    const last = i + 1 === firstUnread || !isRun(one, after);
    const { row } = one;
    if (row.newDay !== newDay || row.firstUnread !== cut || row.first !== first || row.last !== last) one.row = { ...row, newDay, firstUnread: cut, first, last };
    return one.row;
  });
}
