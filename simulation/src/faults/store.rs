//! The store with bad luck.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use protocol::{ConversationId, DeviceName, Position, Seq, UserId};
use router::expand::ShardId;
use storage::store::memory::MemoryStore;
use storage::store::{
    Acquired, Checkpoint, Commit, Cursor, Cutoff, Head, KeyOf, KeyRow, Page, Place, Retained, Slice, Store, StoreError,
};
use tokio::time::sleep;

use super::Fate;
use crate::process::Process;
use crate::sim::Sim;

/// A commit whose outcome is unknown may be done this much later.
const LATE_MS: u64 = 3000;

/// When each event was committed, for the checks of promptness and the races of attach.
#[derive(Debug, Default)]
pub struct Committed {
    at_ms: Mutex<BTreeMap<(UserId, Seq), u64>>,
}

impl Committed {
    /// When this event was committed.
    pub fn at_ms(&self, owner: UserId, seq: Seq) -> Option<u64> {
        self.at_ms.lock().get(&(owner, seq)).copied()
    }

    /// The newest seq committed for an owner.
    pub fn head(&self, owner: UserId) -> Seq {
        self.at_ms
            .lock()
            .range(..=(owner, Seq::MAX))
            .next_back()
            .filter(|((of, _), _)| *of == owner)
            .map_or(0, |((_, seq), _)| *seq)
    }
}

/// The store as one process sees it.
pub struct FaultyStore {
    /// The store.
    pub inner: MemoryStore,
    /// Whose calls these are.
    pub process: Arc<Process>,
    /// Shared parts.
    pub sim: Arc<Sim>,
    /// What was committed when.
    pub committed: Arc<Committed>,
}

impl FaultyStore {
    async fn reading<T>(&self, what: &str, answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        self.process.gate().await;
        self.process.danger(self.sim.weather.crashes / 2, what).await;
        sleep(self.sim.delay()).await;
        if self.sim.strikes(self.sim.weather.fails) {
            return Err(StoreError::Unavailable("simulated".into()));
        }
        let answer = answer.await;
        sleep(self.sim.delay()).await;
        self.process.gate().await;
        answer
    }

    async fn commit_late(&self, shard: ShardId, commit: Commit) {
        let after = self.sim.up_to_ms(LATE_MS);
        let (inner, sim, committed) = (self.inner.clone(), Arc::clone(&self.sim), Arc::clone(&self.committed));
        tokio::spawn(async move {
            sleep(after).await;
            if done(&inner, &sim, &committed, (shard, commit)).await.is_ok() {
                sim.saw("commit that failed but was done later");
            }
        });
    }
}

/// Commits, and looks whether a stale owner was let through.
async fn done(
    inner: &MemoryStore,
    sim: &Sim,
    committed: &Committed,
    (shard, commit): (ShardId, Commit),
) -> Result<(), StoreError> {
    let before = inner.checkpoint(shard).await?;
    let (expect, next) = (commit.expect, commit.next_offset);
    let rows: Vec<_> = commit.rows.iter().map(|row| (row.owner, row.event.seq)).collect();
    let result = inner.commit(shard, commit).await;
    sim.note(|| {
        format!("shard {} commits {}->{next} by owner {}: {rows:?} {result:?}", shard.0, expect.offset, expect.owner_epoch)
    });
    if result.is_ok() {
        if before != expect {
            sim.wrong(format!("a stale owner's commit was taken: {expect:?} at {before:?}"));
        }
        committed.at_ms.lock().extend(rows.into_iter().map(|row| (row, sim.now_ms())));
    }
    result
}

#[async_trait]
impl Store for FaultyStore {
    async fn acquire(&self, shard: ShardId) -> Result<Acquired, StoreError> {
        self.reading("before acquire", self.inner.acquire(shard)).await
    }

    async fn checkpoint(&self, shard: ShardId) -> Result<Checkpoint, StoreError> {
        self.reading("before reading the checkpoint", self.inner.checkpoint(shard)).await
    }

    async fn commit(&self, shard: ShardId, commit: Commit) -> Result<(), StoreError> {
        let crashes = self.sim.weather.crashes;
        self.process.gate().await;
        self.process.danger(crashes, "before a commit").await;
        sleep(self.sim.delay()).await;
        let fate = Fate::draw(&self.sim);
        let result = match fate {
            Fate::Fails => Err(StoreError::Unavailable("simulated".into())),
            Fate::Late => {
                self.commit_late(shard, commit).await;
                Err(StoreError::Unknown)
            }
            Fate::Done | Fate::Unknown => done(&self.inner, &self.sim, &self.committed, (shard, commit)).await,
        };
        self.process.danger(crashes, "after a commit").await;
        sleep(self.sim.delay()).await;
        self.process.gate().await;
        if fate == Fate::Unknown { Err(StoreError::Unknown) } else { result }
    }

    async fn followed(&self, shard: ShardId) -> Result<u64, StoreError> {
        self.reading("before reading the follower's offset", self.inner.followed(shard)).await
    }

    async fn save_followed(&self, shard: ShardId, offset: u64) -> Result<(), StoreError> {
        self.reading("before writing the follower's offset", self.inner.save_followed(shard, offset)).await
    }

    async fn keys(&self, shard: ShardId, keys: &[KeyOf]) -> Result<Vec<Option<KeyRow>>, StoreError> {
        self.reading("before reading keys", self.inner.keys(shard, keys)).await
    }

    async fn heads(&self, shard: ShardId, owners: &[UserId]) -> Result<Vec<Head>, StoreError> {
        self.reading("before reading heads", self.inner.heads(shard, owners)).await
    }

    async fn read(&self, owner: UserId, after: Seq, max_events: u32, max_bytes: u32) -> Result<Slice, StoreError> {
        self.reading("before reading a mailbox", self.inner.read(owner, after, max_events, max_bytes)).await
    }

    async fn history(
        &self,
        reader: UserId,
        conversation: ConversationId,
        before: Position,
        limit: u32,
    ) -> Result<Page, StoreError> {
        self.reading("before reading history", self.inner.history(reader, conversation, before, limit)).await
    }

    async fn conversations(&self, owner: UserId, before: Position, limit: u32) -> Result<Page, StoreError> {
        self.reading("before reading conversations", self.inner.conversations(owner, before, limit)).await
    }

    async fn cursor(&self, owner: UserId, device: &DeviceName, says: Option<Seq>) -> Result<Place, StoreError> {
        self.reading("before reading a cursor", self.inner.cursor(owner, device, says)).await
    }

    async fn save_cursors(&self, cursors: &[Cursor]) -> Result<(), StoreError> {
        self.reading("before saving cursors", self.inner.save_cursors(cursors)).await
    }

    async fn newest(&self, owners: &[UserId]) -> Result<Vec<Option<Place>>, StoreError> {
        self.reading("before comparing heads", self.inner.newest(owners)).await
    }

    fn known_epoch(&self, owner: UserId) -> u64 {
        self.inner.known_epoch(owner)
    }

    async fn retain(&self, cutoff: Cutoff) -> Result<Retained, StoreError> {
        self.reading("before retention", self.inner.retain(cutoff)).await
    }
}
