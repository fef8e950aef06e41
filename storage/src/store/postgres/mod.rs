//! Mailboxes in Postgres: some databases, each with some of the virtual shards.
//!
//! **Path.** `commit` is one call of one function ([`write`]), together with those that wait for the same database ([`group`]). Reads are one statement each ([`read`], [`devices`]). `init` makes the tables and gives each
//! shard its place ([`shards`]); [`move_shard`] takes a shard to another database while it serves.
//!
//! **Invariants.** A shard is open in exactly one database: its row there says so, and every statement looks at that row, so a process with an old
//! [`map`] writes nothing into an old copy and reads nothing from it. Only primaries are talked to.
//!
//! **Loss policy.** A database that does not answer costs its own shards a wait, bounded by `call_timeout_ms`; after that they fail at once
//! until it is back. A commit whose answer is lost is `Unknown`.
//!
//! **Deliberately absent.** Automatic failover: another primary gets the old one's address, or the configuration names it. Connection poolers are
//! possible (one statement a call), but for moves, which need a session.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use parking_lot::RwLock;
use protocol::{ConversationId, DeviceName, Position, Seq, UserId};
use router::expand::{ShardId, Shards};
use sqlx::postgres::PgRow;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::{Acquired, Checkpoint, Commit, Cursor, Cutoff, Head, KeyOf, KeyRow, Page, Place, Retained, Slice, Store, StoreError};
use crate::StorageError;

mod config;
mod base;
mod map;
mod rows;
mod schema;
mod write;
mod columns;
mod group;
mod read;
mod devices;
mod follower;
mod positions;
mod retain;
pub mod mend;
pub mod shards;
mod tables;
pub mod move_shard;

pub use config::{Database, PostgresConfig};
pub use positions::Taken;

use base::{Base, PgQuery};
use devices::nowhere;
use map::{Claim, Map};
use rows::{get, number};

/// Between two readings of the map that calls ask for: while a shard moves, many do.
const REFRESH_PAUSE: Duration = Duration::from_millis(20);

#[cfg(feature = "contract")]
tokio::task_local! {
    /// A test ends a move at this point: it says that it is there, and stands until its future is dropped.
    pub static HALT_AT: (&'static str, Arc<Notify>);
}

/// A point of a move at which tests end it.
pub(crate) async fn halt(point: &'static str) {
    protocol::plant::halt(point);
    #[cfg(feature = "contract")]
    if let Ok(Some(reached)) = HALT_AT.try_with(|(at, reached)| (*at == point).then(|| Arc::clone(reached))) {
        reached.notify_one();
        std::future::pending::<()>().await;
    }
    let _ = point;
}

/// The store of a cluster.
#[derive(Debug)]
pub struct PostgresStore {
    inner: Arc<Inner>,
    refresher: AbortHandle,
}

#[derive(Debug)]
struct Inner {
    cluster_id: String,
    shards: Shards,
    device_days: u16,
    bases: Vec<Arc<Base>>,
    map: RwLock<Map>,
    /// How often the map was read; only one reads at a time.
    readings: tokio::sync::Mutex<()>,
    reading: AtomicU64,
    /// The map is to be read soon.
    wake: Notify,
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.refresher.abort();
    }
}

impl PostgresStore {
    /// Opens the store. Databases that do not answer now are asked again and again; until then their shards are unavailable.
    ///
    /// # Errors
    /// [`StorageError::Config`] for a configuration that makes no sense, [`StorageError::Database`] when a database that answers is another
    /// cluster's, has another number of shards, or was never initialized.
    pub async fn connect(config: &PostgresConfig) -> Result<Self, StorageError> {
        config.check()?;
        let bases: Result<Vec<_>, _> =
            config.databases.iter().map(|database| Base::new(database, config).map(Arc::new)).collect();
        let inner = Arc::new(Inner {
            cluster_id: config.cluster_id.clone(),
            shards: config.shards()?,
            device_days: config.device_days,
            bases: bases?,
            map: RwLock::new(Map::new(config.virtual_shards)),
            readings: tokio::sync::Mutex::new(()),
            reading: AtomicU64::new(0),
            wake: Notify::new(),
        });
        inner.read_map(true).await;
        if let Some((name, why)) = inner.bases.iter().find_map(|base| Some((base.name.clone(), base.refused()?))) {
            return Err(StorageError::Database { name, why });
        }
        for base in inner.bases.iter().filter(|base| !base.is_up()) {
            tracing::warn!(database = base.name, "the database does not answer yet: its shards wait");
        }
        let refresher =
            tokio::spawn(keep_reading(Arc::downgrade(&inner), Duration::from_millis(config.refresh_ms.max(10)))).abort_handle();
        Ok(Self { inner, refresher })
    }

