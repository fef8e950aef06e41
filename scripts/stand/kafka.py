"""Kafka brokers, each also a KRaft controller. The jars come from `scripts/setup kafka`."""

import base64
import json
import os
import shutil
import subprocess
import time
import uuid
from pathlib import Path

from .layout import HOST, PORTS, ROOT, Failure, write
from .member import Member
from .process import connects

HERE = Path(__file__).parent
LIBS = ROOT / ".cache/kafka/libs"
ARCHIVE = ROOT / ".cache/kafka/classes.jsa"
JVM = ["-XX:+UseSerialGC", f"-Dlog4j2.configurationFile={HERE / 'kafka-log4j2.properties'}", "-cp", f"{LIBS}/*"]
QUICK = "-XX:TieredStopAtLevel=1"   # the quick compiler only: half the time to start, but slower at full load
TRAIN_S = 120


def java(*words) -> list[str]:
    """A JVM on Kafka's jars. One that does not like the archive (another Java, other jars) goes on without it."""
    archive = [f"-XX:SharedArchiveFile={ARCHIVE}"] if ARCHIVE.exists() else []
    return ["java", *archive, *JVM[:2], *(word for word in words if word.startswith("-X")), *JVM[2:], *(word for word in words if not word.startswith("-X"))]


def format_storage(properties: Path, cluster: str) -> None:
    command = java("-Xmx128m", QUICK, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties))
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(f"{properties}: the storage could not be formatted\n{done.stdout}{done.stderr}")


def random_id() -> str:
    """In the form that Kafka gives a cluster's id."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


class Broker(Member):
    stop_limit_s = 15.0

    def __init__(self, stand, name):
        super().__init__(stand, name)
        self.id = int(name.partition("-")[2])
        self.controller = stand.base + PORTS["controller"] + self.id - 1
        # A broker tells clients where brokers are. Who comes by the second listener is told of proxies, which `faults` puts there.
        self.behind = stand.base + PORTS["behind"] + self.id - 1
        self.proxy = stand.base + PORTS["proxy"] + self.id - 1
        self.properties = stand.folder / "config" / f"{name}.properties"

    def ports(self):
        return [self.port, self.controller] + ([self.behind] if self.stand.state.get("proxied") else [])

    def command(self):
        quick = [] if self.stand.state.get("fast") else [QUICK]
        return java("-Xms128m", "-Xmx384m", "-XX:MaxDirectMemorySize=128m", "-XX:+ExitOnOutOfMemoryError", *quick, "kafka.Kafka", str(self.properties))

    def home(self):
        return self.properties.parent

    def prepare(self):
        write(self.properties, self.settings())
        data = self.stand.folder / "data" / self.name
        # The stamp comes last: a folder without it is a format that was cut short.
        stamp = data / "formatted"
        if stamp.exists():
            return
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir(parents=True)
        cluster = self.stand.state.setdefault("kafka_cluster", random_id())
        self.stand.save()
        format_storage(self.properties, cluster)
        stamp.touch()

    def settings(self, alone: bool = False) -> str:
        brokers = [self] if alone else [Broker(self.stand, name) for name in self.stand.of("kafka")]
        replicas, in_sync = (3, 2) if len(brokers) == 3 else (1, 1)
        behind = advertised = protocols = ""
        if self.stand.state.get("proxied"):
            behind, advertised = f",PROXIED://{HOST}:{self.behind}", f",PROXIED://{HOST}:{self.proxy}"
            protocols = ",PROXIED:PLAINTEXT"
        voters = ",".join(f"{broker.id}@{HOST}:{broker.controller}" for broker in brokers)
        return f"""\
process.roles=broker,controller
node.id={self.id}
listeners=PLAINTEXT://{HOST}:{self.port},CONTROLLER://{HOST}:{self.controller}{behind}
advertised.listeners=PLAINTEXT://{HOST}:{self.port}{advertised}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
inter.broker.listener.name=PLAINTEXT
controller.quorum.voters={voters}
log.dirs={self.stand.folder}/data/{self.name}/log
default.replication.factor={replicas}
min.insync.replicas={in_sync}
unclean.leader.election.enable=false
auto.create.topics.enable=false
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
# A dead broker is noticed after 3 s instead of 9.
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
# A small machine.
num.network.threads=1
num.io.threads=2
log.cleaner.dedupe.buffer.size=2097152
log.segment.bytes=67108864
"""

    def train(self) -> str:
        """Once a machine: a broker on a scratch folder writes down the classes that it loads, and from then on a start takes half as long."""
        scratch = self.stand.folder / "data/kafka-training"
        shutil.rmtree(scratch, ignore_errors=True)
        properties = scratch / "server.properties"
        write(properties, self.settings(alone=True).replace(f"/data/{self.name}/log", "/data/kafka-training/log"))
        format_storage(properties, random_id())
        fresh = ARCHIVE.with_name(f".{ARCHIVE.name}.{os.getpid()}")
        broker = subprocess.Popen(java("-Xmx384m", QUICK, f"-XX:ArchiveClassesAtExit={fresh}", "kafka.Kafka", str(properties)),
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + TRAIN_S
            while not self.answers() and broker.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
            broker.terminate()
            broker.wait(TRAIN_S)
            fresh.replace(ARCHIVE)
            return "once on this machine"
        except (subprocess.TimeoutExpired, OSError) as error:
            return f"failed, starts will be slower ({error})"
        finally:
            broker.kill()
            broker.wait()
            fresh.unlink(missing_ok=True)
            shutil.rmtree(scratch, ignore_errors=True)

    def listens(self) -> bool:
        """The JVM is up and waits for its fellow controllers: time to start the next one."""
        return connects(self.controller)

    def answers(self):
        return connects(self.port) and self.id in brokers_seen(self.url())


def brokers_seen(bootstrap: str) -> set[int]:
    """The brokers that are registered and serve, as the one asked knows it."""
    done = subprocess.run(["kcat", "-b", bootstrap, "-L", "-J", "-m", "2"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    try:
        return {broker["id"] for broker in json.loads(done.stdout)["brokers"]}
    except (ValueError, KeyError):
        return set()
