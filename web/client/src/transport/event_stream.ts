/**
 * The format of server-sent events (HTML standard, section 9.2.6), read piece by piece. Pure.
 *
 * @packageDocumentation
 */

/** One event of a stream. */
export interface StreamEvent {
  /** `message` if the stream did not say. */
  readonly event: string;
  readonly data: string;
  readonly id: string | null;
}

/** A line or an event longer than this ends the stream, characters. The server's largest frame is about 256 KiB. */
const LENGTH_MAX = 4 * 1024 * 1024;

/** Thrown when a stream holds more in one event than any server of ours sends. */
export class StreamTooLong extends Error {
  override readonly name = "StreamTooLong";
}

/** Reads a stream. */
export class EventStreamReader {
  #rest = "";
  #started = false;
  #event = "";
  #id: string | null = null;
  #data: string[] = [];
  #length = 0;

  /** More text; the events that are complete with it. */
  push(text: string): StreamEvent[] {
    let all = this.#rest + text;
    if (!this.#started && all.length > 0) {
      this.#started = true;
      if (all.startsWith("\uFEFF")) all = all.slice(1);
    }
    const events: StreamEvent[] = [];
    let from = 0;
    for (;;) {
      const match = /\r\n|\n|\r/g;
      match.lastIndex = from;
      const end = match.exec(all);
      // a CR at the very end may be half of a CR LF
      if (end === null || (end[0] === "\r" && end.index === all.length - 1)) break;
      const event = this.#line(all.slice(from, end.index));
      if (event !== null) events.push(event);
      from = end.index + end[0].length;
    }
    this.#rest = all.slice(from);
    if (this.#rest.length > LENGTH_MAX) throw new StreamTooLong("a line without end");
    return events;
  }

  #line(line: string): StreamEvent | null {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return null;
    const name = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (name === "event") this.#event = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    else if (name === "data") {
      this.#length += value.length;
      if (this.#length > LENGTH_MAX) throw new StreamTooLong("an event without end");
      this.#data.push(value);
    }
    return null;
  }

  #dispatch(): StreamEvent | null {
    const data = this.#data;
    const event = this.#event === "" ? "message" : this.#event;
    this.#data = [];
    this.#event = "";
    this.#length = 0;
    return data.length === 0 ? null : { event, data: data.join("\n"), id: this.#id };
  }
}
