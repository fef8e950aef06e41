"""The real server over TLS, its files, and what can be asked of it from outside."""

import base64
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from authority import Authority  # noqa: E402

BINARY = os.environ.get("TEST_BIN") or str(ROOT / "target/debug/switchboard")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHBOARD_")}
LIMIT_S = 30


def wait_until(what: str, holds, limit_s: float = LIMIT_S):
    """What `holds` gives as soon as it is true."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {limit_s} s")


class Server:
    """Its certificate and key are links into a folder that is exchanged in one step, as certificate managers do it."""

    def __init__(self, folder: Path, **settings: str):
        self.folder, self.log = folder, folder / "log"
        self.authority = Authority(folder / "authority")
        self.certificate, self.key = folder / "tls.crt", folder / "tls.key"
        self.generation = 0
        self.exchange()
        for file in (self.certificate, self.key):
            file.symlink_to(Path("..data") / file.name)
        files = {"SWITCHBOARD_GATEWAY__TLS__CERTIFICATE": str(self.certificate), "SWITCHBOARD_GATEWAY__TLS__KEY": str(self.key)}
        self.environment = {**ENVIRONMENT, **files, **settings}
        self.trusted = ssl.create_default_context(cafile=self.authority.ca)
        self.process, self.port = None, 0

    def start(self) -> None:
        command = [BINARY, "serve", "--data", self.folder / "data", "--listen", "127.0.0.1:0"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment)
        found = wait_until("it listens", lambda: re.search(rb"listening on https://127\.0\.0\.1:(\d+)", self.log.read_bytes()))
        self.port = int(found[1])
        wait_until("it is ready", lambda: self.get("/ready").startswith("HTTP/1.1 200"))

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    def exchange(self, days: int = 20, damage=None) -> None:
        """Another certificate and key, damaged or not, in one step."""
        self.generation += 1
        folder = self.folder / f"..{self.generation}"
        folder.mkdir()
        self.authority.issue(folder / "tls.crt", folder / "tls.key", days)
        if damage:
            damage(folder)
        link = self.folder / "..new"
        link.symlink_to(folder.name)
        link.rename(self.folder / "..data")

    def hang_up(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def token(self, user: int) -> str:
        out = subprocess.run([BINARY, "token", "--user", str(user), "--data", self.folder / "data"], capture_output=True, text=True, check=True,
                             env=ENVIRONMENT)
        return out.stdout.strip()

    # --- from outside ----------------------------------------------------------------------------------------------

    def tcp(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT_S)

    def tls(self, context: ssl.SSLContext | None = None, tcp: socket.socket | None = None) -> ssl.SSLSocket:
        """A TLS connection for which an end without close_notify is an error."""
        context = context or self.trusted
        return context.wrap_socket(tcp or self.tcp(), server_hostname="localhost", suppress_ragged_eofs=False)

    def ask(self, *lines: str) -> str:
        """The whole answer to a request, which must end with close_notify."""
        with self.tls() as stream:
            stream.sendall("\r\n".join([*lines, "", ""]).encode())
            return read_all(stream).decode()

    def get(self, path: str, *lines: str) -> str:
        return self.ask(f"GET {path} HTTP/1.1", "Host: localhost", *lines)

    def upgrade(self, *lines: str) -> str:
        key = base64.b64encode(os.urandom(16)).decode()
        return "\r\n".join(["GET /ws HTTP/1.1", "Host: localhost", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
                            f"Sec-WebSocket-Key: {key}", *lines, "", ""])

    def serial(self) -> str:
        """Of the certificate that a new connection is shown."""
        with self.tls() as stream:
            return stream.getpeercert()["serialNumber"]

    def metric(self, name: str) -> float:
        """Sum of the samples whose line begins so."""
        with urllib.request.urlopen(f"https://localhost:{self.port}/metrics", context=self.trusted, timeout=LIMIT_S) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def sockets(self) -> int:
        """TCP connections the process holds: those that listen too."""
        links = []
        for file in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                links.append(os.readlink(file))
            except FileNotFoundError:
                pass
        return sum(link.startswith("socket:") for link in links)


def read_all(stream) -> bytes:
    """Everything up to a clean end."""
    parts = []
    while part := stream.recv(65536):
        parts.append(part)
    return b"".join(parts)


def frame(opcode: int, payload: bytes) -> bytes:
    """A client's frame of less than 126 bytes, masked with zeros."""
    assert len(payload) < 126
    return bytes([0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0]) + payload
