/** How far one's own message has come, as a sign. */

import { comparePositions } from "@switchboard/client";

/** `waiting`: on its way · `accepted`: durable · `delivered`: on one of the other's devices · `read` · `refused`. */
export type Tick = "waiting" | "accepted" | "delivered" | "read" | "refused";

/** How far a member has come; positions. */
export interface Marks {
  readonly delivered: string;
  readonly read: string;
}

export const NO_MARKS: Marks = { delivered: "0", read: "0" };

/** What is read was delivered. */
export function tickOf(position: string, marks: Marks): "accepted" | "delivered" | "read" {
  if (comparePositions(position, marks.read) <= 0) return "read";
  return comparePositions(position, marks.delivered) <= 0 ? "delivered" : "accepted";
}

/** Both only rise. */
export function laterMarks(one: Marks, other: Marks): Marks {
  const later = (a: string, b: string): string => (comparePositions(a, b) >= 0 ? a : b);
  return { delivered: later(one.delivered, other.delivered), read: later(one.read, other.read) };
}

/** For people who do not see it. */
export const TICK_WORDS: Readonly<Record<Tick, string>> = {
  waiting: "Not sent yet", accepted: "Sent", delivered: "Delivered", read: "Read", refused: "Not sent",
};
