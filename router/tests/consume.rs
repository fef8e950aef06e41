//! The router of one partition, alone with a log: everything goes out once in a chain, it stops by name, it comes back, it rewinds.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use protocol::record::{Content, Identity, Link, MailboxRecord, Record, Source};
use protocol::{ConversationId, MessageId, UserId};
use router::RouterError;
use router::chain::{HighWaters, Judgement};
use router::checkpoint::Checkpoint;
use router::consume::{Rewind, run};
use router::expand::{ShardId, Shards};
use router::log::memory::MemoryLog;
use router::log::{Entry, Log, LogError, Topic};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;

const SOURCE: Source = Source { partition: 1, epoch: 1 };
const SHARDS: u16 = 3;

/// A log some of whose appends fail, before they are done or after.
#[derive(Clone)]
struct Flaky {
    inner: MemoryLog,
    appends: Arc<AtomicU64>,
    /// One of so many appends fails; 0: none.
    fails_each: u64,
}

#[async_trait]
impl Log for Flaky {
    async fn append(&self, topic: Topic, partition: u16, payload: Bytes) -> Result<u64, LogError> {
        let number = self.appends.fetch_add(1, Ordering::Relaxed) + 1;
        let fails = topic == Topic::Mailbox && self.fails_each > 0 && number.is_multiple_of(self.fails_each);
        if fails && number.is_multiple_of(2) {
            sleep(Duration::from_millis(5)).await;
            return Err(LogError::Unavailable("a test".into()));
        }
        let offset = self.inner.append(topic, partition, payload).await?;
        if fails { Err(LogError::Unknown) } else { Ok(offset) }
    }

    async fn read(&self, topic: Topic, partition: u16, offset: u64, max: usize) -> Result<Vec<Entry>, LogError> {
        self.inner.read(topic, partition, offset, max).await
    }

    async fn end(&self, topic: Topic, partition: u16) -> Result<u64, LogError> {
        self.inner.end(topic, partition).await
    }
}

/// A record with an identity and a body whose content this build has never heard of.
fn of_a_newer_build() -> Bytes {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Newer {
        #[prost(bytes = "vec", tag = "1")]
        identity: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        body: Vec<u8>,
    }
    let known = <Newer as prost::Message>::decode(record(1).encode()).unwrap();
    prost::Message::encode_to_vec(&Newer { body: Vec::new(), ..known }).into()
}

fn log(fails_each: u64) -> Flaky {
    Flaky { inner: MemoryLog::new(2, SHARDS), appends: Arc::default(), fails_each }
}

fn record(number: u64) -> Record {
    let (sender, other) = (UserId::from_stored(1 + number % 5), UserId::from_stored(1 + number % 7));
    let id = MessageId::from_stored(&u128::from(number).to_be_bytes()).unwrap();
    let identity = Identity { sender, conversation: ConversationId::direct(sender, other), id };
    Record { identity, content: Content::Text(format!("{number}")), reply_to: None, at_ms: number }
}

async fn accept(log: &Flaky, numbers: std::ops::Range<u64>) {
    for number in numbers {
        log.inner.append(Topic::Messages, SOURCE.partition, record(number).encode()).await.unwrap();
    }
}

fn start(log: &Flaky) -> (mpsc::Sender<Rewind>, JoinHandle<RouterError>) {
    let (sender, rewinds) = mpsc::channel(4);
    let log = log.clone();
    (sender, tokio::spawn(async move { run(&log, SOURCE, Shards::new(SHARDS).unwrap(), rewinds).await }))
}

async fn checkpoint(log: &Flaky) -> Checkpoint {
    let end = log.end(Topic::RouterCheckpoints, SOURCE.partition).await.unwrap();
    let entries = log.read(Topic::RouterCheckpoints, SOURCE.partition, end - 1, 1).await.unwrap();
    Checkpoint::decode(&entries[0].payload).unwrap()
}

/// What a storage owner would take of a mailbox partition, and the link it would stand at.
async fn taken(log: &Flaky, shard: u16) -> (Vec<u64>, Link) {
    let mut high_waters = HighWaters::default();
    let mut offsets = Vec::new();
    if log.end(Topic::Mailbox, shard).await.unwrap() > 0 {
        for entry in log.read(Topic::Mailbox, shard, 0, usize::MAX).await.unwrap() {
            let record = MailboxRecord::decode(&entry.payload).unwrap();
            match high_waters.judge(&record) {
                Judgement::Take => offsets.push(record.link.next_offset - 1),
                Judgement::WrongDigest => panic!("a wrong digest"),
                Judgement::Repeat | Judgement::Hole { .. } => {}
            }
        }
    }
    (offsets, high_waters.at(SOURCE))
}

/// Every record is taken in each shard of its owners, in order.
async fn all_taken(log: &Flaky, count: u64) {
    for shard in 0..SHARDS {
        let here = |number: &u64| {
            let ConversationId::Direct(low, high) = record(*number).identity.conversation;
            [low, high].iter().any(|user| user.get() % u64::from(SHARDS) == u64::from(shard))
        };
        assert_eq!(taken(log, shard).await.0, (0..count).filter(here).collect::<Vec<_>>(), "shard {shard}");
    }
}

#[tokio::test(start_paused = true)]
async fn everything_goes_out_and_is_remembered() {
    let log = log(0);
    accept(&log, 0..500).await;
    let (_rewinds, router) = start(&log);
    sleep(Duration::from_secs(2)).await;
    all_taken(&log, 500).await;
    let stored = checkpoint(&log).await;
    assert_eq!(stored.next_offset, 500);
    for shard in 0..SHARDS {
        assert_eq!(stored.chain.at(ShardId(shard)), taken(&log, shard).await.1);
    }
    router.abort();
    let before = log.appends.load(Ordering::Relaxed);
    let (_rewinds, _router) = start(&log);
    accept(&log, 500..501).await;
    sleep(Duration::from_secs(2)).await;
    all_taken(&log, 501).await;
    assert!(log.appends.load(Ordering::Relaxed) <= before + 3, "the successor goes on, it does not begin again");
}

