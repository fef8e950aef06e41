// What stands between a client and its server in some networks: a proxy that knows no upgrades, and that can be told to do worse.
import { createServer, request as forward } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { connect } from "node:net";
import type { AddressInfo, Socket } from "node:net";

/** How upgrades are broken: refused by a status, cut off, passed on as plain requests without `Upgrade` and `Connection`; or not at all. */
export type Upgrades = "refused" | "cut" | "stripped" | "passed";

/** What becomes of a request in place of being passed on. `lost answer`: it is passed on, and its answer is not. */
export type Fault = { readonly status: number; readonly body: string; readonly type?: string } | "lost answer";

export class Proxy {
  upgrades: Upgrades = "refused";
  /** Upgrades that were tried. */
  tried = 0;
  /** Asked for each request; `null`: it is passed on. */
  fault: (request: IncomingMessage) => Fault | null = () => null;
  /** Names of the requests that came, with their queries. */
  readonly requests: string[] = [];
  readonly headers: IncomingMessage["headers"][] = [];
  readonly #target: URL;
  readonly #server: Server;
  readonly #streams = new Set<ServerResponse>();
  readonly #sockets = new Set<Socket>();

  constructor(target: string) {
    this.#target = new URL(target);
    this.#server = createServer((request, response) => this.#pass(request, response, request.headers));
    this.#server.on("connection", (socket) => { this.#sockets.add(socket); socket.on("close", () => this.#sockets.delete(socket)); });
    this.#server.on("upgrade", (request, socket: Socket, head: Buffer) => {
      this.tried += 1;
      if (this.upgrades === "cut") socket.destroy();
      else if (this.upgrades === "refused") socket.end("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
      else if (this.upgrades === "stripped") this.#stripped(request, socket);
      else this.#tunnel(request, socket, head);
    });
  }

  async listen(): Promise<string> {
    await new Promise<void>((resolve) => { this.#server.listen(0, "127.0.0.1", resolve); });
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Streams that are passed through now. */
  get streams(): number {
    return this.#streams.size;
  }

  /** Cuts every stream off. */
  cut(): void {
    for (const stream of this.#streams) stream.destroy();
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => { this.#server.close(resolve); });
  }

  #pass(request: IncomingMessage, response: ServerResponse, headers: IncomingMessage["headers"]): void {
    this.requests.push(`${request.method} ${request.url}`);
    this.headers.push(request.headers);
    const fault = this.fault(request);
    if (fault !== null && fault !== "lost answer") {
      request.resume();
      response.writeHead(fault.status, { "content-type": fault.type ?? "text/html" }).end(fault.body);
      return;
    }
    const { hostname, port } = this.#target;
    const onward = forward({ hostname, port, method: request.method, path: request.url, headers }, (answer) => {
      if (fault === "lost answer") {
        answer.resume().on("end", () => response.destroy());
        return;
      }
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      if (answer.headers["content-type"] === "text/event-stream") {
        this.#streams.add(response);
        response.on("close", () => { this.#streams.delete(response); onward.destroy(); });
      }
      answer.on("error", () => response.destroy());
      answer.pipe(response);
    });
    onward.on("error", () => response.destroy());
    request.pipe(onward);
  }

  /** As an HTTP/1.0 proxy does it: what is hop by hop is left out, and the server sees a plain request. */
  #stripped(request: IncomingMessage, socket: Socket): void {
    const { connection: _, upgrade: __, ...headers } = request.headers;
    const { hostname, port } = this.#target;
    const onward = forward({ hostname, port, path: request.url, headers }, (answer) => {
      answer.resume();
      socket.end(`HTTP/1.1 ${answer.statusCode} ${answer.statusMessage}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n`);
    });
    onward.on("error", () => socket.destroy());
    onward.end();
  }

  #tunnel(request: IncomingMessage, socket: Socket, head: Buffer): void {
    const onward = connect(Number(this.#target.port), this.#target.hostname, () => {
      const lines = request.rawHeaders.reduce((text, word, i) => text + word + (i % 2 === 0 ? ": " : "\r\n"), "");
      onward.write(`GET ${request.url} HTTP/1.1\r\n${lines}\r\n`);
      onward.write(head);
      onward.pipe(socket).pipe(onward);
    });
    const end = (): void => { onward.destroy(); socket.destroy(); };
    onward.on("error", end).on("close", end);
    socket.on("error", end).on("close", end);
  }
}
