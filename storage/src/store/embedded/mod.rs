//! The embedded store: mailboxes in one fjall database, devices in one SQLite file (docs/decisions/0002). One process a folder.
//!
//! A commit is one batch in one journal with one fsync, durable before any reader can see it. A write error of the engine is the end of the
//! process ([`Fatal`]): after it nothing said about the disk could be trusted. Memory is bounded by [`Options`]; events are not cached, so
//! nothing here keeps a message or its JSON alive.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use protocol::{ConversationId, DeviceName, Position, Seq, UserId};
use router::expand::ShardId;
use tokio::sync::Semaphore;

use super::{
    Acquired, Checkpoint, Commit, Cursor, Cutoff, Delivered, Head, KeyOf, KeyRow, Page, Place, Retained, Seen, Slice, Standing,
    Store, StoreError,
};
use crate::StorageError;
use crate::receipt::ReceiptKey;
use protocol::receipt::{Marks, Receipt};

mod devices;
mod engine;
mod heads;
mod layout;
mod listings;
mod read;
mod receipts;
mod retain;
mod torn;
mod write;

use devices::Devices;
pub use devices::Instance;
use engine::{Engine, unreadable};
use heads::Heads;
use listings::Listings;
use write::{Known, Writer};

/// Called once when the engine cannot write. Must not return in a server; a test looks on instead, and the store then refuses every write.
pub type Fatal = Arc<dyn Fn(&str) + Send + Sync>;

/// Exit code after a failed write (`EX_SOFTWARE`).
pub const FATAL_EXIT: i32 = 70;

/// Bounds and hooks.
#[derive(Clone)]
pub struct Options {
    /// Block cache.
    pub cache_bytes: u64,
    /// Size at which a memtable is sealed and written out; there are nine.
    pub memtable_bytes: u64,
    /// Journal kept at most before memtables are forced out; at least 64 MiB.
    pub journal_bytes: u64,
    /// Threads that flush and compact.
    pub workers: usize,
    /// Heads kept in memory at least.
    pub heads_cached: usize,
    /// Reads that may be on blocking threads at once.
    pub readers: usize,
    /// What to do when a write fails.
    pub fatal: Fatal,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            memtable_bytes: 8 << 20,
            journal_bytes: 256 << 20,
            workers: 3,
            heads_cached: 100_000,
            readers: 16,
            fatal: Arc::new(|why| {
                tracing::error!(why, "the disk cannot be trusted any more: ending the process");
                std::process::exit(FATAL_EXIT);
            }),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("cache_bytes", &self.cache_bytes)
            .field("memtable_bytes", &self.memtable_bytes)
            .finish_non_exhaustive()
    }
}

/// The part that commits and reads without waiting for anybody: shared by the cycle's thread and the readers.
struct Mailboxes {
    engine: Engine,
    heads: Heads,
    /// How far deliveries are told, of recent mailboxes: kept as heads are, with no floor.
    through: Heads,
    writer: Mutex<Writer>,
    resume: Mutex<retain::Resume>,
}

/// The embedded store.
pub struct EmbeddedStore {
    mailboxes: Arc<Mailboxes>,
    devices: Devices,
    instance: Instance,
    readers: Arc<Semaphore>,
    listings: Listings,
}

impl std::fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedStore").field("instance", &self.instance).finish_non_exhaustive()
    }
}

