//! Records through a topic with many partitions: an idempotent producer with acks=all, a consumer in the same process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::pace::{Latencies, Schedule};
use anyhow::Context as _;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::Hops;

/// A record begins with its number.
pub(super) const STAMP: usize = 8;
/// One question to the brokers may take so long, and the last records may come so late.
const WAIT: Duration = Duration::from_secs(30);

/// Shared by producer and consumer: when records are due, what was seen of them.
struct Run {
    schedule: Schedule,
    ignored: u64,
    topic: String,
    produced: Latencies,
    hop: Latencies,
    failed: AtomicU64,
    stop: AtomicBool,
}

impl Run {
    /// Counts a record that is here now, unless it belongs to the warm-up.
    fn count(&self, number: u64, latency: &Latencies) {
        if number >= self.ignored {
            latency.since(self.schedule.due(number));
        }
    }
}

struct Reports(Arc<Run>);

impl ClientContext for Reports {}
impl ProducerContext for Reports {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, report: &DeliveryResult<'_>, number: Box<u64>) {
        match report {
            Ok(_) => self.0.count(*number, &self.0.produced),
            Err(_) => drop(self.0.failed.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// As Switchboard sets its own clients.
fn client(hops: &Hops) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &hops.brokers).set("socket.nagle.disable", "true").set("allow.auto.create.topics", "false");
    client
}

/// Latencies up to the delivery report, and up to the consumer.
pub(super) async fn measure(hops: &Hops) -> anyhow::Result<(Latencies, Latencies)> {
    let admin: AdminClient<DefaultClientContext> = client(hops).create()?;
    let options = AdminOptions::new().request_timeout(Some(WAIT)).operation_timeout(Some(WAIT));
    let topic = super::name();
    let min_insync = hops.min_insync.to_string();
    let new = NewTopic::new(&topic, i32::from(hops.partitions), TopicReplication::Fixed(i32::from(hops.replication)))
        .set("min.insync.replicas", &min_insync);
    let made = admin.create_topics(&[new], &options).await.context("the brokers do not answer")?;
    for one in made {
        one.map_err(|(name, why)| anyhow::anyhow!("topic {name} can't be made: {why}"))?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let measured = tokio::select! {
        measured = through(hops, topic.clone(), Arc::clone(&stop)) => measured,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    stop.store(true, Ordering::Relaxed);
    let removed = admin.delete_topics(&[&topic], &options).await;
    let measured = measured?;
    for one in removed.context("the topic can't be removed")? {
        one.map_err(|(name, why)| anyhow::anyhow!("topic {name} can't be removed: {why}"))?;
    }
    Ok(measured)
}

async fn through(hops: &Hops, topic: String, stop: Arc<AtomicBool>) -> anyhow::Result<(Latencies, Latencies)> {
    let consumer = spawn_blocking({
        let (hops, topic) = (hops.clone(), topic.clone());
        move || assigned(&hops, &topic)
    });
    let consumer = consumer.await??;
    // the first send costs a producer seconds: it is made before the clock starts
    let start = Instant::now() + Duration::from_secs(1);
    let run = Arc::new(Run {
        schedule: Schedule::new(start, hops.rate, hops.warmup + hops.duration),
        ignored: hops.ignored(),
        topic,
        produced: Latencies::default(),
        hop: Latencies::default(),
        failed: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    let consuming = spawn_blocking({
        let (run, stop) = (Arc::clone(&run), Arc::clone(&stop));
        move || consume(&run, &consumer, &stop)
    });
    let producing = spawn_blocking({
        let (run, hops) = (Arc::clone(&run), hops.clone());
        move || produce(&run, &hops, &stop)
    });
    let made = producing.await?;
    if made.is_err() {
        run.stop.store(true, Ordering::Relaxed);
    }
    let consumed = consuming.await?;
    made?;
    consumed?;
    let failed = run.failed.load(Ordering::Relaxed);
    anyhow::ensure!(failed == 0, "{failed} records were not delivered");
    let run = Arc::into_inner(run).context("a client still holds the figures")?;
    Ok((run.produced, run.hop))
}

/// A consumer at the beginning of each partition, once they all have a leader.
fn assigned(hops: &Hops, topic: &str) -> anyhow::Result<BaseConsumer> {
    let mut config = client(hops);
    config
        .set("group.id", topic)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", "50")
        .set("fetch.error.backoff.ms", "5");
    let consumer: BaseConsumer = config.create()?;
    let until = Instant::now() + WAIT;
    loop {
        let metadata = consumer.fetch_metadata(Some(topic), WAIT)?;
        let has_leaders = |there: &rdkafka::metadata::MetadataTopic| {
            there.partitions().len() == usize::from(hops.partitions) && there.partitions().iter().all(|one| one.leader() >= 0)
        };
        if metadata.topics().iter().any(has_leaders) {
            break;
        }
        anyhow::ensure!(Instant::now() < until, "the topic has no leaders");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut list = TopicPartitionList::new();
    for partition in 0..hops.partitions {
        list.add_partition_offset(topic, i32::from(partition), Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    Ok(consumer)
}

fn consume(run: &Run, consumer: &BaseConsumer, stop: &AtomicBool) -> anyhow::Result<()> {
    let end = run.schedule.due(run.schedule.count()) + WAIT;
    let mut missing = run.schedule.count();
    while missing > 0 && !stop.load(Ordering::Relaxed) && !run.stop.load(Ordering::Relaxed) {
        anyhow::ensure!(Instant::now() < end, "{missing} records did not come");
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message?;
        let stamp = message.payload().and_then(|payload| payload.first_chunk::<STAMP>()).context("a record without number")?;
        run.count(u64::from_be_bytes(*stamp), &run.hop);
        missing -= 1;
    }
    Ok(())
}

fn produce(run: &Arc<Run>, hops: &Hops, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut config = client(hops);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", hops.linger_ms.to_string())
        .set("message.timeout.ms", "120000")
        .set("queue.buffering.max.messages", "1000000");
    let producer: ThreadedProducer<Reports> = config.create_with_context(Reports(Arc::clone(run)))?;
    producer.client().fetch_metadata(Some(&run.topic), WAIT)?;
    let mut payload = vec![b'x'; hops.bytes];
    for number in 0..run.schedule.count() {
        let early = run.schedule.due(number).saturating_duration_since(Instant::now());
        if !early.is_zero() {
            std::thread::sleep(early);
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        payload[..STAMP].copy_from_slice(&number.to_be_bytes());
        let partition = i32::try_from(number % u64::from(hops.partitions)).expect("below a u16");
        let record = BaseRecord::with_opaque_to(&run.topic, Box::new(number)).partition(partition).payload(&payload);
        let record: BaseRecord<'_, (), Vec<u8>, Box<u64>> = record;
        producer.send(record).map_err(|(why, _)| anyhow::anyhow!("a record was not taken: {why}"))?;
    }
    producer.flush(WAIT)?;
    Ok(())
}
