"""Copies of a PostgreSQL of the stand: a backup that is put back, a standby that takes its primary's place and address."""

import os
import shutil
import subprocess
from pathlib import Path

from . import process
from .layout import HOST, Failure, write
from .postgres import Postgres, account, binaries

STANDBY_PORT = 10   # a standby's port is this far above its primary's
READY_S = 60


def copy(one: Postgres, into: Path, *options: str) -> None:
    """pg_basebackup of a running server."""
    remove(into)
    done = subprocess.run([binaries() / "pg_basebackup", "-h", HOST, "-p", str(one.port), "-U", "postgres", "-D", into, "-c", "fast", "-X", "stream", *options],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=into.parent,
                          env={**os.environ, "PGPASSWORD": one.stand.secret("postgres-admin").read_text().strip()}, **process.as_user(account()))
    if done.returncode != 0:
        raise Failure(f"{one.name}: {done.stderr.strip()}")


def remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def backed_up(one: Postgres) -> Path:
    return one.data.with_name(f"{one.name}.backup")


def backup(one: Postgres) -> None:
    """As it is now, beside it. The one before is gone."""
    copy(one, backed_up(one))


def restore(one: Postgres) -> None:
    """Everything since the backup is gone. It must not run; it is not started."""
    found = backed_up(one)
    if process.find(one):
        raise Failure(f"{one.name} runs: 'kill' or 'stop' it first")
    if not found.exists():
        raise Failure(f"{one.name} has no backup: 'backup' makes one")
    one.end_orphans()
    remove(one.data)
    shutil.copytree(found, one.data, symlinks=True)
    if account():
        subprocess.run(["chown", "-R", f"--reference={found}", one.data], check=True)


class Standby(Postgres):
    """A streaming standby of a primary: asynchronous, so it may lack the last commits."""

    def __init__(self, stand, name):
        super().__init__(stand, name)
        self.name = f"{name}.standby"
        self.data = self.data.with_name(self.name)
        self.port += STANDBY_PORT
        self.log = self.log.with_name(f"{self.name}.log")

    def prepare(self):
        text = (self.data / "stand.conf").read_text()
        kept = "".join(line + "\n" for line in text.splitlines() if not line.startswith("port = "))
        write(self.data / "stand.conf", f"port = {self.port}\n{kept}")
        self.end_orphans()

    def after_start(self):
        pass

    def ask(self, question: str) -> str:
        return self.psql("postgres", "postgres", self.stand.secret("postgres-admin"), question).strip()


def start(standby: Standby) -> None:
    standby.prepare()
    process.launch(standby)
    process.wait_ready(standby, READY_S)


def follow(one: Postgres) -> None:
    """A new standby of it, which streams."""
    standby = Standby(one.stand, one.name)
    process.end(standby)
    copy(one, standby.data, "--write-recovery-conf")
    start(standby)


def stop_following(one: Postgres) -> None:
    """The standby ends, and lacks what is committed from now on."""
    process.end(Standby(one.stand, one.name))


def promote(one: Postgres) -> None:
    """The primary is dead; its standby becomes one, and takes its folder and its port. It is not started there."""
    if process.find(one):
        raise Failure(f"{one.name} runs: two primaries are what must not be")
    standby = Standby(one.stand, one.name)
    if not standby.data.exists():
        raise Failure(f"{one.name} has no standby: 'follow' makes one")
    if process.find(standby) is None:
        start(standby)
    if standby.ask("SELECT pg_promote(true, 30)") != "t":
        raise Failure(f"{standby.name} is not promoted")
    process.end(standby)
    one.end_orphans()
    remove(one.data)
    standby.data.rename(one.data)