impl EmbeddedStore {
    /// Opens or creates the store in a folder.
    ///
    /// # Errors
    /// [`StorageError::Folder`] when the folder cannot be used, another process has it, or its parts do not belong together.
    pub async fn open(dir: &Path, options: Options) -> Result<Self, StorageError> {
        let folder = |why: String| StorageError::Folder { path: dir.display().to_string(), why };
        std::fs::create_dir_all(dir).map_err(|error| folder(error.to_string()))?;
        let (path, heads, readers) = (dir.join("mailboxes"), options.heads_cached, options.readers);
        let opened = tokio::task::spawn_blocking(move || Engine::open(&path, &options)).await;
        let engine = opened.map_err(|error| folder(error.to_string()))??;
        let devices = Devices::open(&dir.join("devices.sqlite")).await?;
        let instance = devices.instance().await?;
        // new folders and files are only safe when their names are
        std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| folder(error.to_string()))?;
        let mailboxes = Mailboxes {
            engine,
            heads: Heads::new(heads),
            through: Heads::new(heads),
            writer: Mutex::default(),
            resume: Mutex::default(),
        };
        mailboxes.belong_to(&instance.id).map_err(|error| folder(error.to_string()))?;
        let (listings, readers) = (Listings::new(readers), Arc::new(Semaphore::new(readers)));
        Ok(Self { mailboxes: Arc::new(mailboxes), devices, instance, readers, listings })
    }

    /// Which instance this is.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Bytes on disk by the engine's own account, journals included.
    ///
    /// # Errors
    /// When the engine has failed.
    pub fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.mailboxes.engine.database.disk_space().map_err(unreadable)
    }

    /// Closes the device file. The mailboxes need no closing.
    pub async fn close(&self) {
        self.devices.close().await;
    }

    /// As [`Store::acquire`], on this thread.
    pub(crate) fn acquire_blocking(&self, shard: ShardId) -> Result<Checkpoint, StoreError> {
        self.mailboxes.acquire_now(shard).map(|(checkpoint, _)| checkpoint)
    }

    /// As [`Store::keys`], on this thread.
    pub(crate) fn keys_blocking(&self, keys: &[KeyOf]) -> Result<Vec<Option<KeyRow>>, StoreError> {
        self.mailboxes.keys_now(keys)
    }

    /// The head of a mailbox, from memory if it is there.
    pub(crate) fn head_blocking(&self, owner: UserId) -> Result<Head, StoreError> {
        self.mailboxes.head_now(owner)
    }

    /// As [`Store::receipts`], on this thread.
    pub(crate) fn receipts_blocking(&self, keys: &[ReceiptKey]) -> Result<Vec<Option<Marks>>, StoreError> {
        self.mailboxes.receipts_now(keys)
    }

    /// As [`Store::commit`], on this thread, by a writer that has looked for all keys since its last commit.
    pub(crate) fn commit_blocking(&self, shard: ShardId, commit: &Commit) -> Result<(), StoreError> {
        self.mailboxes.commit_now(shard, commit, Known::Keys)
    }

    /// Ends the process by the fatal handler.
    pub(crate) fn fail(&self, why: &str) {
        self.mailboxes.engine.fail(why);
    }

    /// Runs a read on a blocking thread, as many at once as are allowed.
    async fn blocking<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Mailboxes) -> Result<T, StoreError> + Send + 'static,
    {
        let stopped = |why: String| StoreError::Unavailable(why);
        let permit = Arc::clone(&self.readers).acquire_owned().await.map_err(|error| stopped(error.to_string()))?;
        let mailboxes = Arc::clone(&self.mailboxes);
        let work = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&mailboxes)
        });
        work.await.map_err(|error| stopped(error.to_string()))?
    }
}

