"""Kafka brokers, each also a KRaft controller. The jars come from `scripts/setup kafka`."""

import base64
import json
import shutil
import subprocess
import uuid
from pathlib import Path

from .layout import HOST, ROOT, Failure, write
from .member import Member
from .process import connects

HERE = Path(__file__).parent
LIBS = ROOT / ".cache/kafka/libs"
JAVA = ["java", "-XX:+UseSerialGC", f"-Dlog4j2.configurationFile={HERE / 'kafka-log4j2.properties'}", "-cp", f"{LIBS}/*"]


class Broker(Member):
    stop_limit_s = 15.0

    def __init__(self, stand, name):
        super().__init__(stand, name)
        self.id = int(name.partition("-")[2])
        self.controller = stand.base + 10 + self.id - 1
        self.properties = stand.folder / "config" / f"{name}.properties"

    def ports(self):
        return [self.port, self.controller]

    def command(self):
        return [*JAVA[:1], "-Xms128m", "-Xmx384m", "-XX:MaxDirectMemorySize=128m", "-XX:+ExitOnOutOfMemoryError", *JAVA[1:], "kafka.Kafka", str(self.properties)]

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
        cluster = self.stand.state.setdefault("kafka_cluster", base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="))
        self.stand.save()
        done = subprocess.run([*JAVA[:1], "-Xmx128m", "-XX:TieredStopAtLevel=1", *JAVA[1:], "kafka.tools.StorageTool", "format", "-t", cluster, "-c", self.properties],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failure(f"{self.name}: its storage could not be formatted\n{done.stdout}{done.stderr}")
        stamp.touch()

    def settings(self) -> str:
        brokers = self.stand.of("kafka")
        replicas, in_sync = (3, 2) if len(brokers) == 3 else (1, 1)
        voters = ",".join(f"{b.id}@{HOST}:{b.controller}" for b in (Broker(self.stand, name) for name in brokers))
        return f"""\
process.roles=broker,controller
node.id={self.id}
listeners=PLAINTEXT://{HOST}:{self.port},CONTROLLER://{HOST}:{self.controller}
advertised.listeners=PLAINTEXT://{HOST}:{self.port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
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
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=2097152
log.segment.bytes=67108864
"""

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
