"""The command line: what it prints, where, and how it ends. TEST_BIN names the binary (else target/debug/switchboard)."""

import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

BINARY = os.environ.get("TEST_BIN") or str(Path(__file__).resolve().parents[2] / "target/debug/switchboard")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHBOARD_")}
LIMIT_S = 30
USAGE, CONFIG = 2, 78   # exit codes: wrong words on the command line; a wrong configuration


class Cli(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="switchboard-cli-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.data = self.folder / "data"

    def run_cli(self, *words, **environment) -> subprocess.CompletedProcess:
        return subprocess.run([BINARY, *map(str, words)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S,
                              cwd=self.folder, env={**ENVIRONMENT, **environment})

    def serve(self, *words) -> tuple[subprocess.Popen, int]:
        log = open(self.folder / "log", "wb")
        self.addCleanup(log.close)
        process = subprocess.Popen([BINARY, "serve", "--data", self.data, "--listen", "127.0.0.1:0", *words], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=log, cwd=self.folder, env=ENVIRONMENT)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        found = re.fullmatch(rb"listening on http://127\.0\.0\.1:(\d+)\n", process.stdout.readline())
        self.assertTrue(found, "the first line of stdout says where it listens")
        return process, int(found[1])

    def ask(self, port: int, method: str, path: str, body=None, **headers) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def test_help_and_version(self):
        for words in (["--help"], ["serve", "--help"], ["token", "--help"]):
            out = self.run_cli(*words)
            self.assertEqual((out.returncode, out.stderr), (0, ""))
            self.assertIn("Usage: switchboard", out.stdout)
        self.assertRegex(self.run_cli("--version").stdout, r"^\w+ \d+\.\d+\.\d+\n$")

    def test_wrong_words(self):
        for words in ([], ["dance"], ["serve", "--listen", "nonsense"], ["token", "--data", self.data], ["token", "--user", "0"], ["token", "--user", "-1"]):
            out = self.run_cli(*words)
            self.assertEqual((out.returncode, out.stdout), (USAGE, ""), words)
            self.assertTrue(out.stderr, words)

    def test_wrong_configuration_is_named_and_not_served(self):
        unknown = self.run_cli("serve", "--data", self.data, SWITCHBOARD_NONSENSE="1")
        self.assertEqual(unknown.returncode, CONFIG)
        self.assertIn("SWITCHBOARD_NONSENSE", unknown.stderr)
        open_world = self.run_cli("serve", "--data", self.data, "--listen", "0.0.0.0:0")
        self.assertEqual(open_world.returncode, CONFIG, "no development mode for the world")
        self.assertIn("secret", open_world.stderr)
        self.assertEqual(self.run_cli("config", "check", "--data", self.data).returncode, 0)

    def test_token_prints_a_token_and_nothing_else(self):
        first = self.run_cli("token", "--user", "42", "--data", self.data)
        self.assertEqual(first.returncode, 0)
        self.assertIn("no server has used this folder", first.stderr, "a new secret is no secret of a running server: say so")
        out = self.run_cli("token", "--user", "42", "--data", self.data)
        self.assertEqual((out.returncode, out.stderr), (0, ""))
        self.assertRegex(out.stdout, r"^[\w-]+\.[\w-]+\.[\w-]+\n$")
        for path in self.data.rglob("*"):
            self.assertFalse(stat.S_IMODE(path.stat().st_mode) & 0o077, f"{path.name} is for its owner only")

    def test_serves_and_drains(self):
        process, port = self.serve()
        self.assertEqual(self.ask(port, "GET", "/health")[0], 200)
        deadline = time.monotonic() + LIMIT_S
        while self.ask(port, "GET", "/ready")[0] != 200:
            self.assertLess(time.monotonic(), deadline, "ready in time")
            time.sleep(0.05)
        status, headers, page = self.ask(port, "GET", "/")
        self.assertEqual(status, 200)
        self.assertIn("default-src 'none'", headers["content-security-policy"])
        self.assertRegex(page, rb"/assets/main-\w+\.js")
        self.assertEqual(self.ask(port, "GET", "/metrics")[0], 200)
        self.assertEqual(self.ask(port, "GET", "/nowhere")[0], 404)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(LIMIT_S), 0)
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 1)

    def test_tokens_for_the_asking_only_to_this_page(self):
        _, port = self.serve()
        wish = json.dumps({"user": "42", "device": "x"})
        status, _, body = self.ask(port, "POST", "/dev/token", wish, **{"content-type": "application/json"})
        answer = json.loads(body)
        self.assertEqual((status, answer["success"]), (200, True))
        self.assertEqual(answer["data"]["token"].count("."), 2)
        json_type = {"content-type": "application/json"}
        for headers in ({"content-type": "text/plain"}, {**json_type, "origin": "https://example.com"}, {**json_type, "host": "example.com"}):
            self.assertGreaterEqual(self.ask(port, "POST", "/dev/token", wish, **headers)[0], 400, headers)

    def test_one_server_for_one_data_folder_and_one_port(self):
        _, port = self.serve()
        same_data = self.run_cli("serve", "--data", self.data, "--listen", "127.0.0.1:0")
        self.assertNotEqual(same_data.returncode, 0)
        self.assertTrue(same_data.stderr)
        same_port = self.run_cli("serve", "--data", self.folder / "other", "--listen", f"127.0.0.1:{port}")
        self.assertNotEqual(same_port.returncode, 0)
        self.assertIn(str(port), same_port.stderr)
        self.assertEqual(self.run_cli("token", "--user", "42", "--data", self.data).returncode, 0, "works while the server runs")


if __name__ == "__main__":
    unittest.main()
