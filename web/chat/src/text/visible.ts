/**
 * What people write, made harmless to look at: characters that are not seen, or that change how others are seen, become marks.
 *
 * Left as they are: line breaks, tabs, joiners where a script or an emoji needs them, one variation selector behind what it varies, the tags of a flag.
 */

/** A run of text, or one mark for a character (or run) that would not be seen. */
export interface Piece {
  readonly text: string;
  /** What it stands for, in words; absent: plain text. */
  readonly control?: string;
}

/** Marks that may be stacked on one letter; what is above this is one mark. */
const MARKS_MAX = 6;
const NAMES: Readonly<Record<number, string>> = {
  0x00ad: "SHY", 0x034f: "CGJ", 0x061c: "ALM", 0x115f: "filler", 0x1160: "filler", 0x180e: "MVS", 0x200b: "ZWSP", 0x200c: "ZWNJ", 0x200d: "ZWJ", 0x200e: "LRM", 0x200f: "RLM",
  0x202a: "LRE", 0x202b: "RLE", 0x202c: "PDF", 0x202d: "LRO", 0x202e: "RLO", 0x2060: "WJ", 0x2066: "LRI", 0x2067: "RLI", 0x2068: "FSI", 0x2069: "PDI",
  0x2800: "blank", 0x3164: "filler", 0xfeff: "BOM", 0xffa0: "filler",
};
const C0 = "NUL SOH STX ETX EOT ENQ ACK BEL BS TAB LF VT FF CR SO SI DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC FS GS RS US".split(" ");
const UNSEEN = /[\p{Cc}\p{Default_Ignorable_Code_Point}\u2800\ufff9-\ufffb]/u;
const SUSPECT = /[\p{Cc}\p{Default_Ignorable_Code_Point}\u2028\u2029\u2800\ufff9-\ufffb]|\p{M}{7}/u;
const PICTOGRAPH = /[\p{Extended_Pictographic}\p{Emoji_Modifier}\ufe0f]/u;
const VARIED = /[\p{L}\p{S}\p{N}#*\p{P}\p{Extended_Pictographic}]/u;
/** Scripts in which a joiner or its opposite changes the shape of letters. */
const JOINING = /[\p{scx=Arab}\p{scx=Syrc}\p{scx=Mong}\p{scx=Deva}\p{scx=Beng}\p{scx=Guru}\p{scx=Gujr}\p{scx=Orya}\p{scx=Taml}\p{scx=Telu}\p{scx=Knda}\p{scx=Mlym}\p{scx=Sinh}\p{scx=Khmr}\p{scx=Tibt}]/u;

const isVariation = (code: number): boolean => (code >= 0xfe00 && code <= 0xfe0f) || (code >= 0xe0100 && code <= 0xe01ef);
const isTag = (code: number): boolean => code >= 0xe0020 && code <= 0xe007f;

/** Whether a joiner does its work between these two. */
function joins(code: number, before: string, after: string): boolean {
  if (code === 0x200d && PICTOGRAPH.test(before) && PICTOGRAPH.test(after)) return true;
  return JOINING.test(before) && JOINING.test(after);
}

/** How many characters from `start` on are the tags of a flag, the last one the end of it; 0: they are none. */
function flagTags(chars: readonly string[], start: number): number {
  if (chars[start - 1] !== "\u{1f3f4}") return 0;
  for (let end = start; end < chars.length && end - start < 8; end += 1) {
    const code = chars[end]?.codePointAt(0) ?? 0;
    if (!isTag(code)) return 0;
    if (code === 0xe007f) return end - start + 1;
  }
  return 0;
}

function nameOf(char: string): Piece {
  const code = char.codePointAt(0) ?? 0;
  const number = `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
  if (code < 0x20 || code === 0x7f) return { text: `\u27e8${C0[code] ?? "DEL"}\u27e9`, control: `control character ${number}` };
  return { text: `\u27e8${NAMES[code] ?? number}\u27e9`, control: `invisible character ${number}` };
}

/** Splits a text into plain runs and marks. */
export function pieces(text: string): readonly Piece[] {
  const unified = text.replace(/\r\n|\u2028|\u2029/g, "\n");
  if (!SUSPECT.test(unified.replace(/[\n\t]/g, ""))) return unified === "" ? [] : [{ text: unified }];
  const chars = [...unified];
  const found: Piece[] = [];
  let plain = "";
  let marks = 0;
  const mark = (piece: Piece): void => {
    if (plain !== "") found.push({ text: plain });
    plain = "";
    found.push(piece);
  };
  for (let i = 0; i < chars.length; i += 1) {
    const char = chars[i] ?? "";
    const before = chars[i - 1] ?? "";
    const code = char.codePointAt(0) ?? 0;
    const tags = isTag(code) ? flagTags(chars, i) : 0;
    marks = /\p{M}/u.test(char) ? marks + 1 : 0;
    if (tags > 0) {
      plain += chars.slice(i, i + tags).join("");
      i += tags - 1;
    } else if (marks > MARKS_MAX) {
      let end = i;
      while (/\p{M}/u.test(chars[end + 1] ?? "")) end += 1;
      mark({ text: `\u27e8+${end - i + 1} marks\u27e9`, control: "more marks than a letter can carry" });
      i = end;
    } else if (!UNSEEN.test(char) || char === "\n" || char === "\t") plain += char;
    else if ((code === 0x200c || code === 0x200d) && joins(code, before, chars[i + 1] ?? "")) plain += char;
    else if (isVariation(code) && VARIED.test(before)) plain += char;
    else mark(nameOf(char));
  }
  if (plain !== "") found.push({ text: plain });
  return found;
}

/** The same as one text: for labels and titles, where there is no markup. Line breaks become spaces. */
export const visible = (text: string): string => pieces(text).map((piece) => piece.text).join("").replace(/\s+/g, " ").trim();

/** A text in which a direction that was opened inside ends inside: for places that cannot isolate, such as the window's title. */
export const isolated = (text: string): string => `\u2068${visible(text)}\u2069`;