    /// Which databases answer, by name.
    pub fn reachable(&self) -> Vec<(String, bool)> {
        self.inner.bases.iter().map(|base| (base.name.clone(), base.is_up())).collect()
    }

    /// The shards that each database is thought to hold, by its name.
    pub fn held(&self) -> Vec<(String, Vec<ShardId>)> {
        let map = self.inner.map.read();
        self.inner.bases.iter().enumerate().map(|(at, base)| (base.name.clone(), map.of(at))).collect()
    }

    /// Closes all connections; waits a bounded time for calls that run.
    pub async fn close(&self) {
        self.refresher.abort();
        join_all(self.inner.bases.iter().map(|base| base.close())).await;
    }
}

/// Reads the map every few seconds, or when somebody calls for it, as long as the store is there.
async fn keep_reading(store: Weak<Inner>, every: Duration) {
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tick.tick().await;
    loop {
        let Some(inner) = store.upgrade() else { return };
        tokio::select! {
            _ = tick.tick() => inner.read_map(true).await,
            () = inner.wake.notified() => inner.refresh(inner.seen()).await,
        }
    }
}

impl Inner {
    /// How often the map was read by now.
    fn seen(&self) -> u64 {
        self.reading.load(Ordering::Acquire)
    }

    /// Has the map read, unless that was done since `seen`. Who comes meanwhile waits for the same reading.
    async fn refresh(&self, seen: u64) {
        let _one = self.readings.lock().await;
        if self.seen() == seen {
            tokio::time::sleep(REFRESH_PAUSE).await;
            self.read_map(false).await;
        }
    }

    /// Asks the databases what they hold, all at once; those that are away only if `all`, since that takes time.
    async fn read_map(&self, all: bool) {
        let asked = self.bases.iter().enumerate().filter(|(_, base)| all || base.is_up());
        join_all(asked.map(|(at, base)| self.ask(at, base))).await;
        self.reading.fetch_add(1, Ordering::AcqRel);
        metrics::gauge!("switchboard_store_shards_unplaced").set(self.map.read().unknown() as f64);
    }

    async fn ask(&self, at: usize, base: &Base) {
        match base.ask(|| sqlx::query(schema::CLAIMS)).await.and_then(|rows| self.claims(&rows)) {
            Ok(Ok(claims)) => {
                self.map.write().learn(at, &claims);
                base.set_up();
            }
            Ok(Err(foreign)) => base.refuse(foreign),
            Err(StoreError::Unavailable(why)) if why.contains(schema::UNDEFINED_TABLE) => {
                base.refuse("it was never initialized for a cluster".to_owned());
            }
            Err(why) => base.set_down(&why),
        }
    }

    /// What a database says it holds, or why it is none of ours.
    fn claims(&self, rows: &[PgRow]) -> Result<Result<Vec<Claim>, String>, StoreError> {
        let Some(top) = rows.first() else { return Ok(Err("it was never initialized for a cluster".to_owned())) };
        let theirs = (get(top, "cluster_id")?, get(top, "virtual_shards")?);
        if let Some(why) = schema::foreign((&self.cluster_id, self.shards.count()), theirs) {
            return Ok(Err(why));
        }
        if !get::<bool>(top, "ready")? {
            return Ok(Err("its initialization was never finished: run it again".to_owned()));
        }
        let mut claims = Vec::with_capacity(rows.len());
        for row in rows {
            // a database that has joined and holds nothing yet
            let Some(shard) = get::<Option<i32>>(row, "shard")? else { continue };
            let shard = u16::try_from(shard).map_err(|_| rows::damaged("a shard's number"))?;
            let (version, stream_epoch) = (number(row, "map_version")?, number(row, "stream_epoch")?);
            claims.push(Claim { shard, open: get(row, "open")?, version, stream_epoch });
        }
        Ok(Ok(claims))
    }

    fn index_of(&self, shard: ShardId) -> Option<usize> {
        self.map.read().place(shard).map(|place| place.base)
    }

