//! What only an owner alone shows; the races are the simulation's.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::record::{Content, Identity, Link, Record, Source, Verdict};
use protocol::{ConversationId, MessageId, UserId};
use router::chain::Chain;
use router::checkpoint::{Checkpoint as RouterCheckpoint, Newest};
use router::consume::Rewind;
use router::expand::ShardId;
use router::log::memory::MemoryLog;
use router::log::{Log, Topic};
use router::registry::NodeId;
use router::registry::memory::MemoryRegistry;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::{Ports, run};
use crate::StorageError;
use crate::push::{Deliver, Push, Wake};
use crate::store::memory::MemoryStore;
use crate::store::{Store, StoreError};

const SHARD: ShardId = ShardId(0);
const SOURCE: Source = Source { partition: 0, epoch: 1 };

struct Nobody;
impl Wake for Nobody {}
impl Deliver for Nobody {
    fn push(&self, _: NodeId, _: Vec<Push>) -> Box<dyn Wake> {
        Box::new(Self)
    }
}

fn ports(log: &MemoryLog, store: &MemoryStore) -> (Ports, mpsc::Receiver<Rewind>) {
    let (rewinds, requests) = mpsc::channel(4);
    let ports = Ports {
        log: Arc::new(log.clone()),
        store: Arc::new(store.clone()),
        registry: Arc::new(MemoryRegistry::new()),
        deliver: Arc::new(Nobody),
        rewinds,
        sent: Arc::new(Newest::new(Arc::new(log.clone()), 1)),
    };
    (ports, requests)
}

fn verdict(number: u8) -> Verdict {
    let user = UserId::from_stored(1);
    let id = MessageId::from_stored(&[number; 16]).unwrap();
    let identity = Identity { sender: user, conversation: ConversationId::direct(user, user), id };
    Verdict::Deliver(Record { identity, content: Content::Text("x".into()), reply_to: None, at_ms: 0 }, vec![user])
}

/// The router's records 0, 1, 2, ….
fn emitted(count: u8) -> (Vec<Bytes>, Chain) {
    let mut chain = Chain::default();
    let records = (0..count).map(|number| chain.extend(SOURCE, number.into(), (SHARD, verdict(number))).encode());
    (records.collect(), chain)
}

async fn head(store: &MemoryStore) -> u64 {
    store.heads(SHARD, &[UserId::from_stored(1)]).await.unwrap()[0].head
}

#[tokio::test(start_paused = true)]
async fn a_hole_is_dropped_and_asked_for_and_what_comes_behind_is_taken() {
    let (log, store) = (MemoryLog::new(1, 1), MemoryStore::new());
    let (ports, mut requests) = ports(&log, &store);
    let (records, _) = emitted(4);
    let owner = tokio::spawn(async move { run(SHARD, &ports).await });
    for at in [0, 2, 3] {
        log.append(Topic::Mailbox, 0, records[at].clone()).await.unwrap();
    }
    sleep(Duration::from_millis(10)).await;
    let request = requests.try_recv().unwrap();
    assert_eq!((request.high_water.next_offset, request.hole), (1, 2), "from what it has; seen at the newest place");
    assert_eq!(head(&store).await, 1);
    for at in [1, 2, 3, 1] {
        log.append(Topic::Mailbox, 0, records[at].clone()).await.unwrap();
    }
    sleep(Duration::from_millis(10)).await;
    assert_eq!(head(&store).await, 4);
    assert!(requests.try_recv().is_err());
    assert_eq!(store.checkpoint(SHARD).await.unwrap().offset, 7, "nothing waits in place");
    assert_eq!(store.acquire(SHARD).await.unwrap().high_waters[0].link.next_offset, 4);
    owner.abort();
}

