"""scripts/cluster itself: engines that really answer, healing after kills, nobody else's process touched, nothing left behind.

One stand for all tests: one broker, one Redis, two databases, then Switchboard's processes played by fake_switchboard.py.
"""

import base64
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FAKE = Path(__file__).parent / "fake_switchboard.py"
sys.path.insert(0, str(ROOT / "scripts"))
from stand import process   # noqa: E402

ENGINES = ["kafka-1", "redis-1", "postgres-a", "postgres-b"]
LIMIT_S = 120


def free_base() -> int:
    """Below the ports of outgoing connections, and free now."""
    for base in random.sample(range(20000, 30000, 240), 20):
        if all(process.is_free(port) for port in range(base, base + 240)):
            return base
    raise RuntimeError("no 240 free ports")


class Cluster:
    def __init__(self):
        self.scratch = tempfile.TemporaryDirectory(prefix="switchboard-stand-")
        self.folder = Path(self.scratch.name).resolve() / "stand"
        os.chmod(self.scratch.name, 0o755)      # the user postgres goes through it
        self.base = free_base()
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(("SWITCHBOARD_", "TEST_"))}
        self.environment |= {"SWITCHBOARD_CLUSTER_DIR": str(self.folder), "SWITCHBOARD_CLUSTER_PORTS": str(self.base)}

    def __call__(self, *words, fails=False) -> str:
        done = subprocess.run([ROOT / "scripts/cluster", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, env=self.environment)
        if (done.returncode != 0) != fails:
            raise AssertionError(f"cluster {' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def processes(self) -> list[str]:
        """Whatever runs and names the stand's folder."""
        return [" ".join(words) for words in (process.argv(one.pid) for one in process.all_processes()) if str(self.folder) in " ".join(words)]

    def states(self) -> dict[str, str]:
        done = subprocess.run([ROOT / "scripts/cluster", "status"], capture_output=True, text=True, timeout=LIMIT_S, env=self.environment)
        rows = [line.split() for line in done.stdout.split("LOG\n")[-1].splitlines()]
        return {row[0]: "not ready" if row[1] == "not" else row[1] for row in rows}

    def exported(self) -> dict[str, str]:
        return dict(line.removeprefix("export ").split("=", 1) for line in self("env").splitlines())


def setUpModule():
    global cluster
    cluster = Cluster()
    unittest.addModuleCleanup(cluster.scratch.cleanup)
    unittest.addModuleCleanup(cluster, "down", "--wipe")
    cluster("up", "--engines", "--brokers", "1", "--redis", "single")


def output(*words, **options) -> str:
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=LIMIT_S, check=True, **options).stdout


class Engines(unittest.TestCase):
    def setUp(self):
        self.addr = cluster.exported()

    def round_trips(self, value: str):
        topic = f"t-{value}"
        jars = f"{ROOT}/.cache/kafka/libs/*"
        output("java", "-XX:TieredStopAtLevel=1", "-cp", jars, "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", self.addr["SB_KAFKA"],
               "--create", "--topic", topic, "--partitions", "1")
        output("kcat", "-P", "-b", self.addr["SB_KAFKA"], "-t", topic, "-X", "acks=all", input=value)
        self.assertEqual(output("kcat", "-C", "-e", "-q", "-b", self.addr["SB_KAFKA"], "-t", topic), value + "\n")
        output("redis-cli", "-u", self.addr["SB_REDIS"], "set", "key", value)
        self.assertEqual(output("redis-cli", "-u", self.addr["SB_REDIS"], "get", "key"), value + "\n")
        urls = self.addr["TEST_POSTGRES"].split(",")
        self.assertEqual(len(urls), 2)
        for index, url in enumerate(urls):
            made = output("psql", "-XqAt", url, "-c", "create table if not exists t (v text)", "-c", f"insert into t values ('{value}')",
                          "-c", f"select count(*), current_database() from t where v = '{value}'")
            self.assertEqual(made.strip(), f"1|switchboard_{index}")

    def test_round_trips(self):
        self.round_trips("first")
        for setting in ("fsync", "synchronous_commit"):
            self.assertEqual(output("psql", "-XqAt", self.addr["TEST_POSTGRES"].split(",")[0], "-c", f"show {setting}"), "on\n")

    def test_postgres_wants_the_password(self):
        url = self.addr["TEST_POSTGRES"].split(",")[0]
        password = url.split(":")[2].split("@")[0]
        done = subprocess.run(["psql", "-Xw", url.replace(password, "wrong"), "-c", "select 1"], capture_output=True, text=True)
        self.assertIn("password authentication failed", done.stderr)
        self.assertNotIn(password, cluster("status"))
        for path in (cluster.folder / "secrets").iterdir():
            self.assertEqual(path.stat().st_mode & 0o777, 0o600)

    def test_up_heals_what_was_killed(self):
        output("psql", "-XqAt", self.addr["TEST_POSTGRES"].split(",")[1], "-c", "create table if not exists kept (v int)", "-c", "insert into kept values (7)")
        for name in ENGINES:
            before = cluster("pid", name)
            cluster("kill", name)
            self.assertIn("does not run", cluster("kill", name, fails=True))
            self.assertIsNone(process.look(int(before)))
        self.assertEqual(set(cluster.states().values()), {"stopped"})
        cluster("up", "--engines")
        self.assertEqual(cluster.states(), dict.fromkeys(ENGINES, "ready"))
        self.assertIn("kafka                    ", cluster("up", "--engines"))
        self.assertEqual(output("psql", "-XqAt", self.addr["TEST_POSTGRES"].split(",")[1], "-c", "select v from kept limit 1"), "7\n")

    def test_somebody_elses_process_is_left_alone(self):
        cluster("stop", "redis-1")
        stranger = subprocess.Popen(["sleep", "600"])
        try:
            (cluster.folder / "run/redis-1.pid").write_text(f"{stranger.pid} {process.look(stranger.pid).began}\n")
            (cluster.folder / "run/postgres-a.pid").write_text(f"{stranger.pid} 1\n")
            self.assertIn("does not run", cluster("kill", "redis-1", fails=True))
            self.assertIn("not running", cluster("stop", "redis-1"))
            # postgres-a lives: it is found without its pid file.
            self.assertNotEqual(int(cluster("pid", "postgres-a")), stranger.pid)
            (cluster.folder / "run/redis-1.pid").write_text(f"{stranger.pid} {process.look(stranger.pid).began}\n")
            cluster("up", "--engines")
            self.assertIsNone(stranger.poll())
        finally:
            stranger.kill()
            stranger.wait()

    def test_a_taken_port_is_said(self):
        cluster("stop", "redis-1")
        with socket.create_server(("127.0.0.1", cluster.base + 20)):
            self.assertIn(f"process {os.getpid()} ", cluster("start", "redis-1", fails=True))
        cluster("start", "redis-1")

    def test_unknown_names_and_other_shapes_are_refused(self):
        for action in ("kill", "stop", "start", "restart", "pause", "resume", "pid", "url", "remove", "logs"):
            said = cluster(action, "kafka-9", fails=True)
            self.assertIn("kafka-1, redis-1, postgres-a, postgres-b", said)
        self.assertIn("down --wipe", cluster("up", "--engines", "--brokers", "3", fails=True))
        self.assertIn("no such signal", cluster("kill", "redis-1", "NONSENSE", fails=True))

    def test_down_leaves_nothing_and_up_finds_the_data(self):
        output("psql", "-XqAt", self.addr["TEST_POSTGRES"].split(",")[0], "-c", "create table if not exists stays (v int)", "-c", "insert into stays values (5)")
        cluster("pause", "redis-1")
        self.assertEqual(cluster.states()["redis-1"], "paused")
        cluster("down")
        self.assertEqual(cluster.processes(), [])
        self.assertEqual([port for port in range(cluster.base, cluster.base + 240) if not process.is_free(port)], [])
        cluster("up", "--engines")
        self.assertEqual(output("psql", "-XqAt", self.addr["TEST_POSTGRES"].split(",")[0], "-c", "select v from stays limit 1"), "5\n")


class Whole(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cluster("up", "--bin", str(FAKE), "--gateways", "2", "--routers", "1", "--storages", "1", "--set", "gateway.heartbeat=5s")
        cls.nginx = cluster.base + 50

    def get(self, path: str, **headers) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{self.nginx}{path}", headers=headers), timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""

    def echo(self, text: str) -> str:
        """Through nginx, over a WebSocket."""
        with socket.create_connection(("127.0.0.1", self.nginx), timeout=10) as connection:
            file = connection.makefile("rwb")
            file.write(f"GET /ws?secret=hidden HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                       f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\nAuthorization: Bearer hidden\r\n\r\n".encode())
            file.flush()
            self.assertIn(b" 101 ", file.readline())
            while file.readline() != b"\r\n":
                pass
            mask, body = os.urandom(4), text.encode()
            file.write(bytes([0x81, 0x80 | len(body)]) + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(body)))
            file.flush()
            head = file.read(2)
            return file.read(head[1]).decode()

    def test_all_is_ready_and_was_prepared(self):
        self.assertEqual(set(cluster.states().values()), {"ready"})
        calls = (cluster.folder / "data/storage-1/calls").read_text()
        self.assertTrue(calls.startswith("topics create\nshard init\n"), calls)
        self.assertEqual(len(cluster.exported()["SB_GATEWAYS"].split(",")), 2)

    def test_nginx_passes_sockets_and_tells_no_secrets(self):
        self.assertEqual(self.echo("through the proxy"), "through the proxy")
        headers = dict(json.loads(self.get("/headers", **{"X-Forwarded-For": "6.6.6.6", "Forwarded": "for=6.6.6.6"})[1]))
        self.assertEqual(headers.get("X-Forwarded-For"), "127.0.0.1")
        self.assertNotIn("Forwarded", headers)
        self.assertEqual([self.get(path)[0] for path in ("/metrics", "/dev/token", "/ready")], [404, 404, 200])
        cluster("stop", "nginx")        # writes out what it holds of its log
        log = (cluster.folder / "logs/nginx-access.log").read_text()
        self.assertIn("GET /ws 101", log)
        self.assertNotIn("hidden", log)
        cluster("start", "nginx")

    def test_the_packaged_file_is_good(self):
        """As it stands in the repository, without the stand's replacements. (Its addresses are 10.0.0.x: nothing is connected.)"""
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
            text = (ROOT / "nginx/switchboard.conf").read_text()
            file.write(text.replace("/var/log/nginx/", file.name + ".").replace("/run/nginx.pid", file.name + ".pid"))
            file.flush()
            done = subprocess.run(["/usr/sbin/nginx", "-t", "-e", "stderr", "-c", file.name], capture_output=True, text=True)
            for path in Path(file.name).parent.glob(Path(file.name).name + ".*"):
                path.unlink()
        self.assertIn("syntax is ok", done.stderr)
        if os.geteuid() == 0:
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_nginx_goes_on_without_a_gateway_and_after_its_own_death(self):
        cluster("kill", "gateway-2")
        self.assertEqual([self.echo("on") for _ in range(6)], ["on"] * 6)
        cluster("start", "gateway-2")
        cluster("kill", "nginx")
        self.assertTrue(process.is_free(self.nginx), "its workers are gone too")
        cluster("start", "nginx")
        self.assertEqual(self.echo("again"), "again")

    def test_pause_and_resume(self):
        for name in ("gateway-1", "postgres-b", "nginx"):
            cluster("pause", name)
            self.assertEqual(cluster.states()[name], "paused")
            self.assertIn("paused", cluster("status", fails=True))
            cluster("resume", name)
            self.assertEqual(cluster.states()[name], "ready")

    def test_add_and_remove(self):
        self.assertEqual(cluster("add", "gateway").strip(), "gateway-3")
        config = cluster.folder / "config/nginx.conf"
        self.assertIn(f"server 127.0.0.1:{cluster.base + 82} ", config.read_text())
        self.assertEqual(cluster.states()["gateway-3"], "ready")
        self.assertIn("ended", cluster("remove", "gateway-3"))
        self.assertNotIn(f"127.0.0.1:{cluster.base + 82}", config.read_text())
        self.assertNotIn("gateway-3", cluster.states())
        self.assertIn("only", cluster("remove", "redis-1", fails=True))

    def test_a_process_that_cannot_start_shows_its_log(self):
        cluster("stop", "router-1")
        secret = cluster.folder / "secrets/cluster"
        secret.chmod(0o644)
        self.assertIn("AssertionError", cluster("start", "router-1", fails=True))
        secret.chmod(0o600)
        cluster("restart", "router-1")
        self.assertEqual(cluster.states()["router-1"], "ready")

    def test_another_signal(self):
        pid = int(cluster("pid", "storage-1"))
        cluster("kill", "storage-1", "TERM")
        deadline = time.monotonic() + 10
        while process.look(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        self.assertIsNone(process.look(pid))
        cluster("start", "storage-1")


if __name__ == "__main__":
    unittest.main()
