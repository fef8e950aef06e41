//! The log of a cluster against real brokers (`TEST_KAFKA`: their addresses) and against the client library's own mock of a cluster.
#![allow(clippy::unwrap_used, reason = "a test stops where it breaks")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use router::log::kafka::{KafkaConfig, KafkaLog, Partitions, topics};
use router::log::{Following, Log, LogError, Topic};
use router::submit::kafka::KafkaSubmit;
use router::submit::{Outcome, Report, ReportSink, Submit};

const PATIENCE: Duration = Duration::from_secs(60);

/// The brokers, if there are any for the tests.
fn brokers() -> Option<Vec<String>> {
    let brokers = std::env::var("TEST_KAFKA").ok().filter(|text| !text.is_empty());
    if brokers.is_none() {
        assert!(std::env::var("TEST_REQUIRE_ENGINES").is_err(), "TEST_KAFKA is not set");
        println!("skipped: TEST_KAFKA is not set");
    }
    Some(brokers?.split(',').map(str::to_owned).collect())
}

/// Settings for topics nobody has used before.
fn fresh(brokers: Vec<String>) -> KafkaConfig {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    KafkaConfig {
        brokers,
        topic_prefix: format!("t{since}-{}-", NEXT.fetch_add(1, Ordering::Relaxed)),
        partitions: Partitions { messages: 2, group_messages: 1, mailbox: 2, notifications: 1, analytics: 1 },
        replication_factor: 1,
        min_insync_replicas: 1,
        ..KafkaConfig::default()
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < PATIENCE, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn connect(config: &KafkaConfig) -> Arc<KafkaLog> {
    let log = KafkaLog::connect(config).unwrap();
    until("a broker answers", || log.is_reachable()).await;
    log
}

/// A handle that the contract suite can own.
struct Owned(Arc<KafkaLog>);

#[async_trait::async_trait]
impl Log for Owned {
    async fn append(&self, topic: Topic, partition: u16, payload: Bytes) -> Result<u64, LogError> {
        self.0.append(topic, partition, payload).await
    }
    async fn read(&self, topic: Topic, partition: u16, offset: u64, max: usize) -> Result<Vec<router::log::Entry>, LogError> {
        self.0.read(topic, partition, offset, max).await
    }
    async fn end(&self, topic: Topic, partition: u16) -> Result<u64, LogError> {
        self.0.end(topic, partition).await
    }
    fn follow(&self, topic: Topic, partition: u16, offset: u64) {
        self.0.follow(topic, partition, offset);
    }
    fn unfollow(&self, topic: Topic, partition: u16) {
        self.0.unfollow(topic, partition);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_of_a_log() {
    let Some(brokers) = brokers() else { return };
    router::log::contract::run(async || {
        let config = fresh(brokers.clone());
        topics::create(&config).await.unwrap();
        Owned(connect(&config).await)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_of_submit() {
    let Some(brokers) = brokers() else { return };
    let config = fresh(brokers);
    topics::create(&config).await.unwrap();
    let log = connect(&config).await;
    router::submit::contract::run(async || Arc::new(KafkaSubmit::new(&log)) as Arc<dyn Submit>).await;
    assert_eq!(log.close(Duration::from_secs(5)), 0, "nothing is left without a report");
    let mut all = 0;
    for partition in 0..2 {
        all += log.end(Topic::Messages, partition).await.unwrap();
    }
    assert_eq!(all, 1003, "each attempt stands in the log: repeats are told apart behind it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_made_once_and_faults_are_named() {
    let Some(brokers) = brokers() else { return };
    let config = fresh(brokers);
    let missing = topics::verify(&config).await.unwrap_err();
    assert_eq!(missing.len(), Topic::ALL.len());
    topics::create(&config).await.unwrap();
    topics::create(&config).await.unwrap();
    assert_eq!(topics::verify(&config).await, Ok(()));

    let mut other = config.clone();
    other.partitions.mailbox = 3;
    other.min_insync_replicas = 2;
    other.replication_factor = 2;
    other.retention = Duration::from_secs(30 * 24 * 60 * 60);
    topics::create(&other).await.unwrap();
    let faults = topics::verify(&other).await.unwrap_err();
    let text = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    for want in [
        "mailbox: 2 partitions, must be 3",
        "messages: min.insync.replicas is 1, must be 2; set min.insync.replicas=2",
        "messages: 1 replicas, must be at least 2",
        "messages: retention.ms is 604800000, must be at least 2592000000",
    ] {
        assert!(text.contains(want), "{want:?} is not in:\n{text}");
    }
    assert!(!text.contains("router_checkpoints: retention"), "compacted, not cut by age");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_never_work_is_refused_and_the_rest_stays_whole() {
    let Some(brokers) = brokers() else { return };
    let config = KafkaConfig { max_message_bytes: 10_000, ..fresh(brokers) };
    topics::create(&config).await.unwrap();
    let log = connect(&config).await;
    let too_large = log.append(Topic::Mailbox, 0, Bytes::from(vec![0; 10_001])).await;
    assert!(matches!(too_large, Err(LogError::Refused(_))), "{too_large:?}");
    assert_eq!(log.append(Topic::Mailbox, 0, Bytes::from(vec![0; 10_000])).await, Ok(0), "the largest");
    let sink = Arc::new(Sink::default());
    let submit = KafkaSubmit::new(&log);
    submit.submit(router::submit::contract::record(1, &"x".repeat(10_000)), Report::new(Arc::clone(&sink) as _, 1));
    assert_eq!(sink.take(), [(1, Outcome::Refused(protocol::ErrorCode::TooLarge))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_begins_above_a_position_is_refused() {
    let Some(brokers) = brokers() else { return };
    let config = fresh(brokers);
    topics::create(&config).await.unwrap();
    let log = connect(&config).await;
    for _ in 0..10 {
        log.append(Topic::Mailbox, 0, Bytes::from_static(b"x")).await.unwrap();
    }
    let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", config.brokers.join(",")).create().unwrap();
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&config.topic_name(Topic::Mailbox), 0, Offset::Offset(5)).unwrap();
    admin.delete_records(&before, &AdminOptions::new()).await.unwrap();

    let refused = log.read(Topic::Mailbox, 0, 2, 9).await;
    assert!(matches!(&refused, Err(LogError::Refused(why)) if why.contains("begins at offset 5")), "{refused:?}");
    let following = Following::new(&*log, Topic::Mailbox, 0, 2);
    let since = Instant::now();
    while let Ok(entries) = log.read(Topic::Mailbox, 0, 2, 9).await {
        assert!(entries.is_empty() && since.elapsed() < PATIENCE, "never a jump");
    }
    drop(following);
    let _following = Following::new(&*log, Topic::Mailbox, 0, 5);
    assert_eq!(log.read(Topic::Mailbox, 0, 5, 9).await.unwrap()[0].offset, 5, "what is kept is read");
}

/// A follower that stops reading holds a bounded number of bytes, and finds everything when it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_rests_holds_a_bounded_buffer() {
    let Some(brokers) = brokers() else { return };
    let config = KafkaConfig { follow_bytes: 64 * 1024, ..fresh(brokers) };
    topics::create(&config).await.unwrap();
    let log = connect(&config).await;
    let (resting, other) = (Following::new(&*log, Topic::Mailbox, 0, 0), Following::new(&*log, Topic::Mailbox, 1, 0));
    let appends = (0..3000_u64).map(|number| log.append(Topic::Mailbox, 0, Bytes::from(number.to_be_bytes().repeat(128))));
    futures_util::future::try_join_all(appends).await.unwrap();
    until("the buffer is full", || log.buffered_bytes() >= 64 * 1024).await;
    log.append(Topic::Mailbox, 1, Bytes::from_static(b"x")).await.unwrap();
    while log.read(Topic::Mailbox, 1, 0, 1).await.unwrap().is_empty() {} // another partition goes on
    assert!(log.buffered_bytes() < 128 * 1024, "{} bytes", log.buffered_bytes());
    let mut next = 0;
    while next < 3000 {
        for entry in log.read(Topic::Mailbox, 0, next, 100).await.unwrap() {
            assert_eq!((entry.offset, &entry.payload[..8]), (next, next.to_be_bytes().as_slice()));
            next += 1;
        }
    }
    drop((resting, other));
    assert_eq!(log.buffered_bytes(), 0);
}

#[derive(Default)]
struct Sink(parking_lot::Mutex<Vec<(u64, Outcome)>>);

impl Sink {
    fn take(&self) -> Vec<(u64, Outcome)> {
        std::mem::take(&mut self.0.lock())
    }
}

impl ReportSink for Sink {
    fn settled(&self, ticket: u64, outcome: Outcome) {
        self.0.lock().push((ticket, outcome));
    }
}

/// A mock of three brokers with our topics: as leaders and connections go, not as replication does.
fn mock() -> (MockCluster<'static, rdkafka::producer::DefaultProducerContext>, KafkaConfig) {
    let cluster = MockCluster::new(3).unwrap();
    let config = fresh(cluster.bootstrap_servers().split(',').map(str::to_owned).collect());
    for topic in Topic::ALL {
        cluster.create_topic(&config.topic_name(topic), i32::from(config.partitions.of(topic)), 3).unwrap();
    }
    (cluster, config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_away_at_the_start_and_later_are_told_and_come_back() {
    let (cluster, config) = mock();
    cluster.broker_down(-1).unwrap();
    let log = KafkaLog::connect(&config).unwrap();
    let submit = KafkaSubmit::new(&log);
    let sink = Arc::new(Sink::default());
    assert!(!log.is_reachable());
    let unavailable = |result: &LogError| matches!(result, LogError::Unavailable(_));
    assert!(log.append(Topic::Mailbox, 0, Bytes::from_static(b"x")).await.is_err_and(|why| unavailable(&why)));
    assert!(log.end(Topic::Mailbox, 0).await.is_err_and(|why| unavailable(&why)));
    assert!(log.read(Topic::Mailbox, 0, 0, 1).await.is_err_and(|why| unavailable(&why)));
    submit.submit(router::submit::contract::record(1, "x"), Report::new(Arc::clone(&sink) as _, 1));
    assert_eq!(sink.take(), [(1, Outcome::Refused(protocol::ErrorCode::Unavailable))], "at once");

    for round in 0..2 {
        cluster.broker_up(-1).unwrap();
        until("the brokers come", || log.is_reachable()).await;
        assert_eq!(log.append(Topic::Mailbox, 0, Bytes::from_static(b"x")).await, Ok(round));
        cluster.broker_down(-1).unwrap();
        until("the brokers go", || !log.is_reachable()).await;
        assert!(log.append(Topic::Mailbox, 0, Bytes::from_static(b"x")).await.is_err_and(|why| unavailable(&why)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_breaks_for_good_is_built_anew() {
    let (cluster, config) = mock();
    let log = connect(&config).await;
    log.append(Topic::Mailbox, 0, Bytes::from_static(b"0")).await.unwrap();
    let broken = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER];
    cluster.request_errors(RDKafkaApiKey::Produce, &broken);
    let first = log.append(Topic::Mailbox, 0, Bytes::from_static(b"1")).await;
    println!("the append that broke it: {first:?}");
    let since = Instant::now();
    loop {
        match log.append(Topic::Mailbox, 0, Bytes::from_static(b"2")).await {
            Ok(_) => break,
            Err(why) => assert!(since.elapsed() < PATIENCE, "{why}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Appends and follows go on while brokers of the mock go and come: all that was acknowledged is read, in order, without gaps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_while_brokers_go_and_come() {
    let (cluster, config) = mock();
    let log = connect(&config).await;
    let (enough, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let writer = tokio::spawn(write(Arc::clone(&log), Arc::clone(&enough)));
    let reader = tokio::spawn(follow(Arc::clone(&log), Arc::clone(&written)));
    for round in 0..6 {
        let one = round % 3 + 1;
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.broker_down(one).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.broker_up(one).unwrap();
    }
    until("reachable again", || log.is_reachable()).await;
    enough.store(true, Ordering::Release);
    let acknowledged = writer.await.unwrap();
    written.store(true, Ordering::Release); // only now is the end of the log the end of what was acknowledged
    let read = reader.await.unwrap();
    assert!(acknowledged.len() > 100, "{} appends", acknowledged.len());
    assert!(acknowledged.is_subset(&read), "lost: {:?}", acknowledged.difference(&read).collect::<Vec<_>>());
}

/// Appends numbers until told to end; returns those acknowledged.
async fn write(log: Arc<KafkaLog>, enough: Arc<AtomicBool>) -> BTreeSet<u64> {
    let mut acknowledged = BTreeSet::new();
    for number in 0_u64.. {
        if enough.load(Ordering::Acquire) {
            break;
        }
        if log.append(Topic::Mailbox, 0, Bytes::copy_from_slice(&number.to_be_bytes())).await.is_ok() {
            acknowledged.insert(number);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    acknowledged
}

/// Reads in order until all is written and read; returns what was read. A gap or a repeat of an offset fails.
async fn follow(log: Arc<KafkaLog>, written: Arc<AtomicBool>) -> BTreeSet<u64> {
    let _following = Following::new(&*log, Topic::Mailbox, 0, 0);
    let (mut read, mut next) = (BTreeSet::new(), 0);
    loop {
        let ending = written.load(Ordering::Acquire);
        let entries = log.read(Topic::Mailbox, 0, next, 100).await.unwrap_or_default();
        let end = log.end(Topic::Mailbox, 0).await;
        for entry in entries {
            assert_eq!(entry.offset, next, "contiguous");
            next += 1;
            read.insert(u64::from_be_bytes(entry.payload.as_ref().try_into().unwrap()));
        }
        if ending && end == Ok(next) {
            return read;
        }
    }
}
