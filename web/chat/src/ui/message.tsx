/** One message. */

import { memo } from "./memo.js";
import type { JSX } from "preact";
import type { Row } from "../model/rows.js";
import type { Tick } from "../model/ticks.js";
import { clock, dayOf, fullTime } from "../text/times.js";
import { visible } from "../text/visible.js";
import { Icon } from "./icons.js";
import { IconButton, Text, TickSign } from "./parts.js";

/** What a quote shows: the message it names, if that is here. */
export interface Quote {
  readonly name: string;
  /** `null`: not here. */
  readonly text: string | null;
}

interface Props {
  readonly row: Row;
  readonly tick: Tick | null;
  readonly quote: Quote | null;
  readonly index: number;
  readonly count: number;
  /** The row the arrow keys are at: the one that can be reached by Tab. */
  readonly current: boolean;
  readonly flash: boolean;
  readonly name: string;
  readonly today: string;
  readonly actions: MessageActions;
}

/** What can be done with a message. */
export interface MessageActions {
  readonly reply: (row: Row) => void;
  readonly copy: (row: Row) => void;
  readonly toQuoted: (row: Row) => void;
  readonly again: (row: Row) => void;
  readonly forget: (row: Row) => void;
}

const REASONS: Readonly<Record<string, string>> = {
  forbidden: "You cannot write here.", bad_recipient: "There is nobody of this number.", too_large: "It is too long.", empty: "It is empty.",
  id_reused: "Another message was sent in its place.", bad_id: "It waited for too long.",
};

function Refusal({ row, actions }: Pick<Props, "row" | "actions">): JSX.Element | null {
  if (row.waiting?.state !== "refused") return null;
  const { code = "", maybe } = row.waiting;
  return (
    <div class="refusal">
      <span>Not sent. {REASONS[code] ?? `The server said: ${visible(code)}.`}{maybe === true && " An earlier try may have arrived."}</span>
      <button type="button" class="link" onClick={() => actions.again(row)}>Send again</button>
      <button type="button" class="link" onClick={() => actions.forget(row)}>Remove</button>
    </div>
  );
}

function Quoted({ row, quote, actions }: Pick<Props, "row" | "quote" | "actions">): JSX.Element | null {
  if (quote === null) return null;
  return (
    <button type="button" class="quote" onClick={() => actions.toQuoted(row)} tabIndex={-1} data-testid="quote"
      aria-label={`In reply to ${quote.name}: ${quote.text === null ? "a message further back" : visible(quote.text)}`}>
      <span class="quote-name" dir="auto">{quote.name}</span>
      <span class="quote-text" dir="auto">{quote.text === null ? "A message further back" : visible(quote.text).slice(0, 160)}</span>
    </button>
  );
}

const RTL = /^[^\p{L}]*[\p{scx=Arab}\p{scx=Hebr}\p{scx=Syrc}\p{scx=Thaa}\p{scx=Nkoo}]/u;

function Bubble({ row, tick, quote, actions }: Pick<Props, "row" | "tick" | "quote" | "actions">): JSX.Element {
  return (
    <div class="bubble">
      <Quoted row={row} quote={quote} actions={actions} />
      <div class={`body${RTL.test(row.text) ? " rtl" : ""}`}>
        {row.unknown === null ? <Text text={row.text} linked testid="message-text" />
          : <span class="said unknown">This version cannot show this message ({visible(row.unknown)}).</span>}
        <span class="meta-room" aria-hidden="true" />
        <span class="meta">
          <time dateTime={row.at} title={fullTime(row.at)}>{clock(row.at)}</time>
          {tick !== null && <TickSign tick={tick} />}
        </span>
      </div>
    </div>
  );
}

/** A message with the day above it, where one begins. Rendered again only when something of it has changed. */
export const MessageRow = memo(function MessageRow({ row, tick, quote, index, count, current, flash, name, today, actions }: Props): JSX.Element {
  const classes = ["row", row.mine ? "mine" : "theirs", row.first ? "first" : "", row.last ? "last" : "", flash ? "flash" : ""].filter((word) => word !== "");
  return (
    <div class={classes.join(" ")} role="listitem" data-key={row.key} data-testid="message" data-state={tick ?? "received"} tabIndex={current ? 0 : -1}
      aria-setsize={count} aria-posinset={index + 1}>
      {row.newDay && <div class="day"><span>{dayOf(row.at, new Date(today))}</span></div>}
      {row.firstUnread && <div class="unread-line"><span>New messages</span></div>}
      <div class="line">
        <span class="unseen">{row.mine ? "You" : name}:</span>
        <Bubble row={row} tick={tick} quote={quote} actions={actions} />
        <div class="row-actions">
          {row.position !== null && <IconButton icon="reply" label="Reply" size={18} tabIndex={current ? 0 : -1} onClick={() => actions.reply(row)} testid="reply" />}
          <IconButton icon="copy" label="Copy text" size={18} tabIndex={current ? 0 : -1} onClick={() => actions.copy(row)} />
        </div>
      </div>
      <Refusal row={row} actions={actions} />
    </div>
  );
});

/** The button that leads to the newest message. */
export function ToEnd({ count, onClick }: { readonly count: number; readonly onClick: () => void }): JSX.Element {
  return (
    <button type="button" class="to-end" onClick={onClick} aria-label={count > 0 ? `To the newest, ${count} new` : "To the newest"} data-testid="to-end">
      {count > 0 && <span class="badge">{count}</span>}
      <Icon name="down" size={22} />
    </button>
  );
}
