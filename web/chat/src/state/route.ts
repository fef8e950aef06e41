/** What is on the screen, as the part of the address behind `#`: the browser's back button, and links to a chat, work by it. */

import { signal } from "@preact/signals";
import { directConversation, peerOf } from "@switchboard/client";

/** A place in the page. */
export type Route =
  | { readonly name: "list" }
  | { readonly name: "conversation"; readonly conversation: string }
  | { readonly name: "settings" }
  | { readonly name: "devices" };

/** The place an address means for this user; what it does not know is the list. */
export function routeOf(hash: string, me: string): Route {
  const [, kind, what = ""] = /^#\/(\w+)(?:\/([\w:%]+))?$/.exec(hash) ?? [];
  if (kind === "settings" || kind === "devices") return { name: kind };
  if (kind === "c" && peerOf(me, what) !== null) return { name: "conversation", conversation: what };
  if (kind === "u" && /^[1-9][0-9]{0,18}$/.test(what)) return { name: "conversation", conversation: directConversation(me, what) };
  return { name: "list" };
}

/** The address of a place. */
export const hashOf = (route: Route): string =>
  route.name === "conversation" ? `#/c/${route.conversation}` : route.name === "list" ? "#/" : `#/${route.name}`;

/** Follows the address for one user. */
export class Router {
  readonly route = signal<Route>({ name: "list" });
  readonly #me: string;

  constructor(me: string) {
    this.#me = me;
    this.route.value = routeOf(location.hash, me);
    addEventListener("hashchange", this.#follow);
  }

  readonly #follow = (): void => { this.route.value = routeOf(location.hash, this.#me); };

  /** Goes there; `replace`: without a step for the back button. */
  go(route: Route, replace = false): void {
    if (replace) history.replaceState(null, "", hashOf(route));
    else location.hash = hashOf(route);
    this.route.value = route;
  }

  close(): void {
    removeEventListener("hashchange", this.#follow);
  }
}
