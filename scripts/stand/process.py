"""Processes: started so that they outlive the script, found again, signalled, ended.

A pid alone proves nothing: it may belong to somebody else by now. A process is one of ours if its command line is what we start (its last
two words name a file of this stand) and, where a pid file exists, it began when the pid file says. Without a good pid file /proc is
searched for that command line. Nothing else is ever signalled. A defunct process counts as ended.
"""

import errno
import os
import resource
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from .layout import HOST, Failure

PORT_WAIT_S = 5     # how long a port may still be taken by a process that is just ending


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    session: int
    state: str      # of proc(5): R, S, D, T …
    began: str      # clock ticks since the machine's start


def look(pid: int) -> Process | None:
    """None for one that is gone or defunct."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else Process(pid, int(fields[1]), int(fields[3]), fields[0], fields[19])


def argv(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return []


def all_processes() -> list[Process]:
    found = (look(int(entry)) for entry in os.listdir("/proc") if entry.isdigit())
    return [process for process in found if process]


def same(process: Process) -> bool:
    now = look(process.pid)
    return now is not None and now.began == process.began


def pid_file(member) -> Path:
    return member.stand.folder / "run" / f"{member.name}.pid"


def find(member) -> Process | None:
    """The member's process, if it lives."""
    try:
        pid, began = pid_file(member).read_text().split()
        process = look(int(pid))
        if process and process.began == began and member.recognises(argv(process.pid)):
            return process
    except (OSError, ValueError):
        pass
    ours = [process for process in all_processes() if member.recognises(argv(process.pid))]
    return min(ours, key=lambda process: int(process.began), default=None)


def family(process: Process) -> list[Process]:
    """It and what it started: children of children too, and what shares its session (orphaned workers)."""
    everyone = all_processes()
    found = {process.pid: process}
    grown = True
    while grown:
        more = {p.pid: p for p in everyone if p.pid not in found and (p.parent in found or p.session == process.pid)}
        found.update(more)
        grown = bool(more)
    return list(found.values())


def send(processes: list[Process], number: int) -> None:
    for process in processes:
        if same(process):
            try:
                os.kill(process.pid, number)
            except ProcessLookupError:
                pass


def wait_gone(processes: list[Process], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while any(same(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def launch(member) -> Process:
    """Starts a member that does not run. Its ports must be free."""
    for port in member.ports():
        wait_free(port, member.name)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    member.log.parent.mkdir(parents=True, exist_ok=True)
    with member.log.open("ab") as log:
        member.log_began = log.tell()
        # Its own session: neither the end of this script nor a Ctrl-C in this terminal reaches it.
        child = subprocess.Popen(member.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=member.home(), env=member.environment(),
                                 start_new_session=True, **as_user(member.user()))
    process = look(child.pid)
    while process and not any(argv(process.pid)):      # execve(2) lets its caller go on a moment before the new command line is there
        time.sleep(0.002)
        process = look(child.pid)
    if process is None:
        raise Failure(f"{member.name} ended at once\n{tail(member)}")
    pid_file(member).parent.mkdir(parents=True, exist_ok=True)
    pid_file(member).write_text(f"{process.pid} {process.began}\n")
    return process


def as_user(user: str | None) -> dict:
    """For subprocess: run as somebody else, which only root can."""
    return {"user": user, "group": user, "extra_groups": []} if user else {}


def end(member, limit_s: float | None = None, number: int | None = None) -> str:
    """Asks politely, then kills. What happened, in a word or two."""
    process = find(member)
    if process is None:
        pid_file(member).unlink(missing_ok=True)
        return "not running"
    number = number or member.stop_signal
    everyone = family(process)
    send(everyone if number == signal.SIGKILL else [process], number)
    send(everyone, signal.SIGCONT)      # a paused process takes no signal but KILL
    ended = wait_gone([process], member.stop_limit_s if limit_s is None else limit_s)
    if not ended:
        everyone = family(process)
    send(everyone if not ended else [p for p in everyone if p != process], signal.SIGKILL)
    if not wait_gone(everyone, 10):
        raise Failure(f"{member.name} (pid {process.pid}) does not even end by SIGKILL")
    pid_file(member).unlink(missing_ok=True)
    return "ended" if ended else f"killed, it did not end within {limit_s or member.stop_limit_s:.0f} s"


def wait_ready(member, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not member.answers():
        if find(member) is None:
            raise Failure(f"{member.name} ended while starting\n{tail(member)}")
        if time.monotonic() > deadline:
            raise Failure(f"{member.name} runs but is not ready after {limit_s:.0f} s\n{tail(member)}")
        time.sleep(0.05)


def tail(member, lines: int = 25) -> str:
    """The end of the member's log, of this start only where that is known."""
    try:
        with member.log.open("rb") as log:
            log.seek(max(getattr(member, "log_began", 0), log.seek(0, os.SEEK_END) - 65536))
            text = log.read().decode(errors="replace")
    except OSError as error:
        text = str(error)
    return "\n".join([f"--- {member.log}", *("    " + line for line in text.splitlines()[-lines:])])


def connects(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            return True
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise Failure(f"port {port}: {error.strerror}") from error
            return False


def wait_free(port: int, name: str) -> None:
    deadline = time.monotonic() + PORT_WAIT_S
    while not is_free(port):
        if time.monotonic() > deadline:
            raise Failure(f"{name} needs port {port}, but {holder(port)}. SWITCHBOARD_CLUSTER_PORTS moves a new stand elsewhere")
        time.sleep(0.1)


def holder(port: int) -> str:
    """Who has the port, in words."""
    for line in [line for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) != port or fields[9] == "0":
            continue
        for process in all_processes():
            try:
                if any(os.readlink(entry) == f"socket:[{fields[9]}]" for entry in Path(f"/proc/{process.pid}/fd").iterdir()):
                    how = "listens there" if fields[3] == "0A" else "has an outgoing connection from it (choose a base below net.ipv4.ip_local_port_range)"
                    return f"process {process.pid} ({' '.join(argv(process.pid))[:80]}) {how}"
            except OSError:
                continue
    return "something holds it"
