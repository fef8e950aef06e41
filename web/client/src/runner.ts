/**
 * The rim: does what the state machine wants done, and tells it what happened. One runner for each time a client holds its device.
 *
 * @packageDocumentation
 */

import { ApiError } from "./account/http.js";
import type { Effect, Input, TimerName } from "./core/effects.js";
import type { Item } from "./core/inbox.js";
import type { Session } from "./core/session.js";
import type { TransportName } from "./core/choice.js";
import type { Credentials } from "./credentials.js";
import { listen } from "./environment.js";
import { ClientError, wordsOf } from "./errors.js";
import { messageOf, receiptOf, resyncOf, toldEvent } from "./events.js";
import type { ClientEvents, EventName } from "./events.js";
import type { Handlers } from "./handlers.js";
import type { ConversationsFrame, ErrorFrame, HistoryFrame, ServerFrame } from "./protocol/frames.js";
import { isWireMessage, isWireRefusal, parseFrame } from "./protocol/parse.js";
import type { Persister } from "./storage/persister.js";
import type { Link, Transport } from "./transport/transport.js";

/** A page that does not come within this counts as lost, milliseconds. */
const PAGE_MS = 30_000;
/** A provider of tokens that takes longer has none for now, milliseconds. */
const TOKEN_MS = 30_000;

/** What a runner works with. */
export interface RunnerOptions {
  readonly session: Session;
  readonly user: string;
  readonly credentials: Credentials;
  readonly transports: Readonly<Record<TransportName, Transport>>;
  readonly persister: Persister;
  readonly handlers: Handlers;
  /** Whether plain HTTP reaches the server. */
  readonly check: () => Promise<{ readonly works: boolean; readonly retryAfter_ms: number }>;
  /** Whether a WebSocket opens. */
  readonly probe: () => Promise<boolean>;
  readonly outgoing: (change: ClientEvents["outgoing"]) => void;
  readonly stored: (id: string) => void;
}

interface Waiting {
  readonly resolve: (frame: ServerFrame) => void;
  readonly reject: (error: ClientError) => void;
  readonly timer: ReturnType<typeof setTimeout>;
}

/** Runs one session. */
export class Runner {
  readonly #options: RunnerOptions;
  readonly #inputs: Input[] = [];
  readonly #timers = new Map<TimerName, ReturnType<typeof setTimeout>>();
  readonly #waiting = new Map<number, Waiting>();
  readonly #deaf: () => void;
  #link: Link | null = null;
  #working = false;
  #ending = false;
  #ended = false;
  #lastKey = 0;

  constructor(options: RunnerOptions) {
    this.#options = options;
    this.#deaf = listen((what) => this.input({ on: what }));
  }

