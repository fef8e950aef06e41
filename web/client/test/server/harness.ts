// Clients against a real server under the control of these tests (tests/with_server.py).
import { after } from "node:test";
import assert from "node:assert/strict";
import { WebSocket } from "ws";
import { Client, MemoryStorage, tokenCredentials } from "../../src/index.js";
import type { ClientOptions, Message, OutgoingChange, Problem, WebSocketClass } from "../../src/index.js";

export const URL_ = process.env["TEST_URL"] ?? "";
const WAIT_MS = 20_000;

export function token(user: string): string {
  const found = process.env[`TEST_TOKEN_${user}`];
  assert.ok(found, `no token for ${user}`);
  return found;
}

export async function control(action: "kill" | "start"): Promise<void> {
  const answer = await fetch(`${process.env["TEST_CONTROL"]}/${action}`, { method: "POST" });
  assert.ok(answer.ok, await answer.text());
}

/** Waits for a condition; says what was missing. */
export async function until(what: string, holds: () => boolean, wait_ms = WAIT_MS): Promise<void> {
  const deadline = Date.now() + wait_ms;
  while (!holds()) {
    assert.ok(Date.now() < deadline, `not within ${wait_ms} ms: ${what}`);
    await new Promise((resolve) => { setTimeout(resolve, 5); });
  }
}

/** Sockets that can be torn away as when a process dies: nothing more goes in or out. */
export function wire() {
  const sockets = new Set<WebSocket>();
  const seen = { events: 0, acknowledged: 0 };
  let dead = false;
  class Wire extends WebSocket {
    constructor(url: string, protocols?: string[], options?: never) {
      super(url, protocols, options);
      sockets.add(this);
      this.on("close", () => sockets.delete(this));
      this.on("message", (data) => { if (String(data).startsWith('{"type":"event"')) seen.events += 1; });
    }

    override send(data: string): void {
      if (dead) return;
      if (data.startsWith('{"type":"received"')) seen.acknowledged += 1;
      super.send(data);
    }

    override close(code?: number, reason?: string): void {
      if (!dead) super.close(code, reason);
    }
  }
  const cut = (): void => { for (const socket of sockets) socket.terminate(); };
  return { Wire: Wire as unknown as WebSocketClass, seen, cut, die: () => { dead = true; cut(); } };
}

export interface Person {
  readonly client: Client;
  readonly got: Message[];
  readonly changes: OutgoingChange[];
  readonly problems: Problem[];
  readonly storage: MemoryStorage;
  readonly wire: ReturnType<typeof wire>;
}

const everybody: Client[] = [];
after(async () => { await Promise.all(everybody.map((client) => client.close())); });

/** A client that keeps everything it gets. */
export function person(user: string, device: string, more: Partial<ClientOptions> & { storage?: MemoryStorage } = {}): Person {
  const storage = more.storage ?? new MemoryStorage();
  const line = wire();
  const client = new Client({
    url: URL_, credentials: tokenCredentials(token(user), device), WebSocket: line.Wire, from: "oldest", ...more, storage,
  });
  everybody.push(client);
  const [got, changes, problems]: [Message[], OutgoingChange[], Problem[]] = [[], [], []];
  client.on("message", (message) => { got.push(message); });
  client.on("outgoing", (change) => { changes.push(change); });
  client.on("problem", (problem) => { problems.push(problem); });
  return { client, got, changes, problems, storage, wire: line };
}

export const live = (who: Person): Promise<void> => until(`${who.client.user} live`, () => who.client.state.name === "live");
export const texts = (who: Person, from: string, prefix: string): string[] =>
  who.got.filter((message) => message.from === from && message.text.startsWith(prefix)).map((message) => message.text);

/** Of the messages that begin with `prefix`, each once, in order, without a hole between them. (Between others there may be events that are no messages.) */
export function dense(who: Person, prefix: string): void {
  const seqs = who.got.filter((message) => message.text.startsWith(prefix)).map((message) => message.seq ?? 0);
  assert.ok(seqs.length > 0);
  assert.deepEqual(seqs, seqs.map((_, i) => (seqs[0] ?? 0) + i));
}
