/** Everything a signed-in page knows, and what it does with the client. The page's parts read signals; they change nothing themselves. */

import { effect, signal } from "@preact/signals";
import { Client, ClientError, comparePositions, peerOf } from "@switchboard/client";
import type { ConnectionState, Message, MessageReference, OutgoingChange, OwnProfile } from "@switchboard/client";
import { Cache } from "../cache/cache.js";
import { allUnstored, draftsOf, messagesOf } from "../cache/check.js";
import type { Unstored } from "../cache/check.js";
import { Timeline } from "../model/timeline.js";
import { Lines } from "./lines.js";
import { People } from "./people.js";
import { PresenceOf } from "./presence.js";
import type { Session } from "./session.js";

/** Messages of one page of history, and of a conversation in the cache. */
const PAGE = 60;
const CACHED = 80;
/** Conversations whose messages are held; the one looked at longest ago goes first. */
const TIMELINES_MAX = 30;
/** Messages held of a conversation nobody looks at. */
const RESTING = 200;
/** While messages come in quick succession they are shown together, milliseconds: each look at a long conversation costs some. */
const BREATH_MS = 40;

/** A note that goes away by itself. */
export interface Toast {
  readonly id: number;
  readonly text: string;
}

export class Chat {
  readonly me: string;
  readonly session: Session;
  readonly client: Client;
  readonly lines: Lines;
  readonly people: People;
  readonly presence: PresenceOf;
  readonly connection = signal<ConnectionState>({ name: "idle", transport: "websocket" });
  readonly profile = signal<OwnProfile | null>(null);
  /** The conversation on the screen. */
  readonly open = signal<string | null>(null);
  /** Raised when a timeline has changed: those who show one read it. */
  readonly version = signal(0);
  readonly drafts = signal<ReadonlyMap<string, string>>(new Map());
  readonly toasts = signal<readonly Toast[]>([]);
  /** Said to who cannot see it. */
  readonly spoken = signal("");
  readonly #cache: Cache;
  readonly #timelines = new Map<string, Timeline>();
  readonly #loading = new Map<string, Promise<void>>();
  /** In which conversation each message that waits is. */
  readonly #waits = new Map<string, string>();
  /** What was written and is not in the client's outbox yet: the page keeps it until then, and sends it next time if it was not to be. */
  readonly #unstored = new Map<string, Unstored>();
  readonly #stop: (() => void)[] = [];
  #toast = 0;
  #changedAt = Number.NEGATIVE_INFINITY;
  #later: ReturnType<typeof setTimeout> | null = null;
  /** What is shown does not continue: what waits may have been dealt with elsewhere. */
  #stale = false;
  #closed = false;