  /** One thing happened. */
  input(input: Input): void {
    if (this.#ended) return;
    this.#inputs.push(input);
    if (this.#working) return;
    this.#working = true;
    try {
      for (let next = this.#inputs.shift(); next !== undefined; next = this.#inputs.shift()) {
        for (const effect of this.#options.session.input(next, performance.now())) this.#do(effect);
      }
    } finally {
      this.#working = false;
    }
  }

  /** Nothing happens any more: the link closes, timers stop, whoever waits is told. */
  end(error: ClientError): void {
    if (this.#ended) return;
    this.#ending = true;
    this.input({ on: "disconnect" });
    this.#ended = true;
    this.#deaf();
    this.#unlink();
    for (const timer of this.#timers.values()) clearTimeout(timer);
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(error);
    }
    this.#waiting.clear();
  }

  /** Asks for a page. */
  ask(frame: HistoryFrame | ConversationsFrame): Promise<ServerFrame> {
    const key = (this.#lastKey += 1);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(key);
        reject(new ClientError("timeout", "the page did not come in time"));
        this.input({ on: "unask", key, timedOut: true });
      }, PAGE_MS);
      this.#waiting.set(key, { resolve, reject, timer });
      this.input({ on: "ask", query: { key, frame } });
    });
  }

  #do(effect: Effect): void {
    const { handlers, persister } = this.#options;
    switch (effect.do) {
      case "token": return void this.#token(effect.reason);
      case "open": return this.#open(effect);
      case "post": return this.#post(effect.frame);
      case "close": return this.#unlink();
      case "timer": return this.#timer(effect.timer, effect.ms);
      case "cancel": return this.#cancel(effect.timer);
      case "check": return void this.#options.check().then((checked) => this.input({ on: "checked", ...checked }));
      case "probe": return void this.#options.probe().then((opened) => this.input({ on: "probed", opened }));
      case "save": {
        const { save } = effect;
        return void persister.save(save).then((written) => this.#saved(save, written));
      }
      case "deliver": return void this.#deliver(effect.item);
      case "outgoing":
        this.#options.outgoing(effect.change);
        return handlers.tell("outgoing", effect.change);
      case "answer": return this.#answer(effect.key, effect.frame, effect.error);
      case "tell": return this.#tell(effect.frame);
      case "state":
        // what comes after the end, the client says
        return this.#ending ? undefined : handlers.tell("state", effect.state);
      case "problem": return handlers.tell("problem", { code: effect.code, message: effect.message });
    }
  }

  async #token(reason: Parameters<Credentials["token"]>[0]): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      const late = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new ClientError("timeout", "no token in time")), TOKEN_MS);
      });
      this.input({ on: "token", token: await Promise.race([this.#options.credentials.token(reason), late]) });
    } catch (thrown) {
      const final = thrown instanceof ClientError && thrown.code === "unauthenticated";
      this.#options.handlers.tell("problem", { code: "token", message: wordsOf(thrown) });
      this.input({ on: "no_token", final, retryAfter_ms: thrown instanceof ApiError ? thrown.retryAfter_ms : 0 });
    } finally {
      clearTimeout(timer);
    }
  }

  #open({ transport, token, hello }: Extract<Effect, { do: "open" }>): void {
    this.#unlink();
    const ours = (work: () => void): void => { if (this.#link === link) work(); };
    const link = this.#options.transports[transport].open({ token, hello, user: this.#options.user }, {
      frame: (text) => ours(() => this.#heard(text)),
      alive: () => ours(() => this.input({ on: "alive" })),
      closed: (closed) => ours(() => {
        this.#link = null;
        this.input({ on: "closed", closed });
      }),
    });
    this.#link = link;
  }

  #unlink(): void {
    const link = this.#link;
    this.#link = null;
    link?.close();
  }

  #post(frame: Parameters<Link["post"]>[0]): void {
    try {
      this.#link?.post(frame);
    } catch (thrown) {
      // a socket that is about to close: that comes as `closed`
      this.#options.handlers.tell("problem", { code: "protocol", message: wordsOf(thrown) });
    }
  }

  #heard(text: string): void {
    const parsed = parseFrame(text);
    if (parsed.what === "frame") return this.input({ on: "frame", frame: parsed.frame, weight: text.length });
    if (parsed.what === "bad") this.#options.handlers.tell("problem", { code: "bad_frame", message: parsed.why });
    this.input({ on: "alive" });
  }

  #timer(timer: TimerName, ms: number): void {
    clearTimeout(this.#timers.get(timer));
    this.#timers.set(timer, setTimeout(() => {
      this.#timers.delete(timer);
      this.input({ on: "timer", timer });
    }, ms));
  }

  #cancel(timer: TimerName): void {
    clearTimeout(this.#timers.get(timer));
    this.#timers.delete(timer);
  }

  /** Written or not: a storage that fails stops nobody. */
  #saved({ place, put }: Extract<Effect, { do: "save" }>["save"], written: boolean): void {
    if (put !== undefined) {
      if (written) this.#options.stored(put.id);
      this.input({ on: "saved", id: put.id });
    }
    if (place !== undefined) this.input({ on: "stored", place });
  }

  async #deliver(item: Item): Promise<void> {
    const { handlers, user } = this.#options;
    const wanted = (): boolean => !this.#ended;
    if (item.what === "receipt") await handlers.take("receipt", receiptOf(user, item.frame), wanted);
    else if (item.what === "resync") await handlers.take("resync", resyncOf(item.frame), wanted);
    else if (isWireMessage(item.frame)) await handlers.take("message", messageOf(user, item.frame, item.frame.seq), wanted);
    else if (!isWireRefusal(item.frame)) await handlers.take("other", item.frame, wanted);
    this.input({ on: "taken" });
  }

  #answer(key: number, frame: ServerFrame | undefined, error: ErrorFrame | undefined): void {
    const waiting = this.#waiting.get(key);
    if (waiting === undefined) return;
    this.#waiting.delete(key);
    clearTimeout(waiting.timer);
    if (frame !== undefined) waiting.resolve(frame);
    else if (error?.code === "busy") waiting.reject(new ClientError("busy", "too many pages are being waited for"));
    else waiting.reject(new ClientError("refused", error?.message ?? "the server refused the page", { serverCode: error?.code ?? "" }));
  }

  #tell(frame: ServerFrame): void {
    const told = toldEvent(frame);
    if (told !== null) this.#options.handlers.tell(told[0] as EventName, told[1]);
  }
}