#[tokio::test(start_paused = true)]
async fn the_audit_asks_for_what_no_later_record_tells_of() {
    let (log, store) = (MemoryLog::new(1, 1), MemoryStore::new());
    let (ports, mut requests) = ports(&log, &store);
    let (records, chain) = emitted(3);
    log.append(Topic::Mailbox, 0, records[0].clone()).await.unwrap();
    let sent = RouterCheckpoint { next_offset: 3, chain, ..RouterCheckpoint::start(SOURCE.epoch) };
    log.append(Topic::RouterCheckpoints, 0, sent.encode()).await.unwrap();
    let _owner = tokio::spawn(async move { run(SHARD, &ports).await });
    sleep(Duration::from_secs(59)).await;
    assert!(requests.try_recv().is_err());
    sleep(Duration::from_secs(3)).await;
    let request = requests.try_recv().unwrap();
    assert_eq!((request.source, request.high_water.next_offset, request.hole), (SOURCE, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_owner_with_nothing_to_do_notices_that_its_store_was_set_back() {
    let (log, store) = (MemoryLog::new(1, 1), MemoryStore::new());
    log.append(Topic::Mailbox, 0, emitted(1).0.remove(0)).await.unwrap();
    let (ports, _requests) = ports(&log, &store);
    let owner = tokio::spawn(async move { run(SHARD, &ports).await });
    while head(&store).await < 1 {
        sleep(Duration::from_millis(10)).await;
    }
    sleep(super::LOOK_EVERY * 3).await;
    assert!(!owner.is_finished(), "all is as it left it");
    store.acquire(SHARD).await.unwrap(); // whatever was done to it: its checkpoint is another one now
    let why = tokio::time::timeout(super::LOOK_EVERY * 3, owner).await.expect("without a record").unwrap();
    assert!(matches!(why, StorageError::Store(StoreError::Fenced(0))), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_digest_stops_its_source_and_no_other() {
    let (log, store) = (MemoryLog::new(1, 1), MemoryStore::new());
    let (ports, mut requests) = ports(&log, &store);
    let (records, _) = emitted(2);
    let other = Source { partition: 7, epoch: 1 };
    let mut fork = Chain::default();
    fork.set(SHARD, Link { next_offset: 1, digest: 99 });
    let forked = fork.extend(SOURCE, 1, (SHARD, verdict(8))).encode();
    let elsewhere = Chain::default().extend(other, 0, (SHARD, verdict(9))).encode();
    for payload in [records[0].clone(), forked, elsewhere] {
        log.append(Topic::Mailbox, 0, payload).await.unwrap();
    }
    let _owner = tokio::spawn(async move { run(SHARD, &ports).await });
    sleep(Duration::from_millis(10)).await;
    assert_eq!(head(&store).await, 2);
    assert!(requests.try_recv().is_err(), "a person must look; a rewind would say the same again");
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_record_are_left_out_and_the_shard_goes_on() {
    let (log, store) = (MemoryLog::new(1, 1), MemoryStore::new());
    let (ports, _requests) = ports(&log, &store);
    let (records, _) = emitted(2);
    for payload in [records[0].clone(), Bytes::from_static(b"\xff\xff"), Bytes::new(), records[1].clone()] {
        log.append(Topic::Mailbox, 0, payload).await.unwrap();
    }
    let owner = tokio::spawn(async move { run(SHARD, &ports).await });
    sleep(Duration::from_millis(10)).await;
    assert_eq!((head(&store).await, store.checkpoint(SHARD).await.unwrap().offset), (2, 4));
    owner.abort();
}

#[tokio::test(start_paused = true)]
async fn a_record_of_a_newer_build_ends_the_owner_by_name_and_what_is_before_it_is_done() {
    let (log, store) = (MemoryLog::new(1, 1), MemoryStore::new());
    let (ports, _requests) = ports(&log, &store);
    let (records, _) = emitted(1);
    // a link, and a verdict this build has never heard of
    let newer = Bytes::from_static(&[0x18, 0x02]);
    for payload in [records[0].clone(), newer] {
        log.append(Topic::Mailbox, 0, payload).await.unwrap();
    }
    let why = run(SHARD, &ports).await;
    assert!(matches!(&why, StorageError::Router(router::RouterError::Undecodable { partition: 0, offset: 1, .. })), "{why}");
    assert_eq!((head(&store).await, store.checkpoint(SHARD).await.unwrap().offset), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn another_log_than_the_checkpoint_was_made_of_ends_the_owner() {
    let store = MemoryStore::new();
    let (records, _) = emitted(3);
    let log = MemoryLog::new(1, 1);
    let (ports, _requests) = ports(&log, &store);
    for record in &records[..2] {
        log.append(Topic::Mailbox, 0, record.clone()).await.unwrap();
    }
    let owner = tokio::spawn(async move { run(SHARD, &ports).await });
    sleep(Duration::from_millis(10)).await;
    owner.abort();
    for other in [vec![], vec![records[0].clone()], vec![records[0].clone(), records[2].clone()]] {
        let log = MemoryLog::new(1, 1);
        for record in other {
            log.append(Topic::Mailbox, 0, record).await.unwrap();
        }
        let (ports, _requests) = self::ports(&log, &store);
        let why = run(SHARD, &ports).await;
        assert!(matches!(&why, StorageError::Router(router::RouterError::LogCut { partition: 0, offset: 2 })), "{why}");
    }
}