  constructor(session: Session) {
    this.session = session;
    this.me = session.credentials.user;
    this.client = new Client({ credentials: session.credentials });
    this.#cache = new Cache(this.me);
    this.lines = new Lines(this.me, this.client, this.#cache);
    this.people = new People(this.me, session.account, this.#cache);
    this.presence = new PresenceOf(this.client);
  }

  /** Begins: shows what the cache has, then connects. */
  async start(): Promise<void> {
    const { client } = this;
    client.on("state", (state) => { this.connection.value = state; });
    client.on("live", () => void this.#live());
    client.on("message", (message) => this.#arrived(message));
    client.on("receipt", ({ conversation, member, delivered, read, mine }) => {
      if (mine) this.#readElsewhere(conversation, read);
      else if (member === peerOf(this.me, conversation)) this.lines.marked(conversation, { delivered, read });
    });
    client.on("resync", () => {
      this.#stale = true;
      for (const timeline of this.#timelines.values()) timeline.unsync();
    });
    client.on("outgoing", (change) => this.#outgoing(change));
    client.on("problem", ({ code, message }) => console.warn(`${code}: ${message}`));
    this.#stop.push(effect(() => this.#watch()));
    addEventListener("pagehide", this.flush);
    await Promise.all([this.lines.restore(), this.people.restore(), this.#restoreDrafts()]);
    if (this.#closed) return;
    await client.connect();
    this.#adopt();
    await this.#sendUnstored();
    void this.loadProfile();
  }

  /** Ends; what is stored stays. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const stop of this.#stop) stop();
    removeEventListener("pagehide", this.flush);
    if (this.#later !== null) clearTimeout(this.#later);
    this.presence.forget();
    await this.client.close();
    await this.#cache.close();
  }

  readonly flush = (): void => void this.#cache.flush();

  async #restoreDrafts(): Promise<void> {
    this.drafts.value = new Map([...draftsOf(await this.#cache.read("drafts")), ...this.drafts.peek()]);
  }

  async loadProfile(): Promise<void> {
    const { account } = this.session;
    if (account === null) return;
    try {
      this.ownProfile(await account.me());
    } catch (error) {
      console.warn("the profile did not come:", error);
    }
  }

  ownProfile(profile: OwnProfile): void {
    this.profile.value = profile;
    this.people.learn(profile, profile.phone);
  }

  /** The connection has everything: the list anew, and the conversation on the screen if it was not read from the server yet. */
  async #live(): Promise<void> {
    this.#adopt();
    // from another tab that has had this device until now
    void this.#sendUnstored();
    const open = this.open.peek();
    if (open !== null) void this.sync(open);
    if (this.profile.peek() === null) void this.loadProfile();
    await this.lines.load().catch((error: unknown) => console.warn("the list did not come:", error));
    this.#watch(true);
  }

  /** What waits in the outbox, of before a reload or of another tab, into the timelines. */
  #adopt(): void {
    const pending = this.client.pending();
    if (this.#stale) {
      const ids = new Set(pending.map(({ id }) => id));
      for (const timeline of this.#timelines.values()) {
        for (const { id, state } of timeline.waiting) if (state !== "refused" && !ids.has(id)) timeline.forget(id);
      }
      this.#stale = false;
    }
    for (const { id, conversation, text, replyTo, state } of pending) {
      if (this.#waits.has(id)) continue;
      this.#waits.set(id, conversation);
      this.timeline(conversation).wrote({ id, text, replyTo, state, at: new Date().toISOString() });
    }
    this.#changed();
  }

  /** Those who show messages look again: now. */
  #changed(): void {
    if (this.#later !== null) clearTimeout(this.#later);
    this.#later = null;
    this.#changedAt = performance.now();
    this.version.value = this.version.peek() + 1;
  }

  /** The same for what the server says: now, or in a moment when that was just now. */
  #changedSoon(): void {
    const rest = this.#changedAt + BREATH_MS - performance.now();
    if (rest <= 0) this.#changed();
    else this.#later ??= setTimeout(() => this.#changed(), rest);
  }

  // --- messages ---------------------------------------------------------------------------------------------------

  /** The messages of a conversation; read `version` to hear of changes. */
  timeline(conversation: string): Timeline {
    let timeline = this.#timelines.get(conversation);
    if (timeline === undefined) {
      timeline = new Timeline();
      this.#restore(conversation, timeline);
    }
    // the last one asked for is the last to go
    this.#timelines.delete(conversation);
    this.#timelines.set(conversation, timeline);
    for (const [name, resting] of this.#timelines) {
      if (this.#timelines.size <= TIMELINES_MAX) break;
      if (name !== conversation && resting.waiting.length === 0) this.#timelines.delete(name);
    }
    return timeline;
  }

  #restore(conversation: string, timeline: Timeline): void {
    void this.#cache.read(`timeline ${conversation}`).then((kept) => {
      timeline.restore(messagesOf(kept).filter((message) => message.conversation === conversation));
      this.#changed();
    });
  }

  #keep(conversation: string): void {
    this.#cache.keep(`timeline ${conversation}`, () => this.#timelines.get(conversation)?.placed.slice(-CACHED) ?? []);
  }

  /** A conversation comes onto the screen, or none. */
  show(conversation: string | null): void {
    const before = this.open.peek();
    if (before === conversation) return;
    if (before !== null) this.#timelines.get(before)?.trim(RESTING);
    this.open.value = conversation;
    if (conversation === null) return;
    const peer = peerOf(this.me, conversation);
    if (peer !== null) this.people.want(peer);
    void this.sync(conversation);
  }

  /** Reads the newest page unless that is known. */
  sync(conversation: string): Promise<void> {
    const timeline = this.timeline(conversation);
    if (timeline.synced) return Promise.resolve();
    return this.#once(conversation, async () => {
      timeline.newest(await this.client.history(conversation, { limit: PAGE }));
      this.#keep(conversation);
    });
  }

  /** Reads the next older page. */
  older(conversation: string): Promise<void> {
    const timeline = this.timeline(conversation);
    const { before, synced } = timeline;
    if (!synced || typeof before !== "string") return this.#loading.get(conversation) ?? Promise.resolve();
    return this.#once(conversation, async () => timeline.older(await this.client.history(conversation, { before, limit: 100 })));
  }

  #once(conversation: string, work: () => Promise<void>): Promise<void> {
    const running = this.#loading.get(conversation);
    if (running !== undefined) return running;
    // when it fails the next `live`, or the next scrolling, asks again
    const loading = work().catch((error: unknown) => console.warn("history did not come:", error)).finally(() => {
      this.#loading.delete(conversation);
      this.#changed();
    });
    this.#loading.set(conversation, loading);
    return loading;
  }

  #arrived(message: Message): void {
    const { conversation, from } = message;
    this.#timelines.get(conversation)?.arrived(message);
    if (message.mine) this.#waits.delete(message.id);
    this.#changedSoon();
    if (this.#timelines.has(conversation)) this.#keep(conversation);
    if (!message.mine) {
      this.presence.stopped(conversation, from);
      this.people.want(from);
      if (this.open.peek() === conversation) this.say(`${this.people.name(from)}: ${message.text}`);
    }
    if (this.lines.arrived(message)) this.#watch(true);
  }

  #outgoing({ id, conversation, state, code, maybe }: OutgoingChange): void {
    const timeline = this.#timelines.get(conversation);
    if (state !== "placed") timeline?.changed(id, { state, code, maybe });
    // the first message of that id stands, and it has a place
    if (state === "refused" && code === "id_reused") timeline?.forget(id);
    if (state === "placed" || state === "refused") this.#waits.delete(id);
    this.#changedSoon();
  }

