"""Switchboard's own processes: their configuration, and every way in which the binary is called."""

import os
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from .layout import HOST, LINK, ROLE_MAX, ROOT, SMALL, Failure, split, write
from .member import Member
from .redis import MASTER

# How the binary is called; the arguments behind `--config FILE`.
SERVE = ["serve"]
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))      # whatever http_proxy says
PREPARATIONS = {"topics": ["topics", "create"], "shard map": ["shard", "init"]}     # in this order; each may be repeated


class Node(Member):
    """A gateway, a router or a storage process."""
    stop_limit_s = 35.0     # above the server's drain.deadline of 25 s

    def __init__(self, stand, name):
        super().__init__(stand, name)
        self.role, number = split(name)
        if not 1 <= int(number) <= ROLE_MAX:
            raise Failure(f"{name}: at most {ROLE_MAX} processes of a role")
        self.config = stand.folder / "config" / f"{name}.toml"

    def command(self):
        binary = self.stand.state.get("binary")
        if not binary:
            raise Failure("the stand knows no switchboard binary yet: scripts/cluster up")
        return [binary, "--config", str(self.config), *SERVE]

    def recognises(self, argv):
        return argv[-1 - len(SERVE):] == [str(self.config), *SERVE]

    def ports(self):
        return [self.port, self.port + LINK]

    def environment(self):
        settings = self.stand.state.get("settings", {})
        return super().environment() | {"SWITCHBOARD_" + key.upper().replace(".", "__"): value for key, value in settings.items()}

    def prepare(self):
        write(self.config, self.settings())

    def settings(self) -> str:
        stand = self.stand
        brokers = [f"{HOST}:{stand.port(name)}" for name in stand.of("kafka")]
        replicas, in_sync = (3, 2) if len(brokers) == 3 else (1, 1)
        sentinels = [f"{HOST}:{stand.port(name)}" for name in stand.of("sentinel")]
        redis = f'sentinels = {quoted(sentinels)}\nmaster = "{MASTER}"' if sentinels else f'url = "redis://{HOST}:{stand.port("redis-1")}"'
        databases = ",\n    ".join(f'{{ name = "{split(name)[1]}", url = "postgres://switchboard@{HOST}:{stand.port(name)}/switchboard_{index}", '
                                   f'password_file = "{stand.secret("postgres")}" }}' for index, name in enumerate(stand.of("postgres")))
        partitions = "\n".join(f"{topic} = {count}" for topic, count in stand.state.get("partitions", SMALL).items())
        # A load harness has one address, and behind nginx everybody has nginx's.
        limits = "[gateway]\nsockets_per_ip = 100000\nhandshakes_per_ip = 100000\nrequests_per_address = 100000\n\n" if self.role == "gateway" else ""
        return f"""\
listen = "{HOST}:{self.port}"
data = "{self.home()}"

[auth]
secret_file = "{stand.secret("auth")}"

{limits}[cluster]
name = "{self.name}"
id = "stand-{stand.base}"
roles = ["{self.role}"]
link = "{HOST}:{self.port + LINK}"
secret_file = "{stand.secret("cluster")}"

[cluster.kafka]
brokers = {quoted(brokers)}
replication_factor = {replicas}
min_insync_replicas = {in_sync}

[cluster.kafka.partitions]
{partitions}

[cluster.redis]
{redis}

[cluster.postgres]
databases = [
    {databases},
]
"""

    def answers(self):
        try:
            with DIRECT.open(f"{self.url()}/ready", timeout=1) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError, ValueError):
            return False

    def url(self):
        return f"http://{HOST}:{self.port}"

    def run(self, what: str) -> None:
        """One of the preparations, to its end."""
        command = [self.command()[0], "--config", str(self.config), *PREPARATIONS[what]]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=self.ready_limit_s, env=self.environment(), cwd=self.home())
        except subprocess.TimeoutExpired as error:
            raise Failure(f"{what}: not done after {error.timeout:.0f} s: {' '.join(command)}\n{(error.stderr or b'').decode(errors='replace')}") from error
        if done.returncode != 0:
            raise Failure(f"{what}: exit code {done.returncode}: {' '.join(command)}\n{done.stdout}{done.stderr}")


def quoted(words: list[str]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"


def build() -> Path:
    """The binary of this checkout, by cargo's dev profile."""
    environment = dict(os.environ, PATH=f"{Path.home()}/.cargo/bin:{os.environ['PATH']}")
    if subprocess.run(["cargo", "build", "-p", "server"], cwd=ROOT, stdin=subprocess.DEVNULL, env=environment).returncode != 0:
        raise Failure("cargo build -p server failed")
    return Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve() / "debug/switchboard"