#[tokio::test(start_paused = true)]
async fn failed_appends_and_dead_routers_cost_repeats_only() {
    for fails_each in [3, 7, 50] {
        let log = log(fails_each);
        accept(&log, 0..200).await;
        for life_ms in [1, 7, 60, 150, 400] {
            let (_rewinds, router) = start(&log);
            sleep(Duration::from_millis(life_ms)).await;
            router.abort();
        }
        let (_rewinds, _router) = start(&log);
        sleep(Duration::from_secs(3000)).await;
        all_taken(&log, 200).await;
        assert_eq!(checkpoint(&log).await.next_offset, 200, "1 of {fails_each} fails");
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_of_a_newer_build_stops_the_partition_by_name() {
    let log = log(0);
    accept(&log, 0..3).await;
    log.inner.append(Topic::Messages, SOURCE.partition, of_a_newer_build()).await.unwrap();
    accept(&log, 3..5).await;
    let (_rewinds, router) = start(&log);
    let why = router.await.unwrap();
    assert!(matches!(why, RouterError::Undecodable { partition: 1, offset: 3, .. }), "{why}");
    assert_eq!(checkpoint(&log).await.next_offset, 3, "what is before it is done and remembered");
    all_taken(&log, 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_was_stepped_over_is_left_out_by_the_reader_and_by_every_rewind() {
    let log = log(0);
    accept(&log, 0..3).await;
    log.inner.append(Topic::Messages, SOURCE.partition, of_a_newer_build()).await.unwrap();
    accept(&log, 3..40).await;
    let (_rewinds, router) = start(&log);
    router.await.unwrap();
    let mut stepped = checkpoint(&log).await;
    stepped.skip(3);
    log.inner.append(Topic::RouterCheckpoints, SOURCE.partition, stepped.encode()).await.unwrap();
    let (rewinds, _router) = start(&log);
    sleep(Duration::from_secs(3000)).await;
    let now = checkpoint(&log).await;
    assert_eq!((now.next_offset, now.skips(3)), (41, true), "the next router must leave it out too");
    let mut ends = Vec::new();
    for partition in 0..SHARDS {
        let end = log.end(Topic::Mailbox, partition).await.unwrap();
        let rewind = Rewind { source: SOURCE, shard: ShardId(partition), high_water: Link::default(), hole: end - 1 };
        rewinds.send(rewind).await.unwrap();
        ends.push(end);
    }
    sleep(Duration::from_secs(1500)).await;
    for (partition, end) in (0..SHARDS).zip(ends) {
        let (_, link) = taken(&log, partition).await;
        let mut again = HighWaters::default();
        for entry in log.read(Topic::Mailbox, partition, end, usize::MAX).await.unwrap() {
            again.judge(&MailboxRecord::decode(&entry.payload).unwrap());
        }
        assert_eq!(again.at(SOURCE), link, "the rewind of shard {partition} comes to the same link");
    }
}

#[tokio::test(start_paused = true)]
async fn another_log_than_the_checkpoint_was_made_of_stops_it() {
    for (next_offset, fingerprint) in [(2, 5), (9, 5)] {
        let log = log(0);
        accept(&log, 0..3).await;
        let wrong = Checkpoint { next_offset, fingerprint, ..Checkpoint::start(SOURCE.epoch) };
        log.inner.append(Topic::RouterCheckpoints, SOURCE.partition, wrong.encode()).await.unwrap();
        let (_rewinds, router) = start(&log);
        let why = router.await.unwrap();
        assert_eq!(why, RouterError::LogCut { partition: 1, offset: next_offset });
    }
}

#[tokio::test(start_paused = true)]
async fn a_rewind_says_again_what_was_missed_and_only_once() {
    for fails_each in [0, 9] {
        let log = log(fails_each);
        accept(&log, 0..700).await;
        let (rewinds, _router) = start(&log);
        sleep(Duration::from_secs(3000)).await;
        let (shard, partition) = (ShardId(2), 2);
        let all = log.read(Topic::Mailbox, partition, 0, usize::MAX).await.unwrap();
        let third = MailboxRecord::decode(&all[2].payload).unwrap().link;
        let end = log.end(Topic::Mailbox, partition).await.unwrap();
        let rewind = Rewind { source: SOURCE, shard, high_water: third, hole: end - 1 };
        for _ in 0..3 {
            rewinds.send(rewind).await.unwrap();
        }
        sleep(Duration::from_secs(1500)).await;
        accept(&log, 700..720).await;
        sleep(Duration::from_secs(1500)).await;
        // what stands behind the request continues the link it named, to the last record, without a hole
        let mut high_waters: HighWaters = [(SOURCE, third)].into_iter().collect();
        let mut took = 0;
        for entry in log.read(Topic::Mailbox, partition, end, usize::MAX).await.unwrap() {
            took += usize::from(high_waters.judge(&MailboxRecord::decode(&entry.payload).unwrap()) == Judgement::Take);
        }
        let (offsets, link) = taken(&log, partition).await;
        assert_eq!((high_waters.at(SOURCE), took), (link, offsets.len() - 3));
        all_taken(&log, 720).await;
        assert_eq!(checkpoint(&log).await.next_offset, 720);
        if fails_each == 0 {
            let again = log.end(Topic::Mailbox, partition).await.unwrap() - end;
            assert_eq!(again as usize, took, "one rewind, whatever is asked while it runs");
        }
    }
}
