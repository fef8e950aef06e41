//! Sleeping phones: a follower of one shard's log, some seconds behind its checkpoint. Each message whose owner has no device attached (or none that acknowledges it) becomes one
//! record of the topic `notifications`, for whoever wakes phones. It has an offset of its own, written after the records are durable: a crash
//! repeats, never skips, and repeats collapse by (owner, conversation, position). A flood, or a registry that is away, delays it and nothing else.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use protocol::plant::{Bug, planted};
use protocol::record::{MailboxRecord, Notification, Verdict};
use router::RouterError;
use router::consume::pause;
use router::expand::ShardId;
use router::log::{Entry, Following, Log, LogError, Topic};
use router::registry::Registry;
use tokio::time::{Instant, sleep};

use crate::StorageError;
use crate::store::{KeyOf, Store};

/// A message is this old before its owner counts as away: time for a phone that just changes its network.
const BEHIND: Duration = Duration::from_secs(3);
/// And this old before its owner, who is attached, counts as away all the same if no device has acknowledged it: the entry of a device that is
/// gone may stand for long.
const BEHIND_ATTACHED: Duration = Duration::from_secs(10);
/// How often it looks for more, and writes its offset.
const EVERY: Duration = Duration::from_secs(1);
/// Records in one read.
const BATCH_MAX: usize = 256;

/// What a follower stands on.
#[derive(Clone)]
pub struct Ports {
    /// The log, by a reader that is not the owners'.
    pub log: Arc<dyn Log>,
    /// Where its offset is kept.
    pub store: Arc<dyn Store>,
    /// Who is attached.
    pub registry: Arc<dyn Registry>,
    /// Partitions of `notifications`.
    pub partitions: u16,
}

struct Follower<'a> {
    shard: ShardId,
    ports: &'a Ports,
    following: Following<'a>,
    offset: u64,
    saved: u64,
    saved_at: Instant,
}

/// Follows a shard until its log cannot be read. Dropped at any instant, nothing is skipped.
///
/// # Errors
/// Always ends with one: the log refuses for good.
pub async fn run(shard: ShardId, ports: &Ports) -> StorageError {
    let mut failures = 0;
    let offset = loop {
        match ports.store.followed(shard).await {
            Ok(offset) => break offset,
            Err(why) => {
                failures += 1;
                tracing::debug!(shard = shard.0, %why, "the follower waits for the store");
                sleep(pause(failures)).await;
            }
        }
    };
    let following = Following::new(&*ports.log, Topic::Mailbox, shard.0, offset);
    let mut follower = Follower { shard, ports, following, offset, saved: offset, saved_at: Instant::now() };
    loop {
        if let Err(why) = follower.step().await {
            return why;
        }
    }
}

