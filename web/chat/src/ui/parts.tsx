/** Small parts that everything uses. */

import type { ComponentChildren, JSX } from "preact";
import { createContext } from "preact";
import { useContext } from "preact/hooks";
import type { Chat } from "../state/chat.js";
import type { Router } from "../state/route.js";
import type { Tick } from "../model/ticks.js";
import { TICK_WORDS } from "../model/ticks.js";
import { isEmojiOnly, links } from "../text/links.js";
import { pieces } from "../text/visible.js";
import { Icon } from "./icons.js";
import type { IconName } from "./icons.js";

/** What a signed-in page is made of. */
export interface Place {
  readonly chat: Chat;
  readonly router: Router;
  /** Ends the session on this device. */
  readonly signOut: () => void;
}

export const PlaceContext = createContext<Place | null>(null);

/** The signed-in page this part is in. */
export function usePlace(): Place {
  const place = useContext(PlaceContext);
  if (place === null) throw new Error("outside of a signed-in page");
  return place;
}

interface IconButtonProps {
  readonly icon: IconName;
  readonly label: string;
  readonly onClick?: () => void;
  readonly class?: string;
  readonly size?: number;
  readonly disabled?: boolean;
  readonly type?: "button" | "submit";
  readonly tabIndex?: number;
  readonly testid?: string;
}

/** A button with a sign; `label` is what it does. */
export function IconButton({ icon, label, size, testid, type = "button", class: extra = "", ...rest }: IconButtonProps): JSX.Element {
  return (
    <button {...rest} type={type} class={`icon-button ${extra}`} aria-label={label} title={label} data-testid={testid}>
      <Icon name={icon} size={size} />
    </button>
  );
}

const HUES = 10;
/** The same colour for the same user, everywhere. */
export const hueOf = (user: string): number => [...user].reduce((sum, digit) => (sum * 31 + digit.charCodeAt(0)) % 9973, 7) % HUES;

/** The first letters of a name; of a number its last two digits. */
export function initialsOf(name: string): string {
  const words = name.replace(/ \(you\)$/, "").split(/[\s\-_.]+/).filter((word) => /^[\p{L}\p{N}]/u.test(word));
  if (words.length === 0) return "?";
  if (words.every((word) => /^\p{N}+$/u.test(word))) return words.join("").slice(-2);
  const named = words.filter((word) => /^\p{L}/u.test(word));
  if (named[0] === "User" && words.length === 2) return (words[1] ?? "").slice(-2);
  return [named[0], named.length > 1 ? named.at(-1) : undefined].map((word) => [...(word ?? "")][0] ?? "").join("").toUpperCase();
}

/** A person's picture: there are none yet, so letters on a colour. */
export function Avatar({ user, name, online = false, large = false }: { readonly user: string; readonly name: string; readonly online?: boolean; readonly large?: boolean }): JSX.Element {
  return (
    <span class={`avatar hue-${hueOf(user)}${large ? " large" : ""}`} aria-hidden="true">
      {initialsOf(name)}
      {online && <span class="dot" />}
    </span>
  );
}

/** Somebody's text, kept apart from what is around it; what would not be seen is shown as marks. */
export function Text({ text, linked = false, class: extra, testid }: { readonly text: string; readonly linked?: boolean; readonly class?: string; readonly testid?: string }): JSX.Element {
  return (
    <span class={`said ${extra ?? ""}${linked && isEmojiOnly(text) ? " emoji-only" : ""}`} dir="auto" data-testid={testid}>
      {pieces(text).map((piece) => {
        if (piece.control !== undefined) return <span class="control" title={piece.control}>{piece.text}</span>;
        if (!linked) return piece.text;
        return links(piece.text).map((run) => (run.href === undefined ? run.text
          : <a href={run.href} target="_blank" rel="noopener noreferrer nofollow" dir="ltr">{run.text}</a>));
      })}
    </span>
  );
}

/** How far one's own message has come. */
export function TickSign({ tick }: { readonly tick: Tick }): JSX.Element {
  return (
    <span class={`tick ${tick}`} role="img" aria-label={TICK_WORDS[tick]} title={TICK_WORDS[tick]} data-testid="tick" data-tick={tick}>
      {tick === "waiting" ? <Icon name="clock" size={14} /> : tick === "refused" ? <Icon name="alert" size={14} /> : (
        <svg width="18" height="13" viewBox="0 0 18 13" fill="none" stroke="currentColor" stroke-width="1.7" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" focusable="false">
          <path d={tick === "accepted" ? "M4.5 7l3 3L14 3" : "M1.2 7l3 3 6.5-7"} />
          {tick !== "accepted" && <path d="M7.2 9l1 1L15.2 3" />}
        </svg>
      )}
    </span>
  );
}

/** A heading row of a panel, with the way back. */
export function PanelHead({ title, onBack, children, level = 1 }: { readonly title: string; readonly onBack: () => void; readonly children?: ComponentChildren; readonly level?: 1 | 2 }): JSX.Element {
  const Heading = `h${level}` as "h1";
  return (
    <header class="panel-head">
      <IconButton icon="back" label="Back" onClick={onBack} testid="back" />
      <Heading>{title}</Heading>
      {children}
    </header>
  );
}
