/** Links and emoji in what people write. */

/** A run of text; `href`: it is a link. */
export interface Run {
  readonly text: string;
  readonly href?: string;
}

// printable ASCII only: a name that looks like another one is not made clickable
const LINK = /\bhttps?:\/\/[\x21-\x7e]+/g;
const TRAILING = /[.,;:!?'"*_~]+$/;

/** Takes off punctuation, and closing brackets that have no opening one inside. */
function trimmed(link: string): string {
  let kept = link.replace(TRAILING, "");
  for (const [open, close] of [["(", ")"], ["[", "]"], ["<", ">"]] as const) {
    while (kept.endsWith(close) && kept.split(close).length > kept.split(open).length) kept = kept.slice(0, -1).replace(TRAILING, "");
  }
  return kept;
}

function isLink(text: string): boolean {
  try {
    const url = new URL(text);
    return (url.protocol === "https:" || url.protocol === "http:") && url.username === "" && url.password === "";
  } catch {
    return false;
  }
}

/** Splits a text at its links. */
export function links(text: string): readonly Run[] {
  const runs: Run[] = [];
  let end = 0;
  for (const match of text.matchAll(LINK)) {
    const link = trimmed(match[0]);
    if (!isLink(link)) continue;
    if (match.index > end) runs.push({ text: text.slice(end, match.index) });
    runs.push({ text: link, href: link });
    end = match.index + link.length;
  }
  if (end < text.length) runs.push({ text: text.slice(end) });
  return runs;
}

const EMOJI = /^(?:\p{RGI_Emoji}|\s)+$/v;

/** Whether a text is one to three emoji and nothing else: those are shown large. */
export function isEmojiOnly(text: string): boolean {
  if (text.length > 40 || !EMOJI.test(text)) return false;
  const count = [...new Intl.Segmenter(undefined, { granularity: "grapheme" }).segment(text.replace(/\s/g, ""))].length;
  return count >= 1 && count <= 3;
}
