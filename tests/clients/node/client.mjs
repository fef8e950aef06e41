// A client of the protocol over `ws`: what it must remember, and nothing more.
import WebSocket from "ws";
import { randomBytes } from "node:crypto";

const WAIT_MS = 10_000;

/** A UUID of version 7. */
export function uuid7() {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = 0x70 | (bytes[6] & 0x0f);
  bytes[8] = 0x80 | (bytes[8] & 0x3f);
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** A server under the control of these tests (tests/with_server.py). */
export const server = {
  url: process.env.TEST_URL,
  token: (user) => process.env[`TEST_TOKEN_${user}`],
  async control(action) {
    const answer = await fetch(`${process.env.TEST_CONTROL}/${action}`, { method: "POST" });
    if (!answer.ok) throw new Error(`${action}: ${await answer.text()}`);
  },
};

/** One connection: frames are taken in the order they came, by what they are; none is thrown away unseen. */
export class Client {
  #frames = [];
  #waiting = [];
  #socket;
  closed;

  constructor(token, how = "header") {
    const protocols = ["switchboard.v1.json"];
    const options = {};
    if (how === "header") options.headers = { authorization: `Bearer ${token}` };
    if (how === "protocol") protocols.push(`switchboard.bearer.${token}`);
    this.#socket = new WebSocket(server.url.replace("http", "ws") + "/ws", protocols, options);
    this.#socket.on("message", (data, binary) => {
      if (binary) throw new Error("a binary frame");
      this.#frames.push(JSON.parse(data));
      this.#serve();
    });
    this.closed = new Promise((resolve) => this.#socket.on("close", resolve));
    this.opened = new Promise((resolve, reject) => { this.#socket.on("open", resolve); this.#socket.on("error", reject); });
    this.opened.catch(() => {});
  }

  get protocol() { return this.#socket.protocol; }
  get unread() { return this.#frames; }

  post(frame) { this.#socket.send(JSON.stringify(frame)); }

  /** The first frame for which `fits` is true; earlier ones that don't fit stay. */
  take(fits, what = fits.toString()) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting = this.#waiting.filter((one) => one.timer !== timer);
        reject(new Error(`no ${what} within ${WAIT_MS} ms; unread: ${JSON.stringify(this.#frames)}`));
      }, WAIT_MS);
      this.#waiting.push({ fits, resolve, timer });
      this.#serve();
    });
  }

  type(type) { return this.take((frame) => frame.type === type, type); }

  #serve() {
    for (const one of [...this.#waiting]) {
      const at = this.#frames.findIndex(one.fits);
      if (at < 0) continue;
      clearTimeout(one.timer);
      this.#waiting.splice(this.#waiting.indexOf(one), 1);
      one.resolve(this.#frames.splice(at, 1)[0]);
    }
  }

  /** hello, then everything up to live: what was missed. */
  async attach(hello) {
    await this.opened;
    this.post({ type: "hello", version: 1, ...hello });
    const welcome = await this.type("welcome");
    const live = await this.type("live");
    const missed = this.#frames.filter((frame) => frame.type === "event");
    this.#frames = this.#frames.filter((frame) => frame.type !== "event");
    return { welcome, live, missed };
  }

  /** Sends a text; the answer, whatever it is. */
  async send(to, text, more = {}) {
    const id = more.id ?? uuid7();
    this.post({ type: "send", id, to, kind: "text", body: { text }, ...more });
    return this.take((frame) => frame.id === id && frame.type !== "event", `answer to ${id}`);
  }

  /** The event of a message. */
  event(id) { return this.take((frame) => frame.type === "event" && frame.id === id, `event ${id}`); }

  async close() {
    this.#socket.close(1000);
    return this.closed;
  }

  /** Gone without a word, as when the network breaks. */
  cut() { this.#socket.terminate(); }
}
