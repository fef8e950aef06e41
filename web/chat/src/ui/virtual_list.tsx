/**
 * A long list of rows of any height, of which only those near the screen are in the document.
 *
 * What the person looks at stays where it is: every change (rows before or behind, a row that turns out taller than guessed, another width) is laid out
 * around the *anchor*, the row at the top of the view with its distance from there, or the end of the list.
 */

import { Component, createRef } from "preact";
import type { ComponentChildren, JSX } from "preact";
import { Heights } from "../model/heights.js";

/** Rows are kept this far above and below the view, CSS pixels. */
const OVERSCAN = 700;
/** A view that needs rows closer than this to what is there is laid out anew. */
const SLACK = 250;
/** This close to the end is at the end. */
const END = 24;
/** Above the first row and below the last. */
const PAD = 14;
/** Rounds of laying out and measuring until it is enough. */
const ROUNDS = 6;

type Anchor = "end" | { readonly key: string; readonly delta: number };

/** What is in view: indices of rows, the last one included. */
export interface InView {
  readonly first: number;
  readonly last: number;
  readonly atEnd: boolean;
}

interface Props<T> {
  readonly items: readonly T[];
  readonly keyOf: (item: T) => string;
  /** A guess of a row's height, for a list of this width; CSS pixels. */
  readonly estimate: (item: T, width: number) => number;
  readonly row: (item: T, index: number) => JSX.Element;
  readonly onView: (view: InView) => void;
  readonly onKeyDown?: (event: KeyboardEvent) => void;
  /** Where it begins; absent: at the end. */
  readonly start?: string;
  readonly label: string;
  /** Over the list. */
  readonly children?: ComponentChildren;
}

export class VirtualList<T> extends Component<Props<T>> {
  readonly #scroller = createRef<HTMLDivElement>();
  readonly #above = createRef<HTMLDivElement>();
  readonly #rows = createRef<HTMLDivElement>();
  readonly #below = createRef<HTMLDivElement>();
  readonly #heights = new Heights();
  #items: readonly T[] | null = null;
  #anchor: Anchor = "end";
  #from = 0;
  #to = 0;
  #viewport = globalThis.innerHeight;
  #width = 0;
  #rounds = 0;
  #focusKey: string | null = null;
  #resizes: ResizeObserver | null = null;

  constructor(props: Props<T>) {
    super(props);
    if (props.start !== undefined) this.#anchor = { key: props.start, delta: -80 };
  }

