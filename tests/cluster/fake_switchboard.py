#!/usr/bin/env python3
"""Stands in for the switchboard binary where only scripts/cluster is tested: the same command line, /ready, and a WebSocket echo on /ws.

Of the headers that came through the proxy it tells in /headers; each `topics create` and `shard init` is a line in DATA/calls.
"""

import base64
import hashlib
import json
import socketserver
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.headers.get("Upgrade", "").lower() == "websocket":
            return self.echo()
        known = {"/ready": "ready\n", "/metrics": "secret_numbers 1\n", "/headers": json.dumps(self.headers.items())}
        body = known.get(self.path, "not found\n").encode()
        self.send_response(200 if self.path in known else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def echo(self):
        key = self.headers["Sec-WebSocket-Key"].encode()
        self.send_response(101)
        for name, value in (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key + GUID).digest()).decode())):
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        while True:     # short masked text frames
            head = self.rfile.read(6)
            if len(head) < 6:
                return
            body = bytes(byte ^ head[2 + at % 4] for at, byte in enumerate(self.rfile.read(head[1] & 127)))
            self.wfile.write(bytes([head[0], len(body)]) + body)
            self.wfile.flush()

    def log_message(self, *_):
        pass


def address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def main():
    flag, path, *words = sys.argv[1:]
    assert flag == "--config"
    config = tomllib.loads(Path(path).read_text())
    for file in (config["auth"]["secret_file"], config["cluster"]["secret_file"], *(d["password_file"] for d in config["cluster"]["postgres"]["databases"])):
        assert Path(file).stat().st_mode & 0o777 == 0o600 and len(Path(file).read_text()) >= 32, file
    if words != ["serve"]:
        with open(Path(config["data"]) / "calls", "a") as file:
            print(*words, file=file)
        return
    ThreadingHTTPServer.request_queue_size = 128
    socketserver.TCPServer.allow_reuse_address = True
    link = socketserver.TCPServer(address(config["cluster"]["link"]), socketserver.BaseRequestHandler)
    print("listening", config["listen"], link.server_address, flush=True)
    ThreadingHTTPServer(address(config["listen"]), Handler).serve_forever()


if __name__ == "__main__":
    main()
