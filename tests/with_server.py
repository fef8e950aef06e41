#!/usr/bin/env python3
"""Runs a command beside a server of its own: tests/with_server.py [--users 42,43] [--tls] [--set KEY=VALUE]… COMMAND [ARG…]

The server gets a free port and a temporary data folder. The command gets, in its environment:

  TEST_URL        http://127.0.0.1:PORT, or https:// with --tls
  TEST_CA         with --tls: the authority that signed its certificate (NODE_EXTRA_CA_CERTS too)
  TEST_TOKEN_42   a token for user 42, by `switchboard token` (one for each of --users)
  TEST_CONTROL    http://127.0.0.1:PORT2, where it may POST /kill (SIGKILL) and /start (same port, same data)
  TEST_BIN        the binary: also the way to name another than target/debug/switchboard

(Not SWITCHBOARD_…: those are the server's own settings. It is started with those of --set and no others, so that a test means what it says.)

Afterwards the server gets SIGTERM and must exit 0 in time: every test that runs here is also a test of the drain.
The exit code is the command's, or 1 if the server did not behave. The server's output is shown only then.
"""

import argparse
import http.server
import os
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from authority import Authority

ROOT = Path(__file__).resolve().parent.parent
BINARY = Path(os.environ.get("TEST_BIN") or ROOT / "target/debug/switchboard").resolve()
SETTINGLESS = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHBOARD_")}
START_S = 30
DRAIN_S = 30


class Server:
    """The server process: started, killed and started again on one port and one data folder."""

    def __init__(self, folder: Path, tls: bool = False, settings: dict[str, str] | None = None):
        self.data = folder / "data"
        self.environment = dict(SETTINGLESS)
        for key, value in (settings or {}).items():
            self.environment["SWITCHBOARD_" + key.upper().replace(".", "__")] = value
        self.ca: Path | None = None
        if tls:
            authority, certificate, key = Authority(folder / "tls"), folder / "tls" / "tls.crt", folder / "tls" / "tls.key"
            authority.issue(certificate, key)
            self.ca = authority.ca
            self.environment |= {"SWITCHBOARD_GATEWAY__TLS__CERTIFICATE": str(certificate), "SWITCHBOARD_GATEWAY__TLS__KEY": str(key)}
        self.log = folder / "server.log"
        self.port = 0
        self.process: subprocess.Popen | None = None
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"{'https' if self.ca else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.lock:
            assert self.process is None, "the server runs already"
            seen = self.log.stat().st_size if self.log.exists() else 0
            with self.log.open("ab") as log:
                command = [BINARY, "serve", "--data", self.data, "--listen", f"127.0.0.1:{self.port}"]
                self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                env=self.environment)
            deadline = time.monotonic() + START_S
            while time.monotonic() < deadline:
                found = re.search(rb"listening on https?://127\.0\.0\.1:(\d+)", self.log.read_bytes()[seen:])
                if found:
                    self.port = int(found[1])
                    return self.wait_ready(deadline)
                if self.process.poll() is not None:
                    raise RuntimeError(f"the server ended with {self.process.returncode} while starting")
                time.sleep(0.02)
            raise RuntimeError(f"no 'listening on' within {START_S} s")

    def wait_ready(self, deadline: float) -> None:
        """Ready: a message of the server's own has gone the whole path."""
        trusted = ssl.create_default_context(cafile=self.ca) if self.ca else None
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/ready", timeout=5, context=trusted):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise RuntimeError(f"/ready did not answer 200 within {START_S} s")

    def kill(self) -> None:
        with self.lock:
            assert self.process is not None, "the server does not run"
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> int:
        """SIGTERM; the exit code. A server that does not drain in time is killed, and that is a failure."""
        with self.lock:
            if self.process is None:
                return 0
            self.process.terminate()
            try:
                code = self.process.wait(DRAIN_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                code = -signal.SIGKILL
            self.process = None
            return code

    def token(self, user: str) -> str:
        out = subprocess.run([BINARY, "token", "--user", user, "--data", self.data],
                             stdin=subprocess.DEVNULL, capture_output=True, text=True, env=SETTINGLESS)
        if out.returncode != 0:
            raise RuntimeError(f"`switchboard token` ended with {out.returncode}: {out.stderr}")
        token = out.stdout.strip()
        if token.count(".") != 2 or any(c.isspace() for c in token):
            raise RuntimeError("`switchboard token` must print the token on stdout and nothing else")
        return token


def control(server: Server) -> http.server.ThreadingHTTPServer:
    """A small HTTP door through which the tests kill and start their server."""

    class Door(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            action = {"/kill": server.kill, "/start": server.start}.get(self.path)
            code, text = (200, "ok") if action else (404, "POST /kill or /start")
            try:
                if action:
                    action()
            except (AssertionError, RuntimeError) as error:
                code, text = 500, str(error)
            self.send_response(code)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    door = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door)
    threading.Thread(target=door.serve_forever, daemon=True).start()
    return door


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", default="42,43")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the server, e.g. limits.sends_per_s=1000")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    if not args.command:
        parser.error("no command")
    if not BINARY.exists():
        print(f"with_server: no binary at {BINARY}: cargo build -p server --features testing", file=sys.stderr)
        return 1

    with tempfile.TemporaryDirectory(prefix="switchboard-test-") as folder:
        server = Server(Path(folder), args.tls, dict(setting.split("=", 1) for setting in args.set))
        problem = None
        code = 1
        try:
            server.start()
            door = control(server)
            environment = dict(os.environ, TEST_URL=server.url, TEST_BIN=str(BINARY),
                               TEST_CONTROL=f"http://127.0.0.1:{door.server_port}")
            if server.ca:
                environment |= {"TEST_CA": str(server.ca), "NODE_EXTRA_CA_CERTS": str(server.ca)}
            for user in args.users.split(","):
                environment[f"TEST_TOKEN_{user}"] = server.token(user)
            code = subprocess.run(args.command, env=environment, stdin=subprocess.DEVNULL).returncode
            door.shutdown()
        except (RuntimeError, OSError) as error:
            problem = str(error)
        ended = server.stop()
        if problem is None and ended != 0:
            problem = f"after SIGTERM the server ended with {ended}, not 0 (within {DRAIN_S} s)"
        if problem:
            print(f"with_server: {problem}", file=sys.stderr)
        if problem or code != 0:
            lines = server.log.read_text(errors="replace").splitlines() if server.log.exists() else []
            print("with_server: the server's last lines:", *lines[-40:], sep="\n    ", file=sys.stderr)
        return code or (1 if problem else 0)


if __name__ == "__main__":
    sys.exit(main())
