"""Redis: a primary, with `sentinel` also a replica and three sentinels. Nothing is kept on disk: Switchboard's registry may be forgotten."""

import socket

from .layout import HOST, write
from .member import Member

MASTER = "main"     # the name under which the sentinels know the primary


def ask(port: int, *words: str) -> str:
    """One command over a connection of its own; '' if there is no answer."""
    request = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(request.encode())
            return connection.recv(65536).decode(errors="replace")
    except OSError:
        return ""


def primary(stand) -> int:
    """The port of the server that takes writes now, as the sentinels have it."""
    for name in stand.of("sentinel"):
        answer = ask(stand.port(name), "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER).split("\r\n")
        if len(answer) > 4:
            return int(answer[4])
    return stand.port("redis-1")


class Redis(Member):
    def __init__(self, stand, name):
        super().__init__(stand, name)
        self.config = stand.folder / "config" / f"{name}.conf"

    def command(self):
        return ["redis-server", str(self.config)]

    def prepare(self):
        # The sentinels have the servers rewrite this file after a fail-over. It is the truth then: never written twice.
        if self.config.exists():
            return
        first = self.stand.port("redis-1")
        write(self.config, f"""\
port {self.port}
bind {HOST}
dir {self.home()}
save ""
appendonly no
repl-diskless-sync-delay 0
# The command line stays what it was, so that the process can be recognised.
set-proc-title no
""" + (f"replicaof {HOST} {first}\n" if self.port != first else ""))

    def has_replica(self) -> bool:
        return "state=online" in ask(self.port, "INFO", "replication")

    def answers(self):
        return ask(self.port, "PING").startswith("+PONG")

    def url(self):
        return f"redis://{HOST}:{self.port}"


class Sentinel(Redis):
    def command(self):
        return ["redis-server", str(self.config), "--sentinel"]

    def prepare(self):
        if self.config.exists():
            return
        write(self.config, f"""\
port {self.port}
bind {HOST}
dir {self.home()}
set-proc-title no
sentinel monitor {MASTER} {HOST} {self.stand.port("redis-1")} 2
sentinel down-after-milliseconds {MASTER} 1000
sentinel failover-timeout {MASTER} 5000
sentinel parallel-syncs {MASTER} 1
""")

    def after_start(self):
        # How often it asks servers about themselves, in ms. At the default of 10 s a healed replica is not known for as long.
        ask(self.port, "SENTINEL", "DEBUG", "info-period", "1000")

    def knows_all(self) -> bool:
        """It sees the other sentinels and a replica: a fail-over could work."""
        seen = ask(self.port, "SENTINEL", "MASTER", MASTER).split("\r\n")
        return dict(zip(seen[2::4], seen[4::4])).get("num-slaves") == "1" and ask(self.port, "SENTINEL", "CKQUORUM", MASTER).startswith("+OK 3")

    def url(self):
        return f"{HOST}:{self.port}"