  override componentDidMount(): void {
    this.#resizes = new ResizeObserver(() => this.#resized());
    if (this.#scroller.current !== null) this.#resizes.observe(this.#scroller.current);
    if (this.#rows.current !== null) this.#resizes.observe(this.#rows.current);
    this.#resized();
  }

  override componentWillUnmount(): void {
    this.#resizes?.disconnect();
  }

  /** Whether a row has the focus, before rows change. */
  override getSnapshotBeforeUpdate(): boolean {
    return this.#rows.current?.contains(document.activeElement) ?? false;
  }

  override componentDidUpdate(_props: Props<T>, _state: object, focused: boolean): void {
    this.#settle();
    // the row that had it has left the document: the list keeps it
    const active = document.activeElement;
    if (focused && (active === null || active === document.body)) this.#scroller.current?.focus({ preventScroll: true });
  }

  #resized(): void {
    const scroller = this.#scroller.current;
    if (scroller === null) return;
    this.#viewport = scroller.clientHeight;
    if (this.#width !== scroller.clientWidth) {
      this.#width = scroller.clientWidth;
      this.#items = null;
    }
    this.#rounds = 0;
    this.forceUpdate();
  }

  /** Where the view begins, counted from the first row. */
  #top(): number {
    const end = this.#heights.total + 2 * PAD - this.#viewport;
    if (this.#anchor === "end") return end - PAD;
    const index = this.#heights.indexOf(this.#anchor.key);
    if (index < 0) return end - PAD;
    return Math.min(this.#heights.offset(index) + this.#anchor.delta, end - PAD);
  }

  /** Puts the rows that are there in their place, measures them, and asks for others if they are too few. */
  #settle(): void {
    const [scroller, above, rows, below] = [this.#scroller.current, this.#above.current, this.#rows.current, this.#below.current];
    if (scroller === null || above === null || rows === null || below === null) return;
    for (const row of rows.children) {
      const key = (row as HTMLElement).dataset["key"];
      if (key !== undefined) this.#heights.measure(key, row.getBoundingClientRect().height);
    }
    const heights = this.#heights;
    above.style.height = `${PAD + heights.offset(this.#from)}px`;
    below.style.height = `${PAD + heights.total - heights.offset(this.#to)}px`;
    const wanted = Math.max(0, this.#top() + PAD);
    if (Math.abs(scroller.scrollTop - wanted) > 0.75) scroller.scrollTop = wanted;
    if (!this.#isCovered(0) && this.#rounds < ROUNDS) {
      this.#rounds += 1;
      this.forceUpdate();
      return;
    }
    this.#rounds = 0;
    this.#refocus();
    this.#report();
  }

  #isCovered(slack: number): boolean {
    const top = this.#top();
    const needed = [this.#heights.at(Math.max(0, top - slack)), this.#heights.at(top + this.#viewport + slack)] as const;
    return needed[0] >= this.#from && needed[1] < Math.max(this.#to, 1);
  }

  #report(): void {
    const scroller = this.#scroller.current;
    if (scroller === null) return;
    const top = scroller.scrollTop - PAD;
    const bottom = top + this.#viewport;
    let last = this.#heights.at(bottom);
    // the last one counts when it is nearly all there
    if (last > 0 && this.#heights.offset(last + 1) > bottom + 12) last -= 1;
    this.props.onView({ first: this.#heights.at(Math.max(0, top)), last, atEnd: this.#isAtEnd(scroller) });
  }

  #isAtEnd(scroller: HTMLElement): boolean {
    return scroller.scrollHeight - scroller.clientHeight - scroller.scrollTop <= END;
  }

  readonly #scrolled = (): void => {
    const scroller = this.#scroller.current;
    if (scroller === null || this.#heights.count === 0) return;
    if (this.#isAtEnd(scroller)) this.#anchor = "end";
    else {
      const top = scroller.scrollTop - PAD;
      const index = this.#heights.at(Math.max(0, top));
      this.#anchor = { key: this.#heights.keyAt(index) ?? "", delta: top - this.#heights.offset(index) };
    }
    if (this.#isCovered(SLACK)) this.#report();
    else this.forceUpdate();
  };

  /** Goes to the end, and stays there while rows come. */
  toEnd(): void {
    this.#anchor = "end";
    this.forceUpdate();
  }

  /** Brings a row into view, at about a third of the height, or as little as needed; `focus`: and the focus onto it. */
  reveal(key: string, { focus = false, least = false }: { readonly focus?: boolean; readonly least?: boolean } = {}): void {
    const index = this.#heights.indexOf(key);
    if (index < 0) return;
    if (focus) this.#focusKey = key;
    const scroller = this.#scroller.current;
    const top = (scroller?.scrollTop ?? 0) - PAD;
    const [begin, end] = [this.#heights.offset(index), this.#heights.offset(index + 1)];
    if (!least) this.#anchor = { key, delta: -Math.min(this.#viewport / 3, Math.max(0, this.#viewport - (end - begin))) };
    else if (begin < top + 8) this.#anchor = { key, delta: -36 };
    else if (end > top + this.#viewport - 8) this.#anchor = { key, delta: end - begin - this.#viewport + 16 };
    this.forceUpdate();
  }

  #refocus(): void {
    const rows = this.#rows.current;
    const key = this.#focusKey;
    this.#focusKey = null;
    if (rows === null || key === null) return;
    for (const row of rows.children) if ((row as HTMLElement).dataset["key"] === key) (row as HTMLElement).focus({ preventScroll: true });
  }

  override render(): JSX.Element {
    const { items, keyOf, estimate, row, label, children, onKeyDown } = this.props;
    if (items !== this.#items) {
      this.#items = items;
      this.#heights.set(items.map(keyOf), items.map((item) => estimate(item, this.#width)));
    }
    const top = this.#top();
    this.#from = items.length === 0 ? 0 : this.#heights.at(Math.max(0, top - OVERSCAN));
    this.#to = items.length === 0 ? 0 : this.#heights.at(top + this.#viewport + OVERSCAN) + 1;
    const shown = items.slice(this.#from, this.#to);
    return (
      <div class="list-frame">
        {children}
        <div class="scroller" ref={this.#scroller} onScroll={this.#scrolled} onKeyDown={onKeyDown} tabIndex={0} role="region" aria-label={label} data-testid="messages">
          <div class="list-inner">
            <div ref={this.#above} />
            <div ref={this.#rows} role="list" aria-label={label}>
              {shown.map((item, i) => row(item, this.#from + i))}
            </div>
            <div ref={this.#below} />
          </div>
        </div>
      </div>
    );
  }
}
