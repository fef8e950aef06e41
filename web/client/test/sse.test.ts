// The fallback, against a small server that speaks the contract of `/v1`: what the real one cannot be made to do. The rest is in server/fallback.test.ts.
import { test } from "node:test";
import assert from "node:assert/strict";
import type { ServerResponse } from "node:http";
import { WebSocket } from "ws";
import { Client, MemoryStorage } from "../src/index.js";
import type { ClientOptions, WebSocketClass } from "../src/index.js";
import { FakeServer, bad, fakeToken, good, until } from "./fake_server.js";
import type { Answer } from "./fake_server.js";

const LIMITS = { body_bytes: 16384, frame_bytes: 65536, sends_per_s: 500, sends_burst: 500, window_events: 256, window_bytes: 262144, in_flight: 32, page_events: 100, watch_users: 200 };
const welcome = () => ({ type: "welcome", user: "42", device: "a", session: "s", epoch: "1", now: new Date().toISOString(), heartbeat_s: 30, limits: LIMITS });

/** One mailbox, and streams over it. */
class FakeChat extends FakeServer {
  readonly mailbox: { id: string; text: string; from: string }[] = [];
  readonly streams = new Set<ServerResponse>();
  readonly asked: { cursor: string | undefined; device: string | null; lastEventId: string | undefined; token: string | undefined }[] = [];
  epoch = "1";
  floor = 0;
  /** Answers in place of the good one, one for each POST of a message. */
  readonly answers: (Answer | "cut after" | null)[] = [];

