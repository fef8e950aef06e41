/**
 * The client: what an application holds.
 *
 * @packageDocumentation
 */

import { Api } from "./account/http.js";
import type { Fetch } from "./account/http.js";
import { Choice } from "./core/choice.js";
import type { TransportName } from "./core/choice.js";
import { retryAfter } from "./core/backoff.js";
import type { ConnectionState, OutgoingChange } from "./core/effects.js";
import type { OutboxEntry } from "./core/outbox.js";
import type { Place } from "./core/inbox.js";
import { Session } from "./core/session.js";
import type { Credentials } from "./credentials.js";
import { baseUrl, defaultStorage, tokenPlace, webSocketClass } from "./environment.js";
import { ClientError, wordsOf } from "./errors.js";
import { conversationLine, messageOf } from "./events.js";
import type { Conversation, EventName, Handler, Message, MessageReference, Page } from "./events.js";
import { Handlers } from "./handlers.js";
import { Outgoing, pendingOf } from "./outgoing.js";
import type { Pending } from "./outgoing.js";
import { DEFAULT_LIMITS } from "./protocol/frames.js";
import type { Limits, WireMessage } from "./protocol/frames.js";
import { conversationOf, isRecipient, isUser, isUuid7, randomBytes, uuid7Source } from "./protocol/names.js";
import { isWireMessage } from "./protocol/parse.js";
import { Runner } from "./runner.js";
import { MemoryStorage } from "./storage/memory.js";
import { Persister } from "./storage/persister.js";
import { checkState } from "./storage/storage.js";
import type { CheckedState, DeviceStorage, Storage } from "./storage/storage.js";
import { DeviceLock } from "./tabs.js";
import { SseTransport } from "./transport/sse.js";
import { endpoint } from "./transport/transport.js";
import { WebSocketTransport } from "./transport/websocket.js";
import type { TokenPlace, WebSocketClass } from "./transport/websocket.js";

/** Messages that may wait in the outbox, unless told otherwise. */
const OUTBOX_MAX = 1000;
/** Messages written here that are followed until they are in their place; the oldest is let go. */
const KNOWN_MAX = 10_000;
/** How long a look whether HTTP works may take, milliseconds. */
const CHECK_MS = 5_000;
/** Between two `typing` of a conversation, milliseconds: the server drops more. */
const TYPING_MS = 3_000;
/** Conversations of which is remembered when. */
const TYPED_MAX = 100;
/** Whether two places are the same; none is one, too. */
const samePlace = (one: Place | null | undefined, other: Place | null | undefined): boolean => one?.seq === other?.seq && one?.epoch === other?.epoch;

/** A clock that is wrong by more is corrected by the server's for message ids, milliseconds. */
const CLOCK_MS = 3_600_000;

/** Options of {@link Client}. */
export interface ClientOptions {
  /** `https://chat.example.org`, with a path if the server is behind one. Default: the page's origin. */
  readonly url?: string;
  /** Who connects: an {@link Account}, {@link tokenCredentials}, {@link devCredentials}, or your own. */
  readonly credentials: Credentials;
  /** Where cursor and outbox are kept. Default: IndexedDB in browsers, memory elsewhere. */
  readonly storage?: Storage;
  /** Default: the global one; Node before 22 has none: `import { WebSocket } from "ws"`. */
  readonly WebSocket?: WebSocketClass;
  /** Default: the global one. */
  readonly fetch?: Fetch;
  /** Default: `subprotocol` in browsers, `hello` elsewhere. */
  readonly tokenIn?: TokenPlace;
  /** Default: `auto`, WebSocket with the fallback to server-sent events. */
  readonly transport?: "auto" | TransportName;
  /** First time until a client on the fallback tries a WebSocket again, milliseconds; doubled each time. Default 5 minutes. */
  readonly upgradeAfter_ms?: number;
  /** A device that has never connected: from the `present` (default), or from the `oldest` event that is kept. */
  readonly from?: "present" | "oldest";
  /** Messages that may wait in the outbox. Default 1000. */
  readonly outboxMax?: number;
  /** Default: the browser's, where there are any; `null`: none, then two clients of one device take it from each other. */
  readonly locks?: LockManager | null;
}

/** Options of {@link Client.send}. */
export interface SendOptions {
  /** The message it answers. */
  readonly replyTo?: MessageReference;
  /**
   * The UUID version 7 of a message written before whose end the application does not know: that its `stored` did not come before the page went away.
   * However often one id is sent, it becomes one message. Default: a new one.
   */
  readonly id?: string;
}

