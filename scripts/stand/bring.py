"""Up and down: what belongs to a stand, and in which order it starts and ends."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import process, switchboard
from .kafka import ARCHIVE, Broker, brokers_seen
from .layout import FULL, ROLES, ROOT, SMALL, Failure, Stand, split
from .member import Member
from .nginx import Nginx
from .postgres import Postgres, place
from .redis import Redis, Sentinel
from .standby import Standby
from .switchboard import Node

KINDS = {"kafka": Broker, "redis": Redis, "sentinel": Sentinel, "postgres": Postgres, "nginx": Nginx} | dict.fromkeys(ROLES, Node)
ENGINES = ("kafka", "redis", "sentinel", "postgres")
ORDER = ["kafka", "redis", "sentinel", "postgres", "storage", "router", "gateway", "nginx"]
READY_S = 120
LAST_BROKERS_S = 5


def member(stand: Stand, name: str) -> Member:
    if name not in stand.members:
        raise Failure(f"no such process: {name}. There are: {', '.join(stand.members) or 'none (scripts/cluster up)'}")
    return KINDS[split(name)[0]](stand, name)


def start(one: Member) -> bool:
    """Starts it unless it runs; does not wait. True if it was started."""
    with one.stand.lock(one.name):
        if process.find(one):
            return False
        one.prepare()
        process.launch(one)
        return True


def bring(one: Member) -> bool:
    """Starts it unless it runs, and waits until it serves. True if it was started."""
    started = start(one)
    process.wait_ready(one, READY_S)
    one.after_start()
    return started


# --- up

def decide(stand: Stand, options) -> None:
    """The list of members and the lasting choices, from what was asked now and what was decided before."""
    state = stand.state
    fixed = {"brokers": options.brokers, "databases": options.databases, "redis": options.redis, "full": options.full or None,
             "proxied": options.proxied or None}
    for key, default in {"brokers": 3, "databases": 2, "redis": "sentinel", "full": False, "proxied": False}.items():
        if fixed[key] is not None and state.get(key, fixed[key]) != fixed[key]:
            raise Failure(f"this stand has {key} {state[key]}, not {fixed[key]}: 'scripts/cluster down --wipe' first")
        state[key] = state.get(key, default) if fixed[key] is None else fixed[key]
    state["fast"] = state.get("fast", False) or options.fast or state["full"]
    state["partitions"] = FULL if state["full"] else SMALL
    names = set(stand.members)
    names |= {f"kafka-{n + 1}" for n in range(state["brokers"])} | {f"postgres-{chr(ord('a') + n)}" for n in range(state["databases"])} | {"redis-1"}
    if state["redis"] == "sentinel":
        names |= {"redis-2", "sentinel-1", "sentinel-2", "sentinel-3"}
    if not options.engines:
        counts = {"gateway": (options.gateways, 3), "router": (options.routers, 2), "storage": (options.storages, 2)}
        for role, (asked, default) in counts.items():
            if asked is None:
                asked = 0 if stand.of(role) else default
            elif asked < len(stand.of(role)):
                raise Failure(f"there are {len(stand.of(role))} {role} processes; 'scripts/cluster remove NAME' takes one away")
            names |= {f"{role}-{n + 1}" for n in range(asked)}
        names -= {"nginx"} if options.no_nginx else set()
        names |= set() if options.no_nginx else {"nginx"}
        state["settings"] = state.get("settings", {}) | dict(options.set)
    arrange(stand, names)


def arrange(stand: Stand, names: set[str]) -> None:
    """Keeps the list in the order of starting."""
    stand.state["members"] = sorted(names, key=lambda name: (ORDER.index(split(name)[0]), stand.port(name)))
    stand.save()


def named_binary(stand: Stand, options) -> str | None:
    """--bin, now or at an earlier `up`, else $TEST_BIN; None: this checkout's, to be built."""
    return options.bin or stand.state.get("binary_given") or os.environ.get("TEST_BIN")


def binary(stand: Stand, options) -> None:
    named = named_binary(stand, options)
    path = Path(named).resolve() if named else switchboard.build()
    if options.bin:
        stand.state["binary_given"] = str(path)
    if not os.access(path, os.X_OK):
        raise Failure(f"{path} is no program")
    stand.state["binary"] = str(path)
    stand.save()


class Timer:
    """Prints how long each part took."""

    def __call__(self, part: str, work):
        began = time.monotonic()
        result = work()
        print(f"  {part:<22}{time.monotonic() - began:6.1f} s{'' if result is None else '  ' + result}", flush=True)


def up(stand: Stand, options) -> None:
    began = time.monotonic()
    timer = Timer()
    with stand.lock("stand"):
        timer("setup", lambda: setup(stand, options))
        decide(stand, options)
        place(stand)    # before threads ask for it
        if not options.engines:
            timer("binary", lambda: binary(stand, options))
        print(f"bringing up {stand.folder}, ports from {stand.base}", flush=True)
        # The databases beside the JVMs: initdb mostly waits for the disk.
        with ThreadPoolExecutor() as pool:
            others = [pool.submit(timer, "redis", lambda: redis(stand)), pool.submit(timer, "postgres", lambda: postgres(stand))]
            broker = member(stand, "kafka-1")
            if not ARCHIVE.exists() and process.find(broker) is None:
                timer("kafka's class archive", broker.train)
            timer("kafka", lambda: kafka(stand))
            for other in others:
                other.result()
        if not options.engines:
            nodes(stand, timer)
    print(f"up after {time.monotonic() - began:.1f} s", flush=True)


def setup(stand: Stand, options) -> None:
    parts = ["kafka", "redis", "postgres"]
    if not options.engines:
        parts += [] if options.no_nginx else ["nginx"]
        parts += [] if named_binary(stand, options) else ["rust"]
    if subprocess.run([ROOT / "scripts/setup", *parts], stdin=subprocess.DEVNULL).returncode != 0:
        raise Failure("scripts/setup failed")