  /** Writes a message; what is wrong with it in words, or `null`. */
  send(conversation: string, text: string, replyTo: MessageReference | null): string | null {
    try {
      this.#write({ conversation, text, replyTo });
      this.draft(conversation, "");
      return null;
    } catch (error) {
      if (!(error instanceof ClientError)) throw error;
      if (error.code === "outbox_full") return "Too many messages wait to be sent already.";
      if (error.code === "elsewhere") return "This chat is in use in another tab.";
      return `That cannot be sent: ${error.message}.`;
    }
  }

  #write({ id, conversation, text, replyTo }: Omit<Unstored, "id"> & { readonly id?: string }): void {
    const sent = this.client.send(conversation, text, { ...(id === undefined ? {} : { id }), ...(replyTo === null ? {} : { replyTo }) });
    this.#unstored.set(sent.id, { id: sent.id, conversation, text, replyTo });
    this.#keepUnstored();
    void sent.stored.then(() => this.#isStored(sent.id));
    this.#waits.set(sent.id, conversation);
    this.timeline(conversation).wrote({ id: sent.id, text, replyTo, state: sent.state, at: new Date().toISOString() });
    this.#changed();
  }

  #keepUnstored(): void {
    this.#cache.keep("unstored", () => [...this.#unstored.values()]);
  }

  #isStored(id: string): void {
    if (this.#unstored.delete(id)) this.#keepUnstored();
  }

  /** Written just before a page went away, this one or another tab's. With the id it had: if it went out all the same, it is the same message. */
  async #sendUnstored(): Promise<void> {
    for (const one of allUnstored(await this.#cache.read("unstored"))) {
      if (this.#waits.has(one.id) || this.#unstored.has(one.id) || this.#timelines.get(one.conversation)?.has(one.id) === true) continue;
      try {
        this.#write(one);
      } catch (error) {
        console.warn("not sent, written before the page went away:", error);
        if (error instanceof ClientError && error.code === "elsewhere") return;
        // it is a draft again, for the person to see, before what was being written
        const draft = this.drafts.peek().get(one.conversation);
        this.draft(one.conversation, draft === undefined ? one.text : `${one.text}\n${draft}`);
        this.#keepUnstored();
      }
    }
  }

  /** Writes a refused message once more, as a new one. */
  again(conversation: string, id: string): void {
    const timeline = this.timeline(conversation);
    const refused = timeline.waiting.find((one) => one.id === id && one.state === "refused");
    if (refused === undefined) return;
    timeline.forget(id);
    const problem = this.send(conversation, refused.text, refused.replyTo);
    if (problem !== null) this.note(problem);
  }

  forget(conversation: string, id: string): void {
    this.timeline(conversation).forget(id);
    this.#changed();
  }

  // --- reading ----------------------------------------------------------------------------------------------------

  /** The person has seen everything up to this message. */
  seen(conversation: string, position: string): void {
    if (!this.lines.read(conversation, position, this.#behind(conversation, position))) return;
    try {
      this.client.read(conversation, position);
    } catch (error) {
      console.warn("not said to be read:", error);
    }
  }

  #readElsewhere(conversation: string, position: string): void {
    this.lines.read(conversation, position, this.#behind(conversation, position));
  }

  /** Messages of the other behind a position, if they are all here. */
  #behind(conversation: string, position: string): number | null {
    const timeline = this.#timelines.get(conversation);
    if (timeline === undefined || !timeline.synced) return null;
    return timeline.placed.filter((message) => !message.mine && comparePositions(message.position, position) > 0).length;
  }

  typing(conversation: string): void {
    if (this.lines.peek(conversation).last !== null) this.client.typing(conversation);
  }

  draft(conversation: string, text: string): void {
    const next = new Map(this.drafts.peek());
    if (text === "") next.delete(conversation);
    else next.set(conversation, text);
    this.drafts.value = next;
    this.#cache.keep("drafts", () => Object.fromEntries(this.drafts.peek()));
  }

  #watch(again = false): void {
    const open = this.open.value;
    const shown = [...(open === null ? [] : [open]), ...this.lines.sorted.value.map((line) => line.conversation)];
    const users = shown.map((name) => peerOf(this.me, name)).filter((user): user is string => user !== null && user !== this.me);
    this.presence.watch([...new Set(users)], again);
  }

  // --- words ------------------------------------------------------------------------------------------------------

  note(text: string): void {
    const id = ++this.#toast;
    this.toasts.value = [...this.toasts.peek().slice(-2), { id, text }];
    setTimeout(() => { this.toasts.value = this.toasts.peek().filter((toast) => toast.id !== id); }, 6_000);
  }

  say(text: string): void {
    this.spoken.value = text;
  }
}
