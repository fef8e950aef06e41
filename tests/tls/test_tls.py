"""TLS as clients see it: OpenSSL, curl and `websockets` against the real binary."""

import asyncio
import json
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from server import BINARY, ENVIRONMENT, LIMIT_S, Server, frame, read_all, wait_until
from websockets.asyncio.client import connect

CONFIG = 78   # exit code of a wrong configuration
ENDED = 'switchboard_ended_total{why="%s"}'


class Tls(unittest.TestCase):
    settings: dict[str, str] = {}

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="switchboard-tls-")
        cls.addClassCleanup(cls.folder.cleanup)
        cls.server = Server(Path(cls.folder.name), **cls.settings)
        cls.addClassCleanup(cls.server.stop)
        cls.server.start()

    def attach(self, user: int, device: str = "one", tcp: socket.socket | None = None) -> ssl.SSLSocket:
        """A raw WebSocket that has said hello, in one record with the request, and is live."""
        stream = self.server.tls(tcp=tcp)
        hello = frame(1, b'{"type":"hello","device":"%s"}' % device.encode())
        stream.sendall(self.server.upgrade(f"Authorization: Bearer {self.server.token(user)}").encode() + hello)
        seen = b""
        while b'"live"' not in seen:
            seen += stream.recv(65536)
        self.assertTrue(seen.startswith(b"HTTP/1.1 101"), seen)
        return stream


class Handshakes(Tls):
    settings = {"SWITCHBOARD_GATEWAY__REQUEST_DEADLINE": "1s"}

    def test_1_3_only_and_http_1_1_above(self):
        with self.server.tls() as stream:
            self.assertEqual(stream.version(), "TLSv1.3")
        context = ssl.create_default_context(cafile=self.server.authority.ca)
        context.set_alpn_protocols(["h2", "http/1.1"])
        with self.server.tls(context) as stream:
            self.assertEqual(stream.selected_alpn_protocol(), "http/1.1")
        refused = self.server.metric(ENDED % "tls_error")
        context.set_alpn_protocols(["h2"])
        self.assertRaisesRegex(ssl.SSLError, "(?i)no.application.protocol", self.server.tls, context)
        context = ssl.create_default_context(cafile=self.server.authority.ca)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.assertRaisesRegex(ssl.SSLError, "(?i)protocol.version", self.server.tls, context)
        wait_until("both are counted", lambda: self.server.metric(ENDED % "tls_error") >= refused + 2)

    def test_no_session_is_resumed(self):
        context = ssl.create_default_context(cafile=self.server.authority.ca)
        with self.server.tls(context) as first:
            first.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            read_all(first)
            session = first.session
        tcp = self.server.tcp()
        with context.wrap_socket(tcp, server_hostname="localhost", session=session) as second:
            self.assertFalse(second.session_reused)

    def test_curl(self):
        def curl(*words) -> subprocess.CompletedProcess:
            return subprocess.run(["curl", "--silent", "--show-error", *words, f"https://localhost:{self.server.port}/health"],
                                  capture_output=True, text=True, timeout=LIMIT_S)
        trusted = ["--cacert", self.server.authority.ca]
        good = curl(*trusted, "--http2", "--write-out", "%{http_version}")
        self.assertEqual((good.stdout, good.returncode), ("ok\n1.1", 0), good.stderr)
        self.assertEqual(curl().returncode, 60, "nobody vouches for it")
        self.assertEqual(curl(*trusted, "--tls-max", "1.2").returncode, 35)

    def test_a_handshake_that_stalls_is_ended(self):
        context = ssl.create_default_context(cafile=self.server.authority.ca)
        outgoing = ssl.MemoryBIO()
        half = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
        self.assertRaises(ssl.SSLWantReadError, half.do_handshake)
        greeting = outgoing.read()
        before, held = self.server.metric(ENDED % "tls_deadline"), self.server.sockets()
        for part in (greeting[:1], greeting[:100], greeting):
            with self.server.tcp() as tcp:
                began = time.monotonic()
                tcp.sendall(part)
                while tcp.recv(65536):
                    pass
                self.assertLess(time.monotonic() - began, 5)
        silent = [self.server.tcp() for _ in range(50)]
        for tcp in silent:
            tcp.sendall(greeting[:100])
        for tcp in silent:
            self.assertEqual(tcp.recv(1), b"")
            tcp.close()
        wait_until("each is counted", lambda: self.server.metric(ENDED % "tls_deadline") == before + 53)
        wait_until("nothing of them is left", lambda: self.server.sockets() <= held)

    def test_garbage_is_ended_at_once(self):
        before, held = self.server.metric(ENDED % "tls_error"), self.server.sockets()
        too_long = b"\x16\x03\x01\xff\xff" + b"\0" * 70000
        not_a_greeting = b"\x16\x03\x01\x00\x04\x02\x00\x00\x00"
        for garbage in (b"\0" * 100, too_long, not_a_greeting, b"\x15\x03\x03\x00\x02\x02\x28", b"\x80\x2e\x01\x00\x02" + b"\0" * 50):
            with self.server.tcp() as tcp:
                try:
                    tcp.sendall(garbage)
                    while tcp.recv(65536):
                        pass
                except ConnectionError:
                    pass   # unread bytes: the kernel says it so
        wait_until("each is counted", lambda: self.server.metric(ENDED % "tls_error") == before + 5)
        wait_until("nothing of them is left", lambda: self.server.sockets() <= held)

    def test_http_in_the_clear_is_told_and_ends_cleanly(self):
        before = self.server.metric(ENDED % "tls_missing")
        for request in (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"POST /ws HTTP/1.1\r\n\r\n" + b"x" * 20000):
            with self.server.tcp() as tcp:
                tcp.sendall(request)
                answer = read_all(tcp)
            self.assertTrue(answer.startswith(b"HTTP/1.1 400 ") and answer.endswith(b"use https:// or wss://\n"), answer)
        wait_until("each is counted", lambda: self.server.metric(ENDED % "tls_missing") == before + 2)

    def test_after_the_handshake_the_request_has_what_is_left_of_the_time(self):
        with self.server.tls() as stream:
            began = time.monotonic()
            stream.sendall(b"GET / HTTP/1.1\r\n")
            try:
                read_all(stream)
            except ssl.SSLError:
                pass
            self.assertLess(time.monotonic() - began, 5)


