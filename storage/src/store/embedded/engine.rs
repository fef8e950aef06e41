//! The engine under the mailboxes: one fjall database. One journal, so one fsync makes a whole batch durable.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fjall::config::{BloomConstructionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Fatal, Options, torn};
use crate::StorageError;
use crate::store::StoreError;

/// The database and its keyspaces; see [`super::layout`].
pub(super) struct Engine {
    pub(super) database: Database,
    pub(super) bodies: Keyspace,
    pub(super) mailbox: Keyspace,
    pub(super) history: Keyspace,
    pub(super) keys: Keyspace,
    pub(super) conversations: Keyspace,
    pub(super) heads: Keyspace,
    pub(super) receipts: Keyspace,
    pub(super) revisions: Keyspace,
    pub(super) checkpoints: Keyspace,
    /// From handing a batch over until it is durable and visible.
    pub(super) fsync: metrics::Histogram,
    failed: AtomicBool,
    fatal: Fatal,
    /// Last, so that it is given back when everything else is closed.
    _lock: File,
}

/// A failed read. Nothing was changed by it.
pub(super) fn unreadable(error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(_) | fjall::Error::Poisoned => StoreError::Unavailable(error.to_string()),
        other => StoreError::Damaged(other.to_string()),
    }
}

fn no_folder(path: &Path, why: impl std::fmt::Display) -> StorageError {
    StorageError::Folder { path: path.display().to_string(), why: why.to_string() }
}

/// One process a folder. Our own lock, since the journal is looked at, and perhaps cut, before the engine takes its own.
fn lock(path: &Path) -> Result<File, StorageError> {
    let path = path.with_extension("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(|error| no_folder(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(no_folder(&path, "another process has it open")),
        Err(TryLockError::Error(error)) => Err(no_folder(&path, error)),
    }
}

fn open_database(path: &Path, options: &Options) -> fjall::Result<Database> {
    Database::builder(path)
        .cache_size(options.cache_bytes)
        .max_journaling_size(options.journal_bytes)
        .worker_threads(options.workers)
        .manual_journal_persist(true)
        .open()
}

impl Engine {
    /// Opens or creates the database in its folder.
    pub(super) fn open(path: &Path, options: &Options) -> Result<Self, StorageError> {
        let lock = lock(path)?;
        torn::look(path).map_err(|error| no_folder(path, error))?;
        let database = open_database(path, options).map_err(|error| no_folder(path, error))?;
        let keyspace = |name: &str, hits: bool| {
            let create = || {
                KeyspaceCreateOptions::default()
                    .manual_journal_persist(true)
                    .max_memtable_size(options.memtable_bytes)
                    .expect_point_read_hits(hits)
            };
            database.keyspace(name, create).map_err(|error| no_folder(path, error))
        };
        // most look-ups here are for ids never seen: the filter answers them
        let keys = || {
            let bloom = FilterPolicyEntry::Bloom(BloomConstructionPolicy::FalsePositiveRate(0.0005));
            KeyspaceCreateOptions::default()
                .manual_journal_persist(true)
                .max_memtable_size(options.memtable_bytes)
                .filter_policy(FilterPolicy::all(bloom))
        };
        Ok(Self {
            bodies: keyspace("bodies", true)?,
            mailbox: keyspace("mailbox", true)?,
            history: keyspace("history", true)?,
            keys: database.keyspace("keys", keys).map_err(|error| no_folder(path, error))?,
            conversations: keyspace("conversations", true)?,
            heads: keyspace("heads", false)?,
            receipts: keyspace("receipts", false)?,
            revisions: keyspace("revisions", false)?,
            checkpoints: keyspace("checkpoints", true)?,
            fsync: metrics::histogram!("switchboard_stage_seconds", "stage" => "fsync"),
            failed: AtomicBool::new(false),
            fatal: Arc::clone(&options.fatal),
            _lock: lock,
            database,
        })
    }

    /// An empty batch, durable as `mode` says before anybody can read it.
    pub(super) fn batch(&self, room: usize, mode: Option<PersistMode>) -> fjall::OwnedWriteBatch {
        fjall::OwnedWriteBatch::with_capacity(self.database.clone(), room).durability(mode)
    }

    /// Commits a batch: into the journal, fsync, then into memory. Any error is the end: the kernel may have dropped the dirty pages, so
    /// neither this batch nor a later fsync says anything about what is on disk.
    pub(super) fn commit(&self, batch: fjall::OwnedWriteBatch) -> Result<(), StoreError> {
        if self.failed.load(Ordering::Acquire) {
            return Err(StoreError::Unavailable("an earlier write failed".to_owned()));
        }
        batch.commit().map_err(|error| {
            self.fail(&format!("a write to the mailboxes failed: {error}"));
            StoreError::Unknown
        })
    }

    /// Nothing after this can be trusted.
    pub(super) fn fail(&self, why: &str) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            (self.fatal)(why);
        }
    }
}