    /// The database that has the shard, as far as is known; looks once more if it is not known.
    async fn base_of(&self, shard: ShardId) -> Result<&Arc<Base>, StoreError> {
        if self.index_of(shard).is_none() {
            self.refresh(self.seen()).await;
        }
        self.index_of(shard).map(|at| &self.bases[at]).ok_or_else(|| nowhere(shard))
    }

    /// Runs a statement where the shard is. One that answers with no row has met a shard that is not open there: then the map is read, and it is
    /// tried once more.
    async fn at<'q>(&self, shard: ShardId, make: impl Fn() -> PgQuery<'q> + Send + Sync) -> Result<Vec<PgRow>, StoreError> {
        for last in [false, true] {
            let seen = self.seen();
            let rows = self.base_of(shard).await?.read(&make).await?;
            if !rows.is_empty() {
                return Ok(rows);
            }
            if !last {
                self.refresh(seen).await;
            }
        }
        Err(StoreError::Unavailable(format!("shard {} is on its way to another database", shard.0)))
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn acquire(&self, shard: ShardId) -> Result<Acquired, StoreError> {
        self.inner.acquire_now(shard).await
    }

    async fn checkpoint(&self, shard: ShardId) -> Result<Checkpoint, StoreError> {
        self.inner.checkpoint_now(shard).await
    }

    async fn commit(&self, shard: ShardId, commit: Commit) -> Result<(), StoreError> {
        let began = std::time::Instant::now();
        let done = self.inner.commit_now(shard, commit).await;
        if done.is_ok() {
            metrics::histogram!("switchboard_storage_commit_seconds").record(began.elapsed().as_secs_f64());
        }
        done
    }

    async fn followed(&self, shard: ShardId) -> Result<u64, StoreError> {
        self.inner.followed_now(shard).await
    }

    async fn save_followed(&self, shard: ShardId, offset: u64) -> Result<(), StoreError> {
        self.inner.save_followed_now(shard, offset).await
    }

    async fn keys(&self, shard: ShardId, keys: &[KeyOf]) -> Result<Vec<Option<KeyRow>>, StoreError> {
        self.inner.keys_now(shard, keys).await
    }

    async fn reached(&self, shard: ShardId, keys: &[KeyOf]) -> Result<Vec<bool>, StoreError> {
        self.inner.reached_now(shard, keys).await
    }

    async fn heads(&self, shard: ShardId, owners: &[UserId]) -> Result<Vec<Head>, StoreError> {
        self.inner.heads_now(shard, owners).await
    }

    async fn read(&self, owner: UserId, after: Seq, max_events: u32, max_bytes: u32) -> Result<Slice, StoreError> {
        self.inner.read_now(owner, after, max_events, max_bytes).await
    }

    async fn history(
        &self,
        reader: UserId,
        conversation: ConversationId,
        before: Position,
        limit: u32,
    ) -> Result<Page, StoreError> {
        self.inner.history_now(reader, conversation, before, limit).await
    }

    async fn conversations(&self, owner: UserId, before: Position, limit: u32) -> Result<Page, StoreError> {
        self.inner.conversations_now(owner, before, limit).await
    }

    async fn cursor(&self, owner: UserId, device: &DeviceName, says: Option<Seq>) -> Result<Place, StoreError> {
        self.inner.cursor_now(owner, device, says).await
    }

    async fn save_cursors(&self, cursors: &[Cursor]) -> Result<(), StoreError> {
        self.inner.save_now(cursors).await
    }

    async fn newest(&self, owners: &[UserId]) -> Result<Vec<Option<Place>>, StoreError> {
        let places = self.inner.newest_now(owners).await;
        if !owners.is_empty() && places.iter().all(Option::is_none) && !self.inner.bases.iter().any(|base| base.is_up()) {
            return Err(StoreError::Unavailable("none of the databases answers".to_owned()));
        }
        Ok(places)
    }

    fn known_epoch(&self, owner: UserId) -> u64 {
        self.inner.map.read().stream_epoch(self.inner.shards.of(owner))
    }

    async fn last_positions(&self, owner: UserId, conversations: &[ConversationId]) -> Result<Vec<Option<Position>>, StoreError> {
        self.inner.last_positions_now(owner, conversations).await
    }

    async fn retain(&self, cutoff: Cutoff) -> Result<Retained, StoreError> {
        self.inner.retain_now(cutoff).await
    }
}