impl Follower<'_> {
    /// One batch, as far as it is committed and old enough.
    async fn step(&mut self) -> Result<(), StorageError> {
        let Ok(committed) = self.ports.store.checkpoint(self.shard).await else {
            sleep(EVERY).await;
            return Ok(());
        };
        if self.offset >= committed.offset {
            self.save().await;
            sleep(EVERY).await;
            return Ok(());
        }
        let entries = match self.ports.log.read(Topic::Mailbox, self.shard.0, self.offset, BATCH_MAX).await {
            Ok(entries) => entries,
            Err(LogError::Refused(why)) => return self.skip(committed.offset, why).await,
            Err(_) => {
                sleep(EVERY).await;
                return Ok(());
            }
        };
        let entries: Vec<_> = entries.into_iter().filter(|entry| entry.offset < committed.offset).collect();
        if let Some(last) = entries.last() {
            if planted(Bug::FollowedBeforeTold) {
                self.offset = last.offset + 1;
                self.save().await;
            }
            self.follow(&entries).await;
            self.offset = last.offset + 1;
        }
        if self.saved_at.elapsed() >= EVERY {
            self.save().await;
        }
        Ok(())
    }

    /// Retention of the log has overtaken it: what is gone can't be told any more, and is days old.
    async fn skip(&mut self, to: u64, why: String) -> Result<(), StorageError> {
        if self.ports.log.read(Topic::Mailbox, self.shard.0, to, 1).await.is_err_and(|why| matches!(why, LogError::Refused(_))) {
            return Err(RouterError::Log(LogError::Refused(why)).into());
        }
        tracing::error!(
            shard = self.shard.0,
            from = self.offset,
            to,
            why,
            "the log was removed before its notifications were made"
        );
        metrics::counter!("switchboard_notifications_skipped_total").increment(to - self.offset);
        self.offset = to;
        self.following = Following::new(&*self.ports.log, Topic::Mailbox, self.shard.0, to);
        Ok(())
    }

    /// Tells of a batch, however long it takes.
    async fn follow(&self, entries: &[Entry]) {
        let mut news: Vec<_> = entries.iter().flat_map(notifications).collect();
        let Some(newest) = news.iter().map(|one| one.at_ms).max() else { return };
        sleep(until_old(newest, BEHIND)).await;
        let owners: Vec<_> = news.iter().map(|one| one.owner).collect();
        let places = self.patiently(|| self.ports.registry.nodes(&owners)).await;
        let (attached, away): (Vec<_>, Vec<_>) = news.drain(..).zip(&places).partition(|(_, nodes)| !nodes.is_empty());
        news.extend(away.into_iter().map(|(one, _)| one));
        let attached: Vec<_> = attached.into_iter().map(|(one, _)| one).collect();
        news.extend(self.not_reached(attached).await);
        join_all(news.iter().map(|one| self.append(one))).await;
    }

    /// Those whose owner has not acknowledged them, though a device of his is said to be attached.
    async fn not_reached(&self, mut news: Vec<Notification>) -> Vec<Notification> {
        for old in [BEHIND, BEHIND_ATTACHED] {
            let Some(newest) = news.iter().map(|one| one.at_ms).max() else { return news };
            sleep(until_old(newest, old)).await;
            let keys: Vec<_> = news.iter().map(|one| KeyOf { owner: one.owner, identity: one.identity, refused: None }).collect();
            let reached = self.patiently(|| self.ports.store.reached(self.shard, &keys)).await;
            let mut reached = reached.into_iter();
            news.retain(|_| !reached.next().unwrap_or(true));
        }
        news
    }

    /// Asks until it is answered.
    async fn patiently<T, E: std::fmt::Display, F>(&self, mut ask: impl FnMut() -> F) -> T
    where
        F: Future<Output = Result<T, E>>,
    {
        let mut failures = 0;
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(why) => {
                    failures += 1;
                    tracing::debug!(shard = self.shard.0, %why, "notifications wait");
                    sleep(pause(failures)).await;
                }
            }
        }
    }

    async fn append(&self, notification: &Notification) {
        // the remainder is below a u16
        let partition = (notification.owner.get() % u64::from(self.ports.partitions.max(1))) as u16;
        let mut failures = 0;
        while let Err(why) = self.ports.log.append(Topic::Notifications, partition, notification.encode()).await {
            failures += 1;
            tracing::debug!(shard = self.shard.0, %why, "a notification is appended again");
            sleep(pause(failures)).await;
        }
        metrics::counter!("switchboard_notifications_total").increment(1);
    }

    async fn save(&mut self) {
        self.saved_at = Instant::now();
        if self.saved < self.offset && self.ports.store.save_followed(self.shard, self.offset).await.is_ok() {
            self.saved = self.offset;
        }
    }
}

/// What a record of the log may be told of: a message, to everybody but its sender.
fn notifications(entry: &Entry) -> Vec<Notification> {
    let Ok(record) = MailboxRecord::decode(&entry.payload) else { return Vec::new() };
    let position = record.position();
    let Verdict::Deliver(message, owners) = record.verdict else { return Vec::new() };
    let (identity, at_ms) = (message.identity, message.at_ms);
    let others = owners.into_iter().filter(|owner| *owner != identity.sender);
    others.map(|owner| Notification { owner, identity, position, at_ms }).collect()
}

/// How long until a message taken then is so old.
fn until_old(at_ms: u64, old: Duration) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // a gateway's clock that runs ahead must not stop the follower
    (Duration::from_millis(at_ms) + old).saturating_sub(now).min(old)
}

#[cfg(test)]
mod tests {
    use protocol::record::{Content, Identity, Record, Source};
    use protocol::{ConversationId, MessageId, UserId};
    use router::chain::Chain;
    use router::log::memory::MemoryLog;
    use router::registry::NodeId;
    use router::registry::memory::MemoryRegistry;

    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::{Checkpoint, Commit, KeyRow};

    const SHARD: ShardId = ShardId(0);

