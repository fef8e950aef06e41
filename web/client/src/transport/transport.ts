/**
 * A way to a server: frames go up, frames come down, and when it is over that is said once.
 *
 * @packageDocumentation
 */

import type { Closed } from "../core/effects.js";
import type { ClientFrame, HelloFrame } from "../protocol/frames.js";

/** What a link tells. After `closed`, and after {@link Link.close}, nothing more. */
export interface LinkEvents {
  /** A text that should be a frame. */
  readonly frame: (text: string) => void;
  /** Something that is no frame: the line is alive. */
  readonly alive: () => void;
  readonly closed: (closed: Closed) => void;
}

/** One connection. */
export interface Link {
  /** Sends a frame; dropped when the link is not open. */
  post(frame: ClientFrame): void;
  /** Closes it (1000). */
  close(): void;
}

/** What a link is opened with. */
export interface Opening {
  readonly token: string;
  readonly user: string;
  readonly hello: HelloFrame;
}

/** Opens links. */
export interface Transport {
  open(opening: Opening, events: LinkEvents): Link;
}

/** `https://host/prefix` and what is behind it. */
export const endpoint = (base: string, path: string): string => base.replace(/\/+$/, "") + path;