def said(names: list[str], started: list[bool]) -> str:
    fresh = [name for name, new in zip(names, started) if new]
    return "started " + " ".join(fresh) if fresh else "ran already"


def kafka(stand: Stand) -> str:
    """JVM after JVM: two at once take longer than one after another on a small machine."""
    brokers = [member(stand, name) for name in stand.of("kafka")]
    started = []
    for broker in brokers:
        started.append(start(broker))
        wait(broker.listens, f"{broker.name} does not listen", broker)
    # Only together they are a quorum, so only now can they serve.
    for broker in brokers:
        process.wait_ready(broker, READY_S)
    wait(lambda: len(brokers_seen(brokers[0].url())) == len(brokers), "not every broker has registered", brokers[0])
    return said(stand.of("kafka"), started)


def wait(done, complaint: str, one: Member) -> None:
    deadline = time.monotonic() + READY_S
    while not done():
        if process.find(one) is None:
            raise Failure(f"{one.name} ended while starting\n{process.tail(one)}")
        if time.monotonic() > deadline:
            raise Failure(f"{complaint} after {READY_S} s\n{process.tail(one)}")
        time.sleep(0.1)


def postgres(stand: Stand) -> str:
    names = stand.of("postgres")
    with ThreadPoolExecutor(max_workers=len(names)) as pool:
        return said(names, list(pool.map(bring, [member(stand, name) for name in names])))


def redis(stand: Stand) -> str:
    names = stand.of("redis", "sentinel")
    members = [member(stand, name) for name in names]
    servers = [one for one in members if not isinstance(one, Sentinel)]
    started = [bring(one) for one in servers]
    # A sentinel asks the primary for its replicas when it starts and then only every 10 s: the replica comes first.
    wait(lambda: len(servers) == 1 or any(one.has_replica() for one in servers), "the replica has not found its primary", servers[0])
    started += [bring(one) for one in members if one not in servers]
    for one in members:
        if isinstance(one, Sentinel):
            wait(one.knows_all, f"{one.name} does not see the other sentinels and a replica", one)
    return said(names, started)


def nodes(stand: Stand, timer: Timer) -> None:
    ours = [member(stand, name) for name in stand.of(*ROLES)]
    if any(process.find(one) is None for one in ours):
        for one in ours:
            one.prepare()
        for what in switchboard.PREPARATIONS:
            timer(what, lambda what=what: ours[0].run(what))

    def together(*roles):
        names = stand.of(*roles)
        with ThreadPoolExecutor(max_workers=len(names) or 1) as pool:
            return said(names, list(pool.map(bring, [member(stand, name) for name in names])))

    # A gateway is ready when a message of its own has gone the whole path: all at once, then they wait for each other.
    timer("switchboard", lambda: together(*ROLES))
    if stand.of("nginx"):
        nginx = member(stand, "nginx")
        timer("nginx", lambda: said(["nginx"], [bring(nginx)]))
        nginx.reload()


# --- down

def down(stand: Stand, wipe: bool) -> None:
    began = time.monotonic()
    with stand.lock("stand"):
        for name in stand.of("postgres"):
            process.end(Standby(stand, name))
        # The last brokers have no controllers left to say goodbye to, and would wait for them. With the data gone anyway nobody needs an orderly end.
        limits = {"kafka": LAST_BROKERS_S}
        for kinds, number in ((("nginx",), None), (ROLES, None), (ENGINES, signal.SIGKILL if wipe else None)):
            names = stand.of(*kinds)

            def end(name, number=number):
                return process.end(member(stand, name), limits.get(split(name)[0]), number)

            with ThreadPoolExecutor(max_workers=len(names) or 1) as pool:
                for name, how in zip(names, pool.map(end, names)):
                    if how not in ("ended", "not running"):
                        print(f"  {name}: {how}", flush=True)
        if wipe:
            clear(stand)
    print(f"down after {time.monotonic() - began:.1f} s{', data removed' if wipe else ''}", flush=True)


def clear(stand: Stand) -> None:
    """Only what the stand made: the folder may be one that holds other things too."""
    place = stand.state.get("postgres_place")
    if place:
        shutil.rmtree(place, ignore_errors=True)
    for name in ("data", "config", "logs", "secrets", "postgres", "run"):
        shutil.rmtree(stand.folder / name, ignore_errors=True)
    (stand.folder / "state.json").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        stand.folder.rmdir()
    stand.state = {}


# --- single processes

def add(stand: Stand, role: str) -> str:
    with stand.lock("stand"):
        if not stand.of(*ROLES):
            raise Failure("the stand runs engines only: scripts/cluster up")
        taken = {int(split(name)[1]) for name in stand.of(role)}
        name = f"{role}-{next(n for n in range(1, 1000) if n not in taken)}"
        arrange(stand, set(stand.members) | {name})
        try:
            bring(member(stand, name))
        except Failure:
            process.end(member(stand, name))
            arrange(stand, set(stand.members) - {name})
            raise
        refresh(stand, role)
        return name


def remove(stand: Stand, name: str) -> str:
    with stand.lock("stand"):
        one = member(stand, name)
        if split(name)[0] not in ROLES:
            raise Failure(f"only {', '.join(ROLES)} processes can be removed, not {name}")
        # While it drains it still serves; nginx is told first, so that nobody new is sent there.
        arrange(stand, set(stand.members) - {name})
        refresh(stand, one.role)
        with stand.lock(name):
            return process.end(one)


def refresh(stand: Stand, role: str) -> None:
    if role == "gateway" and stand.of("nginx"):
        member(stand, "nginx").reload()
