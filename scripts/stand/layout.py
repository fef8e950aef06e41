"""Where things are: the stand's folder, its ports, its secrets, and the list of what it consists of (state.json)."""

import contextlib
import fcntl
import json
import os
import re
import secrets
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"

# Offsets from the base port. A stand uses 240 ports: bases of two stands are at least 240 apart.
PORTS = {"kafka": 0, "behind": 4, "proxy": 7, "controller": 10, "redis": 20, "sentinel": 25, "postgres": 30, "nginx": 50, "gateway": 80, "router": 100, "storage": 120}
LINK = 100      # a Switchboard process's link port is this far above the one it listens on
SPAN = 240
ROLES = ("gateway", "router", "storage")
ROLE_MAX = 20   # processes of one role; the port map has no room for more

SMALL = {"messages": 12, "group_messages": 6, "mailbox": 24, "notifications": 2, "analytics": 2}
FULL = {"messages": 100, "group_messages": 50, "mailbox": 240, "notifications": 20, "analytics": 30}


class Failure(Exception):
    """Said to the person as it is, without a traceback; exit code 1."""


def split(name: str) -> tuple[str, str]:
    """'gateway-2' is ('gateway', '2'); 'nginx' is ('nginx', '')."""
    kind, _, which = name.partition("-")
    return kind, which


class Stand:
    """One stand. What `up` decided is in state.json and holds until `down --wipe`."""

    def __init__(self):
        self.folder = Path(os.environ.get("SWITCHBOARD_CLUSTER_DIR") or ROOT / ".cache/cluster").resolve()
        if " " in str(self.folder):
            raise Failure(f"{self.folder}: a folder without spaces, please (Kafka and Redis read it from their files)")
        wanted = os.environ.get("SWITCHBOARD_CLUSTER_PORTS")
        if wanted and not re.fullmatch(r"\d{4,5}", wanted):
            raise Failure("SWITCHBOARD_CLUSTER_PORTS is a base port, such as 26000")
        self.state = self._read()
        self.base = int(self.state.get("base") or wanted or 26000)
        if wanted and int(wanted) != self.base:
            raise Failure(f"the stand in {self.folder} has its ports at {self.base}, SWITCHBOARD_CLUSTER_PORTS says {wanted}: unset it, or 'down --wipe' first")
        if not 1024 <= self.base <= 65535 - SPAN:
            raise Failure(f"a base port between 1024 and {65535 - SPAN}, please")

    def _read(self) -> dict:
        try:
            return json.loads((self.folder / "state.json").read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise Failure(f"{self.folder}/state.json cannot be read ({error}): 'down --wipe' makes room for a new stand") from error

    def save(self) -> None:
        self.state["base"] = self.base
        write(self.folder / "state.json", json.dumps(self.state, indent=2) + "\n")

    @property
    def members(self) -> list[str]:
        """The names of what the stand consists of, in the order in which it is started."""
        return self.state.get("members", [])

    def of(self, *kinds: str) -> list[str]:
        return [name for name in self.members if split(name)[0] in kinds]

    def port(self, name: str) -> int:
        kind, which = split(name)
        index = 0 if not which else ord(which) - ord("a") if which.isalpha() else int(which) - 1
        return self.base + PORTS[kind] + index

    def secret(self, name: str) -> Path:
        """A file with 64 hexadecimal digits that nobody else may read, made at first use."""
        path = self.folder / "secrets" / name
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = path.with_name(f".{name}.{secrets.token_hex(8)}")
            write(fresh, secrets.token_hex(32) + "\n", 0o600)
            # Two may come at once: the first one's stands.
            with contextlib.suppress(FileExistsError):
                os.link(fresh, path)
            fresh.unlink()
        return path

    @contextlib.contextmanager
    def lock(self, name: str):
        """One at a time: 'stand' for what changes the list of members, a member's name for starting and stopping it."""
        (self.folder / "run").mkdir(parents=True, exist_ok=True)
        with open(self.folder / "run" / f"{name}.lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"waiting: another scripts/cluster is at work on {name}", flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Whole or not at all: a crash leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
    os.replace(temporary, path)