    async fn committed(store: &MemoryStore, offset: u64) {
        let expect = Checkpoint { owner_epoch: 1, ..store.checkpoint(SHARD).await.unwrap() };
        store.commit(SHARD, Commit { expect, next_offset: offset, ..Commit::default() }).await.unwrap();
    }

    async fn told(log: &MemoryLog) -> Vec<u64> {
        let entries = log.read(Topic::Notifications, 0, 0, 100).await.unwrap();
        entries.iter().map(|entry| Notification::decode(&entry.payload).unwrap().owner.get()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_attached_is_told_of_once_and_a_successor_goes_on() {
        let (log, store, registry) = (MemoryLog::new(1, 1), MemoryStore::new(), Arc::new(MemoryRegistry::new()));
        let [sender, here, away] = [1, 2, 3].map(UserId::from_stored);
        registry.register(here, &"phone".parse().unwrap(), NodeId { node: 1, boot: 1 }).await.unwrap();
        store.acquire(SHARD).await.unwrap();
        let mut chain = Chain::default();
        for (number, other) in [here, away, away].into_iter().enumerate() {
            let id = MessageId::from_stored(&[7; 16]).unwrap();
            let identity = Identity { sender, conversation: ConversationId::direct(sender, other), id };
            let record = Record { identity, content: Content::Text("x".into()), reply_to: None, at_ms: 0 };
            let verdict = Verdict::Deliver(record, vec![sender, other]);
            let source = Source { partition: 0, epoch: 1 };
            let record = chain.extend(source, number as u64, (SHARD, verdict));
            log.append(Topic::Mailbox, 0, record.encode()).await.unwrap();
        }
        committed(&store, 2).await;
        let ports = Ports { log: Arc::new(log.clone()), store: Arc::new(store.clone()), registry, partitions: 1 };
        let follow = |ports: Ports| tokio::spawn(async move { run(SHARD, &ports).await });
        let first = follow(ports.clone());
        sleep(Duration::from_secs(10)).await;
        assert_eq!(told(&log).await, [3], "the third is not committed yet");
        first.abort();
        committed(&store, 3).await;
        let _second = follow(ports);
        sleep(Duration::from_secs(10)).await;
        assert_eq!(told(&log).await, [3, 3]);
        assert_eq!(store.followed(SHARD).await, Ok(3));
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_that_stands_for_nobody_hides_no_notification() {
        let (log, store, registry) = (MemoryLog::new(1, 1), MemoryStore::new(), Arc::new(MemoryRegistry::new()));
        let [sender, here, ghost] = [1, 2, 3].map(UserId::from_stored);
        let phone = "phone".parse().unwrap();
        store.acquire(SHARD).await.unwrap();
        let mut chain = Chain::default();
        let mut keys = Vec::new();
        for (number, owner) in [here, ghost].into_iter().enumerate() {
            registry.register(owner, &phone, NodeId { node: 1, boot: 1 }).await.unwrap();
            let id = MessageId::from_stored(&[7; 16]).unwrap();
            let identity = Identity { sender, conversation: ConversationId::direct(sender, owner), id };
            let record = Record { identity, content: Content::Text("x".into()), reply_to: None, at_ms: 0 };
            let body_hash = record.body_hash();
            let record = chain.extend(
                Source { partition: 0, epoch: 1 },
                number as u64,
                (SHARD, Verdict::Deliver(record, vec![sender, owner])),
            );
            keys.push((
                KeyOf { owner, identity, refused: None },
                KeyRow { seq: Some(1), body_hash, position: record.position() },
            ));
            log.append(Topic::Mailbox, 0, record.encode()).await.unwrap();
        }
        for (owner, seq) in [(here, 1), (ghost, 0)] {
            store.cursor(owner, &phone, Some(seq)).await.unwrap();
        }
        let expect = Checkpoint { owner_epoch: 1, offset: 0 };
        store.commit(SHARD, Commit { expect, next_offset: 2, keys, ..Commit::default() }).await.unwrap();
        let ports = Ports { log: Arc::new(log.clone()), store: Arc::new(store), registry, partitions: 1 };
        let _follower = tokio::spawn(async move { run(SHARD, &ports).await });
        sleep(BEHIND_ATTACHED + EVERY * 3).await;
        assert_eq!(told(&log).await, [3], "who is attached and has acknowledged it is not woken");
    }
}