/** Options of {@link Client.history} and {@link Client.conversations}. */
export interface PageOptions {
  /** From the page before; absent or `null`: the newest. */
  readonly before?: string | null;
  /** 1 to 100; default 50. */
  readonly limit?: number;
}

interface Running {
  readonly session: Session;
  readonly runner: Runner;
  readonly persister: Persister;
}

/** Messages in and out for one device of one user. */
export class Client {
  readonly #options: ClientOptions;
  readonly #base: string;
  readonly #fetch: Fetch;
  readonly #handlers = new Handlers();
  readonly #outgoing = new Map<string, Outgoing>();
  readonly #typed = new Map<string, number>();
  /** Written before the storage was open. */
  #early: Omit<OutboxEntry, "order">[] = [];
  #running: Running | null = null;
  #starting: Promise<void> | null = null;
  #opening: Promise<unknown> | null = null;
  #closing: Promise<void> | null = null;
  /** Counts `close`: what began before one does not go on after it. */
  #generation = 0;
  #lock: DeviceLock | null = null;
  #state: ConnectionState | null = { name: "idle", transport: "websocket" };
  /** Where the last time with this device ended; `null`: there was none. */
  #left: { readonly taken: Place | null; readonly stored: Place | null } | null = null;
  #storage: Storage | null = null;
  #order = 0;
  #clock_ms = 0;
  #newId = uuid7Source(() => Date.now(), randomBytes);

  constructor(options: ClientOptions) {
    this.#options = options;
    this.#base = baseUrl(options.url);
    this.#fetch = options.fetch ?? ((url, init) => globalThis.fetch(url, init));
    this.#handlers.on("welcome", ({ now }) => this.#setClock(now));
  }

  /** The user. */
  get user(): string {
    return this.#options.credentials.user;
  }

  /** How the connection is; changes come as `state`. */
  get state(): ConnectionState {
    return this.#state ?? this.#running?.session.state ?? { name: "idle", transport: "websocket" };
  }

  /** The limits in force. */
  get limits(): Limits {
    return this.#running?.session.limits ?? DEFAULT_LIMITS;
  }

  /** Calls `handler` at each event of that name, until the function it answers is called. Add handlers before {@link connect}: events wait for nobody who is not there. */
  on<N extends EventName>(name: N, handler: Handler<N>): () => void {
    return this.#handlers.on(name, handler);
  }

