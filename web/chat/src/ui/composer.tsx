/** Where a message is written. */

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { JSX } from "preact";
import { visible } from "../text/visible.js";
import type { Row } from "../model/rows.js";
import { Icon } from "./icons.js";
import { IconButton, usePlace } from "./parts.js";

interface Props {
  readonly conversation: string;
  readonly name: string;
  readonly replyTo: Row | null;
  readonly onReplied: () => void;
  /** Up from an empty text: into the messages. */
  readonly onUp: () => void;
}

/** How near the limit the count is shown. */
const NEAR = 0.9;
const bytesOf = (text: string): number => new TextEncoder().encode(text).length;
/** Where there is no real keyboard, Enter makes a new line. */
const isTouch = (): boolean => matchMedia("(pointer: coarse)").matches && !matchMedia("(any-pointer: fine)").matches;

export function Composer({ conversation, name, replyTo, onReplied, onUp }: Props): JSX.Element {
  const { chat } = usePlace();
  const field = useRef<HTMLTextAreaElement>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const text = chat.drafts.value.get(conversation) ?? "";
  const elsewhere = chat.connection.value.name === "elsewhere";
  const max = chat.client.limits.body_bytes;
  const bytes = bytesOf(text);

  useLayoutEffect(() => {
    const area = field.current;
    if (area === null) return;
    area.style.height = "auto";
    area.style.height = `${Math.min(area.scrollHeight, Math.max(120, innerHeight * 0.35))}px`;
  }, [text, conversation]);
  useEffect(() => {
    setProblem(null);
    if (!isTouch()) field.current?.focus();
  }, [conversation]);
  useEffect(() => { if (replyTo !== null) field.current?.focus(); }, [replyTo]);

  const send = (): void => {
    if (text.trim() === "" || elsewhere) return;
    if (bytes > max) return setProblem(`Too long by ${bytes - max} bytes.`);
    const wrong = chat.send(conversation, text, replyTo === null ? null : { from: replyTo.from, id: replyTo.id });
    setProblem(wrong);
    if (wrong === null) onReplied();
    field.current?.focus();
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !isTouch()) {
      event.preventDefault();
      send();
    } else if (event.key === "Escape" && replyTo !== null) {
      event.stopPropagation();
      onReplied();
    } else if (event.key === "ArrowUp" && text === "") {
      event.preventDefault();
      onUp();
    }
  };
  const onInput = (event: { readonly currentTarget: HTMLTextAreaElement }): void => {
    setProblem(null);
    chat.draft(conversation, event.currentTarget.value);
    if (event.currentTarget.value !== "") chat.typing(conversation);
  };
  const over = bytes > max;
  return (
    <form class="composer" onSubmit={(event) => { event.preventDefault(); send(); }} data-testid="composer">
      {replyTo !== null && (
        <div class="replying" data-testid="replying">
          <Icon name="reply" size={18} />
          <div>
            <strong>Reply to <bdi>{replyTo.mine ? "yourself" : name}</bdi></strong>
            <span dir="auto">{visible(replyTo.text).slice(0, 200)}</span>
          </div>
          <IconButton icon="close" label="No reply" size={18} onClick={() => { onReplied(); field.current?.focus(); }} />
        </div>
      )}
      {problem !== null && <p class="problem" role="alert">{problem}</p>}
      <div class="composer-line">
        <textarea ref={field} rows={1} value={text} onInput={onInput} onKeyDown={onKeyDown} dir="auto" placeholder="Message" aria-label={`Message to ${name}`}
          disabled={elsewhere} data-testid="text" enterkeyhint={isTouch() ? "enter" : "send"} />
        {bytes > max * NEAR && <span class={`count${over ? " over" : ""}`} aria-live="polite">{max - bytes}</span>}
        <IconButton icon="send" label="Send" type="submit" class="send" disabled={text.trim() === "" || elsewhere || over} testid="send" />
      </div>
    </form>
  );
}
