//! The store as one process sees it, with bad luck. Where a shard is it knows by hearsay, and asks again when it is turned away.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use protocol::plant::{Bug, planted};
use protocol::{ConversationId, DeviceName, Position, Seq, UserId};
use router::expand::ShardId;
use storage::store::memory::MemoryStore;
use storage::store::{
    Acquired, Checkpoint, Commit, Cursor, Cutoff, Head, KeyOf, KeyRow, Page, Place, Retained, Slice, Store, StoreError,
};
use tokio::time::sleep;

use super::{Databases, Fate};
use crate::process::{Part, Process};
use crate::sim::Sim;

/// A commit whose outcome is unknown may be done this much later.
const LATE_MS: u64 = 3000;

/// The store of one process.
pub struct FaultyStore {
    /// The databases.
    pub databases: Arc<Databases>,
    /// Whose calls these are.
    pub process: Arc<Process>,
    /// Shared parts.
    pub sim: Arc<Sim>,
    /// In which database it believes a shard to be.
    pub hints: Mutex<BTreeMap<ShardId, usize>>,
}

fn unavailable<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("simulated".into()))
}

impl FaultyStore {
    fn hint(&self, shard: ShardId) -> usize {
        self.hints.lock().get(&shard).copied().unwrap_or(0)
    }

    /// Before a call, whatever it is for.
    async fn come(&self, what: &str) -> Result<(), StoreError> {
        let reaches = self.process.reaches(Part::Store).await;
        self.process.danger(self.sim.weather.crashes / 2, what).await;
        sleep(self.sim.delay()).await;
        if !reaches || self.sim.strikes(self.sim.weather.fails) { unavailable() } else { Ok(()) }
    }

    /// The shard, where it is open; a process that has looked at the wrong place looks again.
    async fn at(&self, shard: ShardId) -> Result<MemoryStore, StoreError> {
        if let Some(store) = self.databases.at(shard, self.hint(shard)) {
            return Ok(store);
        }
        self.sim.saw("reader turned away from a shard that has moved");
        sleep(self.sim.delay()).await;
        let Some(database) = self.databases.find(shard) else { return unavailable() };
        self.hints.lock().insert(shard, database);
        self.databases.at(shard, database).map_or_else(unavailable, Ok)
    }

    /// The answer is on its way back.
    async fn go(&self) {
        sleep(self.sim.delay()).await;
        self.process.gate().await;
    }

    fn commit_late(&self, shard: ShardId, database: usize, commit: Commit) {
        let after = self.sim.up_to_ms(LATE_MS);
        let (databases, sim) = (Arc::clone(&self.databases), Arc::clone(&self.sim));
        tokio::spawn(async move {
            sleep(after).await;
            sim.saw(match databases.commit(shard, database, commit).await {
                Ok(()) => "commit that failed but was done later",
                Err(_) => "commit that came too late and was refused",
            });
        });
    }
}

/// A call that reads, in one step at the database.
macro_rules! read {
    ($self:ident, $shard:expr, $what:literal, $call:ident($($argument:expr),*)) => {{
        $self.come($what).await?;
        let answer = $self.at($shard).await?.$call($($argument),*).await;
        $self.go().await;
        answer
    }};
}

#[async_trait]
impl Store for FaultyStore {
    async fn acquire(&self, shard: ShardId) -> Result<Acquired, StoreError> {
        self.come("before acquire").await?;
        let store = self.at(shard).await?;
        if planted(Bug::GroupOffsetAsTruth) {
            self.databases.skip_to_read(shard, &store).await;
        }
        let answer = store.acquire(shard).await;
        self.go().await;
        answer
    }

    async fn checkpoint(&self, shard: ShardId) -> Result<Checkpoint, StoreError> {
        read!(self, shard, "before reading the checkpoint", checkpoint(shard))
    }

