"""PostgreSQL: one instance for each database. It refuses to run as root, so root runs it as the user postgres."""

import contextlib
import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path

from .layout import HOST, Failure, write
from .member import Member
from .process import all_processes, as_user, send, wait_gone

ORPHAN_WAIT_S = 5   # backends end by themselves when their postmaster is gone


def binaries() -> Path:
    """The newest version that Debian installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[4]))
    if not found:
        raise Failure("no PostgreSQL under /usr/lib/postgresql: scripts/setup postgres")
    return found[-1].parent


def account() -> str | None:
    return "postgres" if os.geteuid() == 0 else None


def place(stand) -> Path:
    """The folder of the databases: in the stand's, or in /var/tmp if the user postgres cannot get there."""
    here = stand.folder / "postgres"
    user = account()
    if user is None:
        return here
    chosen = stand.state.get("postgres_place")
    if chosen:
        return Path(chosen)
    if subprocess.run(["test", "-x", stand.folder], **as_user(user)).returncode == 0:
        chosen = here
    else:
        chosen = Path("/var/tmp") / f"switchboard-{hashlib.sha256(str(stand.folder).encode()).hexdigest()[:16]}"
        print(f"postgres: the user {user} cannot enter {stand.folder}; the databases are in {chosen}", flush=True)
    stand.state["postgres_place"] = str(chosen)
    stand.save()
    return chosen


class Postgres(Member):
    stop_signal = signal.SIGINT     # "fast": does not wait for clients to leave

    def __init__(self, stand, name):
        super().__init__(stand, name)
        self.letter = name.partition("-")[2]
        self.database = f"switchboard_{ord(self.letter) - ord('a')}"
        self.data = place(stand) / name

    def user(self):
        return account()

    def home(self):
        return self.data

    def data_folder(self):
        return self.data

    def command(self):
        return [str(binaries() / "postgres"), "-D", str(self.data)]

    def prepare(self):
        if not (self.data / "stand.ready").exists():
            self.create()
        write(self.data / "stand.conf", f"""\
port = {self.port}
listen_addresses = '{HOST}'
unix_socket_directories = ''
max_connections = 200
shared_buffers = 64MB
fsync = on
synchronous_commit = on
""")
        self.end_orphans()

    def create(self):
        parent = self.data.parent
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        user = account()
        if user:
            if parent.is_symlink() or parent.stat().st_uid not in (0, pwd.getpwnam(user).pw_uid):
                raise Failure(f"{parent} belongs to somebody else")
            shutil.chown(parent, user, user)
        shutil.rmtree(self.data, ignore_errors=True)
        password = parent / f".{self.name}.password"
        write(password, self.stand.secret("postgres-admin").read_text(), 0o600)
        if user:
            shutil.chown(password, user, user)
        done = subprocess.run([binaries() / "initdb", "-D", self.data, "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8", "--locale=C.UTF-8"],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=parent, **as_user(user))
        password.unlink()
        if done.returncode != 0:
            raise Failure(f"{self.name}: initdb failed\n{done.stdout}{done.stderr}")
        with (self.data / "postgresql.conf").open("a") as file:
            file.write("\ninclude = 'stand.conf'\n")
        (self.data / "stand.ready").touch()

    def end_orphans(self):
        """After a kill of the postmaster its backends may live for a moment, and it would not start beside them."""
        def here():
            found = []
            for process in all_processes():
                try:
                    if os.readlink(f"/proc/{process.pid}/cwd") == str(self.data):
                        found.append(process)
                except OSError:
                    continue
            return found
        orphans = here()
        if orphans and not wait_gone(orphans, ORPHAN_WAIT_S):
            send(orphans, signal.SIGKILL)
            wait_gone(orphans, ORPHAN_WAIT_S)
        # The pid in its lock file may be somebody else's by now, or defunct; then Postgres would believe that it runs already.
        lock = self.data / "postmaster.pid"
        with contextlib.suppress(FileNotFoundError, ValueError, IndexError):
            if Path(f"/proc/{int(lock.read_text().split()[0])}").exists():
                lock.unlink()

    def answers(self):
        return subprocess.run([binaries() / "pg_isready", "-q", "-t", "1", "-h", HOST, "-p", str(self.port), "-d", "postgres"], stdin=subprocess.DEVNULL).returncode == 0

    def after_start(self):
        password = self.stand.secret("postgres").read_text().strip()
        self.psql("postgres", "postgres", self.stand.secret("postgres-admin"), f"""\
SELECT 'CREATE ROLE switchboard LOGIN CREATEDB PASSWORD ''{password}''' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'switchboard') \\gexec
SELECT 'CREATE DATABASE {self.database} OWNER switchboard' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{self.database}') \\gexec
""")

    def psql(self, user: str, database: str, password: Path, script: str) -> str:
        done = subprocess.run([binaries() / "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-h", HOST, "-p", str(self.port), "-U", user, "-d", database],
                              input=script, capture_output=True, text=True, env={**os.environ, "PGPASSWORD": password.read_text().strip()})
        if done.returncode != 0:
            raise Failure(f"{self.name}: {done.stderr.strip()}")
        return done.stdout

    def url(self):
        return f"postgres://switchboard:{self.stand.secret('postgres').read_text().strip()}@{HOST}:{self.port}/{self.database}"