  constructor() {
    super();
    this.stream = (request, response, url) => {
      const query = url.searchParams;
      this.asked.push({ cursor: query.get("cursor") ?? undefined, device: query.get("device"), lastEventId: request.headers["last-event-id"] as string | undefined, token: request.headers.authorization });
      response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
      response.write(": hello\n\n");
      this.#write(response, welcome());
      const cursor = Number(query.get("cursor") ?? this.mailbox.length);
      if (cursor > this.mailbox.length) {
        this.#write(response, { type: "resync", epoch: this.epoch, head: this.mailbox.length, floor: this.floor, reason: "ahead" });
        return;
      }
      for (let seq = cursor + 1; seq <= this.mailbox.length; seq += 1) this.#write(response, this.#event(seq), seq);
      this.#write(response, { type: "live", head: this.mailbox.length });
      this.streams.add(response);
      response.on("close", () => this.streams.delete(response));
    };
    this.routes.set("POST /v1/messages", ({ body }) => this.#message(body));
    this.routes.set("POST /v1/received", () => good(null));
    this.routes.set("POST /v1/typing", () => good(null));
    this.routes.set("POST /v1/conversations/d%3A42%3A43/read", () => good(null));
    this.routes.set("GET /v1/conversations/d%3A42%3A43/messages", ({ url }) => {
      const end = Number(url.searchParams.get("before") ?? this.mailbox.length + 1) - 1;
      const begin = Math.max(0, end - Number(url.searchParams.get("limit")));
      const items = Array.from({ length: end - begin }, (_, i) => ({ ...this.#event(begin + i + 1), type: undefined, seq: undefined }));
      return good({ items, before: begin === 0 ? null : String(begin + 1) });
    });
    this.routes.set("GET /v1/conversations", () => good({ items: [{ conversation: "d:42:43", last: this.#event(this.mailbox.length), unread: 1, read: "0", receipts: [] }], before: null }));
  }

  #message(body: Record<string, unknown>): Answer {
    const scripted = this.answers.shift() ?? null;
    if (scripted !== null && scripted !== "cut after") return scripted;
    const [id, text] = [String(body["id"]), (body["body"] as { text: string }).text];
    if (!this.mailbox.some((one) => one.id === id)) this.say(text, "42", id);
    if (scripted === "cut after") this.http.closeAllConnections();
    return good({ id, conversation: "d:42:43" });
  }

  say(text: string, from = "43", id = `01932f6e-5c1e-7c3a-9d4e-${String(this.mailbox.length).padStart(12, "0")}`): void {
    this.mailbox.push({ id, text, from });
    for (const stream of this.streams) this.#write(stream, this.#event(this.mailbox.length), this.mailbox.length);
  }

  tell(frame: object, event = String((frame as { type?: string }).type)): void {
    for (const stream of this.streams) stream.write(`event: ${event}\ndata: ${JSON.stringify(frame)}\n\n`);
  }

  #write(stream: ServerResponse, frame: object, id?: number): void {
    const text = `${id === undefined ? "" : `id: ${id}\n`}event: ${(frame as { type: string }).type}\ndata: ${JSON.stringify(frame)}\n\n`;
    // in two pieces, as networks do
    stream.write(text.slice(0, 20));
    stream.write(text.slice(20));
  }

  #event(seq: number) {
    const one = this.mailbox[seq - 1];
    return {
      type: "event", seq, event: "message", conversation: "d:42:43", position: String(seq), from: one?.from, id: one?.id, kind: "text",
      body: { text: one?.text }, at: "2026-11-21T09:00:01.123Z",
    };
  }
}

async function chat(more: Partial<ClientOptions> = {}, storage = new MemoryStorage()) {
  const server = new FakeChat();
  const url = await server.listen();
  const got: string[] = [];
  const reasons: string[] = [];
  const credentials = { user: "42", device: "a", token: (reason: string) => { reasons.push(reason); return Promise.resolve(fakeToken("42", "a", reasons.length)); } };
  const client = new Client({ url, credentials, WebSocket: WebSocket as unknown as WebSocketClass, storage, from: "oldest", transport: "sse", ...more });
  client.on("message", ({ text }) => { got.push(text); });
  const close = async (): Promise<void> => { await client.close(); await server.close(); };
  const sent = (): unknown[] => server.requests.filter(({ name }) => name === "POST /v1/messages").map(({ body }) => (body["body"] as { text: string }).text);
  return { server, client, got, url, reasons, close, sent };
}

test("a server that is away does not count: when it is back, by WebSocket if it can", async () => {
  const { server, client, close } = await chat({ transport: "auto" });
  server.routes.set("GET /health", () => ({ status: 503 }));
  await client.connect();
  await until("tries", () => server.upgrades >= 4);
  assert.equal(client.state.transport, "websocket");
  await close();
});

test("final refusals: the code and the field come through", async () => {
  const { server, client, close } = await chat();
  await client.connect();
  server.answers.push(bad(413, "too_large", { field: "body.text" }), bad(409, "id_reused"));
  const [large, reused] = [client.send("u:43", "a"), client.send("u:43", "b")];
  await assert.rejects(large.accepted, { code: "refused", serverCode: "too_large" });
  await assert.rejects(reused.accepted, { code: "refused", serverCode: "id_reused" });
  assert.deepEqual(client.pending(), []);
  await client.send("u:43", "c").accepted;
  await close();
});

test("what HTTP says instead of close codes", async () => {
  const codes: [Answer | object, string][] = [[{ code: 4409 }, "superseded"], [{ code: 4426 }, "version"], [{ code: 4403 }, "forbidden"]];
  for (const [close_, reason] of codes) {
    const { server, client, close } = await chat();
    await client.connect();
    await until("live", () => client.state.name === "live");
    server.tell(close_, "close");
    await until(reason, () => client.state.name === "stopped");
    assert.equal(client.state.reason, reason);
    await close();
  }
  const { server, client, reasons, close } = await chat();
  const { stream } = server;
  let refusals = 1;
  server.stream = (request, response, url) => {
    if (refusals-- > 0) response.writeHead(401).end();
    else stream?.(request, response, url);
  };
  await client.connect();
  await until("live", () => client.state.name === "live");
  assert.deepEqual(reasons, ["connect", "rejected"]);
  await close();
});

test("a server without the fallback: WebSocket is tried again", async () => {
  const { server, client, close } = await chat({ transport: "auto" });
  server.stream = null;
  await client.connect();
  await until("tries", () => server.upgrades >= 4);
  assert.equal(client.state.transport, "websocket");
  await close();
});