    async fn commit(&self, shard: ShardId, commit: Commit) -> Result<(), StoreError> {
        let crashes = self.sim.weather.crashes;
        let reaches = self.process.reaches(Part::Store).await;
        self.process.danger(crashes, "before a commit").await;
        let (database, fate) = (self.hint(shard), if reaches { Fate::draw(&self.sim) } else { Fate::Fails });
        sleep(self.sim.delay()).await;
        let result = match fate {
            Fate::Fails => unavailable(),
            Fate::Late => {
                self.commit_late(shard, database, commit);
                Err(StoreError::Unknown)
            }
            Fate::Done | Fate::Unknown => self.databases.commit(shard, database, commit).await,
        };
        self.process.danger(crashes, "after a commit").await;
        self.go().await;
        if fate == Fate::Unknown { Err(StoreError::Unknown) } else { result }
    }

    async fn followed(&self, shard: ShardId) -> Result<u64, StoreError> {
        read!(self, shard, "before reading the follower's offset", followed(shard))
    }

    async fn save_followed(&self, shard: ShardId, offset: u64) -> Result<(), StoreError> {
        read!(self, shard, "before writing the follower's offset", save_followed(shard, offset))
    }

    async fn keys(&self, shard: ShardId, keys: &[KeyOf]) -> Result<Vec<Option<KeyRow>>, StoreError> {
        read!(self, shard, "before reading keys", keys(shard, keys))
    }

    async fn heads(&self, shard: ShardId, owners: &[UserId]) -> Result<Vec<Head>, StoreError> {
        read!(self, shard, "before reading heads", heads(shard, owners))
    }

    async fn read(&self, owner: UserId, after: Seq, max_events: u32, max_bytes: u32) -> Result<Slice, StoreError> {
        let shard = self.databases.shards.of(owner);
        read!(self, shard, "before reading a mailbox", read(owner, after, max_events, max_bytes))
    }

    async fn history(
        &self,
        reader: UserId,
        conversation: ConversationId,
        before: Position,
        limit: u32,
    ) -> Result<Page, StoreError> {
        let shard = self.databases.shards.of(reader);
        read!(self, shard, "before reading history", history(reader, conversation, before, limit))
    }

    async fn conversations(&self, owner: UserId, before: Position, limit: u32) -> Result<Page, StoreError> {
        let shard = self.databases.shards.of(owner);
        read!(self, shard, "before reading conversations", conversations(owner, before, limit))
    }

    async fn cursor(&self, owner: UserId, device: &DeviceName, says: Option<Seq>) -> Result<Place, StoreError> {
        let shard = self.databases.shards.of(owner);
        read!(self, shard, "before reading a cursor", cursor(owner, device, says))
    }

    async fn save_cursors(&self, cursors: &[Cursor]) -> Result<(), StoreError> {
        self.come("before saving cursors").await?;
        for cursor in cursors {
            // a failure in the middle leaves some saved
            self.at(self.databases.shards.of(cursor.owner)).await?.save_cursors(std::slice::from_ref(cursor)).await?;
        }
        self.go().await;
        Ok(())
    }

    async fn newest(&self, owners: &[UserId]) -> Result<Vec<Option<Place>>, StoreError> {
        self.come("before comparing heads").await?;
        let mut places = Vec::with_capacity(owners.len());
        for owner in owners {
            // a database that does not answer leaves its mailboxes out
            let place = match self.at(self.databases.shards.of(*owner)).await {
                Ok(store) => store.newest(&[*owner]).await?.first().copied().flatten(),
                Err(_) => None,
            };
            places.push(place);
        }
        self.go().await;
        Ok(places)
    }

    fn known_epoch(&self, owner: UserId) -> u64 {
        self.databases.of(owner).known_epoch(owner)
    }

    async fn last_positions(&self, owner: UserId, conversations: &[ConversationId]) -> Result<Vec<Option<Position>>, StoreError> {
        let shard = self.databases.shards.of(owner);
        read!(self, shard, "before reading positions", last_positions(owner, conversations))
    }

    async fn retain(&self, _cutoff: Cutoff) -> Result<Retained, StoreError> {
        Ok(Retained::default())
    }
}
