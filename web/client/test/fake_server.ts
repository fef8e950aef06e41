// A small server for tests: the HTTP API of the contract as far as the fallback and accounts need it, and `/ws` scripted or broken. One mailbox for
// everybody who asks; it keeps to the framing of docs/protocol.md and knows nothing of durability.
import { createServer } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { WebSocketServer } from "ws";
import type { WebSocket } from "ws";

export type Answer = { readonly status: number; readonly body?: unknown; readonly headers?: Record<string, string> };
export type Route = (request: { readonly body: Record<string, unknown>; readonly headers: IncomingMessage["headers"]; readonly url: URL }) => Answer | Promise<Answer>;

export const good = (data: unknown, status = 200): Answer => ({ status, body: { success: true, data } });
export const bad = (status: number, code: string, more: object = {}): Answer => ({ status, body: { success: false, error: { code, message: code, ...more } } });

export class FakeServer {
  readonly http: Server;
  readonly routes = new Map<string, Route>();
  readonly requests: { readonly name: string; readonly body: Record<string, unknown>; readonly headers: IncomingMessage["headers"]; readonly url: URL }[] = [];
  /** Called for each `/ws`; without it upgrades are broken, as by a proxy that does not know them. */
  onSocket: ((socket: WebSocket, request: IncomingMessage) => void) | null = null;
  /** How an upgrade is refused while there is no `onSocket`; `null`: cut off. */
  refusal: string | null = null;
  upgrades = 0;
  stream: ((request: IncomingMessage, response: ServerResponse, url: URL) => void) | null = null;

  constructor() {
    this.routes.set("GET /health", () => ({ status: 200 }));
    this.http = createServer((request, response) => void this.#serve(request, response));
    const sockets = new WebSocketServer({ noServer: true, handleProtocols: () => "switchboard.v1.json" });
    this.http.on("upgrade", (request, socket, head) => {
      this.upgrades += 1;
      const { onSocket } = this;
      if (onSocket !== null) sockets.handleUpgrade(request, socket, head, (open) => onSocket(open, request));
      else if (this.refusal !== null) socket.end(`${this.refusal}\r\nconnection: close\r\n\r\n`);
      else socket.destroy();
    });
  }

  async listen(): Promise<string> {
    await new Promise<void>((resolve) => { this.http.listen(0, "127.0.0.1", resolve); });
    return `http://127.0.0.1:${(this.http.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    this.http.closeAllConnections();
    await new Promise((resolve) => { this.http.close(resolve); });
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", "http://localhost");
    if (url.pathname === "/v1/events" && this.stream !== null) return this.stream(request, response, url);
    let text = "";
    for await (const chunk of request) text += String(chunk);
    const name = `${request.method} ${url.pathname}`;
    const asked = { name, body: (text === "" ? {} : JSON.parse(text)) as Record<string, unknown>, headers: request.headers, url };
    this.requests.push(asked);
    const answer = (await this.routes.get(name)?.(asked)) ?? { status: 404, body: "not found" };
    response.writeHead(answer.status, { "content-type": "application/json", ...answer.headers });
    response.end(answer.body === undefined ? "" : JSON.stringify(answer.body));
  }
}

/** Something like a JWT for a user. */
export const fakeToken = (user: string, device: string, n = 0): string =>
  `x.${Buffer.from(JSON.stringify({ user_id: user, device, n })).toString("base64url")}.y`;

export async function until(what: string, holds: () => boolean, wait_ms = 10_000): Promise<void> {
  const deadline = Date.now() + wait_ms;
  while (!holds()) {
    if (Date.now() > deadline) throw new Error(`not within ${wait_ms} ms: ${what}`);
    await new Promise((resolve) => { setTimeout(resolve, 2); });
  }
}