impl Mailboxes {
    /// Mailboxes and devices of different instances must not meet: cursors of one mean nothing in the other.
    fn belong_to(&self, instance: &str) -> Result<(), StoreError> {
        const KEY: &str = "instance";
        match self.engine.checkpoints.get(KEY).map_err(unreadable)? {
            Some(known) if *known == *instance.as_bytes() => Ok(()),
            Some(_) => Err(layout::damaged("mailboxes/ and devices.sqlite are of different instances")),
            None => {
                let mut batch = self.engine.batch(1, Some(fjall::PersistMode::SyncData));
                batch.insert(&self.engine.checkpoints, KEY, instance);
                self.engine.commit(batch)
            }
        }
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn acquire(&self, shard: ShardId) -> Result<Acquired, StoreError> {
        let (checkpoint, high_waters) = self.blocking(move |mailboxes| mailboxes.acquire_now(shard)).await?;
        Ok(Acquired { checkpoint, fingerprint: 0, stream_epoch: self.instance.stream_epoch, high_waters })
    }

    async fn checkpoint(&self, shard: ShardId) -> Result<Checkpoint, StoreError> {
        self.blocking(move |mailboxes| mailboxes.checkpoint_now(shard)).await
    }

    async fn commit(&self, shard: ShardId, commit: Commit) -> Result<(), StoreError> {
        self.blocking(move |mailboxes| mailboxes.commit_now(shard, &commit, Known::Nothing)).await
    }

    // nothing follows an embedded store: it stands behind no log
    async fn followed(&self, shard: ShardId) -> Result<u64, StoreError> {
        Ok(self.checkpoint(shard).await?.offset)
    }

    async fn save_followed(&self, _shard: ShardId, _offset: u64) -> Result<(), StoreError> {
        Ok(())
    }

    async fn keys(&self, _shard: ShardId, keys: &[KeyOf]) -> Result<Vec<Option<KeyRow>>, StoreError> {
        let keys = keys.to_vec();
        self.blocking(move |mailboxes| mailboxes.keys_now(&keys)).await
    }

    async fn heads(&self, _shard: ShardId, owners: &[UserId]) -> Result<Vec<Head>, StoreError> {
        let owners = owners.to_vec();
        self.blocking(move |mailboxes| owners.iter().map(|owner| mailboxes.head_now(*owner)).collect()).await
    }

    async fn read(&self, owner: UserId, after: Seq, max_events: u32, max_bytes: u32) -> Result<Slice, StoreError> {
        // a device at its head, the usual case of an attach, costs no snapshot and no thread. Behind, or ahead of what memory says
        // (a commit is just becoming visible), one snapshot decides.
        let head = self.mailboxes.head_now(owner)?;
        if head.head == after {
            return Ok(Slice { epoch: self.instance.stream_epoch, events: Vec::new(), head });
        }
        let slice = self.blocking(move |mailboxes| mailboxes.read_now(owner, after, max_events, max_bytes)).await?;
        Ok(Slice { epoch: self.instance.stream_epoch, ..slice })
    }

    async fn history(
        &self,
        _reader: UserId,
        conversation: ConversationId,
        before: Position,
        limit: u32,
    ) -> Result<Page, StoreError> {
        self.blocking(move |mailboxes| mailboxes.history_now(conversation, before, limit)).await
    }

    async fn conversations(&self, owner: UserId, before: Position, limit: u32) -> Result<Page, StoreError> {
        let _turn = self.listings.turn(owner).await?;
        self.blocking(move |mailboxes| mailboxes.conversations_now(owner, before, limit)).await
    }

    async fn cursor(&self, owner: UserId, device: &DeviceName, says: Option<Seq>) -> Result<Place, StoreError> {
        let born_at = match says {
            Some(seq) => seq,
            None => self.mailboxes.head_now(owner)?.head,
        };
        let seq = self.devices.cursor(owner, device, born_at).await?;
        Ok(Place { epoch: self.instance.stream_epoch, seq })
    }

    async fn save_cursors(&self, cursors: &[Cursor]) -> Result<(), StoreError> {
        // the epoch of this store never changes: a cursor of another one is no cursor of this store
        if cursors.iter().all(|cursor| cursor.epoch == self.instance.stream_epoch) {
            return self.devices.save(cursors).await;
        }
        let ours: Vec<_> = cursors.iter().filter(|cursor| cursor.epoch == self.instance.stream_epoch).cloned().collect();
        self.devices.save(&ours).await
    }

    async fn newest(&self, owners: &[UserId]) -> Result<Vec<Option<Place>>, StoreError> {
        let (owners, epoch) = (owners.to_vec(), self.instance.stream_epoch);
        let place = move |mailboxes: &Mailboxes, owner| Ok(Some(Place { epoch, seq: mailboxes.head_now(owner)?.head }));
        self.blocking(move |mailboxes| owners.into_iter().map(|owner| place(mailboxes, owner)).collect()).await
    }

    fn known_epoch(&self, _owner: UserId) -> u64 {
        self.instance.stream_epoch
    }

    async fn receipts(&self, _shard: ShardId, keys: &[ReceiptKey]) -> Result<Vec<Option<Marks>>, StoreError> {
        let keys = keys.to_vec();
        self.blocking(move |mailboxes| mailboxes.receipts_now(&keys)).await
    }

    async fn receipts_since(&self, owner: UserId, rev: u64, limit: u32) -> Result<Vec<Receipt>, StoreError> {
        self.blocking(move |mailboxes| mailboxes.receipts_since_now(owner, rev, limit)).await
    }

    async fn delivered(&self, owner: UserId, acknowledged: Place, after: Seq) -> Result<Option<Delivered>, StoreError> {
        // told already, the usual case of an attach: no snapshot and no thread
        let nothing = acknowledged.seq == 0 || acknowledged.epoch != self.instance.stream_epoch;
        if nothing || acknowledged.seq <= self.mailboxes.through_now(owner)? {
            return Ok(None);
        }
        self.blocking(move |mailboxes| mailboxes.delivered_now(owner, acknowledged.seq, after)).await
    }

    async fn last_positions(&self, owner: UserId, conversations: &[ConversationId]) -> Result<Vec<Option<Position>>, StoreError> {
        let conversations = conversations.to_vec();
        self.blocking(move |mailboxes| mailboxes.last_positions_now(owner, &conversations)).await
    }

    async fn standings(&self, owner: UserId, conversations: &[ConversationId]) -> Result<Vec<Standing>, StoreError> {
        if conversations.is_empty() {
            return Ok(Vec::new());
        }
        let conversations = conversations.to_vec();
        let _turn = self.listings.turn(owner).await?;
        self.blocking(move |mailboxes| mailboxes.standings_now(owner, &conversations)).await
    }

    async fn save_seen(&self, seen: &[Seen]) -> Result<(), StoreError> {
        self.devices.save_seen(seen).await
    }

    async fn last_seen(&self, users: &[UserId]) -> Result<Vec<Option<u64>>, StoreError> {
        self.devices.last_seen(users).await
    }

    async fn retain(&self, cutoff: Cutoff) -> Result<Retained, StoreError> {
        let mut progress = retain::Progress::default();
        while !progress.done() {
            progress = self
                .blocking(move |mailboxes| {
                    mailboxes.retain_step(cutoff, &mut progress)?;
                    Ok(progress)
                })
                .await?;
            tokio::task::yield_now().await;
        }
        Ok(progress.retained)
    }
}