  /**
   * Begins: takes this device, opens its storage, connects, and from then on stays connected by itself. Resolves when it has begun, connected or
   * not. After a stop (`state.reason`) it begins again.
   */
  async connect(): Promise<void> {
    const generation = this.#generation;
    // what waits is written and the device let go of before it is taken again
    if (this.#closing !== null) await this.#closing;
    if (generation !== this.#generation) return;
    const { name, reason } = this.state;
    // whoever took this device has opened the storage too: open it again
    if (name === "stopped" && reason === "superseded") await this.#suspend(new ClientError("elsewhere", "this device was taken"));
    if (generation !== this.#generation) return;
    if (this.#running !== null) return this.#running.runner.input({ on: "connect" });
    if (this.#starting !== null) return this.#starting;
    const starting = this.#start(generation).finally(() => { if (this.#starting === starting) this.#starting = null; });
    this.#starting = starting;
    return starting;
  }

  async #start(generation: number): Promise<void> {
    const { user, device } = this.#options.credentials;
    const key = `${this.#base} ${user} ${device}`;
    const locks = this.#options.locks === undefined ? (globalThis.navigator?.locks ?? null) : this.#options.locks;
    if (locks !== null && typeof BroadcastChannel !== "undefined" && typeof document !== "undefined") {
      this.#lock ??= new DeviceLock(`switchboard ${key}`, locks, {
        waiting: () => this.#setState({ name: "elsewhere", transport: "websocket" }),
        asked: () => void this.#handOver(true),
        lost: () => void this.#handOver(false),
      });
      const lock = this.#lock;
      await lock.acquire();
      // closed meanwhile
      if (generation !== this.#generation) return;
    }
    // an opening that a close has overtaken would fence this one if it came after it
    while (this.#opening !== null) await this.#opening;
    if (generation !== this.#generation) return;
    const opening = this.#open(key).finally(() => { this.#opening = null; });
    this.#opening = opening;
    const [storage, state] = await opening;
    if (generation !== this.#generation) return storage.close();
    const left = this.#left;
    // another has written it since, or what was taken last here could not be written
    const asLeft = left === null || (samePlace(left.stored, state.place) && (left.stored === null || samePlace(left.stored, left.taken)));
    if (!asLeft) {
      await this.#handlers.take("resync", { reason: "elsewhere" }, () => generation === this.#generation);
      if (generation !== this.#generation) return storage.close();
    }
    this.#run(storage, state);
  }

  /** The storage and what it holds; in memory if it cannot be used. */
  async #open(key: string): Promise<[DeviceStorage, CheckedState]> {
    const problem = (message: string): void => this.#handlers.tell("problem", { code: "storage", message });
    const onReset = (why: string): void => problem(`what was kept is lost: ${why}; going on from the server's record`);
    const max = this.#options.outboxMax ?? OUTBOX_MAX;
    try {
      this.#storage ??= this.#options.storage ?? defaultStorage(onReset);
      const storage = await this.#storage.open(key);
      const state = checkState(await storage.load(), max);
      if (state.broken.length > 0) problem(`left out what was broken: ${state.broken.join(", ")}`);
      return [storage, state];
    } catch (thrown) {
      problem(`nothing will survive a reload: ${wordsOf(thrown)}`);
      const storage = await new MemoryStorage().open(key);
      return [storage, checkState(await storage.load(), max)];
    }
  }

  #run(storage: DeviceStorage, state: CheckedState): void {
    const { credentials, transport = "auto", from, upgradeAfter_ms } = this.#options;
    const persister = new Persister(storage, {
      failed: (why) => this.#handlers.tell("problem", { code: "storage", message: `cannot be written now: ${why}` }),
      fenced: () => { if (this.#running?.persister === persister) void this.#fenced(); },
    }, state.place);
    const session = new Session({
      user: credentials.user, device: credentials.device,
      place: state.place ?? (from === "oldest" ? { epoch: "", seq: 0 } : null),
      rev: state.rev, outbox: state.outbox, reads: state.reads,
      choice: new Choice(transport === "auto" ? null : transport, upgradeAfter_ms), random: Math.random,
    });
    const websocket = new WebSocketTransport({
      base: this.#base, WebSocket: webSocketClass(this.#options.WebSocket), tokenIn: tokenPlace(this.#options.tokenIn),
    });
    const runner = new Runner({
      session, user: credentials.user, credentials, persister, handlers: this.#handlers,
      transports: { websocket, sse: new SseTransport({ api: new Api(this.#base, this.#fetch), fetch: this.#fetch }) },
      check: () => this.#check(), probe: () => websocket.probe(),
      outgoing: (change) => this.#changed(change), stored: (id) => this.#outgoing.get(id)?.wasStored(),
    });
    this.#running = { session, runner, persister };
    this.#state = null;
    this.#order = state.outbox.reduce((last, entry) => Math.max(last, entry.order), this.#order);
    this.#settleElsewhere(state.outbox);
    const early = this.#early.splice(0);
    for (const entry of early) this.#write(runner, entry);
    runner.input({ on: "connect" });
  }

  /** Messages of an earlier time with this device that are not in the outbox any more: another tab has sent them, or they were refused there. */
  #settleElsewhere(outbox: readonly OutboxEntry[]): void {
    const here = new Set([...outbox, ...this.#early].map((entry) => entry.id));
    for (const [id, outgoing] of this.#outgoing) {
      if (here.has(id)) continue;
      this.#outgoing.delete(id);
      outgoing.abandon(new ClientError("elsewhere", "another tab has dealt with it"));
    }
  }

  async #check(): Promise<{ works: boolean; retryAfter_ms: number }> {
    try {
      const response = await this.#fetch(endpoint(this.#base, "/health"), { cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(CHECK_MS) });
      return { works: response.ok, retryAfter_ms: retryAfter(response.headers.get("retry-after"), Date.now()) };
    } catch {
      return { works: false, retryAfter_ms: 0 };
    }
  }

  #setState(state: ConnectionState): void {
    this.#state = state;
    this.#handlers.tell("state", state);
  }

  #setClock(now: string): void {
    const ahead_ms = Date.parse(now) - Date.now();
    const clock_ms = Number.isFinite(ahead_ms) && Math.abs(ahead_ms) > CLOCK_MS ? ahead_ms : 0;
    if (Math.abs(clock_ms - this.#clock_ms) <= CLOCK_MS) return;
    this.#clock_ms = clock_ms;
    this.#newId = uuid7Source(() => Date.now() + clock_ms, randomBytes);
  }

  /** Ends what runs here; what waits stays in the storage. */
  async #suspend(error: ClientError): Promise<void> {
    const running = this.#running;
    this.#running = null;
    if (running === null) return;
    running.runner.end(error);
    const taken = running.session.place;
    this.#left = { taken, stored: running.persister.place };
    await running.persister.close();
    this.#left = { taken, stored: running.persister.place };
  }

  /** Another tab takes this device: this one waits until it is free again. */
  async #handOver(orderly: boolean): Promise<void> {
    const lock = this.#lock;
    await this.#starting;
    // closed meanwhile, and perhaps begun anew
    if (this.#lock !== lock) return;
    this.#state = { name: "elsewhere", transport: "websocket" };
    await this.#suspend(new ClientError("elsewhere", "another tab has taken this device"));
    if (lock === null || this.#lock !== lock) return;
    if (orderly) lock.release();
    await this.connect();
  }

  /** Another client has opened this storage. With a lock, that it is lost comes too, and waits for it; without one, this is the end. */
  async #fenced(): Promise<void> {
    if (this.#lock !== null) this.#state = { name: "elsewhere", transport: "websocket" };
    await this.#suspend(new ClientError("elsewhere", "another client has taken this device"));
    if (this.#lock === null) this.#setState({ name: "stopped", transport: "websocket", reason: "superseded" });
  }

  /** Perhaps the line is gone and nobody has noticed: asks the server, and connects again if it does not answer within seconds. Browsers' own signs (shown again, online) do this by themselves. */
  doubt(): void {
    this.#running?.runner.input({ on: "woken" });
  }

  /** In state `elsewhere`: takes this device from the tab that holds it. */
  useHere(): void {
    this.#lock?.take();
  }

  /** Acknowledges what was taken, closes, lets go of the device. What waits in the outbox stays there. */
  async close(): Promise<void> {
    this.#generation += 1;
    const before = this.#closing;
    const closing = (before === null ? this.#close() : before.then(() => this.#close())).finally(() => { if (this.#closing === closing) this.#closing = null; });
    this.#closing = closing;
    return closing;
  }

  async #close(): Promise<void> {
    const error = new ClientError("closed", "the client was closed");
    const lock = this.#lock;
    this.#lock = null;
    this.#starting = null;
    await this.#suspend(error);
    lock?.close();
    this.#left = null;
    for (const outgoing of this.#outgoing.values()) outgoing.abandon(error);
    this.#outgoing.clear();
    this.#setState({ name: "stopped", transport: "websocket", reason: "closed" });
  }

  /**
   * Writes a message. It is stored first, then sent, and sent again until the server has answered for good.
   *
   * @param to - `u:<user>` or a direct conversation
   * @param text - 1 byte to 16 KiB of UTF-8
   * @throws {@link ClientError}: `bad_argument` for what the server would refuse and for an id that is in the outbox already, `outbox_full`, `elsewhere`
   */
  send(to: string, text: string, options: SendOptions = {}): Outgoing {
    if (this.state.name === "elsewhere") throw new ClientError("elsewhere", "another tab holds this device");
    const { replyTo, id = this.#newId() } = options;
    if (options.id !== undefined) this.#checkId(id);
    const entry: Omit<OutboxEntry, "order"> = {
      id, to, kind: "text", body: { text },
      ...(replyTo === undefined ? {} : { reply_to: { from: replyTo.from, id: replyTo.id } }),
    };
    this.#validate(entry, text);
    const waiting = (this.#running?.session.waiting ?? 0) + this.#early.length;
    if (waiting >= (this.#options.outboxMax ?? OUTBOX_MAX)) throw new ClientError("outbox_full", `${waiting} messages wait already`);
    const outgoing = new Outgoing({ id: entry.id, to, conversation: conversationOf(this.user, to), text });
    this.#outgoing.set(entry.id, outgoing);
    if (this.#running === null) this.#early.push(entry);
    else this.#write(this.#running.runner, entry);
    return outgoing;
  }

  /** An id of the application's own. */
  #checkId(id: string): void {
    if (!isUuid7(id)) throw new ClientError("bad_argument", "id is a UUID of version 7");
    const waits = this.#outgoing.has(id) || this.pending().some((one) => one.id === id);
    if (waits) throw new ClientError("bad_argument", "a message of that id is on its way already");
  }

  #validate(entry: Omit<OutboxEntry, "order">, text: string): void {
    const bad = (why: string): never => { throw new ClientError("bad_argument", why); };
    if (!isRecipient(entry.to)) bad("to is u:<user> or d:<user>:<user>");
    if (entry.reply_to !== undefined && !(isUser(entry.reply_to.from) && isUuid7(entry.reply_to.id))) bad("replyTo is a user and the id of a message");
    const bytes = new TextEncoder().encode(text).length;
    const { body_bytes, frame_bytes } = this.limits;
    if (bytes < 1 || bytes > body_bytes) bad(`the text has ${bytes} bytes, not 1 to ${body_bytes}`);
    if (text.includes("\0") || /\p{Surrogate}/u.test(text)) bad("the text holds a NUL or half of a character");
    // escaped, a text of control characters is six times as long; 1 KiB is for the rest of the frame
    if (new TextEncoder().encode(JSON.stringify(entry)).length + 1024 > frame_bytes) bad("the text is too long when escaped");
  }

  #write(runner: Runner, entry: Omit<OutboxEntry, "order">): void {
    this.#order += 1;
    runner.input({ on: "write", entry: { order: this.#order, ...entry } });
  }

  #changed(change: OutgoingChange): void {
    this.#outgoing.get(change.id)?.change(change);
    if (change.state === "placed" || change.state === "refused") this.#outgoing.delete(change.id);
    const [oldest] = this.#outgoing;
    if (this.#outgoing.size > KNOWN_MAX && oldest?.[1].state === "accepted") this.#outgoing.delete(oldest[0]);
  }

  /** Messages that have no final answer yet, oldest first: after a reload, those of before too. */
  pending(): Pending[] {
    return (this.#running?.session.outgoing() ?? []).map(({ entry, state }) => pendingOf(entry, conversationOf(this.user, entry.to), state));
  }

  #runner(): Runner {
    if (this.#running !== null) return this.#running.runner;
    throw this.state.name === "elsewhere" ? new ClientError("elsewhere", "another tab holds this device") : new ClientError("closed", "not begun: connect first");
  }

  /** A page of messages, in the order of their positions. Waits for a connection, at most 30 s. */
  async history(conversation: string, { before = null, limit = 50 }: PageOptions = {}): Promise<Page<Message>> {
    const frame = await this.#runner().ask({ type: "history", conversation, before, limit });
    if (frame.type !== "page") throw new ClientError("refused", "the answer is no page");
    const messages = frame.events.filter((event): event is WireMessage => isWireMessage(event));
    return { items: messages.map((message) => messageOf(this.user, message)), before: frame.before ?? null };
  }

  /** A page of conversations, the most recently active first. Waits for a connection, at most 30 s. */
  async conversations({ before = null, limit = 50 }: PageOptions = {}): Promise<Page<Conversation>> {
    const frame = await this.#runner().ask({ type: "conversations", before, limit });
    if (frame.type !== "conversations") throw new ClientError("refused", "the answer is no page");
    return { items: frame.conversations.map((line) => conversationLine(this.user, line)), before: frame.before ?? null };
  }

  /** Everything in a conversation up to `position` was read. Never goes back; kept until the server has confirmed it. */
  read(conversation: string, position: string): void {
    this.#runner().input({ on: "read", conversation, position });
  }

  /** This user is writing there: call it at each key, it is passed on every 3 s at most. Not kept. */
  typing(to: string): void {
    const now = performance.now();
    const last = this.#typed.get(to);
    if (this.#running === null || (last !== undefined && now - last < TYPING_MS)) return;
    if (this.#typed.size >= TYPED_MAX) this.#typed.clear();
    this.#typed.set(to, now);
    this.#running.runner.input({ on: "typing", to });
  }

  /** Whose presence is wanted, in place of those before; at most 200 users. Said again on every connection. */
  watch(users: readonly string[]): void {
    const wanted = [...new Set(users)];
    if (!wanted.every(isUser)) throw new ClientError("bad_argument", "users are numbers");
    if (wanted.length > this.limits.watch_users) throw new ClientError("bad_argument", `at most ${this.limits.watch_users} users can be watched`);
    this.#runner().input({ on: "watch", users: wanted });
  }
}
