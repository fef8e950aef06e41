/** A part that is rendered again only when one of its properties is another one. */

import { Component, h } from "preact";
import type { ComponentType, VNode } from "preact";

/** Objects in properties count as the same when their own fields are. */
function isSame(one: unknown, other: unknown): boolean {
  if (Object.is(one, other)) return true;
  if (typeof one !== "object" || typeof other !== "object" || one === null || other === null) return false;
  const [a, b] = [one as Record<string, unknown>, other as Record<string, unknown>];
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => Object.is(a[key], b[key]));
}

export function memo<P extends object>(part: (props: P) => VNode): ComponentType<P> {
  return class extends Component<P> {
    override shouldComponentUpdate(next: Readonly<P>): boolean {
      return (Object.keys(next) as (keyof P)[]).some((key) => key !== "children" && !isSame(next[key], this.props[key]));
    }
    override render(): VNode {
      return h(part as ComponentType<object>, this.props);
    }
  };
}