class Connections(Tls):
    settings = {"SWITCHBOARD_GATEWAY__HEARTBEAT": "1s", "SWITCHBOARD_GATEWAY__STALL_DEADLINE": "1s",
                "SWITCHBOARD_LIMITS__SENDS_PER_S": "1000", "SWITCHBOARD_LIMITS__SENDS_BURST": "1000"}

    def test_what_comes_with_the_request_is_not_lost(self):
        # one record, and then each byte in a record of its own
        self.attach(1).close()
        stream = self.server.tls()
        text = self.server.upgrade(f"Authorization: Bearer {self.server.token(1)}").encode() + frame(1, b'{"type":"hello"}')
        for byte in text:
            stream.sendall(bytes([byte]))
        seen = b""
        while b'"live"' not in seen:
            seen += stream.recv(65536)
        stream.close()

    def test_closing_is_said_in_both_layers(self):
        stream = self.attach(2)
        stream.sendall(frame(8, struct.pack("!H", 1000)))
        rest = read_all(stream)   # an end without close_notify is an error here
        self.assertIn(b"\x88\x02\x03\xe8", rest)
        stream.close()

    def test_a_half_that_is_closed_ends_the_connection(self):
        held, errors = self.server.sockets(), self.server.metric(ENDED % "read_error")
        for leave in (lambda stream: stream.unwrap(), lambda stream: stream.shutdown(socket.SHUT_WR), lambda stream: stream.close()):
            stream = self.attach(3)
            try:
                leave(stream)
            except ssl.SSLError:
                pass   # what was on its way when we left
            wait_until("the server lets go", lambda: self.server.sockets() <= held)
            stream.close()
        self.assertEqual(self.server.metric(ENDED % "read_error"), errors, "whoever leaves, leaves, with close_notify or without")

    def test_who_does_not_read_is_closed(self):
        def posts(user: int, count: int) -> bytes:
            text = "x" * 15000
            def send(number: int) -> bytes:
                now = f"{int(time.time() * 1000):012x}"
                identity = f"{now[:8]}-{now[8:]}-7000-8000-{user:04x}{number:08x}"
                body = json.dumps({"type": "send", "id": identity, "to": f"u:{user}", "kind": "text", "body": {"text": text}}).encode()
                return b"\x81\xfe" + struct.pack("!H", len(body)) + b"\0\0\0\0" + body
            return b"".join(send(number) for number in range(count))
        tcp = socket.socket()
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        tcp.connect(("127.0.0.1", self.server.port))
        reader = self.attach(5, "reader", tcp)
        reader.settimeout(0.2)
        closed = self.server.metric('switchboard_closed_total{code="4408"}')
        # pages of 256 KiB are asked for and not read: the kernel takes what it takes, then nothing
        writer = self.attach(5, "writer")
        writer.sendall(posts(5, 30))
        ask = frame(1, b'{"type":"history","conversation":"d:5:5","limit":100}')
        def stalls() -> bool:
            try:
                reader.sendall(ask)
            except (ConnectionError, ssl.SSLError, TimeoutError):
                pass
            return self.server.metric('switchboard_closed_total{code="4408"}') > closed
        self.addCleanup(reader.close)
        self.addCleanup(writer.close)
        wait_until("it is closed", stalls)

    def test_websockets(self):
        async def chat() -> str:
            headers = {"Authorization": f"Bearer {self.server.token(6)}"}
            url = f"wss://localhost:{self.server.port}/ws"
            async with connect(url, ssl=self.server.trusted, additional_headers=headers, subprotocols=["switchboard.v1.json"]) as socket_:
                await socket_.send('{"type":"hello"}')
                return json.loads(await socket_.recv())["type"]
        self.assertEqual(asyncio.run(chat()), "welcome")


class Headers(Tls):
    settings = {"SWITCHBOARD_GATEWAY__ORIGINS": "https://chat.example.org,https://chat.example.org:8443"}

    def test_every_answer_has_its_headers(self):
        everywhere = ["x-content-type-options: nosniff", "referrer-policy: no-referrer", "x-frame-options: deny", "cache-control: no-",
                      "cross-origin-opener-policy: same-origin", "cross-origin-resource-policy: same-origin", "frame-ancestors 'none'",
                      "default-src 'none'", "strict-transport-security: max-age=31536000\r"]
        routes = ["GET /", "GET /page.js", "GET /health", "GET /ready", "GET /metrics", "GET /nothing", "POST /health", "GET /ws", "POST /ws",
                  "POST /dev/token"]
        for route in routes:
            answer = self.server.ask(f"{route} HTTP/1.1", "Host: chat.example.org").lower()
            for words in everywhere:
                self.assertIn(words, answer, route)
        page = self.server.ask("GET / HTTP/1.1", "Host: chat.example.org").lower()
        self.assertIn("script-src 'self'", page)
        for host in ("localhost:8443", "127.0.0.1"):
            self.assertNotIn("strict-transport-security", self.server.ask("GET / HTTP/1.1", f"Host: {host}").lower())

    def test_origins_over_https(self):
        own, near = "https://chat.example.org", "https://localhost"
        good = [own, f"{own}:8443", near]
        bad = ["null", "", f"{own}.evil.example", "https://evil-chat.example.org", f"{own}:444", f"{own}:443", f"{own}/", f"{own}.",
               "http://chat.example.org", "https://Chat.example.org", "HTTPS://chat.example.org", "https://sub.chat.example.org",
               "https://example.org", f"{own}@evil.example", "http://localhost", f"{near}:444", "wss://chat.example.org"]
        for origins, status in ((good, "101"), (bad, "403")):
            for origin in origins:
                with self.server.tls() as stream:
                    stream.sendall(self.server.upgrade(f"Origin: {origin}").encode())
                    self.assertEqual(stream.recv(12), f"HTTP/1.1 {status}".encode(), origin)

    def test_a_token_for_the_asking_is_for_the_own_page(self):
        body = '{"user":"9"}'
        for origin, status in (("https://localhost", "200"), ("http://localhost", "403"), ("https://evil.example", "403")):
            answer = self.server.ask("POST /dev/token HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Origin: {origin}",
                                     f"Content-Length: {len(body)}", "", body)
            self.assertTrue(answer.startswith(f"HTTP/1.1 {status}"), f"{origin}: {answer}")


class Reload(Tls):
    def test_a_new_certificate_is_for_new_connections(self):
        server, expiry = self.server, "switchboard_tls_certificate_expiry_seconds"
        old = self.attach(1)
        shown = old.getpeercert()["serialNumber"]
        days = (server.metric(expiry) - time.time()) / 86400
        self.assertTrue(19 < days <= 20, days)

        def pings(stream: ssl.SSLSocket) -> bool:
            stream.sendall(frame(1, b'{"type":"ping"}'))
            heard = b""
            while b"pong" not in heard:            # what the server has to say besides may come first
                more = stream.recv(65536)
                if not more:
                    return False
                heard += more
            return True

        done, refused = 'switchboard_tls_reloads_total{outcome="done"}', 'switchboard_tls_reloads_total{outcome="refused"}'
        server.hang_up()
        wait_until("SIGHUP alone reads them again, though nothing has changed", lambda: server.metric(done) == 1)
        self.assertEqual(server.serial(), shown)
        server.exchange(days=10)
        changed = wait_until("the change of the files is seen", lambda: (now := server.serial()) != shown and now)
        self.assertEqual(server.metric(done), 2)
        self.assertLess((server.metric(expiry) - time.time()) / 86400, 10.1)
        self.assertTrue(pings(old))

        def cut(folder: Path):
            key = folder / "tls.key"
            key.write_text(key.read_text()[:80])
        def of_others(folder: Path):
            server.authority.issue(folder / "other.crt", folder / "tls.key")
        def gone(folder: Path):
            (folder / "tls.crt").unlink()
        for count, damage in enumerate((cut, of_others, gone), 1):
            server.exchange(damage=damage)
            wait_until("it is refused", lambda: server.metric(refused) == count)
            self.assertEqual(server.serial(), changed)
        server.exchange(days=-1)
        server.hang_up()
        wait_until("one that has expired too", lambda: server.metric(refused) == 4)
        self.assertEqual(server.serial(), changed)
        self.assertTrue(pings(old))

        server.exchange()
        server.hang_up()
        wait_until("a good one again", lambda: server.serial() != changed)
        self.assertTrue(pings(old))
        self.assertEqual(old.getpeercert()["serialNumber"], shown)
        old.close()

        log = server.log.read_text()
        for words in ("gateway.tls.key", "gateway.tls.certificate", "has expired", "the old one stays in force"):
            self.assertIn(words, log)
        for folder in server.folder.glob("..[0-9]*"):
            for line in (folder / "tls.key").read_text().splitlines()[1:-1]:
                self.assertNotIn(line, log, "nothing of a key is logged")


class Start(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="switchboard-tls-")
        self.addCleanup(folder.cleanup)
        self.server = Server(Path(folder.name))
        self.addCleanup(self.server.stop)

    def run_cli(self, *words: str, **more: str) -> subprocess.CompletedProcess:
        return subprocess.run([BINARY, *words, "--data", self.server.folder / "data"], capture_output=True, text=True, timeout=LIMIT_S,
                              env={**self.server.environment, **more})

    def test_the_configuration_is_shown_without_the_key(self):
        shown = self.run_cli("config", "check")
        self.assertEqual(shown.returncode, 0, shown.stderr)
        self.assertIn(f"tls        1.3, certificate {self.server.certificate}, key {self.server.key}", shown.stdout)
        for line in self.server.key.read_text().splitlines():
            self.assertNotIn(line, shown.stdout)

    def test_what_is_wrong_is_told_before_the_port_opens(self):
        gone, key = self.server.folder / "gone", "SWITCHBOARD_GATEWAY__TLS__KEY"
        for more, words in (({key: str(gone)}, ["gateway.tls.key", str(gone), "No such file"]), ({key: ""}, ["gateway.tls.key must be"]),
                            ({key: str(self.server.certificate)}, ["gateway.tls.key", "holds no private key"])):
            for command in (["serve", "--listen", "127.0.0.1:0"], ["config", "check"]):
                refused = self.run_cli(*command, **more)
                self.assertEqual((refused.returncode, refused.stdout), (CONFIG, ""), refused.stderr)
                for word in words:
                    self.assertIn(word, refused.stderr)
        # who makes tokens need not see the key
        self.assertEqual(self.run_cli("token", "--user", "1", **{key: str(gone)}).returncode, 0)

    def test_a_key_for_everybodys_eyes_is_told(self):
        self.server.key.resolve().chmod(0o644)
        self.server.start()
        self.assertIn("can read the private key", self.server.log.read_text())

    def test_without_tls_a_hang_up_ends_it(self):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)     # started by nohup(1), this process ignores it, and so would the server
        plain = subprocess.Popen([BINARY, "serve", "--data", self.server.folder / "plain", "--listen", "127.0.0.1:0"], env=ENVIRONMENT,
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.addCleanup(plain.stdout.close)
        self.assertTrue(plain.stdout.readline().startswith(b"listening on http://"))
        plain.send_signal(1)
        self.assertEqual(plain.wait(LIMIT_S), -1, "as ever: a terminal that closes takes the server along")


if __name__ == "__main__":
    unittest.main()
